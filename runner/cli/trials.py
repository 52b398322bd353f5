"""What the doctor wants to know, tried: small programs in sandboxes and namespaces.

The program is our own helper, which says what it knows and ends: static, and always there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import runner
from runner import Mount, Namespace, Runner, Sandbox, doctor
from runner.errors import HostError, SandboxError
from runner.helper import keeper_path

if TYPE_CHECKING:
    from runner.host import Host
    from runner.result import Result

_INSIDE: Final = "/keeper"
_WORDS: Final = "--describe"


def try_all(host: Host) -> doctor.Tried:
    """Try everything; takes some hundredths of a second."""
    return doctor.Tried(
        sandbox=_enforced(),
        namespaces={kind: _failure(_start_in, kind) for kind in Namespace},
        mounts=_mounts(host),
        probed=doctor.probe(),
    )


def _enforced() -> Mapping[str, str | None] | SandboxError:
    enforced: dict[str, str | None] = {}
    failure = _failure(lambda: enforced.update(_run_in_sandbox().enforced))
    return enforced if failure is None else failure


def _mounts(host: Host) -> dict[str, SandboxError | None]:
    tried = {
        "proc_mount": _failure(_start_with, Mount.proc()),
        "overlay": _failure(
            _start_with, Mount.overlay("/overlay", lower=["/usr"], ephemeral=True)
        ),
    }
    if host.maps_ids:  # for others the program's id is the caller's own
        mount = Mount.bind(_directory(), "/tmp/directory", readonly=False, owned=True)
        tried["idmapped_mounts"] = _failure(_run_in_sandbox, mount)
    return tried


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # somebody has removed it
        return "/tmp"


def _run_in_sandbox(*mounts: Mount) -> Result:
    with Sandbox(mounts=[Mount.bind(keeper_path(), _INSIDE), *mounts]) as sandbox:
        return _checked(sandbox.run([_INSIDE, _WORDS]))


def _start_in(kind: Namespace) -> None:
    _start(keeper_path(), namespaces=Namespace.USER | kind)


def _start_with(mount: Mount) -> None:
    _start(
        _INSIDE,
        namespaces=Namespace.USER | Namespace.MOUNT | Namespace.PID,
        pivot_root="/tmp",
        mounts=[Mount.bind(keeper_path(), _INSIDE), mount],
    )


def _start(program: str, **fields: Any) -> None:  # noqa: ANN401 - any fields of a Runner
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        config = Runner(args=[program, _WORDS], files=[null] * 3, **fields)
        with runner.start(config) as process:
            _checked(process.wait())
    finally:
        os.close(null)


def _checked(result: Result) -> Result:
    if not result.ok:
        message = f"a program was started, and ended with {result.status.value}"
        raise HostError(message)
    return result


def _failure(attempt: Callable[..., object], *args: object) -> SandboxError | None:
    """Give what an attempt failed with; whatever the host lacks is an answer too."""
    try:
        attempt(*args)
    except SandboxError as error:
        return error
    except OSError as error:
        return HostError(str(error))
    return None
