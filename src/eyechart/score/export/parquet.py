"""Items and their pictures as Parquet shards that `datasets` reads with an `Image` feature, in flat memory."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eyechart.score.export.pictures import read_picture, suffix_of
from eyechart.score.export.rows import Row, images_of, plain

SHARD = 500_000_000
"""Bytes of pictures in a shard, about."""

GROUP = 64
"""Rows that are in memory at a time."""

_TEXTS = (
    "id",
    "pair_id",
    "side",
    "question",
    "answer",
    "corrected_answer",
    "pattern",
    "facets",
    "image_sha256",
)
_IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


def image_columns(rows: Sequence[Row]) -> list[str]:
    """`image`, and `image_2` and so on where an item has more than one picture."""
    most = max(len(row.item.images) for row in rows)
    return ["image", *(f"image_{number}" for number in range(2, most + 1))]


def columns(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Each column's name and kind (`string`, `strings` or `image`); a column that would be empty is left out."""
    filled = {
        "pair_id": any(row.item.pair_id for row in rows),
        "side": any(row.side for row in rows),
        "pattern": any(row.item.pattern for row in rows),
        "facets": any(row.item.facets for row in rows),
    }
    kinds = [(name, "string") for name in _TEXTS if filled.get(name, True)]
    place = [name for name, _ in kinds].index("answer")
    kinds.insert(place, ("options", "strings"))
    return [*kinds, *((name, "image") for name in image_columns(rows))]


def write_shards(folder: Path, rows: Sequence[Row], *, split: str, shard: int = SHARD) -> list[str]:
    """Write all rows; the two of a pair stay in one shard.

    Args:
        folder: where; made when absent.
        rows: as `rows_of` gives them.
        split: the split's name.
        shard: bytes of pictures after which a new file begins.

    Returns:
        The files' names, in order.

    Raises:
        UserError: a picture is gone or has changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = columns(rows)
    schema = _schema(kinds)
    cuts = list(_cuts(rows, shard))
    names = []
    for number, part in enumerate(cuts):
        name = f"{split}-{number:05d}-of-{len(cuts):05d}.parquet"
        with pq.ParquetWriter(folder / name, schema, compression="zstd") as writer:
            for start in range(0, len(part), GROUP):
                cells = [_cells(row, kinds) for row in part[start : start + GROUP]]
                writer.write_table(pa.Table.from_pylist(cells, schema=schema))
        names.append(name)
    return names


def _schema(kinds: Sequence[tuple[str, str]]) -> pa.Schema:
    arrow = {"string": pa.string(), "strings": pa.list_(pa.string()), "image": _IMAGE}
    text = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = {
        "string": text,
        "strings": {"feature": text, "_type": "Sequence"},  # read by datasets of all ages
        "image": {"_type": "Image"},
    }
    about = {"info": {"features": {name: features[kind] for name, kind in kinds}}}
    return pa.schema(
        [pa.field(name, arrow[kind]) for name, kind in kinds], metadata={"huggingface": json.dumps(about)}
    )


def _cuts(rows: Sequence[Row], shard: int) -> Iterator[list[Row]]:
    part: list[Row] = []
    size = 0
    for row in rows:
        if size >= shard and row.side != "b":
            yield part
            part, size = [], 0
        part.append(row)
        size += sum(path.stat().st_size for path in row.item.images if path.is_file())
    yield part


def _cells(row: Row, kinds: Sequence[tuple[str, str]]) -> dict[str, Any]:
    cells = plain(row)
    shown = []
    for path, sha256 in images_of(row.item):
        content = read_picture(path, sha256)
        shown.append({"bytes": content, "path": sha256[:16] + suffix_of(content)})
    names = [name for name, kind in kinds if kind == "image"]
    cells |= dict(zip(names, [*shown, *[None] * (len(names) - len(shown))], strict=True))
    return {name: cells[name] for name, _ in kinds}
