"""The portable engine: sketches multiplied in tiles, on whatever torch runs on."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from eyechart.find import sketch
from eyechart.find.engine import Candidates, pairs_between
from eyechart.find.exact import Rows

TILE = (512, 4096)
"""Rows and columns of a tile; the second is a multiple of `_WORD`."""

_WORD = 8  # marks that are looked at in one
_TILES = 8  # tiles to a task

IN_BFLOAT16 = {"cuda"}
"""Devices that multiply sketches in bfloat16 first; what these leave is decided as everywhere."""

Tile = tuple[slice, slice]


class Tiles:
    """Bounds every pair's cosine from above by a product of sketches; no table larger than a tile is held."""

    name = "portable"

    def __init__(self, rows: Rows, min_semantic: float, device: torch.device, *, threads: int = 1) -> None:
        sketches = sketch.choose(rows, min_semantic, threads=threads)
        if device.type in IN_BFLOAT16:
            sketches = sketch.in_bfloat16(sketches)
        self.columns, self.slack, self._exact = sketches.columns, sketches.slack, sketches.exact
        self._images, self._device = len(rows), device
        self._left, self._right = sketches.left.to(device), sketches.right.to(device)
        self._cut = _below(min_semantic - sketches.slack, self._left.dtype)
        self._own = threading.local()

    def tasks(self) -> Iterator[list[Tile]]:
        """Some tiles of the same rows each, on and above the diagonal."""
        height, width = TILE
        for top in range(0, self._images, height):
            rows = slice(top, min(top + height, self._images))
            starts = range(top - top % _WORD, self._images, width)
            tiles = [(rows, slice(left, min(left + width, self._images))) for left in starts]
            for start in range(0, len(tiles), _TILES):
                yield tiles[start : start + _TILES]

    def candidates(self, task: Sequence[Tile]) -> Iterator[Candidates]:
        """The pairs of each tile that its products cannot rule out."""
        for rows, columns in task:
            products, marks = self._table(rows.stop - rows.start, columns.stop - columns.start)
            torch.mm(self._left[rows], self._right[columns].T, out=products)
            first, second = _marked(torch.gt(products, self._cut, out=marks))
            first, second = first + rows.start, second + columns.start
            if columns.start < rows.stop:
                upper = first < second
                first, second = first[upper], second[upper]
            known = products if self._exact else None
            yield Candidates(
                first=first,
                second=second,
                compared=pairs_between(rows, columns),
                tile=(rows, columns),
                products=known,
            )

    def _table(
        self, height: int, width: int
    ) -> tuple[Float[Tensor, "row column"], Bool[Tensor, "row column"]]:
        """Where this thread puts a tile's products and marks: one place, since fresh memory has to be faulted in."""
        if not hasattr(self._own, "table"):
            size = TILE[0] * TILE[1]
            self._own.table = (
                torch.empty(size, device=self._device, dtype=self._left.dtype),
                torch.empty(size, dtype=torch.bool, device=self._device),
            )
        products, marks = self._own.table
        return products[: height * width].view(height, width), marks[: height * width].view(height, width)


def _below(value: float, dtype: torch.dtype) -> float:
    """A number of this type that is no larger than the value, and near it."""
    found = torch.tensor(value - 2 * torch.finfo(dtype).eps * abs(value), dtype=dtype)
    return float(found)


def _marked(marks: Bool[Tensor, "row column"]) -> tuple[Int[ndarray, " mark"], Int[ndarray, " mark"]]:
    """Where a table of few marks has them; eight are looked at in one."""
    odd = -marks.shape[1] % _WORD
    if odd:
        marks = torch.nn.functional.pad(marks, (0, odd))
    words = marks.view(torch.int64).nonzero()
    row, word = words[:, 0], words[:, 1]
    some = marks.view(marks.shape[0], -1, _WORD)[row, word]
    place, bit = some.nonzero(as_tuple=True)
    return row[place].cpu().numpy(), (word[place] * _WORD + bit).cpu().numpy()


@contextmanager
def one_thread_each() -> Iterator[int]:
    """One thread to a product, so that tiles run beside each other; yields how many threads torch had.

    And sums in float32 of what a GPU multiplies in bfloat16, which is more than torch asks for by itself.
    """
    matmul = torch.backends.cuda.matmul
    had, reduced = torch.get_num_threads(), matmul.allow_bf16_reduced_precision_reduction
    torch.set_num_threads(1)
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield had
    finally:
        torch.set_num_threads(had)
        matmul.allow_bf16_reduced_precision_reduction = reduced
