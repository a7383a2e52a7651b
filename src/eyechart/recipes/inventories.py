"""Told scenes of several things of which nothing is said but colour and place, and questions on which has which.

In a scene of the world the main object is spoken of most and in a sentence of its own, so which of two colours is its can
be guessed by that; here nothing sets one thing apart. Places are told both ways, as `captions.told` does, so that no word
alone answers, only what it is said of.
"""

import random
from collections.abc import Iterator

from eyechart.train.language import Turn
from eyechart.train.prompts import told as asked_of
from eyechart.world.captions import told_place
from eyechart.world.facts import COLORS, Place
from eyechart.world.kinds import KINDS
from eyechart.world.questions import Topic, of_place, put
from eyechart.world.wordings import FAMILIES
from eyechart.world.words import PLACES, a

THINGS = (2, 3)
"""How many there are, at least and at most."""

PLACED = 0.8
"""How often it is told where a thing is, seen from the one before it."""

ASKED = 6
"""Questions on an inventory at most."""

Asked = tuple[Topic, str, str]
"""What is asked, the right answer, and the other option."""


def inventory(rng: random.Random) -> list[Turn]:
    """The scene and up to `ASKED` questions on it, answered in words, as a dialogue."""
    kinds = rng.sample(sorted(KINDS), rng.randint(*THINGS))
    colors = [rng.choice(COLORS) for _ in kinds]
    told, asked = [], []
    for number, (kind, color) in enumerate(zip(kinds, colors, strict=True)):
        told.append(f"{'there is' if number else 'the picture shows'} {a(f'{color} {kind}')}")
        others = sorted({each for each in colors if each != color}) or [c for c in COLORS if c != color]
        asked.append((Topic(family="color", subject=kind), color, rng.choice(others)))
        if number and rng.random() < PLACED:
            place = rng.choice(sorted(PLACES))
            told += told_place(kind, kinds[number - 1], place)
            asked += _of_place(kind, kinds[number - 1], place)
    rng.shuffle(asked)
    questions = [put(*each, rng) for each in asked[:ASKED]]
    (text, answer), *more = [(question.text, question.truth) for question in questions]
    return [(asked_of(". ".join(told) + ".", text), answer), *more]


def _of_place(kind: str, beside: str, place: Place) -> Iterator[Asked]:
    for topic, truth in of_place(kind, beside, place):
        answers = FAMILIES[topic.family].answers
        assert answers is not None
        yield topic, truth, answers[1 - answers.index(truth)]
