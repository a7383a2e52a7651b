"""Layouts: one nonce gives one scene, splits never meet, twins share all that no fact decides, siblings share none of it."""

import dataclasses
import itertools
import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from eyechart.world.draw import ALIKE, draw_contrast, draw_facts
from eyechart.world.facts import PATTERNS
from eyechart.world.layout import fixed_paints, lay_out, nonces, split_of
from eyechart.world.render import render


def test_splits_are_a_function_of_the_nonce_and_share_none():
    drawn = {split: set(itertools.islice(nonces(split, 0), 400)) for split in ("train", "selection", "test")}
    for split, numbers in drawn.items():
        assert {split_of(number) for number in numbers} == {split}
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["selection"]
    assert not drawn["selection"] & drawn["test"]


def test_a_fresh_seed_gives_fresh_scenes_of_the_same_split():
    first, second = (set(itertools.islice(nonces("test", seed), 300)) for seed in (0, 1))
    assert not first & second


def test_the_shares_of_the_splits_are_near_eight_one_one():
    counts = Counter(split_of(number) for number in range(20_000))
    assert abs(counts["train"] / 20_000 - 0.8) < 0.02
    assert abs(counts["test"] / 20_000 - 0.1) < 0.015


@pytest.mark.parametrize("pattern", PATTERNS)
def test_twins_share_light_floor_backdrop_and_rugs(pattern):
    rng = random.Random(0)
    for nonce in range(40):
        first, second = (lay_out(facts, nonce) for facts in draw_contrast(pattern, rng))
        assert (first.light, first.floor, first.backdrop, first.rugs) == (
            second.light,
            second.floor,
            second.backdrop,
            second.rugs,
        )
        if pattern != "viewpoint":
            assert first.camera == second.camera
        else:
            assert first.camera != second.camera
        unmoved = pattern in ("presence", "state", "structure", "color")
        assert not unmoved or [_place(t) for t in first.things] == [_place(t) for t in second.things]


def _place(thing):
    return thing.x, thing.z, thing.yaw, thing.scale


def test_a_viewpoint_twin_moves_the_camera_and_nothing_else():
    rng = random.Random(1)
    for nonce in range(60):
        first, second = (lay_out(facts, nonce) for facts in draw_contrast("viewpoint", rng))
        for name in ("things", "items", "sign", "rugs", "floor", "backdrop", "light"):
            assert getattr(first, name) == getattr(second, name), name


def test_one_more_item_leaves_the_others_where_they_are():
    rng = random.Random(2)
    for nonce in range(40):
        first, second = (lay_out(facts, nonce) for facts in draw_contrast("quantity", rng))
        few, many = sorted((first.items, second.items), key=len)
        assert many[: len(few)] == few


def test_a_rug_lies_in_every_paint_that_a_fact_shows_more_or_less_of():
    rng = random.Random(6)
    for nonce in range(80):
        facts = draw_facts(rng)
        scene = lay_out(facts, nonce)
        company = [one.color for one in (facts.other, facts.items) if one is not None]
        expected = {facts.color, facts.accent, *company, *fixed_paints(facts.kind)}
        assert expected <= {rug.color for rug in scene.rugs}
        assert len(scene.rugs) <= len(expected) + 1


@pytest.mark.parametrize(
    ("kind", "paints"), [("rocket", {"glow", "dark"}), ("lamp", {"glow", "dark"}), ("mushroom", {"light"})]
)
def test_fixed_paints_hold_those_of_both_states(kind, paints):
    assert paints <= set(fixed_paints(kind))
    assert not {"main", "accent"} & set(fixed_paints(kind))


def test_rugs_differ_in_size_between_scenes_and_within_them():
    rng = random.Random(7)
    sizes = [[rug.size for rug in lay_out(draw_facts(rng), nonce).rugs] for nonce in range(300)]
    means = [math.log(math.prod(each)) / len(each) for each in sizes]
    assert max(means) - min(means) > math.log(4)
    assert min(map(min, sizes)) < 0.08
    assert max(map(max, sizes)) > 1.2
    assert sum(max(each) > 2 * min(each) for each in sizes) > 250


