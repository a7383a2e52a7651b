"""What the ranks of many parts say: medians, reciprocal ranks and hits beside their controls, drawn anew by picture.

No public source says how Takishita et al. (arXiv 2506.05439) sum up ranks over parts. Given here: the median ratio of a
control's best rank to the mask's (above 1 the mask is better), the mean reciprocal rank, and the share with a rank of at
most k; for all parts, by the part's name, by its cells and by its height in the picture, since parts high up have little
of the picture before them and large ones many chances. The parts of one picture stand or fall together, so intervals
come from drawing pictures with replacement.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from eyechart.core.stats import Estimate, cluster_bootstrap
from eyechart.locate.identify import PartRanks

Arm = Literal["mask", "random", "wrong"]
ARMS: tuple[Arm, ...] = ("mask", "random", "wrong")

SIZES = (1, 2, 5, 10, 26)
"""The least number of cells in each size bin."""

ROWS = ("top", "middle", "bottom")
"""Thirds of the picture's height, by the middle of the mask."""

RANKS = (1, 10, 100)
"""The k of the shares with a rank of at most k."""

_DRAWN = 1 << 21
"""Numbers held at once while drawing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One number over parts with its interval from drawing pictures, or why there is none."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Parts."""

    images: int
    level: float
    method: str
    note: str = ""
    """Why value or interval is missing; empty where both are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Some parts at one layer."""

    by: Literal["all", "part", "size", "row"]
    name: str
    n: int
    images: int
    ratio: Measured
    """Median of the random regions' best rank over the mask's."""

    wrong_ratio: Measured
    """Median of the wrong names' best rank over the right one's."""

    reciprocal: tuple[tuple[Arm, Measured], ...]
    """Mean of 1 / rank."""

    hits: tuple[tuple[int, Arm, Measured], ...]
    """Share of ranks of at most k."""


def summarise(
    found: Sequence[PartRanks],
    layer: int,
    *,
    ks: Sequence[int] = RANKS,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int,
) -> tuple[Group, ...]:
    """All aggregates at one layer: of all parts, then by part, size and row; every size and row is given, empty or not.

    Args:
        found: what was ranked.
        layer: its number, as in `PartRanks.layers`. Choose it on other pictures (`best_layer`).
        ks: of the shares.
        level: of the intervals.
        resamples: how often pictures are drawn.
        seed: of the drawing.

    Raises:
        ValueError: a part was not read at that layer.
    """
    groups: list[tuple[Literal["all", "part", "size", "row"], str, list[PartRanks]]] = [
        ("all", "all", list(found))
    ]
    names = sorted({one.part for one in found})
    groups += [("part", name, [one for one in found if one.part == name]) for name in names]
    groups += [("size", name, [one for one in found if size_bin(one.cells) == name]) for name in size_bins()]
    groups += [("row", name, [one for one in found if row_bin(one.row) == name]) for name in ROWS]
    draw = _Draw(layer=layer, level=level, resamples=resamples, seed=seed)
    return tuple(draw.group(by, name, some, ks) for by, name, some in groups)


def ratios_by_layer(
    found: Sequence[PartRanks],
    *,
    control: Literal["random", "wrong"] = "random",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int,
) -> tuple[tuple[int, Measured], ...]:
    """The median ratio at every layer, of all parts.

    Raises:
        ValueError: parts were read at different layers.
    """
    return tuple(
        (layer, _Draw(layer=layer, level=level, resamples=resamples, seed=seed).ratio(found, control))
        for layer in _layers(found)
    )


def best_layer(found: Sequence[PartRanks]) -> int:
    """The number of the layer with the largest median ratio to the random regions, the first of several.

    Raises:
        ValueError: nothing was ranked beside a region, or parts were read at different layers.
    """
    both = [one for one in found if one.random is not None]
    if not both:
        raise ValueError("no part was ranked beside a random region, so no layer is the best")
    logs = [np.log(one.random) - np.log(one.mask) for one in both if one.random is not None]
    return _layers(both)[int(np.argmax(np.median(logs, axis=0)))]


def cluster_median(
    values: Float[ndarray, " item"],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int,
) -> Estimate:
    """The median over items with a percentile interval from drawing whole clusters again.

    Each resample draws as many clusters as there are, with replacement, and takes the median of all their items.

    Raises:
        ValueError: there are no values, one is not finite, lengths differ, or there is only one cluster.
    """
    if not len(values) or not np.isfinite(values).all() or len(values) != len(clusters):
        raise ValueError(
            f"a median needs finite values with a cluster each, got {len(values)} and {len(clusters)}"
        )
    places = {label: place for place, label in enumerate(dict.fromkeys(clusters))}
    if len(places) < 2:
        raise ValueError(f"all {len(values)} values are in one cluster; no interval can be given")
    codes = np.array([places[label] for label in clusters])
    drawn = _medians(values, codes, len(places), resamples, np.random.default_rng(seed))
    tail = round(100 * (1 - level) / 2, 9)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Estimate(
        value=float(np.median(values)), low=float(low), high=float(high), n=len(values), clusters=len(places),
        level=level, method="cluster bootstrap of the median, percentile", seed=seed, resamples=resamples,
    )  # fmt: skip


