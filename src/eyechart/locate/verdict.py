"""The verdict on a pattern: not readable, readable but dropped, present but unused, answered, or undecided.

It compares the pairs that one probe reads along a model's stages (`probes`) with the pairs that the model itself answers, on
the same items. Four questions are asked, each about means over pairs:

- **A, answers above chance**: exact binomial test of pairs answered rightly against chance (an unread reply is wrong).
- **F, readable at what is fed**: sign-flip test of pairs read at `fed` less pairs that its control reads.
- **L, readable late**: the same at each late stage, the last position of the prompt at layers from `Rule.late` of the depth on.
- margins: paired 95 % intervals, from drawing groups of pairs again.

All tests of all patterns (one A, one F and one L for each late stage) are one family under Holm's correction at 1 - `level`.
Then the first that holds, in this order:

1. **answered**: A holds, and answers are not clearly below what the probe reads at `fed`: the upper end of (pairs answered -
   pairs read at `fed`) is not below -`Rule.below`.
2. **present but unused**: L holds, and the answers are clearly below what the probe reads at the late stage of the largest
   difference: the upper end of (pairs answered - pairs read there) is below -`Rule.below`.
3. **readable but dropped**: F holds; no L and not A; every late stage is down to its control (the upper end of its difference is
   below `Rule.slight`), and below `fed` (the upper end of pairs read there - pairs read at `fed` is below 0).
4. **not readable**: not F, no L, not A, and what `fed` may show above its control is slight: its upper end is below `Rule.slight`.
5. **undecided**, with the reason.

The margins' intervals are not corrected over patterns: Holm guards the claims that something *is* there, which verdicts 1 to 3
all need. "Not readable" and "dropped" speak of one probe with so many labelled pairs, never of what is not there.

How firm a verdict is: groups of pairs are drawn again and the whole rule, Holm included, is applied to each draw; `shares` says
how often it gives which verdict. That is a measure of stability and no probability of being right; probes are not trained anew.

The order, the tests and the margins are ours: no source has such a rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.core.stats import Rate, holm, wilson
from eyechart.locate.probes import PatternStages, StageReading
from eyechart.locate.verdict_numbers import FLIPS, RESAMPLES, Resampling, above_chance_p, flip_p, limits
from eyechart.locate.verdict_words import Found, reason_of

Verdict = Literal["not readable", "readable but dropped", "present but unused", "answered", "undecided"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

AGAIN, AGAIN_DRAWS, AGAIN_FLIPS = 200, 400, 4000
"""Draws of the pairs on which the rule is applied again, and the draws and flips within each."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternVerdict:
    """The verdict on one pattern, and what it rests on."""

    pattern: str
    verdict: Verdict
    reason: str
    """In words, with the probe, the labels and the numbers."""

    pairs: int
    labels: int
    answered: Rate | None
    chance: float
    fed: str | None
    """The stage taken for what the projector reads."""

    late: tuple[str, ...]
    where: str | None
    """The late stage where the fact is present; where it was dropped, the last stage that shows it."""

    evidence: Evidence | None
    shares: Mapping[str, float]
    """Of draws of the pairs, how many end in each verdict."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        return asdict(self) | {"shares": dict(self.shares)}


def judge(seen: Evidence, rule: Rule = DEFAULT_RULE) -> tuple[Verdict, int | None]:
    """The rule itself.

    Returns:
        The verdict, and of `present but unused` the place of the late stage.
    """
    error = 1 - rule.level
    above = seen.answered_p <= error
    fed = seen.fed_p <= error and seen.fed_more > 0
    late = [place for place, p in enumerate(seen.late_p) if p <= error and seen.late_more[place] > 0]
    if above and seen.answers_fed_high >= -rule.below:
        return "answered", None
    if late:
        best = max(late, key=lambda place: seen.late_more[place])
        unused = seen.answers_late_high[best] < -rule.below
        return ("present but unused", best) if unused else ("undecided", best)
    if above or not seen.late_p:
        return "undecided", None
    if fed:
        gone = seen.late_high < rule.slight and seen.late_fall_high < 0
        return ("readable but dropped" if gone else "undecided"), None
    return ("not readable" if seen.fed_high < rule.slight else "undecided"), None


def decide(
    read: Sequence[PatternStages],
    answers: Mapping[str, Answers],
    *,
    rule: Rule = DEFAULT_RULE,
    again: int = AGAIN,
    seed: int = 0,
) -> tuple[PatternVerdict, ...]:
    """The verdict on every pattern.

    Args:
        read: patterns read along the stages.
        answers: of each pattern.
        rule: margins and level.
        again: draws of the pairs on which the rule is applied again.
        seed: of flips and draws.

    Raises:
        UserError: a pattern, or a pair that was read, has no answer.
    """
    cases = {one.pattern: made for one in read if (made := _case(one, answers, rule)) is not None}
    seen = _evidence(
        list(cases.values()), rule, [one.data() for one in cases.values()], RESAMPLES, FLIPS, seed
    )
    rng = np.random.default_rng(seed)
    drawn = [one.drawn(again, rng) for one in cases.values()]
    redone = _evidence(list(cases.values()), rule, drawn, AGAIN_DRAWS, AGAIN_FLIPS, seed + 1)
    verdicts = dict(zip(cases, (one[0] for one in seen), strict=True))
    spread = dict(zip(cases, redone, strict=True))
    return tuple(
        _verdict(one, cases[one.pattern], verdicts[one.pattern], spread[one.pattern], rule)
        if one.pattern in cases
        else _none(one, answers, rule)
        for one in read
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Data:
    """A batch of data sets: sums over the pairs of each group, and the groups' sizes."""

    sums: Float[ndarray, "batch group column"]
    right: Float[ndarray, "batch group"]
    sizes: Float[ndarray, "batch group"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Case:
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

    def data(self) -> _Data:
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
        return _Data(
            sums=self.groups.sums(np.concatenate(columns, axis=1))[None],
            right=self.groups.sums(answered[:, None])[None, :, 0],
            sizes=self.groups.sizes[None],
        )

    def drawn(self, again: int, rng: np.random.Generator) -> _Data:
        """The data with their groups drawn again, so many times."""
        data, count = self.data(), len(self.groups.sizes)
        which = rng.integers(0, count, size=(again, count))
        return _Data(sums=data.sums[0][which], right=data.right[0][which], sizes=data.sizes[0][which])


def _case(one: PatternStages, answers: Mapping[str, Answers], rule: Rule) -> _Case | None:
    """None where there is too little to judge by."""
    if one.pattern not in answers:
        raise UserError(f"there are no answers for the pattern {one.pattern!r}, which was read")
    known = answers[one.pattern]
    missing = [pair for pair in one.pair_ids if pair not in known.right]
    if missing:
        raise UserError(f"pair {missing[0]!r} of {one.pattern!r} was read and has no answer")
    fed, late = fed_stage(one), late_stages(one, rule)
    if len(set(one.groups)) < rule.least or fed is None or not late:
        return None
    return _Case(
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


def _evidence(
    cases: Sequence[_Case], rule: Rule, data: Sequence[_Data], draws: int, flips: int, seed: int
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


def _verdict(
    one: PatternStages, case: _Case, seen: Evidence, redone: Sequence[Evidence], rule: Rule
) -> PatternVerdict:
    verdict, place = judge(seen, rule)
    ends = [judge(each, rule)[0] for each in redone]
    where = case.late[place].stage.name if place is not None else None
    if verdict == "readable but dropped":
        where = _last_shown(one)
    answered = wilson(int(case.right.sum()), len(case.right), level=rule.level)
    return PatternVerdict(
        pattern=one.pattern,
        verdict=verdict,
        reason=reason_of(
            verdict,
            Found(one=one, fed=case.fed, late=case.late, answered=answered, chance=case.chance, where=where),
            above=seen.answered_p <= 1 - rule.level,
            fed=seen.fed_p <= 1 - rule.level and seen.fed_more > 0,
        ),
        pairs=len(one.pair_ids),
        labels=len(one.labels),
        answered=answered,
        chance=case.chance,
        fed=case.fed.stage.name,
        late=tuple(stage.stage.name for stage in case.late),
        where=where,
        evidence=seen,
        shares={name: ends.count(name) / len(ends) for name in VERDICTS} if ends else {},
    )


def _last_shown(one: PatternStages) -> str | None:
    """The last stage, in the model's order, whose difference from the control is above 0 by its own interval."""
    shown = [stage.stage.name for stage in one.stages if stage.difference.low > 0]
    return shown[-1] if shown else None


def _none(one: PatternStages, answers: Mapping[str, Answers], rule: Rule) -> PatternVerdict:
    groups = len(set(one.groups))
    if groups < rule.least:
        reason = (
            f"too few pairs share a label: {one.in_set} of the pattern are there, and {groups} groups of them without a"
            f" common picture can be read, where {rule.least} are needed"
        )
    else:
        reason = "the model gives no states at the stages that the rule looks at"
    return PatternVerdict(
        pattern=one.pattern,
        verdict="undecided",
        reason=reason,
        pairs=len(one.pair_ids),
        labels=len(one.labels),
        answered=None,
        chance=answers[one.pattern].chance,
        fed=None,
        late=(),
        where=None,
        evidence=None,
        shares={},
    )
