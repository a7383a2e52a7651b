"""The part of a page that says where a pattern is lost: what `results.json` holds of it, and where its charts' marks stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

from eyechart.report.records import Record

Verdict = Literal["not readable", "readable but dropped", "present but unused", "answered", "undecided"]

MEANINGS: dict[Verdict, str] = {
    "answered": "the model answers such questions above chance, and about as often as the probe reads the fact",
    "present but unused": "the fact is there where the answer is read, and the answers are clearly worse",
    "readable but dropped": "the fact is there in what the projector reads, and is gone where the answer is read",
    "not readable": "this probe, with so many labels, does not read the fact from what the projector reads; that does not mean it is not there",
    "undecided": "these pairs do not settle it",
}
"""Each verdict in a clause."""

KINDS = {
    "vision": "encoder",
    "fed": "fed",
    "image": "image positions",
    "last": "last position",
    "answer": "answer",
}
"""What the kinds of stages are called under a chart."""


class Estimate(Record):
    """A share of pairs, or a difference of two, with its interval."""

    value: float
    low: float
    high: float
    n: int
    level: float


class Stage(Record):
    """What the probe read at one stage of the model."""

    stage: str
    kind: Literal["vision", "fed", "image", "last"]
    layer: int | None
    pairs: Estimate
    control: Estimate
    difference: Estimate


class Pattern(Record):
    """One pattern's verdict and the numbers behind it."""

    pattern: str
    verdict: Verdict
    reason: str
    pairs: int
    in_set: int
    label_pairs: dict[str, int]
    answered: Estimate | None
    chance: float
    fed: str | None
    late: tuple[str, ...]
    where: str | None
    shares: dict[str, float]
    stages: tuple[Stage, ...]

    def stage(self, name: str | None) -> Stage | None:
        """The stage of a name."""
        return next((one for one in self.stages if one.stage == name), None)

    @property
    def fed_stage(self) -> Stage | None:
        """What was read of what the projector reads."""
        return self.stage(self.fed)

    @property
    def late_stage(self) -> Stage | None:
        """The late stage where most was read above the control."""
        known = [stage for name in self.late if (stage := self.stage(name)) is not None]
        return max(known, key=lambda stage: stage.difference.value, default=None)

    @property
    def firmness(self) -> float | None:
        """The share of draws of the pairs that end in this verdict."""
        return self.shares.get(self.verdict)


class Located(Record):
    """The block `located` of `results.json`; `missing` says why there is nothing else."""

    missing: str | None
    items: str = ""
    probe: str | None = None
    notes: tuple[str, ...] = ()
    patterns: tuple[Pattern, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A stage in the chart; all places in per cent, x from the left and y from the top."""

    x: float
    label: str
    y: float
    low: float
    high: float
    control: float | None
    """None for the answer, which has chance beside it and no control."""

    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Stages of one kind, side by side."""

    name: str
    left: float
    right: float

    @property
    def middle(self) -> float:
        """Where its name stands."""
        return (self.left + self.right) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StageChart:
    """Readability along a model's stages."""

    pattern: str
    verdict: str
    points: tuple[Point, ...]
    bands: tuple[Band, ...]
    lines: tuple[tuple[Point, Point], ...]
    """Between neighbouring stages that a probe read."""

    chance: float


def stage_charts(located: Located | None) -> tuple[StageChart, ...]:
    """A chart for each pattern that was read."""
    return tuple(_chart(one) for one in (located.patterns if located else ()) if one.stages)


def _chart(one: Pattern) -> StageChart:
    kinds = [stage.kind for stage in one.stages] + (["answer"] if one.answered else [])
    step = 100 / len(kinds)
    points = [_point(stage, (place + 0.5) * step) for place, stage in enumerate(one.stages)]
    lines = tuple(pairwise(points))
    if one.answered:
        points.append(_answer(one.answered, (len(kinds) - 0.5) * step, one.chance))
    return StageChart(
        pattern=one.pattern,
        verdict=one.verdict,
        points=tuple(points),
        bands=_bands(kinds, step),
        lines=lines,
        chance=_down(one.chance),
    )


def _bands(kinds: Sequence[str], step: float) -> tuple[Band, ...]:
    bands, start = [], 0
    for kind, some in groupby(kinds):
        end = start + len(list(some))
        bands.append(Band(name=KINDS[kind], left=start * step, right=end * step))
        start = end
    return tuple(bands)


def _point(stage: Stage, x: float) -> Point:
    read, control = stage.pairs, stage.control
    return Point(
        x=x,
        label="" if stage.layer is None else str(stage.layer),
        y=_down(read.value),
        low=_down(read.low),
        high=_down(read.high),
        control=_down(control.value),
        title=f"{stage.stage}: {read.value:.0%} of {read.n} pairs read [{read.low:.0%}, {read.high:.0%}], control {control.value:.0%}",
    )


def _answer(rate: Estimate, x: float, chance: float) -> Point:
    return Point(
        x=x,
        label="",
        y=_down(rate.value),
        low=_down(rate.low),
        high=_down(rate.high),
        control=None,
        title=f"answered: {rate.value:.0%} of {rate.n} pairs [{rate.low:.0%}, {rate.high:.0%}], chance {chance:.0%}",
    )


def _down(share: float) -> float:
    return 100 * (1 - share)
