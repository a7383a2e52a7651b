"""Questions in space agree with the facts the scene was laid out from, keep their margins and are balanced."""

import random
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from eyechart.world.cv import APART, DEEPER, FARTHER, cv_questions
from eyechart.world.draw import draw_facts
from eyechart.world.layout import lay_out
from eyechart.world.render import render

SIZE = 32
NUMBER = {"one": 1, "two": 2, "three": 3, "four": 4}


@pytest.fixture(scope="module")
def asked():
    """(scene, rendered, question) by task, over scenes of every family."""
    rng = random.Random(1)
    found = defaultdict(list)
    for nonce in range(90):
        family = ("duo", "items", "duo", "letter")[nonce % 4]
        scene = lay_out(draw_facts(rng, family=family), nonce)
        rendered = render(scene, SIZE)
        for _ in range(3):
            for question in cv_questions(scene, rendered, rng):
                found[question.task].append((scene, rendered, question))
    return found


def _place(scene, name):
    """Where the one thing of that name stands, straight from the scene."""
    places = [(thing.x, thing.z) for thing in scene.things if thing.kind == name]
    places += [(item.x, item.z) for item in scene.items if item.noun == name]
    places += [(scene.sign.x, scene.sign.z)] if name == "sign" else []
    places += [(rug.x, rug.z) for rug in scene.rugs if f"{rug.color} rug" == name]
    assert len(places) == 1, (name, places)
    return np.array(places[0])


def test_all_four_tasks_are_asked(asked):
    assert {task: len(found) > 20 for task, found in asked.items()} == dict.fromkeys(
        ("count", "relation", "depth", "distance"), True
    )


def test_the_right_count_is_the_number_of_the_facts(asked):
    sizes = Counter()
    for scene, _, question in asked["count"]:
        assert NUMBER[question.options[question.answer]] == scene.facts.items.number
        assert scene.facts.items.noun in question.text
        sizes[len(question.options)] += 1
    assert set(sizes) == {2, 3, 4}


def test_the_right_relation_is_where_things_stand(asked):
    for scene, _, question in asked["relation"]:
        words = question.text.replace("?", "").replace(":", "").split()
        one, two = (_place(scene, name) for name in _named(scene, words))
        assert question.options[question.answer] == ("left" if one[0] < two[0] else "right"), question.text
        assert abs(one[0] - two[0]) > APART / 2


def _named(scene, words):
    names = {thing.kind for thing in scene.things} | {item.noun for item in scene.items} | {"sign"}
    return [word for word in words if word in names]


def test_the_nearer_object_is_that_of_the_facts(asked):
    for scene, rendered, question in asked["depth"]:
        facts = scene.facts
        near, far = (
            (facts.other.kind, facts.kind) if facts.other.place == "front" else (facts.kind, facts.other.kind)
        )
        assert facts.other.place in ("front", "behind")
        assert question.options[question.answer] == near
        ids = {facts.kind: 1, facts.other.kind: 2}
        gap = [np.median(rendered.depth[rendered.objects == ids[name]]) for name in (far, near)]
        assert gap[0] - gap[1] >= DEEPER


def test_the_closer_object_is_closer_on_the_floor(asked):
    for scene, _, question in asked["distance"]:
        right, wrong = question.options[question.answer], question.options[1 - question.answer]
        third = question.text.rstrip("?").split("closer to the ")[1].split(":")[0]
        near, far = (np.linalg.norm(_place(scene, name) - _place(scene, third)) for name in (right, wrong))
        assert far >= FARTHER * near
        assert third not in question.options


def test_options_differ_and_the_place_of_the_right_one_tells_nothing(asked):
    for task in ("relation", "depth", "distance"):
        answers = [question.answer for _, _, question in asked[task]]
        assert all(len(set(question.options)) == 2 for _, _, question in asked[task])
        assert binomtest(sum(answers), len(answers)).pvalue > 0.001, task


def test_any_set_of_numbers_is_as_likely_with_any_of_its_members():
    """What the options are tells nothing of the count."""
    scene = lay_out(draw_facts(random.Random(2), family="items"), 5)
    scenes = []
    for number in range(1, 5):
        facts = replace(scene.facts, items=replace(scene.facts.items, number=number))
        laid = lay_out(facts, 5)
        scenes.append((laid, render(laid, SIZE)))
    rng, found = random.Random(3), Counter()
    for _ in range(400):
        for laid, rendered in scenes:
            for question in cv_questions(laid, rendered, rng):
                if question.task == "count":
                    found[question.options, question.answer] += 1
    for options in {options for options, _ in found}:
        counts = [found[options, place] for place in range(len(options))]
        assert min(counts) > 0.5 * max(counts), (options, counts)


def test_a_thing_hardly_seen_is_not_asked_of():
    rng = random.Random(4)
    scene = lay_out(draw_facts(rng, family="items"), 6)
    rendered = render(scene, SIZE)
    objects = rendered.objects.copy()
    objects[objects == 3] = 0
    hidden = replace(rendered, objects=objects)
    for _ in range(20):
        assert "count" in {question.task for question in cv_questions(scene, rendered, rng)}
        assert "count" not in {question.task for question in cv_questions(scene, hidden, rng)}


def test_the_same_seed_asks_the_same():
    scene = lay_out(draw_facts(random.Random(5), family="duo"), 7)
    rendered = render(scene, SIZE)
    assert cv_questions(scene, rendered, random.Random(1)) == cv_questions(scene, rendered, random.Random(1))
