"""Leaks that were planted are found, and where none is, none is reported."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from eyechart.core.stats import wilson
from eyechart.recipes.world_certificate import (
    Certificate,
    Patches,
    blanked,
    certificate,
    cut_patches,
    inside,
    same_windows,
    statistics,
    widest_cover,
)
from eyechart.recipes.world_checks import (
    Asked,
    Leak,
    asked_of_pairs,
    asked_of_scenes,
    color_counts,
    counting_leaks,
    pictures_of,
    position_leaks,
    roles_leaks,
    statistics_leaks,
    text_leaks,
)
from eyechart.recipes.world_scenes import PartPictures, part_pictures, solo_scenes
from eyechart.world.draw import draw_facts
from eyechart.world.facts import COLORS
from eyechart.world.layout import lay_out, split_of
from eyechart.world.paints import COLOR_RGB
from eyechart.world.render import render
from eyechart.world.sets_pairs import render_pairs
from eyechart.world.sets_plan import PairPlan, SetPlan, draw_pairs, draw_set

FIRST, SECOND = ("house", "roof"), ("rocket", "nose")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def part_in_noise(
    kind: str, part: str, *, bright: float, beside: int, seed: int, count: int = 40
) -> PartPictures:
    """A part that fills patches (2..3, 3..4) of each picture, brightest at its top if told so, in given surroundings."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, (count, 96, 96, 3)) + np.array([beside, 60, 60])
    masks = np.zeros((count, 96, 96), dtype=np.bool_)
    masks[:, 24:48, 36:60] = True
    slope = bright * np.linspace(-1, 1, 12)[None, :, None, None]
    fill = 120 + rng.normal(0, 12, (count, 24, 24, 3)) - np.tile(slope, (1, 2, 1, 1))
    images[:, 24:48, 36:60] = fill
    return PartPictures(kind=kind, part=part, images=images.clip(0, 255).astype(np.uint8), masks=masks)


def splits(bright: tuple[float, float], beside: tuple[int, int]) -> list[Patches]:
    return [
        cut_patches(
            *(
                part_in_noise(*name, bright=level, beside=color, seed=7 * number + place)
                for place, (name, level, color) in enumerate(
                    zip((FIRST, SECOND), bright, beside, strict=True)
                )
            )
        )
        for number in range(3)
    ]


@pytest.mark.slow
def test_parts_alike_in_other_surroundings_are_certified():
    same = splits((30, 30), (60, 200))
    alone = certificate(FIRST, SECOND, "alone", *same)
    assert alone.accuracy.low < 0.5 < alone.accuracy.high
    assert alone.accuracy.n == len(same[2].label) == 2 * 40 * 4
    assert alone.scenes == 40
    for shown in ("crop", "picture"):
        assert certificate(FIRST, SECOND, shown, *same).verdict == "holds"


def test_a_part_painted_otherwise_is_found_out():
    found = certificate(FIRST, SECOND, "alone", *splits((30, -30), (60, 60)))
    assert found.verdict == "fails"
    assert found.accuracy.low > 0.9
    assert found.to_dict()["verdict"] == "fails"


@pytest.mark.parametrize(
    ("shown", "hits", "verdict"),
    [
        ("alone", 490, "holds"),
        ("alone", 550, "undecided"),
        ("alone", 600, "fails"),
        ("crop", 900, "holds"),
        ("crop", 800, "undecided"),
        ("picture", 700, "fails"),
    ],
)
def test_a_verdict_is_the_interval_against_the_bound(shown, hits, verdict):
    rate = wilson(hits, 1000)
    one = Certificate(first=FIRST, second=SECOND, shown=shown, reader="trees", accuracy=rate, scenes=9)
    assert one.verdict == verdict


def test_only_what_lies_on_the_part_reaches_a_reader():
    rng = np.random.default_rng(0)
    mask = np.zeros((1, 12, 12), dtype=np.bool_)
    mask[:, 2:9, 3:11] = True
    inner = inside(mask)[0]
    assert inner.sum() == 5 * 6
    patch = rng.integers(1, 256, (12, 12, 3)).astype(np.uint8)
    other = patch.copy()
    other[~inner] = 255 - other[~inner]
    assert np.array_equal(blanked(patch, inner), blanked(other, inner))
    assert np.array_equal(statistics(blanked(patch, inner)[None]), statistics(blanked(other, inner)[None]))


