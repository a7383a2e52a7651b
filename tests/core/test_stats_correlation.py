"""Correlations against scipy, loops over all orders, written-out formulas and planted truth."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eyechart.core.stats import pearson, spearman

THEIRS = {pearson: stats.pearsonr, spearman: stats.spearmanr}
BOTH = pytest.mark.parametrize("ours", THEIRS)


def points(n, rho, seed=0, tied=False):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n)
    return (x.round(), y.round()) if tied else (x, y)


@BOTH
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n", [5, 9, 40])
def test_values_and_leave_one_out_against_scipy(ours, n, tied):
    x, y = points(n, 0.6, seed=n, tied=tied)
    found = ours(x, y, seed=0, resamples=100)
    assert found.value == pytest.approx(THEIRS[ours](x, y).statistic)
    assert found.n == n
    alone = [THEIRS[ours](np.delete(x, i), np.delete(y, i)).statistic for i in range(n)]
    assert list(found.leave_one_out) == pytest.approx(alone)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_fishers_interval_against_scipy(level):
    x, y = points(9, 0.7)
    found, theirs = pearson(x, y, level=level), stats.pearsonr(x, y).confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_mmvps_correlations_with_their_interval():
    """r = 0.87 over nine patterns: 0.49 to 0.97; an r of 0.31 goes down to -0.45."""
    wanted = {0.87: (0.488, 0.972), 0.7: (0.07, 0.93), 0.31: (-0.446, 0.808)}
    x = np.array([-1.5, -1, -1, -0.5, 0, 0.5, 1, 1, 1.5])
    free = np.array([1.0, -2, 1, 0.5, -1, 0.5, 1, -2, 1])
    free = free - free.mean() - x * (free @ x) / (x @ x)
    for r, limits in wanted.items():
        y = r * x / np.linalg.norm(x) + math.sqrt(1 - r**2) * free / np.linalg.norm(free)
        found = pearson(x, y)
        assert found.value == pytest.approx(r)
        assert (found.low, found.high) == pytest.approx(limits, abs=4e-3)


def test_bonett_and_wrights_interval_written_out():
    x, y = points(20, 0.5)
    found = spearman(x, y, level=0.9, seed=0)
    rho = stats.spearmanr(x, y).statistic
    half = stats.norm.ppf(0.95) * math.sqrt((1 + rho**2 / 2) / (20 - 3))
    assert (found.low, found.high) == pytest.approx(tuple(np.tanh(np.arctanh(rho) + np.array([-half, half]))))


def test_ranks_that_agree_in_full_are_no_certainty():
    for n, low in [(4, -0.69), (5, 0.16), (9, 0.94)]:
        same, against = spearman(range(n), np.arange(n) ** 3), spearman(range(n), -(np.arange(n) ** 3))
        assert (same.value, same.high) == (1.0, 1.0)
        assert same.low == pytest.approx(low, abs=0.005)
        assert (against.low, against.high) == pytest.approx((-1.0, -same.low))


def test_a_straight_line_has_no_width_under_pearson():
    found = pearson([0, 1, 2, 4], [1, 3, 5, 9])
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))
    assert found.p_value == pytest.approx(1 / 24)


@pytest.mark.parametrize(("n", "rho"), [(10, 0.0), (10, 0.95), (25, 0.5)])
def test_coverage_where_the_truth_is_known(n, rho):
    """Bivariate normal points, for which Spearman's rho is 6 / pi asin(r / 2)."""
    truth = {pearson: rho, spearman: 6 / math.pi * math.asin(rho / 2)}
    for ours, value in truth.items():
        found = [ours(*points(n, rho, seed=seed), seed=0, resamples=100) for seed in range(200)]
        assert 0.91 <= np.mean([one.low <= value <= one.high for one in found]) <= 0.99


# ── the permutation test ─────────────────────────────────────────────────────────────────────────────


@BOTH
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n", [4, 6])
def test_p_values_against_a_loop_over_all_orders(ours, n, tied):
    x, y = points(n, 0.5, seed=n + 10, tied=tied)
    seen = abs(THEIRS[ours](x, y).statistic)
    reached = [abs(THEIRS[ours](x, order).statistic) >= seen - 1e-9 for order in itertools.permutations(y)]
    found = ours(x, y)
    assert found.p_value == np.mean(reached)
    assert found.test == f"exact permutation test, {math.factorial(n)} orders"
    assert found.seed is None


