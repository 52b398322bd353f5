"""What the doctor says: findings, as frozen values, and their JSON form, schema 1.

The JSON is one object. New keys and new findings may come; what is here keeps its meaning.

    schema      1
    ok          every guarantee can be enforced by its strong means
    host        kernel (uname's release), uid, container (docker, podman, kubernetes, another
                name, or null), systemd (whether it runs this system)
    guarantees, features, noise    lists of findings, each with
        name        of the guarantee or feature; the key to look it up by
        level       ok, weak or missing; of noise, weak is what makes timing unsteady here
        value       what holds it, or was found, for a person
        why         what is missing, or why it matters; "" where there is nothing to say
        remedies    what to do, each a command or one sentence
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

SCHEMA: Final = 1


class Level(str, enum.Enum):
    """How good it is."""

    OK = "ok"
    WEAK = "weak"
    MISSING = "missing"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; the fields are those of the JSON form."""

    name: str
    level: Level
    value: str
    why: str = ""
    remedies: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Give the JSON form."""
        return {
            "name": self.name,
            "level": self.level.value,
            "value": self.value,
            "why": self.why,
            "remedies": list(self.remedies),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All findings, and on what host they were made."""

    kernel: str
    uid: int
    container: str | None
    systemd: bool
    guarantees: tuple[Finding, ...]
    features: tuple[Finding, ...]
    noise: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Tell whether every guarantee can be enforced by its strong means."""
        return all(finding.level is Level.OK for finding in self.guarantees)

    def to_dict(self) -> dict[str, object]:
        """Give the JSON form; see the top of this file."""
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "host": {
                "kernel": self.kernel,
                "uid": self.uid,
                "container": self.container,
                "systemd": self.systemd,
            },
            "guarantees": [finding.to_dict() for finding in self.guarantees],
            "features": [finding.to_dict() for finding in self.features],
            "noise": [finding.to_dict() for finding in self.noise],
        }
