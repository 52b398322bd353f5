"""JSON in which each value knows its line, for messages about all that is wrong with it."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Collection, Iterator, Mapping
from json.decoder import scanstring as scan_string  # type: ignore[attr-defined]
from typing import Final, NamedTuple

from runner.seccomp import syscalls

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SCALAR: Final = re.compile(r"[-+.\w]+", re.ASCII)
_DEEPEST: Final = 20  # profiles have six levels
_FEW: Final = 12


class Node(NamedTuple):
    """A value; of an object the members, and of a list the items, are nodes too."""

    value: dict[str, Node] | list[Node] | str | int | float | bool | None
    line: int


Members = Mapping[str, Node]


class Malformed(Exception):  # noqa: N818 - told by who reads, with the file's name
    """A text that is not JSON: where, and what is wrong."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line: Final = line


def read(text: str) -> Node:
    """Read a JSON text; raises Malformed at the first place that is none."""
    reader = _Reader(text)
    node, end = reader.value(reader.skip(0), 0)
    if reader.skip(end) != len(text):
        raise reader.fault(end, "there is more after the end")
    return node


class Fields:
    """Takes a document apart by what it should be; what it is not is a fault, told at the end.

    `null` is as if nothing were there, as it is for the programs that these files are made for.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.faults: list[str] = []

    def fault(self, node: Node, why: str) -> None:
        self.faults.append(f"{self.name}:{node.line}: {why}")

    def members(self, node: Node, what: str, known: Collection[str]) -> Members:
        """Give an object's members, none of which may be unknown."""
        if not isinstance(node.value, dict):
            self.fault(node, f"{what} has to be an object")
            return {}
        for key in [key for key in node.value if key not in known]:
            why = f"{what} has no {key!r}{syscalls.nearest(key, known)}"
            self.fault(node.value[key], why)
        return {key: one for key, one in node.value.items() if one.value is not None}

    def require(self, node: Node, members: Members, *keys: str) -> None:
        """Find what an object lacks, unless it is none, which has been told."""
        for key in keys:
            if key not in members and isinstance(node.value, dict):
                self.fault(node, f"{key!r} is missing")

    def items(self, members: Members, key: str) -> list[Node]:
        node = members.get(key)
        if node is None:
            return []
        if not isinstance(node.value, list):
            self.fault(node, f"{key!r} has to be a list")
            return []
        return node.value

    def texts(
        self, members: Members, key: str, known: Collection[str] | None = None
    ) -> Iterator[tuple[str, Node]]:
        """Give the strings of a list, each with its node, all of them known."""
        for node in self.items(members, key):
            text = self._text(node, key, known)
            if text is not None:
                yield text, node

    def text(
        self, members: Members, key: str, known: Collection[str] | None = None
    ) -> str | None:
        """Give a string, of those that are known; "" is as if it were not there."""
        node = members.get(key)
        return None if node is None or node.value == "" else self._text(node, key, known)

    def number(self, members: Members, key: str, most: int) -> int | None:
        node = members.get(key)
        if node is None:
            return None
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            self.fault(node, f"{key!r} has to be a whole number from 0 to {most}")
            return None
        return value

    def _text(self, node: Node, key: str, known: Collection[str] | None) -> str | None:
        if not isinstance(node.value, str):
            self.fault(node, f"{key!r}: here has to be a string")
            return None
        if known is not None and node.value not in known:
            hint = syscalls.nearest(node.value, known)
            if not hint and len(known) < _FEW:
                hint = f": one of {', '.join(known)}"
            self.fault(node, f"{key!r}: {node.value!r} is unknown{hint}")
            return None
        return node.value


class _Reader:
    """Reads on from a place of the text, and gives the place after."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.ends = [at for at, character in enumerate(text) if character == "\n"]

    def value(self, at: int, depth: int) -> tuple[Node, int]:
        line = self.line(at)
        if depth > _DEEPEST:
            raise self.fault(at, "it is nested too deeply")
        first = self.text[at : at + 1]
        if first == "{":
            members, end = self._members(at + 1, depth)
            return Node(members, line), end
        if first == "[":
            items, end = self._items(at + 1, depth)
            return Node(items, line), end
        if first == '"':
            string, end = self._string(at)
            return Node(string, line), end
        return self._scalar(at)

    def skip(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        return at if match is None else match.end()

    def line(self, at: int) -> int:
        return bisect.bisect_left(self.ends, at) + 1

    def fault(self, at: int, why: str) -> Malformed:
        return Malformed(self.line(self.skip(at)), f"it is not JSON: {why}")

    def _members(self, at: int, depth: int) -> tuple[dict[str, Node], int]:
        members: dict[str, Node] = {}
        at = self.skip(at)
        while not self.text.startswith("}", at):
            if members:
                at = self._expect(",", at)
            if not self.text.startswith('"', at):
                raise self.fault(at, "a name in quotes is missing")
            name, end = self._string(at)
            if name in members:
                raise self.fault(at, f"{name!r} is there twice")
            members[name], at = self.value(self._expect(":", self.skip(end)), depth + 1)
            at = self.skip(at)
        return members, at + 1

    def _items(self, at: int, depth: int) -> tuple[list[Node], int]:
        items: list[Node] = []
        at = self.skip(at)
        while not self.text.startswith("]", at):
            if items:
                at = self._expect(",", at)
            item, at = self.value(at, depth + 1)
            items.append(item)
            at = self.skip(at)
        return items, at + 1

    def _expect(self, character: str, at: int) -> int:
        if not self.text.startswith(character, at):
            raise self.fault(at, f"{character!r} is missing")
        return self.skip(at + 1)

    def _string(self, at: int) -> tuple[str, int]:
        try:
            string, end = scan_string(self.text, at + 1)
        except json.JSONDecodeError as error:
            raise self.fault(at, error.msg) from None
        return string, end

    def _scalar(self, at: int) -> tuple[Node, int]:
        match = _SCALAR.match(self.text, at)
        word = "" if match is None else match.group()
        if not word:
            raise self.fault(at, "a value is missing")
        try:
            return Node(json.loads(word), self.line(at)), at + len(word)
        except ValueError:  # also of an integer with more digits than Python reads
            raise self.fault(at, f"{word[:20]!r} is no value") from None
