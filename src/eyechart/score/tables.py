"""Read a benchmark's rows from CSV, TSV, JSON, JSONL, Parquet or a saved dataset folder.

A table comes in, rows of raw cells come out, each with its number as a person counts it: 1 is the first row
of data. Nothing here knows what the columns mean; which files are one table is for `finding` to say.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eyechart.core.errors import UserError, need


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of raw cells; `number` counts from 1 at the first row of data, through all files of the table."""

    number: int
    cells: Mapping[str, Any]
    file: str = ""
    """The name of the file it stands in, where the table is of several files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows as they stand in a file; relative image paths start at `folder`."""

    path: Path
    folder: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def read_table(path: Path) -> Table:
    """Read a table file, or a folder that `datasets.Dataset.save_to_disk` wrote.

    Raises:
        UserError: the kind of file is not known, the file is damaged, empty, or not UTF-8.
    """
    reader = _read_saved if path.is_dir() else _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: no reader for {path.suffix!r}. Readers there are: {', '.join(_READERS)}.")
    table = reader(path)
    if not table.rows:
        raise UserError(f"{path}: the table has no rows")
    return table


def read_tables(paths: Sequence[Path], folder: Path) -> Table:
    """Read one table, or several files of one table joined in their order.

    Args:
        paths: the files.
        folder: where the files of one table lie, for messages, and relative pictures of tables from several folders.

    Raises:
        UserError: as `read_table`, or two files have other columns.
    """
    tables = [read_table(path) for path in paths]
    if len(tables) == 1:
        return tables[0]
    first = tables[0]
    for table in tables[1:]:
        if set(table.columns) != set(first.columns):
            raise UserError(
                f"{table.path} has the columns {', '.join(table.columns)}, and {first.path.name} has"
                f" {', '.join(first.columns)}: these are not files of one table; give the one that is the benchmark"
            )
    joined = [(row.cells, table.path.name) for table in tables for row in table.rows]
    same = {table.folder for table in tables}
    return Table(
        path=folder,
        folder=same.pop() if len(same) == 1 else folder,
        columns=first.columns,
        rows=tuple(Row(number=n, cells=cells, file=file) for n, (cells, file) in enumerate(joined, start=1)),
        notes=(
            f"one table of {len(tables)} files, joined: {', '.join(table.path.name for table in tables)}",
            *(note for table in tables for note in table.notes),
        ),
    )


def can_read(path: Path) -> bool:
    """Whether there is a reader for this kind of file."""
    return path.suffix.lower() in _READERS


def endings() -> str:
    """The kinds of files that are read, for people."""
    return ", ".join(_READERS)


