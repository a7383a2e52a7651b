"""Short rows whose dot products bound those of the long ones from above, with proof.

P is an orthogonal projection onto the first principal axes around the mean m, and r the length of what it leaves out.
With z = (P(x - m), r) no distance grows: |z_x - z_y| <= |x - y| (the last coordinate is the Cauchy-Schwarz bound of the
rest). As |z|² = |x - m|², this says x.y <= z_x.z_y - h_x - h_y with h = |m|²/2 - x.m; two more columns make the right
side one dot product. What rounding adds is bounded, and the bound is added to the threshold's safe side.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from eyechart.find.exact import LENGTH_TOLERANCE, SINGLE, Rows, each_part

SAMPLED = 6_000
"""Rows from which mean and axes are taken; any mean and any axes are right, these only prune well."""

TRIED = 2_048
"""Rows among which it is counted how many pairs a width leaves."""

WIDTHS = (64, 128, 256)
"""Columns of a sketch, the three extra ones included."""

COLUMN_COST, PAIR_COST = 0.04, 1000.0
"""Nanoseconds: a column of a pair in a tile, and a pair that is left to be looked at closely. Measured on two cores without AVX-512; only their ratios matter, and only to speed (bench/find.py)."""


BFLOAT = 2.0**-9
"""What rounding to bfloat16 may be wrong by, as a share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketches:
    """Two short rows for each image: the left of one times the right of another bounds their cosine from above."""

    left: Float[Tensor, "image column"]
    right: Float[Tensor, "image column"]
    slack: float
    """How far a product computed in float32 may lie below the bound."""

    exact: bool
    """Whether these are the rows themselves, so that nothing is bounded but the rounding."""

    @property
    def columns(self) -> int:
        """How long the short rows are."""
        return self.left.shape[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """A mean and orthonormal axes, those of largest variance first."""

    mean: Float[ndarray, " dim"]
    axes: Float[ndarray, "dim axis"]
    rests: Float[ndarray, " count"]
    """How long what the first so many axes leave out is, as a rule."""


def whole(rows: Rows) -> Sketches:
    """The rows themselves."""
    with warnings.catch_warnings():  # a file mapped for reading: nothing here writes
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensor = torch.from_numpy(np.asarray(rows, np.float32))
    slack = _rounding(rows.shape[1], (1 + LENGTH_TOLERANCE) ** 2)
    return Sketches(left=tensor, right=tensor, slack=slack, exact=True)


def sketched(rows: Rows, axes: Axes, columns: int, *, threads: int = 1) -> Sketches:
    """Sketches of so many columns: principal coordinates, what they leave out, and two that shift the product."""
    left = torch.empty(len(rows), columns)
    right = torch.empty(len(rows), columns)

    def fill(start: int, part: Float[ndarray, "part dim"]) -> None:
        short = coordinates(part, axes, columns - 3)
        shift = axes.mean @ axes.mean / 2 - part @ axes.mean
        place = slice(start, start + len(part))
        for side, last in ((left, (-shift, np.ones_like(shift))), (right, (np.ones_like(shift), -shift))):
            side[place] = torch.from_numpy(np.column_stack([short, *last]).astype(np.float32))

    each_part(rows, fill, threads=threads)
    largest = float(left.square().sum(1).max()) if len(rows) else 0.0
    return Sketches(left=left, right=right, slack=_rounding(columns, largest), exact=False)


def in_bfloat16(sketches: Sketches) -> Sketches:
    """The same in bfloat16, which tensor cores are made for; the slack grows by what that may take from a product.

    Rows are rounded, which is measured, and so is each product (summed in float32), which is a share of 2^-9 at most.
    """
    left, right = (side.to(torch.bfloat16) for side in (sketches.left, sketches.right))
    longest = [_longest(side) for side in (sketches.left, right.float())]
    moved = [
        _longest(after.float() - before) for after, before in ((left, sketches.left), (right, sketches.right))
    ]
    product = (longest[0] + moved[0]) * longest[1]
    rows = moved[0] * longest[1] + moved[1] * longest[0]
    slack = sketches.slack + 1.01 * (rows + (BFLOAT + 2 * sketches.columns * SINGLE) * product)
    return Sketches(left=left, right=right, slack=slack, exact=False)


def _longest(rows: Float[Tensor, "image column"]) -> float:
    return float(rows.square().sum(1).max().sqrt()) if len(rows) else 0.0


def principal_axes(rows: Rows) -> Axes:
    """Mean and principal axes of up to `SAMPLED` rows, evenly spaced."""
    some = np.asarray(rows[:: max(1, len(rows) // SAMPLED)], np.float64)
    mean = some.mean(axis=0)
    around = torch.from_numpy(some - mean)
    sums, axes = torch.linalg.eigh(around.T @ around)
    left_out = np.cumsum(np.r_[0.0, np.maximum(sums.numpy(), 0.0)])[::-1]
    rests = np.sqrt(left_out / max(1, len(some)))
    return Axes(mean=mean, axes=np.ascontiguousarray(axes.numpy()[:, ::-1]), rests=rests)


def choose(rows: Rows, min_semantic: float, *, threads: int = 1) -> Sketches:
    """Sketches of the width that should take least time, or the rows themselves where these would."""
    dim = rows.shape[1]
    if len(rows) < TRIED or dim <= min(WIDTHS):
        return whole(rows)
    axes = principal_axes(rows)
    width, cost = cheapest(rows, axes, min_semantic, column_cost=COLUMN_COST, pair_cost=PAIR_COST)
    if cost > COLUMN_COST * dim:  # what the rows' own product leaves is known by it
        return whole(rows)
    return sketched(rows, axes, width, threads=threads)


def cheapest(
    rows: Rows, axes: Axes, min_semantic: float, *, column_cost: float, pair_cost: float
) -> tuple[int, float]:
    """The width of sketches that should take least time, and nanoseconds a pair.

    Wider ones cost more to compare and leave fewer pairs to look at; no wider one is tried than can be better. Tried on
    `TRIED` rows or a few more.
    """
    some = rows[:: max(1, len(rows) // TRIED)]
    best, least = 0, float("inf")
    for width in WIDTHS:
        if width >= rows.shape[1] or column_cost * width >= least:
            break
        tried = sketched(some, axes, width)
        products = (tried.left @ tried.right.T).fill_diagonal_(-torch.inf)
        left = float((products > min_semantic - tried.slack).float().mean())
        cost = column_cost * width + pair_cost * left
        if cost < least:
            best, least = width, cost
    return best, least


def coordinates(part: Float[ndarray, "part dim"], axes: Axes, count: int) -> Float[ndarray, "part short"]:
    """The first principal coordinates of rows, and the length of what they leave out."""
    around = part - axes.mean
    main = (torch.from_numpy(around) @ torch.from_numpy(axes.axes[:, :count])).numpy()
    rest = np.einsum("id,id->i", around, around) - np.einsum("id,id->i", main, main)
    found: Float[ndarray, "part short"] = np.column_stack([main, np.sqrt(np.maximum(rest, 0.0))])
    return found


def _rounding(columns: int, largest: float) -> float:
    """A bound for the error of a float32 product of two rows of squared length `largest` that were rounded to float32.

    Each of the n terms takes part in n roundings at most, each row was rounded once, and the sizes of the terms add up to
    `largest` at most (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1). The last summand covers
    the float64 errors of the coordinates, whose square root is of the order of 1e-7 where nothing is left out.
    """
    return 1.01 * (columns + 4) * SINGLE * largest + 1e-6
