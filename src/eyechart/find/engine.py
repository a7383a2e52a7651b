"""What rules pairs out, and what it hands on: pairs that its bound leaves."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Pairs of images `first` < `second` that a bound could not rule out."""

    first: Int[ndarray, " pair"]
    second: Int[ndarray, " pair"]
    compared: int = 0
    """How many pairs were compared to find these."""

    tile: tuple[slice, slice] | None = None
    """The rows and columns of the tile they all lie in."""

    bounded: int | None = None
    """How many pairs the bound could not rule out, where some of them were then ruled out by a float32 product."""

    products: Float[Tensor, "row column"] | None = None
    """The float32 dot products of the tile's rows, where these were multiplied and no sketch of them."""

    def at(self, places: Bool[ndarray, " pair"]) -> "Candidates":
        """Some of the pairs."""
        return Candidates(
            first=self.first[places], second=self.second[places], tile=self.tile, products=self.products
        )


@runtime_checkable
class Engine(Protocol):
    """Goes through all pairs of images, in tasks that may run beside each other."""

    name: str
    columns: int
    """Of what it compares."""

    slack: float
    """What rounding may have taken from its bound on a cosine."""

    def tasks(self) -> Iterator[Any]:
        """Parts of the work; every pair that is not ruled out is a candidate in one of them, once."""

    def candidates(self, task: Any) -> Iterator[Candidates]:
        """The pairs of a task that cannot be ruled out, with how many were compared."""


def pairs_between(rows: slice, columns: slice) -> int:
    """How many i < j there are with i in the rows and j in the columns."""
    i = np.arange(rows.start, rows.stop)
    return int((columns.stop - np.clip(i + 1, columns.start, columns.stop)).sum())
