"""The reason of a verdict in words: which probe, how many labels, which numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from eyechart.core.stats import Estimate, Rate
from eyechart.locate.probes import PatternStages, StageReading


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What a reason tells of."""

    one: PatternStages
    fed: StageReading
    late: tuple[StageReading, ...]
    answered: Rate
    chance: float
    where: str | None


def reason_of(verdict: str, found: Found, *, above: bool, fed: bool) -> str:
    """The reason, as sentences.

    Args:
        verdict: that was given.
        found: its numbers.
        above: whether answers are above chance.
        fed: whether the fact is readable at what is fed.
    """
    by = _by(found.one)
    there = f"{by} reads {_said(found.fed.pairs)} of the pairs at {found.fed.stage.name} (control {_share(found.fed.dealt)})"
    answers = f"the model answers {_rate(found.answered)} of them (chance {found.chance:.0%})"
    if verdict == "answered":
        return f"{answers}; {there}."
    if verdict == "present but unused":
        return f"{_late(found, by)}; {answers}."
    if verdict == "readable but dropped":
        shown = f" The last stage that shows it is {found.where}." if found.where else ""
        return f"{there}; at the prompt's last position, where the answer is read, {_spread(found.late)}; {answers}.{shown}"
    if verdict == "not readable":
        return f"{there}. It may still be there: another probe, or more labels, may read it."
    return f"{_open(found, above=above, fed=fed)}: {there}; {answers}."


def _open(found: Found, *, above: bool, fed: bool) -> str:
    """Why nothing is decided."""
    if above:
        return "answers are above chance, and clearly below what the probe reads"
    if found.where is not None:
        return (
            f"the fact is present at {found.where}, and {found.answered.n} pairs do not settle whether answers are above"
            " chance or clearly below what is there"
        )
    if fed:
        return (
            "the fact is readable at what is fed, and the intervals do not settle whether it reaches the prompt's last"
            " position"
        )
    return f"{found.answered.n} pairs with {len(found.one.labels)} labels settle neither that the probe reads it nor that it does not"


def _late(found: Found, by: str) -> str:
    stage = next(one for one in found.late if one.stage.name == found.where)
    return (
        f"at {found.where}, where the answer is read, {by} reads {_said(stage.pairs)} of the pairs (control"
        f" {_share(stage.dealt)})"
    )


def _by(one: PatternStages) -> str:
    labels = f"{len(one.labels)} label{'' if len(one.labels) == 1 else 's'}"
    return f"a probe ({one.probe}) with {labels} on {len(one.pair_ids)} pairs"


def _spread(stages: Sequence[StageReading]) -> str:
    values = [stage.pairs.value for stage in stages]
    dealt = sum(stage.dealt.value for stage in stages) / len(stages)
    low, high = min(values), max(values)
    span = f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
    return f"it reads {span} (control {dealt:.0%})"


def _said(one: Estimate) -> str:
    return f"{one.value:.0%} [{one.low:.0%}, {one.high:.0%}]"


def _share(one: Estimate) -> str:
    return f"{one.value:.0%}"


def _rate(one: Rate) -> str:
    return f"{one.value:.0%} [{one.low:.0%}, {one.high:.0%}]"
