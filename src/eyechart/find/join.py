"""The exact join: all pairs of images that are near under one encoder and far under another.

Sketches bound every pair's first cosine from above (`sketch`), in tiles of a matrix product that is never held whole; what
the bound leaves is decided on the rows themselves, exactly (`exact`); the second cosine is read only for pairs that
satisfy the first condition. Limits work while pairs are being found (`keep`).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from eyechart.core.errors import UserError
from eyechart.find import sketch
from eyechart.find.exact import Rows, Threshold, check_rows, double_dots, threshold
from eyechart.find.keep import Columns, Keeper

MIN_SEMANTIC, MAX_REFERENCE = 0.95, 0.6
"""The published rule ("Eyes Wide Shut?", arXiv 2401.06209, section 3)."""

TILE = (512, 4096)
"""Rows and columns of a tile; the second is a multiple of `_WORD`."""

DENSE = 0.2
"""From this share of a tile on, its rows are multiplied whole; one by one they would take longer."""

_WORD = 8  # marks that are looked at in one
_TILES = 8  # tiles to a task

Progress = Callable[[str, int, int], None]
Where = Callable[[Int[ndarray, " pair"], Int[ndarray, " pair"]], Bool[ndarray, " pair"]]
"""Which of some pairs of images count at all."""

_Pairs = tuple[Int[ndarray, " pair"], Int[ndarray, " pair"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What was compared, and what each stage left."""

    images: int
    pairs: int
    """Pairs of images there are."""

    compared: int
    """Pairs whose bound was computed."""

    columns: int
    """Of a sketch; as many as the rows have where no sketch would have been faster."""

    slack: float
    """How far rounding may have lowered a bound; so much below the threshold was still looked at."""

    bounded: int
    """Pairs that the bound could not rule out."""

    semantic: int
    """Of these, pairs above the first threshold: exactly."""

    found: int
    """Of these, pairs below the second threshold, exactly, and allowed by `where`."""

    kept: int
    """Of these, the pairs that the limits leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """Pairs, the most suspicious first, and what is known of how they were found."""

    pairs: Columns
    certificate: Certificate
    alike: Columns
    """Pairs that both encoders take for nearly the same; empty where they were not asked for."""

    alike_found: int


def mine_pairs(
    semantic: Rows,
    reference: Rows,
    *,
    min_semantic: float = MIN_SEMANTIC,
    max_reference: float = MAX_REFERENCE,
    per_image: int | None = None,
    budget: int | None = None,
    where: Where | None = None,
    min_alike: float | None = None,
    ids: Sequence[str] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress = lambda stage, done, total: None,
) -> Mined:
    """Find all pairs i < j with a first cosine above `min_semantic` and a second below `max_reference`, both strictly.

    None is missed and none invented: a pair's cosine is the dot product of its rows as they are stored, without any
    rounding. No table of all pairs is ever held.

    Args:
        semantic: (image, dim) rows of length 1 of the encoder that is examined, float32 or float16, possibly
            memory-mapped.
        reference: (image, dim) the same images under the encoder that tells them apart; read only for pairs that satisfy
            the first condition.
        per_image: keep a pair only if it is among so many most suspicious ones of both its images. Suspicious is a
            large gap between the two cosines; ties go to the smaller `i`, then `j`.
        budget: keep at most so many pairs.
        where: which pairs count at all; called with some pairs' `i` and `j` from several threads.
        min_alike: also list pairs above `min_semantic` whose second cosine is above this one, under the same limits.
        ids: names of the images, for messages.
        threads: tiles at a time (default: as many as torch uses).
        device: where tiles are multiplied; what they leave is decided on the CPU.
        progress: told pairs that were compared.

    Returns:
        The pairs kept as columns `i`, `j`, `semantic`, `reference` (float64), the most suspicious first, and a
        certificate with the number found.

    Raises:
        UserError: not one row each for the same images; a row that is zero, not finite or not of length 1; a limit
            below 1.
    """
    images = len(semantic)
    _check(semantic, reference, ids, per_image, budget)
    keepers = Keeper(per_image=per_image, budget=budget), Keeper(per_image=per_image, budget=budget)
    join = _Join(
        semantic=threshold(semantic, min_semantic, above=True),
        reference=threshold(reference, max_reference, above=False),
        alike=None if min_alike is None else threshold(reference, min_alike, above=True),
        sketches=sketch.choose(semantic, min_semantic),
        where=where,
        keepers=keepers,
        device=torch.device(device),
    )
    total = images * (images - 1) // 2
    with _one_thread_each() as had:
        _run(join, images, threads or had, lambda done: progress("joining", done, total))
    kept = keepers[0].kept()
    certificate = Certificate(
        images=images,
        pairs=total,
        compared=total,
        columns=join.sketches.columns,
        slack=join.sketches.slack,
        bounded=join.bounded,
        semantic=join.passed,
        found=keepers[0].found,
        kept=len(kept),
    )
    return Mined(pairs=kept, certificate=certificate, alike=keepers[1].kept(), alike_found=keepers[1].found)


def _check(
    semantic: Rows, reference: Rows, ids: Sequence[str] | None, per_image: int | None, budget: int | None
) -> None:
    if not len(semantic) == len(reference) == (len(semantic) if ids is None else len(ids)):
        names = "" if ids is None else f" and {len(ids)} ids"
        raise UserError(
            f"{len(semantic)} semantic rows and {len(reference)} reference rows{names}: need one each for the same images"
        )
    for name, limit in (("per_image", per_image), ("budget", budget)):
        if limit is not None and limit < 1:
            raise UserError(f"{name} is {limit}; it must be at least 1, or None for no limit")
    for name, rows in (("semantic", semantic), ("reference", reference)):
        check_rows(rows, name, ids)


@dataclass(kw_only=True)
class _Join:
    """The conditions, and what was found so far."""

    semantic: Threshold
    reference: Threshold
    alike: Threshold | None
    sketches: sketch.Sketches
    where: Where | None
    keepers: tuple[Keeper, Keeper]
    device: torch.device
    bounded: int = 0
    passed: int = 0

    def __post_init__(self) -> None:
        self._lock, self._own = threading.Lock(), threading.local()
        self._left = self.sketches.left.to(self.device)
        self._right = self.sketches.right.to(self.device)
        cut = np.float32(self.semantic.value - self.sketches.slack)
        self._cut = float(np.nextafter(cut, np.float32(-np.inf)))

    def tile(self, rows: slice, columns: slice) -> None:
        """Everything about the pairs of some rows with some columns."""
        products, marks = self._table(rows.stop - rows.start, columns.stop - columns.start)
        torch.mm(self._left[rows], self._right[columns].T, out=products)
        first, second = _marked(torch.gt(products, self._cut, out=marks))
        first, second = first + rows.start, second + columns.start
        if columns.start < rows.stop:
            upper = first < second
            first, second = first[upper], second[upper]
        if len(first):
            self._decide(first, second, products, rows, columns)

    def _table(
        self, height: int, width: int
    ) -> tuple[Float[Tensor, "row column"], Bool[Tensor, "row column"]]:
        """Where this thread puts a tile's products and marks: one place, since fresh memory has to be faulted in."""
        if not hasattr(self._own, "table"):
            size = TILE[0] * TILE[1]
            self._own.table = (
                torch.empty(size, device=self.device),
                torch.empty(size, dtype=torch.bool, device=self.device),
            )
        products, marks = self._own.table
        return products[: height * width].view(height, width), marks[: height * width].view(height, width)

    def _decide(
        self,
        first: Int[ndarray, " pair"],
        second: Int[ndarray, " pair"],
        products: Float[Tensor, "row column"],
        rows: slice,
        columns: slice,
    ) -> None:
        bounded = len(first)
        known = products if self.sketches.exact else None
        passed = _passed(self.semantic, first, second, known, rows, columns)
        first, second = first[passed], second[passed]
        far = _passed(self.reference, first, second, None, rows, columns)
        found = self._columns(first[far], second[far])
        near = None
        if self.alike is not None:
            alike = ~far
            alike[alike] = self.alike.passed(first[alike], second[alike])
            near = self._columns(first[alike], second[alike])
        with self._lock:
            self.bounded += bounded
            self.passed += len(first)
            self.keepers[0].add(found)
            if near is not None:
                self.keepers[1].add(near)

    def _columns(self, first: Int[ndarray, " pair"], second: Int[ndarray, " pair"]) -> Columns:
        if self.where is not None:
            allowed = self.where(first, second)
            first, second = first[allowed], second[allowed]
        return Columns(
            i=first.astype(np.int32),
            j=second.astype(np.int32),
            semantic=double_dots(self.semantic.rows, first, second),
            reference=double_dots(self.reference.rows, first, second),
        )


