"""`stage()`: what a program needs, found by reading it. Rows U35, H84."""

from __future__ import annotations

import os
import re
import resource
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.config import Mount, MountKind
from runner.errors import ConfigError, HostError
from runner.staging import libraries, script, stage

X86_64, I386, AARCH64 = 62, 3, 183
EXEC, DYN, OBJECT = 2, 3, 1
BASE = 0x10000  # where the file is loaded, so that addresses are not offsets


def make_elf(
    *,
    needed: Sequence[str] = (),
    interpreter: str | None = None,
    soname: str | None = None,
    rpath: str | None = None,
    runpath: str | None = None,
    bits: int = 64,
    order: str = "<",
    machine: int = X86_64,
    kind: int = DYN,
) -> bytes:
    """Make an ELF file with what staging reads, and nothing that could run."""
    strings = b"\0"
    entries = []
    tagged = [(1, name) for name in needed]
    tagged += [(14, soname), (15, rpath), (29, runpath)]
    for tag, text in tagged:
        if text is not None:
            entries.append((tag, len(strings)))
            strings += os.fsencode(text) + b"\0"
    word = "Q" if bits == 64 else "I"
    header_size, segment_size = (64, 56) if bits == 64 else (52, 32)
    count = 2 + (interpreter is not None)
    at_strings = header_size + count * segment_size
    at_name = at_strings + len(strings)
    name = os.fsencode(interpreter or "") + b"\0"
    at_dynamic = at_name + len(name)
    entries += [(5, BASE + at_strings), (0, 0)]
    dynamic = b"".join(struct.pack(order + word * 2, *entry) for entry in entries)
    size = at_dynamic + len(dynamic)

    def segment(purpose: int, offset: int, length: int) -> bytes:
        places = (offset, BASE + offset, 0, length, 0)
        if bits == 64:
            return struct.pack(order + "2I6Q", purpose, 0, *places, 0)
        return struct.pack(order + "8I", purpose, *places, 0, 0)

    segments = segment(1, 0, size) + segment(2, at_dynamic, len(dynamic))
    if interpreter is not None:
        segments += segment(3, at_name, len(name))
    head = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    head += struct.pack(
        f"{order}HHI3{word}IHHHHHH",
        *(kind, machine, 1, 0, header_size, 0),
        *(0, header_size, segment_size, count, 0, 0, 0),
    )
    return head + segments + strings + name + dynamic


