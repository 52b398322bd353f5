"""`stage()`: what it gives is all that a program needs to start in an empty root. U35, H84."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

import runner
from runner import ALL_NAMESPACES, ChildError, ConfigError, ErrorLocation, Mount, Runner
from runner.staging import libraries, stage

pytestmark = pytest.mark.userns

ANSWER = "int answer(void) { return 42; }\n"
MAIN = '#include <stdio.h>\nint answer(void);\nint main(void) { printf("%d\\n", answer()); }\n'
HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); }\n'


def compiled(path: Path, source: str, *options: str, compiler: str = "gcc") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-x", "c", "-", "-o", str(path), "-x", "none", *options]
    subprocess.run(command, input=source.encode(), check=True)
    return str(path)


def answer(path: Path, compiler: str = "gcc") -> str:
    """Make a library that is needed by its name, not by its path."""
    options = ("-shared", "-fPIC", f"-Wl,-soname,{path.name}")
    return compiled(path, ANSWER, *options, compiler=compiler)


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def run(args: Sequence[str], mounts: Iterable[Mount], **env: str) -> tuple[str, int | None]:
    """Run a program where there is nothing but these mounts; give its output and exit code."""
    reading, writing = os.pipe()
    try:
        config = Runner(
            args=args,
            env=env,
            files=(-1, writing, writing),
            namespaces=ALL_NAMESPACES,
            pivot_root="/tmp",
            mounts=tuple(mounts),
        )
        with runner.start(config) as process:
            os.close(writing)
            writing = -1
            with open(reading, closefd=False) as pipe:
                text = pipe.read()
            return text, process.wait().exit_code
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


@pytest.fixture
def app(tmp_path: Path) -> str:
    """A program with a library of its own, which it finds from where it is."""
    library = answer(tmp_path / "app/lib/libanswer.so")
    options = ("-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/../lib")
    return compiled(tmp_path / "app/bin/main", MAIN, library, *options)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A program whose library is found by the loader's cache alone."""
    library = answer(tmp_path / "lib/libanswer.so.1")
    conf, cache = tmp_path / "conf", tmp_path / "cache"
    conf.write_text(f"{tmp_path}/lib\n")
    subprocess.run(["/sbin/ldconfig", "-X", "-C", cache, "-f", conf], check=True)
    monkeypatch.setattr(libraries, "CACHE", str(cache))
    return compiled(tmp_path / "main", MAIN, library)


