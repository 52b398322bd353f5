"""Which ids a sandbox's user namespace has, and to which of the host they map. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.config import Credential, IdMap, Namespace, Runner
from runner.quick import NamedTuple, replace

if TYPE_CHECKING:
    from collections.abc import Sequence

# Inside, the program is an ordinary user, if nothing else is asked for; 0 owns what it must not
# change.
PROGRAM: Final = Credential(1000, 1000)

# systemd's table of ids leaves 1879048192 to 2147483647 unused; two for each keeper's pid
# (at most 2**22) end far below.
_HOST_BASE: Final = 1_900_000_000


class Ids(NamedTuple):
    """The maps of a sandbox, what its program becomes, and whether that is not the caller.

    `inside` is what was asked for.
    """

    uid_mappings: tuple[IdMap, ...]
    gid_mappings: tuple[IdMap, ...]
    credential: Credential | None
    separate: bool
    inside: Credential


def sandbox_ids(
    *,
    privileged: bool,
    euid: int,
    egid: int,
    keeper: int,
    uid_map: Sequence[IdMap],
    gid_map: Sequence[IdMap],
    program: Credential = PROGRAM,
) -> Ids:
    """Choose the ids of a sandbox whose keeper has the pid `keeper` and programs the `program`.

    With privileges: 0 and the program's id inside are two host ids that nobody else has while
    that keeper lives. Without: the caller's own id is all that it can give
    (user_namespaces(7)).
    """
    uids = _two_ids(keeper, uid_map) if privileged else None
    gids = _two_ids(keeper, gid_map) if privileged else None
    if uids is None or gids is None:
        own = (IdMap(program.uid, euid),), (IdMap(program.gid, egid),)
        return Ids(*own, None, separate=False, inside=program)
    maps = _map_two(program.uid, uids), _map_two(program.gid, gids)
    own_ids = Credential(program.uid, program.gid)
    return Ids(*maps, own_ids, separate=True, inside=program)


def _map_two(inside: int, first: int) -> tuple[IdMap, ...]:
    if inside == 0:
        return (IdMap(0, first),)
    return (IdMap(0, first), IdMap(inside, first + 1))


def _two_ids(keeper: int, own: Sequence[IdMap]) -> int | None:
    """Find two ids for a keeper among those that exist in our own user namespace."""
    wanted = _HOST_BASE + 2 * keeper
    if any(m.inside <= wanted and wanted + 1 < m.inside + m.count for m in own):
        return wanted
    # A container: take them from the top of its largest range, leaving its own users alone.
    largest = max(own, key=lambda m: m.count, default=None)
    if largest is None or largest.count < 2 * 1024:
        return None
    top = largest.inside + largest.count
    return top - 2 - 2 * (keeper % (largest.count // 4))


def owner_maps(ids: Ids, *, euid: int, egid: int) -> tuple[bytes, bytes] | None:
    """Give the maps of a mount in which the caller's files are the program's; None: they are.

    What is left of each is the id in the file system, what is right that of the mount.
    """
    if ids.credential is None:
        return None
    uid = next(m.outside for m in ids.uid_mappings if m.inside == ids.credential.uid)
    gid = next(m.outside for m in ids.gid_mappings if m.inside == ids.credential.gid)
    return (b"%d %d 1" % (euid, uid), b"%d %d 1" % (egid, gid))


def with_default_maps(runner: Runner, *, euid: int, egid: int) -> Runner:
    """Map 0 inside to the caller where a user namespace is asked for without a map (F13)."""
    if Namespace.USER not in runner.namespaces:
        return runner
    return replace(
        runner,
        uid_mappings=runner.uid_mappings or (IdMap(0, euid),),
        gid_mappings=runner.gid_mappings or (IdMap(0, egid),),
    )
