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
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from eyechart.core.stats import Rate, wilson
from eyechart.locate.probes import PatternStages
from eyechart.locate.verdict_evidence import (
    DEFAULT_RULE,
    Answers,
    Case,
    Evidence,
    Rule,
    case_of,
    evidence_of,
    late_stages,
)
from eyechart.locate.verdict_numbers import FLIPS, RESAMPLES
from eyechart.locate.verdict_words import Found, reason_of

__all__ = [
    "DEFAULT_RULE",
    "VERDICTS",
    "Answers",
    "Evidence",
    "PatternVerdict",
    "Rule",
    "Verdict",
    "decide",
    "judge",
    "late_stages",
]

Verdict = Literal["not readable", "readable but dropped", "present but unused", "answered", "undecided"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

AGAIN, AGAIN_DRAWS, AGAIN_FLIPS = 200, 400, 4000
"""Draws of the pairs on which the rule is applied again, and the draws and flips within each."""


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
    cases = {one.pattern: made for one in read if (made := case_of(one, answers, rule)) is not None}
    seen = evidence_of(
        list(cases.values()), rule, [one.data() for one in cases.values()], RESAMPLES, FLIPS, seed
    )
    rng = np.random.default_rng(seed)
    drawn = [one.drawn(again, rng) for one in cases.values()]
    redone = evidence_of(list(cases.values()), rule, drawn, AGAIN_DRAWS, AGAIN_FLIPS, seed + 1)
    verdicts = dict(zip(cases, (one[0] for one in seen), strict=True))
    spread = dict(zip(cases, redone, strict=True))
    return tuple(
        _verdict(one, cases[one.pattern], verdicts[one.pattern], spread[one.pattern], rule)
        if one.pattern in cases
        else _none(one, answers, rule)
        for one in read
    )


def _verdict(
    one: PatternStages, case: Case, seen: Evidence, redone: Sequence[Evidence], rule: Rule
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