def put(path: Path, data: bytes | None = None, mode: int = 0o755, **fields: object) -> str:
    """Write a file, an ELF one if no data is given; give its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make_elf(**fields) if data is None else data)  # type: ignore[arg-type]
    path.chmod(mode)
    return str(path)


def targets(*programs: str | tuple[str, str], **options: Sequence[str]) -> list[str]:
    return [mount.target for mount in stage(programs, **options)]


def refusal(*programs: str | tuple[str, str], **options: Sequence[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        stage(programs, **options)
    return str(caught.value)


def some_programs(count: int) -> list[str]:
    """Give dynamic programs of this host, from all over its /usr/bin."""
    found = []
    for path in sorted(Path("/usr/bin").iterdir()):
        if path.is_file() and os.access(path, os.R_OK):
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    found.append(str(path))
    return sorted({os.path.realpath(path) for path in found[:: len(found) // count]})


@pytest.mark.parametrize("program", some_programs(40))
def test_libraries_of_the_hosts_programs_are_those_of_ldd(program: str) -> None:
    ldd = subprocess.run(["ldd", program], check=False, capture_output=True, text=True)
    expected = set(re.findall(r"(?:^\t|=> )(/\S+) \(0x", ldd.stdout, re.MULTILINE))
    assert expected or "not a dynamic executable" in ldd.stderr + ldd.stdout
    mounts = [mount for mount in stage([program]) if mount.kind is MountKind.BIND]
    found = {mount.target for mount in mounts} - {program, "/etc/ld.so.cache"}
    assert found == {os.path.normpath(path) for path in expected}


def test_program_is_bound_readonly_with_its_real_file_at_the_named_path(tmp_path: Path) -> None:
    real = put(tmp_path / "real")
    link = tmp_path / "link"
    link.symlink_to(real)
    assert stage([str(link)]) == [Mount.bind(real, str(link))]
    assert stage([(str(link), "/p")]) == [Mount.bind(real, "/p")]


def test_file_without_dynamic_table_needs_nothing() -> None:
    keeper = str(Path(__file__).parents[2] / "runner" / "keeper")
    assert targets(keeper) == [keeper]


def test_files_are_staged_once(tmp_path: Path) -> None:
    put(tmp_path / "libc.so", soname="libc.so")
    both = [put(tmp_path / name, needed=["libc.so"], runpath="$ORIGIN") for name in "ab"]
    assert targets(*both, *both) == [both[0], f"{tmp_path}/libc.so", both[1]]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_libraries_are_found_recursively_in_each_class_and_byte_order(
    bits: int, order: str, tmp_path: Path
) -> None:
    fields = {"bits": bits, "order": order, "runpath": "${ORIGIN}/lib:$ORIGIN"}
    put(tmp_path / "lib/one.so", needed=["two.so"], **fields)
    put(tmp_path / "lib/two.so", needed=["one.so", "three.so"], **fields)
    put(tmp_path / "lib/lib/three.so", **fields)
    program = put(tmp_path / "p", needed=["one.so"], **fields)
    names = ["p", "lib/one.so", "lib/two.so", "lib/lib/three.so"]
    assert targets(program) == [f"{tmp_path}/{name}" for name in names]


@pytest.mark.parametrize(
    "other", [{"bits": 32}, {"machine": AARCH64}, {"order": ">"}, {"data": b"text"}]
)
def test_library_of_another_kind_is_passed_over(
    other: dict[str, object], tmp_path: Path
) -> None:
    put(tmp_path / "1/x.so", **other)
    right = put(tmp_path / "2/x.so")
    program = put(tmp_path / "p", needed=["x.so"], runpath="$ORIGIN/1:$ORIGIN/2")
    assert targets(program) == [program, right]


def test_library_that_is_no_regular_file_is_passed_over_without_waiting(tmp_path: Path) -> None:
    for name in "12":
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "1/x.so")
    (tmp_path / "2/x.so").symlink_to("/dev/tty")
    right = put(tmp_path / "3/x.so")
    program = put(tmp_path / "p", needed=["x.so"], runpath="$ORIGIN/1:$ORIGIN/2:$ORIGIN/3")
    assert targets(program) == [program, right]


# Each row: where the program and its library a.so look, which directories hold b.so (needed by
# a.so), and where it is found. `path` is library_path.
ORDERS = [
    ({"rpath": "R"}, {}, "R path", "R"),  # DT_RPATH is for those who are needed, too
    ({"rpath": "R"}, {"rpath": "S"}, "R S path", "S"),  # … after their own
    ({"rpath": "R"}, {"runpath": "S"}, "R S path", "path"),  # DT_RUNPATH ends it
    ({"rpath": "R"}, {"runpath": "S"}, "R S", "S"),
    ({"rpath": "R", "runpath": "U"}, {"rpath": "S"}, "R path", "path"),  # RPATH does not count
    ({"runpath": "U"}, {}, "U path", "path"),  # DT_RUNPATH is the object's own
    ({}, {"rpath": "S"}, "S path", "S"),  # first
    ({}, {"rpath": "missing::.:S"}, "S", "S"),
]


@pytest.mark.parametrize(("program", "library", "holding", "expected"), ORDERS)
def test_directories_are_searched_in_the_loaders_order(
    program: dict[str, str],
    library: dict[str, str],
    holding: str,
    expected: str,
    tmp_path: Path,
) -> None:
    def absolute(fields: dict[str, str]) -> dict[str, str]:
        return {k: re.sub(r"\b([A-Z])\b", rf"{tmp_path}/\1", v) for k, v in fields.items()}

    put(tmp_path / "path/a.so", needed=["b.so"], **absolute(library))
    for name in holding.split():
        put(tmp_path / name / "b.so")
    path = put(tmp_path / "p", needed=["a.so"], **absolute(program))
    found = targets(path, library_path=[f"{tmp_path}/path"])
    assert found == [path, f"{tmp_path}/path/a.so", f"{tmp_path}/{expected}/b.so"]


def test_library_that_two_need_is_that_of_the_first_who_does(tmp_path: Path) -> None:
    for name in "ab":
        put(tmp_path / f"{name}.so", needed=["c.so"], runpath=f"$ORIGIN/{name}")
        put(tmp_path / name / "c.so")
    program = put(tmp_path / "p", needed=["a.so", "b.so"], runpath="$ORIGIN")
    assert targets(program) == [program, *(f"{tmp_path}/{n}.so" for n in ("a", "b", "a/c"))]


def test_library_named_by_a_path_is_not_searched_for(tmp_path: Path) -> None:
    put(tmp_path / "path/x.so")
    right = put(tmp_path / "sub/x.so")
    program = put(tmp_path / "p", needed=["$ORIGIN/sub/x.so"])
    assert targets(program, library_path=[f"{tmp_path}/path"]) == [program, right]


def test_library_loaded_under_another_name_is_known_by_its_soname(tmp_path: Path) -> None:
    put(tmp_path / "first.so", soname="second.so")
    program = put(tmp_path / "p", needed=["first.so", "second.so"], runpath="$ORIGIN")
    assert targets(program) == [program, f"{tmp_path}/first.so"]


def test_origin_is_the_programs_real_directory_and_inside_that_of_its_target(
    tmp_path: Path,
) -> None:
    loader = put(tmp_path / "ld.so")
    fields = {"needed": ["x.so"], "runpath": "$ORIGIN/../lib"}
    real = put(tmp_path / "app/bin/p", interpreter=loader, **fields)
    library = put(tmp_path / "app/lib/x.so")
    link = tmp_path / "link"
    link.symlink_to(real)
    assert stage([(str(link), "/opt/bin/q")]) == [
        Mount.bind(real, "/opt/bin/q"),
        Mount.bind(loader),
        Mount.directory("/opt/bin"),
        Mount.bind(library, "/opt/lib/x.so"),
    ]


def test_origin_of_a_library_is_the_directory_of_its_name(tmp_path: Path) -> None:
    real = put(tmp_path / "a/1.so", needed=["2.so"], runpath="$ORIGIN")
    link, library = tmp_path / "b/1.so", put(tmp_path / "b/2.so")
    link.symlink_to(real)
    assert targets(str(link)) == [str(link), library]


def test_directory_that_a_path_goes_up_from_is_made(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    library = put(tmp_path / "x.so")
    program = put(tmp_path / "p", needed=["x.so"], runpath=f"{tmp_path}/there/..")
    assert stage([program]) == [
        Mount.bind(program),
        Mount.directory(f"{tmp_path}/there"),
        Mount.bind(library),
    ]


@pytest.mark.parametrize(
    ("machine", "bits", "runpath", "place"),
    [
        (X86_64, 64, "$ORIGIN/$LIB", "lib/x86_64-linux-gnu"),
        (X86_64, 64, "$ORIGIN/${LIB}", "lib64"),
        (I386, 32, "$ORIGIN/$LIB", "lib"),
        (I386, 32, "$ORIGIN/$PLATFORM", "i686"),
        (AARCH64, 64, "$ORIGIN/a-${PLATFORM}", "a-aarch64"),
        (X86_64, 64, "$ORIGIN/$LIBRARY", "$LIBRARY"),
    ],
)
def test_tokens_of_search_paths_are_replaced(
    machine: int, bits: int, runpath: str, place: str, tmp_path: Path
) -> None:
    kind = {"machine": machine, "bits": bits}
    library = put(tmp_path / place / "x.so", **kind)
    program = put(tmp_path / "p", needed=["x.so"], runpath=runpath, **kind)
    assert targets(program) == [program, library]


def make_cache(directory: Path, *names: str) -> str:
    """Make a cache of these directories; each needs a real library, or it is left out."""
    (directory / "conf").write_text("".join(f"{directory}/{name}\n" for name in names))
    cache, conf = str(directory / "cache"), str(directory / "conf")
    subprocess.run(["/sbin/ldconfig", "-X", "-C", cache, "-f", conf], check=True)
    return cache


def test_cache_is_staged_with_a_library_that_is_found_by_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.c").write_text("int x;")
    for name in ("one", "two", "two/glibc-hwcaps/x86-64-v3"):
        (tmp_path / name).mkdir(parents=True)
        output = tmp_path / name / "libx.so.1"
        command = ["gcc", "-shared", "-nostdlib", "-Wl,-soname,libx.so.1", "-o", output]
        subprocess.run([*command, tmp_path / "x.c"], check=True)
    cache = make_cache(tmp_path, "two", "one")
    monkeypatch.setattr(libraries, "CACHE", cache)
    fields = {"machine": AARCH64} if os.uname().machine == "aarch64" else {}
    program = put(tmp_path / "p", needed=["libx.so.1"], **fields)
    assert stage([program]) == [
        Mount.bind(program),
        Mount.bind(str(tmp_path / "two/libx.so.1")),
        Mount.bind(cache, "/etc/ld.so.cache"),
    ]


def test_cache_of_the_host_is_read_as_ldconfig_prints_it() -> None:
    printed = subprocess.run(
        ["/sbin/ldconfig", "-p"], check=True, capture_output=True, text=True
    )
    expected: dict[str, list[str]] = {}
    for line in printed.stdout.splitlines()[1:]:
        if "=>" in line and "hwcap" not in line:
            name, path = line.split(" (", 1)[0].strip(), line.split("=> ")[1]
            expected.setdefault(name, []).append(path)
    assert libraries.read_cache("/etc/ld.so.cache") == expected


def test_cache_that_is_missing_or_old_is_empty_and_a_cut_one_is_named(tmp_path: Path) -> None:
    assert libraries.read_cache(f"{tmp_path}/none") == {}
    old = put(tmp_path / "old", b"ld.so-1.7.0\0")
    assert libraries.read_cache(old) == {}
    cut = put(tmp_path / "cut", Path("/etc/ld.so.cache").read_bytes()[:1000])
    with pytest.raises(HostError, match=f"{cut} is damaged"):
        libraries.read_cache(cut)


@pytest.fixture
def musl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(libraries, "MUSL_PATH", f"{tmp_path}/ld-musl-{{}}.path")
    return put(tmp_path / "lib/ld-musl-x.so.1")


def test_musl_finds_libraries_by_its_own_file_and_stages_it(tmp_path: Path, musl: str) -> None:
    library = put(tmp_path / "system/x.so")
    path = put(tmp_path / "ld-musl-x.path", f"/none\n{tmp_path}/system\n".encode())
    needed = ["libc.so", "libc.musl-x86_64.so.1", "libpthread.so.0", "x.so"]
    program = put(tmp_path / "p", needed=needed, interpreter=musl)
    assert targets(program) == [program, musl, library, path]


def test_musl_inherits_runpath_after_the_library_path(tmp_path: Path, musl: str) -> None:
    put(tmp_path / "R/a.so", needed=["b.so", "c.so"])
    put(tmp_path / "R/c.so")
    put(tmp_path / "R/b.so")
    put(tmp_path / "path/c.so")
    program = put(tmp_path / "p", needed=["a.so"], interpreter=musl, runpath="$ORIGIN/R")
    found = targets(program, library_path=[f"{tmp_path}/path"])
    assert found == [
        program,
        musl,
        *(f"{tmp_path}/{n}" for n in ("R/a.so", "R/b.so", "path/c.so")),
    ]


# What is refused: the file that is at fault, why, and what to do.


def test_missing_program_is_named() -> None:
    text = "stage: '/no/such': No such file or directory: give a program that you may read"
    assert refusal("/no/such") == text


def test_program_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (str(tmp_path), f"{tmp_path}/fifo", "/dev/null"):
        text = f"stage: {path!r}: not a regular file: give a program that you may read"
        assert refusal(path) == text


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("bin/true", "give an absolute path"),
        ("/a/../bin/true", "give a path without .."),
        ("/a\0b", "it holds a NUL byte"),
        (("/bin/true", "true"), "give an absolute path"),
    ],
)
def test_program_that_is_no_plain_absolute_path_is_refused(
    program: str | tuple[str, str], why: str
) -> None:
    assert refusal(program).endswith(why)


def test_one_text_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(ConfigError, match="give a list of programs"):
        stage("/bin/true")


def test_library_path_that_is_relative_is_refused() -> None:
    text = "stage library_path: 'lib': give an absolute path"
    assert refusal("/bin/true", library_path=["lib"]) == text


def test_missing_loader_is_told_from_a_missing_file(tmp_path: Path) -> None:
    program = put(tmp_path / "p", interpreter="/lib/ld-none.so")
    assert refusal(program) == (
        f"stage: {program!r}: the file exists, its loader '/lib/ld-none.so' does not "
        "(No such file or directory): install the C library that it was linked with"
    )


@pytest.mark.parametrize(
    ("fields", "mode"), [({"data": b"#!/bin/sh\n"}, 0o755), ({"bits": 32}, 0o755), ({}, 0o644)]
)
def test_loader_that_the_kernel_would_not_take_is_refused(
    fields: dict[str, object], mode: int, tmp_path: Path
) -> None:
    loader = put(tmp_path / "ld.so", mode=mode, **fields)
    program = put(tmp_path / "p", interpreter=loader)
    assert refusal(program) == (
        f"stage: {program!r}: its loader {loader!r} is no executable for x86_64-linux-gnu: "
        "link it anew"
    )


def test_loader_that_is_relative_is_refused(tmp_path: Path) -> None:
    program = put(tmp_path / "p", interpreter="lib/ld.so")
    assert "its loader 'lib/ld.so' is no absolute path" in refusal(program)


def test_missing_library_is_named_with_who_needs_it_and_where_was_looked(
    tmp_path: Path,
) -> None:
    middle = put(tmp_path / "a.so", needed=["b.so"], runpath="$ORIGIN/sub:relative:")
    program = put(tmp_path / "p", needed=["a.so"], runpath="$ORIGIN")
    assert refusal(program, library_path=["/opt"]) == (
        f"stage: {middle!r}: it needs the library 'b.so' (x86_64-linux-gnu), looked for in "
        f"/opt, {tmp_path}/sub, /lib/x86_64-linux-gnu, /usr/lib/x86_64-linux-gnu, /lib64, "
        "/usr/lib64, /lib, /usr/lib: install it, or name its place in library_path"
    )


def test_library_named_by_a_relative_path_is_refused(tmp_path: Path) -> None:
    program = put(tmp_path / "p", needed=["./x.so"])
    assert "'./x.so' (x86_64-linux-gnu), looked for in nothing but relative" in refusal(program)


def test_file_that_is_neither_elf_nor_script_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"\x7fELF", b"plain text", b"echo no first line\n"):
        path = put(tmp_path / "f", data)
        why = "neither ELF nor a script with #!: show it by Mount.bind"
        assert refusal(path) == f"stage: {path!r}: {why}"


def test_what_a_program_names_is_staged_only_if_it_is_code(tmp_path: Path) -> None:
    """Else PT_INTERP, DT_NEEDED or #! would show a program any file of the caller's."""
    secret = put(tmp_path / "secret", b"password", 0o600)
    for number, program in enumerate(
        (
            put(tmp_path / "1", interpreter=secret),
            put(tmp_path / "2", needed=[secret]),
            put(tmp_path / "3", f"#!{secret}\n".encode()),
            put(tmp_path / "4", f"#!/usr/bin/env {secret}\n".encode()),
        )
    ):
        assert "secret" in refusal(program), number


