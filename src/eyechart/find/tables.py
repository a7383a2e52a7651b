"""Pictures in tables: Parquet files, and datasets on disk or of the hub."""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eyechart.core.errors import UserError, need, unknown
from eyechart.core.images import BadImage
from eyechart.core.records import Quarantined
from eyechart.find.listing import Listing, Picture, listing_of

DATASET = "hf:"
"""Before the name of a dataset of the Hugging Face hub, possibly followed by `:` and a split."""


def list_tables(
    source: str, files: Sequence[Path], image_column: str | None, label_column: str | None
) -> Listing:
    """Every row of Parquet files; a file that cannot be read is quarantined."""
    pictures: list[Picture] = []
    broken: list[Quarantined] = []
    for path in files:
        try:
            with pq.ParquetFile(path) as table:
                schema = table.schema_arrow
                column = _image_column(schema, image_column, str(path))
                pictures += _rows(path, table, column, _label_column(schema, label_column, str(path)))
        except (pa.ArrowException, OSError) as error:
            broken.append(
                Quarantined(path=path.name, reason="damaged", detail=" ".join(str(error).split())[:200])
            )
    sizes = {str(path): path.stat().st_size for path in files}
    return listing_of(source, pictures, [sizes[picture.file] for picture in pictures], 0, broken)


def _rows(path: Path, table: Any, column: str, label_column: str | None) -> Iterator[Picture]:
    names = _class_names(table.schema_arrow, label_column)
    number = 0
    for group in range(table.num_row_groups):
        count = table.metadata.row_group(group).num_rows
        labels = [None] * count
        if label_column:
            labels = table.read_row_group(group, columns=[label_column])[label_column].to_pylist()
        for row, label in enumerate(labels):
            said = None if label is None else names.get(label, str(label))
            yield Picture(
                id=f"{path.name}/{number}",
                kind="parquet",
                file=str(path),
                place=(group, row),
                column=column,
                label=said,
            )
            number += 1


def _image_column(schema: pa.Schema, wish: str | None, where: str) -> str:
    if wish is not None:
        if wish not in schema.names:
            raise unknown(f"column of {where}", wish, schema.names)
        return wish
    fitting = [field.name for field in schema if _holds_bytes(field.type)]
    if not fitting:
        raise UserError(
            f"{where} has no column of pictures (bytes, or a struct with bytes); it has {', '.join(schema.names)}"
        )
    return "image" if "image" in fitting else fitting[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(place).name == "bytes" for place in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _label_column(schema: pa.Schema, wish: str | None, where: str) -> str | None:
    if wish is not None and wish not in schema.names:
        raise unknown(f"column of {where}", wish, schema.names)
    return wish or ("label" if "label" in schema.names else None)


def _class_names(schema: pa.Schema, label_column: str | None) -> dict[Any, str]:
    """What the numbers of a label column mean, where `datasets` wrote it down in the table."""
    try:
        known = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label_column]["names"]
    except (KeyError, TypeError, ValueError):
        return {}
    return dict(enumerate(known))


@lru_cache(maxsize=4)
def _row_group(file: str, group: int, column: str) -> list[Any]:
    with pq.ParquetFile(file) as table:
        cells: list[Any] = table.read_row_group(group, columns=[column])[column].to_pylist()
    return cells


def read_cell(picture: Picture) -> bytes:
    """The bytes of a picture in a table."""
    if picture.kind == "parquet":
        cell = _row_group(picture.file, picture.place[0], picture.column)[picture.place[1]]
    else:
        cell = _dataset(picture.file, picture.column)[picture.place[1]][picture.column]
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if data is None and isinstance(cell, dict) and cell.get("path"):
        data = Path(cell["path"]).read_bytes()
    if not isinstance(data, bytes):
        raise BadImage(picture.id, "empty", f"the cell holds {type(data).__name__}, not bytes")
    return data


@lru_cache(maxsize=4)
def _dataset(name: str, column: str | None) -> Any:
    """A dataset whose pictures are given as bytes; of several splits, the one named, or the first."""
    datasets = need("datasets", why=f"reading {name}")
    if name.startswith(DATASET):
        id_, _, split = name.removeprefix(DATASET).partition(":")
        try:
            found = datasets.load_dataset(id_, split=split or None)
        except (OSError, ValueError) as error:
            raise UserError(f"the dataset {id_!r} cannot be had: {error}") from None
    else:
        found = datasets.load_from_disk(name)
    if isinstance(found, dict):
        found = found[next(iter(found))]
    if column is None:
        return found
    return found.cast_column(column, datasets.Image(decode=False))


def list_dataset(source: str, image_column: str | None, label_column: str | None) -> Listing:
    """Every row of a dataset."""
    found = _dataset(source, None)
    features = found.features
    pictures = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if image_column is not None and image_column not in pictures:
        raise unknown(f"column of pictures in {source}", image_column, pictures)
    if not pictures:
        raise UserError(f"{source} has no column of pictures; it has {', '.join(features)}")
    column = image_column or ("image" if "image" in pictures else pictures[0])
    if label_column is not None and label_column not in features:
        raise unknown(f"column of {source}", label_column, features)
    labelled = label_column or ("label" if "label" in features else None)
    labels = [None] * len(found) if labelled is None else found[labelled]
    names = dict(enumerate(getattr(features.get(labelled), "names", None) or []))
    listed = [
        Picture(
            id=str(row),
            kind="dataset",
            file=source,
            place=(0, row),
            column=column,
            label=None if label is None else names.get(label, str(label)),
        )
        for row, label in enumerate(labels)
    ]
    return listing_of(source, listed, [0] * len(listed))