@BOTH
def test_p_values_against_scipys_permutation_test(ours):
    x, y = points(6, 0.6, seed=3)
    theirs = stats.permutation_test(
        (y,), lambda own: abs(THEIRS[ours](x, own).statistic), permutation_type="pairings",
        alternative="greater", n_resamples=np.inf,
    )  # fmt: skip
    assert ours(x, y).p_value == pytest.approx(theirs.pvalue)


def test_nine_points_are_gone_through_in_full():
    """Spearman's exact null distribution for n = 9: |rho| >= 0.7 has p = 0.0433 (published tables)."""
    y = np.array([3, 1, 2, 6, 4, 9, 5, 8, 7])
    found = spearman(range(9), y)
    squared = int(((np.arange(9) + 1 - y) ** 2).sum())
    assert found.value == pytest.approx(1 - 6 * squared / 720)
    assert found.test == "exact permutation test, 362880 orders"
    assert spearman(range(9), range(9)).p_value == pytest.approx(2 / 362880)


@BOTH
def test_drawn_orders_agree_with_theory_and_are_never_zero(ours):
    x, y = points(60, 0.3, seed=5)
    found = ours(x, y, seed=1, resamples=20_000)
    assert found.p_value == pytest.approx(THEIRS[ours](x, y).pvalue, abs=0.006)
    assert found.test == "permutation test, 20000 orders drawn"
    assert ours(x, y, seed=1, resamples=20_000) == found
    assert ours(x, y, seed=2, resamples=20_000).p_value != found.p_value
    sure = ours(x, x, seed=0, resamples=999)
    assert sure.p_value == 1 / 1000


def test_drawing_agrees_with_going_through():
    """Ten points are the first to be drawn; all their orders fit in a loop over the last one's place."""
    x, y = points(10, 0.55, seed=8)
    dx, dy = x - x.mean(), y - y.mean()
    orders = np.array(list(itertools.permutations(range(9))))
    reached = 0
    for last in range(10):
        rest = np.delete(dy, last)
        products = rest[orders] @ dx[:9] + dy[last] * dx[9]
        reached += int((np.abs(products) >= abs(dx @ dy) - 1e-9).sum())
    exact = reached / math.factorial(10)
    assert pearson(x, y, seed=0, resamples=40_000).p_value == pytest.approx(exact, abs=0.005)


def test_the_test_keeps_its_size_where_nothing_is_planted():
    p_values = np.array([spearman(*points(6, 0.0, seed=seed)).p_value for seed in range(400)])
    assert 0.01 < np.mean(p_values <= 0.05) <= 0.065
    assert np.mean(p_values <= 0.5) == pytest.approx(0.5, abs=0.07)


# ── the bootstrap ────────────────────────────────────────────────────────────────────────────────────


@BOTH
@pytest.mark.parametrize("tied", [False, True])
def test_bootstrap_limits_against_repeating_the_points(ours, tied):
    """The same draws, put out as lists and handed to scipy one at a time."""
    x, y = points(12, 0.6, seed=2, tied=tied)
    found = ours(x, y, interval="bootstrap", resamples=300, seed=9)
    draws = []
    for times in np.random.default_rng(9).multinomial(12, np.full(12, 1 / 12), size=300):
        own_x, own_y = np.repeat(x, times), np.repeat(y, times)
        if np.ptp(own_x) > 0 and np.ptp(own_y) > 0:
            draws.append(THEIRS[ours](own_x, own_y).statistic)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    assert found.interval == "bootstrap"


