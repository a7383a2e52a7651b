"""Questions on objects: as many that are there as that are not, adversarial ones the likeliest of those that are not."""

import random
from collections import Counter

import pytest

from eyechart.fix.presence import CATEGORIES, presence, shown
from eyechart.world.draw import draw_facts
from eyechart.world.kinds import KINDS


@pytest.fixture(scope="module")
def scenes():
    return [draw_facts(random.Random(f"scene {place}")) for place in range(120)]


@pytest.fixture(scope="module")
def likeness(scenes):
    rng = random.Random(0)
    return [{kind: rng.random() for kind in KINDS} for _ in scenes]


def asked_about(one):
    """The kind of which a question speaks, found in its text: the longest name that stands there as a word."""
    words = f" {one.question.text.lower().rstrip('?')} "
    return max((kind for kind in KINDS if f" {kind} " in words), key=len)


def test_in_each_category_a_scene_is_asked_once_about_what_is_there_and_once_about_what_is_not(
    scenes, likeness
):
    found = presence(scenes, likeness, seed=0)
    wanted = {
        (place, category, truth)
        for place in range(len(scenes))
        for category in CATEGORIES
        for truth in ("yes", "no")
    }
    assert Counter((one.scene, one.category, one.question.truth) for one in found) == Counter(wanted)
    for one in found:
        assert (asked_about(one) in shown(scenes[one.scene])) == (one.question.truth == "yes")


def test_the_adversarial_object_is_the_likeliest_that_is_not_there(scenes, likeness):
    for one in presence(scenes, likeness, seed=0):
        if one.category == "adversarial" and one.question.truth == "no":
            absent = set(KINDS) - shown(scenes[one.scene])
            likely = likeness[one.scene]
            assert asked_about(one) == sorted(absent, key=likely.__getitem__)[-1]


def test_the_seed_decides_all(scenes, likeness):
    assert presence(scenes, likeness, seed=0) == presence(scenes, likeness, seed=0)
    assert presence(scenes, likeness, seed=0) != presence(scenes, likeness, seed=1)


def test_random_objects_are_drawn_from_all_that_are_not_there(scenes, likeness):
    drawn = Counter(
        asked_about(one)
        for one in presence(scenes * 5, likeness * 5, seed=0)
        if one.category == "random" and one.question.truth == "no"
    )
    assert set(drawn) == set(KINDS)
    assert max(drawn.values()) < 4 * min(drawn.values())
