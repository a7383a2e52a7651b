"""Rows of captions and images, read but for their pictures."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eyechart.score.cells import text_of
from eyechart.score.kinds import plain
from eyechart.score.pairing import complain
from eyechart.score.tables import Row, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchDraft:
    """A match, read but for its pictures."""

    id: str
    captions: tuple[str, ...]
    cells: tuple[tuple[Any, str], ...]
    """What the table says of each picture, and the id it may be found by."""

    pattern: str | None


def rows_of(table: Table) -> Iterator[tuple[Row, dict[str, Any]]]:
    for row in table.rows:
        yield row, {plain(name): cell for name, cell in row.cells.items()}


def read_rows(table: Table, one: Callable[[Row, dict[str, Any]], MatchDraft]) -> list[MatchDraft]:
    drafts, problems = [], []
    for row, cells in rows_of(table):
        try:
            drafts.append(one(row, cells))
        except ValueError as error:
            where = f"row {row.number}" + (f" ({row.file})" if row.file else "")
            problems.append(f"{where}: {error}")
    complain(table, problems)
    return drafts


def said_in(cells: Mapping[str, Any], name: str) -> str:
    found = " ".join(text_of(cells.get(name)).split())
    if not found:
        raise ValueError(f"the {name} is empty" if name in cells else f"there is no column {name!r}")
    return found


def picture_in(cells: Mapping[str, Any], name: str) -> Any:
    cell = cells.get(name)
    if cell is None or (not isinstance(cell, bytes | Mapping) and text_of(cell) == ""):
        raise ValueError(f"the {name} is empty" if name in cells else f"there is no column {name!r}")
    return cell
