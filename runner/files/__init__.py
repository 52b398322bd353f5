"""Files into a sandbox and out of it, and the artefacts that are kept between runs."""

from __future__ import annotations

from runner.files.cache import Artefact, ArtefactCache

__all__ = ["Artefact", "ArtefactCache"]