@pytest.mark.parametrize("options", [(), ("-no-pie",)])
def test_dynamic_program_runs_with_what_is_staged_alone(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    program = compiled(tmp_path / "p", HELLO, *options)
    mounts = stage([program])
    assert run([program], mounts) == ("hello\n", 0)
    with pytest.raises(ChildError) as caught:  # its loader is part of it
        run([program], mounts[:1])
    assert (caught.value.location, caught.value.errno) == (ErrorLocation.EXECVE, errno.ENOENT)


def test_dynamic_program_finds_its_own_library_by_origin(app: str) -> None:
    assert run([app], [*stage([app]), Mount.proc()]) == ("42\n", 0)


def test_dynamic_program_staged_elsewhere_finds_its_own_library_there(app: str) -> None:
    mounts = [*stage([(app, "/opt/answer/bin/q")]), Mount.proc()]
    assert "/opt/answer/lib/libanswer.so" in [mount.target for mount in mounts]
    assert run(["/opt/answer/bin/q"], mounts) == ("42\n", 0)


def test_library_is_found_through_a_directory_that_only_the_path_names(
    tmp_path: Path,
) -> None:
    library = answer(tmp_path / "libanswer.so")
    (tmp_path / "sub").mkdir()
    program = compiled(tmp_path / "p", MAIN, library, f"-Wl,-rpath,{tmp_path}/sub/..")
    assert run([program], stage([program])) == ("42\n", 0)


def test_library_is_found_in_the_library_path(tmp_path: Path) -> None:
    library = answer(tmp_path / "lib/libanswer.so")
    program = compiled(tmp_path / "p", MAIN, library)
    directory = f"{tmp_path}/lib"
    mounts = stage([program], library_path=[directory])
    assert run([program], mounts, LD_LIBRARY_PATH=directory) == ("42\n", 0)


def test_library_that_is_found_by_the_cache_alone_is_found_in_the_sandbox(cached: str) -> None:
    mounts = stage([cached])
    assert Mount.bind(libraries.CACHE, "/etc/ld.so.cache") in mounts
    assert run([cached], mounts) == ("42\n", 0)
    without = [mount for mount in mounts if mount.target != "/etc/ld.so.cache"]
    text, code = run([cached], without)
    assert "libanswer.so.1: cannot open shared object file" in text
    assert code == 127


@pytest.mark.parametrize("compiler", ["gcc", "musl-gcc"])
def test_static_program_needs_nothing(compiler: str, tmp_path: Path) -> None:
    program = compiled(tmp_path / "p", HELLO, "-static", compiler=compiler)
    assert stage([program]) == [Mount.bind(program)]
    assert run([program], stage([program])) == ("hello\n", 0)


def test_program_of_musl_runs_with_its_own_loader_and_library(tmp_path: Path) -> None:
    library = answer(tmp_path / "libanswer.so", "musl-gcc")
    options = (library, "-Wl,-rpath,$ORIGIN")
    program = compiled(tmp_path / "p", MAIN, *options, compiler="musl-gcc")
    mounts = stage([program])
    loader = f"/lib/ld-musl-{os.uname().machine}.so.1"
    assert [mount.target for mount in mounts] == [program, loader, library]
    assert run([program], [*mounts, Mount.proc()]) == ("42\n", 0)


def test_shell_script_runs_with_what_is_staged_alone(tmp_path: Path) -> None:
    program = script(tmp_path / "s", "#!/bin/sh\necho $0 $1\n")
    assert run([program, "x"], stage([program])) == (f"{program} x\n", 0)


def test_script_of_env_runs_with_what_it_finds(tmp_path: Path) -> None:
    program = script(tmp_path / "s", "#!/usr/bin/env python3\nprint(6 * 7)\n")
    mounts = stage([program])
    python = next(m.target for m in mounts if os.path.basename(m.target) == "python3")
    command = [python, "-c", "import os; print(os.__file__)"]
    modules = os.path.dirname(subprocess.check_output(command, text=True))
    assert run([program], [*mounts, Mount.bind(modules)], PATH="/bin:/usr/bin") == ("42\n", 0)


def test_script_of_env_with_arguments_runs(tmp_path: Path) -> None:
    program = script(tmp_path / "s", "#!/usr/bin/env -S A=b sh -u\necho $A\n")
    path = "/usr/local/bin:/usr/bin:/bin"
    assert run([program], stage([program]), PATH=path) == ("b\n", 0)


def test_scripts_that_start_each_other_are_staged_as_deep_as_the_kernel_goes(
    tmp_path: Path,
) -> None:
    paths = ["/bin/sh"]
    for number in range(6):
        paths.append(script(tmp_path / str(number), f"#!{paths[-1]}\necho {number}\n"))
    mounts = stage([paths[5]])
    assert run([paths[5]], mounts)[1] == 0
    with pytest.raises(ConfigError, match="more than 5 scripts"):
        stage([paths[6]])
    with pytest.raises(ChildError) as caught:
        run([paths[6]], [*mounts, Mount.bind(paths[6])])
    assert (caught.value.location, caught.value.errno) == (ErrorLocation.EXECVE, errno.ELOOP)


# A loader that makes a file, with no C library: the kernel gives it the program's tables.
MAKE_FILE = r"""
#if defined(__x86_64__)
#define CALL(n, a, b, c, d)                                                     \
    __asm__ volatile("mov %3, %%r10\n syscall" ::"a"(n), "D"(a), "S"(b), "r"(d), \
                     "d"(c) : "r10", "rcx", "r11", "memory")
enum { OPENAT = 257, EXIT = 60 };
#else
#define CALL(n, a, b, c, d)                                                              \
    __asm__ volatile("mov x8, %0\n mov x0, %1\n mov x1, %2\n mov x2, %3\n mov x3, %4\n" \
                     "svc 0" ::"r"(n), "r"(a), "r"(b), "r"(c), "r"(d)                    \
                     : "x0", "x1", "x2", "x3", "x8", "memory")
enum { OPENAT = 56, EXIT = 93 };
#endif
void _start(void)
{
    CALL((long)OPENAT, -100L, PATH, 0101L, 0600L); /* O_CREAT | O_WRONLY */
    CALL((long)EXIT, 7L, 0L, 0L, 0L);
}
"""


def test_loader_that_a_hostile_program_names_is_not_run(tmp_path: Path) -> None:  # H84
    """The attack on ldd(1): the "loader" is the attacker's."""
    marker = tmp_path / "marker"
    options = ("-nostdlib", "-static", "-O1", "-fno-stack-protector", f'-DPATH="{marker}"')
    loader = compiled(tmp_path / "ld.so", MAKE_FILE, *options)
    program = compiled(tmp_path / "p", HELLO, f"-Wl,--dynamic-linker={loader}")
    assert [mount.target for mount in stage([program])][:2] == [program, loader]
    assert not marker.exists()
    assert subprocess.run([program], check=False).returncode == 7
    assert marker.exists()  # so would whoever runs it


def test_script_as_the_loader_of_a_hostile_program_is_refused_and_not_run(
    tmp_path: Path,
) -> None:  # H84
    marker = tmp_path / "marker"
    loader = script(tmp_path / "ld.so", f"#!/bin/sh\ntouch {marker}\n")
    program = compiled(tmp_path / "p", HELLO, f"-Wl,--dynamic-linker={loader}")
    with pytest.raises(ConfigError, match=f"its loader '{loader}' is no executable"):
        stage([program])
    assert not marker.exists()