def test_paths_of_the_kernels_file_systems_are_refused(tmp_path: Path) -> None:
    kind = {"machine": AARCH64} if os.uname().machine == "aarch64" else {}
    program = put(tmp_path / "p", needed=["//proc/./self/exe"], **kind)
    assert refusal(program).startswith("stage: '/proc/self/exe': no program or library")


def test_two_files_for_one_place_are_refused(tmp_path: Path) -> None:
    pairs = []
    for name in "ab":
        put(tmp_path / name / "x.so")
        path = put(tmp_path / name / "p", needed=["x.so"], runpath="$ORIGIN")
        pairs.append((path, f"/opt/{name}"))
    assert refusal(*pairs) == (
        f"stage: '/opt/x.so': both '{tmp_path}/a/x.so' and '{tmp_path}/b/x.so' have to be "
        "there: stage one of the programs elsewhere"
    )


def test_more_files_than_a_sandbox_has_room_for_are_refused(tmp_path: Path) -> None:
    names = [f"{number}.so" for number in range(240)]
    for name in names:
        put(tmp_path / name)
    program = put(tmp_path / "p", needed=names, runpath="$ORIGIN")
    assert "more than 240 files: bind whole directories instead" in refusal(program)
    program = put(tmp_path / "p", needed=names[:-1], runpath="$ORIGIN")
    assert len(stage([program])) == 240


