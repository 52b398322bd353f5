"""Files into a sandbox and out of it, and the artefacts that are kept between runs."""

from __future__ import annotations

from runner.files.artefact import Artefact
from runner.files.cache import ArtefactCache, CacheStats
from runner.files.directory import ArtefactDirectory

__all__ = ["Artefact", "ArtefactCache", "ArtefactDirectory", "CacheStats"]
