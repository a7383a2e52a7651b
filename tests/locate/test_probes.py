"""Layer probes: planted information is found at the stages that hold it and at no other, all stages on equal terms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_items import items_of
from scipy.stats import binom

from eyechart.core.errors import UserError
from eyechart.locate.probes import StageName, pattern_stages, read_pattern, read_stages
from eyechart.locate.verdict import Answers, decide
from eyechart.train.pair_labels import covered
from eyechart.train.pair_reading import PairsRead
from eyechart.train.readability import grouped_folds, read_linearly


def states(signal, *, tokens=3, dim=6, seed=0):
    """Noise, with the answer in one token's direction at the stages that hold it; twins share all but the answer."""

    def make(items):
        rng = np.random.default_rng([seed, len(items)])
        answer = np.array([1.0 if item.answer else -1.0 for item in items])
        found = {}
        for name, strength in signal.items():
            shared = rng.standard_normal((len(items) // 2, tokens, dim)).repeat(2, axis=0)
            rows = shared + 0.3 * rng.standard_normal((len(items), tokens, dim))
            rows[:, 1, 2] += strength * answer
            found[name] = rows.astype(np.float32)
        return found

    return make


ALL = ("vision 1", "fed", "language 0 image", "language 4 last", "language 8 last")


@pytest.mark.slow
def test_what_is_planted_is_read_where_it_is_and_nowhere_else():
    told = []
    signal = {name: 3.0 * (name in ("vision 1", "fed")) for name in ALL}
    (found,) = read_stages(
        covered(items_of(40)), states(signal), seed=1, progress=lambda *what: told.append(what)
    )
    assert [one.stage.name for one in found.stages] == list(ALL)
    for one in found.stages:
        if one.stage.name in ("vision 1", "fed"):
            assert one.pairs.value > 0.9
            assert one.difference.low > 0.4
        else:
            assert one.difference.low < 0 < one.difference.high
        assert one.dealt.value < 0.55
        assert (one.pairs.n, one.pairs.clusters) == (40, 40)
        assert one.difference.value == pytest.approx(one.pairs.value - one.dealt.value)
    assert found.labels == {"left": 40, "right": 40}
    assert told == [("reading stages", 0, 1), ("reading stages", 1, 1)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signal", "right", "wanted"),
    [
        ((3, 3, 3, 3, 3), 0.95, "answered"),
        ((3, 3, 3, 3, 3), 0.1, "present but unused"),
        ((3, 3, 3, 0, 0), 0.1, "readable but dropped"),
        ((0, 0, 0, 0, 0), 0.2, "not readable"),
    ],
)
def test_features_with_planted_information_give_the_verdict(signal, right, wanted):
    items = items_of(100)
    (found,) = read_stages(covered(items), states(dict(zip(ALL, signal, strict=True))), repeats=2)
    hits = np.random.default_rng(1).random(100) < right
    (verdict,) = decide(
        [found],
        {"orientation": Answers(right=dict(zip(found.pair_ids, hits.tolist(), strict=True)))},
        again=20,
    )
    assert verdict.verdict == wanted, verdict.reason


@pytest.mark.slow
def test_where_nothing_is_nothing_is_claimed():
    """Ninety patterns' worth of noise: a claim that something is there is no commoner than the error rate allows."""
    claims, runs = 0, 30
    for run in range(runs):
        names = ("a", "b", "c")
        found = read_stages(
            covered([item for name in names for item in items_of(24, f"{name}{run}")]),
            states(dict.fromkeys(("fed", *ALL[-2:]), 0.0), tokens=2, dim=5, seed=run),
            seed=run,
        )
        rng = np.random.default_rng(run)
        given_ = {
            one.pattern: Answers(right={pair: bool(rng.random() < 0.25) for pair in one.pair_ids})
            for one in found
        }
        verdicts = decide(found, given_, again=0, seed=run)
        claims += any(one.verdict not in ("undecided", "not readable") for one in verdicts)
    assert claims <= binom.ppf(0.99, runs, 0.05)


def test_all_stages_have_one_dealing_and_one_set_of_folds():
    """Two stages with the same numbers are read the same, control and all: nothing is drawn anew between stages."""
    make = states({"fed": 1.0})

    def twice(items):
        one = make(items)["fed"]
        return {"fed": one, "language 8 last": one.copy()}

    (found,) = read_stages(covered(items_of(30)), twice, repeats=2)
    first, second = found.stages
    assert np.array_equal(first.read, second.read)
    assert np.array_equal(first.control, second.control)


def test_a_stage_is_the_slow_way_of_reading_it():
    """By hand: both items right, under the linear probe on flat tokens, averaged over repeats."""
    items = items_of(20)
    (one,) = covered(items)
    held = states({"fed": 1.2})(one.items)["fed"]
    (found,) = read_stages([one], lambda _: {"fed": held}, repeats=2, seed=5)
    by_hand = np.zeros(20)
    for seed in (5, 6):
        right = read_linearly(held.reshape(40, -1), one.task, seed=seed).right
        for pair in range(20):
            by_hand[pair] += 0.5 * (right[2 * pair] == 1 and right[2 * pair + 1] == 1)
    assert np.array_equal(found.stages[0].read, by_hand)
    for train, test in grouped_folds(one.task.groups, 5, 5):
        assert not set(train) & set(test)


def test_a_place_is_read_flat_and_lost_in_the_mean():
    """The answer is in which token the mark stands: no mean over tokens holds it."""
    items = items_of(40)
    (one,) = covered(items)
    rng = np.random.default_rng(2)
    rows = 0.3 * rng.standard_normal((80, 2, 4)).astype(np.float32)
    for place, item in enumerate(one.items):
        rows[place, item.answer, 0] += 2
    flat = read_pattern(one, {"fed": rows}, reading="flat").stages[0]
    mean = read_pattern(one, {"fed": rows}, reading="mean").stages[0]
    assert flat.pairs.value > 0.9
    assert mean.difference.low < 0


@pytest.mark.slow
def test_the_attentive_probe_is_an_option():
    (one,) = covered(items_of(40))
    held = states({"fed": 4.0})(one.items)
    found = read_pattern(one, held, reading="attentive")
    assert found.probe == "attentive"
    assert found.stages[0].pairs.value > 0.7


def test_only_one_pattern_is_held_at_a_time_and_no_more_pairs_than_wanted():
    asked = []

    def make(items):
        asked.append({item.pattern for item in items})
        return states({"fed": 1.0})(items)

    both = covered(items_of(20, "a") + items_of(30, "b") + items_of(3, "c"))
    found = read_stages(both, make, most=24)
    assert asked == [{"a"}, {"b"}]
    assert [len(one.pair_ids) for one in found] == [20, 24, 0]
    assert [one.in_set for one in found] == [20, 30, 3]
    assert found[2].stages == ()


@given(
    st.integers(12, 40),
    st.lists(st.floats(0, 1), min_size=2, max_size=2),
    st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_intervals_hold_their_means_and_stay_in_bounds(pairs, rates, seed):
    rng = np.random.default_rng(seed)
    (one,) = covered(items_of(pairs), least=1)
    shares = {
        "fed": PairsRead(
            right=(rng.random(pairs) < rates[0]).astype(float),
            control=(rng.random(pairs) < rates[1]).astype(float),
        )
    }
    (stage,) = pattern_stages(one, shares, probe="linear").stages
    for estimate, floor in ((stage.pairs, 0), (stage.dealt, 0), (stage.difference, -1)):
        assert floor - 1e-12 <= estimate.low <= estimate.value <= estimate.high <= 1 + 1e-12
        assert estimate.high - estimate.low > 0


@pytest.mark.parametrize(
    ("name", "kind", "layer"),
    [
        ("vision 12", "vision", 12),
        ("fed", "fed", None),
        ("language 0 image", "image", 0),
        ("language 31 last", "last", 31),
    ],
)
def test_names_say_where_a_stage_is(name, kind, layer):
    found = StageName.of(name)
    assert (found.kind, found.layer) == (kind, layer)


@pytest.mark.parametrize("name", ["language 3", "vision x", "Fed", "language 3 first", ""])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="no stage is named"):
        StageName.of(name)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda n: np.zeros((n, 4), np.float32), r"shape \(40, 4\); expected item x token x dim for 40"),
        (lambda n: np.zeros((n - 1, 2, 4), np.float32), r"shape \(39, 2, 4\)"),
        (lambda n: np.zeros((n, 0, 4), np.float32), r"shape \(40, 0, 4\)"),
        (lambda n: np.full((n, 1, 4), np.nan, np.float32), "not finite"),
    ],
)
def test_states_that_fit_no_items_are_refused(made, said):
    with pytest.raises(UserError, match=said):
        read_stages(covered(items_of(20)), lambda items: {"fed": made(len(items))})
