"""The fast path of an exact join over embeddings: which pairs of rows a bound on their codes cannot rule out.

Checks what it is given and says what is wrong with it; the work is done in C++, with the instructions this
processor has. Decides nothing closer than float32 can: the caller widens the thresholds by what that may be wrong, and
decides exactly.
"""

import math
import operator

import numpy as np
from numpy.typing import NDArray

from eyechart_kernels import _native

__all__ = ["available_isas", "between", "dots", "isa", "scan"]

_MAX_ROWS = 2**31 - 1
_BOUNDS = np.iinfo(np.int64)


def available_isas() -> list[str]:
    """The instruction sets that `scan` can use here, the fastest first."""
    return _native.available_isas()


def isa() -> str:
    """The instruction set that `scan` uses unless told otherwise."""
    return available_isas()[0]


def scan(
    codes: NDArray[np.int8],
    bound: int,
    semantic: NDArray[np.float32],
    min_single: float,
    reference: NDArray[np.float32] | None,
    max_single: float,
    start: int,
    stop: int,
    *,
    until: int | None = None,
    ids: NDArray[np.int32] | None = None,
    isa: str | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int32], int, int]:
    """Find pairs x < y with `x` in [start, stop): near by their codes, near by one dot product, far by another.

    Runs in the calling thread, without the interpreter's lock, and cannot be interrupted: call it for some hundred rows
    at a time.

    Args:
        codes: (row, column) whole numbers whose squared distance bounds the rows' own; a multiple of 32 columns. Most
            pairs are ruled out by the first 32 alone if those hold the columns that vary most.
        bound: a pair whose squared distance is larger is ruled out: in whole numbers, without any rounding.
        semantic: (row, dim) read for pairs within the bound; may be read-only and memory-mapped.
        min_single: a pair is near if its dot product, in float32, is larger.
        reference: (row, dim) read for near pairs; without it, all near pairs are returned.
        max_single: a near pair is returned if its dot product here, in float32, is smaller.
        start: first `x`.
        stop: end of the range of `x`.
        until: end of `y`; without it, `y` goes on to the last row.
        ids: (row) which row of `semantic` and `reference` each code is of; without it, they are in the same order.
        isa: one of `available_isas()`; without it, the fastest.

    Returns:
        The pairs as two columns `i` < `j`, in any order; how many pairs were within the bound; how many of these were
        near.

    Raises:
        ValueError: an array of another type, shape or layout; a range outside the rows; an unknown `isa`.
    """
    until = len(codes) if until is None else until
    if not 0 <= start <= stop <= until <= len(codes):
        raise ValueError(
            f"start is {start}, stop is {stop} and until is {until}, expected"
            f" 0 <= start <= stop <= until <= {len(codes)} rows"
        )
    whole = (operator.index(start) + 1, operator.index(until))
    return _scan(
        codes, bound, semantic, min_single, reference, max_single, ids, isa, (start, stop), None, whole
    )


def between(
    codes: NDArray[np.int8],
    bound: int,
    semantic: NDArray[np.float32],
    min_single: float,
    reference: NDArray[np.float32] | None,
    max_single: float,
    start: int,
    stop: int,
    right: NDArray[np.int32],
    *,
    ids: NDArray[np.int32] | None = None,
    isa: str | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int32], int, int]:
    """Find pairs of `x` in [start, stop) and `y` in `right`, as `scan` does: all of them, whichever is the larger.

    Args:
        start: first `x`.
        stop: end of `x`: few rows, which are kept at hand.
        right: the rows `y`, in any order and as many as there are; one that lies in [start, stop) meets itself, too.

    The other arguments are those of `scan`.

    Returns:
        As `scan`, with `x` as `i` and `y` as `j`.

    Raises:
        ValueError: as `scan`, or a row in `right` that there is not.
    """
    _check_places("right", right, len(codes))
    if not 0 <= start <= stop <= len(codes):
        raise ValueError(
            f"start is {start} and stop is {stop}, expected 0 <= start <= stop <= {len(codes)} rows"
        )
    every = (0, len(right))
    return _scan(
        codes, bound, semantic, min_single, reference, max_single, ids, isa, (start, stop), right, every
    )


def _scan(
    codes: NDArray[np.int8],
    bound: int,
    semantic: NDArray[np.float32],
    min_single: float,
    reference: NDArray[np.float32] | None,
    max_single: float,
    ids: NDArray[np.int32] | None,
    isa: str | None,
    left: tuple[int, int],
    right: NDArray[np.int32] | None,
    places: tuple[int, int],
) -> tuple[NDArray[np.int32], NDArray[np.int32], int, int]:
    """The rows `left` against the `right` ones at these places, or against the rows there, of which the later ones."""
    _check(codes, bound, semantic, min_single, reference, max_single, ids)
    start, stop = map(operator.index, left)
    return _native.scan(
        _chosen(isa),
        codes,
        operator.index(bound),
        semantic,
        float(min_single),
        reference,
        float(max_single),
        ids,
        start,
        stop,
        right,
        *places,
    )