def test_patches_are_balanced_and_parts_never_seen_are_refused():
    few = part_in_noise(*FIRST, bright=0, beside=0, seed=1, count=3)
    many = part_in_noise(*SECOND, bright=0, beside=0, seed=2, count=9)
    patches = cut_patches(few, many)
    assert np.bincount(patches.label).tolist() == [12, 12]
    assert cut_patches(few, many, most=5).label.tolist() == [0] * 5 + [1] * 5
    unseen = replace(few, masks=np.zeros_like(few.masks))
    with pytest.raises(ValueError, match=r"no patch of house or of rocket lies by 50% on the part"):
        cut_patches(unseen, many)


def test_thin_parts_are_cut_with_less_of_the_part():
    full = part_in_noise(*FIRST, bright=0, beside=0, seed=1, count=60)
    assert widest_cover(full, full) == 0.9
    thin = replace(full, masks=full.masks & (np.arange(96) % 12 < 7))
    assert widest_cover(full, thin) == 0.5


def test_in_common_windows_an_outline_tells_nothing():
    first, second, third = splits((30, 30), (60, 60))
    cut = [replace(one, alone=one.alone.copy()) for one in (first, second, third)]
    for one in cut:
        one.alone[one.label == 1, :, :, :4] = 0
    assert certificate(FIRST, SECOND, "alone", *cut).accuracy.low > 0.9
    same = [same_windows(one) for one in cut]
    for one in same:
        half = len(one.label) // 2
        assert np.array_equal(one.alone[:half, 4], one.alone[half:, 4])
    assert certificate(FIRST, SECOND, "window", *same).accuracy.low < 0.5
    first.alone[:, :] = 0
    with pytest.raises(ValueError, match="no two of 160 patches of either part have 36 pixels in common"):
        same_windows(first)


def test_solo_scenes_show_the_part_from_left_or_right_in_their_split():
    scenes = solo_scenes("flower", "leaf", "selection", 12)
    assert all(facts.kind == "flower" and facts.missing != "leaf" for facts, _ in scenes)
    assert all(facts.facing in ("left", "right") and facts.other is None for facts, _ in scenes)
    assert {split_of(nonce) for _, nonce in scenes} == {"selection"}
    assert [nonce for _, nonce in scenes] == [
        nonce for _, nonce in solo_scenes("rabbit", "ear", "selection", 12)
    ]


def test_rendered_scenes_are_kept(tmp_path):
    made = part_pictures(tmp_path, *FIRST, "test", 2, workers=1)
    assert made.masks.any(axis=(1, 2)).all()
    (kept,) = tmp_path.iterdir()
    before = kept.stat().st_mtime_ns
    again = part_pictures(tmp_path, *FIRST, "test", 2, workers=1)
    assert kept.stat().st_mtime_ns == before
    assert np.array_equal(again.images, made.images)
    assert np.array_equal(again.masks, made.masks)


