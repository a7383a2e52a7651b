"""Files that survive a kill: atomic writes, append-only JSONL that heals, Parquet tables with a schema."""

import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import UserError

log = logging.getLogger(__name__)

Key = str | int | tuple[str | int, ...]
"""What tells two records of one file apart: the value of the key field, or of several."""

TEMPORARY = ".writing"
"""The ending of files that are being written; one that is left over belongs to a killed run."""


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` in `path`, whole or not at all, whatever happens meanwhile; folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as handle:
        handle.write(data)


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write `value` as indented JSON, atomically; on one line with `indent=None`.

    Raises:
        ValueError: it holds NaN or an infinity, which JSON has not.
        TypeError: it holds what JSON cannot.
    """
    write_bytes(path, _json(value, indent=indent))


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write `rows` as Parquet with exactly the columns of `schema`, atomically; same rows, same bytes.

    Raises:
        ValueError: a row lacks a column, has one too many, or is null where `schema` allows none.
        pyarrow.ArrowInvalid, pyarrow.ArrowTypeError: a value is not of its column's type.
    """
    listed = [dict(row) for row in rows]
    for place, row in enumerate(listed):
        if row.keys() != set(schema.names):
            raise ValueError(f"{path.name}, row {place}: columns {sorted(row)}; need {sorted(schema.names)}")
        empty = [f.name for f in schema if not f.nullable and row[f.name] is None]
        if empty:
            raise ValueError(f"{path.name}, row {place}: no value for {', '.join(empty)}")
    table = pa.Table.from_pylist(listed, schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as handle:
        pq.write_table(table, handle, compression="zstd")


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet table.

    Raises:
        UserError: there is no such file, or it is no Parquet table.
    """
    try:
        rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    except FileNotFoundError:
        raise UserError(f"there is no table {path}") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as a Parquet table: {error}") from None
    return rows


class JsonLines:
    """An append-only file of JSON records, one a line, each on the disk before `append` returns.

    A record is a mapping that holds the key field or fields; no two have the same key. Opening a file that a
    kill left with half a last line cuts that line off (`healed` counts the bytes). One process at a time.

    Raises:
        UserError: a line before the last cannot be read, lacks the key or repeats one; file and line are named.
    """

    def __init__(self, path: Path, *, key: str | tuple[str, ...]) -> None:
        self.path = path
        self.key = key
        self.healed = 0
        self._places: dict[Key, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle: IO[bytes] = path.open("ab", buffering=0)
        _sync_folder(path.parent)
        try:
            self._size = self._load()
        except BaseException:
            self._handle.close()
            raise

    @property
    def done(self) -> tuple[Key, ...]:
        """The keys of the records so far, in the order of the file."""
        return tuple(self._places)

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The records so far, in the order of the file."""
        with self.path.open("rb") as handle:
            for line in handle:
                yield json.loads(line)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record; when this returns, the disk has it.

        Raises:
            ValueError: its key is missing or was there before, or it holds NaN or an infinity.
            OSError: the disk would not take it; the file is as it was before.
        """
        key, line = self._key_of(record), _json(record)
        if key in self._places:
            raise ValueError(f"{self.path.name} already has a record with {self.key} = {key!r}")
        try:
            written = self._handle.write(line)
            if written != len(line):
                raise OSError(f"{self.path}: the disk took {written} of {len(line)} bytes")
            os.fsync(self._handle.fileno())
        except BaseException:
            os.truncate(self.path, self._size)
            raise
        self._places[key] = len(self._places)
        self._size += len(line)

    def finalise(self, order: Sequence[Key]) -> None:
        """Bring the records into `order`, atomically; a file already in order is not touched.

        Raises:
            ValueError: `order` does not name each record exactly once.
        """
        wanted = list(order)
        if wanted == list(self._places):
            return
        if len(wanted) != len(self._places) or set(wanted) != set(self._places):
            odd = sorted(map(repr, set(wanted) ^ set(self._places)))[:5]
            raise ValueError(
                f"{self.path.name} has {len(self._places)} records and the order names {len(wanted)}; "
                f"only on one side, or twice: {', '.join(odd) or 'a repeated key'}"
            )
        lines = self.path.read_bytes().split(b"\n")
        with _replacing(self.path) as handle:
            for key in wanted:
                handle.write(lines[self._places[key]] + b"\n")
        self._handle.close()
        self._handle = self.path.open("ab", buffering=0)
        self._places = {key: place for place, key in enumerate(wanted)}

    def close(self) -> None:
        """Close the file; what was appended is on the disk already."""
        self._handle.close()

    def _key_of(self, record: Mapping[str, Any]) -> Key:
        names = (self.key,) if isinstance(self.key, str) else self.key
        absent = [name for name in names if record.get(name) is None]
        if absent:
            raise ValueError(f"{self.path.name}: a record without {', '.join(absent)}: {dict(record)!r:.200}")
        values = tuple(record[name] for name in names)
        return values[0] if isinstance(self.key, str) else values

    def _load(self) -> int:
        """Take in the records there are and cut off a last line that is torn; how many bytes are left."""
        lines = self.path.read_bytes().split(b"\n")
        torn = lines.pop()  # what stands after the last newline
        if not torn and lines and _parsed(lines[-1]) is None:
            torn = lines.pop() + b"\n"
        for number, line in enumerate(lines, start=1):
            self._take_in(number, line)
        size = self.path.stat().st_size - len(torn)
        if torn:
            self.healed = len(torn)
            log.warning("%s: cut off a last line of %d bytes that was not whole", self.path, len(torn))
            os.truncate(self.path, size)
            os.fsync(self._handle.fileno())
        return size

    def _take_in(self, number: int, line: bytes) -> None:
        where = f"{self.path}, line {number}"
        record = _parsed(line)
        if record is None:
            raise UserError(
                f"{where} is not a JSON record: {line[:60]!r}. Mend the line, or start over with --fresh"
            )
        try:
            key = self._key_of(record)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        if key in self._places:
            raise UserError(f"{where} repeats {self.key} = {key!r}")
        self._places[key] = len(self._places)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:  # JSONDecodeError and UnicodeDecodeError
        return None
    return record if isinstance(record, dict) else None


def _json(value: Any, indent: int | None = None) -> bytes:
    """JSON with a newline, in UTF-8; text with half a surrogate pair, which UTF-8 has not, is escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent).encode() + b"\n"


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file beside `path`, not that of another writer, that takes its place when the block ends well."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{TEMPORARY}")
    try:
        with temporary.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk says which it is
        raise
    _sync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing in `folder` and below; only for who holds the folder's lock."""
    for path in folder.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def reserve(path: Path) -> None:
    """Have the disk set aside all of a file that is about to be filled through a memory map.

    Without it a full disk would be no error, but a signal that ends the process. Where a system has no such call,
    nothing happens.

    Raises:
        OSError: there is no room; the file is removed.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with path.open("rb+") as handle:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink()
        error.filename = str(path)
        raise


def _sync_folder(folder: Path) -> None:
    """Have the names in `folder` on the disk, not only the files' contents."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
