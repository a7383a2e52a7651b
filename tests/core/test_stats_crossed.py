"""Means and ratios over runs crossed with clusters, beside a slow reference, a planted truth and their edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyechart.core.stats import cluster_ratios, crossed_mean, crossed_ratio, hierarchical_bootstrap, wilson


def cells(runs=6, clusters=40, seed=0, mean=1.0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, clusters)
    effects = rng.normal(0, 0.3, runs)[:, None] + rng.normal(0, 0.8, clusters)[None]
    return (mean + effects) * sizes + rng.normal(0, 0.2, (runs, clusters)), sizes


def slow_draws(above, below, resamples, seed):
    """Runs and clusters drawn one by one, sums by loops."""
    rng, draws = np.random.default_rng(seed), []
    runs, clusters = above.shape
    for _ in range(resamples):
        rows, columns = rng.integers(runs, size=runs), rng.integers(clusters, size=clusters)
        top = sum(above[row, column] for row in rows for column in columns)
        draws.append(top / sum(below[row, column] for row in rows for column in columns))
    return np.array(draws)


def test_intervals_are_those_of_a_slow_reference():
    sums, sizes = cells()
    drawn = slow_draws(sums, np.broadcast_to(sizes, sums.shape), 1500, 1)
    found = crossed_mean(sums, sizes, resamples=20_000, seed=0)
    assert found.value == pytest.approx(sums.sum() / (6 * sizes.sum()))
    spread = found.high - found.low
    assert [found.low, found.high] == pytest.approx(
        list(np.quantile(drawn, [0.025, 0.975])), abs=0.1 * spread
    )
    others, _ = cells(seed=3, mean=3.0)
    ratio = crossed_ratio(sums, others, sizes, resamples=20_000, seed=0)
    assert ratio.value == pytest.approx(sums.sum() / others.sum())
    drawn = slow_draws(sums, others, 1500, 2)
    spread = ratio.high - ratio.low
    assert [ratio.low, ratio.high] == pytest.approx(
        list(np.quantile(drawn, [0.025, 0.975])), abs=0.1 * spread
    )


def test_clusters_of_one_item_give_the_hierarchical_bootstrap():
    sums, _ = cells()
    ones = np.ones(sums.shape[1], int)
    ours, known = (
        crossed_mean(sums, ones, resamples=20_000, seed=0),
        hierarchical_bootstrap(sums, resamples=20_000, seed=0),
    )
    assert (ours.value, ours.n, ours.clusters, ours.runs) == (
        pytest.approx(known.value), known.n, known.clusters, known.runs,
    )  # fmt: skip
    assert [ours.low, ours.high] == pytest.approx([known.low, known.high], abs=0.03)


def test_runs_that_agree_give_the_interval_of_clusters_alone():
    sums, sizes = cells(runs=1)
    others, _ = cells(runs=1, seed=5, mean=2.0)
    same, alike = np.repeat(sums, 4, axis=0), np.repeat(others, 4, axis=0)
    ratio = crossed_ratio(same, alike, sizes, resamples=20_000, seed=0)
    one_each = list(range(len(sizes)))
    alone = cluster_ratios(sums.T, others.T, one_each, resamples=20_000, seed=0)[0]
    assert ratio.value == pytest.approx(alone.value)
    assert [ratio.low, ratio.high] == pytest.approx([alone.low, alone.high], abs=0.02)


@pytest.mark.slow
def test_the_planted_truth_lies_within_as_often_as_the_interval_says():
    truth, held = 0.6, 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        sizes = rng.integers(1, 4, 100)
        bottom = (2 + rng.normal(0, 0.15, 6)[:, None] + rng.normal(0, 0.5, 100)[None]) * sizes
        noise = (rng.normal(0, 0.15, 6)[:, None] + rng.normal(0, 0.5, 100)[None]) * sizes
        found = crossed_ratio(truth * bottom + noise, bottom, sizes, resamples=400, seed=trial)
        held += found.low <= truth <= found.high
    assert 170 <= held <= 199, f"{held} of 200 intervals at 95 % held the truth"


def test_a_ratio_is_undefined_where_its_denominator_may_be_nothing():
    sums, sizes = cells()
    nothing, _ = cells(seed=9, mean=0.0)
    found = crossed_ratio(sums, nothing, sizes, seed=0)
    assert (found.value, found.low) == (None, None)
    assert "not above 0" in found.undefined


@given(st.floats(0.1, 50), st.integers(0, 20))
def test_scale_changes_means_and_no_ratio(scale, seed):
    sums, sizes = cells(seed=seed)
    others, _ = cells(seed=seed + 100, mean=5.0)
    once = crossed_ratio(sums, others, sizes, resamples=100, seed=0)
    scaled = crossed_ratio(scale * sums, scale * others, sizes, resamples=100, seed=0)
    assert scaled.value == pytest.approx(once.value)
    assert scaled.low == pytest.approx(once.low)
    assert scaled.numerator.low == pytest.approx(scale * once.numerator.low)


def test_what_says_nothing_of_runs_or_clusters_is_refused():
    sums, sizes = cells()
    with pytest.raises(ValueError, match="two of each"):
        crossed_mean(sums[:1], sizes, seed=0)
    with pytest.raises(ValueError, match="a size of at least 1"):
        crossed_mean(sums, sizes - sizes.min(), seed=0)
    with pytest.raises(ValueError, match="need denominators of it"):
        crossed_ratio(sums, sums[:, 1:], sizes, seed=0)


def test_where_nothing_varies_the_interval_is_a_bound_and_not_a_point():
    found = crossed_mean(np.ones((3, 40)), [1] * 40, seed=0)
    hidden = wilson(0, 40).high
    assert (found.low, found.high) == (pytest.approx(1 - 2 * hidden), 1.0)
    nothing = crossed_mean(np.zeros((3, 40)), [1] * 40, seed=0)
    assert (nothing.low, nothing.value, nothing.high) == (0, 0, 0)
