"""The devices that a group may use: those of a list, and no other.

v1 has a list of its own. v2 has none: there a BPF program says yes or no (device_program.py).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from runner.cgroup.files import write_limit
from runner.errors import HostError
from runner.quick import NamedTuple

if TYPE_CHECKING:
    from runner.cgroup.files import Directory
    from runner.config import DeviceAccess, Limits

_ANY: Final = "*"
_REMEDY_V1: Final = "allow only what the groups above allow: see their devices.list"


class Device(NamedTuple):
    """Devices that may be used: kind `b` or `c`, numbers (None: any), and how (of `rwm`)."""

    kind: str
    major: int | None
    minor: int | None
    access: str

    def __str__(self) -> str:
        """Write it as v1's files have it: `c 1:3 rw`."""
        major, minor = (_ANY if n is None else n for n in (self.major, self.minor))
        return f"{self.kind} {major}:{minor} {self.access}"


class DevicesV1:
    """devices.deny and devices.allow; cgroup-v1/devices.rst."""

    def __init__(self, directory: Directory) -> None:
        self._deny = directory.open("devices.deny", os.O_WRONLY)
        self._allow = directory.open("devices.allow", os.O_WRONLY)
        self._set: tuple[DeviceAccess, ...] | None = None

    def prepare(self, limits: Limits) -> None:
        if limits.devices == self._set:
            return
        self._set = None
        if limits.devices is None:
            write_limit(self._allow, b"a", name="devices.allow", remedy=_REMEDY_V1)
            return
        devices = [device_of(rule) for rule in limits.devices]
        write_limit(self._deny, b"a", name="devices.deny", remedy=_REMEDY_V1)
        for device in devices:
            value = str(device).encode()
            write_limit(self._allow, value, name="devices.allow", remedy=_REMEDY_V1)
        self._set = limits.devices

    def measure(self) -> dict[str, int | None]:
        return {}

    def close(self) -> None:
        """All ends with the group."""


class DevicesV2:
    """A BPF program of the group; cgroup-v2.rst, "Device controller". Linux 4.15."""

    def __init__(self, directory: Directory) -> None:
        self._group = directory.fd
        self._program: int | None = None
        self._set: tuple[DeviceAccess, ...] | None = None

    def prepare(self, limits: Limits) -> None:
        if limits.devices == self._set:
            return
        from runner.cgroup import device_program  # costs milliseconds: it needs ctypes

        self._set = None
        # Between the two nothing is held, but nobody is in the group.
        program, self._program = self._program, None
        if program is not None:
            try:
                device_program.detach(self._group, program)
            finally:
                os.close(program)
        if limits.devices is not None:
            devices = [device_of(rule) for rule in limits.devices]
            self._program = device_program.attach(self._group, device_program.assemble(devices))
        self._set = limits.devices

    def measure(self) -> dict[str, int | None]:
        return {}

    def close(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            os.close(program)  # its group, which held it too, is gone


def device_of(rule: DeviceAccess) -> Device:
    """Find the numbers of a device; raises HostError for a path that is no device."""
    if not rule.device.startswith("/"):
        kind, _, numbers = rule.device.partition(" ")
        major, minor = (None if n == _ANY else int(n) for n in numbers.split(":"))
        return Device(kind, major, minor, rule.access)
    try:
        status = os.stat(rule.device)
    except OSError as error:
        message = f"devices: cannot look at {rule.device}: {error.strerror}"
        raise HostError(message, "name a device node that exists") from error
    is_block = stat.S_ISBLK(status.st_mode)
    if not is_block and not stat.S_ISCHR(status.st_mode):
        message = f"devices: {rule.device} is no device"
        raise HostError(message, "name a device node, such as /dev/null")
    number = status.st_rdev
    return Device("b" if is_block else "c", os.major(number), os.minor(number), rule.access)
