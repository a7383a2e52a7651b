"""Does a model say that objects are there which are not? Yes-or-no questions on objects, after POPE.

Li et al. 2023 (arXiv 2305.10355): as many objects that are there as objects that are not, the latter drawn at random or
*adversarially*. There the adversarial ones are those that most often occur together with what is shown; the world's
objects are drawn independently of each other, so here they are the absent kinds that an encoder finds likeliest.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eyechart.world.facts import Facts
from eyechart.world.kinds import KINDS
from eyechart.world.questions import Question, Topic, put

CATEGORIES = ("random", "adversarial")


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """One question on one scene."""

    scene: int
    category: str
    question: Question


def shown(facts: Facts) -> set[str]:
    """The kinds of the objects in a scene."""
    return {facts.kind} | (set() if facts.other is None else {facts.other.kind})


def presence(scenes: Sequence[Facts], likeness: Sequence[Mapping[str, float]], seed: int) -> list[Presence]:
    """Four questions on each scene: in each category one on an object that is there and one on an object that is not.

    Args:
        likeness: for each scene, how much an encoder finds the picture like each kind's name.
        seed: of which objects are asked about, and in what words.
    """
    rng, found = random.Random(f"presence {seed}"), []
    for place, (facts, like) in enumerate(zip(scenes, likeness, strict=True)):
        there = sorted(shown(facts))
        absent = [kind for kind in sorted(KINDS) if kind not in there]
        drawn = {"random": rng.choice(absent), "adversarial": max(absent, key=like.__getitem__)}
        for category in CATEGORIES:
            for kind, truth in ((rng.choice(there), "yes"), (drawn[category], "no")):
                topic = Topic(family="object", subject=kind)
                question = put(topic, truth, "no" if truth == "yes" else "yes", rng)
                found.append(Presence(scene=place, category=category, question=question))
    return found
