"""The native engine: whole-number codes compared by the package eyechart-kernels, where it is installed.

A code is a sketch's principal coordinates and what they leave out, divided by one step s and rounded; e is the largest
error of any. A pair with a cosine above t has |x - y|² < |x|² + |y|² - 2t, so its codes differ by no more than
(sqrt(2 n - 2 t) + 2 e) / s, with n the largest |x|². Codes are compared in whole numbers, without any rounding.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int8
from numpy import ndarray

from eyechart.find import compiled, sketch
from eyechart.find.cells import GROUP, found_here, make_cells, visitors
from eyechart.find.engine import Candidates, pairs_between
from eyechart.find.exact import Rows, each_part, threshold

ROWS = 512
"""Rows to a task."""

MANY = 150_000
"""From so many rows on, cells save more than they cost."""

ROUNDED = 1e-6
"""A bound on what float32 may add to the distance of two rows of numbers."""

WORD = 32
"""Codes are a multiple of so many columns."""

LARGEST = 127
"""The largest whole number of a code."""

COLUMN_COST, PAIR_COST = 0.001, 100.0
"""Nanoseconds: a column of a pair, most of which are given up early, and a pair that is left. Only their ratio matters,
and only to speed; measured on one core with AVX-512."""


def missing(rows: Rows, device: str) -> str | None:
    """Why the native engine cannot work on these rows; None if it can."""
    if device != "cpu":
        return f"it works on the CPU, not on {device}"
    if rows.dtype != np.float32 or not rows.flags.c_contiguous or not rows.flags.aligned:
        return f"it reads float32 rows that lie one after another, not {rows.dtype}"
    if len(rows) < sketch.TRIED or rows.shape[1] <= min(sketch.WIDTHS):
        return f"{len(rows)} rows of {rows.shape[1]} are too few for codes to be worth it"
    return (
        None
        if compiled.installed() is not None
        else "eyechart-kernels is not installed (pip install ./kernels)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Whole numbers for each row, and what follows for those of two rows whose cosine is above the threshold."""

    numbers: Float[ndarray, "image column"]
    """Before they were rounded to whole steps; their distances are no larger than the rows' own."""

    codes: Int8[ndarray, "image code"]
    bound: int
    """How far apart the codes of such a pair are at most, squared."""

    reach: float
    """How far apart its numbers are at most."""

    slack: float
    """What rounding to whole steps may take from a bound on a cosine."""


def codes_of(rows: Rows, min_semantic: float, *, threads: int = 1) -> Codes:
    """Codes of the width that should take least time."""
    axes = sketch.principal_axes(rows)
    width, _ = sketch.cheapest(rows, axes, min_semantic, column_cost=COLUMN_COST, pair_cost=PAIR_COST)
    numbers, longest = coordinates_of(rows, axes, width, threads=threads)
    codes, step, error = coded(numbers, threads=threads)
    reach = math.sqrt(max(0.0, 2 * longest - 2 * min_semantic))
    return Codes(
        numbers=numbers,
        codes=codes,
        bound=math.ceil(min(((reach + 2 * error) / step) ** 2, 2.0**62)),
        reach=reach + ROUNDED,
        slack=((reach + 2 * error) ** 2 - reach**2) / 2,
    )


class Native:
    """Compares codes of all pairs; pairs whose float32 dot product is surely below the threshold are left out, too."""

    def __init__(self, rows: Rows, min_semantic: float, *, threads: int = 1) -> None:
        kernels = compiled.installed()
        found = codes_of(rows, min_semantic, threads=threads)
        self.name = f"native {kernels.isa()}"
        self.columns, self.slack = found.numbers.shape[1], found.slack
        self._kernels, self._rows, self._codes, self._bound = kernels, rows, found.codes, found.bound
        self._single = min_semantic - threshold(rows, min_semantic, above=True).error

    def tasks(self) -> Iterator[slice]:
        """Some rows, each to be compared with all rows after it."""
        for start in range(0, len(self._rows), ROWS):
            yield slice(start, min(start + ROWS, len(self._rows)))

    def candidates(self, task: slice) -> Iterator[Candidates]:
        """The pairs that begin with these rows and cannot be ruled out."""
        first, second, bounded, _ = self._kernels.scan(
            self._codes, self._bound, self._rows, self._single, None, 0.0, task.start, task.stop
        )
        compared = pairs_between(task, slice(0, len(self._rows)))
        yield Candidates(first=first, second=second, bounded=bounded, compared=compared)


