"""What a run tells only where it is asked to: `measure=` of `Sandbox.run`.

For each of MEASURES: what the keeper is to do, and the fields of the result.
"""

from __future__ import annotations

import contextlib
import errno as errors
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from runner import wire
from runner.errors import ChildError, ConfigError, ErrorLocation, HostError
from runner.result import sizes_in
from runner.wire import Note

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from runner.host import Host
    from runner.result import Result

# Files of its /proc, as they are when it exits.
_AT_EXIT: Final = MappingProxyType(
    {"status": Note.STATUS, "smaps_rollup": Note.SMAPS_ROLLUP, "smaps": Note.SMAPS}
)
MEASURES: Final = ("noise", "instructions", *_AT_EXIT)

# perf_event_open(2): PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS.
INSTRUCTIONS: Final = (0, 1)

_REFUSED: Final = frozenset({errors.EACCES, errors.EPERM})
_ABSENT: Final = frozenset({errors.ENOENT, errors.EOPNOTSUPP, errors.ENODEV, errors.ENOSYS})


def check(names: Collection[str]) -> frozenset[str]:
    """Give the names as a set; raises ConfigError for one that is no measure."""
    unknown = [name for name in names if name not in MEASURES]
    if isinstance(names, str) or unknown:
        message = f"measure: {names!r}: give a list of some of {', '.join(MEASURES)}"
        raise ConfigError(message)
    return frozenset(names)


def is_traced(measures: Collection[str]) -> bool:
    """Tell whether the keeper has to see the program exit."""
    return not _AT_EXIT.keys().isdisjoint(measures)


def watch(plain: wire.Watch, measures: Collection[str], *, notes_fd: int) -> wire.Watch:
    """Add what the keeper is to tell, into the memfd with this index."""
    notes = {_AT_EXIT[name] for name in measures if name in _AT_EXIT}
    if "noise" in measures:
        notes |= {Note.SCHED, Note.SCHEDSTAT}
    event_type, event_config = INSTRUCTIONS
    return plain._replace(
        notes_fd=notes_fd,
        notes=sum(1 << note for note in notes),
        event_type=event_type,
        event_config=event_config,
    )


class Observation:
    """One run's, made before it starts; `fd` is a memfd of the caller's for notes."""

    def __init__(
        self,
        measures: frozenset[str],
        fd: int,
        *,
        required: bool,
        host: Host,
        unified: str | None,
    ) -> None:
        self.fd: Final = fd
        _empty(fd)
        self._measures = measures
        counted = wire.MUST_COUNT if required else wire.COUNT
        self.flags: Final = counted if "instructions" in measures else 0
        self._disturbance = None
        if "noise" in measures:
            from runner.disturbance import Disturbance

            self._disturbance = Disturbance(host, unified)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Raise HostError where what is required could not be counted."""
        try:
            yield
        except ChildError as error:
            explained = _not_counted(error) if self.flags == wire.MUST_COUNT else None
            if explained is None:
                raise
            raise explained from error

    def added_to(self, result: Result, reply: wire.Reply) -> Result:
        """Give the result with what was asked for besides."""
        fields: dict[str, Any] = {}
        notes = wire.decode_notes(os.pread(self.fd, os.fstat(self.fd).st_size, 0))
        _empty(self.fd)
        if is_traced(self._measures):
            files = {
                name: notes[note]
                for name, note in _AT_EXIT.items()
                if name in self._measures and notes.get(note)
            }
            fields["at_exit"] = files
            fields["vm_hwm_bytes"] = sizes_in(files.get("status", b"")).get("VmHWM")
        if "instructions" in self._measures and reply.events >= 0:
            fields["instructions"] = reply.events
        if self._disturbance is not None:
            fields["noise"] = self._disturbance.noise(result, notes)
        return result._replace(**fields)


def _not_counted(error: ChildError) -> HostError | None:
    """Explain the error if it is perf_event_open's, whose errors no other watch has."""
    if error.location is not ErrorLocation.WATCH or error.errno not in _REFUSED | _ABSENT:
        return None
    missing = f"instructions cannot be counted here: {os.strerror(error.errno)}"
    if error.errno in _REFUSED:
        return HostError(missing, "as root: sysctl -w kernel.perf_event_paranoid=2")
    remedy = "run on a CPU with counters, or give the virtual machine its CPU's (a vPMU)"
    return HostError(missing, remedy)


def _empty(fd: int) -> None:
    os.ftruncate(fd, 0)
    os.lseek(fd, 0, os.SEEK_SET)  # the keeper writes at the offset that we share