def test_resamples_without_a_correlation_are_left_out():
    found = pearson([0, 0, 0, 0, 1], [0, 1, 0, 2, 3], interval="bootstrap", resamples=400, seed=0)
    assert -1 <= found.low <= found.value <= found.high <= 1
    with pytest.raises(ValueError, match="every resample has correlation 1: a bootstrap gives no interval"):
        pearson([0, 1, 2, 3], [0, 2, 4, 6], interval="bootstrap", seed=0)
    lonely = [0.0] * 59 + [1.0]
    with pytest.raises(ValueError, match=r"only \d+ of 400 resamples of 60 points have a correlation"):
        pearson(lonely, [1.0, *lonely[:-1]], interval="bootstrap", resamples=400, seed=0)


# ── what holds for all ───────────────────────────────────────────────────────────────────────────────

numbers = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=4, max_size=7).filter(
    lambda rows: len({x for x, _ in rows}) > 1 and len({y for _, y in rows}) > 1
)


@BOTH
@given(rows=numbers)
@settings(max_examples=40, deadline=None)
def test_symmetry_scale_and_range(ours, rows):
    x, y = (np.array(side, dtype=float) for side in zip(*rows, strict=True))
    found, swapped, turned = ours(x, y), ours(y, x), ours(3 * x + 1, -2 * y)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert 0 < found.p_value <= 1
    assert (swapped.value, swapped.p_value) == pytest.approx((found.value, found.p_value))
    assert (turned.value, turned.low, turned.high) == pytest.approx(
        (-found.value, -found.high, -found.low), abs=1e-9
    )
    assert turned.p_value == pytest.approx(found.p_value)


def test_spearman_sees_only_the_order():
    x, y = points(9, 0.5)
    assert spearman(x, y) == spearman(np.exp(x), y**3)


def test_leaving_out_the_only_other_value_leaves_no_correlation():
    found = pearson([0, 0, 0, 0, 1], [1, 2, 3, 4, 9])
    assert found.leave_one_out[4] is None
    assert all(value is not None for value in found.leave_one_out[:4])
    for value in np.random.default_rng(0).random(40):  # sums of equal numbers seldom divide back exactly
        assert pearson([1.0, *[value] * 5], [1, 2, 3, 4, 9, 7]).leave_one_out[0] is None
        assert pearson([1, 2, 3, 4, 9, 7], [1.0, *[value] * 5]).leave_one_out[0] is None


def test_more_than_100_points_are_not_left_out_one_by_one():
    assert pearson(*points(101, 0.5), seed=0, resamples=100).leave_one_out == ()


def test_text_and_dict():
    found = spearman([1, 2, 3, 4], [1, 3, 2, 4])
    assert str(found) == "rho=0.80 [-0.82, 1.00], n=4, p=0.33"
    back = json.loads(json.dumps(found.to_dict()))
    assert back["kind"] == "spearman"
    assert back["interval"] == "bonett-wright"
    assert back["leave_one_out"] == pytest.approx([0.5, 1, 1, 0.5])
    assert str(pearson([1, 2, 3, 4], [1, 3, 2, 4], level=0.5)).startswith("r=0.80 [")


@BOTH
@pytest.mark.parametrize(
    ("x", "y", "options", "text"),
    [
        ([1, 2, 3], [1, 3, 2], {}, "at least 4 points, got 3"),
        ([1, 2, 3, 4], [1, 3, 2], {}, "the same points, got 4 and 3"),
        ([0.7] * 5, [1, 3, 2, 4, 5], {}, "x is 0.7 at all 5 points"),
        ([1, 3, 2, 4, 5], [0.1 + 0.2, 0.3, 0.3, 0.3, 0.3], {}, "y is 0.3 at all 5 points"),
        ([1, 2, 3, float("nan")], [1, 3, 2, 4], {}, r"x holds nan at \(3,\)"),
        (range(10), range(10), {}, "10 points need draws: give seed="),
        ([1, 2, 3, 4], [1, 3, 2, 4], {"interval": "bootstrap"}, "a bootstrap interval and .* give seed="),
        ([1, 2, 3, 4], [1, 3, 2, 4], {"level": 95.0}, "level must lie between 0 and 1, got 95.0"),
        ([1, 2, 3, 4], [1, 3, 2, 4], {"resamples": 5}, "resamples must be 100 or more, got 5"),
    ],
)
def test_what_is_refused(ours, x, y, options, text):
    with pytest.raises(ValueError, match=text):
        ours(x, y, **options)
