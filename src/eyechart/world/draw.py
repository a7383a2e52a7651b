"""Facts drawn at random, and the same facts with one of them changed: what makes pairs of scenes."""

import random
from dataclasses import replace
from typing import Literal

from eyechart.core.errors import unknown
from eyechart.world.facts import (
    COLORS,
    ITEMS,
    LETTERS,
    MATERIALS,
    PATTERNS,
    Facing,
    Facts,
    Items,
    Other,
    Place,
)
from eyechart.world.kinds import KINDS

Family = Literal["solo", "duo", "items", "letter"]

FAMILIES: tuple[Family, ...] = ("solo", "duo", "items", "letter")

ALIKE = frozenset(
    frozenset(pair)
    for pair in (
        ("red", "orange"),
        ("orange", "yellow"),
        ("red", "pink"),
        ("purple", "pink"),
        ("blue", "purple"),
        ("pink", "white"),
        ("yellow", "white"),
    )
)
"""Colours that are never set against one another in a scene: under some lights a person would hesitate."""

_FLIP: dict[Facing, Facing] = {"left": "right", "right": "left", "front": "back", "back": "front"}
_ACROSS: dict[Place, Place] = {"left": "right", "right": "left", "front": "behind", "behind": "front"}


def draw_facts(rng: random.Random, *, family: Family | None = None) -> Facts:
    """Facts at random: an object alone, with another object, with things to count, or beside a letter."""
    family = family or rng.choices(FAMILIES, weights=(3, 3, 2, 2))[0]
    kind = KINDS[rng.choice(sorted(KINDS))]
    color = rng.choice(COLORS)
    accent = _unlike(rng, color)
    return Facts(
        kind=kind.name,
        color=color,
        accent=accent,
        material=rng.choice(MATERIALS),
        facing=_facing(rng, kind.has_front),
        state=rng.choice(kind.state.words) if kind.state is not None else None,
        shape=rng.choice(kind.shape.words),
        missing=rng.choice(kind.optional) if rng.random() < 0.4 else None,
        view=rng.choice(("side", "above")),
        other=_other(rng, kind.name, color, accent) if family == "duo" else None,
        items=_items(rng, color, accent) if family == "items" else None,
        letter=rng.choice(LETTERS) if family == "letter" else None,
    )


def _facing(rng: random.Random, has_front: bool) -> Facing:  # noqa: FBT001 (one reader, below)
    return rng.choices(
        ("left", "right", "front", "back"), weights=(35, 35, 15, 15) if has_front else (1, 1, 0, 0)
    )[0]


def _unlike(rng: random.Random, *taken: str) -> str:
    return rng.choice([c for c in COLORS if all(c != t and frozenset((c, t)) not in ALIKE for t in taken)])


def _other(rng: random.Random, kind: str, color: str, accent: str) -> Other:
    return Other(
        kind=rng.choice([name for name in sorted(KINDS) if name != kind]),
        color=_unlike(rng, color, accent),
        place=rng.choice(("left", "right", "front", "behind")),
    )


def _items(rng: random.Random, color: str, accent: str) -> Items:
    return Items(noun=rng.choice(ITEMS), color=_unlike(rng, color, accent), number=rng.randint(1, 4))


def says_state(facts: Facts) -> bool:
    """Whether the object has a state to speak of: its kind has one, and the part it is said of is there."""
    state = KINDS[facts.kind].state
    return state is not None and (state.part is None or state.part != facts.missing)


def says_shape(facts: Facts) -> bool:
    """Whether the object's build can be spoken of: the part it is said of is there, and seen from its side."""
    part = KINDS[facts.kind].shape.part
    return (part is None or part != facts.missing) and facts.facing in ("left", "right")


def is_solo(facts: Facts) -> bool:
    """Whether the object stands alone."""
    return facts.other is None and facts.items is None and facts.letter is None


def shows_front_or_back(facts: Facts) -> bool:
    """Whether walking round the object would turn its front into its back, nothing else being in the way."""
    return KINDS[facts.kind].has_front and is_solo(facts) and facts.facing in ("front", "back")


def can_change(facts: Facts, pattern: str) -> bool:
    """Whether these facts hold one of that pattern that could be otherwise.

    Raises:
        UserError: there is no such pattern.
    """
    if pattern not in PATTERNS:
        raise unknown("pattern", pattern, PATTERNS)
    return {
        "orientation": KINDS[facts.kind].has_front and facts.facing in ("left", "right"),
        "presence": True,
        "state": says_state(facts),
        "quantity": facts.items is not None,
        "position": facts.other is not None,
        "color": facts.other is not None,
        "structure": says_shape(facts),
        "text": facts.letter is not None,
        "viewpoint": True,
    }[pattern]


def change(facts: Facts, pattern: str, rng: random.Random) -> Facts:
    """The same facts but for one of the pattern; for color, the two objects change colours with one another.

    Raises:
        UserError: there is no such pattern.
        ValueError: these facts hold nothing of that pattern.
    """
    if not can_change(facts, pattern):
        raise ValueError(f"nothing of pattern {pattern!r} to change in {facts}")
    kind = KINDS[facts.kind]
    match pattern:
        case "orientation":
            return replace(facts, facing=_FLIP[facts.facing])
        case "presence":
            return replace(facts, missing=None if facts.missing else rng.choice(kind.optional))
        case "state":
            assert kind.state is not None
            return replace(facts, state=_otherwise(kind.state.words, facts.state))
        case "structure":
            return replace(facts, shape=_otherwise(kind.shape.words, facts.shape))
        case "text":
            return replace(facts, letter=rng.choice([letter for letter in LETTERS if letter != facts.letter]))
        case "quantity":
            return replace(facts, items=_one_more_or_less(facts, rng))
        case "viewpoint":
            return _seen_otherwise(facts, rng)
        case _:
            return _moved_or_swapped(facts, pattern)


def _otherwise(words: tuple[str, str], now: str | None) -> str:
    return words[1] if now == words[0] else words[0]


def _one_more_or_less(facts: Facts, rng: random.Random) -> Items:
    assert facts.items is not None
    number = facts.items.number
    return replace(facts.items, number=rng.choice([n for n in (number - 1, number + 1) if 1 <= n <= 4]))


def _seen_otherwise(facts: Facts, rng: random.Random) -> Facts:
    if shows_front_or_back(facts) and rng.random() < 0.7:
        return replace(facts, facing=_FLIP[facts.facing])
    return replace(facts, view="above" if facts.view == "side" else "side")


def _moved_or_swapped(facts: Facts, pattern: str) -> Facts:
    other = facts.other
    assert other is not None
    if pattern == "position":
        return replace(facts, other=replace(other, place=_ACROSS[other.place]))
    return replace(facts, color=other.color, other=replace(other, color=facts.color))


def draw_contrast(pattern: str, rng: random.Random) -> tuple[Facts, Facts]:
    """Two sets of facts that differ in one fact of the pattern, either of them first.

    Raises:
        UserError: there is no such pattern.
    """
    family: Family | None = {"quantity": "items", "position": "duo", "color": "duo", "text": "letter"}.get(
        pattern
    )  # type: ignore[assignment]
    round_it = pattern == "viewpoint" and rng.random() < 0.5
    facts = draw_facts(rng, family=family)
    while not (shows_front_or_back(facts) if round_it else can_change(facts, pattern)):
        facts = draw_facts(rng, family=family)
    pair = (facts, change(facts, pattern, rng))
    return pair if rng.random() < 0.5 else (pair[1], pair[0])