def asked(count: int, *, text: str = "Is the cat facing left or right?", seed: int = 0) -> list[Asked]:
    """Pairs of questions that nothing answers."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        options = rng.choice((("left", "right"), ("right", "left")))
        first = rng.randrange(2)
        for side in range(2):
            facts = draw_facts(rng, family="items")
            answer = first if side == 0 else 1 - first
            found.append(
                Asked(
                    pattern="orientation",
                    family="facing",
                    text=text,
                    options=options,
                    answer=answer,
                    facts=facts,
                    group=f"pair {number}",
                    picture=2 * number + side,
                )
            )
    return found


def noise(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(90, 170, (count, 16, 16, 3)).astype(np.uint8)


def test_always_the_first_is_right_on_one_item_of_every_pair():
    (found,) = position_leaks(asked(30))
    assert found.items.value == 0.5
    assert found.pairs is not None
    assert found.pairs.hits == 0
    assert not found.leaks


def test_an_answer_in_the_words_is_found_and_none_is_found_in_clean_ones():
    clean = asked(200)
    assert not text_leaks(clean, asked(100, seed=1))[0].leaks

    def told(items: list[Asked]) -> list[Asked]:
        wise = {"left": "Left or right?", "right": "Is it right or left?"}
        return [replace(one, text=wise[one.options[one.answer]]) for one in items]

    (found,) = text_leaks(told(clean), told(asked(100, seed=1)))
    assert found.leaks
    assert found.items.value == 1


def test_an_amount_of_colour_that_answers_is_found_and_noise_is_not():
    train, test = asked(150), asked(60, seed=1)
    pictures = noise(300, 0), noise(120, 1)
    assert not statistics_leaks(train, pictures[0], test, pictures[1])[0].leaks
    for items, images in zip((train, test), pictures, strict=True):
        for one in items:
            if one.options[one.answer] == "left":
                images[one.picture, :4] = COLOR_RGB["red"]
    (found,) = statistics_leaks(train, pictures[0], test, pictures[1])
    assert found.leaks
    assert found.pairs is not None
    assert found.pairs.low > 0.9


def test_counts_by_role_find_a_colour_that_grows_with_the_answer():
    train, test = asked(150), asked(60, seed=1)
    pictures = noise(300, 0), noise(120, 1)
    assert not roles_leaks(train, pictures[0], test, pictures[1])[0].leaks
    for items, images in zip((train, test), pictures, strict=True):
        for one in items:
            rows = 6 if one.options[one.answer] == "left" else 2
            images[one.picture, :rows] = COLOR_RGB[one.facts.color]
    assert roles_leaks(train, pictures[0], test, pictures[1])[0].items.low > 0.9


def test_counting_answers_color_by_amount_and_quantity_by_area():
    rng = random.Random(3)
    items, images = [], []
    for number in range(24):
        facts = draw_facts(rng, family="items")
        assert facts.items is not None
        picture = np.full((32, 32, 3), 128, dtype=np.uint8)
        picture[: 2 * facts.items.number] = COLOR_RGB[facts.items.color]
        words = ("one", "two", "three", "four", "five")
        options = (words[facts.items.number - 1], words[facts.items.number])
        common = {"facts": facts, "group": f"scene {number}", "picture": number, "answer": 0}
        items += [
            Asked(pattern="quantity", family="number", text="How many?", options=options, **common),
            Asked(
                pattern="color", family="color", text="?", options=(facts.items.color, facts.color), **common
            ),
        ]
        images.append(picture)
    found = {leak.pattern: leak for leak in counting_leaks(items, np.stack(images), items, np.stack(images))}
    assert set(found) == {"color", "quantity"}
    assert all(leak.items.value == 1 and leak.pairs is None for leak in found.values())


@pytest.mark.parametrize("name", [name for name in COLORS if name != "white"])
def test_a_paint_in_light_and_shade_is_counted_under_its_name(name):
    rng = random.Random(f"counted {name}")
    facts = replace(
        draw_facts(rng, family="solo"), kind="mug", color=name, state="empty", shape="tall", missing=None
    )
    accent = "green" if name != "green" else "red"
    scene = lay_out(replace(facts, accent=accent, view="side", facing="left"), 5)
    shown = render(replace(scene, rugs=()), 96)
    counts = color_counts(shown.image[None])[0]
    assert counts[COLORS.index(name)] > 0.3 * (shown.objects == 1).sum()


def test_grey_has_no_name_and_bright_white_has():
    assert color_counts(np.full((1, 8, 8, 3), 150, dtype=np.uint8)).sum() == 0
    assert color_counts(np.full((1, 8, 8, 3), 242, dtype=np.uint8))[0, COLORS.index("white")] == 64


def test_questions_of_scenes_and_pairs_are_taken_as_they_are():
    scenes = list(draw_set(SetPlan(split="train", scenes=4)))
    assert {one.group for one in asked_of_scenes(scenes)} == {f"scene {number}" for number in range(4)}
    pairs = draw_pairs(PairPlan(pairs=2))
    items = asked_of_pairs(pairs)
    assert [one.picture for one in items] == list(range(2 * len(pairs)))
    assert [one.facts for one in items[:2]] == list(pairs[0].facts)
    assert items[0].answer != items[1].answer
    assert "other" not in {one.family for one in items}


def test_leaks_as_plain_values():
    assert Leak(reader="text", pattern="text", items=wilson(60, 80), pairs=None).to_dict()["leaks"] is True


@pytest.mark.slow
def test_the_world_as_it_is(tmp_path):
    """Reduced: words and places tell nothing; context tells a roof from a nose."""
    train = asked_of_scenes(list(draw_set(SetPlan(split="train", scenes=1500))))
    test = asked_of_scenes(list(draw_set(SetPlan(split="test", scenes=800))), seed=1)
    for leak in [*position_leaks(test), *text_leaks(train, test)]:
        assert leak.items.low < 0.52, leak
    plan = PairPlan(pairs=4, patterns=("color", "state"))
    pairs = draw_pairs(plan)
    pictures = pictures_of(render_pairs(tmp_path / "pairs", plan, workers=1), pairs)
    assert pictures.shape == (16, 96, 96, 3)
    counted = counting_leaks(train, np.zeros((1500, 96, 96, 3), np.uint8), asked_of_pairs(pairs), pictures)
    assert counted[0].items.n == 8
    splits_ = [
        cut_patches(*(part_pictures(tmp_path, *name, split, count, workers=1) for name in (FIRST, SECOND)))
        for split, count in (("train", 60), ("selection", 20), ("test", 30))
    ]
    assert certificate(FIRST, SECOND, "crop", *splits_).accuracy.low > 0.7
