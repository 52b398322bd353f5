"""The option table and its parser: what is taken, what is refused, and with which words."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from runner.cli import rules
from runner.cli.main import limits_of, main
from runner.cli.options import OPTIONS, parse
from runner.config import RLIM_INFINITY, RLIMITS, Limits, Mount, Rlimit
from runner.errors import ConfigError

_SIZE = "is not a size: write a number and a unit, such as 256M or 1.5G"
_CALL = "give CALL=RULE, or stat:, read:, write: or ban:PATH, or refuse:ERRNO"
_RULE = "give read=, write= or execute=PATH, bind= or connect=PORT, scope=NAME"
_UNIT = "has no unit: write 256B, 256K or 256M (1M is 1024K)"
_TIME = "is not a time: write seconds, such as 2 or 0.5, or 500ms"
_ZERO = ": give more than 0; for no limit leave the option out"
_COUNT = ": give a whole number, 1 to 4194304"
_RLIMIT = ": write NAME=SOFT or NAME=SOFT:HARD, such as NOFILE=64"
_BIND = ": write SRC, SRC:DST, SRC:FLAGS or SRC:DST:FLAGS"
_NOT_FLAG = (
    "is neither an absolute path in the sandbox nor a flag; flags are ro, rw, dev, optional"
)
_HIDES = ": this would hide the whole sandbox; to choose its root use --root"
_IDS = ": write a name, or numbers, UID or UID:GID, each 0 to 4294967294"
_NAMES = ": write names with commas between, such as memory,network"
_EMPTY = ": the name is empty"
_MEASURES = (
    ": write some of noise, instructions, status, smaps_rollup, smaps, with commas between"
)
_RATE = ": give a whole number, 1 to 1000000000000, such as 1000000000"
_FRACTION = ": give a number above 0, such as 0.5 or 2"
_IO = ": write DEVICE:WHAT=N; WHAT is read_bytes, write_bytes, read_ops, write_ops"
_OVERLAY = ": write DST=LOWER, DST=LOWER:LOWER, or DST=LOWER,upper=DIR,work=DIR"
_MODE = ": write it in octal, such as 755"
_NUMBER = ": write a whole number"
_CPUS = ": write numbers and ranges, such as 0-3,7"
_OFFSET = ": write monotonic=SECONDS or boottime=SECONDS"
_ABSOLUTE = ": the place in the sandbox is an absolute path"

# For each option that takes a value: wrong ones, and the whole message after "--option: ".
BAD_VALUES: dict[str, list[tuple[str, str]]] = {
    "--time": [
        ("1x", f"'1x' {_TIME}"),
        ("", f"'' {_TIME}"),
        ("-1", f"'-1' {_TIME}"),
        ("nan", f"'nan' {_TIME}"),
        ("1e3", f"'1e3' {_TIME}"),
        ("0", f"'0'{_ZERO}"),
        ("99999999999", "'99999999999' is longer than the longest time, ten years"),
    ],
    "--wall-time": [("fast", f"'fast' {_TIME}"), ("0s", f"'0s'{_ZERO}")],
    "--idle-time": [("1,5", f"'1,5' {_TIME}"), ("0ms", f"'0ms'{_ZERO}")],
    "--extra-time": [("1 s", f"'1 s' {_TIME}"), ("0.0", f"'0.0'{_ZERO}")],
    "--memory": [
        ("256", f"'256' {_UNIT}"),
        ("256MB", f"'256MB' {_SIZE}"),
        ("256m", f"'256m' {_SIZE}"),
        ("-1M", f"'-1M' {_SIZE}"),
        ("unlimited", f"'unlimited' {_SIZE}"),
        ("\N{ARABIC-INDIC DIGIT FIVE}M", f"'\N{ARABIC-INDIC DIGIT FIVE}M' {_SIZE}"),
        ("0M", f"'0M'{_ZERO}"),
        ("9000T", "'9000T' is larger than the largest size, 8192T"),
    ],
    "--stack": [("256", f"'256' {_UNIT}"), ("infinity", f"'infinity' {_SIZE}")],
    "--address-space": [("1Q", f"'1Q' {_SIZE}")],
    "--output": [("256", f"'256' {_UNIT}")],
    "--file-size": [("0B", f"'0B'{_ZERO}")],
    "--processes": [
        ("0", f"'0'{_COUNT}"),
        ("-1", f"'-1'{_COUNT}"),
        ("1.5", f"'1.5'{_COUNT}"),
        ("4194305", f"'4194305'{_COUNT}"),
        ("\N{SUPERSCRIPT TWO}", f"'\N{SUPERSCRIPT TWO}'{_COUNT}"),
        ("9" * 5000, f"'{'9' * 5000}'{_COUNT}"),
    ],
    "--open-files": [("many", f"'many'{_COUNT}"), ("", f"''{_COUNT}")],
    "--rlimit": [
        ("NOFILE", f"'NOFILE'{_RLIMIT}"),
        ("FILES=1", "'FILES=1': known names are " + ", ".join(RLIMITS)),
        ("NOFILE=", "'NOFILE=': a limit is a whole number, or unlimited"),
        ("NOFILE=8:4", "'NOFILE=8:4': the soft limit 8 is above the hard limit 4"),
        (
            "NOFILE=unlimited:4",
            "'NOFILE=unlimited:4': the soft limit unlimited is above the hard limit 4",
        ),
        ("NOFILE=1:2:3", "'NOFILE=1:2:3': a limit is a whole number, or unlimited"),
        (
            "NOFILE=9223372036854775808",
            "'NOFILE=9223372036854775808': a limit is a whole number, or unlimited",
        ),
        ("DATA=256", f"'256' {_UNIT}"),
    ],
    "--disk": [
        ("256", f"'256' {_UNIT}"),
        ("1M,", f"''{_COUNT}"),
        ("1M,0", f"'0'{_COUNT}"),
        ("0M,1", f"'0M'{_ZERO}"),
        (",1", f"'' {_SIZE}"),
    ],
    "--swap": [("256", f"'256' {_UNIT}")],
    "--cpu-quota": [("0", f"'0'{_FRACTION}"), ("1e2", f"'1e2'{_FRACTION}")],
    "--cpu-weight": [("0", f"'0'{_COUNT}")],
    "--cpuset": [("a", f"'a'{_CPUS}")],
    "--io": [
        ("/x", f"'/x'{_IO}"),
        ("/x:speed=1", f"'/x:speed=1'{_IO}"),
        ("/x:read_bytes=256", f"'256' {_UNIT}"),
        ("x:read_ops=5", "IoLimit.device: 'x': give an absolute path"),
    ],
    "--allow-device": [
        ("x", "DeviceAccess.device: 'x': give an absolute path"),
        ("/dev/null=x", "DeviceAccess.access: 'x': give some of r, w, m, each once"),
    ],
    "--stdin": [("", f"''{_EMPTY}")],
    "--stdout": [("", f"''{_EMPTY}")],
    "--stderr": [("", f"''{_EMPTY}")],
    "--env": [
        ("=1", "'=1': the name is empty: write NAME=VALUE, or NAME to pass on your own"),
        ("NO_SUCH", "'NO_SUCH': it is not set in your environment: write NO_SUCH=VALUE"),
    ],
    "--chdir": [("", f"''{_EMPTY}")],
    "--bind": [
        ("", f"''{_BIND}"),
        (":/x", f"':/x'{_BIND}"),
        ("/usr:/x:rw:y", f"'/usr:/x:rw:y'{_BIND}"),
        ("/nowhere", "'/nowhere': No such file or directory"),
        ("/usr:x", f"'/usr:x': 'x' {_NOT_FLAG}"),
        ("/usr:/x:rx", f"'/usr:/x:rx': 'rx' {_NOT_FLAG}"),
        ("/usr:/x:", f"'/usr:/x:': '' {_NOT_FLAG}"),
        ("/usr:ro,rw", "'/usr:ro,rw': ro and rw exclude each other"),
        ("/usr:/", f"'/usr:/'{_HIDES}"),
        ("/", f"'/'{_HIDES}"),
        ("/usr:/a/../b", "'/usr:/a/../b': the place in the sandbox is a path without .."),
    ],
    "--tmpfs": [
        ("x", f"'x'{_ABSOLUTE}"),
        ("", f"''{_ABSOLUTE}"),
        ("//", f"'//'{_HIDES}"),
        ("/x:256", f"'256' {_UNIT}"),
        ("/x:0M", f"'0M'{_ZERO}"),
    ],
    "--root": [
        ("/nowhere", "'/nowhere': No such file or directory"),
        ("/etc/passwd", "'/etc/passwd': it is not a directory"),
    ],
    "--overlay": [
        ("/x", f"'/x'{_OVERLAY}"),
        ("/x=", f"'/x='{_OVERLAY}"),
        ("x=/usr", f"'x=/usr'{_ABSOLUTE}"),
        (
            "/x=/usr,upper=/a",
            "'/x=/usr,upper=/a': what is written is kept with upper=DIR and work=DIR, both",
        ),
    ],
    "--stage": [("/bin/ls:ls", f"'/bin/ls:ls'{_ABSOLUTE}")],
    "--file": [
        ("/x", "'/x': write DST=FILE"),
        ("/x=/nowhere", "'/x=/nowhere': No such file or directory"),
        ("x=/etc/passwd", f"'x=/etc/passwd'{_ABSOLUTE}"),
        (
            "/x=/dev/zero",
            "'/x=/dev/zero': a copy has at most 16 MiB: show a larger file by --bind",
        ),
    ],
    "--dir": [("x", f"'x'{_ABSOLUTE}"), ("/x:9", f"'9'{_MODE}")],
    "--symlink": [
        ("/x", "'/x': write TEXT:DST, such as /usr/bin:/bin"),
        ("a:b", f"'a:b'{_ABSOLUTE}"),
    ],
    "--device": [("/dev/\0", "Mount.target: '/dev/\\x00': it holds a NUL byte")],
    "--mask": [("x", f"'x'{_ABSOLUTE}"), ("/", f"'/'{_HIDES}")],
    "--read-only": [("x/../y", f"'x/../y'{_ABSOLUTE}")],
    "--copy-in": [
        ("", "'': a name is empty"),
        (":a", "':a': a name is empty"),
        ("a:", "'a:': '': it is empty"),
        ("/tmp/", "'/tmp/': '': it is empty"),
        ("a:/b", "'a:/b': '/b': give a name relative to the working directory"),
        ("a:../b", "'a:../b': '../b': give a name without . and .. and empty parts"),
    ],
    "--copy-out": [
        ("", "'': a name is empty"),
        ("?", "'?': a name is empty"),
        ("a:", "'a:': a name is empty"),
        ("/a", "'/a': '/a': give a name relative to the working directory"),
        ("..:b?", "'..:b?': '..': give a name without . and .. and empty parts"),
    ],
    "--copy-limit": [("0K", f"'0K'{_ZERO}"), ("1MB", f"'1MB' {_SIZE}")],
    "--umask": [("8", f"'8'{_MODE}"), ("", f"''{_MODE}"), ("00000", f"'00000'{_MODE}")],
    "--nice": [("low", f"'low'{_NUMBER}"), ("1.5", f"'1.5'{_NUMBER}")],
    "--affinity": [
        ("", f"''{_CPUS}"),
        ("3-1", f"'3-1'{_CPUS}"),
        ("1,", f"'1,'{_CPUS}"),
        ("8192", f"'8192'{_CPUS}"),
        ("9" * 5000, f"'{'9' * 5000}'{_CPUS}"),
    ],
    "--oom-score-adj": [("--1", f"'--1'{_NUMBER}")],
    "--net": [("bridge", "'bridge': known are none, host, pasta")],
    "--policy": [("", f"''{_EMPTY}")],
    "--landlock": [
        ("read", f"'read': {_RULE}"),
        ("read=", f"'read=': {_RULE}"),
        ("bind=65536", f"'bind=65536': {_RULE}"),
        ("connect=any", f"'connect=any': {_RULE}"),
        ("scope=", f"'scope=': {_RULE}"),
    ],
    "--supervise": [
        ("umask", f"'umask': {_CALL}"),
        ("umask=", f"'umask=': {_CALL}"),
        ("=3", f"'=3': {_CALL}"),
        ("look:/x", f"'look:/x': {_CALL}"),
        ("read:", f"'read:': {_CALL}"),
    ],
    "--name": [("", "'': the name is empty")],
    "--sysctl": [("net.x", "'net.x': write NAME=VALUE"), ("=1", "'=1': write NAME=VALUE")],
    "--time-offset": [
        ("realtime=1", f"'realtime=1'{_OFFSET}"),
        ("monotonic", f"'monotonic'{_OFFSET}"),
        ("boottime=1e9", f"'boottime=1e9'{_OFFSET}"),
        (
            "boottime=\N{ARABIC-INDIC DIGIT ONE}",
            f"'boottime=\N{ARABIC-INDIC DIGIT ONE}'{_OFFSET}",
        ),
    ],
    "--hook-outside": [("", f"''{_EMPTY}")],
    "--hook-inside": [("", f"''{_EMPTY}")],
    "--domainname": [("", "'': a host name has 1 to 64 bytes")],
    "--hostname": [
        ("", "'': a host name has 1 to 64 bytes"),
        ("x" * 65, f"{'x' * 65!r}: a host name has 1 to 64 bytes"),
    ],
    "--user": [
        ("a:b", f"'a:b'{_IDS}"),
        ("1:", f"'1:'{_IDS}"),
        ("4294967295", f"'4294967295'{_IDS}"),
        ("-1", f"'-1'{_IDS}"),
    ],
    "--require": [
        ("", f"''{_NAMES}"),
        ("memory,", f"'memory,'{_NAMES}"),
        ("all of it", f"'all of it'{_NAMES}"),
    ],
    "--json": [
        ("", f"''{_EMPTY}"),
        ("/nowhere/x", "'/nowhere/x': there is no directory /nowhere"),
    ],
    "--meta": [
        ("", f"''{_EMPTY}"),
        ("/nowhere/x", "'/nowhere/x': there is no directory /nowhere"),
    ],
    "--measure": [
        ("", f"''{_MEASURES}"),
        ("noise,", f"'noise,'{_MEASURES}"),
        ("maps", f"'maps'{_MEASURES}"),
    ],
    "--instruction-rate": [("0", f"'0'{_RATE}"), ("1e9", f"'1e9'{_RATE}")],
    "--repeat": [
        ("0", f"'0'{_COUNT}"),
        ("x", f"'x'{_COUNT}"),
    ],
}

_HINT = "run-sandboxed: run-sandboxed --help lists the options\n"


def test_each_option_has_a_place_of_its_own() -> None:
    places = [option.dest for option in OPTIONS]
    assert len(set(places)) == len(places)


def test_bad_values_of_the_table_cover_each_option_with_a_value() -> None:
    assert list(BAD_VALUES) == [option.name for option in OPTIONS if option.parse is not None]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [(option, *case) for option, cases in BAD_VALUES.items() for case in cases],
)
def test_bad_value_is_refused_with_its_option_and_the_remedy(
    option: str, value: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([f"{option}={value}", "true"]) == 125
    assert capfd.readouterr() == ("", f"run-sandboxed: {option}: {message}\n{_HINT}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no command to run"),
        (["--"], "there is no command to run"),
        (["-q"], "there is no command to run"),
        (["--memry", "1M", "true"], "--memry: there is no such option; is it --memory?"),
        (["-x", "true"], "-x: there is no such option"),
        (["-qx", "true"], "-x: there is no such option"),
        (["-1", "true"], "-1: there is no such option"),
        (["--mem=1M", "true"], "--mem: there is no such option; is it --memory?"),
        (["-m"], "--memory: its value is missing: write --memory SIZE"),
        (["-b"], "--bind: its value is missing: write --bind SRC[:DST][:FLAG,...]"),
        (["--quiet=yes", "true"], "--quiet: 'yes': it takes no value"),
        (["-t1", "--time", "2", "true"], "--time: '2': a second value; give one"),
        (["--json", "--json", "true"], "--json: '': a second value; give one"),
        (["-qv", "true"], "--quiet and --verbose exclude each other; give one"),
        (
            ["--policy", "default", "--no-seccomp", "true"],
            "--policy and --no-seccomp exclude each other; give one",
        ),
        (
            ["--policy-log", "--no-seccomp", "true"],
            "--policy-log and --no-seccomp exclude each other; give one",
        ),
        (
            ["--policy-log", "--oom-score-adj", "5", "true"],
            "--policy-log and --oom-score-adj exclude each other; give one",
        ),
        (
            ["--console", "--policy-log", "true"],
            "--console and --policy-log exclude each other; give one",
        ),
        (
            ["--stderr", "x", "--stderr-to-stdout", "true"],
            "--stderr and --stderr-to-stdout exclude each other; give one",
        ),
        (
            ["--root", "/usr", "--writable", "true"],
            "--root and --writable exclude each other; give one",
        ),
        (
            ["--console", "--repeat", "2", "true"],
            "--console and --repeat exclude each other; give one",
        ),
        (["--extra-time", "1", "true"], "--extra-time: 1 s: it needs a --time to go beyond"),
        (
            ["-w1", "-t2", "true"],
            "--wall-time: 1 s: it is below --time 2 s, which could then never be reached",
        ),
        (
            ["--stdout", "x", "--stderr", "x", "true"],
            "--stderr: 'x': for the same file write --stderr-to-stdout",
        ),
        (
            ["--rlimit", "CORE=0", "--rlimit", "core=1K", "true"],
            "--rlimit: 'CORE': it is given twice; give it once",
        ),
        (
            ["--rlimit", "NOFILE=8", "--open-files", "9", "true"],
            "--rlimit: 'NOFILE': it is set by --open-files too; give one",
        ),
        (["-E", "A=1", "-E", "A=2", "true"], "--env: 'A': it is given twice; give it once"),
        (
            ["-b", "/usr:/x", "--tmpfs", "/x/", "true"],
            "the place: '/x': it is given twice; give it once",
        ),
    ],
)
def test_bad_command_line_is_refused(
    words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 125
    assert capfd.readouterr() == ("", f"run-sandboxed: {message}\n{_HINT}")


def test_bad_value_that_is_not_utf8_is_shown_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--memory", os.fsdecode(b"\xff"), "true"]) == 125
    assert capfd.readouterr().err.startswith(f"run-sandboxed: --memory: '\\udcff' {_SIZE}\n")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["prog", "-m", "1"], ["prog", "-m", "1"]),
        (["-q", "prog", "-q", "--", "--json"], ["prog", "-q", "--", "--json"]),
        (["--", "-q"], ["-q"]),
        (["--", "--", "x"], ["--", "x"]),
        (["-q", "--", "prog", "--"], ["prog", "--"]),
        (["-"], ["-"]),
        ([""], [""]),
        (["--json", "prog"], ["prog"]),
        (["-m", "1M", "-qt1", "prog"], ["prog"]),
        (["prog", "a b", "\N{SNOWMAN}", os.fsdecode(b"\xff\n")], None),
    ],
)
def test_command_begins_at_the_first_word_that_is_no_option(
    words: list[str], command: list[str] | None
) -> None:
    assert parse(words)[1] == (words if command is None else command)


@pytest.mark.parametrize(
    "words",
    [["-t1.5", "-m", "64M"], ["--time=1.5", "--memory=64M"], ["-qt", "1.5", "--memory", "64M"]],
)
def test_value_can_be_joined_or_the_next_word(words: list[str]) -> None:
    options, command = parse([*words, "prog"])
    assert (options.cpu_time, options.memory, command) == (1.5, 64 * 2**20, ["prog"])


def test_value_that_looks_like_an_option_is_a_value() -> None:
    options, command = parse(["--hostname", "-q", "prog"])
    assert (options.host_name, options.quiet, command) == ("-q", False, ["prog"])


@pytest.mark.parametrize(
    ("words", "json"), [([], None), (["--json"], ""), (["--json=/tmp/x"], "/tmp/x")]
)
def test_json_without_a_value_is_empty(words: list[str], json: str | None) -> None:
    assert parse([*words, "prog"])[0].json == json


def test_check_needs_no_command() -> None:
    options, command = parse(["--check", "--json"])
    assert (options.check, options.json, command) == (True, "", [])


def test_limits_of_every_option_reach_their_field() -> None:
    words = ["-t1", "-w2", "--idle-time=3", "--extra-time=4", "-m5M", "--stack=6M"]
    words += ["--address-space=7M", "--output=8K", "--file-size=9K", "-p10", "--open-files=11"]
    words += ["--rlimit=CORE=0", "--rlimit=RLIMIT_memlock=1K:unlimited"]
    options, _command = parse([*words, "prog"])
    rules.check(options)
    assert limits_of(options) == Limits(
        cpu_time=1.0,
        wall_time=2.0,
        idle_time=3.0,
        extra_time=4.0,
        memory=5 * 2**20,
        stack=6 * 2**20,
        address_space=7 * 2**20,
        output=8192,
        file_size=9216,
        processes=10,
        open_files=11,
        rlimits=(
            Rlimit(RLIMITS["CORE"], 0, 0),
            Rlimit(RLIMITS["MEMLOCK"], 1024, RLIM_INFINITY),
        ),
    )


def test_stack_unlimited_is_an_rlimit() -> None:
    options, _command = parse(["--stack", "unlimited", "prog"])
    infinite = Rlimit(RLIMITS["STACK"], RLIM_INFINITY, RLIM_INFINITY)
    assert limits_of(options) == Limits(rlimits=(infinite,))


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/usr", Mount.bind("/usr")),
        ("/usr:/x", Mount.bind("/usr", "/x")),
        ("/usr:rw", Mount.bind("/usr", readonly=False, owned=True)),
        ("/usr::rw", Mount.bind("/usr", readonly=False, owned=True)),
        (
            "/usr:/x//y/:rw,dev",
            Mount.bind("/usr", "/x/y", readonly=False, devices=True, owned=True),
        ),
        ("//usr/../usr", Mount.bind("/usr")),
        ("/nowhere:optional", Mount.bind("/nowhere", optional=True)),
    ],
)
def test_bind_text_is_a_mount(text: str, mount: Mount) -> None:
    assert parse(["-b", text, "prog"])[0].binds == [mount]


def test_bind_source_is_relative_to_the_current_directory(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("real")
    os.symlink("real", "link")
    mounts = parse(["-b", "link", "prog"])[0].binds
    assert mounts == [Mount.bind(f"{tmp_path}/real", f"{tmp_path}/link")]


def test_env_without_a_value_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "a=b")
    assert parse(["-E", "MINE", "-E", "X=", "prog"])[0].env == [("MINE", "a=b"), ("X", "")]


def test_env_not_valid_raises_config_error() -> None:
    with pytest.raises(ConfigError, match=r"^--env: '': the name is empty"):
        parse(["-E", "", "prog"])


def test_help_names_each_option_and_exits_0(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--memory", "1M", "--help", "--bogus"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    flags = [flag for option in OPTIONS for flag in option.flags]
    assert [flag for flag in flags if not re.search(rf"^ +.*{flag}\b", out, re.MULTILINE)] == []
    assert max(map(len, out.splitlines())) <= 96


def test_flags_are_unique_and_each_option_has_a_long_one() -> None:
    flags = [flag for option in OPTIONS for flag in option.flags]
    assert len(flags) == len(set(flags))
    assert all(option.name.startswith("--") for option in OPTIONS)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--root", "x"), ("--stage", "x"), ("--device", "x"), ("--overlay", "/a=x")],
)
def test_relative_path_where_the_directory_was_removed_is_refused(
    option: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError) as caught:
        parse([option, value, "true"])
    assert str(caught.value) == f"{option}: {value!r}: No such file or directory"
