"""Bootstraps against loops, enumeration, closed forms, scipy, and worlds whose truth is known."""

import itertools
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eyechart.core.stats import (
    Rate,
    _arrays,
    cluster_bootstrap,
    cluster_rate,
    hierarchical_bootstrap,
    hierarchical_difference,
    wilson,
)


def limits(estimate):
    return np.array([estimate.low, estimate.high])


def graded_pairs(rng, pairs, rate, shared):
    """Right or wrong for two items a pair; with probability `shared` the second copies the first."""
    first = rng.random(pairs) < rate
    second = np.where(rng.random(pairs) < shared, first, rng.random(pairs) < rate)
    return np.stack([first, second], axis=1).ravel(), np.repeat(np.arange(pairs), 2)


# ── clusters ─────────────────────────────────────────────────────────────────────────────────────────


def clusters_by_hand(values, labels, *, level, resamples, seed):
    """Draw whole clusters, put their items in one list, average; the quantiles of many such means."""
    rng = np.random.default_rng(seed)
    members = {label: [v for v, own in zip(values, labels, strict=True) if own == label] for label in labels}
    names = list(members)
    means = []
    for _ in range(resamples):
        drawn = [members[names[place]] for place in rng.integers(0, len(names), len(names))]
        means.append(np.mean(np.concatenate(drawn)))
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2])


def test_clusters_of_many_sizes_against_a_plain_loop():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 25, 90)
    values = rng.normal(labels % 5, 1.0)
    found = cluster_bootstrap(values, labels, resamples=20_000, level=0.9, seed=1)
    assert found.value == pytest.approx(values.mean())
    by_hand = clusters_by_hand(values, labels, level=0.9, resamples=6_000, seed=2)
    assert limits(found) == pytest.approx(by_hand, abs=0.04 * np.ptp(by_hand))


def test_three_clusters_against_all_27_draws():
    values, labels = [0.0, 0.0, 1.0, 5.0, 6.0, 9.0], ["a", "a", "a", "b", "b", "c"]
    groups = [[0.0, 0.0, 1.0], [5.0, 6.0], [9.0]]
    means = sorted(np.mean([*itertools.chain(*draw)]) for draw in itertools.product(groups, repeat=3))
    for level in (0.5, 0.75, 0.9):
        exact = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
        found = cluster_bootstrap(values, labels, level=level, resamples=50_000, seed=0)
        assert limits(found) == pytest.approx(exact)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_single_item_clusters_against_scipy(method, tied):
    values = np.array([1.0] * 5 + [0.0] * 35) if tied else np.random.default_rng(5).exponential(size=40)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method=method, rng=np.random.default_rng(1)
    ).confidence_interval
    found = cluster_bootstrap(values, list(range(40)), resamples=20_000, method=method, seed=2)
    assert limits(found) == pytest.approx(np.array(theirs), abs=0.02 * (theirs.high - theirs.low))
    assert found.method == f"cluster bootstrap, {method}"


def test_bca_leans_to_the_long_tail():
    values = np.random.default_rng(5).exponential(size=40)
    plain, leaning = (cluster_bootstrap(values, range(40), seed=0, method=m) for m in ("percentile", "bca"))
    assert leaning.low > plain.low
    assert leaning.high > plain.high


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=2, max_size=60), st.randoms())
@settings(max_examples=40, deadline=None)
def test_order_and_names_of_clusters_play_no_part(rows, random):
    if len({label for label, _ in rows}) < 2:
        rows = [*rows, (6, 0), (7, 1)]
    mixed = random.sample(rows, len(rows))
    found = cluster_bootstrap([v for _, v in rows], [label for label, _ in rows], resamples=200, seed=4)
    again = cluster_bootstrap(
        [v for _, v in mixed], [f"p{label}" for label, _ in mixed], resamples=200, seed=4
    )
    assert found == again
    assert 0 <= found.low <= found.high <= 1
    assert found.value == pytest.approx(np.mean([v for _, v in rows]))


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("pairs", [15, 60])
def test_coverage_where_the_truth_is_known(pairs, method):
    rng = np.random.default_rng(6)
    held = 0
    for seed in range(300):
        found = cluster_bootstrap(
            *graded_pairs(rng, pairs, 0.7, 0.6), resamples=400, seed=seed, method=method
        )
        held += found.low <= 0.7 <= found.high
    assert 0.91 <= held / 300 <= 0.985


