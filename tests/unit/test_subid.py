"""Which maps of ids a caller may have, compared with sets of single ids where we can."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.config import IdMap
from runner.errors import ConfigError, HostError
from runner.subid import (
    Grant,
    Kind,
    check_maps,
    delegated,
    find_helper,
    helper_command,
    needs_helper,
    nobody_default,
    parse_maps,
    parse_ranges,
    read_grant,
    root_default,
    user_default,
    user_name,
)

WHOLE = (IdMap(0, 0, 4294967295),)
FIELD = "Runner.uid_mappings"
ALICE = Grant(
    kind=Kind.UID, own=1000, namespace=WHOLE, user="alice", ranges=(range(100000, 165536),)
)


def refusal(*maps: IdMap, grant: Grant = ALICE, privileged: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        check_maps(maps, grant, field=FIELD, privileged=privileged)
    return str(caught.value)


# Maps as text (C15).


@pytest.mark.parametrize(
    ("text", "maps"),
    [
        ("0:1000:1", (IdMap(0, 1000),)),
        ("0:1000:1,1:100000:65536", (IdMap(0, 1000), IdMap(1, 100000, 65536))),
        ("0:1000:1;1:5:2,3:9:1", (IdMap(0, 1000), IdMap(1, 5, 2), IdMap(3, 9))),
    ],
)
def test_map_text_gives_each_map(text: str, maps: tuple[IdMap, ...]) -> None:
    assert parse_maps(text) == maps


TOO_MANY = "IdMap.count: 4294967296: a map has at least one id"
SYNTAX = "write START:LOWER:COUNT, more of them after , or ;"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"Invalid ID map: '': {SYNTAX}"),
        ("0:1", f"Invalid ID map: '0:1': {SYNTAX}"),
        ("0:1:1,", f"Invalid ID map: '': {SYNTAX}"),
        ("0:1:1;5:x:1", f"Invalid ID map: '5:x:1': {SYNTAX}"),
        ("0:1:1 ", f"Invalid ID map: '0:1:1 ': {SYNTAX}"),
        ("0:1:1:1", f"Invalid ID map: '0:1:1:1': {SYNTAX}"),
        ("-1:1:1", f"Invalid ID map: '-1:1:1': {SYNTAX}"),
        ("0:1:٣", f"Invalid ID map: '0:1:٣': {SYNTAX}"),
        ("0:1:" + "9" * 5000, "Invalid ID map: '0:1:" + "9" * 5000 + f"': {SYNTAX}"),
        ("0:1:0", "Invalid ID map: '0:1:0': IdMap.count: 0: a map has at least one id"),
        ("0:1:4294967296", f"Invalid ID map: '0:1:4294967296': {TOO_MANY}"),
    ],
)
def test_map_text_that_is_none_is_refused_with_the_part(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_maps(text)
    assert str(caught.value) == message


# Files of delegated ids.

SUBUID = """\
# of this department

alice:100000:65536
bob:165536:65536
1000:300000:10
+
bob:not for us to read
 alice:400000:1
