"""Whether two models are right on the same pairs: the table of both, and phi over all pairs and within patterns."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from eyechart.core.stats import PairedTest, mcnemar_exact


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """A correlation of right and wrong over pairs, with its interval and its permutation p-value."""

    value: float | None
    """None where one of the two is right on all pairs or on none."""

    low: float | None
    high: float | None
    p_value: float | None
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SamePairs:
    """Two models on the same pairs."""

    n: int
    both: int
    first_only: int
    second_only: int
    neither: int
    phi: Association
    """Over all pairs: it also holds what patterns do to both."""

    phi_within: Association
    """Within patterns: each model's mean of the pattern taken off first."""

    test: PairedTest
    """McNemar's exact test of the second against the first."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        return asdict(self)


def same_pairs(
    first: Sequence[bool],
    second: Sequence[bool],
    patterns: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> SamePairs:
    """Compare two models on the same pairs.

    Intervals are percentiles of phi over pairs drawn again within their patterns. P-values are two-sided, from
    shuffling the second's pairs, over all pairs or within patterns: p = (k + 1) / (m + 1) (Phipson and Smyth 2010).

    Args:
        first: whether each pair is right.
        second: the same pairs in the same order.
        patterns: of each pair.
        level: confidence of the intervals.
        resamples: how many times pairs are drawn, and how many times they are shuffled.
        seed: of the random generator.

    Raises:
        ValueError: the lengths differ, or there is no pair.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if not len(a) == len(b) == len(patterns):
        raise ValueError(f"{len(a)}, {len(b)} and {len(patterns)} values are not of the same pairs")
    test = mcnemar_exact(a, b, level=level)
    places = [np.flatnonzero(np.asarray(patterns) == name) for name in dict.fromkeys(patterns)]
    rng = np.random.default_rng(seed)
    found = {}
    for kind, centred in (("all", False), ("within", True)):
        found[kind] = _associate(a, b, places, centred=centred, level=level, resamples=resamples, rng=rng)
    return SamePairs(
        n=len(a),
        both=int((a & b).sum()),
        first_only=int((a & ~b).sum()),
        second_only=int((~a & b).sum()),
        neither=int((~a & ~b).sum()),
        phi=found["all"],
        phi_within=found["within"],
        test=test,
    )


def phi(
    first: Bool[ndarray, " pair"], second: Bool[ndarray, " pair"], places: Sequence[ndarray] | None = None
) -> float | None:
    """Pearson's correlation of right and wrong; within groups where their places are given, else over all.

    None where there is none, because one of the two does not vary.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    for where in places if places is not None else [np.arange(len(a))]:
        a[where] -= a[where].mean()
        b[where] -= b[where].mean()
    return _correlation(a, b)


def _correlation(a: Float[ndarray, " pair"], b: Float[ndarray, " pair"]) -> float | None:
    apart = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / apart if apart > 1e-12 else None


def _associate(
    a: Bool[ndarray, " pair"],
    b: Bool[ndarray, " pair"],
    places: Sequence[ndarray],
    *,
    centred: bool,
    level: float,
    resamples: int,
    rng: np.random.Generator,
) -> Association:
    groups = places if centred else None
    value = phi(a, b, groups)
    how = "within patterns" if centred else "over all pairs"
    if value is None:
        return Association(value=None, low=None, high=None, p_value=None, method=f"phi {how}: undefined")
    draws = _drawn(a, b, places, centred=centred, resamples=resamples, rng=rng)
    known = draws[~np.isnan(draws)]
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) if len(known) else (None, None)
    shuffled = _shuffled(a, b, groups if groups is not None else [np.arange(len(a))], resamples, rng)
    reached = int((np.abs(shuffled) >= abs(value) - 1e-12).sum())
    return Association(
        value=value,
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        p_value=(reached + 1) / (resamples + 1),
        method=f"phi {how}; pairs drawn again within patterns, percentile; {resamples} shuffles {how}",
    )


def _shuffled(
    a: Bool[ndarray, " pair"],
    b: Bool[ndarray, " pair"],
    groups: Sequence[ndarray],
    resamples: int,
    rng: np.random.Generator,
) -> Float[ndarray, " draw"]:
    """Phi with the second's pairs shuffled within groups.

    Shuffling leaves each one's hits in a group as they are; how many fall on the same pairs is hypergeometric.
    """
    together, spread_a, spread_b = np.zeros(resamples), 0.0, 0.0
    for where in groups:
        n, hits_a, hits_b = len(where), int(a[where].sum()), int(b[where].sum())
        together += rng.hypergeometric(hits_a, n - hits_a, hits_b, resamples) - hits_a * hits_b / n
        spread_a += hits_a * (1 - hits_a / n)
        spread_b += hits_b * (1 - hits_b / n)
    return np.asarray(together / np.sqrt(spread_a * spread_b))


def _drawn(
    a: Bool[ndarray, " pair"],
    b: Bool[ndarray, " pair"],
    places: Sequence[ndarray],
    *,
    centred: bool,
    resamples: int,
    rng: np.random.Generator,
) -> Float[ndarray, " draw"]:
    """Phi of each resample, NaN where there is none: sums of the four kinds of pairs are all it needs."""
    tables = np.stack([drawn_table(a[where], b[where], resamples, rng) for where in places], axis=1)
    if not centred:
        tables = tables.sum(axis=1, keepdims=True)
    n = tables.sum(axis=2)
    hits_a, hits_b = tables[..., 0] + tables[..., 1], tables[..., 0] + tables[..., 2]
    together = (tables[..., 0] - hits_a * hits_b / n).sum(axis=1)
    spread_a, spread_b = ((hits * (1 - hits / n)).sum(axis=1) for hits in (hits_a, hits_b))
    apart = np.sqrt(spread_a * spread_b)
    return np.where(apart > 1e-12, together / np.where(apart > 1e-12, apart, 1.0), np.nan)


def drawn_table(
    a: Bool[ndarray, " pair"], b: Bool[ndarray, " pair"], resamples: int, rng: np.random.Generator
) -> Float[ndarray, "draw 4"]:
    """How many pairs of each resample are right for both, the first, the second, neither.

    Drawing n pairs with replacement gives multinomial counts of the four kinds, so this is the ordinary bootstrap.
    """
    counts = np.array([(a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum()])
    return rng.multinomial(len(a), counts / len(a), size=resamples).astype(float)
