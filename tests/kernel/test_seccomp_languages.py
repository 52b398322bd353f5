"""Real programs under the stock policies: each is compiled under one, and run under its own.

Rows FS3–FS8, U2, M75; T22: what is linked statically is held as well.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runner import GiB, Limits, Mount, Result, Sandbox, Status

pytestmark = [pytest.mark.userns, pytest.mark.slow]

# Each reads two numbers, allocates, uses a file, time, randomness, and fails at something.
C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/resource.h>
int main(void) {
    long a, b;
    if (scanf("%ld %ld", &a, &b) != 2) return 1;
    char *big = malloc(64 << 20);
    memset(big, 1, 64 << 20);
    big = realloc(big, 128 << 20);
    FILE *file = tmpfile();
    fprintf(file, "%ld", a + b);
    rewind(file);
    long sum = 0;
    if (fscanf(file, "%ld", &sum) != 1) return 2;
    fclose(file);
    struct rlimit limit;
    struct timespec now;
    if (getrlimit(RLIMIT_STACK, &limit) || clock_gettime(CLOCK_MONOTONIC, &now)) return 3;
    printf("%ld\n", sum);
    fflush(stdout);
    free(big);
    return 0;
}
"""
CPP = r"""
#include <chrono>
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>
int main() {
    std::ios::sync_with_stdio(false);
    long a, b;
    std::cin >> a >> b;
    std::random_device device;
    std::mt19937 random(device());
    std::map<int, std::string> map;
    for (int i = 0; i < 100000; i++) map[static_cast<int>(random())] = "x";
    std::ofstream("/tmp/sum") << a + b;
    std::string text;
    std::ifstream("/tmp/sum") >> text;
    try { throw std::runtime_error(text); }
    catch (const std::exception &error) { std::cout << error.what() << std::endl; }
    return std::chrono::steady_clock::now().time_since_epoch().count() == 0;
}
"""
RUST = r"""
use std::collections::HashMap;
use std::io::{Read, Write};
fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let sum: i64 = text.split_whitespace().map(|w| w.parse::<i64>().unwrap()).sum();
    let mut map = HashMap::new();
    for i in 0..100_000 { map.insert(i, vec![0u8; 10]); }
    std::fs::File::create("/tmp/sum").unwrap().write_all(sum.to_string().as_bytes()).unwrap();
    let caught = std::panic::catch_unwind(|| { std::fs::read_to_string("/missing").unwrap() });
    assert!(caught.is_err() && std::time::Instant::now().elapsed().as_secs() < 1000);
    println!("{}", std::fs::read_to_string("/tmp/sum").unwrap());
}
"""
JAVA = r"""
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.IntStream;
public class Main {
    public static void main(String[] a) throws Exception {
        Scanner in = new Scanner(System.in);
        long sum = in.nextLong() + in.nextLong();
        Path file = Files.createTempFile("sum", ".txt");
        Files.writeString(file, Long.toString(sum));
        ExecutorService pool = Executors.newFixedThreadPool(4);
        String text = pool.submit(() -> Files.readString(file)).get();
        pool.shutdown();
        byte[][] garbage = new byte[100][];
        for (int i = 0; i < 1000; i++) garbage[i % 100] = new byte[1 << 18];
        System.gc();
        IntStream.range(0, 1000).parallel().sum();
        try { Object o = null; o.hashCode(); } catch (NullPointerException e) { }
        try { new ProcessBuilder("true").start(); text = "started"; }
        catch (java.io.IOException e) { }
        System.out.println(text);
    }
}
"""
PYTHON = r"""
import asyncio, random, re, socket, sqlite3, subprocess, sys, tempfile, threading, time
a, b = map(int, sys.stdin.read().split())
found = []
thread = threading.Thread(target=lambda: found.append(a + b))
thread.start(); thread.join()
async def wait():
    await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(5)))
    return await asyncio.get_running_loop().run_in_executor(None, found.pop)
value = asyncio.run(wait())
with tempfile.TemporaryFile("w+") as file:
    file.write(str(value)); file.seek(0); text = file.read()
base = sqlite3.connect("/tmp/base"); base.execute("create table t (x)"); base.commit()
random.random(); time.sleep(0.001)
for attempt in (lambda: subprocess.run(["true"]), lambda: socket.socket()):
    try: attempt()
    except OSError as error: assert error.errno in (1, 97), error
    else: sys.exit("that should not work")
print(text)
"""
NODE = r"""
const { execFileSync } = require("child_process");
const { Worker } = require("worker_threads");
const fs = require("fs"), zlib = require("zlib"), crypto = require("crypto");
const sum = fs.readFileSync(0, "utf8").trim().split(/\s+/).map(Number).reduce((x, y) => x + y);
fs.writeFileSync("/tmp/sum", String(sum));
try { execFileSync("true"); console.log("started"); } catch (e) {
    if (e.code !== "EPERM") console.log(e.code);
}
crypto.randomBytes(8);
zlib.gzip("x".repeat(1000), () => fs.readFile("/tmp/sum", "utf8", (error, text) => {
    new Worker(`console.log("${text}")`, { eval: true });
}));
"""
GO = r"""package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

func main() {
	var a, b int
	fmt.Scan(&a, &b)
	var group sync.WaitGroup
	sums := make(chan int, 100)
	for i := 0; i < 100; i++ {
		group.Add(1)
		go func() { defer group.Done(); time.Sleep(time.Millisecond); sums <- a + b }()
	}
	group.Wait()
	runtime.GC()
	os.WriteFile("/tmp/sum", []byte(fmt.Sprint(<-sums)), 0600)
	text, _ := os.ReadFile("/tmp/sum")
	if exec.Command("true").Run() == nil { fmt.Println("started") }
	if _, err := net.Listen("tcp", "127.0.0.1:0"); err == nil { fmt.Println("listens") }
	fmt.Println(string(text))
}
"""


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


