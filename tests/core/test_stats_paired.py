"""Exact McNemar, its interval, Holm and the tests on runs against statsmodels, scipy and enumeration."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from eyechart.core.stats import exact_p, holm, mcnemar_exact, sign_flip_test, sign_test

TABLES = [
    (37, 6, 0, 107),
    (30, 12, 7, 101),
    (0, 0, 0, 5),
    (5, 0, 0, 0),
    (0, 9, 0, 0),
    (0, 3, 8, 2),
    (1, 1, 1, 1),
]
"""Both right, fixes, regressions, both wrong."""


def answers(both, fixes, regressions, neither):
    first = [1] * both + [0] * fixes + [1] * regressions + [0] * neither
    second = [1] * both + [1] * fixes + [0] * regressions + [0] * neither
    return np.array(first, dtype=bool), np.array(second, dtype=bool)


# ── McNemar ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("table", TABLES)
def test_the_p_value_against_two_others(table):
    both, fixes, regressions, neither = table
    found = mcnemar_exact(*answers(*table))
    theirs = mcnemar([[both, regressions], [fixes, neither]], exact=True).pvalue
    if fixes + regressions == 0:
        assert found.p_value == 1.0
    else:
        assert found.p_value == pytest.approx(theirs, rel=1e-10)
        assert found.p_value == pytest.approx(stats.binomtest(fixes, fixes + regressions).pvalue, rel=1e-10)
    assert (found.fixes, found.regressions, found.n) == (fixes, regressions, sum(table))
    assert found.difference == pytest.approx((fixes - regressions) / sum(table))


def test_published_tables():
    """The examples of Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017).

    Complete response before and after therapy (Cavo et al. 2012), as computed by the authors' own R package.
    """
    cavo = mcnemar_exact(*answers(59, 16, 6, 80))
    assert cavo.p_value == pytest.approx(0.052479, abs=5e-7)
    assert (cavo.difference, cavo.low, cavo.high) == pytest.approx((0.0621, 0.0046, 0.1186), abs=5e-5)
    two = mcnemar_exact(*answers(1, 0, 0, 1))
    assert (two.difference, two.low, two.high) == pytest.approx((0, -0.5734, 0.5734), abs=5e-5)


def newcombe_by_hand(both, fixes, regressions, neither):
    """Method 10 written out from the paper: scipy's Wilson limits and a corrected phi coefficient."""
    n = both + fixes + regressions + neither
    old, new = (both + regressions) / n, (both + fixes) / n
    old_low, old_high = stats.binomtest(both + regressions, n).proportion_ci(0.95, method="wilson")
    new_low, new_high = stats.binomtest(both + fixes, n).proportion_ci(0.95, method="wilson")
    phi, product = 0.0, both * neither - fixes * regressions
    if 0 < old < 1 and 0 < new < 1:
        corrected = product - n / 2 if product > n / 2 else (0 if product >= 0 else product)
        phi = corrected / (n**2 * math.sqrt(old * (1 - old) * new * (1 - new)))
    below = (new - new_low) ** 2 - 2 * phi * (new - new_low) * (old_high - old) + (old_high - old) ** 2
    above = (new_high - new) ** 2 - 2 * phi * (new_high - new) * (old - old_low) + (old - old_low) ** 2
    return new - old - math.sqrt(below), new - old + math.sqrt(above)


tables = st.tuples(*[st.integers(0, 30)] * 4).filter(any)


@given(tables)
@settings(max_examples=80, deadline=None)
def test_the_interval_written_out_and_its_symmetries(table):
    found, swapped = mcnemar_exact(*answers(*table)), mcnemar_exact(*answers(*table)[::-1])
    assert (found.low, found.high) == pytest.approx(newcombe_by_hand(*table), abs=1e-9)
    assert -1 <= found.low <= found.difference <= found.high <= 1
    assert found.low < found.high
    assert (swapped.difference, swapped.p_value) == (-found.difference, found.p_value)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), abs=1e-12)
    assert 0 < found.p_value <= 1


def test_coverage_of_the_interval_and_size_of_the_test_by_enumeration():
    """All 455 tables of 12 pairs, weighted by multinomial chances, for 40 planted pairs of models."""
    n = 12
    every = np.array([t for t in itertools.product(range(n + 1), repeat=3) if sum(t) <= n])
    every = np.column_stack([every, n - every.sum(axis=1)])
    found = [mcnemar_exact(*answers(*table)) for table in every.tolist()]
    low, high, p = (np.array([getattr(one, name) for one in found]) for name in ("low", "high", "p_value"))
    rng = np.random.default_rng(0)
    covered = []
    for shares in rng.dirichlet([2, 1, 1, 2], size=40):
        chances = stats.multinomial.pmf(every, n, shares)
        difference = shares[1] - shares[2]
        covered.append(chances @ ((low <= difference) & (difference <= high)))
        even = np.array([shares[0], (shares[1] + shares[2]) / 2, (shares[1] + shares[2]) / 2, shares[3]])
        assert stats.multinomial.pmf(every, n, even) @ (p <= 0.05) <= 0.05
    assert min(covered) > 0.91
    assert 0.945 < np.mean(covered) < 0.98