10:500000:1
"""


def test_ranges_of_a_user_are_found_by_name_and_by_number() -> None:
    assert parse_ranges(SUBUID, user="alice", uid=1000, path="/etc/subuid") == (
        range(100000, 165536),
        range(300000, 300010),
        range(400000, 400001),
    )


def test_ranges_of_a_user_that_is_not_there_are_none() -> None:
    assert parse_ranges(SUBUID, user="ali", uid=100, path="/etc/subuid") == ()


@pytest.mark.parametrize(
    "line",
    [
        "alice:100000",
        "alice:100000:65536:1",
        "alice:100000:65536x",
        "alice::65536",
        "alice:0x10:1",
        "alice:-1:1",
        "alice:100000:0",
        "alice:4294967290:6",
        "1000:1:",
        "alice 100000 65536",
    ],
)
def test_line_of_a_user_that_is_malformed_is_named_with_its_file(line: str) -> None:
    with pytest.raises(HostError) as caught:
        parse_ranges(f"#\n{line}\n", user="alice", uid=1000, path="/etc/subuid")
    assert str(caught.value) == f"/etc/subuid, line 2: {line!r} is not NAME:START:COUNT"
    assert caught.value.hint == "correct this line, such as alice:100000:65536"


def test_range_may_end_with_the_last_id() -> None:
    text = "alice:4294967290:5"
    ranges = parse_ranges(text, user="alice", uid=1, path="")
    assert ranges == (range(4294967290, 4294967295),)


def test_delegated_without_a_file_is_nothing(tmp_path: Path) -> None:
    assert delegated(str(tmp_path / "subuid"), user="alice", uid=1000) == ()


def test_delegated_to_nobody_with_a_name_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text(SUBUID)
    assert delegated(str(tmp_path / "subuid"), user=None, uid=1000) == ()


def test_delegated_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        delegated(str(tmp_path), user="alice", uid=1000)
    assert str(caught.value) == f"{tmp_path} cannot be read: Is a directory"


# Whose ranges (C19). uid 1 is a user of every host, and its name is not root's.

DAEMON = pwd.getpwuid(1).pw_name


@pytest.mark.parametrize(
    ("environ", "login"),
    [
        ({"USER": "root"}, ""),
        ({"USER": "root", "LOGNAME": "root"}, "root"),
        ({"LOGNAME": "root"}, ""),
        ({}, "root"),
        ({"USER": "no such user"}, ""),
        ({"USER": "1"}, ""),
        ({}, ""),
        ({"USER": DAEMON}, "root"),
        ({"USER": "", "LOGNAME": DAEMON}, "root"),
    ],
)
def test_user_name_is_never_that_of_another_uid(environ: dict[str, str], login: str) -> None:
    assert user_name(1, environ, login=login) == DAEMON


@pytest.mark.parametrize(
    ("environ", "login", "name"),
    [
        ({"USER": "second", "LOGNAME": "third"}, "first", "second"),
        ({"LOGNAME": "third"}, "second", "third"),
        ({}, "second", "second"),
        ({"USER": "root", "LOGNAME": "third"}, "second", "first"),
    ],
)
def test_user_name_of_a_uid_with_several_is_chosen_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], login: str, name: str
) -> None:
    entry = pwd.struct_passwd(("first", "x", 1000, 1000, "", "/", "/bin/sh"))
    root = pwd.struct_passwd(("root", "x", 0, 0, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: root if name == "root" else entry)
    monkeypatch.setattr(pwd, "getpwuid", {1000: entry}.__getitem__)
    assert user_name(1000, environ, login=login) == name


def test_user_name_of_a_uid_without_a_name_is_none() -> None:
    assert user_name(54321, {"USER": "root"}, login="root") is None


def test_grant_of_this_process_has_its_ids_and_ranges(tmp_path: Path) -> None:
    (tmp_path / "subgid").write_text(f"{os.getuid()}:100000:7\n")
    grant = read_grant(Kind.GID, WHOLE, path=str(tmp_path / "subgid"))
    assert grant == Grant(
        kind=Kind.GID,
        own=os.getegid(),
        namespace=WHOLE,
        user=pwd.getpwuid(os.getuid()).pw_name,
        ranges=(range(100000, 100007),),
    )
    assert read_grant(Kind.UID, WHOLE, path=str(tmp_path / "subgid")).own == os.geteuid()


# What may be mapped (C18).


def test_map_of_the_own_id_and_delegated_ones_is_accepted() -> None:
    check_maps((IdMap(0, 1000), IdMap(1, 100000, 65536)), ALICE, field=FIELD)


def test_map_of_ids_that_are_not_delegated_names_the_part_and_the_remedy() -> None:
    assert refusal(IdMap(0, 1000), IdMap(1, 165530, 10)) == (
        "Runner.uid_mappings: '1:165530:10': 165536 to 165539 are not delegated to you: "
        "as root, usermod --add-subuids 165536-165539 alice, which is the line "
        "alice:165536:4 in /etc/subuid"
    )


def test_map_of_the_hosts_root_is_refused_to_a_user() -> None:
    assert refusal(IdMap(0, 0)) == (
        "Runner.uid_mappings: '0:0:1': 0 is not delegated to you: as root, usermod "
        "--add-subuids 0-0 alice, which is the line alice:0:1 in /etc/subuid"
    )


def test_map_of_a_user_without_a_name_says_that_it_needs_one() -> None:
    grant = Grant(kind=Kind.GID, own=1000, namespace=WHOLE)
    assert refusal(IdMap(0, 5), grant=grant) == (
        "Runner.uid_mappings: '0:5:1': 5 is not delegated to you: your uid has no name, and "
        "only to a name can they be: add it to passwd"
    )


def test_map_of_delegated_ids_that_a_container_lacks_names_what_it_has() -> None:
    grant = Grant(
        kind=Kind.UID,
        own=1000,
        namespace=(IdMap(0, 1000), IdMap(1, 100000, 65535), IdMap(100000, 300000, 10)),
        user="alice",
        ranges=(range(100000, 165536),),
    )
    check_maps((IdMap(0, 100000, 10),), grant, field=FIELD)
    assert refusal(IdMap(0, 100000, 11), grant=grant) == (
        "Runner.uid_mappings: '0:100000:11': 100010 is not in your user namespace, which has "
        "0, 1 to 65535, 100000 to 100009"
    )


def test_map_of_a_privileged_caller_may_have_every_id_of_its_namespace() -> None:
    check_maps((IdMap(0, 0, 65536),), ALICE, field=FIELD, privileged=True)
    grant = Grant(kind=Kind.UID, own=0, namespace=(IdMap(0, 100000, 65536),))
    assert refusal(IdMap(0, 1, 65536), grant=grant, privileged=True) == (
        "Runner.uid_mappings: '0:1:65536': 65536 is not in your user namespace, which has 0 to "
        "65535"
    )


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (
            (IdMap(0, 1000), IdMap(0, 100000, 5)),
            "'0:1000:1,0:100000:5': they overlap inside: map each id once",
        ),
        (
            (IdMap(5, 100004, 5), IdMap(0, 100000, 5)),
            "'5:100004:5,0:100000:5': they overlap outside: map each id once",
        ),
        (
            (IdMap(4294967290, 100000, 6),),
            "'4294967290:100000:6': inside it goes beyond 4294967294, the last id",
        ),
        (
            (IdMap(0, 4294967290, 6),),
            "'0:4294967290:6': outside it goes beyond 4294967294, the last id",
        ),
        (
            tuple(IdMap(2 * n, 2 * n) for n in range(341)),
            "341: the kernel takes at most 340 lines",
        ),
        (
            tuple(IdMap(2 * n, 100000 + 2 * n) for n in range(340)),
            "340: these lines are 4365 bytes, the kernel takes 4095",
        ),
    ],
)
@pytest.mark.parametrize("privileged", [True, False])
def test_map_that_the_kernel_would_refuse_is_refused(
    maps: tuple[IdMap, ...], message: str, privileged: bool
) -> None:
    assert refusal(*maps, privileged=privileged) == f"Runner.uid_mappings: {message}"


def test_map_that_gets_too_long_by_what_the_helper_asks_for_is_refused() -> None:
    maps = [*(IdMap(n, n) for n in range(0, 678, 2)), IdMap(999, 999, 3)]
    check_maps(maps, ALICE, field=FIELD, privileged=True)
    assert refusal(*maps) == "Runner.uid_mappings: 342: the kernel takes at most 340 lines"


IDS = st.integers(0, 24)
RANGES = st.lists(st.builds(lambda a, n: range(a, a + n), IDS, st.integers(1, 6)), max_size=4)
MAPS = st.lists(st.builds(IdMap, IDS, IDS, st.integers(1, 6)), min_size=1, max_size=3)


def inside(maps: list[IdMap]) -> list[int]:
    return [m.inside + n for m in maps for n in range(m.count)]


def outside(maps: list[IdMap]) -> list[int]:
    return [m.outside + n for m in maps for n in range(m.count)]


def pairs(maps: list[IdMap] | tuple[IdMap, ...]) -> dict[int, int]:
    return {m.inside + n: m.outside + n for m in maps for n in range(m.count)}


@given(MAPS, IDS, RANGES, RANGES, st.booleans())
@settings(max_examples=500)
def test_map_is_accepted_just_if_each_id_of_it_may_be_given(
    maps: list[IdMap], own: int, ranges: list[range], exist: list[range], privileged: bool
) -> None:
    namespace = tuple(IdMap(ids.start, ids.start, len(ids)) for ids in exist)
    grant = Grant(
        kind=Kind.UID, own=own, namespace=namespace, user="alice", ranges=tuple(ranges)
    )
    may = set(inside(list(namespace)))
    if not privileged:
        may &= {own}.union(*ranges)
    wanted = outside(maps)
    once = len(set(wanted)) == len(set(inside(maps))) == len(wanted)
    try:
        check_maps(maps, grant, field=FIELD, privileged=privileged)
        accepted = True
    except ConfigError:
        accepted = False
    assert accepted == (once and set(wanted) <= may)


# Who writes it (K31), and what it is told.


@pytest.mark.parametrize(
    ("maps", "needed"),
    [
        ((IdMap(7, 1000),), False),
        ((IdMap(0, 1001),), True),
        ((IdMap(0, 1000, 2),), True),
        ((IdMap(0, 1000), IdMap(1, 100000)), True),
    ],
)
def test_helper_is_needed_for_all_but_the_own_id_alone(
    maps: tuple[IdMap, ...], needed: bool
) -> None:
    assert needs_helper(maps, 1000, privileged=False) == needed
    assert not needs_helper(maps, 1000, privileged=True)


def test_helper_command_has_a_word_for_the_pid_and_each_number() -> None:
    maps = (IdMap(0, 1000), IdMap(1, 100000, 65536))
    assert helper_command("/usr/bin/newuidmap", maps, 1000) == [
        *("/usr/bin/newuidmap", "{pid}"),
        *("0", "1000", "1"),
        *("1", "100000", "65536"),
    ]


@given(MAPS, IDS)
def test_helper_command_means_the_map_and_has_the_own_id_in_a_line_of_its_own(
    maps: list[IdMap], own: int
) -> None:
    numbers = list(map(int, helper_command("newuidmap", maps, own)[2:]))
    lines = [IdMap(*numbers[n : n + 3]) for n in range(0, len(numbers), 3)]
    assert list(zip(inside(lines), outside(lines), strict=True)) == list(
        zip(inside(maps), outside(maps), strict=True)
    )
    assert all(m.count == 1 for m in lines if own in outside([m]))


@pytest.fixture
def helpers(tmp_path: Path) -> Path:
    """Make a newuidmap; it has the rights of the `mode` that a test gives it."""
    shutil.copy("/bin/true", tmp_path / "newuidmap")
    return tmp_path


def lack(helpers: Path, status: str = "/proc/self/status", kind: Kind = Kind.UID) -> str | None:
    with pytest.raises(HostError) as caught:
        find_helper(kind, directories=[str(helpers)], status=status)
    assert str(caught.value) == kind.helper
    return caught.value.hint


def test_helper_that_is_missing_is_named_with_its_package(helpers: Path) -> None:
    assert lack(helpers, kind=Kind.GID) == "install the package uidmap"


def test_helper_without_privileges_is_refused(helpers: Path) -> None:
    hint = f"as root: chmod u+s {helpers}/newuidmap, it has no privileges"
    assert lack(helpers) == hint
    if os.geteuid() == 0:
        os.chown(helpers / "newuidmap", 65534, 65534)
    (helpers / "newuidmap").chmod(0o4755)  # set-user-ID, but not root's
    assert lack(helpers) == hint


def test_helper_that_is_set_user_id_root_is_found(
    helpers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real_stat = str(helpers / "newuidmap"), os.stat

    def stat_of_root(of: str, **options: bool) -> os.stat_result:
        result = real_stat(of, **options)
        return (
            os.stat_result((0o104755, *result[1:4], 0, *result[5:])) if of == path else result
        )

    (helpers / "status").write_text("")
    monkeypatch.setattr(os, "stat", stat_of_root)
    assert (
        find_helper(Kind.UID, directories=[str(helpers)], status=str(helpers / "status"))
        == path
    )


def test_helper_with_privileges_is_found_where_they_can_be_used(
    helpers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, status = str(helpers / "newuidmap"), tmp_path / "status"
    status.write_text("Seccomp:\t0\nNoNewPrivs:\t0\n")
    monkeypatch.setattr(os, "listxattr", {path: ["security.capability"]}.__getitem__)
    found = find_helper(Kind.UID, directories=["/nowhere", str(helpers)], status=str(status))
    assert found == path
    status.write_text("Seccomp:\t0\nNoNewPrivs:\t1\n")
    assert lack(helpers, str(status)) == (
        "start this program without no_new_privs (NoNewPrivileges= of systemd, "
        "allowPrivilegeEscalation of Kubernetes), with which nothing is set-user-ID"
    )
    status.write_text("")
    nosuid = os.statvfs_result((0,) * 8 + (os.ST_NOSUID, 0))
    monkeypatch.setattr(os, "statvfs", {path: nosuid}.__getitem__)
    assert lack(helpers, str(status)) == f"mount without nosuid what {path} is on"


# Maps that nobody asked for (C16, C17, U47).


def test_default_of_root_maps_it_to_the_highest_id_and_others_to_themselves() -> None:
    assert root_default(WHOLE) == (IdMap(0, 4294967294), IdMap(1, 1, 4294967293))
    assert root_default([IdMap(0, 100000, 65536)]) == (IdMap(0, 65535), IdMap(1, 1, 65534))
    assert root_default([IdMap(0, 1000), IdMap(1, 100000)]) == (IdMap(0, 1),)


@pytest.mark.parametrize("namespace", [(), (IdMap(0, 1000),)])
def test_default_of_root_without_a_second_id_is_an_error(namespace: tuple[IdMap, ...]) -> None:
    with pytest.raises(HostError) as caught:
        root_default(namespace)
    assert str(caught.value) == "a second id in this user namespace"
    assert caught.value.hint == "give a map, or run where uid_map has more"


@given(st.sets(IDS.filter(bool), min_size=1))
def test_default_of_root_has_every_id_but_one(ids: set[int]) -> None:
    namespace = [IdMap(number, number + 100) for number in sorted(ids | {0}, reverse=True)]
    top = max(ids)
    assert pairs(root_default(namespace)) == {0: top} | {n: n for n in ids - {top}}


def test_default_of_a_user_maps_its_own_id_and_then_what_is_delegated() -> None:
    assert user_default(ALICE, helper=True) == (IdMap(0, 1000), IdMap(1, 100000, 65536))
    assert user_default(ALICE, helper=False) == (IdMap(0, 1000),)


@given(IDS, RANGES, RANGES)
def test_default_of_a_user_has_each_usable_id_once_and_in_order(
    own: int, ranges: list[range], exist: list[range]
) -> None:
    namespace = tuple(IdMap(ids.start, 50 + ids.start, len(ids)) for ids in exist)
    grant = Grant(kind=Kind.UID, own=own, namespace=namespace, ranges=tuple(ranges))
    maps = list(user_default(grant, helper=True))
    usable = set().union(*ranges) & set(inside(list(namespace)))
    assert maps[0] == IdMap(0, own)
    assert inside(maps) == list(range(len(usable | {own})))
    assert sorted(outside(maps)) == sorted(usable | {own})
    if own in inside(list(namespace)):
        check_maps(maps, grant, field=FIELD)


def test_default_of_a_user_keeps_the_order_of_the_file() -> None:
    grant = Grant(kind=Kind.UID, own=1000, namespace=WHOLE, ranges=(range(9, 12), range(3, 5)))
    assert user_default(grant, helper=True) == (IdMap(0, 1000), IdMap(1, 9, 3), IdMap(4, 3, 2))


def test_default_of_a_container_is_nobody() -> None:
    assert nobody_default() == (IdMap(0, 65534),)
    assert nobody_default(1000) == (IdMap(0, 1000),)
