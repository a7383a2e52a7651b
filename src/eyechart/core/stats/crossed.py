"""Means and ratios over training runs crossed with clusters of several items, both drawn anew."""

import numpy as np

from eyechart.core.stats._arrays import Count, FloatArray, Values, chunks, count, numbers, same, share
from eyechart.core.stats.bootstrap import Estimate
from eyechart.core.stats.rates import wilson
from eyechart.core.stats.ratios import Ratio

METHOD = "crossed bootstrap over runs and clusters, percentile"


def crossed_mean(
    sums: Values,
    sizes: Values,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int,
) -> Estimate:
    """The mean over the items of all clusters and runs, with an interval for runs and clusters being drawn anew.

    The design of `hierarchical_bootstrap`, with its sources and limits, for clusters of unequal sizes: each resample
    draws runs with replacement, draws clusters with replacement once for all runs, and divides what the drawn cells sum to
    by the number of their items. Where no resample differs the interval is the bound of `cluster_mean`, with the largest
    mean of a cell as its reach.

    Args:
        sums: runs x clusters, what each cluster's items sum to in each run; differences of two paired arms are as good.
        sizes: items of each cluster, the same in every run.
        level: confidence of the interval.
        resamples: how many times runs and clusters are drawn.
        seed: of the random generator.

    Raises:
        ValueError: fewer than two runs or clusters, a missing cell, or a size below one.
    """
    cells, items = _cells(sums, "sums"), numbers(sizes, "sizes")
    if items.shape != cells.shape[1:] or (items < 1).any():
        raise ValueError(
            f"each of {cells.shape[1]} clusters needs a size of at least 1, got {items.tolist()}"
        )
    level, spread = share(level, "level"), np.broadcast_to(items, cells.shape)
    above, below = _totals([cells, spread], resamples, seed)
    draws, value = above / below, float(cells.sum() / spread.sum())
    low, high = (float(q) for q in np.quantile(draws, _tails(level)))
    method = METHOD
    if same(draws):
        hidden, reach = wilson(0, cells.shape[1], level=level).high, float(np.abs(cells / spread).max())
        low, high = (1 - hidden) * value - hidden * reach, (1 - hidden) * value + hidden * reach
        method = "Wilson bound on unseen clusters"
    return Estimate(
        value=value, low=min(low, value), high=max(high, value), n=int(spread.sum()), clusters=cells.shape[1],
        level=level, method=method, seed=seed, resamples=len(draws), runs=len(cells),
    )  # fmt: skip


def crossed_ratio(
    numerators: Values,
    denominators: Values,
    sizes: Values,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int,
) -> Ratio:
    """The mean of the numerators divided by that of the denominators, over runs and clusters drawn anew.

    `crossed_mean`'s draws, and the rule of `cluster_ratios`: a ratio of means and not a mean of ratios; undefined unless the
    denominator's own interval lies above 0, or where a limit falls on resamples whose denominator is not positive.

    Args:
        numerators: runs x clusters, what each cluster's items sum to in each run.
        denominators: likewise, of the same cells.
        sizes: items of each cluster.
        level: confidence of the interval.
        resamples: how many times runs and clusters are drawn.
        seed: of the random generator.

    Raises:
        ValueError: as `crossed_mean`, or numerators and denominators have other shapes.
    """
    tops, bottoms = _cells(numerators, "numerators"), _cells(denominators, "denominators")
    if tops.shape != bottoms.shape:
        raise ValueError(f"numerators of shape {tops.shape} need denominators of it, got {bottoms.shape}")
    top, bottom = (
        crossed_mean(cells, sizes, level=level, resamples=resamples, seed=seed) for cells in (tops, bottoms)
    )
    above, below = _totals([tops, bottoms], resamples, seed)
    fine = below > 0
    draws = np.where(fine, above / np.where(fine, below, 1.0), np.copysign(np.inf, above))
    low, high = (float(q) for q in np.quantile(draws, _tails(level), method="inverted_cdf"))
    why = "" if bottom.low > 0 else f"the denominator's interval is not above 0: {bottom}"
    if not why and not (np.isfinite(low) and np.isfinite(high)):
        why = "the denominator is 0 or less in so many resamples that the ratio has no finite interval"
    return Ratio(
        value=None if why else top.value / bottom.value,
        low=None if why else low,
        high=None if why else high,
        numerator=top, denominator=bottom, undefined=why, n=top.n, clusters=top.clusters, level=level,
        method=METHOD, seed=seed, resamples=top.resamples,
    )  # fmt: skip


def _totals(arrays: list[FloatArray], resamples: Count, seed: int) -> list[FloatArray]:
    """What the drawn cells of each array sum to in each resample; the same draws for all arrays."""
    runs, clusters = arrays[0].shape
    rng, found = np.random.default_rng(seed), []
    for rows in chunks(count(resamples, "resamples", least=100), clusters):
        times = rng.multinomial(runs, np.full(runs, 1 / runs), size=rows)
        columns = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=rows)
        found.append([((times @ cells) * columns).sum(axis=1) for cells in arrays])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _cells(values: Values, what: str) -> FloatArray:
    cells = numbers(values, what, axes=2)
    if min(cells.shape) < 2:
        raise ValueError(
            f"{what} has {cells.shape[0]} runs x {cells.shape[1]} clusters; two of each are needed"
        )
    return cells


def _tails(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2
