"""Where the marks of the page's charts stand, in per cent of the plot: the templates draw them as SVG.

Positions in per cent let a chart take any width while its text and marks keep their size, so it reads on a phone.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

from eyechart.report.reading import Find, Pair, Rate, Results
from eyechart.report.words import similarity_text

MARKS_MAX = 3_000
"""Pairs drawn in the scatter at most; more would only blacken it and swell the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One line of a dot-and-interval chart."""

    label: str
    rate: Rate
    chance: float
    whole: bool = False
    """Whether this line stands for all pairs, and is set apart from the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A place on an axis and what is written there."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One pair in the scatter; x from the left and y from the top, in per cent."""

    x: float
    y: float
    right: bool
    title: str
    anchor: str | None
    """The id of the pair's card in the page, when it has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """Similarity under the model's encoder (x) against the reference (y), and the region of the suspects."""

    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    region_x: float
    region_y: float
    """The region reaches from here to the right and to the bottom."""

    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The lines of several models on one pattern, in the models' order."""

    label: str
    chance: float
    rates: tuple[Rate, ...]
    verdicts: tuple[str, ...]
    """Of each other model against the first."""

    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The cells of a heat map that hold `first` to `last` pairs, as one SVG path in per cent."""

    first: int
    last: int
    strength: float
    """Of the colour, from 0 (fewest pairs) to 100 (most)."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """How many pairs lie where, on a logarithmic scale, and a region like the scatter's."""

    levels: tuple[Level, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    region_x: float
    region_y: float


def beside_groups(results: Results) -> tuple[Group, ...]:
    """All pairs first, then pattern by pattern; empty when no other model is shown."""
    if results.beside is None:
        return ()
    score, others = results.score, results.beside.others
    whole = Group(
        label="all pairs",
        chance=score.chance_pairs,
        rates=(score.pairs, *(other.pairs for other in others)),
        verdicts=tuple(other.against.verdict for other in others),
        whole=True,
    )
    theirs = [{row.pattern: row for row in other.patterns} for other in others]
    groups = [
        Group(
            label=row.pattern,
            chance=row.chance_pairs,
            rates=(row.pairs, *(known[row.pattern].pairs for known in theirs)),
            verdicts=tuple(known[row.pattern].against.verdict for known in theirs),
        )
        for row in results.patterns
        if all(row.pattern in known for known in theirs)
    ]
    return (whole, *groups)


def scatter(pairs: Sequence[Pair], find: Find, *, cards: Mapping[str, str]) -> Scatter | None:
    """Place every pair whose two similarities are known; None when there is no such pair.

    `cards` names the anchor of each pair that has a card in the page.
    """
    known = [
        _Point(pair, pair.similarity_model, pair.similarity_reference)
        for pair in pairs
        if pair.similarity_model is not None and pair.similarity_reference is not None
    ]
    if not known:
        return None
    across = _Axis.around([point.model for point in known] + [find.threshold_model])
    up = _Axis.around([point.reference for point in known] + [find.threshold_reference])
    drawn = _spread(known)
    # wrong pairs last, so that they lie on top of the right ones
    ordered = sorted(drawn, key=lambda point: not point.pair.pair_right)
    return Scatter(
        marks=tuple(_mark(point, across, up, cards.get(point.pair.pair_id)) for point in ordered),
        x_ticks=across.ticks(),
        y_ticks=tuple(Tick(at=100 - tick.at, label=tick.label) for tick in up.ticks()),
        region_x=across.at(find.threshold_model),
        region_y=100 - up.at(find.threshold_reference),
        left_out=len(known) - len(drawn),
    )


def heat_map(
    counts: Sequence[Sequence[int]],
    *,
    x_edges: Sequence[float],
    y_edges: Sequence[float],
    corner: tuple[float, float],
) -> HeatMap | None:
    """Place the cells that hold pairs, a path for each level of 1, 3, 10, 30, ... pairs; None where none does.

    `counts` has a row for each step of x and a column for each step of y; the region lies to the right of and below
    `corner`.
    """
    most = max(count for row in counts for count in row)
    if not most:
        return None
    across, up = _Axis(x_edges[0], x_edges[-1]), _Axis(y_edges[0], y_edges[-1])
    firsts = [each for power in range(len(str(most))) for each in (10**power, 3 * 10**power) if each <= most]
    lasts = [*(first - 1 for first in firsts[1:]), most]
    xs, ys = [across.at(x) for x in x_edges], [100 - up.at(y) for y in y_edges]
    return HeatMap(
        levels=tuple(
            Level(first=first, last=last, strength=100 * place / max(len(firsts) - 1, 1), path=path)
            for place, (first, last, path) in enumerate(
                zip(firsts, lasts, _cells(counts, xs, ys, firsts), strict=True)
            )
        ),
        x_ticks=across.ticks(),
        y_ticks=tuple(Tick(at=100 - tick.at, label=tick.label) for tick in up.ticks()),
        region_x=min(max(across.at(corner[0]), 0.0), 100.0),
        region_y=min(max(100 - up.at(corner[1]), 0.0), 100.0),
    )


def _cells(
    counts: Sequence[Sequence[int]], xs: Sequence[float], ys: Sequence[float], firsts: Sequence[int]
) -> list[str]:
    """A path for each level; neighbours of one level and one height are drawn as one rectangle."""
    paths = [""] * len(firsts)
    for y, (low, high) in enumerate(pairwise(ys)):
        levels = [bisect_right(firsts, row[y]) - 1 for row in counts]
        for level, run in groupby(range(len(levels)), key=levels.__getitem__):
            cells = list(run)
            left, right = xs[cells[0]], xs[cells[-1] + 1]
            if level >= 0:
                paths[level] += f"M{left:.2f} {high:.2f}H{right:.2f}V{low:.2f}H{left:.2f}z"
    return paths


class _Point(NamedTuple):
    pair: Pair
    model: float
    reference: float


def _spread(points: Sequence[_Point]) -> list[_Point]:
    """All suspects first, then the others at even steps, up to `MARKS_MAX`."""
    if len(points) <= MARKS_MAX:
        return list(points)
    suspects = [point for point in points if point.pair.suspect][:MARKS_MAX]
    others = [point for point in points if not point.pair.suspect]
    room = min(MARKS_MAX - len(suspects), len(others))
    return suspects + [others[i * len(others) // room] for i in range(room)]


def _mark(point: _Point, across: "_Axis", up: "_Axis", anchor: str | None) -> Mark:
    state = "right" if point.pair.pair_right else "wrong"
    return Mark(
        x=across.at(point.model),
        y=100 - up.at(point.reference),
        right=point.pair.pair_right,
        title=f"pair {point.pair.pair_id}, {state}: model {similarity_text(point.model)}, "
        f"reference {similarity_text(point.reference)}",
        anchor=anchor,
    )


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> "_Axis":
        """An axis with a little air on both sides; never of zero length."""
        low, high = min(values), max(values)
        air = max((high - low) * 0.05, 1e-4)
        return cls(low - air, high + air)

    def at(self, value: float) -> float:
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, wanted: int = 5) -> tuple[Tick, ...]:
        """Round values (steps of 1, 2 or 5 times a power of ten) inside the axis."""
        rough = (self.high - self.low) / wanted
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(
            Tick(at=self.at(i * step), label=f"{i * step:.{places}f}".replace("-", "\u2212"))
            for i in range(first, last + 1)
        )