def _passed(
    test: Threshold,
    first: Int[ndarray, " pair"],
    second: Int[ndarray, " pair"],
    known: Float[Tensor, "row column"] | None,
    rows: slice,
    columns: slice,
) -> Bool[ndarray, " pair"]:
    """Which pairs of a tile lie beyond a threshold; where they are many, by one product of the tile's rows."""
    size = (rows.stop - rows.start) * (columns.stop - columns.start)
    if known is None and len(first) > DENSE * size:
        left, right = (torch.from_numpy(np.array(test.rows[part], np.float32)) for part in (rows, columns))
        known = left @ right.T
    if known is None:
        return test.passed(first, second)
    single = (
        known[torch.from_numpy(first - rows.start), torch.from_numpy(second - columns.start)].cpu().numpy()
    )
    return test.decided(first, second, single)


def _marked(marks: Bool[Tensor, "row column"]) -> _Pairs:
    """Where a table of few marks has them; eight are looked at in one."""
    odd = -marks.shape[1] % _WORD
    if odd:
        marks = torch.nn.functional.pad(marks, (0, odd))
    words = marks.view(torch.int64).nonzero()
    row, word = words[:, 0], words[:, 1]
    some = marks.view(marks.shape[0], -1, _WORD)[row, word]
    place, bit = some.nonzero(as_tuple=True)
    return row[place].cpu().numpy(), (word[place] * _WORD + bit).cpu().numpy()


