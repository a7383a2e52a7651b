"""The native engine: whole-number codes compared by the package eyechart-kernels, where it is installed.

A code is a sketch's principal coordinates and what they leave out, divided by one step s and rounded; e is the largest
error of any. A pair with a cosine above t has |x - y|² < |x|² + |y|² - 2t, so its codes differ by no more than
(sqrt(2 n - 2 t) + 2 e) / s, with n the largest |x|². Codes are compared in whole numbers, without any rounding.
"""

import importlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int8
from numpy import ndarray

from eyechart.find import sketch
from eyechart.find.engine import Candidates, pairs_between
from eyechart.find.exact import Rows, parts, threshold

ROWS = 512
"""Rows to a task."""

WORD = 32
"""Codes are a multiple of so many columns."""

LARGEST = 127
"""The largest whole number of a code."""

COLUMN_COST, PAIR_COST = 0.006, 300.0
"""Nanoseconds: a column of a pair, most of which are given up early, and a pair that is left. Only their ratio matters,
and only to speed; measured on one core with AVX2."""


def missing(rows: Rows, device: str) -> str | None:
    """Why the native engine cannot work on these rows; None if it can."""
    if device != "cpu":
        return f"it works on the CPU, not on {device}"
    if rows.dtype != np.float32 or not rows.flags.c_contiguous or not rows.flags.aligned:
        return f"it reads float32 rows that lie one after another, not {rows.dtype}"
    if len(rows) < sketch.TRIED or rows.shape[1] <= min(sketch.WIDTHS):
        return f"{len(rows)} rows of {rows.shape[1]} are too few for codes to be worth it"
    return None if _kernels() is not None else "eyechart-kernels is not installed (pip install ./kernels)"


def _kernels() -> Any:
    try:
        return importlib.import_module("eyechart_kernels")
    except ImportError:  # not there, or built for another machine
        return None


class Native:
    """Compares codes of all pairs; pairs whose float32 dot product is surely below the threshold are left out, too."""

    def __init__(self, rows: Rows, min_semantic: float) -> None:
        kernels = _kernels()
        self.name = f"native {kernels.isa()}"
        self._scan, self._rows = kernels.scan, rows
        axes = sketch.principal_axes(rows)
        self.columns = self._width(rows, axes, min_semantic)
        coordinates, longest = _coordinates(rows, axes, self.columns)
        self._codes, step, error = coded(coordinates)
        reach = math.sqrt(max(0.0, 2 * longest - 2 * min_semantic))
        self._bound = math.ceil(min(((reach + 2 * error) / step) ** 2, 2.0**62))
        self.slack = ((reach + 2 * error) ** 2 - reach**2) / 2
        self._single = min_semantic - threshold(rows, min_semantic, above=True).error

    @staticmethod
    def _width(rows: Rows, axes: sketch.Axes, min_semantic: float) -> int:
        shares = sketch.shares(rows, axes, min_semantic)
        return min(shares, key=lambda width: COLUMN_COST * width + PAIR_COST * shares[width])

    def tasks(self) -> Iterator[slice]:
        """Some rows, each to be compared with all rows after it."""
        for start in range(0, len(self._rows), ROWS):
            yield slice(start, min(start + ROWS, len(self._rows)))

    def pairs(self, task: slice) -> int:
        """How many pairs begin with these rows."""
        return pairs_between(task, slice(0, len(self._rows)))

    def candidates(self, task: slice) -> Iterator[Candidates]:
        """The pairs that begin with these rows and cannot be ruled out."""
        first, second, bounded, _ = self._scan(
            self._codes, self._bound, self._rows, self._single, None, 0.0, task.start, task.stop
        )
        yield Candidates(first=first, second=second, bounded=bounded)


def _coordinates(rows: Rows, axes: sketch.Axes, columns: int) -> tuple[Float[ndarray, "image column"], float]:
    """So many numbers for each row, whose distances are no larger than the rows' own, and the largest squared length."""
    found = np.empty((len(rows), columns), np.float32)
    longest = 0.0
    for start, part in parts(rows):
        found[start : start + len(part)] = sketch.coordinates(part, axes, columns - 1)
        longest = max(longest, float(np.einsum("id,id->i", part, part).max(initial=0.0)))
    return found, longest


def coded(
    numbers: Float[ndarray, "image column"],
) -> tuple[Int8[ndarray, "image code"], float, float]:
    """Whole numbers, the step between them, and a bound on how far a row of numbers may be from its code.

    The numbers were rounded to float32 before, which is part of the bound. Codes are filled up with zeros to `WORD`.
    """
    width = numbers.shape[1]
    step = max(float(np.abs(numbers).max(initial=0.0)), 1e-12) / LARGEST
    codes = np.zeros((len(numbers), width + -width % WORD), np.int8)
    error = 0.0
    for start, part in parts(numbers):
        whole = np.clip(np.rint(part / step), -LARGEST, LARGEST)
        codes[start : start + len(part), :width] = whole
        error = max(error, float(np.linalg.norm(part - step * whole, axis=1).max(initial=0.0)))
    return codes, step, error + 1e-6
