"""Signals that wait while something is done that belongs together."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from runner.helper import Keeper, signals_held

INTERRUPTS = [signal.SIGTERM, signal.SIGABRT, signal.SIGUSR1, signal.SIGALRM]


class Interrupt(Exception):  # noqa: N818 - as KeyboardInterrupt
    pass


def interrupt(*_: object) -> None:
    raise Interrupt


@pytest.mark.parametrize("number", INTERRUPTS)
def test_signal_that_is_held_is_handled_afterwards(number: signal.Signals) -> None:
    """By SIGABRT gunicorn ends a worker, by SIGUSR1 Celery tells of a soft time limit."""
    reached = False
    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(Interrupt):  # noqa: PT012, SIM117 - the end of the block raises
            with signals_held():
                signal.raise_signal(number)
                reached = True
    finally:
        signal.signal(number, before)
    assert reached


def test_signal_that_comes_just_before_leaves_none_held() -> None:
    """Its handler may be due when the others are blocked already."""
    before = signal.signal(signal.SIGALRM, interrupt)
    caught = held = 0
    try:
        for number in range(6000):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + number % 40))
                for _ in range(3):
                    with signals_held():
                        pass
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                caught += 1
            held += bool(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught > 100
    assert held == 0


def children() -> list[str]:
    task = threading.get_native_id()
    return Path(f"/proc/self/task/{task}/children").read_text().split()


@pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning"
)  # the collector's to close
def test_signal_that_another_thread_gets_leaves_no_keeper() -> None:
    """It does not block the signal, but the handler runs where the keeper is started."""
    before = signal.signal(signal.SIGUSR1, interrupt)
    had, going, sent, ended = children(), threading.Event(), threading.Event(), False

    def interrupt_all() -> None:
        while going.wait() and not ended:
            going.clear()
            os.kill(os.getpid(), signal.SIGUSR1)
            sent.set()

    thread = threading.Thread(target=interrupt_all)
    thread.start()
    interrupted = 0
    try:
        for _ in range(300):
            try:
                with signals_held():
                    going.set()
                    Keeper().close()
                sent.wait()
                signal.sigtimedwait([], 0.01)
            except Interrupt:
                interrupted += 1
            sent.wait()  # it is, or will be at once
            sent.clear()
        left = set(children()) - set(had)
        assert interrupted > 150
        assert len(left) <= 3, left  # between the call that makes it and the note of its number
    finally:
        ended = True
        for pid in set(children()) - set(had):
            os.waitpid(int(pid), 0)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        going.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
