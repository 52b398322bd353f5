"""`Noise`: what is suspect by what was measured, and how the host's files are read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runner import disturbance
from runner.host import detect
from runner.noise import Noise
from runner.result import Result, Status
from runner.wire import Note

MS = 1_000_000
SECOND = 1000 * MS


@pytest.mark.parametrize(
    ("noise", "wall_ns", "switches", "suspect"),
    [
        (Noise(), SECOND, 0, ()),
        (Noise(ready_ns=10 * MS), SECOND, 0, ()),
        (Noise(ready_ns=10 * MS + 1), SECOND, 0, ("it waited 10.0 ms for a CPU",)),
        (Noise(ready_ns=500_000), 10 * MS, 0, ()),
        (Noise(ready_ns=600_000), 10 * MS, 0, ("it waited 0.6 ms for a CPU",)),
        (Noise(), SECOND, 55, ()),
        (Noise(), SECOND, 56, ("it was taken off its CPU 56 times",)),
        (Noise(migrations=22), SECOND, 0, ()),
        (Noise(migrations=23), SECOND, 0, ("it was moved to another CPU 23 times",)),
        (Noise(throttled_above_ns=0, steal_ns=0, frequency_change=0.0), SECOND, 0, ()),
        (
            Noise(throttled_above_ns=MS),
            SECOND,
            0,
            ("a group above it was throttled for 1.0 ms",),
        ),
        (Noise(steal_ns=10 * MS), SECOND, 0, ("the hypervisor ran others for 10.0 ms",)),
        (Noise(cpu_pressure_ns=50 * MS), SECOND, 0, ()),
        (Noise(cpu_pressure_ns=51 * MS), SECOND, 0, ("CPUs were waited for 51.0 ms",)),
        (Noise(frequency_change=0.05), SECOND, 0, ()),
        (Noise(frequency_change=0.2), SECOND, 0, ("a CPU's frequency changed by 20%",)),
        (Noise(load=99.0), SECOND, 0, ()),
        (
            Noise(ready_ns=SECOND, steal_ns=SECOND),
            SECOND,
            0,
            ("it waited 1000.0 ms for a CPU", "the hypervisor ran others for 1000.0 ms"),
        ),
    ],
)
def test_times_are_suspect_for_what_is_more_than_ever(
    noise: Noise, wall_ns: int, switches: int, suspect: tuple[str, ...]
) -> None:
    judged = noise.judged(wall_ns=wall_ns, cpu_ns=SECOND, switches=switches)
    assert judged.suspect == suspect
    assert judged._replace(suspect=()) == noise


def test_noise_is_in_the_json_form() -> None:
    noise = Noise(ready_ns=1, suspect=("a", "b"))
    form = json.loads(Result(status=Status.OK, noise=noise).to_json())
    assert form["noise"] == {
        "ready_ns": 1,
        "migrations": None,
        "throttled_above_ns": None,
        "steal_ns": None,
        "cpu_pressure_ns": None,
        "frequency_change": None,
        "load": None,
        "suspect": ["a", "b"],
    }
    assert json.loads(Result(status=Status.OK).to_json())["noise"] is None


class Files:
    """The files that `disturbance` reads, as a test says."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}

    def read(self, path: str) -> bytes:
        return self.texts.get(path, b"")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    files = Files()
    monkeypatch.setattr(disturbance, "_read", files.read)
    monkeypatch.setattr(disturbance, "groups_above", lambda _host, _name: GROUPS)
    return files


GROUPS = [("/one/b", 1), ("/one", 1), ("/two/own", 2), ("/two", 2)]
RESULT = Result(status=Status.OK, wall_ns=SECOND, cpu_ns=SECOND)


def test_noise_on_a_host_that_tells_nothing_is_none(files: Files) -> None:
    assert disturbance.Disturbance(detect(), None).noise(RESULT, {}) == Noise()
    assert files.texts == {}


def test_noise_is_what_has_risen_meanwhile(files: Files) -> None:
    tick_ns = SECOND // os.sysconf("SC_CLK_TCK")
    files.texts = {
        "/proc/stat": b"cpu  1 2 3 4 5 6 7 80 0 0\ncpu0 1\n",
        "/proc/pressure/cpu": b"some avg10=0.00 avg300=0.0 total=1000\nfull total=9\n",
        "/proc/loadavg": b"1.25 0.1 0.1 1/100 99\n",
        "/one/b/cpu.stat": b"nr_periods 1\nnr_throttled 1\nthrottled_time 5\n",
        "/one/cpu.stat": b"nr_periods 1\nnr_throttled 1\nthrottled_time 7\n",
        "/two/own/cpu.stat": b"usage_usec 1\nthrottled_usec 100\n",
        "/two/cpu.stat": b"usage_usec 1\nthrottled_usec 1\n",
    }
    meter = disturbance.Disturbance(detect(), "/two")
    files.texts |= {
        "/proc/stat": b"cpu  1 2 3 4 5 6 7 83 0 0\ncpu0 1\n",
        "/proc/pressure/cpu": b"some avg10=0.00 avg300=0.0 total=1004\nfull total=99\n",
        "/one/b/cpu.stat": b"nr_periods 1\nnr_throttled 1\nthrottled_time 6\n",
        # Not above the program: our own group is beside its.
        "/two/own/cpu.stat": b"usage_usec 1\nthrottled_usec 900\n",
        "/two/cpu.stat": b"usage_usec 1\nthrottled_usec 3\n",
    }
    notes = {
        Note.SCHEDSTAT: b"123 456 7\n",
        Note.SCHED: (
            b"se.nr_migrations : 9 (1, #threads: 1)\n---\n"
            b"se.nr_migrations                             :                    2\n"
        ),
    }
    noise = meter.noise(RESULT, notes)
    assert noise._replace(suspect=()) == Noise(
        ready_ns=456,
        migrations=2,
        throttled_above_ns=1 + 2000,
        steal_ns=3 * tick_ns,
        cpu_pressure_ns=4000,
        load=1.25,
    )


def test_ready_time_of_a_kernel_that_keeps_none_is_none(files: Files) -> None:
    noise = disturbance.Disturbance(detect(), None).noise(RESULT, {Note.SCHEDSTAT: b"0 0 0\n"})
    assert noise.ready_ns is None
    assert files.texts == {}


def test_frequency_change_is_that_of_the_cpu_that_changed_most(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("policy0", "policy1", "policy2"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(disturbance, "_CPUS", str(tmp_path))
    files.texts = {
        f"{tmp_path}/policy0/scaling_cur_freq": b"2000000\n",
        f"{tmp_path}/policy1/scaling_cur_freq": b"2000000\n",
    }
    meter = disturbance.Disturbance(detect(), None)
    files.texts[f"{tmp_path}/policy1/scaling_cur_freq"] = b"1500000\n"
    files.texts[f"{tmp_path}/policy2/scaling_cur_freq"] = b"1\n"
    assert meter.noise(RESULT, {}).frequency_change == pytest.approx(0.25)
