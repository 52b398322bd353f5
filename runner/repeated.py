"""Several runs of one program, and how their figures spread. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.quick import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.result import Result

FIGURES: Final = (
    *("cpu_ns", "user_ns", "system_ns", "wall_ns"),
    *("memory_bytes", "max_rss_bytes", "instructions"),
)


class Spread(NamedTuple):
    """The least and the largest of a figure, and the median: of an even number, the lower."""

    min: int
    median: int
    max: int


class Repeated(NamedTuple):
    """The runs in their order; figures are of those that ended well, None if there were none.

    Only the last one can have ended otherwise, for then there are no more.
    """

    results: tuple[Result, ...]

    def spread(self, figure: str) -> Spread | None:
        """Give how one of FIGURES spread; None too where it was not measured each time."""
        found = [getattr(result, figure) for result in self.results if result.ok]
        if not found or None in found:
            return None
        found.sort()
        return Spread(found[0], found[(len(found) - 1) // 2], found[-1])

    @property
    def cpu_ns(self) -> Spread | None:
        """CPU time."""
        return self.spread("cpu_ns")

    @property
    def wall_ns(self) -> Spread | None:
        """Time from exec to exit."""
        return self.spread("wall_ns")

    @property
    def memory_bytes(self) -> Spread | None:
        """Peak of memory."""
        return self.spread("memory_bytes")

    def to_dict(self) -> dict[str, object]:
        """Give the JSON form: how many runs, and how each figure spread."""
        spreads = {figure: self.spread(figure) for figure in FIGURES}
        return {"runs": len(self.results)} | {
            figure: spread and spread._asdict() for figure, spread in spreads.items()
        }


def together(results: Sequence[Result]) -> Result:
    """Give the result that stands for all: the first that is not ok, which is the last.

    Of runs that are all ok it is the one with the median CPU time.
    """
    result = results[-1]
    if result.ok:
        ordered = sorted(results, key=lambda each: each.cpu_ns or 0)
        result = ordered[(len(ordered) - 1) // 2]
    return result._replace(repeated=Repeated(tuple(results)))
