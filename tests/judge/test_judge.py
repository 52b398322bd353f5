"""Real submissions in the real sandbox: every verdict, every language."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

import worker
from runner.errors import ConfigError
from runner.judge import languages
from runner.judge.judge import Judge
from runner.judge.messages import CaseResult, Submission, SubmissionResult
from runner.judge.problem import Problem
from runner.judge.verdict import Verdict
from runner.units import MiB

pytestmark = pytest.mark.userns

TESTS = {"01": ("1 2\n", "3\n"), "02": ("20 22\n", "42\n")}

SUM = {
    "c": "#include <stdio.h>\n"
    'int main(void) { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }',
    "cpp": "#include <iostream>\n"
    "int main() { int a, b; std::cin >> a >> b; std::cout << a + b << '\\n'; }",
    "java": """
import java.util.Scanner;
public class Main {
    static class Pair { int a, b; }
    public static void main(String[] args) {
        Scanner in = new Scanner(System.in);
        Pair pair = new Pair();
        pair.a = in.nextInt();
        pair.b = in.nextInt();
        System.out.println(pair.a + pair.b);
    }
}""",
    "python": "print(sum(map(int, input().split())))",
}
C_MAIN = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"

FAILING = {
    Verdict.WA: {
        "c": "int main(void) { return 0; }",
        "cpp": '#include <cstdio>\nint main() { std::puts("33"); }',
        "java": "public class Main { public static void main(String[] a) {"
        ' System.out.println("4"); } }',
        "python": "print(0)",
    },
    Verdict.TLE: {
        "c": "int main(void) { for (;;) ; }",
        "cpp": "#include <unistd.h>\nint main() { for (;;) pause(); }",
        "java": "public class Main { public static void main(String[] a) { while (true) ; } }",
        "python": "while True: pass",
    },
    Verdict.MLE: {
        "c": C_MAIN + "int main(void) { for (;;) memset(malloc(1 << 20), 1, 1 << 20); }",
        "cpp": "#include <vector>\nint main() { std::vector<int> v; for (;;) v.push_back(1); }",
        "java": "public class Main { public static void main(String[] a) {"
        " java.util.List<int[]> all = new java.util.ArrayList<>();"
        " while (true) all.add(new int[100000]); } }",
        "python": "a = []\nwhile True: a.append('x' * 100000 + str(len(a)))",
    },
    Verdict.RTE: {
        "c": "int main(void) { return *(volatile int *)0; }",
        "cpp": '#include <stdexcept>\nint main() { throw std::runtime_error("no"); }',
        "java": "public class Main { public static void main(String[] a) { int x = 1 / 0; } }",
        "python": "1 / 0",
    },
    Verdict.OLE: {
        "c": '#include <stdio.h>\nint main(void) { for (;;) puts("x"); }',
        "cpp": '#include <cstdio>\nint main() { for (;;) std::fprintf(stderr, "%999d", 1); }',
        "java": "public class Main { public static void main(String[] a) {"
        ' while (true) System.out.println("x".repeat(1000)); } }',
        "python": "while True: print('x' * 1000)",
    },
    Verdict.CE: {
        "c": "int main(void) { return 0 }",
        "cpp": "int main() { undeclared(); }",
        "java": 'public class Main { public static void main(String[] a) { int x = ""; } }',
        "python": "def f(:\n    pass",
    },
}
FEEDBACK = {
    ("c", Verdict.RTE): "killed by SIGSEGV",
    ("cpp", Verdict.RTE): "killed by SIGABRT: what():  no",
    ("java", Verdict.RTE): "exit code 1: at Main.main(Main.java:1)",
    ("python", Verdict.RTE): "exit code 1: ZeroDivisionError: division by zero",
    ("c", Verdict.TLE): "cpu time limit",
    ("cpp", Verdict.TLE): "wall time limit",
    ("c", Verdict.OLE): "output limit",
    ("c", Verdict.MLE): "memory limit",
    ("c", Verdict.WA): "token 1: expected '3', got the end of the output",
}


C_EXEC = """
#include <errno.h>
#include <unistd.h>
int main(void) { execl("/bin/true", "true", (char *)0); return errno; }
"""
JAVA_PROCESS = """
public class Main {
    public static void main(String[] a) {
        try { new ProcessBuilder("true").start(); }
        catch (java.io.IOException e) { System.err.println(e.getMessage()); System.exit(1); }
    }
}"""


class Bench:
    """A judge as a worker has it, and the results of its last tests."""

    def __init__(self) -> None:
        self.judge = Judge()
        self.tests: list[CaseResult] = []

    def __call__(
        self, problem: Problem, language: str, source: str | bytes, *, all_tests: bool = False
    ) -> SubmissionResult:
        missing = languages.load()[language].missing_programs()
        if missing:
            pytest.skip(f"needs {', '.join(missing)}")
        code = source.encode() if isinstance(source, str) else source
        self.tests = []
        return self.judge.judge(
            Submission(id="1", problem="sum", language=language, source_bytes=code),
            problem,
            all_tests=all_tests,
            on_test=self.tests.append,
        )


@pytest.fixture
def bench() -> Iterator[Bench]:
    one = Bench()
    with closing(one.judge):
        yield one


@pytest.fixture
def problem(make_problem: Callable[..., Problem]) -> Problem:
    return make_problem(TESTS, time_limit=0.5)


@pytest.mark.parametrize("language", SUM)
def test_right_solution_is_ac_with_all_figures(
    bench: Bench, problem: Problem, language: str
) -> None:
    result = bench(problem, language, SUM[language])
    assert (result.verdict, result.message, result.error) == (Verdict.AC, "", None)
    assert (result.tests_run, result.tests_total) == (2, 2)
    for test in bench.tests:
        assert (test.verdict, test.status, test.exit_code) == (Verdict.AC, "ok", 0)
        assert test.cpu_ns is not None
        assert test.wall_ns is not None
        assert test.memory_bytes is not None
        assert 0 < test.cpu_ns < 1_000_000_000
        assert 0 < test.memory_bytes < 128 * MiB
    assert result.cpu_ns == max(test.cpu_ns or 0 for test in bench.tests)
    assert result.enforced["files"] == "namespace"


@pytest.mark.parametrize("language", SUM)
@pytest.mark.parametrize("verdict", FAILING)
def test_failing_solution_has_its_verdict(
    bench: Bench, problem: Problem, language: str, verdict: Verdict
) -> None:
    result = bench(problem, language, FAILING[verdict][language])
    assert (result.verdict, result.error) == (verdict, None)
    if verdict is Verdict.CE:
        assert result.tests_run == 0
        assert languages.load()[language].source in result.message
    else:
        assert result.tests_run == 1
        feedback = bench.tests[-1].feedback
        assert FEEDBACK.get((language, verdict), feedback) == feedback


def test_all_tests_are_run_when_asked_for(bench: Bench, problem: Problem) -> None:
    result = bench(problem, "python", "print(42)", all_tests=True)
    assert result.verdict is Verdict.WA
    assert [test.verdict for test in bench.tests] == [Verdict.WA, Verdict.AC]


def test_source_that_is_not_utf8_compiles(bench: Bench, problem: Problem) -> None:
    source = b"/* \xe9 */ " + SUM["c"].encode().replace(b"int main", b"/* \xff */ int main")
    assert bench(problem, "c", b"\n".join(source.split(b" ", 3)[-1:])).verdict is Verdict.AC


def test_program_sees_its_input_but_no_answer_and_no_other_input(
    bench: Bench, problem: Problem
) -> None:
    source = f"""