def is_saved_dataset(folder: Path) -> bool:
    """Whether the folder is one that `save_to_disk` of the `datasets` library wrote."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _table(path: Path, columns: Iterable[Any], rows: Iterable[Mapping[str, Any]], *notes: str) -> Table:
    names = [str(column).strip() for column in columns]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise UserError(f"{path}: two columns have the same name: {', '.join(map(repr, twice))}")
    numbered = [Row(number=number, cells=cells) for number, cells in enumerate(rows, start=1)]
    kept = [row for row in numbered if any(cell not in (None, "") for cell in row.cells.values())]
    if len(kept) < len(numbered):
        notes = (*notes, f"{len(numbered) - len(kept)} empty rows skipped")
    folder = path if path.is_dir() else path.parent
    return Table(path=path, folder=folder, columns=tuple(names), rows=tuple(kept), notes=notes)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def _read_delimited(path: Path, delimiter: str) -> Table:
    text = _text(path)
    top = text.partition("\n")[0]
    if delimiter == "," and "," not in top and ";" in top:
        delimiter = ";"  # what spreadsheets write where the comma is the decimal sign
    notes: tuple[str, ...] = ()
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "limit" in str(error):
            raise UserError(f"{path}: {error}; such cells belong in Parquet") from None
        lines = [_split(line, delimiter) for line in re.split(r"\r\n|\r|\n", text)]
        notes = (
            f"{path.name}: quotation marks inside a quoted cell are not doubled; read as text ({error})",
        )
    lines = [line for line in lines if line]
    if not lines:
        raise UserError(f"{path}: the file is empty")
    header, body = [name.strip() for name in lines[0]], lines[1:]
    for number, line in enumerate(body, start=1):
        if len(line) != len(header):
            raise UserError(
                f"{path}: row {number} has {len(line)} cells, the header has {len(header)} "
                f"({', '.join(header)}); is a cell with {delimiter!r} in it not quoted?"
            )
    return _table(path, header, (dict(zip(header, line, strict=True)) for line in body), *notes)


def _split(line: str, delimiter: str) -> list[str]:
    """The cells of a line whose quoted cells hold bare quotation marks.

    A quoted cell ends only at a quotation mark before a delimiter or the line's end; what else is in it is
    text. One public copy of MMVP's table is written so.
    """
    cells: list[str] = []
    rest: str | None = line
    while rest is not None:
        cell, rest = _quoted(rest, delimiter) if rest.startswith('"') else _bare(rest, delimiter)
        cells.append(cell)
    return [] if cells == [""] else cells


def _bare(rest: str, delimiter: str) -> tuple[str, str | None]:
    cell, found, tail = rest.partition(delimiter)
    return cell, tail if found else None


def _quoted(rest: str, delimiter: str) -> tuple[str, str | None]:
    end = rest.find('"' + delimiter, 1)
    if end < 0:
        return rest[1:].removesuffix('"').replace('""', '"'), None
    return rest[1:end].replace('""', '"'), rest[end + 2 :]


def _read_csv(path: Path) -> Table:
    return _read_delimited(path, ",")


def _read_tsv(path: Path) -> Table:
    return _read_delimited(path, "\t")


def _objects(path: Path, rows: list[Any]) -> Table:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(
                f"{path}: row {number} is {type(row).__name__}, expected an object of named cells"
            )
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    return _table(path, columns, ({str(key).strip(): cell for key, cell in row.items()} for row in rows))


def _read_json(path: Path) -> Table:
    """A list of objects, an object of objects by their ids (as SugarCrepe's), or one object a line (as POPE's)."""
    text = _text(path)
    try:
        rows = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        rows = _lines(text)
        if rows is None:
            raise UserError(f"{path}: no JSON ({error}); one object for each line is .jsonl") from None
    if isinstance(rows, dict) and rows and all(isinstance(cells, dict) for cells in rows.values()):
        rows = [{"id": key, **cells} for key, cells in rows.items()]
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of objects, got {type(rows).__name__}")
    return _objects(path, rows)


def _lines(text: str) -> list[Any] | None:
    """The objects of a text that has one on each line, None where it is no such text."""
    try:
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (json.JSONDecodeError, RecursionError):
        return None
    return rows if len(rows) > 1 and all(isinstance(row, dict) for row in rows) else None


def _read_jsonl(path: Path) -> Table:
    rows = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{path}: line {number} is no JSON ({error})") from None
    return _objects(path, rows)


def _read_parquet(path: Path) -> Table:
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise UserError(f"{path}: no readable Parquet file ({error})") from None
    return _table(path, table.column_names, table.to_pylist())


def _read_saved(folder: Path) -> Table:
    """A folder of `save_to_disk`: images stay bytes, class labels become their names."""
    datasets = need("datasets", why="reading a saved dataset folder")
    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, LookupError, pa.ArrowException) as error:
        raise UserError(f"{folder}: no readable saved dataset ({error})") from None
    if isinstance(saved, datasets.DatasetDict):
        if len(saved) != 1:
            splits = ", ".join(sorted(map(str, saved)))
            raise UserError(f"{folder}: a dataset of {len(saved)} splits ({splits}); give the folder of one")
        (saved,) = saved.values()
    features = dict(saved.features)
    for column, feature in features.items():
        if isinstance(feature, datasets.Image):
            saved = saved.cast_column(column, datasets.Image(decode=False))
    labels = {name: kind.int2str for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
    rows = [
        {
            name: labels[name](cell) if name in labels and cell is not None and cell >= 0 else cell
            for name, cell in row.items()
        }
        for row in saved.with_format(None)
    ]
    return _table(folder, features, rows)


_READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