def size_bins() -> tuple[str, ...]:
    """The names of the size bins, small ones first."""
    ends = [*(str(following - 1) for following in SIZES[1:]), ""]
    return tuple(
        f"{first}+" if not last else str(first) if last == str(first) else f"{first}-{last}"
        for first, last in zip(SIZES, ends, strict=True)
    )


def size_bin(cells: int) -> str:
    """The size bin of so many cells.

    >>> [size_bin(cells) for cells in (1, 4, 30)]
    ['1', '2-4', '26+']
    """
    return size_bins()[int(np.searchsorted(SIZES, cells, side="right")) - 1]


def row_bin(row: float) -> str:
    """The third of the picture that a height lies in.

    >>> [row_bin(row) for row in (0.0, 0.5, 1.0)]
    ['top', 'middle', 'bottom']
    """
    return ROWS[min(int(row * len(ROWS)), len(ROWS) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    """One layer, and how its intervals are drawn."""

    layer: int
    level: float
    resamples: int
    seed: int

    def group(
        self, by: Literal["all", "part", "size", "row"], name: str, some: list[PartRanks], ks: Sequence[int]
    ) -> Group:
        return Group(
            by=by,
            name=name,
            n=len(some),
            images=len({one.image for one in some}),
            ratio=self.ratio(some, "random"),
            wrong_ratio=self.ratio(some, "wrong"),
            reciprocal=tuple((arm, self.mean(some, arm, None)) for arm in ARMS),
            hits=tuple((k, arm, self.mean(some, arm, k)) for k in ks for arm in ARMS),
        )

    def ratio(self, some: Sequence[PartRanks], control: Literal["random", "wrong"]) -> Measured:
        own, other, images = [], [], []
        for one in some:
            rank = self.rank(one, control)
            if rank is not None:
                own.append(self.rank(one, "mask"))
                other.append(rank)
                images.append(one.image)
        values = np.array(other, dtype=np.float64) / np.array(own, dtype=np.float64)
        return self.measured(values, images, median=True)

    def mean(self, some: Sequence[PartRanks], arm: Arm, k: int | None) -> Measured:
        """The mean reciprocal rank, or the share of ranks of at most k."""
        ranks = [(self.rank(one, arm), one.image) for one in some]
        there = [(rank, image) for rank, image in ranks if rank is not None]
        values = np.array([1 / rank if k is None else float(rank <= k) for rank, _ in there])
        return self.measured(values, [image for _, image in there], median=False)

    def rank(self, one: PartRanks, arm: Arm) -> float | None:
        if self.layer not in one.layers:
            raise ValueError(
                f"{one.image}, {one.part}: read at the layers {one.layers}, so not at {self.layer}"
            )
        ranks = {"mask": one.mask, "random": one.random, "wrong": one.wrong}[arm]
        return None if ranks is None else float(ranks[one.layers.index(self.layer)])

    def measured(self, values: Float[ndarray, " part"], images: list[str], *, median: bool) -> Measured:
        count, of = len(set(images)), "median" if median else "mean"
        if not count:
            return Measured(
                value=None,
                low=None,
                high=None,
                n=0,
                images=0,
                level=self.level,
                method="",
                note="nothing measured",
            )
        way = cluster_median if median else cluster_bootstrap
        try:
            found = way(values, images, level=self.level, resamples=self.resamples, seed=self.seed)
        except ValueError as error:  # one picture, or no variation: a number without an interval
            value = float(np.median(values) if median else values.mean())
            return Measured(
                value=value, low=None, high=None, n=len(values), images=count, level=self.level, method=of,
                note=f"no interval: {error}",
            )  # fmt: skip
        return Measured(
            value=found.value, low=found.low, high=found.high, n=found.n, images=count, level=self.level,
            method=found.method,
        )  # fmt: skip


def _layers(found: Sequence[PartRanks]) -> tuple[int, ...]:
    several = {one.layers for one in found}
    if len(several) > 1:
        raise ValueError(f"parts were read at different layers: {sorted(several)}")
    return next(iter(several), ())


def _medians(
    values: Float[ndarray, " item"],
    codes: Int[ndarray, " item"],
    clusters: int,
    resamples: int,
    rng: np.random.Generator,
) -> Float[ndarray, " resample"]:
    """The median of each resample, from how often each value is drawn."""
    order = np.argsort(values, kind="stable")
    sorted_values, sorted_codes, found = values[order], codes[order], []
    step = max(1, _DRAWN // max(len(values), clusters))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(clusters, size=(rows, clusters))
        offsets = np.arange(rows)[:, None] * clusters
        times = np.bincount((drawn + offsets).ravel(), minlength=rows * clusters).reshape(rows, clusters)
        upto = times[:, sorted_codes].cumsum(axis=1)
        total = upto[:, -1:]
        middle = [(upto <= place).sum(axis=1) for place in ((total - 1) // 2, total // 2)]
        found.append((sorted_values[middle[0]] + sorted_values[middle[1]]) / 2)
    return np.concatenate(found)
