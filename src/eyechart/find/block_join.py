"""The join of two blocks of rows, on its own: from their sketches to one file of pairs under a name of its own.

Sketches rule pairs out; what they leave is decided on the rows themselves, of which only those are read. The files of all
tiles together give what `join.mine_pairs` finds, in whatever order and however often they were written. Nothing here
knows a cluster.
"""

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int
from numpy import ndarray

from eyechart.core import files
from eyechart.find import compiled, native, tiles
from eyechart.find.blocks import Sketch, open_rows
from eyechart.find.engine import Candidates, pairs_between
from eyechart.find.exact import Rows, threshold
from eyechart.find.join import Join, Where
from eyechart.find.keep import Columns, Keeper

FARTHEST = 2**22
"""Above every squared distance of two codes of 64 columns; whole numbers up to here are exact in float32, doubled, too."""

TILE_SCHEMA = pa.schema(
    [
        pa.field("i", pa.int32(), nullable=False),
        pa.field("j", pa.int32(), nullable=False),
        pa.field("semantic", pa.float64(), nullable=False),
        pa.field("reference", pa.float64(), nullable=False),
        pa.field("alike", pa.bool_(), nullable=False),
    ]
)
"""A tile's pairs; `alike` where both encoders take the two for nearly the same. Its counts are in the metadata."""

_COUNTS = b"eyechart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all tiles have in common. Paths are the same on every machine."""

    semantic: Path
    reference: Path
    tiles: Path
    name: str
    """For everything that the pairs depend on; a file under another name is computed again."""

    images: int
    block: int
    step: float
    min_semantic: float
    max_reference: float
    min_alike: float | None
    per_image: int | None
    budget: int | None
    where: Where | None

    def path(self, tile: tuple[int, int]) -> Path:
        """Where the pairs of two blocks are written."""
        return self.tiles / f"{tile[0]:06d}-{tile[1]:06d}.parquet"

    def rows(self, block: int) -> slice:
        """The rows of a block."""
        return slice(block * self.block, min((block + 1) * self.block, self.images))

    def slack(self, first: Sketch, second: Sketch) -> tuple[int, float]:
        """How far apart two codes of a pair above the threshold may be, squared, and what that takes from the cosine."""
        reach = math.sqrt(max(0.0, first.longest + second.longest - 2 * self.min_semantic))
        wide = reach + first.error + second.error
        return math.ceil(min((wide / self.step) ** 2, float(FARTHEST))), (wide**2 - reach**2) / 2


def solve(job: Job, tile: tuple[int, int], first: Sketch, second: Sketch) -> None:
    """Find the pairs of two blocks and write them, unless they are there."""
    if counts(job, tile) is not None:
        return
    semantic, reference = open_rows(job.semantic), open_rows(job.reference)
    limits = {"per_image": job.per_image, "budget": job.budget}
    join = Join(
        semantic=threshold(semantic, job.min_semantic, above=True),
        reference=threshold(reference, job.max_reference, above=False),
        alike=None if job.min_alike is None else threshold(reference, job.min_alike, above=True),
        engine=Blocks(job, tile, (first, second), semantic),
        where=job.where,
        keepers=(Keeper(**limits), Keeper(**limits)),
    )
    with tiles.one_thread_each():
        for task in join.engine.tasks():
            join.task(task)
    _write(job, tile, join)


def _write(job: Job, tile: tuple[int, int], join: Join) -> None:
    parts = [
        _table(keeper.possible(), alike) for keeper, alike in zip(join.keepers, (False, True), strict=True)
    ]
    told = {
        "name": job.name,
        "compared": join.compared,
        "bounded": join.bounded,
        "semantic": join.passed,
        "found": join.keepers[0].found,
        "alike": join.keepers[1].found,
    }
    table = pa.concat_tables(parts).replace_schema_metadata({_COUNTS: json.dumps(told).encode()})
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd")
    files.write_bytes(job.path(tile), data.getvalue())


def _table(pairs: Columns, alike: bool) -> pa.Table:  # noqa: FBT001
    columns = [pairs.i, pairs.j, pairs.semantic, pairs.reference, np.full(len(pairs), alike)]
    return pa.table([pa.array(column) for column in columns], schema=TILE_SCHEMA)


