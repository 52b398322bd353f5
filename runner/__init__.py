"""Run untrusted programs on Linux and say exactly what happened to them.

Names are imported when they are first used, so that a command pays only for what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner import lazy

if TYPE_CHECKING:
    from runner.aio import AsyncSandbox as AsyncSandbox
    from runner.config import (
        ADDR_NO_RANDOMIZE,
        ALL_NAMESPACES,
        RLIM_INFINITY,
        Call,
        Capabilities,
        Credential,
        DeviceAccess,
        Hook,
        IdMap,
        IoLimit,
        Join,
        Landlock,
        Limits,
        Mount,
        Namespace,
        Network,
        Rlimit,
        Runner,
        Supervision,
        TimeOffsets,
        User,
        Where,
    )
    from runner.config.files import FileIn, FileOut, LinkIn
    from runner.console import Console
    from runner.errors import (
        ChildError,
        ConfigError,
        ErrorLocation,
        HostError,
        PoolCancelled,
        PoolClosed,
        PoolError,
        PoolFull,
        PoolTimeout,
        ProtocolError,
        SandboxError,
    )
    from runner.files import Artefact, ArtefactCache, ArtefactDirectory
    from runner.pool import Lease, PoolStats, SandboxPool
    from runner.pool.tasks import AsyncLease as AsyncLease
    from runner.pool.tasks import AsyncSandboxPool as AsyncSandboxPool
    from runner.process import Process, start
    from runner.result import (
        FileState,
        LoggedCall,
        OutFile,
        PolicyLog,
        Result,
        Status,
        Violation,
    )
    from runner.sandbox import CAPTURE, STDOUT, Sandbox, run
    from runner.staging import stage
    from runner.tree import host_etc, host_root
    from runner.units import GiB, KiB, MiB

_MODULES = {
    "pool.tasks": "AsyncLease AsyncSandboxPool",
    "aio": "AsyncSandbox",
    "config": "ADDR_NO_RANDOMIZE ALL_NAMESPACES RLIM_INFINITY Call Capabilities Credential "
    "DeviceAccess Hook IdMap IoLimit Join Landlock Limits Mount Namespace Network Rlimit "
    "Runner Supervision TimeOffsets User Where",
    "errors": "ChildError ConfigError ErrorLocation HostError PoolCancelled PoolClosed "
    "PoolError PoolFull PoolTimeout ProtocolError SandboxError",
    "pool": "Lease PoolStats SandboxPool",
    "process": "Process start",
    "config.files": "FileIn FileOut LinkIn",
    "files": "Artefact ArtefactCache ArtefactDirectory",
    "result": "FileState LoggedCall OutFile PolicyLog Result Status Violation",
    "sandbox": "CAPTURE STDOUT Sandbox run",
    "console": "Console",
    "staging": "stage",
    "tree": "host_etc host_root",
    "units": "GiB KiB MiB",
}

# Without what needs an extra, as AsyncSandbox does: that is imported by its name alone.
__all__ = [
    "ADDR_NO_RANDOMIZE",
    "ALL_NAMESPACES",
    "CAPTURE",
    "RLIM_INFINITY",
    "STDOUT",
    "Artefact",
    "ArtefactCache",
    "ArtefactDirectory",
    "Call",
    "Capabilities",
    "ChildError",
    "ConfigError",
    "Console",
    "Credential",
    "DeviceAccess",
    "ErrorLocation",
    "FileIn",
    "FileOut",
    "FileState",
    "GiB",
    "Hook",
    "HostError",
    "IdMap",
    "IoLimit",
    "Join",
    "KiB",
    "Landlock",
    "Lease",
    "Limits",
    "LinkIn",
    "LoggedCall",
    "MiB",
    "Mount",
    "Namespace",
    "Network",
    "OutFile",
    "PolicyLog",
    "PoolCancelled",
    "PoolClosed",
    "PoolError",
    "PoolFull",
    "PoolStats",
    "PoolTimeout",
    "Process",
    "ProtocolError",
    "Result",
    "Rlimit",
    "Runner",
    "Sandbox",
    "SandboxError",
    "SandboxPool",
    "Status",
    "Supervision",
    "TimeOffsets",
    "User",
    "Violation",
    "Where",
    "host_etc",
    "host_root",
    "run",
    "stage",
    "start",
]

__getattr__ = lazy.names(__name__, _MODULES)


def __dir__() -> list[str]:
    return __all__
