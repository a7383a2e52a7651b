"""Several correlations over the same patterns as one: all points together, and within models."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.score.correlate import LEAST, Correlated

MOST_ENUMERATED = 9
"""Patterns of which all orders are gone through: 362,880."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledValue:
    """Pearson's correlation of all points of all models."""

    value: float | None
    """None where one side does not vary."""

    low: float | None
    high: float | None
    p_value: float | None
    without: tuple[tuple[str, float | None], ...]
    """The value without each model in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """Encoders and their models, point by pattern and model."""

    models: tuple[str, ...]
    patterns: tuple[str, ...]
    points: int
    together: PooledValue
    """As they are: models that are better overall, with better encoders, add to it."""

    within: PooledValue
    """Each model's mean, and its encoder's, taken off first: patterns only."""

    interval: str
    test: str

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        plain = asdict(self) | {"models": list(self.models), "patterns": list(self.patterns)}
        for name in ("together", "within"):
            plain[name] = asdict(getattr(self, name)) | {"without": dict(getattr(self, name).without)}
        return plain


def pool(found: Sequence[Correlated], *, level: float = 0.95, resamples: int = 4000, seed: int = 0) -> Pooled:
    """Put several correlations together, over the patterns that all of them have.

    Points of one pattern belong together, as the models share patterns and pairs; so the interval is from drawing whole
    patterns again, with the points of all models, and the p-value from one order of patterns for all models at a time
    (all orders for up to nine). Models are taken as they are: a few of them say nothing about others. The values
    without each one show how much hangs on it. Pairs are as they are, too.

    Args:
        found: one correlation for each model.
        level: confidence of the intervals.
        resamples: how many times patterns are drawn, and orders where there are too many.
        seed: of the random generator.

    Raises:
        UserError: fewer than two correlations, or than four patterns in all of them.
    """
    if len(found) < 2:
        raise UserError(f"{len(found)} correlations are nothing to pool; give two or more")
    names = [point.pattern for point in found[0].points]
    shared = [
        name for name in names if all(name in {point.pattern for point in each.points} for each in found)
    ]
    if len(shared) < LEAST:
        raise UserError(
            f"the {len(found)} correlations have {len(shared)} patterns in common, {LEAST} are needed"
        )
    x, y = (
        np.array([[_value(each, name, side) for name in shared] for each in found])
        for side in ("encoder", "model")
    )
    models = tuple(each.model for each in found)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(shared), size=(resamples, len(shared)))
    exact = len(shared) <= MOST_ENUMERATED
    orders = _orders(len(shared), resamples, rng)
    values = [
        _pooled(a, b, models, drawn, orders, exact=exact, centred=centred, level=level)
        for a, b, centred in ((x, y, False), (_centred(x), _centred(y), True))
    ]
    return Pooled(
        models=models,
        patterns=tuple(shared),
        points=x.size,
        together=values[0],
        within=values[1],
        interval=f"{len(shared)} patterns drawn again, each with its {len(found)} points, percentile",
        test=f"{'all' if exact else 'drawn'} {len(orders)} orders of patterns, one for all models",
    )


def _value(found: Correlated, pattern: str, side: str) -> float:
    (point,) = (each for each in found.points if each.pattern == pattern)
    return float(getattr(point, side).value)


def _centred(rows: Float[ndarray, "model pattern"]) -> Float[ndarray, "model pattern"]:
    return np.asarray(rows - rows.mean(axis=1, keepdims=True))


def _orders(patterns: int, draws: int, rng: np.random.Generator) -> ndarray:
    if patterns <= MOST_ENUMERATED:
        return np.array(list(permutations(range(patterns))), dtype=np.intp)
    return rng.permuted(np.tile(np.arange(patterns), (draws, 1)), axis=1)


def _pooled(
    x: Float[ndarray, "model pattern"],
    y: Float[ndarray, "model pattern"],
    models: Sequence[str],
    drawn: ndarray,
    orders: ndarray,
    *,
    exact: bool,
    centred: bool,
    level: float,
) -> PooledValue:
    value = _pearson(x, y)
    without = []
    for place, name in enumerate(models):
        rest = np.arange(len(models)) != place
        without.append((name, _pearson(x[rest], y[rest])))
    if value is None:
        return PooledValue(value=None, low=None, high=None, p_value=None, without=tuple(without))
    centre = _centred if centred else np.asarray
    draws = [_pearson(centre(x[:, columns]), centre(y[:, columns])) for columns in drawn]
    known = [one for one in draws if one is not None]
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    # an order leaves means and spreads as they are, so sums of products are compared
    products = (x - x.mean()).T @ (y - y.mean())
    sums = np.abs(products[np.arange(x.shape[1]), orders].sum(axis=1))
    reached = int((sums >= abs(np.trace(products)) - 1e-12).sum())
    p_value = reached / len(orders) if exact else (reached + 1) / (len(orders) + 1)
    return PooledValue(value=value, low=float(low), high=float(high), p_value=p_value, without=tuple(without))


def _pearson(x: ndarray, y: ndarray) -> float | None:
    a, b = (one.ravel() - one.mean() for one in (x, y))
    apart = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / apart if apart > 1e-12 else None