class Boxes:
    """A sandbox for each policy, all with one directory, in which is worked."""

    def __init__(self, place: Path, made: ExitStack) -> None:
        self.place = place
        self._made = made
        self._boxes: dict[str, Sandbox] = {}

    def write(self, name: str, text: str) -> None:
        (self.place / name).write_text(text)

    def result(self, policy: str, *command: str, stdin: bytes = b"20 22\n") -> Result:
        if policy not in self._boxes:
            sandbox = Sandbox(
                policy=policy,
                mounts=[Mount.bind(str(self.place), "/work", readonly=False), *toolchains()],
                work_dir="/work",
                limits=Limits(wall_time=100, memory=2 * GiB),
                env={"PATH": "/usr/bin:/bin:/rust/bin", "HOME": "/tmp", "LANG": "C.UTF-8"},
            )
            self._boxes[policy] = self._made.enter_context(sandbox)
        return self._boxes[policy].run(command, stdin=stdin)

    def run(self, policy: str, *command: str) -> str:
        """Run a command that has to succeed, and give its output."""
        result = self.result(policy, *command)
        told = (policy, command, result.violation, result.stderr)
        assert result.status is Status.OK, told
        return (result.stdout or b"").decode().strip()


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[Boxes]:
    tmp_path.chmod(0o777)
    with ExitStack() as made:
        yield Boxes(tmp_path, made)


def toolchains() -> Iterator[Mount]:
    """Show rustc where rustup has put it: in a home directory."""
    rustc = shutil.which("rustc")
    if rustc is not None:
        command = [rustc, "--print", "sysroot"]
        home = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        yield Mount.bind(home.strip(), "/rust")


LINKS = ["-pie", "-static"]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("compiler", ["gcc", "musl-gcc"])
def test_c_is_built_under_compiler_and_runs_under_strict(
    boxes: Boxes, compiler: str, link: str
) -> None:
    tool(compiler)
    boxes.write("a.c", C)
    boxes.run("compiler", compiler, "-O2", link, "-o", "a", "a.c")
    assert boxes.run("strict", "./a") == "42"


@pytest.mark.parametrize("link", LINKS)
def test_cpp_is_built_under_compiler_and_runs_under_strict(boxes: Boxes, link: str) -> None:
    boxes.write("a.cpp", CPP)
    boxes.run("compiler", tool("g++"), "-O1", "-flto=2", link, "-o", "a", "a.cpp")
    assert boxes.run("strict", "./a") == "42"