# Scripts.


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"#!/bin/sh", ["/bin/sh"]),
        (b"#!/bin/sh\nrest", ["/bin/sh"]),
        (b"#! \t/bin/sh \t-e -u\n", ["/bin/sh"]),
        (b"#!/bin/sh\0\n", ["/bin/sh"]),
        (b"#!/bin/sh " + b"x" * 300, ["/bin/sh"]),  # the argument is cut, as by the kernel
        (b"#!/usr/bin/env tool\n", ["/usr/bin/env", "{}/2/tool"]),
        (b"#!/usr/bin/env\ttool \n", ["/usr/bin/env", "{}/2/tool"]),
        (b"#!/usr/bin/env -S tool -x y\n", ["/usr/bin/env", "{}/2/tool"]),
        (b"#!/usr/bin/env -Stool -x\n", ["/usr/bin/env", "{}/2/tool"]),
        (b"#!/usr/bin/env -vS A=b -i tool -x\n", ["/usr/bin/env", "{}/2/tool"]),
        (b"#!/usr/bin/env --split-string=tool -x\n", ["/usr/bin/env", "{}/2/tool"]),
        (b"#!/usr/bin/env /opt/tool\n", ["/usr/bin/env", "/opt/tool"]),
        (b"#!/usr/bin/env\n", ["/usr/bin/env"]),
        (b"#!/usr/bin/env -i\n", ["/usr/bin/env"]),
    ],
)
def test_first_line_of_a_script_names_who_is_started(
    head: bytes, expected: list[str], tmp_path: Path
) -> None:
    put(tmp_path / "1/tool", mode=0o644)
    put(tmp_path / "2/tool")
    search = [f"{tmp_path}/{number}" for number in range(4)]
    found = script.interpreters("/s", head[: script.HEAD], search)
    assert found == [path.format(tmp_path) for path in expected]


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"#!\n", "its first line is #! without an interpreter: name one"),
        (b"#!  \t" + b" " * 300, "its first line is #! without an interpreter: name one"),
        (b"#!/" + b"x" * 300, "its #! line is longer than 256 bytes: shorten it"),
        (b"#!bin/sh\n", "its interpreter 'bin/sh' is no absolute path: give one"),
        (
            b"#!/usr/bin/env no-such\n",
            (
                "env finds no 'no-such' in /usr/local/bin, /usr/bin, /bin: install it, or name "
                "its path"
            ),
        ),
        (b"#!/usr/bin/env a/b\n", "its interpreter 'a/b' is no absolute path: give one"),
    ],
)
def test_first_line_that_starts_nobody_is_refused(
    head: bytes, why: str, tmp_path: Path
) -> None:
    path = put(tmp_path / "s", head)
    assert refusal(path) == f"stage: {path!r}: {why}"


