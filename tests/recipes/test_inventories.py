"""Inventories: every question can be answered from what is told by a slow reader, and by no single word."""

import random
import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from eyechart.recipes import inventories
from eyechart.world.facts import COLORS
from eyechart.world.kinds import KINDS


def read(seed):
    """The told sentences, and each question with its answer."""
    turns = inventories.inventory(random.Random(seed))
    scene, _, first = turns[0][0].partition("\n")
    return scene.removesuffix(".").split(". "), [(first, turns[0][1]), *turns[1:]]


def things(text):
    """Kinds in the order in which a text names them."""
    found = [(match.start(), kind) for kind in KINDS for match in re.finditer(rf"\b{kind}\b", text.lower())]
    return [kind for _, kind in sorted(found)]


@given(seed=st.integers(0, 10_000))
def test_a_slow_reader_answers_every_question(seed):
    sentences, asked = read(seed)
    colors = {}
    for sentence in sentences:
        if found := re.fullmatch(r"(?:the picture shows|there is) an? (\w+) (.+)", sentence):
            colors[found[2]] = found[1]
    assert inventories.THINGS[0] <= len(colors) <= inventories.THINGS[1]
    assert 1 <= len(asked) <= inventories.ASKED
    for text, answer in asked:
        if answer in COLORS:
            assert colors[things(text)[0]] == answer
            continue
        subject, beside = things(text)[:: -1 if text.startswith("On which side of") else 1][:2]
        if answer in ("closer", "farther"):
            (said,) = [s for s in sentences if "camera" in s and {subject, beside} <= set(things(s))]
            assert (things(said)[0] == subject) == (answer == "closer")
        else:
            (said,) = [
                s for s in sentences if s.startswith(f"the {subject} is ") and s.endswith(f"the {beside}")
            ]
            assert answer in said


def test_the_answer_is_as_often_the_one_as_the_other():
    counts = Counter(answer for seed in range(1500) for _, answer in read(seed)[1])
    for one, other in (("left", "right"), ("front", "behind"), ("closer", "farther")):
        both = counts[one] + counts[other]
        assert both > 300
        assert abs(counts[one] - both / 2) < 4 * (both / 4) ** 0.5


def test_the_first_thing_is_not_the_one_that_is_asked_about():
    """With two things, each colour is the answer as often as the other: which was told first says nothing."""
    firsts, number = 0, 0
    for seed in range(1500):
        sentences, asked = read(seed)
        told = [found for found in (re.search(r" an? (\w+) ", s) for s in sentences) if found]
        if len(told) == 2 and told[0][1] != told[1][1]:
            answers = [answer for _, answer in asked if answer in COLORS]
            number += len(answers)
            firsts += answers.count(told[0][1])
    assert number > 500
    assert abs(firsts - number / 2) < 4 * (number / 4) ** 0.5
