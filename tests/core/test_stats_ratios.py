"""Ratios of cluster means against a plain bootstrap, closed forms, and what must be undefined."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.stats import cluster_bootstrap, cluster_mean, cluster_ratios, wilson


def made(seed: int, *, images: int = 20, ratio: float = 0.6, noise: float = 0.3):
    """Items in clusters of different sizes, with numerators `ratio` times the denominators on average."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(images), rng.integers(1, 4, images))
    below = 1 + noise * (rng.normal(size=images)[groups] + rng.normal(size=len(groups)))
    above = ratio * below + noise * rng.normal(size=len(groups))
    return above, below, groups.tolist()


def one(above, below, groups, **options):
    return cluster_ratios(np.asarray(above)[:, None], np.asarray(below)[:, None], groups, seed=0, **options)[
        0
    ]


def by_hand(above, below, groups, *, resamples: int = 4000) -> tuple[float, float]:
    """Draw labels, gather their items, divide sums: no multinomial counts, no matrices."""
    rng, labels = np.random.default_rng(99), sorted(set(groups))
    members = {label: [k for k, g in enumerate(groups) if g == label] for label in labels}
    ratios = []
    for _ in range(resamples):
        drawn = [k for label in rng.choice(labels, len(labels)) for k in members[label]]
        ratios.append(sum(above[k] for k in drawn) / sum(below[k] for k in drawn))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def test_a_ratio_is_that_of_a_plain_bootstrap() -> None:
    above, below, groups = made(1)
    found = one(above, below, groups, resamples=4000)
    assert found.value == pytest.approx(sum(above) / sum(below))
    low, high = by_hand(above, below, groups)
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)
    assert (found.n, found.clusters) == (len(groups), 20)
    assert str(found).startswith(f"{found.value:.3g} [")


def test_both_means_come_with_their_own_intervals() -> None:
    above, below, groups = made(2)
    found = one(above, below, groups)
    assert found.numerator == cluster_bootstrap(above, groups, seed=0)
    assert found.denominator == cluster_bootstrap(below, groups, seed=0)


def test_columns_share_their_draws_and_do_not_touch_each_other() -> None:
    above, below, groups = made(3)
    many = cluster_ratios(np.stack([above, below, 2 * above], 1), np.stack([below] * 3, 1), groups, seed=0)
    assert many[0] == one(above, below, groups)
    assert many[2].low == pytest.approx(2 * many[0].low)
    assert many[2].high == pytest.approx(2 * many[0].high)


def test_without_noise_the_ratio_is_exact_and_has_no_interval() -> None:
    _, below, groups = made(4)
    found = one(0.25 * below, below, groups)
    assert found.value == pytest.approx(0.25, rel=1e-12)
    assert (found.low, found.high, found.undefined) == (None, None, "")
    assert "no resample differs" in str(found)


def test_a_denominator_that_touches_0_has_no_ratio() -> None:
    above, below, groups = made(5)
    centred = below - below.mean()
    found = one(above, centred, groups)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert "the denominator's interval touches 0" in found.undefined
    assert str(found).startswith("undefined (the denominator")
    assert "lies below 0" in one(above, -below, groups).undefined


def test_a_denominator_of_one_value_is_trusted_with_many_clusters_only() -> None:
    above = np.linspace(0.2, 0.8, 40)
    assert one(above, np.ones(40), list(range(40))).value == pytest.approx(0.5)
    few = one(above[:3], np.ones(3), [1, 2, 3])
    assert few.value is None
    hidden = wilson(0, 3).high
    assert few.denominator.low == pytest.approx(1 - 2 * hidden)


def test_resamples_without_a_positive_denominator_make_a_ratio_undefined_where_they_decide_a_limit() -> None:
    """One cluster carries nearly all of a positive denominator; the others pull it down a little."""
    below = np.array([1.0, *([-0.002] * 7)])
    found = one(np.ones(8), below, list(range(8)))
    assert found.value is None  # the cluster that carries it is left out of a third of the resamples
    assert found.undefined


def test_limits_of_a_reciprocal_are_those_of_its_denominator() -> None:
    """1 / x falls as x grows, also where one resample in a hundred has a mean below 0: that one counts as infinite."""
    rng = np.random.default_rng(3)
    below = rng.normal(size=40)
    below += 2.25 * below.std(ddof=1) / 40**0.5 - below.mean()
    found = one(np.ones(40), below, list(range(40)), resamples=40_000)
    drawn = np.quantile(below[rng.integers(40, size=(40_000, 40))].mean(axis=1), [0.025, 0.975])
    assert found.denominator.low > 0
    assert found.low == pytest.approx(1 / drawn[1], rel=0.02)
    assert found.high == pytest.approx(1 / drawn[0], rel=0.15)


def test_a_mean_that_does_not_vary_has_a_bound() -> None:
    groups = list(range(30))
    hidden = wilson(0, 30).high
    still = cluster_mean(np.full(30, -2.0), groups, seed=0)
    assert (still.value, still.low) == (-2.0, -2.0)
    assert still.high == pytest.approx(-2 + 4 * hidden)
    far = cluster_mean(np.zeros(30), groups, reach=3.0, seed=0)
    assert (far.low, far.high) == (pytest.approx(-3 * hidden), pytest.approx(3 * hidden))
    assert cluster_mean(np.ones(30), groups, seed=0) == cluster_bootstrap(np.ones(30), groups, seed=0)
    values, _, labels = made(6)
    assert cluster_mean(values, labels, reach=9.0, seed=0) == cluster_bootstrap(values, labels, seed=0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="need denominators of that shape"):
        cluster_ratios(np.ones((2, 1)), np.ones((2, 2)), [1, 2], seed=0)
    with pytest.raises(ValueError, match="in one cluster"):
        cluster_ratios(np.ones((2, 1)), np.ones((2, 1)), [1, 1], seed=0)
    with pytest.raises(ValueError, match="2 values and 3 clusters"):
        cluster_ratios(np.ones((2, 1)), np.ones((2, 1)), [1, 2, 3], seed=0)
    with pytest.raises(ValueError, match="label is missing"):
        cluster_ratios(np.ones((2, 1)), np.ones((2, 1)), [1, math.nan], seed=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 20), st.floats(0.1, 20))
def test_a_ratio_knows_no_units(seed: int, first: float, second: float) -> None:
    above, below, groups = made(seed)
    plain = one(above, below, groups, resamples=200)
    scaled = one(first * above, second * below, groups, resamples=200)
    assert (plain.value is None) == (scaled.value is None)
    if plain.value is not None:
        assert scaled.value == pytest.approx(plain.value * first / second)
        assert scaled.low == pytest.approx(plain.low * first / second)
        assert scaled.low <= scaled.value <= scaled.high


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = 0
    for seed in range(300):
        found = one(*made(seed, images=50, noise=0.5), resamples=500)
        held += found.low <= 0.6 <= found.high
    assert 0.90 <= held / 300 <= 0.985
