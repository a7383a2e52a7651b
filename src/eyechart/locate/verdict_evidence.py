"""What a verdict rests on: margins, answers, and the p-values and ends of intervals that the rule in `verdict` looks at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.core.stats import holm
from eyechart.locate.probes import PatternStages, StageReading
from eyechart.locate.verdict_numbers import Resampling, above_chance_p, flip_p, limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The margins of the rule, as shares of pairs."""

    level: float = 0.95
    """Of intervals; the tests' error rate is what is left."""

    below: float = 0.10
    """Answers that are at most so much below what is read are not clearly below it."""

    slight: float = 0.25
    """A difference from the control below this is slight. With 40 pairs an interval is about 20 points wide to either side."""

    late: float = 0.5
    """Late stages begin at this share of the language model's layers. A half: where the answer's letter is put together, the
    last layers may hold the letter alone."""

    least: int = 10
    """Groups of pairs below which everything is undecided."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name != "least" and not 0 < value < 1:
                raise UserError(f"{one.name} must lie between 0 and 1, got {value}; for 10 points say 0.10")
        if self.least < 2:
            raise UserError(f"least must be 2 groups of pairs or more, got {self.least}")


DEFAULT_RULE = Rule()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """Whether the model answered the pairs of a pattern."""

    right: Mapping[str, bool]
    """By pair id: both items right."""

    chance: float = 0.25
    """Share of pairs that a guess gets right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the rule looks at: p-values after Holm, differences, and upper ends of intervals."""

    answered_p: float
    fed_p: float
    fed_more: float
    """Pairs read at `fed` less its control."""

    fed_high: float
    late_p: tuple[float, ...]
    late_more: tuple[float, ...]
    late_high: float
    """The largest upper end of a late stage's difference from its control."""

    late_fall_high: float
    """The largest upper end of pairs read at a late stage less pairs read at `fed`."""

    answers_fed_high: float
    """Upper end of pairs answered less pairs read at `fed`."""

    answers_late_high: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """A batch of data sets: sums over the pairs of each group, and the groups' sizes."""

    sums: Float[ndarray, "batch group column"]
    right: Float[ndarray, "batch group"]
    sizes: Float[ndarray, "batch group"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A pattern that can be judged.

    Columns: the difference from the control at `fed` and at each late stage; each late stage less fed; answers less fed, and less each
    late stage.
    """

    pattern: str
    fed: StageReading
    late: tuple[StageReading, ...]
    right: Bool[ndarray, " pair"]
    chance: float
    groups: Resampling

    def data(self) -> Data:
        """The data themselves, a batch of one."""
        fed, answered = self.fed.read, self.right.astype(np.float64)
        late = np.stack([one.read for one in self.late], axis=1)
        more = late - np.stack([one.control for one in self.late], axis=1)
        columns = [
            (fed - self.fed.control)[:, None],
            more,
            late - fed[:, None],
            (answered - fed)[:, None],
            answered[:, None] - late,
        ]
        return Data(
            sums=self.groups.sums(np.concatenate(columns, axis=1))[None],
            right=self.groups.sums(answered[:, None])[None, :, 0],
            sizes=self.groups.sizes[None],
        )

    def drawn(self, again: int, rng: np.random.Generator) -> Data:
        """The data with their groups drawn again, so many times."""
        data, count = self.data(), len(self.groups.sizes)
        which = rng.integers(0, count, size=(again, count))
        return Data(sums=data.sums[0][which], right=data.right[0][which], sizes=data.sizes[0][which])


def case_of(one: PatternStages, answers: Mapping[str, Answers], rule: Rule) -> Case | None:
    """A pattern as it is judged; None where there is too little to judge by.

    Raises:
        UserError: the pattern, or a pair that was read, has no answer.
    """
    if one.pattern not in answers:
        raise UserError(f"there are no answers for the pattern {one.pattern!r}, which was read")
    known = answers[one.pattern]
    missing = [pair for pair in one.pair_ids if pair not in known.right]
    if missing:
        raise UserError(f"pair {missing[0]!r} of {one.pattern!r} was read and has no answer")
    fed, late = fed_stage(one), late_stages(one, rule)
    if len(set(one.groups)) < rule.least or fed is None or not late:
        return None
    return Case(
        pattern=one.pattern,
        fed=fed,
        late=late,
        right=np.array([known.right[pair] for pair in one.pair_ids], dtype=np.bool_),
        chance=known.chance,
        groups=Resampling.of(one.groups, seed=0, resamples=1),
    )


def fed_stage(one: PatternStages) -> StageReading | None:
    """What the projector reads; where that cannot be had, what it gives (language layer 0)."""
    return one.stage("fed") or one.stage("language 0 image")


def late_stages(one: PatternStages, rule: Rule = DEFAULT_RULE) -> tuple[StageReading, ...]:
    """The stages at the prompt's last position, from `Rule.late` of the last layer read on."""
    last = [stage for stage in one.stages if stage.stage.kind == "last"]
    depth = max((stage.stage.layer or 0 for stage in last), default=0)
    return tuple(stage for stage in last if depth and (stage.stage.layer or 0) >= rule.late * depth)


def evidence_of(
    cases: Sequence[Case], rule: Rule, data: Sequence[Data], draws: int, flips: int, seed: int
) -> list[list[Evidence]]:
    """For each pattern, of each data set of the batch; Holm's family is all tests of one data set."""
    if not cases:
        return []
    tests, ends = [], []
    for case, one in zip(cases, data, strict=True):
        stages = 1 + len(case.late)
        p_values = flip_p(one.sums[:, :, :stages], flips=flips, seed=seed)
        tests.append(
            np.concatenate([above_chance_p(one.right, one.sizes, case.chance)[:, None], p_values], axis=1)
        )
        counts = np.random.default_rng(seed).multinomial(
            one.sums.shape[1], np.full(one.sums.shape[1], 1 / one.sums.shape[1]), size=draws
        )
        floors = np.full(one.sums.shape[2], -1.0)
        ends.append(
            limits(one.sums, one.sizes, counts.astype(np.float64), level=rule.level, floors=floors)[1]
        )
    held = np.array([holm(row) for row in np.concatenate(tests, axis=1)])
    starts = np.cumsum([0, *(each.shape[1] for each in tests)])
    return [
        [
            _row(
                held[row, start:], one.sums[row].sum(axis=0) / one.sizes[row].sum(), high[row], len(case.late)
            )
            for row in range(len(held))
        ]
        for case, one, high, start in zip(cases, data, ends, starts[:-1], strict=True)
    ]


def _row(
    held: Float[ndarray, " test"],
    value: Float[ndarray, " column"],
    high: Float[ndarray, " column"],
    late: int,
) -> Evidence:
    def plain(some: ndarray) -> tuple[float, ...]:
        return tuple(float(one) for one in some)

    return Evidence(
        answered_p=float(held[0]),
        fed_p=float(held[1]),
        fed_more=float(value[0]),
        fed_high=float(high[0]),
        late_p=plain(held[2 : 2 + late]),
        late_more=plain(value[1 : 1 + late]),
        late_high=float(high[1 : 1 + late].max()),
        late_fall_high=float(high[1 + late : 1 + 2 * late].max()),
        answers_fed_high=float(high[1 + 2 * late]),
        answers_late_high=plain(high[2 + 2 * late :]),
    )
