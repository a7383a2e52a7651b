"""The raw results of the study of compensation: what was read of each picture, VLM by VLM, as one Parquet table."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Shaped
from numpy import ndarray

from eyechart.locate.arms import BOTH, INTACT, LANGUAGE, VISION, WHOLE, Cell
from eyechart.locate.knock_rows import Against, Instances
from eyechart.locate.run_parts import KNOCKOUTS

BUNDLED = -1
"""Stands for the seed of the VLMs that come with Eyechart."""

SCALES: Mapping[str, Against] = {"look-alikes": "rival", "all parts": "control"}
"""What a part's name is set against: the name of the part it could be taken for, or itself on regions elsewhere."""

CELLS: Mapping[str, Cell] = {
    INTACT: WHOLE,
    VISION: ("main", VISION),
    LANGUAGE: ("main", LANGUAGE),
    BOTH: ("main", BOTH),
}
BOTH_WAYS: Mapping[str, Cell] = {
    f"{VISION}, both ways": ("both ways", VISION),
    f"{BOTH}, both ways": ("both ways", BOTH),
}

SCHEMA = pa.schema(
    [
        ("vlm", pa.dictionary(pa.int8(), pa.string())),
        ("seed", pa.int8()),
        ("cut", pa.dictionary(pa.int8(), pa.string())),
        ("scale", pa.dictionary(pa.int8(), pa.string())),
        ("image", pa.dictionary(pa.int16(), pa.string())),
        ("parts", pa.int16()),
        ("layer", pa.int8()),
        ("cell", pa.dictionary(pa.int8(), pa.string())),
        ("total", pa.float32()),
    ]
)
"""`total` is the readability, in nats, summed over the picture's `parts` parts; layer 0 is the projector's output."""


def gather(readings: Iterable[tuple[str, int, str, Path]]) -> pa.Table:
    """The table of all readings: VLM, seed, vision cut and run folder of each."""
    rows = [row for vlm, seed, cut, folder in readings for row in _rows(vlm, seed, cut, folder)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _rows(vlm: str, seed: int, cut: str, folder: Path) -> Iterator[dict[str, Any]]:
    logged = [json.loads(line) for line in (folder / KNOCKOUTS).read_text("utf8").splitlines()]
    has = {key for line in logged for part in line["parts"] for key in part["read"]}
    cells = {**CELLS, **{name: cell for name, cell in BOTH_WAYS.items() if "|".join(cell) in has}}
    for scale, against in SCALES.items():
        found = Instances.of(logged, cells.values(), against=against)
        images = np.array(found.images)
        for name, cell in cells.items():
            values = found.readable(cell, "log_rank", 0)
            for image in dict.fromkeys(found.images):
                own = values[images == image]
                head = {"vlm": vlm, "seed": seed, "cut": cut, "scale": scale, "image": image, "cell": name}
                for layer, total in enumerate(own.sum(axis=0).tolist()):
                    yield {**head, "parts": len(own), "layer": layer, "total": total}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """What several seeds of one VLM show under one vision cut on one scale, at one layer."""

    seeds: tuple[int, ...]
    images: tuple[str, ...]
    sizes: Float[ndarray, " image"]
    """Parts of each picture."""

    cells: Mapping[str, Float[ndarray, "seed image"]]
    """By cell, the readability summed over each picture's parts."""


class Raw:
    """The table, read back."""

    def __init__(self, table: pa.Table) -> None:
        self._columns = {name: _array(table[name].combine_chunks()) for name in table.column_names}

    @classmethod
    def load(cls, path: Path) -> "Raw":
        """Read `gather`'s table from a Parquet file."""
        return cls(pq.read_table(path))

    @cached_property
    def layers(self) -> int:
        """The last layer's number."""
        return int(self._columns["layer"].max())

    def there(self) -> list[tuple[str, str]]:
        """Each VLM and vision cut, in the order of the table."""
        return list(dict.fromkeys(zip(self._columns["vlm"], self._columns["cut"], strict=True)))

    def block(
        self, vlm: str, cut: str, scale: str, layer: int, *, seeds: Iterable[int] | None = None
    ) -> Block:
        """One block; of some seeds only, where they are named.

        Raises:
            KeyError: nothing of it was read.
            ValueError: a seed lacks pictures or cells that others have.
        """
        some = self._columns
        here = (
            (some["vlm"] == vlm) & (some["cut"] == cut) & (some["scale"] == scale) & (some["layer"] == layer)
        )
        if seeds is not None:
            here &= np.isin(some["seed"], list(seeds))
        if not here.any():
            raise KeyError((vlm, cut, scale, layer))
        seed, image, cell = (np.asarray(some[name][here]) for name in ("seed", "image", "cell"))
        runs, pictures, names = np.unique(seed), np.unique(image), list(dict.fromkeys(cell))
        if len(seed) != len(runs) * len(pictures) * len(names):
            raise ValueError(f"{vlm}, {cut}, {scale}: not every seed has every picture and cell")
        totals = np.zeros((len(names), len(runs), len(pictures)))
        sizes = np.zeros(len(pictures))
        columns = np.searchsorted(pictures, image)
        sizes[columns] = some["parts"][here]
        which = np.array([names.index(one) for one in cell])
        totals[which, np.searchsorted(runs, seed), columns] = some["total"][here]
        return Block(
            seeds=tuple(runs.tolist()),
            images=tuple(pictures.tolist()),
            sizes=sizes,
            cells=dict(zip(names, totals, strict=True)),
        )


def _array(column: Any) -> Shaped[ndarray, " row"]:
    """A column's values; words by their places in the column's dictionary."""
    if not pa.types.is_dictionary(column.type):
        return np.asarray(column)
    words = np.array(column.dictionary.to_pylist())
    return np.asarray(words[np.asarray(column.indices)])