import os, sys
for name in ["data/01.ans", "data/02.in", "problem.toml", "", ".."]:
    assert not os.path.exists(os.path.join({str(problem.folder)!r}, name)), name
assert sorted(os.listdir("/proc/self/fd")) == ["0", "1", "2", "3"]  # 3 is the listing's own
assert (os.getcwd(), os.listdir(".")) == ("/tmp", ["main.py"])
print(sum(map(int, sys.stdin.read().split())))
"""
    assert bench(problem, "python", source).verdict is Verdict.AC


def test_program_cannot_rewrite_its_input(bench: Bench, problem: Problem) -> None:
    # Writable for whoever the sandbox's user may be.
    for case in problem.cases:
        case.input.chmod(0o666)
    source = """
import os, sys
for flags in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
    try:
        fd = os.open("/proc/self/fd/0", flags)
        os.write(fd, b"99 99")
    except OSError:
        pass
print(sum(map(int, sys.stdin.read().split())))
"""
    assert bench(problem, "python", source).verdict is Verdict.AC
    assert [case.input.read_text() for case in problem.cases] == ["1 2\n", "20 22\n"]


@pytest.mark.parametrize("flags", ["MAP_SHARED", "MAP_PRIVATE"])
def test_program_may_map_its_input(bench: Bench, problem: Problem, flags: str) -> None:
    source = f"""
