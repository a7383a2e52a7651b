"""Twins for probes: as many as wanted, of few contrasts, differing in nothing but the fact, and the same again."""

import json
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.errors import UserError
from eyechart.world.facts import PATTERNS
from eyechart.world.sets_pairs import items_of
from eyechart.world.sets_plan import draw_pairs
from eyechart.world.sets_twins import TwinPlan, choose_twins, render_twins, twin_labels


@pytest.fixture(scope="module")
def chosen():
    return choose_twins(TwinPlan(pairs=20))


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_few_labels_are_each_in_many_pairs(chosen, pattern):
    pairs, labels = chosen
    own = [pair for pair in pairs if pair.pattern == pattern]
    assert len(own) == 20
    times = Counter(labels[item] for pair in own for item in items_of(pair))
    assert min(times.values()) >= 5
    assert len(times) <= 8
    for pair in own:
        first, second = (labels[item] for item in items_of(pair))
        assert first != second


def test_the_two_scenes_differ_in_facts_and_share_the_rest(chosen):
    for pair in chosen[0]:
        assert pair.nonces[0] == pair.nonces[1]
        assert pair.facts[0] != pair.facts[1]
        assert set(pair.answers) == {0, 1}


@pytest.mark.slow
def test_they_are_pairs_of_the_test_split_in_their_order(chosen):
    drawn = {pair.id: pair for pair in draw_pairs(TwinPlan(pairs=20).drawn)}
    places = [list(drawn).index(pair.id) for pair in chosen[0]]
    assert places == sorted(places)
    assert all(drawn[pair.id] == pair for pair in chosen[0])


@pytest.mark.slow
@given(st.integers(1, 30), st.integers(0, 5), st.sampled_from(PATTERNS))
@settings(max_examples=12, deadline=None)
def test_the_commonest_contrasts_are_taken_evenly(pairs, seed, pattern):
    plan = TwinPlan(pairs=pairs, seed=seed, patterns=(pattern,))
    own, labels = choose_twins(plan)
    assert len(own) == pairs
    times = Counter(frozenset(labels[item] for item in items_of(pair)) for pair in own)
    assert max(times.values()) - min(times.values()) <= len(times), "equal shares, but for what is left over"
    assert choose_twins(plan) == (own, labels)


@pytest.mark.slow
def test_a_rendered_set_is_a_benchmark_with_a_label_for_each_item(tmp_path):
    plan = TwinPlan(pairs=2, patterns=("color",))
    folder = render_twins(tmp_path / "twins", plan)
    pairs, labels = choose_twins(plan)
    assert twin_labels(folder) == labels
    facts = [json.loads(line) for line in (folder / "facts.jsonl").read_text("utf8").splitlines()]
    assert [line["facts"] for line in facts] == [asdict(one) for pair in pairs for one in pair.facts]
    for pair in pairs:
        first, second = ((folder / f"images/{item}.png").read_bytes() for item in items_of(pair))
        assert first != second
    before = (folder / "questions.csv").read_bytes()
    assert render_twins(folder, plan) == folder
    assert (folder / "questions.csv").read_bytes() == before
    with pytest.raises(UserError, match="holds a run with another config"):
        render_twins(folder, TwinPlan(pairs=3, patterns=("color",)))


def test_a_plan_without_a_pool_is_refused():
    with pytest.raises(UserError, match="pool must be 1 or more, got 0"):
        TwinPlan(pool=0)
