"""Where marks stand: against the plain formula, for any numbers."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.report import charts
from eyechart.report.reading import Find, Pair

cosines = st.floats(-1, 1)


def a_pair(number, model, reference, *, right=False, suspect=False):
    return Pair(
        pair_id=str(number),
        pattern=None,
        item_a="a",
        item_b="b",
        image_a="a",
        image_b="b",
        similarity_model=model,
        percentile_model=None,
        similarity_reference=reference,
        percentile_reference=None,
        suspect=suspect,
        right_a=right,
        right_b=right,
        pair_right=right,
    )


def a_find(model=0.9, reference=0.5):
    return Find.model_validate(
        {
            "percentile": 95,
            "suspects": {"value": 0, "low": 0, "high": 1, "hits": 0, "n": 1, "level": 0.95},
            "compared": 1,
            "threshold_model": model,
            "threshold_reference": reference,
            "right_suspects": None,
            "right_others": None,
            "p_value": None,
        }
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cosines, cosines), min_size=1, max_size=8), cosines, cosines)
def test_marks_lie_in_the_plot_and_in_the_region_exactly_when_the_numbers_say_so(
    points, limit_model, limit_reference
):
    pairs = [a_pair(i, model, reference) for i, (model, reference) in enumerate(points)]
    drawn = charts.scatter(pairs, a_find(limit_model, limit_reference), cards={})
    assert drawn is not None
    for mark, (model, reference) in zip(drawn.marks, points, strict=True):
        assert 0 <= mark.x <= 100
        assert 0 <= mark.y <= 100
        assert mark.x >= drawn.region_x or model < limit_model
        assert mark.y >= drawn.region_y or reference > limit_reference
    for tick in (*drawn.x_ticks, *drawn.y_ticks):
        assert -1e-6 <= tick.at <= 100 + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.floats(-1, 1), st.floats(1e-6, 2))
def test_ticks_are_round_even_and_few_and_stand_where_their_label_says(low, length):
    axis = charts._Axis.around([low, low + length])
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    values = [float(tick.label.replace("\u2212", "-")) for tick in ticks]
    assert len(set(values)) == len(values), "labels need enough decimals to differ"
    steps = [after - before for before, after in pairwise(values)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-6, abs_tol=1e-9) for step in steps)
    assert [tick.at for tick in ticks] == pytest.approx([axis.at(value) for value in values], abs=1e-4)


def test_equal_numbers_still_make_an_axis():
    drawn = charts.scatter([a_pair(0, 1.0, 1.0)], a_find(1.0, 1.0), cards={})
    assert drawn is not None
    assert (drawn.marks[0].x, drawn.marks[0].y) == pytest.approx((50, 50))


def test_pairs_of_unknown_similarity_are_not_drawn():
    assert charts.scatter([a_pair(0, 0.5, None), a_pair(1, None, 0.5)], a_find(), cards={}) is None


def test_wrong_pairs_lie_on_top_and_carry_the_link_to_their_card():
    pairs = [a_pair(0, 0.1, 0.2), a_pair(1, 0.3, 0.4, right=True)]
    drawn = charts.scatter(pairs, a_find(), cards={"0": "failure-1"})
    assert drawn is not None
    assert [(mark.right, mark.anchor) for mark in drawn.marks] == [(True, None), (False, "failure-1")]
    assert drawn.marks[1].title == "pair 0, wrong: model 0.1000, reference 0.2000"


def test_of_too_many_pairs_all_suspects_and_an_even_choice_of_the_others_are_drawn(monkeypatch):
    monkeypatch.setattr(charts, "MARKS_MAX", 10)
    pairs = [a_pair(i, i / 100, 0.5, suspect=i >= 96) for i in range(100)]
    drawn = charts.scatter(pairs, a_find(), cards={})
    assert drawn is not None
    numbers = sorted(int(mark.title.split()[1].rstrip(",")) for mark in drawn.marks)
    assert numbers == [0, 16, 32, 48, 64, 80, 96, 97, 98, 99]
    assert drawn.left_out == 90
