"""What a probe is asked to read of scenes: a task for each pattern, made of their facts.

A fact of a kind has labels of that kind (`door open`, `lamp lit`), and a scene is only asked to choose among those that it
could have had; so one probe reads all kinds, and knowing the kind alone earns nothing.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from eyechart.core.errors import UserError, unknown
from eyechart.train.readability import Task
from eyechart.world.facts import PATTERNS
from eyechart.world.labels import PairedFacts, label_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """A task, and the scenes that it is put on."""

    pattern: str
    places: tuple[int, ...]
    """Of the scenes among those that were given, in ascending order."""

    task: Task


def readable(pattern: str, scenes: Sequence[PairedFacts], *, most: int, seed: int = 0) -> Readable:
    """The task of a pattern: on the pairs that differ in it, then on others in which the fact can be read.

    Args:
        scenes: those there are, two of each pair.
        most: so many scenes at most; whole pairs of the pattern come before anything else.
        seed: of the order in which other scenes are taken.

    Raises:
        UserError: there is no such pattern, or no scene in which it can be read.
    """
    if pattern not in PATTERNS:
        raise unknown("pattern", pattern, PATTERNS)
    rng = random.Random(f"readable {pattern} {seed}")
    labels = {place: label_of(pattern, scene, rng) for place, scene in enumerate(scenes)}
    own = [place for place, scene in enumerate(scenes) if scene.pattern == pattern]
    others = [place for place, scene in enumerate(scenes) if scene.pattern != pattern]
    rng.shuffle(others)
    known = [(place, label) for place in (*own, *others) if (label := labels[place]) is not None]
    chosen = sorted(known[:most])
    if not chosen:
        raise UserError(f"none of {len(scenes)} scenes shows a fact of the pattern {pattern!r}")
    return Readable(
        pattern=pattern,
        places=tuple(place for place, _ in chosen),
        task=Task(
            labels=tuple(label for _, (label, _) in chosen),
            groups=tuple(scenes[place].pair for place, _ in chosen),
            options=tuple(options for _, (_, options) in chosen),
        ),
    )