def _run(join: _Join, images: int, threads: int, progress: Callable[[int], None]) -> None:
    """Work through all tiles on and above the diagonal; an interrupt ends it with the tiles that are under way."""
    done = 0
    progress(0)
    pool = ThreadPoolExecutor(max_workers=threads)
    try:
        for compared in pool.map(lambda tiles: _task(join, tiles), _tasks(images)):
            done += compared
            progress(done)
    finally:
        pool.shutdown(cancel_futures=True)


def _task(join: _Join, tiles: Sequence[tuple[slice, slice]]) -> int:
    for rows, columns in tiles:
        join.tile(rows, columns)
    return sum(_pairs_in(rows, columns) for rows, columns in tiles)


def _tasks(images: int) -> Iterator[list[tuple[slice, slice]]]:
    """Tiles that hold all pairs i < j between them, some to a task; the largest tasks come first."""
    height, width = TILE
    for top in range(0, images, height):
        rows = slice(top, min(top + height, images))
        starts = range(top - top % _WORD, images, width)
        tiles = [(rows, slice(left, min(left + width, images))) for left in starts]
        for start in range(0, len(tiles), _TILES):
            yield tiles[start : start + _TILES]


def _pairs_in(rows: slice, columns: slice) -> int:
    """How many i < j with i in the rows and j in the columns."""
    i = np.arange(rows.start, rows.stop)
    return int((columns.stop - np.clip(i + 1, columns.start, columns.stop)).sum())


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """One thread to a product, so that tiles run beside each other; yields how many threads torch had."""
    had = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield had
    finally:
        torch.set_num_threads(had)