def test_pairs_that_stand_or_fall_together_are_not_twice_as_many():
    hits, labels = graded_pairs(np.random.default_rng(7), 150, 0.5, 1.0)
    together = cluster_bootstrap(hits, labels, seed=0)
    as_if_free = wilson(int(hits.sum()), len(hits))
    ratio = (together.high - together.low) / (as_if_free.high - as_if_free.low)
    assert ratio == pytest.approx(np.sqrt(2), rel=0.06)


def test_the_seed_decides_and_the_block_size_does_not(monkeypatch):
    rng = np.random.default_rng(8)
    values, labels = rng.random(300), np.repeat(np.arange(100), 3)
    found = cluster_bootstrap(values, labels, seed=0)
    assert cluster_bootstrap(values, labels, seed=0) == found
    assert cluster_bootstrap(values, labels, seed=1) != found
    monkeypatch.setattr(_arrays, "_CELLS", 750)
    in_blocks = cluster_bootstrap(values, labels, seed=0)
    assert limits(in_blocks) == pytest.approx(limits(found), rel=1e-12)


def test_memory_stays_bounded():
    """2,000 resamples of 4,000 clusters would take 64 MB at once."""
    values = np.random.default_rng(9).random(4_000)
    labels = np.arange(4_000)
    tracemalloc.start()
    cluster_bootstrap(values, labels, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


def test_all_right_is_wilsons_interval_over_pairs():
    found = cluster_bootstrap([1] * 300, np.repeat(np.arange(150), 2), seed=0)
    over_pairs = wilson(150, 150)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(over_pairs.low)
    assert found.method == "Wilson bound on unseen clusters"
    none = cluster_bootstrap([False] * 300, np.repeat(np.arange(150), 2), seed=0)
    assert (none.low, none.high) == pytest.approx((0.0, 1 - over_pairs.low))


def test_one_right_in_every_pair_is_no_certainty():
    """A model that says yes to everything has every pair half right."""
    found = cluster_bootstrap([1, 0] * 150, np.repeat(np.arange(150), 2), seed=0)
    hidden = wilson(0, 150).high
    assert found.value == 0.5
    assert (found.low, found.high) == pytest.approx((0.5 - hidden / 2, 0.5 + hidden / 2))


def test_cluster_rate_is_a_rate_with_that_interval():
    hits, labels = graded_pairs(np.random.default_rng(1), 150, 0.6, 0.5)
    rate, found = cluster_rate(hits, labels, seed=3), cluster_bootstrap(hits, labels, seed=3)
    total = int(hits.sum())
    assert rate == Rate(value=total / 300, low=found.low, high=found.high, hits=total, n=300, level=0.95)
    with pytest.raises(ValueError, match=r"hits must hold only true and false \(or 1 and 0\), got 0.5"):
        cluster_rate([1, 0.5], [1, 2], seed=0)


def test_text_and_dict():
    found = cluster_bootstrap([0.25, 0.5, 0.75, 1.0], "aabb", resamples=100, level=0.9, seed=7)
    assert str(found) == "0.625 [0.375, 0.875], n=4 in 2 clusters (0.9 interval)"
    back = json.loads(json.dumps(found.to_dict()))
    assert back == {
        "value": 0.625, "low": 0.375, "high": 0.875, "n": 4, "clusters": 2, "level": 0.9,
        "method": "cluster bootstrap, percentile", "seed": 7, "resamples": 100, "runs": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "clusters", "text"),
    [
        ([1, 0, 1], ["p", "p", "p"], r"all 3 values are in one cluster \('p'\)"),
        ([1, 0], ["p"], "got 2 values and 1 clusters"),
        ([1, 0], ["p", None], "item 1 has no cluster.*None"),
        ([1, 0], [float("nan"), 1.0], "item 0 has no cluster.*nan"),
        ([], [], "values is empty"),
        ([0.3, 0.3], [1, 2], "the 2 clusters all have mean 0.3: there is no variation"),
        ([0.3, float("inf")], [1, 2], r"values holds inf at \(1,\)"),
    ],
)
def test_what_cluster_bootstrap_refuses(values, clusters, text):
    with pytest.raises(ValueError, match=text):
        cluster_bootstrap(values, clusters, seed=0)


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match="resamples must be 100 or more, got 20"):
        cluster_bootstrap([1, 0], [1, 2], resamples=20, seed=0)


