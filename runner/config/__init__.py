"""What a caller can ask for: `Runner` and its value types, `Limits`, `Mount`.

Everything here is frozen and checked when made: a `ConfigError` names the field and the value,
before any process exists. Nothing here touches the kernel.
"""

from typing import TYPE_CHECKING

from runner import lazy
from runner.config.checks import check_args, check_env
from runner.config.ids import (
    ALL_NAMESPACES,
    NO_NAMESPACES,
    Credential,
    IdMap,
    Namespace,
    Network,
)
from runner.config.limits import RLIM_INFINITY, RLIMITS, Limits, Rlimit
from runner.config.mount import RESTRICTING, Mount, MountKind, in_order, is_within, normal
from runner.config.runner import ADDR_NO_RANDOMIZE, Runner

if TYPE_CHECKING:
    from runner.config.devices import DeviceAccess, IoLimit
    from runner.config.landlock import Landlock
    from runner.config.named import Join, TimeOffsets, User
    from runner.config.process import CAPABILITIES, Capabilities, Hook, Where
    from runner.config.supervision import Call, Supervision

# What few configurations have, and each of which takes long to define.
_MODULES = {
    "devices": "DeviceAccess IoLimit",
    "landlock": "Landlock",
    "named": "Join TimeOffsets User",
    "supervision": "Call Supervision",
    "process": "CAPABILITIES Capabilities Hook Where",
}

__all__ = [
    "ADDR_NO_RANDOMIZE",
    "ALL_NAMESPACES",
    "CAPABILITIES",
    "NO_NAMESPACES",
    "RESTRICTING",
    "RLIMITS",
    "RLIM_INFINITY",
    "Call",
    "Capabilities",
    "Credential",
    "DeviceAccess",
    "Hook",
    "IdMap",
    "IoLimit",
    "Join",
    "Landlock",
    "Limits",
    "Mount",
    "MountKind",
    "Namespace",
    "Network",
    "Rlimit",
    "Runner",
    "Supervision",
    "TimeOffsets",
    "User",
    "Where",
    "check_args",
    "check_env",
    "in_order",
    "is_within",
    "normal",
]

__getattr__ = lazy.names(__name__, _MODULES)
