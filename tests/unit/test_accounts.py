"""Names of users and groups, as the sandbox will have them; and trees that mislead."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.accounts import credential, read_inside, resolve
from runner.config import Credential, Mount, User
from runner.errors import ConfigError

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment
judge:x:1000:1001::/tmp:/bin/sh
judge:x:5:5:the second of a name is not found::
other:x:1002:1002::/tmp:/bin/sh
broken:x:minus one:1:::
high:x:4294967295:1:::
"""
GROUP = """\
root:x:0:
staff:x:50:judge,other
judges:x:1001:judge
audio:x:29:other,judge
staff:x:50:judge
video:x:44:other
bad:x:fifty:other2
#wheel:x:10:judge
"""
REMEDY = "mount one (Mount.bind, Mount.file), or give ids as numbers"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a root directory of somebody whom we do not trust, beside a secret of ours."""
    (tmp_path / "secret").write_text("secret:x:0:0:::\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "passwd").write_text("secret:x:0:0:::\n")
    (tmp_path / "tree" / "etc").mkdir(parents=True)
    return tmp_path / "tree"


@pytest.fixture(autouse=True)
def no_fds_left() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


def error_of_reading(
    path: str, *, root: Path | str = "", mounts: tuple[Mount, ...] = ()
) -> str:
    with pytest.raises(ConfigError) as caught:
        read_inside(path, root=str(root), mounts=mounts)
    return str(caught.value)


MISSING = f"User: '/etc/passwd': the sandbox has no such file: {REMEDY}"
NOT_REGULAR = f"User: '/etc/passwd': in the sandbox it is no regular file: {REMEDY}"


# Attacks: whoever wrote the tree knows the host, and wants its files read.


def test_read_when_the_file_is_a_link_to_a_file_of_the_host_reads_the_sandboxs(
    tree: Path,
) -> None:
    secret = tree.parent / "secret"
    (tree / "etc/passwd").symlink_to(secret)
    assert error_of_reading("/etc/passwd", root=tree) == MISSING
    (tree / secret.parent.relative_to("/")).mkdir(parents=True)
    (tree / secret.relative_to("/")).write_bytes(b"the sandbox's own")
    assert read_inside("/etc/passwd", root=str(tree), mounts=()) == b"the sandbox's own"


def test_read_when_the_file_is_a_link_to_the_hosts_shadow_finds_none(tree: Path) -> None:
    (tree / "etc/passwd").symlink_to("/etc/shadow")
    assert Path("/etc/shadow").exists()
    assert error_of_reading("/etc/passwd", root=tree) == MISSING
    bound = (Mount.bind(str(tree / "etc"), "/etc"),)
    assert error_of_reading("/etc/passwd", mounts=bound) == MISSING


@pytest.mark.parametrize("up", ["..", "../..", "../../../../../../../.."])
def test_read_when_a_link_leads_up_stays_below_the_sandboxs_root(tree: Path, up: str) -> None:
    (tree / "etc/passwd").symlink_to(f"{up}/secret")
    assert error_of_reading("/etc/passwd", root=tree) == MISSING
    (tree / "secret").write_bytes(b"the sandbox's own")
    assert read_inside("/etc/passwd", root=str(tree), mounts=()) == b"the sandbox's own"


@pytest.mark.parametrize(
    "text", ["{}/outside", "../outside", "../../../outside", "/../outside"]
)
def test_read_when_the_directory_is_a_link_out_of_the_tree_finds_none(
    tree: Path, text: str
) -> None:
    (tree / "etc").rmdir()
    (tree / "etc").symlink_to(text.format(tree.parent))
    assert error_of_reading("/etc/passwd", root=tree) == MISSING
    assert error_of_reading("/passwd", mounts=(Mount.bind(str(tree / "etc"), "/nowhere"),))


def test_read_when_a_bound_tree_has_a_link_follows_it_in_the_sandbox_not_in_the_tree(
    tree: Path,
) -> None:
    (tree / "etc/passwd").symlink_to("/usr/passwd")
    (tree / "usr").mkdir()
    (tree / "usr/passwd").write_bytes(b"of the tree, but not at this path")
    mounts = (Mount.bind(str(tree), "/data"), Mount.file("/usr/passwd", b"the sandbox's"))
    assert read_inside("/data/etc/passwd", root="", mounts=mounts) == b"the sandbox's"


def test_read_when_the_tree_moves_the_directory_of_our_file_gives_our_file(tree: Path) -> None:
    # The kernel follows the link when the file is made, and again when it is read.
    (tree / "etc").rmdir()
    (tree / "evil").mkdir()
    (tree / "evil/passwd").write_bytes(b"judge:x:0:0:::\n")
    (tree / "etc").symlink_to("/evil")
    ours = (Mount.file("/etc/passwd", b"judge:x:1000:1000:::\n"),)
    assert read_inside("/etc/passwd", root=str(tree), mounts=ours) == ours[0].content
    assert read_inside("/evil/passwd", root=str(tree), mounts=ours) == ours[0].content


@pytest.mark.parametrize("swapped", ["etc", "etc/passwd"])
def test_read_when_something_becomes_a_link_meanwhile_never_reads_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/passwd").write_bytes(b"secret")
    real_open = os.open
    swaps = 0

    def swap_at(turn: int) -> bytes | str:
        tree = tmp_path / str(turn)
        (tree / "etc").mkdir(parents=True)
        (tree / "etc/passwd").write_bytes(b"own")
        countdown = turn

        def swapping_open(path: str, flags: int, **options: int) -> int:
            nonlocal countdown, swaps
            if countdown == 0:
                swaps += 1
                (tree / swapped).rename(tree / "old")
                (tree / swapped).symlink_to(tmp_path / "outside" / Path(swapped).name)
                (tmp_path / "outside/etc").unlink(missing_ok=True)
                (tmp_path / "outside/etc").symlink_to(".")
            countdown -= 1
            return real_open(path, flags, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", swapping_open)
            try:
                return read_inside("/etc/passwd", root=str(tree), mounts=())
            except ConfigError as error:
                return str(error)

    outcomes = [swap_at(turn) for turn in range(20)]
    assert 5 < swaps < 20  # before each open that there is, and once not at all
    assert set(outcomes) == {b"own", MISSING, NOT_REGULAR} - (
        {NOT_REGULAR} if swapped == "etc" else set()
    )


@pytest.mark.parametrize("links", [40, 41])
def test_read_follows_as_many_links_as_the_kernel(tree: Path, links: int) -> None:
    (tree / "etc/link0").write_bytes(b"the end")
    for number in range(1, links + 1):
        (tree / f"etc/link{number}").symlink_to(f"link{number - 1}")
    if links == 40:
        assert read_inside(f"/etc/link{links}", root=str(tree), mounts=()) == b"the end"
    else:
        assert error_of_reading(f"/etc/link{links}", root=tree) == (
            f"User: '/etc/link{links}': the sandbox's file cannot be read: "
            f"Too many levels of symbolic links: {REMEDY}"
        )


def test_read_when_links_are_endlessly_long_gives_up(tree: Path) -> None:
    (tree / "etc/passwd").symlink_to("./" * 300 + "real")
    (tree / "etc/real").touch()
    assert error_of_reading("/etc/passwd", root=tree) == (
        "User: '/etc/passwd': the sandbox's file cannot be read: "
        f"Too many levels of symbolic links: {REMEDY}"
    )


def test_read_of_a_fifo_is_refused_and_waits_for_nobody(tree: Path) -> None:
    os.mkfifo(tree / "etc/passwd")
    assert error_of_reading("/etc/passwd", root=tree) == NOT_REGULAR


def test_read_of_a_socket_a_directory_or_a_device_is_refused(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(tree / "etc", os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/passwd")  # a path too long for sun_path otherwise
        os.close(here)
    assert error_of_reading("/etc/passwd", root=tree) == NOT_REGULAR
    (tree / "etc/passwd").unlink()
    (tree / "etc/passwd").mkdir()
    assert error_of_reading("/etc/passwd", root=tree) == NOT_REGULAR
    device = (Mount.bind("/dev/null", "/etc/passwd"),)
    assert error_of_reading("/etc/passwd", mounts=device) == NOT_REGULAR


@pytest.mark.parametrize("extra", [0, 1])
def test_read_takes_a_mebibyte_and_no_more(tree: Path, extra: int) -> None:
    (tree / "etc/passwd").touch()
    os.truncate(tree / "etc/passwd", 2**20 + extra)
    if not extra:
        assert read_inside("/etc/passwd", root=str(tree), mounts=()) == bytes(2**20)
    else:
        assert error_of_reading("/etc/passwd", root=tree) == (
            f"User: '/etc/passwd': in the sandbox it is larger than 1 MiB: {REMEDY}"
        )


def test_read_of_a_file_with_a_lease_waits_for_nobody(tree: Path) -> None:
    (tree / "etc/passwd").touch()
    with open(tree / "etc/passwd", "wb") as held:
        before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # tells the holder of the breach
        try:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            assert error_of_reading("/etc/passwd", root=tree) == (
                "User: '/etc/passwd': the sandbox's file cannot be read: "
                f"Resource temporarily unavailable: {REMEDY}"
            )
        finally:
            signal.signal(signal.SIGIO, before)


# What the sandbox will show, by its mounts.


def test_read_without_a_new_root_gives_the_hosts_file() -> None:
    assert read_inside("/etc/passwd", root="/", mounts=()) == Path("/etc/passwd").read_bytes()


def test_read_in_an_empty_root_names_file_and_remedy() -> None:
    assert error_of_reading("/etc/passwd") == MISSING


def test_read_of_a_file_that_is_mounted_gives_its_content() -> None:
    mounts = (Mount.file("/etc/passwd", b"a"), Mount.file("/etc/group", b"b"))
    assert read_inside("/etc/group", root="", mounts=mounts) == b"b"


def test_read_of_a_bound_file_and_in_a_bound_directory_gives_the_sources(tree: Path) -> None:
    (tree / "etc/passwd").write_bytes(b"of the tree")
    file = Mount.bind(str(tree / "etc/passwd"), "/etc/passwd")
    directory = Mount.bind(str(tree / "etc"), "/etc")
    assert read_inside("/etc/passwd", root="", mounts=(file,)) == b"of the tree"
    assert read_inside("/etc/passwd", root="", mounts=(directory,)) == b"of the tree"


def test_read_of_what_is_restricted_gives_what_is_below_it(tree: Path) -> None:
    (tree / "etc/passwd").write_bytes(b"of the tree")
    bound = Mount.bind(str(tree / "etc"), "/etc")
    shown = (bound, Mount.read_only("/etc"), Mount.remount("/etc"))
    assert read_inside("/etc/passwd", root="", mounts=shown) == b"of the tree"
    with pytest.raises(ConfigError):
        read_inside("/etc/passwd", root="", mounts=(bound, Mount.mask("/etc/passwd")))


def test_read_when_the_callers_own_source_is_a_link_follows_it(tree: Path) -> None:
    # The source of a bind is the caller's word: the kernel follows it on the host.
    (tree / "etc/passwd").write_bytes(b"of the tree")
    (tree.parent / "link").symlink_to(tree)
    bound = (Mount.bind(str(tree.parent / "link/etc"), "/etc"),)
    assert read_inside("/etc/passwd", root="", mounts=bound) == b"of the tree"


def test_read_when_mounts_lie_over_one_another_gives_the_uppermost(tree: Path) -> None:
    (tree / "etc/passwd").write_bytes(b"of the tree")
    etc = Mount.bind(str(tree / "etc"), "/etc/")
    file = Mount.file("/etc/passwd", b"a file")
    again = Mount.file("/etc/passwd", b"the later")
    assert read_inside("/etc/passwd", root="", mounts=(etc, file)) == b"a file"
    assert read_inside("/etc/passwd", root="", mounts=(etc, file, again)) == b"the later"
    assert read_inside("/etc/passwd", root="", mounts=(file, etc)) == b"a file"


def test_read_below_a_tmpfs_or_the_like_finds_nothing(tree: Path) -> None:
    (tree / "etc/passwd").write_bytes(b"of the tree")
    for hiding in (Mount.tmpfs("/etc"), Mount.proc("/etc"), Mount.dev("/etc")):
        assert error_of_reading("/etc/passwd", root=tree, mounts=(hiding,)) == MISSING


def test_read_below_a_directory_that_is_made_finds_what_was_there(tree: Path) -> None:
    (tree / "etc/passwd").write_bytes(b"of the tree")
    made = (Mount.directory("/etc"),)
    assert read_inside("/etc/passwd", root=str(tree), mounts=made) == b"of the tree"
    assert error_of_reading("/etc/passwd", mounts=made) == MISSING


def test_read_when_an_optional_source_is_missing_finds_what_is_below(tree: Path) -> None:
    (tree / "etc/passwd").write_bytes(b"of the tree")
    absent = (Mount.bind(str(tree / "absent"), "/etc", optional=True),)
    assert read_inside("/etc/passwd", root=str(tree), mounts=absent) == b"of the tree"


@pytest.mark.parametrize("text", ["usr/etc", "/usr/etc", "../usr/./etc/"])
def test_read_through_a_link_that_is_mounted_follows_it_in_the_sandbox(
    tree: Path, text: str
) -> None:
    (tree / "etc/passwd").write_bytes(b"of the tree")
    mounts = (Mount.symlink(text, "/etc"), Mount.bind(str(tree / "etc"), "/usr/etc"))
    assert read_inside("/etc/passwd", root="", mounts=mounts) == b"of the tree"


def test_read_below_a_file_finds_nothing(tree: Path) -> None:
    (tree / "etc/passwd").touch()
    assert error_of_reading("/etc/passwd/x", root=tree).startswith("User: '/etc/passwd/x': ")
    mounts = (Mount.file("/etc", b""),)
    assert error_of_reading("/etc/passwd", mounts=mounts) == MISSING


# Names.


def test_user_without_a_group_has_its_own_and_those_that_list_it() -> None:
    assert resolve(User("judge"), passwd=PASSWD, group=GROUP) == Credential(
        1000, 1001, (50, 29)
    )


def test_user_that_no_group_lists_has_its_own_alone() -> None:
    assert resolve(User("root"), passwd=PASSWD, group=GROUP) == Credential(0, 0)


def test_user_with_groups_has_these_and_no_others() -> None:
    user = User("judge", "video", ("staff", "7"))
    assert resolve(user, passwd=PASSWD, group=GROUP) == Credential(1000, 44, (50, 7))


def test_user_by_number_has_the_groups_of_its_entry() -> None:
    assert resolve(User("1000"), passwd=PASSWD, group=GROUP) == Credential(1000, 1001, (50, 29))


def test_user_by_number_with_a_group_needs_no_entry() -> None:
    assert resolve(User("77", "78"), passwd="", group="") == Credential(77, 78)


NO_NAME = "has no such name: add it there, or give its id"
NO_ID = "as an id: an id is 0 to 4294967294"


@pytest.mark.parametrize(
    ("user", "what", "why"),
    [
        (User("nobody"), "User: 'nobody'", f"the sandbox's /etc/passwd {NO_NAME}"),
        (
            User("judge", "wheel"),
            "User.group: 'wheel'",
            f"the sandbox's /etc/group {NO_NAME}",
        ),
        (
            User("judge", "staff", ("audio", "wheel")),
            "User.groups: 'wheel'",
            f"the sandbox's /etc/group {NO_NAME}",
        ),
        (
            User("77"),
            "User: '77'",
            (
                "the sandbox's /etc/passwd has no such uid, so its group is not known: "
                "give a group"
            ),
        ),
        (
            User("judge", None, ("staff",)),
            "User.groups: ('staff',)",
            "they need a group beside them: give one",
        ),
        (
            User("broken"),
            "User: 'broken'",
            f"the sandbox's /etc/passwd has 'minus one' {NO_ID}",
        ),
        (User("high"), "User: 'high'", f"the sandbox's /etc/passwd has '4294967295' {NO_ID}"),
        (
            User("judge", "bad"),
            "User.group: 'bad'",
            f"the sandbox's /etc/group has 'fifty' {NO_ID}",
        ),
        (User("4294967295", "0"), "User: '4294967295'", "an id is 0 to 4294967294"),
        (User("0", "9999999999"), "User.group: '9999999999'", "an id is 0 to 4294967294"),
    ],
)
def test_user_that_is_not_there_is_named_with_file_and_remedy(
    user: User, what: str, why: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(user, passwd=PASSWD, group=GROUP)
    assert str(caught.value) == f"{what}: {why}"


def test_digits_of_other_scripts_are_a_name() -> None:
    with pytest.raises(ConfigError, match="has no such name"):
        resolve(User("²", "0"), passwd=PASSWD, group=GROUP)


def test_user_whose_name_is_digits_has_the_gid_of_its_entry() -> None:
    entries = {"passwd": "77:x:77:50:::\n", "group": "99:x:51:77\n"}
    assert resolve(User("77"), **entries) == Credential(77, 50, (51,))


def test_line_separators_of_unicode_separate_no_lines() -> None:
    text = "guest:x:5:5:\u2028judge:x:0:0:\x85judge:x:0:0:\x0bjudge:x:0:0::\n" + PASSWD
    assert resolve(User("judge", "0"), passwd=text, group="") == Credential(1000, 0)


def test_credential_of_a_name_is_found_in_the_sandboxs_files() -> None:
    mounts = (
        Mount.file("/etc/passwd", b"\xff:x:1:1:\nalice:x:30:31:::\n"),
        Mount.file("/etc/group", b"staff:x:32:alice\n"),
    )
    assert credential(User("alice"), root="", mounts=mounts) == Credential(30, 31, (32,))


def test_credential_of_numbers_needs_no_files() -> None:
    assert credential(User("1", "2", ("3",)), root="", mounts=()) == Credential(1, 2, (3,))


@pytest.mark.parametrize(
    ("user", "present", "missing"),
    [
        (User("alice"), "/etc/passwd", "/etc/group"),
        (User("alice", "1"), "/etc/group", "/etc/passwd"),
        (User("1", "staff"), "/etc/passwd", "/etc/group"),
        (User("1", "1", ("staff",)), "/etc/passwd", "/etc/group"),
        (User("1"), "/etc/group", "/etc/passwd"),
    ],
)
def test_credential_when_a_file_that_it_needs_is_missing_names_it(
    user: User, present: str, missing: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        credential(user, root="", mounts=(Mount.file(present, b"alice:x:1:1\nstaff:x:1:"),))
    assert str(caught.value) == f"User: {missing!r}: the sandbox has no such file: {REMEDY}"
