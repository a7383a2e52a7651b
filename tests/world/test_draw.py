"""Facts at random and changed in one: what may differ, how often, and what never stands together."""

import dataclasses
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.errors import UserError
from eyechart.world.draw import ALIKE, can_change, change, draw_contrast, draw_facts, is_solo
from eyechart.world.facts import PATTERNS, Facts
from eyechart.world.kinds import KINDS

FIELD = {
    "orientation": {"facing"},
    "presence": {"missing"},
    "state": {"state"},
    "quantity": {"items"},
    "position": {"other"},
    "color": {"color", "other"},
    "structure": {"shape"},
    "text": {"letter"},
    "viewpoint": {"view", "facing"},
}


def differing(first: Facts, second: Facts) -> set[str]:
    """The fields in which two sets of facts differ, found without the code under test."""
    one, two = dataclasses.asdict(first), dataclasses.asdict(second)
    return {name for name in one if one[name] != two[name]}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_contrast_differs_in_the_fields_of_its_pattern_alone(pattern):
    rng = random.Random(1)
    for _ in range(150):
        first, second = draw_contrast(pattern, rng)
        assert differing(first, second) <= FIELD[pattern]
        assert len(differing(first, second)) == (2 if pattern == "color" else 1)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_either_answer_comes_first_equally_often(pattern):
    rng = random.Random(2)
    firsts = Counter()
    for _ in range(400):
        first, second = draw_contrast(pattern, rng)
        firsts[repr(first) < repr(second)] += 1
    assert 140 < firsts[True] < 260


def test_color_is_changed_by_swapping_so_that_the_amounts_of_color_stay():
    rng = random.Random(3)
    for _ in range(100):
        first, second = draw_contrast("color", rng)
        assert first.other is not None
        assert second.other is not None
        assert (first.color, first.other.color) == (second.other.color, second.color)
        assert dataclasses.replace(second.other, color="x") == dataclasses.replace(first.other, color="x")


def test_quantities_differ_by_one():
    rng = random.Random(4)
    for _ in range(100):
        first, second = draw_contrast("quantity", rng)
        assert first.items is not None
        assert second.items is not None
        assert abs(first.items.number - second.items.number) == 1
        assert {first.items.number, second.items.number} <= {1, 2, 3, 4}


@given(seed=st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_drawn_facts_are_sound(seed):
    facts = draw_facts(random.Random(seed))
    kind = KINDS[facts.kind]
    assert facts.shape in kind.shape.words
    assert (facts.state is None) == (kind.state is None)
    assert facts.missing is None or facts.missing in kind.optional
    assert kind.has_front or facts.facing in ("left", "right")
    assert sum(extra is not None for extra in (facts.other, facts.items, facts.letter)) <= 1
    shown = [facts.color, facts.accent]
    shown += [extra.color for extra in (facts.other, facts.items) if extra is not None]
    assert len(set(shown)) == len(shown)
    assert not any(
        frozenset((a, b)) in ALIKE
        for a in shown
        for b in shown
        if a != b and {a, b} != {shown[1], shown[-1]} | {None}
    )


@given(seed=st.integers(0, 10**6), pattern=st.sampled_from(PATTERNS))
@settings(max_examples=60, deadline=None)
def test_what_cannot_change_says_so(seed, pattern):
    facts = draw_facts(random.Random(seed))
    if can_change(facts, pattern):
        assert change(facts, pattern, random.Random(0)) != facts
    else:
        with pytest.raises(ValueError, match=f"nothing of pattern '{pattern}'"):
            change(facts, pattern, random.Random(0))


def test_an_unknown_pattern_is_named():
    with pytest.raises(UserError, match=r"'colour'.*color"):
        can_change(draw_facts(random.Random(0)), "colour")


def test_a_part_that_is_gone_has_no_state_and_no_shape():
    rng = random.Random(5)
    gone = 0
    for _ in range(4000):
        facts = draw_facts(rng)
        state = KINDS[facts.kind].state
        if state is not None and state.part is not None and state.part == facts.missing:
            gone += 1
            assert not can_change(facts, "state")
    held = [kind for kind in KINDS.values() if kind.state is not None and kind.state.part in kind.optional]
    assert (gone > 0) == bool(held)


def test_both_sides_of_viewpoint_are_drawn():
    rng = random.Random(6)
    kinds = Counter()
    for _ in range(300):
        first, second = draw_contrast("viewpoint", rng)
        kinds["round" if first.facing != second.facing else "height"] += 1
        if first.facing != second.facing:
            assert is_solo(first)
            assert {first.facing, second.facing} == {"front", "back"}
    assert min(kinds["round"], kinds["height"]) > 60
