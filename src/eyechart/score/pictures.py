"""Find the picture each row of a table means, and open it: a path, bytes in the table, or a number in a folder."""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyechart.core.errors import UserError
from eyechart.core.files import write_bytes
from eyechart.core.images import BadImage, open_image
from eyechart.score.tables import Table

_log = logging.getLogger(__name__)

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
_MAGIC = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A picture that opened: where it is and the sha256 of its bytes."""

    path: Path
    sha256: str
    size: tuple[int, int]
    """(width, height) in pixels, as stored."""


@dataclass(slots=True, kw_only=True)
class Pictures:
    """The pictures of one table; each is opened once, and what was seen on the way is remembered."""

    table: Table
    store: Path | None
    """Where pictures that stand in the table as bytes are written, each under its own sha256."""

    search: bool = False
    """Whether a picture that is not where the table says is looked for, by its name, in the folders below."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    _opened: dict[Path, Opened | BadImage] = field(default_factory=dict)
    _by_stem: dict[str, Path] | None = None
    _below: list[Path] | None = None

    def open(self, cell: Any, item_id: str) -> Opened:
        """The picture of a row: `cell` is what its image column holds, None where there is no such column.

        Raises:
            BadImage: it is not there or cannot be read.
            UserError: the cell is of no kind that is known, or holds bytes and there is no `store`.
        """
        path = self.find(cell, item_id)
        if path not in self._opened:
            self._opened[path] = self._look(path)
        seen = self._opened[path]
        if isinstance(seen, BadImage):
            raise seen
        return seen

    def find(self, cell: Any, item_id: str) -> Path:
        """Where the picture is; for bytes, where it was now written.

        Raises:
            UserError: see `open`.
        """
        if cell is None:
            return self._numbered(item_id)
        if isinstance(cell, Mapping) and cell.get("bytes") is not None:
            cell = cell["bytes"]
        elif isinstance(cell, Mapping):
            cell = cell.get("path")
        if isinstance(cell, bytes):
            return self._written(cell, item_id)
        if isinstance(cell, str) and cell.strip():
            return self._named(cell.strip())
        raise UserError(
            f"{self.table.path}: item {item_id!r}: the image is {str(cell)[:80]!r}; expected a path or bytes"
        )

    def _look(self, path: Path) -> Opened | BadImage:
        try:
            opened = open_image(path)
        except BadImage as error:
            _log.info("%s: %s", path, error)
            return error
        self.sizes.append(opened.size_on_disk)
        self.remarks.update(opened.notes)
        return Opened(path=path, sha256=opened.sha256, size=opened.size_on_disk)

    def _named(self, name: str) -> Path:
        """Where the table says, or else the one place in the folders below where a file of this name is."""
        said = self.table.folder / name
        if not self.search or said.is_file():
            return said
        if self._below is None:
            below = folders_below(self.table.folder)
            self._below = [*below, self.store] if self.store and self.store not in below else below
        names = (
            [name] if Path(name).suffix.lower() in _SUFFIXES else [name + end for end in sorted(_SUFFIXES)]
        )
        there = [path for folder in self._below for end in names if (path := folder / end).is_file()]
        if len(there) > 1:
            raise UserError(f"{self.table.path}: two pictures named {name!r}: {there[0]} and {there[1]}")
        return there[0] if there else said

    def _written(self, content: bytes, item_id: str) -> Path:
        if self.store is None:
            raise UserError(
                f"{self.table.path}: item {item_id!r} holds its image as bytes; say where such images may be "
                "written (images=FOLDER)"
            )
        suffix = next((end for magic, end in _MAGIC.items() if content.startswith(magic)), ".img")
        path = self.store / (hashlib.sha256(content).hexdigest() + suffix)
        if not path.is_file():
            write_bytes(path, content)
        return path

    def _numbered(self, item_id: str) -> Path:
        if self._by_stem is None:
            self._by_stem = pictures_by_stem(self.table.folder)
        return self._by_stem.get(_stem(item_id), self.table.folder / item_id)


def folders_below(folder: Path) -> list[Path]:
    """The folders one and two levels below, in the order of their names."""
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return [*below, *(each for path in below for each in sorted(path.iterdir()) if each.is_dir())]


def pictures_by_stem(folder: Path) -> dict[str, Path]:
    """The pictures in a folder and up to two levels below, by file name without its ending (007 is 7).

    Raises:
        UserError: two pictures have the same name, so an id does not say which one is meant.
    """
    found: dict[str, Path] = {}
    for path in sorted(file for level in ("*", "*/*", "*/*/*") for file in folder.glob(level)):
        if path.suffix.lower() not in _SUFFIXES or not path.is_file() or path.name.startswith("."):
            continue
        stem = _stem(path.stem)
        if stem in found:
            both = f"{found[stem].relative_to(folder)} and {path.relative_to(folder)}"
            raise UserError(f"{folder}: two pictures for item {stem!r}: {both}")
        found[stem] = path
    return found


def _stem(name: str) -> str:
    return (name.lstrip("0") or "0") if name.isascii() and name.isdigit() else name