def test_no_rug_of_the_items_colour_or_one_like_it_reaches_them():
    rng = random.Random(8)
    near = 0
    for nonce in range(150):
        scene = lay_out(draw_facts(rng, family="items"), nonce)
        color = scene.facts.items.color
        for rug in scene.rugs:
            if rug.color == color or frozenset((rug.color, color)) in ALIKE:
                reach = rug.size * (math.sqrt(2) if rug.shape == "square" else 1.0)
                assert all(rug.z + reach < item.z - item.radius for item in scene.items)
                near += 1
    assert near >= 150


def test_items_have_sizes_of_their_own_and_do_not_touch():
    rng = random.Random(9)
    ratios, radii = [], []
    for nonce in range(200):
        items = lay_out(draw_facts(rng, family="items"), nonce).items
        radii += [one.radius for one in items]
        for one, two in itertools.combinations(items, 2):
            assert math.hypot(one.x - two.x, one.z - two.z) > one.radius + two.radius
            ratios.append(one.radius / two.radius)
    assert min(radii) < 0.08
    assert max(radii) > 0.125
    assert max(ratios) > 1.25


def test_floors_have_two_greys_near_one_another_and_many_walls_have_theirs():
    rng = random.Random(10)
    plain = 0
    for nonce in range(200):
        scene = lay_out(draw_facts(rng), nonce)
        for red, green, blue in (scene.floor.first, scene.floor.second):
            assert 0.36 <= green <= 0.84
            assert abs(red - blue) <= 0.18 + 1e-9
        assert 0.07 - 1e-9 <= abs(scene.floor.first[1] - scene.floor.second[1]) <= 0.2 + 1e-9
        plain += scene.backdrop.top == scene.backdrop.bottom
    assert 50 < plain < 110


def test_a_wall_in_the_floors_tone_is_as_bright_as_the_sunlit_floor():
    rng = random.Random(11)
    seen = 0
    for nonce in range(120):
        scene = lay_out(replace(draw_facts(rng, family="solo"), view="side"), nonce)
        if scene.backdrop.top != scene.backdrop.bottom or scene.floor.pattern != "plain":
            continue
        rendered = render(replace(scene, rugs=()), 32)
        bare, sky = rendered.parts == 0, np.isinf(rendered.depth)
        if (bare & sky).sum() < 20:  # the camera looks down too far for the wall to be seen
            continue
        floor = rendered.image[bare & ~sky].mean(-1)
        assert abs(np.quantile(floor, 0.6) - rendered.image[bare & sky].mean()) < 12
        seen += 1
    assert seen >= 3


def test_siblings_have_another_camera_light_and_floor():
    rng = random.Random(3)
    for nonce in range(40):
        first, second = draw_contrast("state", rng)
        one, two = lay_out(first, nonce), lay_out(second, nonce + 1)
        assert one.camera != two.camera
        assert one.light != two.light
        assert one.floor != two.floor


def test_the_layout_is_the_same_on_every_call():
    facts = draw_facts(random.Random(4))
    assert lay_out(facts, 77) == lay_out(facts, 77)
    assert dataclasses.asdict(lay_out(facts, 77)) != dataclasses.asdict(lay_out(facts, 78))


def test_left_is_left_and_front_is_nearer_as_the_camera_sees_it():
    rng = random.Random(5)
    seen = Counter()
    for nonce in range(300):
        scene = lay_out(draw_facts(rng, family="duo"), nonce)
        main, other = (_camera_frame(scene.camera, (t.x, 0.0, t.z)) for t in scene.things)
        place = scene.facts.other.place
        seen[place] += 1
        match place:
            case "left":
                assert other[0] < main[0] - 0.3
            case "right":
                assert other[0] > main[0] + 0.3
            case "front":
                assert other[2] < main[2] - 0.3
            case "behind":
                assert other[2] > main[2] + 0.3
    assert len(seen) == 4


def _camera_frame(camera, point):
    """(right, up, away) of a world point, by plain trigonometry."""
    away = [t - e for t, e in zip(camera.target, camera.eye, strict=True)]
    norm = math.sqrt(sum(a * a for a in away))
    away = [a / norm for a in away]
    right = [-away[2], 0.0, away[0]]
    norm = math.sqrt(sum(r * r for r in right))
    right = [r / norm for r in right]
    up = [
        right[1] * away[2] - right[2] * away[1],
        right[2] * away[0] - right[0] * away[2],
        right[0] * away[1] - right[1] * away[0],
    ]
    offset = [p - e for p, e in zip(point, camera.eye, strict=True)]
    return tuple(sum(o * axis[i] for i, o in enumerate(offset)) for axis in (right, up, away))