def counts(job: Job, tile: tuple[int, int]) -> dict[str, Any] | None:
    """What the file of a tile counts; None where there is no such file of this job."""
    try:
        meta = pq.read_metadata(job.path(tile)).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    told: dict[str, Any] = json.loads(meta.get(_COUNTS, b"{}"))
    return told if told.get("name") == job.name else None


def read_pairs(job: Job, tile: tuple[int, int]) -> tuple[Columns, Columns]:
    """The pairs of a tile, and those that both encoders take for nearly the same."""
    table = pq.read_table(job.path(tile), schema=TILE_SCHEMA)
    pairs = Columns(**{name: table[name].to_numpy() for name in ("i", "j", "semantic", "reference")})
    alike = table["alike"].to_numpy()
    return pairs.at(~alike), pairs.at(alike)


class Blocks:
    """Compares the codes of one block's rows with another's, or with those after them in the same block."""

    name = "blocks"

    def __init__(
        self, job: Job, tile: tuple[int, int], sketches: tuple[Sketch, Sketch], semantic: Rows
    ) -> None:
        self._rows, self._columns = (job.rows(block) for block in tile)
        self._alone = tile[0] == tile[1]
        codes = sketches[:1] if self._alone else sketches
        self._codes = np.concatenate([one.codes for one in codes])
        parts = (self._rows,) if self._alone else (self._rows, self._columns)
        self._ids = np.concatenate([np.arange(part.start, part.stop, dtype=np.int32) for part in parts])
        self._bound, self.slack = job.slack(*sketches)
        self.columns = self._codes.shape[1]
        self._semantic = semantic
        self._single = job.min_semantic - threshold(semantic, job.min_semantic, above=True).error
        self._kernels: Any = compiled.installed() if semantic.dtype == np.float32 else None
        if self._kernels is None:
            self._left, self._right = _products(self._codes)

    def tasks(self) -> Iterator[slice]:
        """Some rows of the first block, by their places in it."""
        for start in range(0, self._height, native.ROWS):
            yield slice(start, min(start + native.ROWS, self._height))

    def candidates(self, task: slice) -> Iterator[Candidates]:
        """The pairs of these rows and the other block's that cannot be ruled out."""
        yield from self._multiplied(task) if self._kernels is None else self._scanned(task)

    @property
    def _height(self) -> int:
        return int(self._rows.stop - self._rows.start)

    def _others(self, task: slice) -> slice:
        """The places of the rows that these are compared with."""
        return slice(task.start if self._alone else self._height, len(self._ids))

    def _scanned(self, task: slice) -> Iterator[Candidates]:
        given = (self._codes, self._bound, self._semantic, self._single, None, 0.0)
        if self._alone:
            first, second, bounded, _ = self._kernels.scan(*given, task.start, task.stop, ids=self._ids)
        else:
            others = self._others(task)
            right = np.arange(others.start, others.stop, dtype=np.int32)
            first, second, bounded, _ = self._kernels.between(
                *given, task.start, task.stop, right, ids=self._ids
            )
        compared = pairs_between(task, self._others(task))
        yield Candidates(first=self._ids[first], second=self._ids[second], bounded=bounded, compared=compared)

    def _multiplied(self, task: slice) -> Iterator[Candidates]:
        others = self._others(task)
        for start in range(others.start, others.stop, tiles.TILE[1]):
            columns = slice(start, min(start + tiles.TILE[1], others.stop))
            near = self._left[task] @ self._right[columns].T >= -self._bound
            first, second = near.numpy().nonzero()
            first, second = first + task.start, second + columns.start
            upper = first < second
            yield Candidates(
                first=self._ids[first[upper]],
                second=self._ids[second[upper]],
                compared=pairs_between(task, columns),
                tile=(self._in_table(task), self._in_table(columns)),
            )

    def _in_table(self, places: slice) -> slice:
        """The rows at places that follow one another in one block."""
        start = int(self._ids[places.start])
        return slice(start, start + places.stop - places.start)


def _products(codes: Int[ndarray, "row code"]) -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows for each code: one's left times another's right is minus their squared distance, exactly, in float32."""
    wide = codes.astype(np.float32)
    length, one = np.square(wide).sum(1), np.ones(len(wide), np.float32)
    left, right = np.column_stack([2 * wide, -length, one]), np.column_stack([wide, one, -length])
    return torch.from_numpy(left), torch.from_numpy(right)
