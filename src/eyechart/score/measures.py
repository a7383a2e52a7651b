"""One number of a score, with its interval, its n, and what n counts."""

from dataclasses import dataclass
from typing import Any

from eyechart.core.stats import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A named number with its interval.

    The interval is Wilson's where what is counted is independent, else from drawing whole clusters again.
    """

    name: str
    """In lower case with underscores, as `pair_accuracy`, `f1`, `2d`."""

    value: float | None
    """None where it is undefined, as a precision is where nothing was answered yes."""

    low: float | None
    high: float | None
    n: int
    unit: str
    """What n counts: pairs, items, images, groups."""

    chance: float | None = None
    """What answers drawn evenly and independently would have; None where that has no meaning."""

    hits: int | None = None
    level: float = 0.95
    of: str | None = None
    """The part of the benchmark it is of, as a split or a category; None for all of it."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        names = ("name", "of", "value", "low", "high", "n", "unit", "hits", "chance", "level")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def of_rate(
        cls, name: str, rate: Rate, unit: str, *, chance: float | None = None, of: str | None = None
    ) -> "Measure":
        """A rate under a name."""
        return cls(
            name=name,
            value=rate.value,
            low=rate.low,
            high=rate.high,
            n=rate.n,
            unit=unit,
            chance=chance,
            hits=rate.hits,
            level=rate.level,
            of=of,
        )
