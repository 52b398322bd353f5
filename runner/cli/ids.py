"""The ids of `contain` and `pseudo`: the options -g and -u, and what holds without them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runner import subid
from runner.config import Credential, IdMap
from runner.errors import ConfigError, HostError
from runner.host import detect
from runner.quick import NamedTuple
from runner.subid import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.host import Host

OPTIONS: Final = (
    ("-g MAP", "map of the groups' ids"),
    ("-u MAP", "map of the users' ids"),
)
ABOUT: Final = """A MAP is START:LOWER:COUNT, more of them after a comma or semicolon: COUNT \
ids from START inside are those from LOWER outside. Root's default makes 0 the highest id, so \
that root inside is nobody in particular outside, and leaves the others as they are; that of \
anybody else, and of a root that may not give ids (unshare -Ur), makes 0 the caller's own id, \
and 1 and up what subuid(5) and subgid(5) delegate to the caller."""


class Ids(NamedTuple):
    """Fields of a `Runner`."""

    uid_mappings: tuple[IdMap, ...]
    gid_mappings: tuple[IdMap, ...]
    gid_mappings_enable_setgroups: bool
    credential: Credential | None


def choose(values: Mapping[str, str]) -> Ids:
    """Choose the ids, by the options' values.

    Raises ConfigError for a map that is none, or of ids that are not the caller's to give.
    """
    host = detect()
    uids = _maps(Kind.UID, values.get("-u"), host)
    gids = _maps(Kind.GID, values.get("-g"), host)
    # user_namespaces(7): who maps no more than its own group must give up setgroups(2) first.
    delegated = subid.needs_helper(gids, os.getegid(), privileged=host.maps_ids)
    have_root = all(any(m.inside == 0 for m in maps) for maps in (uids, gids))
    root = Credential(0, 0) if have_root else None
    return Ids(uids, gids, host.maps_ids or delegated, root)


def _maps(kind: Kind, text: str | None, host: Host) -> tuple[IdMap, ...]:
    namespace = host.uid_map if kind is Kind.UID else host.gid_map
    if text is None and host.euid == 0 and host.maps_ids:
        return subid.root_default(namespace)
    if host.maps_ids:
        own = host.euid if kind is Kind.UID else os.getegid()
        grant = subid.Grant(kind=kind, own=own, namespace=namespace)
    else:
        grant = subid.read_grant(kind, namespace)
    if text is None:
        return subid.user_default(grant, helper=_has_helper(kind))
    maps = subid.parse_maps(text)
    flag = "-u" if kind is Kind.UID else "-g"
    subid.check_maps(maps, grant, field=flag, privileged=True)
    try:
        subid.check_maps(maps, grant, field=flag, privileged=host.maps_ids)
    except ConfigError as error:
        message = f"Cannot map onto IDs that are not delegated to you: {error}"
        raise ConfigError(message) from None
    return maps


def _has_helper(kind: Kind) -> bool:
    try:
        subid.find_helper(kind)
    except HostError:
        return False  # it is not needed for the caller's own id
    return True
