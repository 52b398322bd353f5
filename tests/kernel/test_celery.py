"""A real Celery, whose forked workers run programs in sandboxes. FJ11, demands 21-26.

The broker is a directory, and so is where the results are.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.serving import PATIENCE, Server, ending, until

celery = pytest.importorskip("celery")

pytestmark = pytest.mark.userns

# One pool is made, and started, before the fork, one by each worker process.
APPLICATION = """
import os
from celery import Celery, signals
from celery.exceptions import SoftTimeLimitExceeded
from runner import SandboxPool

app = Celery()
app.config_from_object("settings")
pools = {"early": SandboxPool(1, name=os.environ["MARK"])}
assert pools["early"].run(["true"]).ok

@signals.worker_process_init.connect
def begin(**_):
    pools["late"] = SandboxPool(1, name=os.environ["MARK"])

@signals.worker_process_shutdown.connect
def end(**_):
    for pool in pools.values():
        pool.close()

@app.task(name="judge")
def judge(pool, script):
    try:
        result = pools[pool].run(["sh", "-c", script])
    except SoftTimeLimitExceeded:
        result = pools[pool].run(["echo", "late"])
    return [os.getpid(), result.status.value, result.stdout.decode()]
"""
SETTINGS = """
broker_url = "filesystem://"
broker_transport_options = {{
    "data_folder_in": "{0}/queue",
    "data_folder_out": "{0}/queue",
    "control_folder": "{0}/control",
    "polling_interval": 0.05,
}}
result_backend = "file://{0}/results"
result_expires = None
worker_enable_remote_control = False
worker_lost_wait = 0.1
"""


class Worker(Server):
    """Celery's, with two processes; `app` sends to it."""

    def __init__(self, directory: Path) -> None:
        mark = f"served{os.getpid()}at{time.monotonic_ns()}"
        for name in ("sent", "queue", "control", "results"):
            (directory / name).mkdir()
        self._directory = directory
        settings = SETTINGS.format(directory)
        (directory / "settings.py").write_text(settings)
        (directory / "served.py").write_text(APPLICATION)
        self.app = celery.Celery(set_as_current=False)
        values: dict[str, Any] = {}
        exec(settings, values)
        self.app.conf.update({name: values[name] for name in values if name[0] != "_"})
        self.app.conf.broker_transport_options["data_folder_out"] = f"{directory}/sent"
        command = ["celery", "-A", "served", "worker", "--concurrency", "2"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        super().__init__(
            [*command, "--hostname", f"{mark}@localhost", *quiet],
            directory=directory,
            mark=mark,
        )

    def send(self, pool: str, script: str, **options: object) -> Any:  # noqa: ANN401 - its own
        sent = self.app.send_task("judge", (pool, script), **options)
        # Whole: who reads the queue may come upon a message that is not written yet.
        for message in (self._directory / "sent").iterdir():
            message.rename(self._directory / "queue" / message.name)
        return sent

    def answer(self, sent: Any) -> tuple[int, str, str]:  # noqa: ANN401 - Celery's
        worker, status, stdout = sent.get(timeout=PATIENCE, interval=0.02)
        self.look()
        self.seen.add(worker)
        return worker, status, stdout


@pytest.fixture
def fresh_worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path)
    yield made
    made.app.close()
    made.close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("celery"))
    made.answer(made.send("early", "true"))
    yield made
    made.app.close()
    made.close()


pool = pytest.mark.parametrize("pool", ["early", "late"])


@pool
def test_tasks_run_programs(worker: Worker, pool: str) -> None:
    sent = [worker.send(pool, "echo $((6 * 7))") for _ in range(8)]
    assert {worker.answer(one)[1:] for one in sent} == {("ok", "42\n")}


@pool
def test_soft_time_limit_ends_the_program_and_the_task_goes_on(
    worker: Worker, pool: str
) -> None:
    """By SIGUSR1, whose handler raises in the middle of the run."""
    sent = worker.send(pool, f"sleep 500; : {worker.mark} soft", soft_time_limit=1)
    process, status, stdout = worker.answer(sent)
    assert (status, stdout) == ("ok", "late\n")
    assert not any("soft" in line for line in worker.look().values())
    assert process in worker.look()


@pool
def test_hard_time_limit_takes_the_program_with_the_process(worker: Worker, pool: str) -> None:
    sent = worker.send(pool, f"sleep 500; : {worker.mark} hard", time_limit=3)
    exceeded = pytest.raises(celery.exceptions.TimeLimitExceeded)
    with ending(*worker.running("hard")), exceeded:
        worker.answer(sent)
    assert worker.answer(worker.send(pool, "echo again"))[1:] == ("ok", "again\n")


@pytest.mark.parametrize(
    ("number", "pool"), [(signal.SIGKILL, "early"), (signal.SIGTERM, "late")]
)
def test_process_that_is_ended_takes_the_program_with_it(
    worker: Worker, number: signal.Signals, pool: str
) -> None:
    """By somebody, or as by a revoked task."""
    sent = worker.send(pool, f"sleep 500; : {worker.mark} {number}")
    running = worker.running(f" {number}")
    with ending(*running):
        os.kill(running.worker, number)
    with pytest.raises(Exception, match=r"Worker exited|Terminated|terminated"):
        worker.answer(sent)
    assert worker.answer(worker.send(pool, "echo again"))[1:] == ("ok", "again\n")


def test_warm_shutdown_waits_for_the_program_and_leaves_nothing(fresh_worker: Worker) -> None:
    worker = fresh_worker
    assert worker.answer(worker.send("early", "true"))[1] == "ok"
    sent = worker.send("late", f"sleep 1; echo {worker.mark}")
    process = worker.running("sleep 1").worker
    worker.end()
    assert worker.answer(sent) == (process, "ok", f"{worker.mark}\n")
    assert worker.left_groups() == set()


def test_groups_of_processes_that_were_killed_go_with_the_next_start(
    fresh_worker: Worker,
) -> None:
    worker = fresh_worker
    worker.send("late", f"sleep 500; : {worker.mark}")
    process = worker.running("sleep 500").worker
    os.kill(process, signal.SIGKILL)
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    until(lambda: not worker.look())
    until(lambda: not Path(f"/proc/{process}").exists())  # reaped, by whoever has to
    assert worker.left_groups_after_another_start() == set()