def test_script_brings_its_interpreter_with_its_libraries(tmp_path: Path) -> None:
    path = put(tmp_path / "s", b"#!/bin/sh\n")
    assert targets(path) == [path, *targets("/bin/sh")]


def test_script_whose_interpreter_is_missing_is_told_from_a_missing_file(
    tmp_path: Path,
) -> None:
    path = put(tmp_path / "s", b"#!/bin/sh\r\necho\r\n")
    assert refusal(path) == (
        f"stage: {path!r}: it exists, its interpreter '/bin/sh\\r' does not (No such file or "
        "directory): install it, or correct the script's first line"
    )


def test_script_whose_interpreter_is_not_executable_is_refused(tmp_path: Path) -> None:
    inner = put(tmp_path / "i", mode=0o644)
    path = put(tmp_path / "s", f"#!{inner}\n".encode())
    assert refusal(path) == (
        f"stage: {path!r}: its interpreter {inner!r} lacks the x bit: chmod +x"
    )


def test_scripts_that_start_each_other_end_at_the_kernels_depth(tmp_path: Path) -> None:
    program = put(tmp_path / "0")
    paths = [program]
    for number in range(1, 7):
        paths.append(put(tmp_path / str(number), f"#!{paths[-1]}\n".encode()))
    assert targets(paths[5]) == paths[5::-1]
    assert refusal(paths[6]) == f"stage: {paths[6]!r}: more than 5 scripts start each other"
    loop = str(tmp_path / "loop")
    put(tmp_path / "loop", f"#!{loop}\n".encode())
    assert "more than 5 scripts" in refusal(loop)


