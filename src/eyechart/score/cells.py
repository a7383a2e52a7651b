"""What a cell of a benchmark's table says: its columns, its options, its answer, its image.

Every function here returns a value or raises `ValueError` with the reason; the caller knows the row.
"""

import ast
import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eyechart.core.errors import UserError
from eyechart.score.tables import Table

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Options are named by these, so a question has at most 26."""

_NAMES: Mapping[str, tuple[str, ...]] = {
    "question": ("question",),
    "options": ("options", "choices"),
    "answer": ("answer", "correct_answer"),
    "image": ("image", "image_path"),
    "pattern": ("pattern", "category", "type"),
    "pair_id": ("pair_id",),
    "id": ("id", "index", "lndex", "item_id", "question_id"),
}

Labels = Literal["letters", "numbers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which column of a table says what; `letters` are option columns A, B, ... in their order."""

    found: Mapping[str, str]
    letters: tuple[str, ...]
    unused: tuple[str, ...]

    def cell(self, cells: Mapping[str, Any], what: str) -> Any:
        """The cell that says `what`, or None where the table has no such column."""
        return cells.get(self.found[what]) if what in self.found else None


def find_columns(table: Table) -> Columns:
    """Match the table's column names to what they say; case, spaces and hyphens play no part.

    MMVP's `Correct Answer` and `Index` (and its misspelt `lndex`), and `Category` or `Type` for the
    pattern are understood. Options stand in one column or in columns A, B, C ...

    Raises:
        UserError: two columns say the same, or one that is needed is missing.
    """
    plain: dict[str, str] = {}
    for name in table.columns:
        same = plain.setdefault(re.sub(r"[\s-]+", "_", name.strip()).lower(), name)
        if same != name:
            raise UserError(
                f"{table.path}: columns {same!r} and {name!r} differ only in case or spacing; drop one"
            )
    found: dict[str, str] = {}
    for what, aliases in _NAMES.items():
        there = [plain[alias] for alias in aliases if alias in plain]
        if len(there) > 1:
            raise UserError(f"{table.path}: columns {' and '.join(map(repr, there))} both say the {what}")
        found |= {what: there[0]} if there else {}
    letters = []
    for letter in LETTERS if "options" not in found else "":
        if letter.lower() not in plain:
            break
        letters.append(plain[letter.lower()])
    used = {*found.values(), *letters}
    columns = Columns(
        found=found, letters=tuple(letters), unused=tuple(name for name in table.columns if name not in used)
    )
    _need_columns(table, columns)
    return columns


def _need_columns(table: Table, columns: Columns) -> None:
    needed = ["question", "answer"] + (["options"] if len(columns.letters) < 2 else [])
    missing = [what for what in needed if what not in columns.found]
    if not missing:
        return
    hints = [missing_column(what, columns.unused) for what in missing]
    raise UserError(
        f"{table.path}: {'; '.join(hints)}. Columns there: {', '.join(table.columns)}. Needed: question, "
        "options (or columns A, B, ...), answer, image, pair_id; optional: pattern, id."
    )


def missing_column(what: str, unused: Sequence[str]) -> str:
    """What to say of a missing column: its name, and the unused column that looks most like it."""
    near = difflib.get_close_matches(what, [name.lower() for name in unused], n=1)
    named = [name for name in unused if near and name.lower() == near[0]]
    return f"no column {what!r}" + (f" (did you mean it to be {named[0]!r}?)" if named else "")