def test_what_the_record_says():
    found = mcnemar_exact(*answers(37, 6, 0, 107))
    assert str(found) == "+4.0 points [+0.5, +7.6], 6 fixes, 0 regressions, n=150, p=0.031"
    back = json.loads(json.dumps(found.to_dict()))
    assert list(back) == ["n", "fixes", "regressions", "difference", "low", "high", "level", "p_value"]
    assert str(mcnemar_exact(*answers(37, 6, 0, 107), level=0.8)).endswith("p=0.031 (0.8 interval)")


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ([1, 0], [1], "the same units, got 2 and 1"),
        ([], [], "first is empty"),
        ([1, 2], [1, 0], r"first must hold only true and false \(or 1 and 0\), got 2"),
        ([1, 0], [1, float("nan")], r"second holds nan at \(1,\)"),
    ],
)
def test_what_mcnemar_refuses(first, second, text):
    with pytest.raises(ValueError, match=text):
        mcnemar_exact(first, second)


def test_counts_below_zero_are_refused():
    assert exact_p(0, 0) == 1.0
    with pytest.raises(ValueError, match="regressions must be 0 or more, got -2"):
        exact_p(3, -2)


# ── Holm ─────────────────────────────────────────────────────────────────────────────────────────────


def holm_by_hand(p_values):
    """Step down from the smallest: what the procedure would need as its error rate to reject each."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, needed = [0.0] * len(p_values), 0.0
    for step, place in enumerate(order):
        needed = max(needed, (len(p_values) - step) * p_values[place])
        adjusted[place] = min(1.0, needed)
    return adjusted


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.05, 1.0]), min_size=1, max_size=12))
@settings(max_examples=80, deadline=None)
def test_holm_against_stepping_down(p_values):
    found = holm(p_values)
    assert list(found) == pytest.approx(holm_by_hand(p_values))
    assert all(p <= q <= 1 for p, q in zip(p_values, found, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_holm_against_statsmodels(seed):
    p_values = np.random.default_rng(seed).random(9) ** 3
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_keeps_the_order_given():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx((0.06, 0.03, 0.06))


@pytest.mark.parametrize(
    ("p_values", "text"),
    [
        ([0.1, float("nan")], r"p_values holds nan at \(1,\)"),
        ([0.1, 1.2], "between 0 and 1, got 1.2"),
        ([-0.1], "between 0 and 1, got -0.1"),
        ([], "p_values is empty"),
    ],
)
def test_what_holm_refuses(p_values, text):
    with pytest.raises(ValueError, match=text):
        holm(p_values)


# ── differences of runs ──────────────────────────────────────────────────────────────────────────────


def test_six_runs_can_show_something_and_five_cannot():
    assert sign_test([0.1, 0.2, 0.1, 0.4, 0.3, 0.2]).p_value == 1 / 32
    assert sign_flip_test([0.1, 0.2, 0.1, 0.4, 0.3, 0.2]).p_value == 1 / 32
    assert sign_test([0.1, 0.2, 0.1, 0.4, 0.3]).p_value == 1 / 16
    assert sign_flip_test([0.1, 0.2, 0.1, 0.4, 0.3]).p_value == 1 / 16


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=9))
@settings(max_examples=50, deadline=None)
def test_sign_flips_against_going_through_them(differences):
    seen = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    tenths = [d / 10 for d in differences]
    assert sign_flip_test(tenths).p_value == np.mean([s >= seen for s in sums])
    up, down = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    assert sign_test(tenths).p_value == pytest.approx(
        stats.binomtest(up, up + down).pvalue if up + down else 1.0
    )


def test_sign_flips_against_scipy():
    differences = np.random.default_rng(0).normal(0.5, 1, 9)
    theirs = stats.permutation_test(
        (differences,),
        lambda d: abs(d.mean()),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
    )
    assert sign_flip_test(differences).p_value == pytest.approx(theirs.pvalue)


def test_many_runs_are_drawn_and_agree_with_all_patterns():
    differences = np.random.default_rng(1).integers(-6, 10, 24)
    ways = np.ones(1)  # how many sign patterns give each sum, from the lowest to the highest
    for size in np.abs(differences):
        ways = np.convolve(ways, [1, *[0] * (2 * size - 1), 1] if size else [2])
    sums = np.arange(len(ways)) - len(ways) // 2
    exact = ways[np.abs(sums) >= abs(differences.sum())].sum() / 2**24
    drawn = sign_flip_test(differences / 10, resamples=40_000, seed=0)
    assert 0.01 < exact < 0.5
    assert drawn.p_value == pytest.approx(exact, abs=0.005)
    assert (drawn.seed, drawn.method) == (0, "sign-flip test, 40000 patterns")
    sure = sign_flip_test(np.ones(30), resamples=1000, seed=0)
    assert sure.p_value == pytest.approx(1 / 1001)
    with pytest.raises(ValueError, match="24 runs have too many sign patterns"):
        sign_flip_test(differences)


def test_under_no_difference_the_test_keeps_its_size():
    rng = np.random.default_rng(2)
    p_values = np.array([sign_flip_test(rng.normal(0, 1, 7)).p_value for _ in range(600)])
    assert 0.02 < np.mean(p_values <= 0.05) < 0.07


def test_a_runs_test_in_words():
    found = sign_test([0.1, 0.2, -0.1, 0.0])
    assert str(found) == "+0.05, n=4 runs, p=1 (exact sign test)"
    assert json.loads(json.dumps(found.to_dict())) == {
        "value": pytest.approx(0.05), "p_value": 1.0, "n": 4, "method": "exact sign test", "seed": None,
    }  # fmt: skip
    with pytest.raises(ValueError, match="differences is empty"):
        sign_flip_test([])