# Hostile files: a ConfigError, in little time and memory.

BOUNDS = settings(
    max_examples=300,
    deadline=2000,
    database=None,  # which some users of this checkout could not write
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SAMPLE = make_elf(
    needed=["a.so", "b.so"],
    interpreter="/lib/ld.so",
    soname="me.so",
    rpath="$ORIGIN/../x:/y",
    runpath="$ORIGIN/$LIB",
)


def stages_or_refuses(path: str) -> None:
    try:
        mounts = stage([path])
    except ConfigError:
        return
    assert {mount.kind for mount in mounts} <= {MountKind.BIND, MountKind.DIRECTORY}


@BOUNDS
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(SAMPLE) - 1), st.binary(min_size=1, max_size=8)),
        max_size=8,
    ),
    length=st.integers(0, len(SAMPLE)) | st.just(len(SAMPLE)),
    bits=st.sampled_from([1, 2]),
)
def test_damaged_file_is_refused_and_nothing_else_happens(
    changes: list[tuple[int, bytes]], length: int, bits: int, tmp_path: Path
) -> None:
    data = bytearray(SAMPLE)
    data[4] = bits
    for offset, piece in changes:
        data[offset : offset + len(piece)] = piece
    stages_or_refuses(put(tmp_path / "p", bytes(data[:length])))


