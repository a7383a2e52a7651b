"""Doses of a knockout: a growing share of its layers, or of its edges, and the curve of what is left.

One knockout at full strength says that a path matters; a curve says how much of it must be there. Doses
nest: each holds the one before it, so that neighbours on the curve differ by what was added. Shares of
layers grow from the last usable layer backwards, from the first forwards, or in a random order; shares of
edges are random subsets of the knockout's edges. A cut in the last layers leaves the context that earlier
layers have brought, and one in the first layers leaves what later ones bring, so the order is a choice:
`last first` is the default. Nothing on the curve is assumed to fall: steps between neighbours are reported
with their intervals, and their signs are free.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from eyechart.core.errors import NoEdges, UserError, unknown
from eyechart.core.stats import Estimate, Ratio, cluster_mean, cluster_ratios

SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
"""The doses where none are named."""

Order = Literal["last first", "first first", "random"]

ORDERS: dict[Order, str] = {
    "last first": "from the last usable layer backwards",
    "first first": "from the first layer forwards",
    "random": "in a random order",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDose:
    """One dose of layers."""

    name: str
    share: float
    """Of the usable layers, what is cut in truth after rounding."""

    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EdgeDose:
    """One dose of edges."""

    name: str
    share: float
    """Of the knockout's edges, what is cut in truth after rounding."""

    edges: Bool[ndarray, "query key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One dose on the curve."""

    name: str
    share: float
    mean: Estimate
    """Mean readability."""

    retained: Ratio
    """Divided by that of the intact model."""

    step: Estimate
    """Minus that of the dose before it, or of the intact model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What is left at each dose, the smallest first."""

    intact: Estimate
    points: tuple[Point, ...]
    n: int
    images: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)

    def rises(self) -> tuple[str, ...]:
        """Doses at which readability is shown to rise: their step lies above 0."""
        return tuple(point.name for point in self.points if point.step.low > 0)


def layer_doses(
    usable: Sequence[int],
    shares: Sequence[float] = SHARES,
    *,
    order: Order = "last first",
    seed: int = 0,
) -> tuple[LayerDose, ...]:
    """Nested sets of layers.

    Doses that come to as many layers after rounding are one; a share never rounds to none.

    Args:
        usable: the layers in which the knockout can matter, ascending.
        shares: of those layers, each in (0, 1].
        order: a key of `ORDERS`.
        seed: of the random order.

    Raises:
        UserError: a share lies outside (0, 1], there is no such order, or there are no layers.
    """
    if order not in ORDERS:
        raise unknown("order of layers", order, ORDERS)
    if not usable:
        raise UserError("there are no usable layers to give doses of")
    ranked = list(usable)
    if order == "last first":
        ranked.reverse()
    elif order == "random":
        ranked = [usable[place] for place in np.random.default_rng(seed).permutation(len(usable))]
    return tuple(
        LayerDose(
            name=f"{count} of {len(ranked)} layers, {ORDERS[order]}",
            share=count / len(ranked),
            layers=tuple(sorted(ranked[:count])),
        )
        for count in _counts(shares, len(ranked))
    )


def edge_doses(
    edges: Bool[ndarray, "query key"], shares: Sequence[float] = SHARES, *, seed: int = 0
) -> tuple[EdgeDose, ...]:
    """Nested random subsets of a knockout's edges.

    Args:
        edges: of the knockout.
        shares: of its edges, each in (0, 1].
        seed: of the order in which edges are added.

    Raises:
        UserError: a share lies outside (0, 1].
        NoEdges: the knockout has none.
    """
    places = np.flatnonzero(edges)
    if not len(places):
        raise NoEdges("a knockout without edges has no doses")
    order = np.random.default_rng(seed).permutation(places)
    doses = []
    for count in _counts(shares, len(places)):
        some = np.zeros(edges.size, dtype=np.bool)
        some[order[:count]] = True
        doses.append(
            EdgeDose(
                name=f"{count} of {len(places)} edges, at random",
                share=count / len(places),
                edges=some.reshape(edges.shape),
            )
        )
    return tuple(doses)


def _counts(shares: Sequence[float], whole: int) -> Iterator[int]:
    wrong = [share for share in shares if not 0 < share <= 1]
    if wrong or not shares:
        raise UserError(f"doses are shares above 0 and up to 1, got {wrong or 'none'}")
    yield from sorted({max(1, int(share * whole + 0.5)) for share in shares})


def dose_curve(
    doses: Sequence[LayerDose | EdgeDose],
    readouts: Float[ndarray, "dose instance"],
    intact: Float[ndarray, " instance"],
    images: Sequence[Hashable],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Curve:
    """Readability at each dose, what it retains, and the step from the dose before it.

    Args:
        doses: as planned, the smallest first.
        readouts: readability of each part instance at each dose, on a scale whose zero means nothing.
        intact: the same without a cut.
        images: the image of each instance; images are drawn anew.
        level: confidence of the intervals.
        resamples: how many times the images are drawn.
        seed: of the drawing.

    Raises:
        UserError: the numbers of doses, instances and images do not fit, or doses do not grow.
    """
    _check_curve(doses, readouts.shape, len(intact), len(images))
    options: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    reach = 2 * float(max(np.abs(readouts).max(), np.abs(intact).max()))
    kept = cluster_ratios(readouts.T, np.repeat(intact[:, None], len(doses), axis=1), images, **options)
    steps = np.diff(np.concatenate([intact[None], readouts]), axis=0)
    points = tuple(
        Point(
            name=dose.name,
            share=dose.share,
            mean=cluster_mean(row, images, reach=reach, **options),
            retained=share,
            step=cluster_mean(step, images, reach=reach, **options),
        )
        for dose, row, share, step in zip(doses, readouts, kept, steps, strict=True)
    )
    return Curve(
        intact=cluster_mean(intact, images, reach=reach, **options),
        points=points,
        n=len(images),
        images=len(set(images)),
    )


def _check_curve(
    doses: Sequence[LayerDose | EdgeDose], shape: tuple[int, ...], intact: int, images: int
) -> None:
    if shape != (len(doses), images) or intact != images:
        raise UserError(
            f"{len(doses)} doses and {images} instances need readouts of that shape and as many intact ones, got"
            f" {shape} and {intact}"
        )
    shares = [dose.share for dose in doses]
    if not shares or any(after <= before for before, after in pairwise(shares)):
        raise UserError(f"doses go up, got shares {shares}")
