"""Ratios of means over clusters, with bootstrap intervals, and "undefined" where the denominator may be 0."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from eyechart.core.stats._arrays import Count, FloatArray, chunks, count, numbers, same, share
from eyechart.core.stats.bootstrap import Estimate, cluster_bootstrap
from eyechart.core.stats.rates import level_note, wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A mean divided by another, both over the same items, with a bootstrap interval.

    Where `undefined` says why, there is no value. Where no resample differs there is a value and no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    numerator: Estimate
    denominator: Estimate
    undefined: str
    """Why there is no ratio; empty where there is one."""

    n: int
    clusters: int
    level: float
    method: str
    seed: int
    resamples: int

    def __str__(self) -> str:
        units = f"n={self.n} in {self.clusters} clusters" + level_note(self.level)
        if self.value is None:
            return f"undefined ({self.undefined}), {units}"
        if self.low is None or self.high is None:
            return f"{self.value:.3g} (no resample differs, so no interval), {units}"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}], {units}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)


def cluster_mean(
    values: npt.NDArray[Any],
    clusters: Sequence[Hashable],
    *,
    reach: float | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int,
) -> Estimate:
    """`cluster_bootstrap`, for values of any scale that may be the same in every cluster.

    Where all clusters have one mean c, no resample differs. The interval is then a bound: the share of clusters
    unlike those seen is at most h, Wilson's upper limit for 0 of K, and their mean is anything from -reach to reach,
    so that the mean over all lies within (1 - h) c - h reach .. (1 - h) c + h reach.

    Args:
        values: one number for each item.
        clusters: one label for each item.
        reach: the largest value, of either sign, that an item could have; None takes the largest seen, and for
            values that are all 0 or 1 the bound of `cluster_bootstrap`.
        level: confidence of the interval.
        resamples: how many times the clusters are drawn.
        seed: of the random generator.

    Raises:
        ValueError: as `cluster_bootstrap`, but for values that do not vary.
    """
    array = numbers(values, "values")
    sums, sizes = _by_cluster(array[:, None], clusters)
    means = sums[:, 0] / sizes
    rate = reach is None and bool(np.isin(array, (0.0, 1.0)).all())
    if rate or not same(means):
        return cluster_bootstrap(array, clusters, level=level, resamples=resamples, seed=seed)
    far = float(np.abs(array).max()) if reach is None else reach
    mean, hidden = float(means.mean()), wilson(0, len(sizes), level=level).high
    low, high = (1 - hidden) * mean - hidden * far, (1 - hidden) * mean + hidden * far
    return Estimate(
        value=mean, low=min(low, mean), high=max(high, mean), n=len(array), clusters=len(sizes), level=level,
        method="Wilson bound on unseen clusters", seed=seed, resamples=resamples,
    )  # fmt: skip


def cluster_ratios(
    numerators: npt.NDArray[Any],
    denominators: npt.NDArray[Any],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int,
) -> tuple[Ratio, ...]:
    """For each column the mean of the numerators divided by the mean of the denominators.

    Whole clusters are drawn with replacement, the same for numerators, denominators and all columns, and both
    means are taken over the items drawn; the interval is the percentile interval of their ratios. It is a ratio of means
    and not a mean of ratios, which items near 0 would rule.

    A ratio is undefined unless its denominator lies above 0: where the denominator's own interval touches 0, a ratio
    of any size and either sign is consistent with the data (E. C. Fieller, Some problems in interval estimation,
    JRSS B 16 (1954) 175-185), and where it lies below 0 there is nothing to take a share of. A resample whose
    denominator is not positive counts as infinite, with the numerator's sign; a limit that falls on such resamples
    makes the ratio undefined as well.

    Simulated with normal errors, one to four items a cluster and a denominator 5 to 15 standard errors from 0, the 95 %
    interval held a true ratio of 0.6 in 90 to 91 % of the cases with 12 clusters, 92 to 93 % with 20, 93 to 95 % with 40
    and 80. With 40 and a denominator of 2.5 standard errors a quarter of the ratios were undefined; of the others 96 % held it.

    Args:
        numerators: items x columns.
        denominators: items x columns.
        clusters: one label for each item.
        level: confidence of the intervals, also of those of the means.
        resamples: how many times the clusters are drawn.
        seed: of the random generator.

    Raises:
        ValueError: shapes differ, a value is not finite, a label is missing, or there is only one cluster.
    """
    level, resamples = share(level, "level"), count(resamples, "resamples", least=100)
    above, below = numbers(numerators, "numerators", axes=2), numbers(denominators, "denominators", axes=2)
    if above.shape != below.shape:
        raise ValueError(
            f"numerators of shape {above.shape} need denominators of that shape, got {below.shape}"
        )
    reach = float(max(np.abs(above).max(), np.abs(below).max()))
    mean = partial(cluster_mean, clusters=clusters, reach=reach, level=level, resamples=resamples, seed=seed)
    means = [[mean(column) for column in columns.T] for columns in (above, below)]
    draws = _draws(above, below, clusters, resamples, seed)
    return tuple(
        _ratio(top, bottom, drawn, level) for top, bottom, drawn in zip(*means, draws.T, strict=True)
    )


def _by_cluster(values: FloatArray, clusters: Sequence[Hashable]) -> tuple[FloatArray, FloatArray]:
    """Sums of each column over each cluster, and the clusters' sizes, in the order in which labels first come."""
    if len(values) != len(clusters):
        raise ValueError(f"each value needs a cluster, got {len(values)} values and {len(clusters)} clusters")
    if any(label is None or label != label for label in clusters):
        raise ValueError("an item has no cluster: its label is missing")
    places = {label: place for place, label in enumerate(dict.fromkeys(clusters))}
    if len(places) < 2:
        raise ValueError(f"all {len(values)} values are in one cluster; no interval can be given")
    codes = np.array([places[label] for label in clusters])
    sums = np.zeros((len(places), values.shape[1]))
    np.add.at(sums, codes, values)
    return sums, np.bincount(codes).astype(np.float64)


