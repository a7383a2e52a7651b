"""Which dot products lie above or below a threshold, decided exactly: no rounding, whatever multiplied them first.

The decision is on the true sum of the products of the stored float32 values. A float32 sum decides where it is farther
from the threshold than it can be wrong, a float64 sum where that is, and a sum without any rounding the rest. So every
way of multiplying (tiles, gathers, a kernel of its own) comes to the same pairs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.find import compiled

Result = TypeVar("Result")

Rows = Float[ndarray, "_ _"]
"""A vector for each image, in float32 or float16; memory-mapped or not."""

SINGLE, DOUBLE = 2.0**-24, 2.0**-53
"""Half the distance of 1 from the next number up: what one operation in float32 or float64 may be wrong by, as a share."""

LANES = 8
"""Partial sums of a float64 dot product."""

STEP = 256
"""Pairs whose rows are gathered at a time: so few that they stay in a core's own cache."""

PART = 4096
"""Rows that are read at a time."""

FEW = 512
"""Rows that are worked on at a time: in float64 they stay in a core's own cache."""

LENGTH_TOLERANCE = 0.01
"""How far a row's length may lie from 1; float16 rounds it by up to 0.0005."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Rows, and the cosine that a pair of them has to lie beyond, strictly."""

    rows: Rows
    value: float
    above: bool
    """Whether the dot product has to be larger than the value; else smaller."""

    error: float
    """How far a float32 dot product of two of these rows may be from the truth."""

    def passed(self, first: Int[ndarray, " pair"], second: Int[ndarray, " pair"]) -> Bool[ndarray, " pair"]:
        """Which of the listed pairs lie beyond, exactly."""
        dots = double_dots if _compiled_for(self.rows) is not None else single_dots
        return self.decided(first, second, dots(self.rows, first, second))

    def decided(
        self, first: Int[ndarray, " pair"], second: Int[ndarray, " pair"], dots: Float[ndarray, " pair"]
    ) -> Bool[ndarray, " pair"]:
        """The same, where dot products are known already, in float32 or float64."""
        sign = 1 if self.above else -1
        beyond: Bool[ndarray, " pair"] = sign * (dots - self.value) > 0
        error = self.error if dots.dtype == np.float32 else _double_error(self.rows, self.value)
        unsure = np.flatnonzero(np.abs(dots - self.value) <= error)
        if len(unsure):
            sides = _sides(self.rows, first[unsure], second[unsure], self.value)
            beyond[unsure] = sign * sides > 0
        return beyond


def threshold(rows: Rows, value: float, *, above: bool) -> Threshold:
    """The threshold with its error bound: n roundings of terms whose sizes add up to the product of two lengths at most."""
    longest = 1 + LENGTH_TOLERANCE
    error = 1.01 * (rows.shape[1] + 2) * SINGLE * longest**2
    return Threshold(rows=rows, value=value, above=above, error=error)


def single_dots(
    rows: Rows, first: Int[ndarray, " pair"], second: Int[ndarray, " pair"]
) -> Float[ndarray, " pair"]:
    """The dot products of listed pairs of rows, summed in float32."""
    found = np.empty(len(first), np.float32)
    for some, left, right in _gathered(rows, first, second, np.float32):
        np.einsum("pd,pd->p", left, right, out=found[some])
    return found


def double_dots(
    rows: Rows, first: Int[ndarray, " pair"], second: Int[ndarray, " pair"]
) -> Float[ndarray, " pair"]:
    """The dot products of listed pairs of rows, summed in float64 in the order of `lane_sums`: everywhere the same bits."""
    kernels = _compiled_for(rows)
    if kernels is not None:
        dots: Float[ndarray, " pair"] = kernels.dots(rows, first.astype(np.int32), second.astype(np.int32))
        return dots
    found = np.empty(len(first))
    for some, left, right in _gathered(rows, first, second, np.float64):
        found[some] = lane_sums(left * right)
    return found


def _compiled_for(rows: Rows) -> Any:
    """The package eyechart-kernels, where it is installed and can read these rows; else None."""
    readable = rows.dtype == np.float32 and rows.flags.c_contiguous and rows.flags.aligned
    return compiled.installed() if readable else None