# ── runs crossed with pairs ──────────────────────────────────────────────────────────────────────────


def crossed_by_hand(first, second, *, paired, resamples, seed):
    """Pick rows, pick columns, average what lies where they cross."""
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        columns = rng.integers(0, second.shape[1], second.shape[1])
        rows = rng.integers(0, len(second), len(second))
        draw = second[np.ix_(rows, columns)].mean()
        if first is not None:
            own = rows if paired else rng.integers(0, len(first), len(first))
            draw -= first[np.ix_(own, columns)].mean()
        draws.append(draw)
    return np.quantile(draws, [0.025, 0.975])


def arm(rng, pairs, *, runs=6, shift=0.0, run_sd=0.2, noise=0.5):
    return pairs + shift + rng.normal(0, run_sd, (runs, 1)) + rng.normal(0, noise, (runs, len(pairs)))


def two_arms(seed=0, runs=(6, 5), pairs=40):
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 1, pairs)
    return arm(rng, hard, runs=runs[0]), arm(rng, hard, runs=runs[1], shift=0.4)


def test_one_arm_against_a_plain_loop():
    values = two_arms()[0]
    found = hierarchical_bootstrap(values, resamples=20_000, seed=1)
    by_hand = crossed_by_hand(None, values, paired=False, resamples=8_000, seed=2)
    assert found.value == pytest.approx(values.mean())
    assert limits(found) == pytest.approx(by_hand, abs=0.04 * np.ptp(by_hand))
    assert (found.n, found.clusters, found.runs) == (240, 40, 6)


@pytest.mark.parametrize("runs", ["paired", "independent"])
def test_two_arms_against_a_plain_loop(runs):
    first, second = two_arms(runs=(6, 6))
    found = hierarchical_difference(first, second, runs=runs, resamples=20_000, seed=1)
    by_hand = crossed_by_hand(first, second, paired=runs == "paired", resamples=4_000, seed=2)
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert limits(found) == pytest.approx(by_hand, abs=0.04 * np.ptp(by_hand))
    assert found.method == f"crossed bootstrap over {runs} runs and pairs, percentile"


def test_the_spread_against_its_closed_form():
    """The variance of a crossed resample's mean, from the moments of multinomial counts."""
    values = two_arms(pairs=120)[0]
    runs, pairs = values.shape
    total, cells = values.sum() ** 2, (values**2).sum()
    rows, columns = (values.sum(axis=1) ** 2).sum(), (values.sum(axis=0) ** 2).sum()
    a, b = 1 - 1 / runs, 1 - 1 / pairs
    variance = (cells + b * rows + a * columns + a * b * total) / values.size**2 - values.mean() ** 2
    found = hierarchical_bootstrap(values, level=0.6827, resamples=40_000, seed=0)
    assert (found.high - found.low) / 2 == pytest.approx(np.sqrt(variance), rel=0.03)


def test_more_runs_of_one_model_are_not_more_pairs():
    """Six runs that agree on everything know as much about pairs as one does."""
    graded = (np.random.default_rng(4).random(80) < 0.6).astype(float)
    six = hierarchical_bootstrap(np.tile(graded, (6, 1)), resamples=20_000, seed=0)
    one = cluster_bootstrap(graded, range(80), resamples=20_000, seed=1)
    assert limits(six) == pytest.approx(limits(one), abs=0.02)


