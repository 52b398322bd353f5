"""A real gunicorn, whose workers run programs in sandboxes. FJ11, demands 21-26."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kernel.serving import (
    PATIENCE,
    Server,
    ending,
    parent_of,
    until,
)

pytest.importorskip("gunicorn")

pytestmark = pytest.mark.userns

# Both are started when it is imported: with --preload in the master, before the fork.
APPLICATION = """
import json, os, urllib.parse
from runner import Sandbox, SandboxPool
sandbox = Sandbox(name=os.environ["MARK"])
sandbox.start()
pool = SandboxPool(2, name=os.environ["MARK"])
assert pool.run(["true"]).ok
def application(environ, start_response):
    run = {"/sandbox": sandbox.run, "/pool": pool.run}[environ["PATH_INFO"]]
    result = run(["sh", "-c", urllib.parse.unquote(environ["QUERY_STRING"])])
    told = {"worker": os.getpid(), "status": result.status.value}
    told["stdout"] = result.stdout.decode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
"""
# gunicorn ends a worker that is silent for so long; one that starts has to be faster.
TIMEOUT_S = 4


class FailedRequest(Exception):  # noqa: N818 - the server's answer, not an error of the test's
    """The worker has failed: its status."""


class Answer(NamedTuple):
    worker: int
    status: str
    stdout: str


class Gunicorn(Server):
    """Served at a socket of ours, so that nobody is refused while it starts."""

    def __init__(self, words: list[str], directory: Path) -> None:
        mark = f"served{os.getpid()}at{time.monotonic_ns()}"
        (directory / "served.py").write_text(APPLICATION)
        command = ["gunicorn", "--name", mark, "--workers", "2", "--no-control-socket"]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
            super().__init__(
                [*command, "--bind", f"fd://{listener.fileno()}", *words, "served:application"],
                directory=directory,
                mark=mark,
                fds=[listener.fileno()],
            )

    def ask(self, script: str, path: str = "/pool") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request("GET", f"{path}?{urllib.parse.quote(script)}")
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise FailedRequest(response.status)
        self.look()
        answer = Answer(**json.loads(content))
        self.seen.add(answer.worker)
        return answer


class Request(threading.Thread):
    """Asks for a program that takes long, and notes what came of it."""

    def __init__(self, server: Gunicorn, script: str, path: str) -> None:
        super().__init__()
        self._ask: Callable[[], Answer] = lambda: server.ask(script, path)
        self.answer: Answer | None = None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._ask()
        except Exception as error:  # noqa: BLE001 - it is looked at
            self.error = error


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Gunicorn]]:
    servers: list[Gunicorn] = []

    def start(*words: str) -> Gunicorn:
        servers.append(Gunicorn(list(words), tmp_path))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


CLASSES = {
    "sync": ("--worker-class", "sync"),
    "gthread": ("--worker-class", "gthread", "--threads", "4"),
}
worker_class = pytest.mark.parametrize("words", CLASSES.values(), ids=CLASSES)
preload = pytest.mark.parametrize("early", [("--preload",), ()], ids=["preload", "late"])
# Each with one of the faces, as the other does the same.
preload_and_face = pytest.mark.parametrize(
    ("early", "path"),
    [(("--preload",), "/sandbox"), ((), "/pool")],
    ids=["preload-sandbox", "late-pool"],
)


@worker_class
@preload
def test_workers_run_programs_and_a_graceful_end_waits_for_them(
    serve: Callable[..., Gunicorn], words: tuple[str, ...], early: tuple[str, ...]
) -> None:
    server = serve(*words, *early)
    with ThreadPoolExecutor(4) as threads:
        paths = ["/sandbox", "/pool"] * 6
        answers = list(threads.map(lambda path: server.ask("echo $((6 * 7))", path), paths))
        assert {(one.status, one.stdout) for one in answers} == {("ok", "42\n")}
        last = threads.submit(server.ask, f"echo {server.mark}; sleep 1")
        # Its sandbox is the worker's own, whatever was started before the fork.
        worker = server.running("sleep 1").worker
        assert parent_of(worker) == server.process.pid
        server.end()
        assert last.result() == Answer(worker, "ok", f"{server.mark}\n")
    assert server.left_groups() == set()


@worker_class
@preload
def test_workers_that_are_recycled_leave_nothing(
    serve: Callable[..., Gunicorn], words: tuple[str, ...], early: tuple[str, ...]
) -> None:
    server = serve(*words, *early, "--max-requests", "2")
    fds = f"/proc/{server.process.pid}/fd"
    workers = {server.ask("true", path).worker for path in ["/sandbox", "/pool"] * 2}
    before = len(os.listdir(fds))
    workers |= {server.ask("true", path).worker for path in ["/sandbox", "/pool"] * 5}
    assert len(workers) >= 3
    # The master, its two workers, and of each the two processes of both of its sandboxes.
    until(lambda: len(server.look()) <= 3 + 3 * 2 * 2)
    until(lambda: len(os.listdir(fds)) <= before + 2)  # one may just start
    server.end()
    assert server.left_groups() == set()


@worker_class
@preload_and_face
def test_worker_that_is_killed_takes_its_program_with_it(
    serve: Callable[..., Gunicorn], words: tuple[str, ...], early: tuple[str, ...], path: str
) -> None:
    server = serve(*words, *early)
    request = Request(server, f"sleep 500; : {server.mark}", path)
    running = server.running("sleep 500")
    with ending(*running):
        os.kill(running.worker, signal.SIGKILL)
    request.join(PATIENCE)
    assert isinstance(request.error, ConnectionError)
    assert server.ask("echo again", path)[1:] == ("ok", "again\n")
    server.end()
    assert server.left_groups_after_another_start() == set()


@preload_and_face
def test_worker_that_its_server_aborts_takes_its_program_with_it(
    serve: Callable[..., Gunicorn], early: tuple[str, ...], path: str
) -> None:
    """By SIGABRT, whose handler raises SystemExit in the middle of the run."""
    server = serve(*CLASSES["sync"], *early, "--timeout", str(TIMEOUT_S))
    request = Request(server, f"sleep 500; : {server.mark}", path)
    with ending(server.running("sleep 500").program):
        request.join(PATIENCE)
    # Whether it can still say so depends on how soon SIGKILL follows.
    assert isinstance(request.error, (FailedRequest, ConnectionError))
    assert "WORKER TIMEOUT" in server.log.read_text()
    assert server.ask("echo again", path)[1:] == ("ok", "again\n")
    server.end()
    assert server.left_groups_after_another_start() == set()
