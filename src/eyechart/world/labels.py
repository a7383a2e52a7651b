"""Facts as labels that a probe can learn: what is true of a scene for a pattern, among what could have been.

A fact of a kind has labels of that kind (`door open`, `lamp lit`), so that one word means the same in all scenes that have it.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from eyechart.world.facts import COLORS, LETTERS, Facts
from eyechart.world.kinds import KINDS
from eyechart.world.words import end_seen, shape_said, side_faced, state_said

Label = tuple[str, tuple[str, ...]]
"""What is true of a scene, and among which it is to be picked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedFacts:
    """The facts of one scene of a pair."""

    pair: str
    pattern: str
    """The pattern in which the two scenes of the pair differ."""

    facts: Facts
    rival: Facts
    """The facts of the pair's other scene."""


def label_of(pattern: str, scene: PairedFacts, rng: random.Random) -> Label | None:
    """What is to be read of a scene for a pattern; None where its facts do not show it."""
    if pattern == "presence":
        return _presence(scene, rng)
    if pattern == "viewpoint" and scene.pattern == "viewpoint":
        return _end(scene.facts) if scene.facts.view == scene.rival.view else _height(scene.facts)
    return _READERS[pattern](scene.facts)


def _orientation(facts: Facts) -> Label | None:
    side = side_faced(facts)
    return (side, ("left", "right")) if side is not None else None


def _presence(scene: PairedFacts, rng: random.Random) -> Label | None:
    """The part that one of a pair lacks; elsewhere the missing part, or as often one that is not missing."""
    facts, there = scene.facts, scene.facts.missing is None
    if scene.pattern == "presence":
        part = facts.missing or scene.rival.missing
    else:
        part = rng.choice(KINDS[facts.kind].optional) if there else facts.missing
        if there and rng.random() < _LEFT_OUT:
            return None
    options = (f"{facts.kind} {part} there", f"{facts.kind} {part} missing")
    return options[0 if there else 1], options


_LEFT_OUT = 1 / 3
"""`draw_facts` leaves six scenes in ten whole and takes a part from four: a third of the six makes it even."""


def _state(facts: Facts) -> Label | None:
    choice, said = KINDS[facts.kind].state, state_said(facts)
    return _of_kind(facts, choice.words, said[1]) if choice is not None and said is not None else None


def _structure(facts: Facts) -> Label | None:
    said = shape_said(facts)
    return _of_kind(facts, KINDS[facts.kind].shape.words, said[1]) if said is not None else None


def _of_kind(facts: Facts, words: tuple[str, str], word: str) -> Label:
    return f"{facts.kind} {word}", (f"{facts.kind} {words[0]}", f"{facts.kind} {words[1]}")


def _quantity(facts: Facts) -> Label | None:
    return (str(facts.items.number), ("1", "2", "3", "4")) if facts.items is not None else None


def _position(facts: Facts) -> Label | None:
    if facts.other is None:
        return None
    sides = ("left", "right") if facts.other.place in ("left", "right") else ("front", "behind")
    return facts.other.place, sides


def _color(facts: Facts) -> Label | None:
    return facts.color, COLORS


def _text(facts: Facts) -> Label | None:
    return (facts.letter, LETTERS) if facts.letter is not None else None


def _viewpoint(facts: Facts) -> Label | None:
    return _height(facts) if end_seen(facts) is None else _end(facts)


def _height(facts: Facts) -> Label | None:
    return facts.view, ("side", "above")


def _end(facts: Facts) -> Label | None:
    end = end_seen(facts)
    return (f"end {end}", ("end front", "end behind")) if end is not None else None


_READERS: Mapping[str, Callable[[Facts], Label | None]] = {
    "orientation": _orientation,
    "state": _state,
    "structure": _structure,
    "quantity": _quantity,
    "position": _position,
    "color": _color,
    "text": _text,
    "viewpoint": _viewpoint,
}