@pytest.mark.parametrize("link", LINKS)
def test_rust_is_built_under_compiler_and_runs_under_strict(boxes: Boxes, link: str) -> None:
    tool("rustc")
    boxes.write("a.rs", RUST)
    static = ["-C", "target-feature=+crt-static"] if link == "-static" else []
    boxes.run("compiler", "/rust/bin/rustc", "-O", *static, "a.rs")
    assert boxes.run("strict", "./a") == "42"


@pytest.mark.parametrize("policy", ["compiler", "jvm"])
def test_java_is_built_under_compiler_or_jvm_and_runs_under_jvm(
    boxes: Boxes, policy: str
) -> None:
    boxes.write("Main.java", JAVA)
    boxes.run(policy, tool("javac"), "-J-Xmx256m", "Main.java")
    assert boxes.run("jvm", tool("java"), "-Xmx128m", "Main") == "42"


def test_python_runs_under_python(boxes: Boxes) -> None:
    boxes.write("a.py", PYTHON)
    boxes.run("python", "/usr/bin/python3", "-m", "py_compile", "a.py")
    assert boxes.run("python", "/usr/bin/python3", "a.py") == "42"
    assert boxes.run("python", "/usr/bin/env", "python3", "a.py") == "42"


def test_node_runs_under_node(boxes: Boxes) -> None:
    boxes.write("a.js", NODE)
    assert boxes.run("node", tool("node"), "a.js") == "42"


@pytest.mark.parametrize("cgo", ["0", "1"])
def test_go_is_built_under_compiler_and_runs_under_go(boxes: Boxes, cgo: str) -> None:
    tool("go")
    boxes.write("a.go", GO)
    settings = [
        f"CGO_ENABLED={cgo}",
        "GOCACHE=/tmp/cache",
        "GOPATH=/tmp/path",
        "GO111MODULE=off",
    ]
    boxes.run("compiler", "env", *settings, "go", "build", "-o", "a", "a.go")
    assert boxes.run("go", "./a") == "42"


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("fork();", {"fork", "clone"}),
        ('system("true");', {"vfork", "clone"}),
        ('execl("/bin/true", "true", (char *)0);', {"execve"}),
        ("socket(1, 1, 0);", {"socket"}),
        ("pthread_t t; pthread_create(&t, 0, (void *(*)(void *))main, 0);", {"clone"}),
    ],
)
def test_strict_ends_what_is_none_of_a_contest_program(
    boxes: Boxes, link: str, line: str, call: set[str]
) -> None:
    headers = "".join(
        f"#include <{name}.h>\n" for name in ("pthread", "stdlib", "sys/socket", "unistd")
    )
    boxes.write("a.c", f"{headers}int main(void) {{ {line} return 0; }}")
    boxes.run("compiler", "gcc", link, "-pthread", "-o", "a", "a.c")
    result = boxes.result("strict", "./a")
    assert result.status is Status.DISALLOWED_SYSCALL
    if result.violation is not None:
        assert result.violation.name in call
    assert boxes.run("default", "./a") == ""


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("abort();", signal.SIGABRT),
        ("assert(argc > 5);", signal.SIGABRT),
        ("raise(SIGTERM);", signal.SIGTERM),
        ("return main(argc + 1, argv) + argc;", signal.SIGSEGV),
        ("int zero = argc - 1; return 7 / zero;", signal.SIGFPE),
    ],
)
def test_strict_lets_a_program_die_in_its_own_way(
    boxes: Boxes, line: str, number: signal.Signals
) -> None:
    headers = "".join(f"#include <{name}.h>\n" for name in ("assert", "signal", "stdlib"))
    boxes.write("a.c", f"{headers}int main(int argc, char **argv) {{ {line} }}")
    for link in LINKS:
        boxes.run("compiler", "gcc", "-O0", link, "-o", "a", "a.c")
        result = boxes.result("strict", "./a")
        assert (result.status, result.signal) == (Status.SIGNALLED, number), link


def test_compiler_that_is_itself_attacked_has_no_network(boxes: Boxes) -> None:
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM)"
    result = boxes.result("compiler", "/usr/bin/python3", "-c", code)
    assert b"[Errno 97]" in (result.stderr or b"")
