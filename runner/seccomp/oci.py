"""OCI profiles, as Docker and Podman have them: JSON → rules, for one architecture and caller.

Their rules have no order: a call gets the action of any that matches. Where two of different
actions can match, libseccomp's inner order decides, or it drops one; here that is a fault. But
of two without arguments the first decides, as for libseccomp: stock profiles rely on it.
Conditions on capabilities, architectures and the kernel are evaluated, not taken as true.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

from runner.config.process import CAPABILITIES
from runner.errors import ConfigError
from runner.seccomp import syscalls
from runner.seccomp.parse import ERRNOS, MAX_ERRNO
from runner.seccomp.positions import Fields, Malformed, Members, Node, read
from runner.seccomp.rules import (
    ARGUMENT_MASK,
    Action,
    Comparison,
    Op,
    Policy,
    Rule,
    Verb,
    apart,
)

_EPERM: Final = ERRNOS["EPERM"]  # what errnoRet is where it is not given
_ACTIONS: Final = {
    "SCMP_ACT_KILL": Verb.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": Verb.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": Verb.KILL,
    "SCMP_ACT_TRAP": Verb.TRAP,
    "SCMP_ACT_ERRNO": Verb.ERRNO,
    "SCMP_ACT_TRACE": Verb.TRACE,
    "SCMP_ACT_NOTIFY": Verb.NOTIFY,
    "SCMP_ACT_LOG": Verb.LOG,
    "SCMP_ACT_ALLOW": Verb.ALLOW,
}
_WITH_ERRNO: Final = frozenset({Verb.ERRNO, Verb.TRACE})
_MASKED: Final = "SCMP_CMP_MASKED_EQ"
_OPS: Final = {f"SCMP_CMP_{op.name}": op for op in Op} | {_MASKED: Op.EQ}

_ARCHITECTURES: Final = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        *("X86", "X86_64", "X32", "ARM", "AARCH64", "PPC", "PPC64", "PPC64LE", "S390", "S390X"),
        *("MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32", "RISCV64"),
        *("PARISC", "PARISC64", "LOONGARCH64", "M68K", "SH", "SHEB"),
    )
)
# What `includes` and `excludes` call them: as Go does, and a few more.
_MACHINES: Final = (
    *("386", "x86", "amd64", "x32", "arm", "arm64", "ppc", "ppc64", "ppc64le", "s390", "s390x"),
    *("mips", "mips64", "mips64le", "mips64n32", "mipsel", "mipsel64", "mipsel64n32"),
    *("mipsle", "riscv64", "loong64", "parisc", "parisc64"),
)
_MACHINE: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_CAPABILITIES: Final = frozenset(f"CAP_{name}" for name in CAPABILITIES)
_FLAG: Final = "SECCOMP_FILTER_FLAG_"
_FLAGS: Final = {
    f"{_FLAG}TSYNC": "",  # a process that starts has one thread
    f"{_FLAG}LOG": "refused calls are not logged",
    f"{_FLAG}SPEC_ALLOW": "speculation stays mitigated",
    f"{_FLAG}WAIT_KILLABLE_RECV": "a notified call waits as it does without",
}

_PROFILE: Final = (
    *("defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "flags"),
    *("listenerPath", "listenerMetadata", "syscalls", "comment"),
)
_ENTRY: Final = (
    *("names", "name", "action", "errnoRet", "errno", "args", "includes", "excludes"),
    "comment",
)
_ARGUMENT: Final = frozenset({"index", "value", "valueTwo", "op"})
_CONDITION: Final = frozenset({"caps", "arches", "minKernel"})
_MAP: Final = frozenset({"architecture", "subArchitectures"})
_KERNEL: Final = re.compile(r"(\d{1,5})\.(\d{1,5})(?:[.-].*)?", re.ASCII)


class Profile(NamedTuple):
    """A profile's rules, and what of it has no effect here, `file:line: why`."""

    policy: Policy
    notes: tuple[str, ...]