class NativeCells:
    """The same, in cells: a row is compared with its own cell and with those that it has to visit."""

    def __init__(self, rows: Rows, min_semantic: float, *, threads: int = 1) -> None:
        kernels = compiled.installed()
        found = codes_of(rows, min_semantic, threads=threads)
        self.columns, self.slack = found.numbers.shape[1], found.slack
        self._cells = make_cells(found.numbers, threads=threads)
        self.name = f"native {kernels.isa()}, {self._cells.count} cells"
        self._kernels, self._rows, self._bound = kernels, rows, found.bound
        self._codes = found.codes[self._cells.order]
        self._ids = self._cells.order.astype(np.int32)
        self._half = found.reach / 2
        self._single = min_semantic - threshold(rows, min_semantic, above=True).error

    def tasks(self) -> Iterator[slice]:
        """Some cells that are visited."""
        for start in range(0, self._cells.count, GROUP):
            yield slice(start, min(start + GROUP, self._cells.count))

    def candidates(self, task: slice) -> Iterator[Candidates]:
        """The pairs of rows of these cells with each other and with their visitors that cannot be ruled out."""
        coming = visitors(self._cells, task, self._half)
        for cell, visiting in enumerate(coming, start=task.start):
            home = self._cells.of(cell)
            for start in range(home.start, home.stop, ROWS):  # as nearly equal rows may all share one home
                some = slice(start, min(start + ROWS, home.stop))
                yield self._at_home(some, home)
                yield self._met(cell, some, visiting)

    def _at_home(self, some: slice, home: slice) -> Candidates:
        first, second, bounded, _ = self._kernels.scan(
            self._codes,
            self._bound,
            self._rows,
            self._single,
            None,
            0.0,
            some.start,
            some.stop,
            until=home.stop,
            ids=self._ids,
        )
        compared = pairs_between(some, home)
        return self._named(first, second, bounded, compared)

    def _met(self, cell: int, some: slice, visiting: Int[ndarray, " visitor"]) -> Candidates:
        first, second, bounded, _ = self._kernels.between(
            self._codes,
            self._bound,
            self._rows,
            self._single,
            None,
            0.0,
            some.start,
            some.stop,
            visiting,
            ids=self._ids,
        )
        counted = found_here(self._cells, second, cell, first, self._half)
        compared = len(visiting) * (some.stop - some.start)
        return self._named(first[counted], second[counted], bounded, compared)

    def _named(
        self, first: Int[ndarray, " pair"], second: Int[ndarray, " pair"], bounded: int, compared: int
    ) -> Candidates:
        """Pairs of places as pairs of images, the smaller number first."""
        both = self._ids[first], self._ids[second]
        return Candidates(
            first=np.minimum(*both), second=np.maximum(*both), bounded=bounded, compared=compared
        )


def coordinates_of(
    rows: Rows, axes: sketch.Axes, columns: int, *, threads: int = 1
) -> tuple[Float[ndarray, "image column"], float]:
    """So many numbers for each row, whose distances are no larger than the rows' own, and the largest squared length.

    All are small: coordinates around the mean, and how much more or less than usual they leave out.
    """
    found = np.empty((len(rows), columns), np.float32)

    def fill(start: int, part: Float[ndarray, "part dim"]) -> float:
        short = sketch.coordinates(part, axes, columns - 1)
        short[:, -1] -= axes.rests[columns - 1]
        found[start : start + len(part)] = short
        return float(np.einsum("id,id->i", part, part).max(initial=0.0))

    return found, max(each_part(rows, fill, threads=threads), default=0.0)


def coded(
    numbers: Float[ndarray, "image column"], step: float | None = None, *, threads: int = 1
) -> tuple[Int8[ndarray, "image code"], float, float]:
    """Whole numbers, the step between them, and a bound on how far a row of numbers may be from its code.

    The numbers were rounded to float32 before, which is part of the bound. Codes are filled up with zeros to `WORD`.

    Args:
        step: without it, the largest number takes the largest code. Numbers too large for the step given make the bound
            wider, not wrong.
    """
    width = numbers.shape[1]
    if step is None:
        step = max(float(np.abs(numbers).max(initial=0.0)), 1e-12) / LARGEST
    codes = np.zeros((len(numbers), width + -width % WORD), np.int8)

    def fill(start: int, part: Float[ndarray, "part column"]) -> float:
        whole = np.clip(np.rint(part / step), -LARGEST, LARGEST)
        codes[start : start + len(part), :width] = whole
        return float(np.linalg.norm(part - step * whole, axis=1).max(initial=0.0))

    return codes, step, max(each_part(numbers, fill, threads=threads), default=0.0) + 1e-6
