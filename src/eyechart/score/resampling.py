"""Weighted means of rates, with intervals from drawing whole clusters again within strata."""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eyechart.core.stats import Rate, cluster_rate, wilson

Floats = npt.NDArray[np.float64]

_CELLS = 1 << 20  # numbers held at once while drawing


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How intervals are made: their confidence, the resamples, and the seed of the drawing."""

    level: float = 0.95
    resamples: int = 2000
    seed: int = 0


def rate(hits: Sequence[bool], clusters: Sequence[Hashable], drawing: Drawing) -> Rate | None:
    """A share of hits: Wilson's interval where every cluster has one item, else by drawing whole clusters.

    From a single cluster of several items nothing can be drawn: 0 to 1 then. None where there are no hits to count.
    """
    if not hits:
        return None
    different = len(set(clusters))
    if different == len(hits):
        return wilson(sum(hits), len(hits), level=drawing.level)
    if different == 1:
        return Rate(
            value=sum(hits) / len(hits), low=0.0, high=1.0, hits=sum(hits), n=len(hits), level=drawing.level
        )
    return cluster_rate(
        list(hits), list(clusters), level=drawing.level, resamples=drawing.resamples, seed=drawing.seed
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A weighted mean of rates with its interval."""

    value: float
    low: float
    high: float


def weighted_mean(
    hits: Sequence[bool],
    cells: Sequence[str],
    clusters: Sequence[Hashable],
    weights: Mapping[str, float],
    drawing: Drawing,
) -> Mean:
    """The weighted mean of the rates of some cells, each cell's share of hits counting by its weight.

    A cluster (an image with all its questions) may touch several cells. Cells that share clusters, directly or through
    others, are one stratum; within each stratum clusters are drawn with replacement, as many as there are, all cells
    are counted anew and the mean is taken. So rates of one cluster move together, and where no cluster is in two cells
    each cell is drawn by itself. A resample that holds nothing of a cell takes the cell's own rate.

    A cell in which all clusters have the same rate would not vary at all; its own bound is added to the interval in
    quadrature, weighted: the share of clusters unlike those seen is at most Wilson's upper limit for 0 of K (see
    `core.stats.cluster_bootstrap`), and intervals of independent parts add as their squares do (G. Y. Zou and
    A. Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27 (2008) 1693-1702).
    Where no resample differs, since what one cell gains another loses, the bounds of all cells are added.

    Source of the bootstrap: A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application (1997), sections
    3.2 and 3.8.

    Args:
        hits: true or false for each item.
        cells: the cell each item is in.
        clusters: the cluster each item is in.
        weights: of the cells that count; they sum to 1.
        drawing: confidence, resamples and seed.

    Raises:
        ValueError: lengths differ, weights do not sum to 1, or a cell with a weight has no item.
    """
    if not len(hits) == len(cells) == len(clusters):
        raise ValueError(f"{len(hits)} hits, {len(cells)} cells and {len(clusters)} clusters must be as many")
    if not math.isclose(sum(weights.values()), 1.0):
        raise ValueError(f"weights must sum to 1, got {sum(weights.values())}")
    empty = [cell for cell in weights if cell not in set(cells)]
    if empty:
        raise ValueError(f"no item in {empty[0]!r}, which has a weight")
    counts, strata = _counts(hits, cells, clusters, list(weights))
    by_weight = np.array(list(weights.values()))
    totals = counts.sum(axis=0)
    rates = totals[:, 0] / totals[:, 1]
    value = float(rates @ by_weight)
    draws = _draws(counts, strata, rates, by_weight, drawing)
    tail = (1 - drawing.level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    still = bool(np.ptp(draws) <= 1e-12)
    down, up = _unseen(counts, rates, by_weight, drawing.level, of_all=still)
    return Mean(
        value=value,
        low=max(0.0, value - math.hypot(max(0.0, value - float(low)), down)),
        high=min(1.0, value + math.hypot(max(0.0, float(high) - value), up)),
    )


def _counts(
    hits: Sequence[bool], cells: Sequence[str], clusters: Sequence[Hashable], names: Sequence[str]
) -> tuple[Floats, list[list[int]]]:
    """For each cluster, hits and items in each cell (clusters x cells x 2), and the clusters of each stratum."""
    places = {cell: place for place, cell in enumerate(names)}
    rows: dict[Hashable, Floats] = {}
    for hit, cell, cluster in zip(hits, cells, clusters, strict=True):
        if cell in places:
            row = rows.setdefault(cluster, np.zeros((len(names), 2)))
            row[places[cell]] += (float(hit), 1.0)
    counts = np.stack(list(rows.values()))
    linked = _linked(counts[:, :, 1] > 0)
    strata: defaultdict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(counts):
        strata[linked[int(np.argmax(row[:, 1] > 0))]].append(place)
    return counts, list(strata.values())


def _linked(touches: npt.NDArray[np.bool]) -> list[int]:
    """For each cell the first of the cells it is linked to by clusters, itself among them."""
    first = list(range(touches.shape[1]))
    for row in np.unique(touches, axis=0):
        cells = np.flatnonzero(row)
        names = {first[cell] for cell in cells}
        first = [min(names) if name in names else name for name in first]
    return first


def _draws(
    counts: Floats, strata: Sequence[Sequence[int]], rates: Floats, weights: Floats, drawing: Drawing
) -> Floats:
    rng = np.random.default_rng(drawing.seed)
    cells = counts.shape[1]
    totals = np.zeros((drawing.resamples, cells * 2))
    for places in strata:
        kinds, times = np.unique(counts[list(places)].reshape(len(places), -1), axis=0, return_counts=True)
        step = max(1, _CELLS // len(kinds))
        for start in range(0, drawing.resamples, step):
            rows = min(step, drawing.resamples - start)
            totals[start : start + rows] += (
                rng.multinomial(len(places), times / times.sum(), size=rows) @ kinds
            )
    sums = totals.reshape(drawing.resamples, cells, 2)
    drawn = sums[:, :, 1] > 0
    again = np.where(drawn, sums[:, :, 0] / np.where(drawn, sums[:, :, 1], 1.0), rates)
    return np.asarray(again @ weights, dtype=np.float64)


def _unseen(
    counts: Floats, rates: Floats, weights: Floats, level: float, *, of_all: bool
) -> tuple[float, float]:
    """How far the mean may lie below and above, for cells that do not vary, or for all."""
    down = up = 0.0
    for place, (own, weight) in enumerate(zip(rates, weights, strict=True)):
        there = counts[counts[:, place, 1] > 0, place]
        if not of_all and np.ptp(there[:, 0] / there[:, 1]) > 0:
            continue
        hidden = wilson(0, len(there), level=level).high
        down, up = math.hypot(down, weight * own * hidden), math.hypot(up, weight * (1 - own) * hidden)
    return float(down), float(up)
