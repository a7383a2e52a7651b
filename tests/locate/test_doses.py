"""Doses nest and grow; the curve is what was planted, also where it does not fall."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyechart.core.errors import NoEdges, UserError
from eyechart.locate.doses import SHARES, dose_curve, edge_doses, layer_doses


def test_layer_doses_grow_from_the_end_named() -> None:
    usable = tuple(range(8))
    assert [dose.layers for dose in layer_doses(usable, (0.25, 0.5, 1.0))] == [
        (6, 7),
        (4, 5, 6, 7),
        usable,
    ]
    assert [d.layers for d in layer_doses(usable, (0.25, 0.5), order="first first")] == [(0, 1), (0, 1, 2, 3)]
    assert layer_doses(usable, (0.25,))[0].name == "2 of 8 layers, from the last usable layer backwards"


def test_layers_left_out_are_in_no_dose() -> None:
    """Blocks without self-attention leave gaps, and dead ones are not among the usable."""
    doses = layer_doses((0, 2, 4), (0.5, 1.0))
    assert [dose.layers for dose in doses] == [(2, 4), (0, 2, 4)]
    assert [dose.share for dose in doses] == [2 / 3, 1.0]


def test_doses_that_round_to_one_are_one() -> None:
    assert [dose.layers for dose in layer_doses((0, 1), (0.01, 0.3, 0.5, 1.0))] == [(1,), (0, 1)]


@given(
    st.sets(st.integers(0, 40), min_size=1),
    st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6),
    st.sampled_from(["last first", "first first", "random"]),
    st.integers(0, 5),
)
def test_layer_doses_nest(usable, shares, order, seed) -> None:
    doses = layer_doses(sorted(usable), shares, order=order, seed=seed)
    for smaller, larger in pairwise(doses):
        assert set(smaller.layers) < set(larger.layers)
        assert smaller.share < larger.share
    assert set(doses[-1].layers) <= usable
    assert all(abs(dose.share - len(dose.layers) / len(usable)) < 1e-12 for dose in doses)
    assert max(doses[-1].share, 1 / len(usable)) >= max(shares) - 0.5 / len(usable) - 1e-9


@given(st.integers(1, 9), st.integers(0, 10_000), st.integers(0, 5))
def test_edge_doses_nest_and_are_the_knockouts_edges(size, pattern, seed) -> None:
    edges = np.random.default_rng(pattern).random((size, size)) < 0.5
    if not edges.any():
        edges[0, 0] = True
    doses = edge_doses(edges, seed=seed)
    for smaller, larger in pairwise(doses):
        assert (smaller.edges <= larger.edges).all()
        assert smaller.edges.sum() < larger.edges.sum()
    assert (doses[-1].edges == edges).all()
    assert all(dose.edges.sum() == round(dose.share * edges.sum()) for dose in doses)


def test_edges_are_drawn_evenly() -> None:
    edges = ~np.eye(5, dtype=bool)
    drawn = sum(edge_doses(edges, (0.5,), seed=seed)[0].edges.astype(int) for seed in range(400))
    assert np.abs(drawn[edges] - 200).max() < 5 * 10
    assert not drawn.diagonal().any()


def test_wrong_doses_are_refused() -> None:
    for shares in ((0.0,), (1.2,), (-0.5, 0.5), ()):
        with pytest.raises(UserError, match="shares above 0 and up to 1"):
            layer_doses((0, 1), shares)
    with pytest.raises(UserError, match="no usable layers"):
        layer_doses(())
    with pytest.raises(NoEdges, match="has no doses"):
        edge_doses(np.zeros((2, 2), dtype=bool))


def planted(shares, *, images: int = 40, noise: float = 0.1, seed: int = 0):
    """Readability that keeps the shares planted at each dose."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(images), 2)
    intact = 2 + 0.4 * rng.normal(size=images)[groups]
    rows = np.stack([share * intact + noise * rng.normal(size=len(groups)) for share in shares])
    return rows, intact, groups.tolist()


def test_a_curve_without_noise_is_exact() -> None:
    shares = (1.0, 0.5, 0.75, 0.5, 0.0)
    rows, intact, images = planted(shares, noise=0)
    curve = dose_curve(layer_doses(range(8), SHARES), rows, intact, images, resamples=200)
    assert [point.retained.value for point in curve.points] == pytest.approx(shares)
    assert [point.mean.value for point in curve.points] == pytest.approx([s * intact.mean() for s in shares])
    steps = np.diff([1.0, *shares]) * intact.mean()
    assert [point.step.value for point in curve.points] == pytest.approx(steps)
    assert curve.intact.value == pytest.approx(intact.mean())
    assert (curve.n, curve.images) == (80, 40)


def test_a_curve_that_rises_says_so_and_one_that_falls_does_not() -> None:
    doses = layer_doses(range(8), SHARES)
    rising = dose_curve(doses, *planted((0.8, 0.4, 0.7, 0.5, 0.3)), resamples=300)
    assert rising.rises() == (doses[2].name,)
    falling = dose_curve(doses, *planted((0.9, 0.7, 0.5, 0.3, 0.1)), resamples=300)
    assert falling.rises() == ()
    assert all(point.step.high < 0 for point in falling.points)
    json.dumps(falling.to_dict(), allow_nan=False)


def test_a_curve_over_nothing_readable_is_undefined() -> None:
    rows, intact, images = planted((0.5,))
    noise = np.random.default_rng(1).normal(size=intact.shape)
    curve = dose_curve(layer_doses(range(2), (1.0,)), rows, noise, images, resamples=200)
    assert curve.points[0].retained.value is None


def test_what_does_not_fit_is_refused() -> None:
    rows, intact, images = planted((0.9, 0.5))
    doses = layer_doses(range(4), (0.5, 1.0))
    with pytest.raises(UserError, match="1 doses and 80 instances"):
        dose_curve(doses[:1], rows, intact, images)
    with pytest.raises(UserError, match="doses go up"):
        dose_curve(doses[::-1], rows, intact, images)


@pytest.mark.slow
def test_planted_curves_are_held_by_their_intervals() -> None:
    shares, held = (0.9, 0.4), 0
    doses = layer_doses(range(4), (0.5, 1.0))
    for seed in range(150):
        curve = dose_curve(doses, *planted(shares, noise=0.8, seed=seed), resamples=400)
        held += sum(p.retained.low <= s <= p.retained.high for p, s in zip(curve.points, shares, strict=True))
    assert 0.90 <= held / 300 <= 0.99
