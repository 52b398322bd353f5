"""`run-sandboxed policy`: lists, shows, compiles, checks, explains."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.cli.main import main
from runner.seccomp import compile_policy, files, load, stock, syscalls


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def said(capfdbinary: pytest.CaptureFixture[bytes]) -> pytest.CaptureFixture[bytes]:
    return capfdbinary


def output(said: pytest.CaptureFixture[bytes], *words: str) -> str:
    assert main(["policy", *words]) == 0
    out, err = said.readouterr()
    assert err == b""
    return out.decode()


def failure(said: pytest.CaptureFixture[bytes], status: int, *words: str) -> list[str]:
    assert main(["policy", *words]) == status
    return said.readouterr().err.decode().splitlines()


def test_list_has_each_policy_and_preset_once(said: pytest.CaptureFixture[bytes]) -> None:
    text = output(said, "list")
    policies, presets = text.split("\n\nTo be included by others:\n")
    names = [line.split()[0] for line in policies.splitlines() if line[0] != " "]
    assert names == stock()
    names = [line.split()[0] for line in presets.splitlines() if line[0] != " "]
    assert names == [name for name, _ in files.directory_of(files.PRESETS)]
    assert max(map(len, text.splitlines())) <= 92


def test_show_prints_the_text_of_policies_and_presets(
    said: pytest.CaptureFixture[bytes],
) -> None:
    texts = files.stock_texts()
    assert output(said, "show", "strict", "no-exec") == texts["strict"] + texts["no-exec"]


def test_show_pfc_prints_what_each_instruction_does(
    said: pytest.CaptureFixture[bytes], here: Path
) -> None:
    text = (
        "default errno ENOSYS\n"
        "kill socket if arg0 & 0x10 != 0 and int1 > 5\ntrace 7 read\nallow write\n"
    )
    (here / "a.policy").write_text(text)
    assert output(said, "show", "--pfc", "--arch=x86_64", "./a.policy").splitlines() == [
        "# ./a.policy, x86_64: 16 instructions",
        "   0  load arch",
        "   1  if arch == 0xc000003e (x86_64) go to 2, else 14",
        "   2  load number",
        "   3  if number >= 2 (open) go to 7, else 4",
        "   4  if number >= 1 (write) go to 6, else 5",
        "   5  return trace 7",
        "   6  return allow",
        "   7  if number >= 1073741824 go to 13, else 8",
        "   8  if number == 41 (socket) go to 9, else 15",
        "   9  load arg0.low",
        "  10  if arg0.low & 0x10 go to 11, else 15",
        "  11  load arg1.low",
        "  12  if arg1.low > 0x5 go to 14, else 15",
        "  13  if number >= 2147483648 go to 15, else 14",
        "  14  return kill",
        "  15  return errno ENOSYS",
    ]


def test_compile_writes_the_filter(said: pytest.CaptureFixture[bytes], here: Path) -> None:
    (here / "a.policy").write_text("kill getpid\ninclude default")
    words = ("--arch=aarch64", "./a.policy")
    assert main(["policy", "compile", *words]) == 0
    expected = compile_policy(
        "kill getpid\ninclude default",
        name="a",
        arch="aarch64",
        sources=files.stock_texts(),
    )
    assert said.readouterr().out == expected
    assert output(said, "compile", "-o", "a.bpf", *words) == ""
    assert (here / "a.bpf").read_bytes() == expected
    assert output(said, "compile", "-o", "default.bpf", "default") == ""
    assert (here / "default.bpf").read_bytes() == load("default")


def test_compile_of_what_cannot_be_written_says_why(
    said: pytest.CaptureFixture[bytes],
) -> None:
    assert failure(said, 1, "compile", "-o", "missing/a.bpf", "default") == [
        "run-sandboxed: policy compile: 'missing/a.bpf': No such file or directory"
    ]
    assert failure(said, 1, "compile", "default", "strict") == [
        "run-sandboxed: policy compile: 'strict': compile one policy at a time"
    ]


def test_check_of_stock_policies_and_files_counts_their_instructions(
    said: pytest.CaptureFixture[bytes], here: Path
) -> None:
    (here / "a.policy").write_text("default allow")
    sizes = {arch: len(load("jvm", arch)) // 8 for arch in syscalls.AUDIT_ARCHS}
    assert output(said, "check", "jvm", "./a.policy") == (
        f"jvm: ok, instructions: {sizes['x86_64']} on x86_64, {sizes['aarch64']} on aarch64\n"
        "./a.policy: ok, instructions: 7 on x86_64, 5 on aarch64\n"
    )


def test_check_tells_every_fault_of_every_policy(
    said: pytest.CaptureFixture[bytes], here: Path
) -> None:
    (here / "a.policy").write_text("default allow\nkill raed if int0 = 1\ninclude b\n")
    (here / "b.policy").write_text("\nallow write\nkill write\n")
    assert main(["policy", "check", "./a.policy", "strict", "nothing"]) == 1
    out, err = said.readouterr()
    assert out.startswith(b"strict: ok")
    assert err.decode().splitlines() == [
        (
            "run-sandboxed: ./a.policy:2: 'raed' is not a system call: did you mean 'read'?; "
            "'int0 = 1' is not a comparison: write arg0 == 1, int1 != 2 or arg2 & 0x10 == 0, "
            "with 'and' between two"
        ),
        "run-sandboxed: b:3: can never apply to 'write': line 2 already decides it",
        (
            "run-sandboxed: policy: 'nothing' is not a stock policy; known: compiler, default, "
            "go, jvm, node, python, strict"
        ),
    ]


# --- explain.

MINE = """\
default errno ENOSYS
define SPECIAL 0x10
errno EPERM socket if int0 == SPECIAL   # reasons
include more
allow socket
"""
MORE = "# more\nkill socket if arg1 >= 2 and arg1 <= 4\n"


@pytest.fixture
def mine(here: Path) -> str:
    (here / "mine.policy").write_text(MINE)
    (here / "more.policy").write_text(MORE)
    return "./mine.policy"


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("socket(16)", "errno EPERM|mine:3: errno EPERM socket if int0 == SPECIAL   # reasons"),
        (
            "socket( SPECIAL )",
            "errno EPERM|mine:3: errno EPERM socket if int0 == SPECIAL   # r",
        ),
        ("socket(0x1_0000_0010)", "errno EPERM|mine:3: "),
        ("socket(AF_INET, 3, 0)", "kill|more:2: kill socket if arg1 >= 2 and arg1 <= 4"),
        ("socket(~0,5)", "allow|mine:5: allow socket"),
        ("socket(1|4, -1)", "allow|mine:5: allow socket"),
        ("socket()", "allow|mine:5: allow socket"),
        ("read(0)", "errno ENOSYS|mine: no line is left to decide: default errno ENOSYS"),
    ],
)
def test_explain_of_a_call_quotes_the_line_that_decides(
    call: str, answer: str, mine: str, said: pytest.CaptureFixture[bytes]
) -> None:
    action, line = answer.split("|")
    first, second = output(said, "explain", mine, call).splitlines()
    assert first == f"{call}: {action}"
    assert second.replace("./mine.policy", "mine").startswith(f"  {line}")


def test_explain_of_a_call_without_arguments_quotes_all_that_may_decide(
    mine: str, said: pytest.CaptureFixture[bytes]
) -> None:
    assert output(said, "explain", mine, "socket", "read").splitlines() == [
        "socket: it depends",
        "  ./mine.policy:3: errno EPERM socket if int0 == SPECIAL   # reasons",
        "  more:2: kill socket if arg1 >= 2 and arg1 <= 4",
        "  ./mine.policy:5: allow socket",
        "read: always",
        "  ./mine.policy: no line is left to decide: default errno ENOSYS",
    ]


def test_explain_leaves_out_what_is_overridden(
    here: Path, said: pytest.CaptureFixture[bytes]
) -> None:
    (here / "a.policy").write_text("default allow\nkill getpid\ninclude b")
    (here / "b.policy").write_text("errno EPERM getpid if int0 == 1\nerrno EPERM getpid")
    assert output(said, "explain", "./a.policy", "getpid").splitlines() == [
        "getpid: always",
        "  ./a.policy:2: kill getpid",
    ]


def test_explain_for_an_architecture_without_the_call_says_so(
    said: pytest.CaptureFixture[bytes],
) -> None:
    assert output(said, "explain", "--arch=aarch64", "default", "fork") == (
        "fork: aarch64 has no such call\n"
    )


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("raed(1)", "'raed(1)': 'raed' is not a system call: did you mean 'read'?"),
        ("read(", "'read(': write a call as name or name(argument, ...)"),
        ("read(1,2,3,4,5,6,7)", "'read(1,2,3,4,5,6,7)': a call has at most 6 arguments"),
        (
            "read(SPECAIL)",
            "'SPECAIL' is neither a number nor a known name: did you mean 'SPECIAL'?",
        ),
        ("read(1,)", "'' is neither a number nor a known name"),
        ("read(0x10000000000000000)", "0x10000000000000000: it does not fit in 64 bits"),
        ("read(path)", "'path' is neither a number nor a known name"),
    ],
)
def test_explain_of_what_is_no_call_says_why(
    call: str, why: str, mine: str, said: pytest.CaptureFixture[bytes]
) -> None:
    assert failure(said, 1, "explain", mine, call) == [f"run-sandboxed: policy explain: {why}"]


PROFILE = """{
  "defaultAction": "SCMP_ACT_ERRNO",
  "syscalls": [
    {"names": ["socket", "raed"], "action": "SCMP_ACT_ALLOW",
     "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}
  ]
}
"""


def test_profile_is_checked_and_explained_by_its_lines(
    here: Path, said: pytest.CaptureFixture[bytes]
) -> None:
    (here / "p.json").write_text(PROFILE)
    assert output(said, "check", "./p.json").splitlines() == [
        "./p.json: ok, instructions: 13 on x86_64, 11 on aarch64",
        "note: ./p.json:4: 'raed' is not a system call: did you mean 'read'?: it is left out",
    ]
    assert output(said, "show", "./p.json") == PROFILE
    assert output(said, "explain", "./p.json", "socket(AF_UNIX)", "socket(2)").splitlines() == [
        "socket(AF_UNIX): allow",
        "  ./p.json:4: allow socket if arg0 == 0x1",
        "socket(2): errno EPERM",
        "  ./p.json: no line is left to decide: default errno EPERM",
    ]
    (here / "p.json").write_text("{")
    assert failure(said, 1, "check", "./p.json") == [
        "run-sandboxed: ./p.json:1: it is not JSON: a name in quotes is missing"
    ]


# --- The words.


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ([], "policy: '' is none of its subcommands"),
        (["lsit"], "policy: 'lsit' is none of its subcommands"),
        (["show"], "policy show: there are too few arguments"),
        (["explain", "default"], "policy explain: there are too few arguments"),
        (["show", "--pcf", "default"], "policy show: option --pcf not recognized"),
    ],
)
def test_usage_error_tells_the_usage(
    words: list[str], first: str, said: pytest.CaptureFixture[bytes]
) -> None:
    lines = failure(said, 64, *words)
    assert lines[0] == f"run-sandboxed: {first}"
    assert lines[1].startswith("run-sandboxed: usage: run-sandboxed policy ")


def test_unknown_architecture_is_refused(said: pytest.CaptureFixture[bytes]) -> None:
    assert failure(said, 1, "show", "--pfc", "--arch=arm", "default") == [
        "run-sandboxed: policy show: arch: 'arm' is not one of x86_64, aarch64"
    ]


def test_help_of_all_and_of_each_is_printed(said: pytest.CaptureFixture[bytes]) -> None:
    text = output(said, "--help")
    names = [line.split()[3] for line in text.splitlines() if line.startswith("usage:")]
    assert names[:5] == ["list", "show", "compile", "check", "explain"]
    for name in names[:5]:
        text = output(said, name, "--help")
        assert text.startswith(f"usage: run-sandboxed policy {name}")
        assert "The exit status is 0; 1 when" in text
        assert max(map(len, text.splitlines())) <= 96