def test_runs_that_differ_widen_the_interval():
    rng = np.random.default_rng(5)
    hard = rng.normal(0, 0.1, 100)
    calm, wild = (hierarchical_bootstrap(arm(rng, hard, run_sd=sd, noise=0.1), seed=0) for sd in (0.0, 1.0))
    assert wild.high - wild.low > 4 * (calm.high - calm.low)


def test_paired_runs_cancel_what_a_seed_decides():
    rng = np.random.default_rng(6)
    first = arm(rng, rng.normal(0, 1, 60), run_sd=1.0, noise=0.1)
    second = first + 0.3 + rng.normal(0, 0.05, first.shape)
    paired, free = (hierarchical_difference(first, second, runs=r, seed=0) for r in ("paired", "independent"))
    assert paired.low > 0.25
    assert paired.high < 0.35
    assert free.low < 0 < free.high


@pytest.mark.parametrize("runs", ["paired", "independent"])
def test_coverage_of_a_planted_difference(runs):
    rng = np.random.default_rng(7)
    held = 0
    for seed in range(150):
        hard = rng.normal(0, 1, 50)
        first, second = (
            arm(rng, hard, run_sd=0.1),
            arm(rng, hard + rng.normal(0, 0.3, 50), shift=0.2, run_sd=0.1),
        )
        found = hierarchical_difference(first, second, runs=runs, resamples=300, seed=seed)
        held += found.low <= 0.2 <= found.high
    assert held / 150 >= 0.92


def test_swapping_the_arms_mirrors_the_difference():
    first, second = two_arms(runs=(6, 6))
    there, back = (
        hierarchical_difference(*arms, runs="paired", seed=0) for arms in ((first, second), (second, first))
    )
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_blocks_are_as_good_as_one(monkeypatch):
    values = two_arms()[0]
    whole = hierarchical_bootstrap(values, resamples=10_000, seed=0)
    monkeypatch.setattr(_arrays, "_CELLS", 400)
    assert limits(hierarchical_bootstrap(values, resamples=10_000, seed=0)) == pytest.approx(
        limits(whole), abs=0.03
    )


def test_arms_that_never_vary_get_a_bound():
    zero, one = np.zeros((6, 50)), np.ones((6, 50))
    hidden = wilson(0, 50).high
    failing = hierarchical_bootstrap(zero, seed=0)
    assert (failing.low, failing.high) == pytest.approx((0, hidden))
    level = hierarchical_difference(zero, zero, runs="independent", seed=0)
    assert (level.value, level.low, level.high) == pytest.approx((0, -hidden, hidden))
    gain = hierarchical_difference(zero, one, runs="paired", seed=0)
    assert (gain.value, gain.low, gain.high) == pytest.approx((1, 1 - 2 * hidden, 1))
    assert gain.method == "Wilson bound on unseen pairs"


def test_a_crossed_estimate_names_its_runs():
    found = hierarchical_difference(*two_arms(), runs="independent", seed=0)
    assert str(found).endswith("n=240 in 40 clusters and 5 runs")
    assert json.loads(json.dumps(found.to_dict()))["runs"] == 5


@pytest.mark.parametrize(
    ("first", "second", "runs", "text"),
    [
        (np.eye(3), np.ones((3, 4)), "paired", "the same pairs, got 3 and 4"),
        (np.ones((2, 4)), np.ones((3, 4)), "paired", "as many runs each, got 2 and 3"),
        (np.ones((1, 4)), np.ones((3, 4)), "independent", "first has 1 run,"),
        (np.ones((3, 1)), np.ones((3, 1)), "independent", "first has 1 pair,"),
        (np.ones(4), np.ones((3, 4)), "independent", r"first must have 2 axis/axes, got .* shape \(4,\)"),
        (np.full((2, 2), 0.5), np.full((2, 2), 0.7), "paired", "no resample differs from 0.2: there is no"),
        (np.array([[1, np.nan], [0, 1]]), np.ones((2, 2)), "paired", r"first holds nan at \(0, 1\)"),
    ],
)
def test_what_the_crossed_bootstrap_refuses(first, second, runs, text):
    with pytest.raises(ValueError, match=text):
        hierarchical_difference(first, second, runs=runs, seed=0)