def parse_profile(
    text: str,
    *,
    name: str,
    arch: str,
    capabilities: Collection[str] = (),
    kernel: str | None = None,
) -> Profile:
    """Read a profile for a program with `capabilities`, such as "NET_ADMIN", and this kernel.

    Raises ConfigError with one line for each fault, `name:line: what is wrong`.
    """
    try:
        root = read(text)
    except Malformed as error:
        raise ConfigError(f"{name}:{error.line}: {error}") from None
    reader = _Reader(name, arch, capabilities, os.uname().release if kernel is None else kernel)
    policy = reader.profile(root)
    if policy is None or reader.faults:
        raise ConfigError("\n".join(dict.fromkeys(reader.faults)))
    return Profile(policy, tuple(reader.notes))


class _Reader(Fields):
    """Reads one profile; what is wrong is written down, and the reading goes on."""

    def __init__(
        self, name: str, arch: str, capabilities: Collection[str], kernel: str
    ) -> None:
        super().__init__(name)
        self.arch = arch
        self.capabilities = {f"CAP_{capability}" for capability in capabilities}
        self.kernel = _version(kernel) or (0, 0)
        self.notes: list[str] = []

    def profile(self, root: Node) -> Policy | None:
        members = self.members(root, "a profile", _PROFILE)
        default = self._action(members, root, "defaultAction", "defaultErrno")
        self._architectures(members)
        for flag, node in self.texts(members, "flags", _FLAGS):
            if _FLAGS[flag]:
                self._note(node, f"{flag} is not set: {_FLAGS[flag]}")
        if "listenerPath" in members:
            self._note(members["listenerPath"], "nobody listens: SCMP_ACT_NOTIFY is ENOSYS")
        entries = self.items(members, "syscalls")
        rules = [rule for entry in entries for rule in self._entry(entry)]
        rules = [rule for rule in self._without_conflicts(rules) if rule.names]
        if default is None:
            return None
        # What always holds comes first: it makes comparisons for the same action needless.
        rules.sort(key=lambda rule: bool(rule.when))
        return Policy(self.name, default, tuple(rules))

    def _note(self, node: Node, text: str) -> None:
        self.notes.append(f"{self.name}:{node.line}: {text}")

    def _action(self, members: Members, at: Node, key: str, errno_key: str) -> Action | None:
        """Read an action and its errno, by number, by name, or as both alike."""
        word = self.text(members, key, _ACTIONS)
        number = self.number(members, f"{errno_key}Ret", MAX_ERRNO)
        name = self.text(members, errno_key, ERRNOS)
        self.require(at, members, key)
        if word is None:
            return None
        verb = _ACTIONS[word]
        if name is not None:
            if number not in {None, ERRNOS[name]}:
                why = f"{errno_key!r} is {name}, {errno_key + 'Ret'!r} is {number}: which?"
                self.fault(members[errno_key], why)
            number = ERRNOS[name]
        if verb in _WITH_ERRNO:
            return Action(verb, _EPERM if number is None else number)
        # An errno beside another action is refused as the specification wants; Podman's own
        # profiles have a "" there.
        if number is not None:
            self.fault(at, f"{word} answers no errno: leave it out, or use SCMP_ACT_ERRNO")
        return Action(verb)

    def _architectures(self, members: Members) -> None:
        if "architectures" in members and "archMap" in members:
            why = "both 'architectures' and 'archMap' are given: leave one out"
            self.fault(members["archMap"], why)
        foreign = list(self.texts(members, "architectures", _ARCHITECTURES))
        native = f"SCMP_ARCH_{self.arch.upper()}"
        for entry in self.items(members, "archMap"):
            mapped = self.members(entry, "an entry of 'archMap'", _MAP)
            others = list(self.texts(mapped, "subArchitectures", _ARCHITECTURES))
            if self.text(mapped, "architecture", _ARCHITECTURES) == native:
                foreign += others
        named = [name for name, _ in foreign if name != native]
        if named:
            why = "calls of a foreign architecture end the process, in every policy"
            self._note(foreign[0][1], f"{', '.join(named)}: {why}")

    def _entry(self, entry: Node) -> Iterator[Rule]:
        members = self.members(entry, "an entry of 'syscalls'", _ENTRY)
        names = self._names(members, entry)
        action = self._action(members, entry, "action", "errno")
        choices = self._arguments(members)
        # Both, so that what is wrong in either is told, wherever it does not apply.
        included = self._holds(members, "includes", wanted=True)
        excluded = self._holds(members, "excludes", wanted=False)
        if names and action is not None and included and not excluded:
            for when in choices:
                yield Rule(action, names, when, (self.name,), entry.line)

    def _names(self, members: Members, entry: Node) -> tuple[str, ...]:
        """Give the names that we know; others are left out, as the specification wants."""
        found = [(n, members["name"]) for n in [self.text(members, "name")] if n is not None]
        if found and members.get("names"):
            self.fault(members["name"], "both 'name' and 'names' are given: leave one out")
        found += self.texts(members, "names")
        if not found and "names" not in members:
            self.require(entry, members, "names")
        elif not found:
            self.fault(entry, "it names no system call")
        known = []
        for name, node in found:
            if syscalls.is_known(name):
                known.append(name)
            elif not syscalls.is_of_others(name):
                self._note(node, f"{syscalls.fault(name)}: it is left out")
        return tuple(dict.fromkeys(known))

    def _arguments(self, members: Members) -> list[tuple[Comparison, ...]]:
        """Give the comparisons of an entry, of which one group has to hold.

        All together; but one each where two are of the same argument: so runc and crun read it,
        and profiles are written.
        """
        nodes = self.items(members, "args")
        found = [one for one in map(self._comparison, nodes) if one is not None]
        if len(found) < len(nodes):
            return []
        if len({one.argument for one in found}) < len(found):
            return [(one,) for one in found]
        return [tuple(found)]

    def _comparison(self, node: Node) -> Comparison | None:
        members = self.members(node, "an entry of 'args'", _ARGUMENT)
        index = self.number(members, "index", 5)
        value = self.number(members, "value", ARGUMENT_MASK) or 0
        second = self.number(members, "valueTwo", ARGUMENT_MASK) or 0
        op = self.text(members, "op", _OPS)
        self.require(node, members, "index", "op")
        if index is None or op is None:
            return None
        masked = op == _MASKED
        mask, wanted = (value, second) if masked else (ARGUMENT_MASK, value)
        if masked and wanted & ~mask:
            self.fault(node, f"'valueTwo' {wanted:#x} has bits outside of the mask {mask:#x}")
            return None
        comparison = Comparison(index, mask, _OPS[op], wanted)
        if comparison.intervals in {(), ((0, mask),)}:
            how = "always" if comparison.intervals else "never"
            self.fault(node, f"'{comparison}' {how} holds")
            return None
        return comparison

    def _holds(self, members: Members, key: str, *, wanted: bool) -> bool:
        """Tell whether all of `includes` holds, or any of `excludes`; without it, not so."""
        if key not in members:
            return wanted
        condition = self.members(members[key], f"{key!r}", _CONDITION)
        held: list[bool] = []
        if machines := [name for name, _ in self.texts(condition, "arches", _MACHINES)]:
            held.append(_MACHINE[self.arch] in machines)
        held += [
            cap in self.capabilities for cap, _ in self.texts(condition, "caps", _CAPABILITIES)
        ]
        oldest = self.text(condition, "minKernel")
        if oldest:
            version = _version(oldest)
            if version is None:
                why = f"'minKernel': {oldest!r} is no version such as '4.8'"
                self.fault(condition["minKernel"], why)
            else:
                held.append(self.kernel >= version)
        return all(held) if wanted else any(held)

    def _without_conflicts(self, rules: Sequence[Rule]) -> Iterator[Rule]:
        """Leave out of each rule the calls that an earlier one decides."""
        before: dict[str, list[Rule]] = {}
        for rule in rules:
            left = tuple(n for n in rule.names if not self._decided(rule, n, before.get(n, [])))
            for name in left:
                before.setdefault(name, []).append(rule)
            yield dataclasses.replace(rule, names=left)

    def _decided(self, rule: Rule, name: str, earlier: Sequence[Rule]) -> bool:
        """Tell whether an earlier rule decides it; where that is not defined, it is a fault."""
        for other in earlier:
            if other.action == rule.action or apart(other, rule):
                continue
            here, there = f"'{rule.action}'", f"'{other.action}' by line {other.line}"
            if rule.when or other.when:
                why = f"{name!r} gets {here} here and {there}, and both may hold: which?"
                self.faults.append(f"{rule.place}: {why}")
            else:
                self.notes.append(f"{rule.place}: {name!r} gets {there}, and so not {here}")
                return True
        return False


def _version(text: str) -> tuple[int, int] | None:
    match = _KERNEL.fullmatch(text)
    return None if match is None else (int(match[1]), int(match[2]))
