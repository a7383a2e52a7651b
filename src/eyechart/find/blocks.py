"""Sketches of 64 bytes for blocks of rows, as files: what is shipped to whoever compares two blocks.

Coordinates and codes are those of `native`; the step is one for all blocks, taken from a sample, and each block carries
how far its own rows may be from their codes. So a block can be written wherever its rows can be read.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int8
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from eyechart.core import files
from eyechart.core.errors import UserError
from eyechart.find import native, sketch
from eyechart.find.exact import Rows, check_rows

COLUMNS = 64
"""Bytes of a sketch."""

BLOCK, MOST = 50_000, 400
"""Rows of a block; more where there would be more blocks than `MOST`, since every two make a tile."""

MARGIN = 1.25
"""The largest code stands for a number so many times the largest of the sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How rows become codes."""

    axes: sketch.Axes
    step: float

    @property
    def columns(self) -> int:
        """Numbers of a sketch: coordinates, and the length of what they leave out."""
        return int(self.axes.axes.shape[1]) + 1

    @property
    def name(self) -> str:
        """A short name for these very numbers; codes of two scales must never meet."""
        digest = hashlib.sha256(b"".join(table.tobytes() for table in asdict(self.axes).values()))
        return name_of(digest.hexdigest(), self.step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """The codes of a block's rows."""

    codes: Int8[ndarray, "row code"]
    error: float
    """How far a row's numbers are from its code at most."""

    longest: float
    """The largest squared length of a row."""


def open_rows(path: Path) -> Rows:
    """A table of rows, memory-mapped.

    Raises:
        UserError: it is not there.
    """
    try:
        shape = np.load(path, mmap_mode="r").shape
        rows: Rows = np.load(path, mmap_mode="r" if min(shape) else None)
    except FileNotFoundError:
        raise UserError(
            f"there is no {path} here; the engine needs folders that all machines share"
        ) from None
    return rows


def blocks_of(images: int, block: int) -> list[slice]:
    """The rows in blocks."""
    return [slice(start, min(start + block, images)) for start in range(0, images, block)]


def scale_of(rows: Rows) -> Scale:
    """Axes and a step for all blocks, from a sample of the rows."""
    columns = min(COLUMNS, rows.shape[1] + 1)
    if not len(rows):
        mean, some_axes = np.zeros(rows.shape[1]), np.eye(rows.shape[1], columns - 1)
        return Scale(axes=sketch.Axes(mean=mean, axes=some_axes, rests=np.zeros(columns)), step=1.0)
    found = sketch.principal_axes(rows)
    axes = sketch.Axes(
        mean=found.mean,
        axes=np.ascontiguousarray(found.axes[:, : columns - 1]),
        rests=found.rests[:columns].copy(),
    )
    some = rows[:: max(1, len(rows) // sketch.SAMPLED)]
    numbers, _ = native.coordinates_of(some, axes, columns)
    largest = max(float(np.abs(numbers).max()), 1e-12)
    return Scale(axes=axes, step=MARGIN * largest / native.LARGEST)


def kept_scale(path: Path, rows: Rows, name: str) -> Scale:
    """The scale that an earlier start wrote under this name; else a new one, written."""
    meta, tables = _loaded(path)
    parts = ("mean", "axes", "rests")
    if meta.get("name") == name and tables.keys() >= set(parts):  # an older version wrote no `rests`
        axes = sketch.Axes(**{part: tables[part] for part in parts})
        return Scale(axes=axes, step=json.loads(meta["step"]))
    made = scale_of(rows)
    about = {"name": name, "step": json.dumps(made.step)}
    files.write_bytes(path, save(asdict(made.axes), metadata=about))
    return made


def name_of(*choices: Any) -> str:
    """A short name for everything that a file's content depends on."""
    return hashlib.sha256(json.dumps(choices).encode()).hexdigest()[:16]


def write_sketch(path: Path, rows: Rows, scale: Scale, name: str) -> None:
    """Write the codes of a block's rows, under a name for what they depend on."""
    numbers, longest = native.coordinates_of(rows, scale.axes, scale.columns)
    codes, _, error = native.coded(numbers, scale.step)
    meta = {"name": name, "about": json.dumps({"error": error, "longest": longest})}
    files.write_bytes(path, save({"codes": codes}, metadata=meta))


def read_sketch(path: Path, name: str) -> Sketch | None:
    """The codes that were written under this name; None where there are none."""
    meta, tables = _loaded(path)
    if meta.get("name") != name:
        return None
    return Sketch(codes=tables["codes"], **json.loads(meta["about"]))


def check_block(tables: dict[str, Rows], rows: slice) -> None:
    """Refuse a block of tables whose rows have no cosine; see `exact.check_rows`."""
    for name, table in tables.items():
        check_rows(table[rows], name, [f"row {place}" for place in range(rows.start, rows.stop)])


def pairs_of_blocks(count: int) -> Iterator[tuple[int, int]]:
    """Every two blocks, and each with itself."""
    for first in range(count):
        for second in range(first, count):
            yield first, second


def _loaded(path: Path) -> tuple[dict[str, str], dict[str, ndarray]]:
    """What a file says and holds; nothing where it cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError):
        return {}, {}
