"""Wilson intervals against scipy, statsmodels, the score test itself and exact coverage; percentiles."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint

from eyechart.core.stats import Rate, percentile_of, wilson

SIZES = [1, 2, 3, 15, 150, 2000]


def hits_of(n: int) -> list[int]:
    return sorted({0, 1, n // 4, n // 2, n - 1, n})


def wilson_by_hand(hits: int, n: int, level: float) -> tuple[float, float]:
    """The rates at which the score statistic is just as large as the normal quantile, found as roots."""
    z, seen = stats.norm.ppf(0.5 + level / 2), hits / n

    def excess(rate: float) -> float:
        return (seen - rate) ** 2 * n - z**2 * rate * (1 - rate)

    low = 0.0 if hits == 0 else optimize.brentq(excess, 1e-12, min(seen, 1 - 1e-12), xtol=1e-15)
    high = 1.0 if hits == n else optimize.brentq(excess, max(seen, 1e-12), 1 - 1e-12, xtol=1e-15)
    return low, high


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_three_others_give_the_same_interval(n, level):
    for hits in hits_of(n):
        rate = wilson(hits, n, level=level)
        ours = (rate.low, rate.high)
        theirs = stats.binomtest(hits, n).proportion_ci(level, method="wilson")
        assert ours == pytest.approx(tuple(theirs), abs=1e-12)
        assert ours == pytest.approx(proportion_confint(hits, n, 1 - level, method="wilson"), abs=1e-12)
        assert ours == pytest.approx(wilson_by_hand(hits, n, level), abs=1e-9)


def test_the_papers_numbers():
    """MMVP: 37 and 42 pairs of 150; one pattern with 5 of 15."""
    for hits, n, low, high in [(37, 150, 18.5, 32.1), (42, 150, 21.4, 35.7), (5, 15, 15.2, 58.3)]:
        rate = wilson(hits, n)
        assert (round(100 * rate.low, 1), round(100 * rate.high, 1)) == (low, high)


def test_the_ends_are_exact_and_never_a_certainty():
    for n in SIZES:
        none, all_of = wilson(0, n), wilson(n, n)
        assert (none.value, none.low) == (0.0, 0.0)
        assert (all_of.value, all_of.high) == (1.0, 1.0)
        z2 = stats.norm.ppf(0.975) ** 2
        assert none.high == pytest.approx(z2 / (n + z2))
        assert all_of.low == pytest.approx(n / (n + z2))


@pytest.mark.parametrize(("n", "lowest"), [(15, 0.82), (150, 0.83)])
def test_exact_coverage_by_enumerating_the_binomial(n, lowest):
    """Wilson's interval covers 95 % on average over rates, and dips only near 0 and 1."""
    rates = np.linspace(0.001, 0.999, 999)
    limits = [wilson(hits, n) for hits in range(n + 1)]
    low, high = (np.array([getattr(one, end) for one in limits])[:, None] for end in ("low", "high"))
    chances = stats.binom.pmf(np.arange(n + 1)[:, None], n, rates)
    coverage = (chances * ((low <= rates) & (rates <= high))).sum(axis=0)
    assert 0.945 < coverage.mean() < 0.96
    assert lowest < coverage.min() < 0.95
    assert coverage[(rates > 0.1) & (rates < 0.9)].min() > 0.91


@given(
    st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.01, 0.999)
)
@settings(max_examples=60, deadline=None)
def test_order_mirror_and_width(counts, level):
    hits, n = counts
    rate, mirror, wider = (
        wilson(hits, n, level=level),
        wilson(n - hits, n, level=level),
        wilson(hits, n, level=0.9999),
    )
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert rate.low == pytest.approx(1 - mirror.high, abs=1e-12)
    assert wider.low <= rate.low
    assert rate.high <= wider.high


def test_text_and_dict_are_plain():
    rate = wilson(np.int64(30), np.int64(150))
    assert str(rate) == "20.0% [14.4%, 27.1%], n=150"
    assert str(wilson(30, 150, level=0.9)) == "20.0% [15.2%, 25.9%], n=150 (0.9 interval)"
    back = json.loads(json.dumps(rate.to_dict()))
    assert list(back) == ["value", "low", "high", "hits", "n", "level"]
    assert Rate(**back) == rate
    assert type(rate.hits) is int


@pytest.mark.parametrize(
    ("hits", "n", "level", "text"),
    [
        (0, 0, 0.95, r"nothing was scored \(n=0\)"),
        (8, 7, 0.95, "more hits than scored: 8 of 7"),
        (-1, 7, 0.95, "hits must be 0 or more, got -1"),
        (1, -7, 0.95, "n must be 0 or more, got -7"),
        (1, 7, 95.0, r"level must lie between 0 and 1, got 95.0; for 95 % say 0.95"),
        (1, 7, math.nan, "got nan"),
    ],
)
def test_what_wilson_refuses(hits, n, level, text):
    with pytest.raises(ValueError, match=text):
        wilson(hits, n, level=level)


def percentile_by_hand(sample, value):
    below, equal = sum(one < value for one in sample), sum(one == value for one in sample)
    return 100 * (below + equal / 2) / len(sample)


@given(
    st.lists(st.integers(-3, 3) | st.floats(-5, 5), min_size=1, max_size=40),
    st.lists(st.integers(-3, 3) | st.floats(-5, 5), min_size=1, max_size=10),
)
@settings(max_examples=60, deadline=None)
def test_percentiles_against_counting_and_scipy(sample, values):
    found = percentile_of(sample, values)
    assert found.tolist() == pytest.approx([percentile_by_hand(sample, value) for value in values])
    assert found.tolist() == pytest.approx(
        [stats.percentileofscore(sample, value, kind="mean") for value in values]
    )


def test_percentiles_in_plain_cases():
    assert percentile_of([1, 2, 3, 4], [0, 2, 2.5, 9]).tolist() == [0, 37.5, 50, 100]
    assert percentile_of([7, 7, 7], np.array([7])).tolist() == [50]
    similarities = np.random.default_rng(0).random(501, dtype=np.float32)
    assert percentile_of(similarities, [float(np.median(similarities))]).tolist() == [50]


@pytest.mark.parametrize(
    ("sample", "values", "text"),
    [
        ([], [1.0], r"sample is empty \(shape \(0,\)\)"),
        ([1.0], [1.0, math.nan], r"values holds nan at \(1,\)"),
        (np.ones((2, 2)), [1.0], r"sample must have 1 axis/axes, got an array of shape \(2, 2\)"),
        (np.array(["a", "b"]), [1.0], "sample must hold numbers, got .*'a'.* of type <U1"),
    ],
)
def test_what_percentiles_refuse(sample, values, text):
    with pytest.raises(ValueError, match=text):
        percentile_of(sample, values)
