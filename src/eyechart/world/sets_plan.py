"""Which scenes a set holds, before anything is rendered: single scenes, families of scenes, or pairs with a question.

Everything follows from a split, a seed and a place in the set, so the beginning of a long set is the short one, and
a pattern's pairs do not depend on which other patterns are asked for.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal, cast, get_args

from eyechart.core.errors import UserError, unknown
from eyechart.world.draw import can_change, change, draw_contrast, draw_facts
from eyechart.world.facts import PATTERNS, Facts, Items, Other
from eyechart.world.layout import Split, nonces
from eyechart.world.questions import question_for

Relation = Literal["twins", "siblings"]

MEMBERS = 8
"""The largest family: an object alone without a front or states can be seen in eight ways that differ by single facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPlan:
    """A set of scenes to train or probe with.

    With `members` of two or more the scenes come in families: the first is drawn, each other one is an earlier
    member of its family with one fact changed, laid out as twins (one nonce) or siblings (a nonce each).

    Raises:
        UserError: no such split or relation, fewer than one scene, or scenes that do not fill their families.
    """

    split: str
    """train, selection or test."""

    scenes: int
    seed: int = 0
    members: int = 1
    relation: str = "siblings"
    """twins or siblings."""

    def __post_init__(self) -> None:
        _check_words(self.split, self.relation)
        if self.scenes < 1 or not 1 <= self.members <= MEMBERS:
            raise UserError(
                f"{self.scenes} scenes in families of {self.members}: give 1 scene or more, in families of 1 to "
                f"{MEMBERS} members"
            )
        if self.scenes % self.members:
            raise UserError(
                f"{self.scenes} scenes do not fill families of {self.members}; give a multiple, such as "
                f"{self.scenes - self.scenes % self.members + self.members}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPlan:
    """A benchmark: so many pairs of each pattern, twins or siblings.

    Raises:
        UserError: no such split, relation or pattern, a pattern twice or none, or fewer than one pair.
    """

    split: str = "test"
    pairs: int = 200
    seed: int = 0
    patterns: tuple[str, ...] = PATTERNS
    relation: str = "siblings"
    """twins or siblings."""

    def __post_init__(self) -> None:
        _check_words(self.split, self.relation)
        for pattern in self.patterns:
            if pattern not in PATTERNS:
                raise unknown("pattern", pattern, PATTERNS)
        if not self.patterns or len(set(self.patterns)) < len(self.patterns):
            raise UserError(
                f"patterns {', '.join(self.patterns) or '(none)'}: name each once, and at least one"
            )
        if self.pairs < 1:
            raise UserError(f"{self.pairs} pairs of a pattern cannot be drawn; 1 is the least")


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRecord:
    """One scene of a set: what `scenes.jsonl` says of it."""

    index: int
    nonce: int
    facts: Facts
    family: int
    changed: str | None
    """The pattern in which it differs from an earlier member of its family; None for the first."""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePair:
    """Two scenes that differ in one fact, and the question that has opposite answers on them."""

    id: str
    pattern: str
    facts: tuple[Facts, Facts]
    nonces: tuple[int, int]
    question: str
    options: tuple[str, str]
    answers: tuple[int, int]
    """The place of the right option for either scene."""


def facts_of(record: Mapping[str, Any]) -> Facts:
    """The facts that `dataclasses.asdict` made a mapping of.

    Raises:
        TypeError: a fact is missing, or one too many is there.
    """
    other, items = record["other"], record["items"]
    return Facts(
        **{
            **record,
            "other": Other(**other) if other is not None else None,
            "items": Items(**items) if items is not None else None,
        }
    )


def record_of(line: Mapping[str, Any]) -> SceneRecord:
    """The scene that a line of `scenes.jsonl` tells of."""
    return SceneRecord(**{**line, "facts": facts_of(line["facts"])})


def draw_set(plan: SetPlan) -> Iterator[SceneRecord]:
    """The scenes of a set in their order."""
    stream = nonces(cast(Split, plan.split), plan.seed)
    for family in range(plan.scenes // plan.members):
        drawn = list(islice(stream, plan.members))
        rng = random.Random(f"set {plan.split} {plan.seed} {family}")
        for place, (facts, changed) in enumerate(_family(rng, plan.members)):
            yield SceneRecord(
                index=family * plan.members + place,
                nonce=drawn[0 if plan.relation == "twins" else place],
                facts=facts,
                family=family,
                changed=changed,
            )


def draw_pairs(plan: PairPlan) -> list[ScenePair]:
    """The pairs of a benchmark, pattern by pattern; in half of a pattern's pairs the first option is right first."""
    drawn = iter(nonces(cast(Split, plan.split), plan.seed))
    numbers = [[(next(drawn), next(drawn)) for _ in PATTERNS] for _ in range(plan.pairs)]
    return [
        _pair(plan, pattern, place, numbers[place][PATTERNS.index(pattern)], firsts[place])
        for pattern, firsts in ((pattern, _halves(plan, pattern)) for pattern in plan.patterns)
        for place in range(plan.pairs)
    ]


def _family(rng: random.Random, members: int) -> list[tuple[Facts, str | None]]:
    """Facts that all differ: the first drawn, each other one an earlier one with a fact of a pattern changed."""
    family: list[tuple[Facts, str | None]] = [(draw_facts(rng), None)]
    known = {family[0][0]}
    while len(family) < members:
        facts = rng.choice(family)[0]
        pattern = rng.choice([pattern for pattern in PATTERNS if can_change(facts, pattern)])
        changed = change(facts, pattern, rng)
        if changed not in known:
            known.add(changed)
            family.append((changed, pattern))
    return family


def _pair(plan: PairPlan, pattern: str, place: int, drawn: tuple[int, int], first: int) -> ScenePair:
    rng = random.Random(f"pair {plan.split} {plan.seed} {pattern} {place}")
    before, after = draw_contrast(pattern, rng)
    question = question_for(pattern, before, after, rng)
    facts = (before, after) if question.answer == first else (after, before)
    return ScenePair(
        id=f"{pattern}-{place + 1:04d}",
        pattern=pattern,
        facts=facts,
        nonces=(drawn[0], drawn[0 if plan.relation == "twins" else 1]),
        question=question.text,
        options=question.options,
        answers=(first, 1 - first),
    )


def _halves(plan: PairPlan, pattern: str) -> list[int]:
    """0 and 1 in a drawn order, the second pair of every two the other way round than the first."""
    rng = random.Random(f"halves {plan.split} {plan.seed} {pattern}")
    turns = [(first, 1 - first) for first in (rng.randrange(2) for _ in range((plan.pairs + 1) // 2))]
    return [first for turn in turns for first in turn]


def _check_words(split: str, relation: str) -> None:
    if split not in get_args(Split):
        raise unknown("split", split, get_args(Split))
    if relation not in get_args(Relation):
        raise unknown("relation", relation, get_args(Relation))
