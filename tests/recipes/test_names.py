"""Regions and their names: a slow reader finds the same, and what is asked can be answered from the maps alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyechart import zoo
from eyechart.core.errors import UserError
from eyechart.recipes import names
from eyechart.train.tokens import load_tokenizer
from eyechart.world.kinds import KINDS, PARTS
from eyechart.world.sets import render_set
from eyechart.world.sets_plan import SetPlan


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    plan = SetPlan(split="train", scenes=60)
    return render_set(tmp_path_factory.mktemp("maps"), plan, size=96, workers=1, maps=True)


def slowly(parts, grid):
    """Each patch's name, pixel by pixel."""
    side, known, found = len(parts) // grid, names.names(), []
    for row in range(grid):
        for column in range(grid):
            counts = Counter()
            for number in parts[row * side : (row + 1) * side, column * side : (column + 1) * side].flat:
                owner, part = PARTS[number - 1] if number else ("floor", names.FLOOR)
                counts[part if owner in KINDS or not number else owner] += 1
            name, most = counts.most_common(1)[0]
            enough = names.BARE if name == names.FLOOR else names.COVERED
            found.append(known.index(name) if most >= enough * side * side else -1)
    return found


def test_a_patch_is_named_as_a_slow_reader_names_it(scenes):
    seen = set()
    for place in range(12):
        parts = np.asarray(scenes.parts[place])
        found = names.name_map(parts, 8).tolist()
        expected = slowly(parts, 8)
        tied = [one for one, other in zip(found, expected, strict=True) if one != other]
        assert not tied
        seen |= set(found)
    assert -1 in seen
    assert len(seen) > 10


@given(number=st.integers(0, len(PARTS)), covered=st.integers(0, 36))
def test_a_patch_needs_enough_of_what_it_shows(number, covered):
    parts = np.zeros((12, 12), np.uint8)
    parts[:6, :6].flat[:covered] = number
    owner, part = PARTS[number - 1] if number else ("", names.FLOOR)
    name = names.names().index(part if owner in KINDS or not number else owner)
    floor = names.names().index(names.FLOOR)
    if number == 0 or covered <= 3:
        assert names.name_map(parts, 2)[0] == floor
    elif covered >= 18:
        assert names.name_map(parts, 2)[0] == name
    else:
        assert names.name_map(parts, 2)[0] == -1
    assert set(names.name_map(parts, 2)[1:]) == {floor}


def test_what_is_asked_is_what_the_maps_say(scenes):
    asked = names.namings(scenes, 900, grid=8, seed=1, weight=3.0)
    known = names.names()
    for one in asked:
        found = names.name_map(np.asarray(scenes.parts[one.picture]), 8)
        assert {known[found[patch]] for patch in one.patches} == {one.answer}
        assert 1 <= len(one.patches) <= names.LARGEST
        assert list(one.patches) == sorted(set(one.patches))
        assert (one.text, one.weight) == (None, 3.0)
    shares = Counter(one.answer for one in asked)
    assert len(shares) > 30
    assert max(shares.values()) < 900 / names.COMMONEST + 4 * (900 / names.COMMONEST) ** 0.5
    assert asked == names.namings(scenes, 900, grid=8, seed=1, weight=3.0)
    assert asked != names.namings(scenes, 900, grid=8, seed=2, weight=3.0)


def test_without_maps_or_whole_patches_nothing_is_named(scenes, tmp_path):
    bare = render_set(tmp_path / "bare", SetPlan(split="train", scenes=2), size=36, workers=1)
    with pytest.raises(UserError, match="has no maps of parts; render it with maps"):
        names.namings(bare, 3, grid=3)
    with pytest.raises(ValueError, match="96 pixels does not fall into 7 x 7"):
        names.name_map(np.zeros((96, 96), np.uint8), 7)


def test_every_name_is_one_token():
    words = load_tokenizer(zoo.path("lm"))
    assert all(len(words(f" {name}", add_special_tokens=False)["input_ids"]) == 1 for name in names.names())