@BOUNDS
@given(line=st.binary(max_size=300))
def test_first_line_of_any_bytes_is_refused_and_nothing_else_happens(
    line: bytes, tmp_path: Path
) -> None:
    stages_or_refuses(put(tmp_path / "s", b"#!" + line))


def patched(fields: dict[int, tuple[str, int]], **made: object) -> bytes:
    data = bytearray(make_elf(**made))  # type: ignore[arg-type]
    for offset, (form, value) in fields.items():
        struct.pack_into("<" + form, data, offset, value)
    return bytes(data)


LOAD, DYNAMIC, INTERPRETER = 64, 64 + 56, 64 + 2 * 56
HOSTILE = {
    "program headers of 0 bytes": ({54: ("H", 0)}, "its program headers have 0 bytes each"),
    "65535 program headers": ({56: ("H", 65535)}, "more than the kernel takes"),
    "program headers behind the end": ({32: ("Q", 2**63 + 1)}, "its end is missing"),
    "a core file": ({16: ("H", 4)}, "neither a program nor a shared library"),
    "a dynamic table of 2**40 bytes": (
        {DYNAMIC + 32: ("Q", 2**40)},
        "dynamic table of 1099511",
    ),
    "a dynamic table elsewhere": ({DYNAMIC + 16: ("Q", 2**64 - 1)}, "nothing of it is loaded"),
    "a dynamic table behind the end": ({LOAD + 32: ("Q", 2**63)}, None),
    "a loader's name of no bytes": (
        {INTERPRETER + 32: ("Q", 1)},
        "its loader's name has 1 bytes",
    ),
    "a loader's name of 4 GiB": ({INTERPRETER + 32: ("Q", 2**32)}, "name has 4294967296 bytes"),
    "a loader's name behind the end": ({INTERPRETER + 8: ("Q", 2**63)}, "without an end"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_header_is_refused(name: str, tmp_path: Path) -> None:
    fields, why = HOSTILE[name]
    path = put(tmp_path / "p", patched(fields, needed=["a.so"], interpreter="/lib/ld.so"))
    assert (why or "stage") in refusal(path)


def test_dynamic_table_ends_at_its_null_entry(tmp_path: Path) -> None:
    data = make_elf(needed=["a.so", "b.so"])
    first = struct.pack("<QQ", 1, 1)  # DT_NEEDED, the string at 1
    assert data.count(first) == 1
    path = put(tmp_path / "p", data.replace(first, bytes(16)))
    assert targets(path) == [path]


def test_sections_without_end_are_not_looked_at(tmp_path: Path) -> None:
    """2**40 of them, in a hole of a sparse file."""
    path = put(tmp_path / "p", patched({40: ("Q", 1 << 20), 60: ("H", 0)}))
    with open(path, "r+b") as file:
        file.seek((1 << 20) + 32)
        file.write(struct.pack("<Q", 2**40))
        file.truncate(1 << 42)
    assert targets(path) == [path]


def cost(path: str) -> tuple[str, float, int]:
    """Give the refusal, and what it took: CPU seconds, and KiB that memory grew by."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    text = refusal(path)
    seconds = time.process_time() - start
    return text, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory


def test_libraries_without_number_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "p", needed=["x.so"] * 4000)
    text, seconds, memory = cost(path)
    assert "it needs 4000 libraries: it is damaged" in text
    assert (seconds < 1, memory < 64 << 10) == (True, True)


def test_name_without_end_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "p", make_elf(needed=["x" * 5000]))
    assert "a string without an end within 4096 bytes" in refusal(path)


def test_search_paths_without_number_cost_a_bounded_time(tmp_path: Path) -> None:
    """Each of a chain of libraries adds an RPATH that all after it are looked for in."""
    rpath = ":".join(["$ORIGIN/$LIB"] * 1200) + ":$ORIGIN"
    for number in range(100):
        put(tmp_path / f"{number}.so", needed=[f"{number + 1}.so"], rpath=rpath)
    text, seconds, memory = cost(str(tmp_path / "0.so"))
    assert "100000 places searched: shorten its RUNPATH" in text
    assert seconds < 20  # a second or two, where nobody else runs
    assert memory < 64 << 10


def test_tokens_without_number_cost_a_bounded_time(tmp_path: Path) -> None:
    """Each search goes through the RPATHs of all that came before."""
    directory = tmp_path / "/".join(["d" * 200] * 15)
    rpath = "/$LIB" + "/$ORIGIN" * 1500 + ":$ORIGIN"
    for number in range(40):
        put(directory / f"{number}.so", needed=[f"{number + 1}.so"], rpath=rpath)
    text, seconds, memory = cost(str(directory / "0.so"))
    assert "it needs the library '40.so'" in text
    assert seconds < 2  # a tenth of one, where nobody else runs
    assert memory < 64 << 10
