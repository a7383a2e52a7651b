"""Correlations of several models put together: against plain numpy, and with planted truths."""

import json
from itertools import permutations

import numpy as np
import pytest

from eyechart.core.errors import UserError
from eyechart.score.correlate import correlate
from eyechart.score.pooled import pool

pytestmark = pytest.mark.slow

N = 1000


def models(x, y):
    """A correlation for each row of shares."""
    found = []
    for number, (a, b) in enumerate(zip(x, y, strict=True)):
        counts = [{f"p{k}": (round(N * share), N) for k, share in enumerate(row)} for row in (a, b)]
        found.append(correlate(*counts, names=(f"clip{number}", f"vlm{number}"), resamples=100))
    return found


def drawn(seed, patterns=6, count=3):
    return np.round(np.random.default_rng(seed).uniform(0.05, 0.95, size=(2, count, patterns)), 3)


def test_values_are_numpys_and_the_p_value_is_that_of_all_orders():
    x, y = drawn(0, patterns=5)
    pooled = pool(models(x, y), resamples=200)
    assert pooled.together.value == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1])
    inner = [rows - rows.mean(axis=1, keepdims=True) for rows in (x, y)]
    assert pooled.within.value == pytest.approx(np.corrcoef(inner[0].ravel(), inner[1].ravel())[0, 1])
    for one, (a, b) in ((pooled.together, (x, y)), (pooled.within, inner)):
        every = [np.corrcoef(a.ravel(), b[:, list(order)].ravel())[0, 1] for order in permutations(range(5))]
        assert one.p_value == pytest.approx(np.mean(np.abs(every) >= abs(one.value) - 1e-9))
    assert (pooled.points, pooled.models) == (15, ("vlm0", "vlm1", "vlm2"))
    assert json.loads(json.dumps(pooled.to_dict())) == pooled.to_dict()


def test_intervals_are_of_patterns_drawn_again_with_all_their_points():
    x, y = drawn(6, patterns=6, count=2)
    x[1], y[1] = (
        1 - x[0],
        1 - y[0],
    )  # means of drawn patterns part the two models, which is no correlation within them
    pooled = pool(models(x, y), resamples=500)
    draws = {"together": [], "within": []}
    for columns in np.random.default_rng(0).integers(6, size=(500, 6)):
        a, b = x[:, columns], y[:, columns]
        draws["together"].append(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        left = [each - each.mean(axis=1, keepdims=True) for each in (a, b)]
        draws["within"].append(np.corrcoef(left[0].ravel(), left[1].ravel())[0, 1])
    for name, values in draws.items():
        one = getattr(pooled, name)
        assert (one.low, one.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_without_each_model_in_turn():
    x, y = drawn(1)
    pooled = pool(models(x, y), resamples=200)
    for place, (name, value) in enumerate(pooled.together.without):
        rest = [k for k in range(3) if k != place]
        assert name == f"vlm{place}"
        assert value == pytest.approx(np.corrcoef(x[rest].ravel(), y[rest].ravel())[0, 1])


def test_better_models_with_better_encoders_are_no_correlation_within_models():
    noise = drawn(2, patterns=8) * 0.1
    level = np.array([[0.1], [0.4], [0.8]])
    pooled = pool(models(noise[0] + level, noise[1] + level), resamples=500)
    assert pooled.together.value > 0.9
    assert pooled.within.low < 0 < pooled.within.high
    assert pooled.within.p_value > 0.05


def test_patterns_that_all_models_share_are_one_draw_each():
    """The same points three times are no more than once: the interval must not shrink."""
    x, y = drawn(3, patterns=8, count=1)
    three = pool(models(np.repeat(x, 3, axis=0), np.repeat(y, 3, axis=0)), resamples=2000)
    two = pool(models(np.repeat(x, 2, axis=0), np.repeat(y, 2, axis=0)), resamples=2000)
    assert three.within.low == pytest.approx(two.within.low)
    assert three.within.p_value == two.within.p_value


def test_more_than_nine_patterns_have_orders_drawn():
    x, y = drawn(4, patterns=12, count=2)
    pooled = pool(models(x, y), resamples=300)
    assert pooled.test == "drawn 300 orders of patterns, one for all models"
    assert 1 / 301 <= pooled.within.p_value <= 1


def test_too_little_to_pool_is_refused():
    x, y = drawn(5)
    found = models(x, y)
    with pytest.raises(UserError, match="1 correlations are nothing to pool"):
        pool(found[:1])
    other = correlate(*[{f"q{k}": (k, 10) for k in range(5)}] * 2)
    with pytest.raises(UserError, match="the 2 correlations have 0 patterns in common, 4 are needed"):
        pool([found[0], other])