def text_of(cell: Any) -> str:
    """A cell as text without outer blanks; nothing (None, NaN) is the empty text, 3.0 is '3'."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def read_options(cell: Any) -> tuple[tuple[str, ...], Labels | None]:
    """The options of a cell, and what they are labelled with there (None where they have no labels).

    A list, the text of a list (`["Open", "Closed"]`), `(a) Open (b) Closed` as in MMVP, or lines `A. Open`.

    Raises:
        ValueError: the cell is none of these, or can be split in more than one way.
    """
    if isinstance(cell, list | tuple):
        return tuple(text_of(part) for part in cell), None
    given = text_of(cell)
    if given.startswith("["):
        return _read_list(given), None
    for split in (_split_bracketed, _split_lines):
        labels, parts = split(given)
        if labels:
            return tuple(parts), _sequence(labels, given)
    raise ValueError(
        f"the options {given!r} are neither a list, nor '(a) X (b) Y', nor lines 'A. X'; "
        'write them as ["X", "Y"]'
    )


def _read_list(given: str) -> tuple[str, ...]:
    for parse in (json.loads, ast.literal_eval):
        try:
            parts = parse(given)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(parts, list):
            return tuple(text_of(part) for part in parts)
    raise ValueError(f'the options {given!r} begin like a list and are none; write them as ["X", "Y"]')


def _split_bracketed(given: str) -> tuple[list[str], list[str]]:
    """`(a) X (b) Y` -> a, b and X, Y; brackets with more than a letter or number in them are text."""
    marks = list(re.finditer(r"\(\s*([A-Za-z]|\d{1,2})\s*\)", given))
    if not marks or marks[0].start() != 0:
        return [], []
    ends = [mark.start() for mark in marks[1:]] + [len(given)]
    return [mark[1] for mark in marks], [
        given[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)
    ]


def _split_lines(given: str) -> tuple[list[str], list[str]]:
    """Lines `A. X`, `A) X`, `A: X` or `1. X` -> A, B and X, Y."""
    lines = [line.strip() for line in given.splitlines() if line.strip()]
    marks = [re.match(r"([A-Za-z]|\d{1,2})[.):]\s+", line) for line in lines]
    if not lines or not all(marks):
        return [], []
    found = [mark for mark in marks if mark is not None]
    return [mark[1] for mark in found], [
        line[mark.end() :].strip() for mark, line in zip(found, lines, strict=True)
    ]


def _sequence(labels: list[str], given: str) -> Labels:
    """The kind of the labels, if they are a, b, c ... or 1, 2, 3 ... in order."""
    if [label.upper() for label in labels] == list(LETTERS[: len(labels)]):
        return "letters"
    if labels == [str(number) for number in range(1, len(labels) + 1)]:
        return "numbers"
    raise ValueError(
        f"the options {given!r} are labelled {', '.join(labels)}, expected a, b, ... or 1, 2, ...; "
        'where a label is part of an option, write the options as a list: ["X", "Y"]'
    )


def read_answer(cell: Any, options: Sequence[str], labels: Labels | None) -> int:
    """The place of the right option: named by its letter (`B`, `b`, `(b)`, `B.`) or by its text.

    A number names an option only where the options are labelled by numbers or one of them reads so:
    whether a bare 1 means the first or the second option cannot be known.

    Raises:
        ValueError: the answer names no option, or one by its letter and another by its text.
    """
    given = text_of(cell)
    if not given:
        raise ValueError("the answer is empty")
    exact = {place for place, option in enumerate(options) if option == given}
    alike = {place for place, option in enumerate(options) if option.casefold() == given.casefold()}
    named = _by_label(given, len(options), labels) | (exact or alike)
    listed = ", ".join(f"{LETTERS[place]} = {option!r}" for place, option in enumerate(options))
    if len(named) > 1:
        raise ValueError(f"the answer {given!r} can mean more than one option ({listed}); write '(letter)'")
    if not named:
        number = " (a bare number is not taken for a place: is 1 the first or the second?)"
        raise ValueError(
            f"the answer {given!r} names none of the options ({listed}); write a letter or an option's text"
            + (number if re.fullmatch(r"-?\d+", given) else "")
        )
    return next(iter(named))


def _by_label(given: str, options: int, labels: Labels | None) -> set[int]:
    mark = re.fullmatch(r"[(\[]?\s*([A-Za-z]|\d{1,2})\s*[)\].:]*", given)
    if mark is None:
        return set()
    if mark[1].isdigit():
        place = int(mark[1]) - 1
        return {place} if labels == "numbers" and 0 <= place < options else set()
    place = LETTERS.index(mark[1].upper())
    return {place} if place < options else set()
