"""How much CPU a group gets: a quota, a weight against others, and how often it was throttled.

One period for all: 100 ms, the kernel's default. Within it a group may use its quota at once,
on as many CPUs as it likes, and then waits for the next.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runner.cgroup.files import read_fields, write_limit

if TYPE_CHECKING:
    from runner.cgroup.files import Directory
    from runner.config import Limits

_PERIOD_US: Final = 100_000
_NORMAL_WEIGHT: Final = 100
_NORMAL_SHARES: Final = 1024
_NS_PER_US: Final = 1000

_NEEDS_BANDWIDTH: Final = "use a kernel with CONFIG_CFS_BANDWIDTH"
_WHAT_TO_GIVE: Final = "give cpu_quota no more than the groups above have, in v1 at least"


class _Share:
    """What v1 and v2 have in common: values that change seldom, and the count of throttling."""

    _throttled: str
    _ns_per_unit: int

    def __init__(self, directory: Directory) -> None:
        self._stat = directory.open("cpu.stat")
        self._quota: float | None = None
        self._weight: int | None = None
        self._start = (0, 0)

    def prepare(self, limits: Limits) -> None:
        if limits.cpu_quota != self._quota:
            quota = limits.cpu_quota
            self._set_quota(None if quota is None else round(quota * _PERIOD_US))
            self._quota = quota
        if limits.cpu_weight != self._weight:
            self._set_weight(limits.cpu_weight or _NORMAL_WEIGHT)
            self._weight = limits.cpu_weight
        if self._quota is not None:
            self._start = self._read()

    def measure(self) -> dict[str, int | None]:
        if self._quota is None:  # nothing can have been throttled: not measured, rather than 0
            return {}
        periods, units = self._read()
        return {
            "throttled_periods": periods - self._start[0],
            "throttled_ns": (units - self._start[1]) * self._ns_per_unit,
        }

    def close(self) -> None:
        """All ends with the group."""

    def _read(self) -> tuple[int, int]:
        fields = read_fields(self._stat)
        return fields.get(b"nr_throttled", 0), fields.get(self._throttled.encode(), 0)

    def _set_quota(self, quota_us: int | None) -> None:
        raise NotImplementedError

    def _set_weight(self, weight: int) -> None:
        raise NotImplementedError


class ShareV1(_Share):
    """cpu.cfs_quota_us and cpu.shares; scheduler/sched-bwc.rst.

    A weight means the same as in v2, where 100 is normal: 1024 shares, as the kernel has it.
    """

    _throttled = "throttled_time"
    _ns_per_unit = 1

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory)
        self._shares = directory.open("cpu.shares", os.O_WRONLY)
        self._quota_us = directory.open_needed(
            "cpu.cfs_quota_us", os.O_WRONLY, _NEEDS_BANDWIDTH
        )
        period = directory.open("cpu.cfs_period_us", os.O_WRONLY)
        write_limit(period, b"%d" % _PERIOD_US, name="cpu.cfs_period_us", remedy=_WHAT_TO_GIVE)

    def _set_quota(self, quota_us: int | None) -> None:
        value = b"%d" % (-1 if quota_us is None else quota_us)
        write_limit(self._quota_us, value, name="cpu.cfs_quota_us", remedy=_WHAT_TO_GIVE)

    def _set_weight(self, weight: int) -> None:
        value = b"%d" % (weight * _NORMAL_SHARES // _NORMAL_WEIGHT)
        write_limit(self._shares, value, name="cpu.shares", remedy=_WHAT_TO_GIVE)


class ShareV2(_Share):
    """cpu.max and cpu.weight; cgroup-v2.rst, "CPU Interface Files"."""

    _throttled = "throttled_usec"
    _ns_per_unit = _NS_PER_US

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory)
        self._weights = directory.open("cpu.weight", os.O_WRONLY)
        self._max = directory.open_needed("cpu.max", os.O_WRONLY, _NEEDS_BANDWIDTH)

    def _set_quota(self, quota_us: int | None) -> None:
        quota = b"max" if quota_us is None else b"%d" % quota_us
        value = b"%s %d" % (quota, _PERIOD_US)
        write_limit(self._max, value, name="cpu.max", remedy=_WHAT_TO_GIVE)

    def _set_weight(self, weight: int) -> None:
        write_limit(self._weights, b"%d" % weight, name="cpu.weight", remedy=_WHAT_TO_GIVE)
