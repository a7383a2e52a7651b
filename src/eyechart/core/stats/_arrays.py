"""What a caller hands in, checked and turned into arrays."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any, SupportsFloat, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from eyechart.core.errors import unknown

Values: TypeAlias = Sequence[SupportsFloat] | npt.NDArray[Any]
"""A list, tuple or array of numbers (or of true and false)."""

Count: TypeAlias = SupportsIndex
"""A whole number of Python or of numpy."""

FloatArray: TypeAlias = npt.NDArray[np.float64]

_CELLS = 1 << 20  # numbers held at once while resampling: 8 MiB of float64


def numbers(values: Values | Sequence[Values], what: str, *, axes: int = 1) -> FloatArray:
    """The values as float64 with `axes` axes.

    Raises:
        ValueError: there are none, they are not numbers, one is not finite, or the axes do not fit.
    """
    given = np.asarray(values)
    if given.ndim != axes:
        raise ValueError(f"{what} must have {axes} axis/axes, got an array of shape {given.shape}")
    if given.size == 0:
        raise ValueError(f"{what} is empty (shape {given.shape}): nothing was scored")
    if given.dtype.kind not in "biuf":
        raise ValueError(f"{what} must hold numbers, got {given.flat[0]!r} ... of type {given.dtype}")
    array = given.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        place = tuple(wrong[0].tolist())
        raise ValueError(f"{what} holds {array[place]} at {place}; leave such values out and say so")
    return array


def booleans(values: Values, what: str) -> npt.NDArray[np.bool]:
    """The values as true and false along one axis; numbers other than 0 and 1 are refused.

    Raises:
        ValueError: as for `numbers`, or a value is neither 0 nor 1.
    """
    array = numbers(values, what)
    other = array[(array != 0) & (array != 1)]
    if len(other):
        raise ValueError(f"{what} must hold only true and false (or 1 and 0), got {other[0]}")
    return np.asarray(array == 1, dtype=np.bool)


def count(value: Count, what: str, *, least: int = 0) -> int:
    """The value as an int of at least `least`.

    Raises:
        ValueError: it is smaller.
    """
    whole = operator.index(value)
    if whole < least:
        raise ValueError(f"{what} must be {least} or more, got {whole}")
    return whole


def share(value: float, what: str) -> float:
    """The value, if it lies strictly between 0 and 1.

    Raises:
        ValueError: it does not.
    """
    if not 0 < value < 1:
        raise ValueError(f"{what} must lie between 0 and 1, got {value}; for 95 % say 0.95")
    return float(value)


def one_of(value: str, what: str, known: tuple[str, ...]) -> None:
    """Refuse a choice that does not exist, so that no result is ever labelled with one.

    Raises:
        UserError: the value is none of those known.
    """
    if value not in known:
        raise unknown(what, value, known)


def same(array: FloatArray) -> bool:
    """Whether all values are one number, but for rounding."""
    return bool(np.ptp(array) <= 1e-12 * np.abs(array).max())


def chunks(rows: int, width: int) -> Iterator[int]:
    """How many resamples to take at a time, so that no block of them has more than 2^20 numbers."""
    step = max(1, _CELLS // width)
    for start in range(0, rows, step):
        yield min(step, rows - start)
