"""A network of the sandbox's own that reaches the outside: by pasta(1), without privileges."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runner.config import Hook
from runner.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TUN: Final = "/dev/net/tun"
_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def pasta(
    *, gateway: bool = False, tcp_ports: Sequence[int] = (), udp_ports: Sequence[int] = ()
) -> Hook:
    """Give the hook that connects the sandbox's network namespace to the host's network.

    It gets the host's address and routes; connections are made by pasta as the caller's own.
    `gateway`: the gateway's address leads to the host's loopback. `tcp_ports`, `udp_ports`:
    what the host gets on these is the sandbox's. Neither is so otherwise. pasta ends with the
    namespace. Raises HostError where it or the TUN device is missing.
    """
    import shutil  # costs milliseconds: it imports what unpacks archives

    program = shutil.which("pasta", path=_PATH)
    if program is None:
        missing = "pasta, which connects a sandbox to the network"
        raise HostError(missing, "install the package passt")
    if not os.access(_TUN, os.R_OK | os.W_OK):
        missing = f"{_TUN}, which pasta needs"
        raise HostError(missing, f"as root: modprobe tun; chmod a+rw {_TUN}")
    # As root it would become nobody, who may not enter the namespace; it gives up its
    # capabilities itself, and is confined by namespaces and a filter of its own.
    identity = ("--runas", "0") if os.geteuid() == 0 else ()
    return Hook(
        args=(
            program,
            *("--config-net", "--quiet", *identity),
            *(() if gateway else ("--no-map-gw",)),
            *("-t", _ports(tcp_ports), "-u", _ports(udp_ports)),
            *("-T", "none", "-U", "none"),  # nothing of the host's loopback inside
            "{pid}",
        ),
        timeout=10.0,
        stderr=None,  # it writes to the system's log, and where there is none complains here
    )


def _ports(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers)) or "none"
