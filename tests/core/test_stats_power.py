"""What a benchmark can show, against enumeration, simulation and published cases."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eyechart.core.stats import (
    exact_p,
    fewest_hits_above_chance,
    mcnemar_power,
    minimal_detectable_difference,
    smallest_significant_gain,
)


def test_mmvps_150_pairs():
    """Six fixes and no regression are the smallest significant gain; beside ten regressions 23 fixes are."""
    clean, mixed = smallest_significant_gain(150), smallest_significant_gain(150, regressions=10)
    assert (clean.fixes, clean.difference, clean.p_value) == (6, pytest.approx(0.04), 1 / 32)
    assert (mixed.fixes, mixed.difference) == (23, pytest.approx(13 / 150))
    assert exact_p(5, 0) > 0.05
    assert exact_p(22, 10) > 0.05
    assert str(mixed) == "23 fixes against 10 regressions, +8.7 points, n=150, p=0.035"
    assert json.loads(json.dumps(clean.to_dict()))["fixes"] == 6


@given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    st.sampled_from([0.01, 0.05, 0.2]),
)
@settings(max_examples=60, deadline=None)
def test_the_smallest_gain_against_trying_all(sizes, alpha):
    n, regressions = sizes
    enough = [
        fixes
        for fixes in range(regressions + 1, n - regressions + 1)
        if stats.binomtest(fixes, fixes + regressions).pvalue <= alpha
    ]
    found = smallest_significant_gain(n, regressions=regressions, alpha=alpha)
    assert (found and found.fixes) == (min(enough) if enough else None)


def power_by_hand(n, discordant, difference, alpha):
    """All tables of n pairs with their trinomial chance, tested one by one."""
    fix, regress = (discordant + difference) / 2, (discordant - difference) / 2
    total = 0.0
    for fixes, regressions in itertools.product(range(n + 1), repeat=2):
        if fixes + regressions <= n and stats.binomtest(fixes, max(1, fixes + regressions)).pvalue <= alpha:
            table = [fixes, regressions, n - fixes - regressions]
            total += stats.multinomial.pmf(table, n, [fix, regress, 1 - discordant]) * (
                fixes + regressions > 0
            )
    return total


@pytest.mark.parametrize(
    ("n", "discordant", "difference", "alpha"),
    [(12, 0.5, 0.3, 0.05), (20, 0.3, -0.3, 0.05), (15, 0.9, 0.0, 0.2), (5, 0.5, 0.5, 0.05)],
)
def test_power_against_enumeration(n, discordant, difference, alpha):
    found = mcnemar_power(n, discordant=discordant, difference=difference, alpha=alpha)
    assert found == pytest.approx(power_by_hand(n, discordant, difference, alpha), abs=1e-10)


def test_power_against_simulated_exams():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(150, [0.15, 0.05, 0.8], size=4000)
    p_values = {pair: exact_p(*pair) for pair in set(map(tuple, counts[:, :2].tolist()))}
    found = np.mean([p_values[pair] <= 0.05 for pair in map(tuple, counts[:, :2].tolist())])
    assert mcnemar_power(150, discordant=0.2, difference=0.1) == pytest.approx(found, abs=0.02)


@pytest.mark.parametrize(("n", "discordant"), [(30, 0.6), (150, 0.1), (150, 0.3), (2000, 0.2)])
def test_the_detectable_difference_is_where_the_power_is_reached(n, discordant):
    found = minimal_detectable_difference(n, discordant=discordant)
    assert mcnemar_power(n, discordant=discordant, difference=found.difference) == pytest.approx(
        0.8, abs=1e-6
    )
    assert mcnemar_power(n, discordant=discordant, difference=found.difference - 0.001) < 0.8
    assert mcnemar_power(n, discordant=discordant, difference=-found.difference) == pytest.approx(
        0.8, abs=1e-6
    )


def test_the_detectable_difference_beside_miettinens_approximation():
    """His normal formula, solved for the difference, comes close for many pairs (the exact test asks for more)."""
    n, discordant = 2000, 0.2
    z_a, z_b = stats.norm.ppf(0.975), stats.norm.ppf(0.8)
    grid = np.linspace(0.001, 0.1, 10_000)
    needed = (z_a * np.sqrt(discordant) + z_b * np.sqrt(discordant - grid**2)) ** 2 / grid**2
    approximate = grid[np.argmax(needed <= n)]
    exact = minimal_detectable_difference(n, discordant=discordant).difference
    assert approximate < exact < 1.05 * approximate


def test_a_pattern_of_15_pairs_shows_little():
    assert minimal_detectable_difference(15, discordant=0.3) is None
    found = minimal_detectable_difference(15, discordant=0.8)
    assert power_by_hand(15, 0.8, found.difference, 0.05) == pytest.approx(0.8, abs=1e-6)
    assert found.difference > 0.6
    assert minimal_detectable_difference(15, discordant=0.9, power=0.01).difference == 0.0


def test_a_detectable_difference_in_words():
    found = minimal_detectable_difference(150, discordant=0.2)
    assert str(found) == "10.6 points, n=150, 20.0% of pairs discordant, power 0.8 at alpha 0.05"
    assert list(json.loads(json.dumps(found.to_dict()))) == [
        "difference",
        "n",
        "discordant",
        "power",
        "alpha",
    ]


@given(st.integers(1, 200), st.sampled_from([0.0625, 0.25, 0.5]), st.sampled_from([0.01, 0.025, 0.1]))
@settings(max_examples=60, deadline=None)
def test_hits_above_chance_against_scipy(n, chance, alpha):
    def beats(hits):
        return stats.binomtest(hits, n, chance, alternative="greater").pvalue <= alpha

    found = fewest_hits_above_chance(n, chance=chance, alpha=alpha)
    if found is None:
        assert not beats(n)
    else:
        assert beats(found)
        assert not beats(found - 1)


def test_hits_above_chance_on_known_sizes():
    assert fewest_hits_above_chance(150, chance=0.25) == 49
    assert fewest_hits_above_chance(15, chance=0.25) == 8
    assert fewest_hits_above_chance(2, chance=0.25) is None


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: smallest_significant_gain(0), "n must be 1 or more, got 0"),
        (lambda: smallest_significant_gain(5, regressions=6), "more regressions than pairs: 6 of 5"),
        (lambda: smallest_significant_gain(5, regressions=-1), "regressions must be 0 or more, got -1"),
        (lambda: smallest_significant_gain(5, alpha=5.0), "alpha must lie between 0 and 1, got 5.0"),
        (
            lambda: minimal_detectable_difference(9, discordant=1.5),
            "discordant must lie between 0 and 1, got 1.5",
        ),
        (lambda: minimal_detectable_difference(9, discordant=0.5, power=1.0), "power must .* got 1.0"),
        (lambda: mcnemar_power(9, discordant=0.2, difference=-0.3), "a difference of -0.3 needs .* got 0.2"),
        (lambda: fewest_hits_above_chance(0, chance=0.5), "n must be 1 or more, got 0"),
        (lambda: fewest_hits_above_chance(9, chance=0.0), "chance must lie between 0 and 1, got 0.0"),
    ],
)
def test_what_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