def lane_sums(numbers: Float[ndarray, "row column"]) -> Float[ndarray, " row"]:
    """Sums of rows of float64 in an order that is laid down: every eighth column one after another, then halves of these.

    So the last bit depends neither on the machine nor on what else is summed with a row.
    """
    full = numbers.shape[1] // LANES * LANES
    lanes = np.zeros((len(numbers), LANES))
    for column in range(0, full, LANES):
        lanes += numbers[:, column : column + LANES]
    lanes[:, : numbers.shape[1] - full] += numbers[:, full:]
    fours = lanes[:, :4] + lanes[:, 4:]
    twos = fours[:, :2] + fours[:, 2:]
    sums: Float[ndarray, " row"] = twos[:, 0] + twos[:, 1]
    return sums


def _gathered(
    rows: Rows, first: Int[ndarray, " pair"], second: Int[ndarray, " pair"], dtype: type[np.floating]
) -> Iterator[tuple[slice, Rows, Rows]]:
    for start in range(0, len(first), STEP):
        some = slice(start, start + STEP)
        left, right = (rows[place[some]].astype(dtype, copy=False) for place in (first, second))
        yield some, left, right


def _sides(
    rows: Rows, first: Int[ndarray, " pair"], second: Int[ndarray, " pair"], value: float
) -> Float[ndarray, " pair"]:
    """A number with the sign of each dot product minus the value: exact."""
    sides = double_dots(rows, first, second) - value
    for place in np.flatnonzero(np.abs(sides) <= _double_error(rows, value)):
        left, right = (rows[one[place]].astype(np.float64) for one in (first, second))
        sides[place] = math.fsum(
            [*(left * right).tolist(), -value]
        )  # products of two float32 are exact in float64
    return sides


def _double_error(rows: Rows, value: float) -> float:
    """How far the difference of a float64 dot product and a value may be from the truth."""
    longest = 1 + LENGTH_TOLERANCE
    return float(1.01 * (rows.shape[1] + 2) * DOUBLE * (longest**2 + abs(value)))


def check_rows(rows: Rows, name: str, ids: Sequence[str] | None = None) -> None:
    """Refuse rows whose dot products are no cosines.

    Args:
        name: what the rows are, for the message.
        ids: the images' names, for the message; without them, the rows' numbers.

    Raises:
        UserError: a row is not finite, zero, or not of length 1 within `LENGTH_TOLERANCE`; the images are named.
    """
    if rows.dtype not in (np.float32, np.float16):
        raise UserError(f"{name} is {rows.dtype}, expected float32 or float16: convert it first")
    reasons: dict[str, list[int]] = {"not finite": [], "all zeros": [], "not of length 1": []}
    for start in range(0, len(rows), PART):
        part = np.asarray(rows[start : start + PART], np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.sqrt(np.einsum("id,id->i", part, part))
        odd = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))
        for place in odd.tolist():
            reasons[_reason(part[place])].append(start + place)
    said = [
        f"{len(places)} of {len(rows)} {reason} ({_named(places, ids)})"
        for reason, places in reasons.items()
        if places
    ]
    if said:
        raise UserError(
            f"rows of {name} have no cosine: {'; '.join(said)}. Leave them out, or divide each row by its length first"
        )


def _reason(row: Float[ndarray, " dim"]) -> str:
    if not np.isfinite(row).all():
        return "not finite"
    return "not of length 1" if row.any() else "all zeros"


def _named(places: list[int], ids: Sequence[str] | None) -> str:
    shown = [f"row {place}" if ids is None else ids[place] for place in places[:5]]
    return ", ".join([*shown, "..."] if len(places) > 5 else shown)


def pool_of(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch takes as many of its own as it was told to; by itself it asks only after a first product."""
    return ThreadPoolExecutor(threads, initializer=torch.get_num_threads)


def each_part(
    rows: Rows, work: Callable[[int, Float[ndarray, "part dim"]], Result], *, threads: int = 1
) -> list[Result]:
    """What comes of all rows, a few hundred at a time in float64, with where they start; in order, on several threads."""

    def one(start: int) -> Result:
        with np.errstate(over="ignore"):
            return work(start, np.asarray(rows[start : start + FEW], np.float64))

    with pool_of(threads) as pool:
        return list(pool.map(one, range(0, len(rows), FEW)))
