"""From `Limits` to setrlimit(2) calls. Pure."""

from __future__ import annotations

import math
import resource
from typing import TYPE_CHECKING, Final

from runner.config import Rlimit
from runner.units import GiB

if TYPE_CHECKING:
    from runner.config import Limits

# Our own processes count for RLIMIT_NPROC where the sandbox has but one uid: keeper and init.
_OUR_PROCESSES: Final = 2

# Without a cgroup the tree's memory is followed (native/follow.c), a look every few ms. Between
# two looks it must not grow without bound; but this limit must not make malloc fail for a
# program that would have met the other: then nothing tells the cause.
_DATA_FACTOR: Final = 4
_DATA_MORE: Final = 4 * GiB


def rlimits_of(limits: Limits, *, cgroup_memory: bool, cgroup_processes: bool) -> list[Rlimit]:
    """Give the rlimits of a program; where a cgroup holds memory or processes, none stands in.

    RLIMIT_CPU is a second lock behind the keeper's own watch: whole seconds, and per process.
    """
    # 1 and not 0: where core_pattern is a pipe the kernel ignores the limit, but for this
    # value, and would start the host's crash handler for each crash (core(5)).
    both: dict[int, int] = {resource.RLIMIT_CORE: 1}
    if limits.cpu_time is not None:
        both[resource.RLIMIT_CPU] = math.ceil(limits.cpu_time + limits.extra_time) + 1
    if limits.stack is not None:
        both[resource.RLIMIT_STACK] = limits.stack
    if limits.address_space is not None:
        both[resource.RLIMIT_AS] = limits.address_space
    file_sizes = [size for size in (limits.file_size, limits.output) if size is not None]
    if file_sizes:
        both[resource.RLIMIT_FSIZE] = min(file_sizes)
    if limits.open_files is not None:
        both[resource.RLIMIT_NOFILE] = limits.open_files
    if limits.memory is not None and not cgroup_memory:
        both[resource.RLIMIT_DATA] = max(
            _DATA_FACTOR * limits.memory, limits.memory + _DATA_MORE
        )
    if limits.processes is not None and not cgroup_processes:
        both[resource.RLIMIT_NPROC] = limits.processes + _OUR_PROCESSES
    named = {rlimit.resource for rlimit in limits.rlimits}
    ours = [
        Rlimit(number, value, value) for number, value in both.items() if number not in named
    ]
    return [*ours, *limits.rlimits]