def dots(rows: NDArray[np.float32], i: NDArray[np.int32], j: NDArray[np.int32]) -> NDArray[np.float64]:
    """The dot products of listed pairs of rows, in float64; the same bits on every processor.

    Eight sums, each of every eighth product (which is exact), one after another; then the first four and the last four
    are added, and halves again. Runs in the calling thread, without the interpreter's lock.

    Args:
        rows: (row, dim) may be read-only and memory-mapped.
        i: (pair) a row of each pair.
        j: (pair) the other.

    Raises:
        ValueError: an array of another type, shape or layout; rows that there are not.
    """
    _check_table("rows", rows, np.float32)
    for name, places in (("i", i), ("j", j)):
        _check_places(name, places, len(rows))
    if len(i) != len(j):
        raise ValueError(f"i has {len(i)} entries and j {len(j)}, expected as many")
    return _native.dots(rows, i, j)


def _check(
    codes: NDArray[np.int8],
    bound: int,
    semantic: NDArray[np.float32],
    min_single: float,
    reference: NDArray[np.float32] | None,
    max_single: float,
    ids: NDArray[np.int32] | None,
) -> None:
    _check_codes(codes)
    if ids is not None:
        _check_places("ids", ids, min(len(semantic), len(semantic if reference is None else reference)))
        if len(ids) != len(codes):
            raise ValueError(f"ids has {len(ids)} entries, expected {len(codes)}, as many as codes")
    expected = len(codes) if ids is None else None
    _check_singles("semantic", semantic, expected)
    if reference is not None:
        _check_singles("reference", reference, expected)
    _check_numbers(bound, min_single, max_single)


def _check_places(name: str, places: NDArray[np.int32], rows: int) -> None:
    if not isinstance(places, np.ndarray) or places.dtype != np.int32 or places.ndim != 1:
        kind = (
            f"{places.dtype} of shape {places.shape}"
            if isinstance(places, np.ndarray)
            else type(places).__name__
        )
        raise ValueError(f"{name} is {kind}, expected an int32 array of one axis")
    if not places.flags.c_contiguous:
        raise ValueError(f"{name} has strides {places.strides}, expected entries that follow one another")
    if len(places) and not 0 <= places.min() <= places.max() < rows:
        raise ValueError(f"{name} holds {places.min()} to {places.max()}, expected rows from 0 to {rows - 1}")


def _check_codes(codes: NDArray[np.int8]) -> None:
    _check_table("codes", codes, np.int8)
    rows, columns = codes.shape
    if columns % _native.STAGE or not 0 < columns <= _native.MAX_COLUMNS:
        raise ValueError(
            f"codes has {columns} columns, expected a multiple of {_native.STAGE} up to {_native.MAX_COLUMNS}: "
            "fill up with zeros"
        )
    if rows > _MAX_ROWS:
        raise ValueError(f"codes has {rows} rows, expected {_MAX_ROWS} at most")


def _check_singles(name: str, table: NDArray[np.float32], rows: int | None) -> None:
    _check_table(name, table, np.float32)
    if rows is not None and len(table) != rows:
        raise ValueError(f"{name} has {len(table)} rows, expected {rows}, as many as codes")


def _check_table(name: str, table: object, dtype: type[np.generic]) -> None:
    expected = f"expected an aligned C-contiguous {np.dtype(dtype)} array of two axes"
    if not isinstance(table, np.ndarray):
        raise ValueError(f"{name} is of type {type(table).__name__}, {expected}")
    if table.dtype != dtype:
        raise ValueError(f"{name} is {table.dtype}, {expected}")
    if table.ndim != 2:
        raise ValueError(f"{name} has shape {table.shape}, {expected}")
    if not table.flags.c_contiguous:
        raise ValueError(f"{name} has strides {table.strides} for shape {table.shape}, {expected}")
    if not table.flags.aligned:
        raise ValueError(f"{name} does not lie at a multiple of {table.itemsize} bytes in memory, {expected}")


def _check_numbers(bound: int, min_single: float, max_single: float) -> None:
    if not _BOUNDS.min <= bound <= _BOUNDS.max:
        raise ValueError(f"bound is {bound}, expected a whole number of 64 bits")
    for name, value in (("min_single", min_single), ("max_single", max_single)):
        if math.isnan(value):
            raise ValueError(f"{name} is {value}, expected a number")


def _chosen(isa: str | None) -> str:
    available = available_isas()
    if isa is None:
        return available[0]
    if isa not in available:
        raise ValueError(f"isa is {isa!r}, expected one of those available here: {', '.join(available)}")
    return isa