import mmap
text = mmap.mmap(0, 0, mmap.{flags}, mmap.PROT_READ)[:]
print(sum(map(int, text.split())))
"""
    assert bench(problem, "python", source).verdict is Verdict.AC


@pytest.mark.parametrize("language", ["python", "c"])
def test_program_may_write_to_its_own_tmp_alone_and_keeps_nothing(
    bench: Bench, problem: Problem, language: str
) -> None:
    python = """
import os
for path in ["/new", "/etc/new", "/usr/new"]:
    try:
        open(path, "a")
    except OSError:
        continue
    raise SystemExit(f"wrote {path}")
assert not os.path.exists("/tmp/kept")
open("/tmp/kept", "w").close()
open("main.py", "w").write("raise SystemExit(1)")
print(sum(map(int, input().split())))
"""
    c = """
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void)
{
    int a, b;
    /* Its file is shared by all tests: it can neither be written to nor made useless. */
    if (open("/proc/self/exe", O_WRONLY | O_TRUNC) >= 0 || access("/tmp/kept", F_OK) == 0)
        return 1;
    chmod("/proc/self/exe", 0);
    close(open("/tmp/kept", O_CREAT, 0600));
    scanf("%d %d", &a, &b);
    printf("%d\\n", a + b);
}
"""
    source = {"python": python, "c": c}[language]
    result = bench(problem, language, source)
    assert (result.verdict, result.tests_run) == (Verdict.AC, 2)
    assert bench(problem, language, source).verdict is Verdict.AC


@pytest.mark.parametrize(
    ("language", "source", "feedback"),
    [
        ("c", C_EXEC, "exit code 1"),  # EPERM
        ("cpp", '#include <cstdlib>\nint main() { return system("true") ? 9 : 0; }', "code 9"),
        (
            "python",
            "import os\nos.fork()",
            "PermissionError: [Errno 1] Operation not permitted",
        ),
        ("java", JAVA_PROCESS, 'exit code 1: Cannot run program "true"'),
    ],
)
def test_program_starts_no_other_program_of_the_system(
    bench: Bench, problem: Problem, language: str, source: str, feedback: str
) -> None:
    result = bench(problem, language, source)
    assert result.verdict is Verdict.RTE
    assert feedback in bench.tests[-1].feedback


def test_program_in_c_may_have_threads_and_children(bench: Bench, problem: Problem) -> None:
    source = """
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static void *sum(void *of) { int *n = of; n[0] += n[1]; return 0; }
int main(void)
{
    int n[2], status;
    pthread_t thread;
    scanf("%d %d", n, n + 1);
    pthread_create(&thread, 0, sum, n);
    pthread_join(thread, 0);
    if (fork() == 0)
        return printf("%d\\n", n[0]) < 0;
    return wait(&status) < 0;
}
"""
    assert bench(problem, "c", source).verdict is Verdict.AC


# What a compiler leaves


def leaves(script: str, *artefacts: str) -> Mapping[str, languages.Language]:
    """Give the language whose compiler is a script."""
    shell = languages.load()["python"]
    compiler = ["sh", "-euc", script]
    one = msgspec.structs.replace(shell, compile=compiler, artefacts=list(artefacts))
    return {"python": one}


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("ln -sf /etc/passwd main.py", "main.py: it is a symbolic link"),
        ("rm main.py; mkfifo main.py", "main.py: it is a fifo"),
        ("rm main.py; mkdir main.py", "main.py: it is a directory"),
        ("rm main.py", "the compiler left no main.py or *.class"),
        ("touch $(seq -f %g.class 1500)", "the compiler left more files than 1000"),
        ("rm main.py; touch 'x\nmain.py'", "main.py: it is not there"),
        (
            "for i in 1 2 3; do head -c 40M /dev/zero >$i.class; done",
            "what it leaves is above 32.0 MiB",
        ),
        ("truncate -s 60M $(seq -f %g.class 50)", "what it leaves is above 256.0 MiB"),
        (
            "for i in 1 2 3 4 5; do head -c 60M /dev/zero >$i; done 2>/dev/null",
            "the compiler wrote more than 256.0 MiB",
        ),
        ("cd /; rm -r /tmp/*", "the compiler left no main.py or *.class"),
    ],
)
def test_compiler_that_leaves_what_is_no_artefact_is_ce(
    problem: Problem, submission: Callable[..., Submission], script: str, message: str
) -> None:
    with closing(Judge(known_languages=leaves(script, "main.py", "*.class"))) as judge:
        result = judge.judge(submission(SUM["python"], "python"), problem)
    assert (result.verdict, result.message) == (Verdict.CE, message)


def test_all_that_fits_a_pattern_is_there_for_the_program(
    problem: Problem, submission: Callable[..., Submission]
) -> None:
    script = "for i in $(seq 150); do echo $i >$i.class; done; touch other .hidden"
    source = f"import os; assert len(os.listdir()) == 151, os.listdir()\n{SUM['python']}"
    with closing(Judge(known_languages=leaves(script, "main.py", "*.class"))) as judge:
        result = judge.judge(submission(source, "python"), problem)
    assert (result.verdict, result.message) == (Verdict.AC, "")


def test_submission_finds_nothing_of_the_one_before(
    problem: Problem, submission: Callable[..., Submission]
) -> None:
    """Not where it is compiled either, in the same sandbox."""
    script = "ls -A /tmp /dev/shm >&2; touch /tmp/left /dev/shm/left; false"
    with closing(Judge(known_languages=leaves(script, "main.py"))) as judge:
        messages = {
            judge.judge(submission("pass", "python"), problem).message for _ in range(3)
        }
    assert messages == {"/dev/shm:\n\n/tmp:\nmain.py"}


def test_compiler_cannot_be_made_to_read_the_answer(bench: Bench, problem: Problem) -> None:
    source = f'#include "{problem.cases[0].answer}"\nint main(void) {{}}'
    result = bench(problem, "c", source)
    assert result.verdict is Verdict.CE
    assert "No such file or directory" in result.message


def test_compiler_message_is_cut(bench: Bench, problem: Problem) -> None:
    source = "#define A x x x x x x x x\n#define B A A A A A A A A\n" + "B;\n" * 2000
    result = bench(problem, "c", source)
    assert result.verdict is Verdict.CE
    assert len(result.message.encode()) < 70_000


def test_artefact_that_would_be_a_giant_is_ce(bench: Bench, problem: Problem) -> None:
    result = bench(problem, "c", "char a[1 << 30] = {1};\nint main(void) {}")
    assert result.verdict is Verdict.CE


def test_program_larger_than_its_directory_is_executed_all_the_same(
    bench: Bench, problem: Problem
) -> None:
    large = "static char large[60 << 20] = {1};\n"
    source = large + SUM["c"].replace("scanf", "a = large[1]; scanf")
    assert bench(problem, "c", source).verdict is Verdict.AC


def test_judge_function_judges_one_submission(problem: Problem) -> None:
    submission = Submission(id="1", problem="sum", language="python", source=SUM["python"])
    folder = problem.folder.parent
    assert worker.judge(submission, problems=folder).verdict is Verdict.AC


def test_judge_function_refuses_an_unknown_problem(tmp_path: Path) -> None:
    submission = Submission(id="1", problem="sum", language="python", source="")
    with pytest.raises(ConfigError, match=r"sum/problem\.toml: cannot be read: No such file"):
        worker.judge(submission, problems=tmp_path)