def _draws(
    above: FloatArray, below: FloatArray, clusters: Sequence[Hashable], resamples: Count, seed: int
) -> FloatArray:
    """The ratio of each column in each resample: resamples x columns. Cluster sizes cancel."""
    sums, _ = _by_cluster(np.concatenate([above, below], axis=1), clusters)
    units, columns = len(sums), above.shape[1]
    rng, parts = np.random.default_rng(seed), []
    for rows in chunks(int(resamples), max(units, 2 * columns)):
        times = rng.multinomial(units, np.full(units, 1 / units), size=rows)
        drawn = times @ sums
        top, bottom = drawn[:, :columns], drawn[:, columns:]
        fine = bottom > 0
        parts.append(np.where(fine, top / np.where(fine, bottom, 1.0), np.copysign(np.inf, top)))
    return np.concatenate(parts)


def _ratio(top: Estimate, bottom: Estimate, draws: FloatArray, level: float) -> Ratio:
    low: float | None
    high: float | None
    low, high = (float(q) for q in np.quantile(draws, _tails(level), method="inverted_cdf"))
    why = _why_undefined(bottom)
    if not why and not (np.isfinite(low) and np.isfinite(high)):
        why = "the denominator is 0 or less in so many resamples that the ratio has no finite interval"
    value = None if why else top.value / bottom.value
    if value is None or _one(draws):
        low = high = None
    return Ratio(
        value=value, low=low, high=high, numerator=top, denominator=bottom, undefined=why, n=top.n,
        clusters=top.clusters, level=level, method="cluster bootstrap of the ratio of means, percentile",
        seed=top.seed, resamples=top.resamples,
    )  # fmt: skip


def _one(draws: FloatArray) -> bool:
    return bool(np.isfinite(draws).all()) and bool(np.ptp(draws) <= 1e-12 * max(1.0, np.abs(draws).max()))


def _why_undefined(bottom: Estimate) -> str:
    if bottom.low > 0:
        return ""
    where = f"{bottom.value:.3g} [{bottom.low:.3g}, {bottom.high:.3g}]"
    if bottom.high < 0:
        return f"the denominator lies below 0: {where}"
    return f"the denominator's interval touches 0: {where}"


def _tails(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2
