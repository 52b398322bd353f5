"""Run untrusted programs on Linux and say exactly what happened to them."""

from __future__ import annotations

from runner.config import (
    ALL_NAMESPACES,
    RLIM_INFINITY,
    Credential,
    IdMap,
    Limits,
    Mount,
    Namespace,
    Rlimit,
    Runner,
)
from runner.errors import (
    ChildError,
    ConfigError,
    ErrorLocation,
    HostError,
    ProtocolError,
    SandboxError,
)
from runner.process import Process, start
from runner.result import Result, Status
from runner.sandbox import CAPTURE, STDOUT, Sandbox, run
from runner.units import GiB, KiB, MiB

__all__ = [
    "ALL_NAMESPACES",
    "CAPTURE",
    "RLIM_INFINITY",
    "STDOUT",
    "ChildError",
    "ConfigError",
    "Credential",
    "ErrorLocation",
    "GiB",
    "HostError",
    "IdMap",
    "KiB",
    "Limits",
    "MiB",
    "Mount",
    "Namespace",
    "Process",
    "ProtocolError",
    "Result",
    "Rlimit",
    "Runner",
    "Sandbox",
    "SandboxError",
    "Status",
    "run",
    "start",
]
