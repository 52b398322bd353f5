"""Signals that wait while something is done that belongs together."""

from __future__ import annotations

import signal

import pytest

from runner.helper import signals_held

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
