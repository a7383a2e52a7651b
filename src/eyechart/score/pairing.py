"""Turn a table's rows into checked pairs: two rows with one question, the same options, opposite answers."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eyechart.core.errors import UserError
from eyechart.score.cells import LETTERS, Columns, missing_column, read_answer, read_options, text_of
from eyechart.score.tables import Row, Table

_SHOWN = 10  # problems listed in one message


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A row, read but for its picture."""

    number: int
    id: str
    pair_id: str
    question: str
    options: tuple[str, ...]
    answer: int
    image: Any
    pattern: str | None
    more: tuple[Any, ...] = ()
    """What the table says of the second and further pictures."""

    facets: tuple[tuple[str, str], ...] = ()

    @property
    def right(self) -> str:
        """The text of the right option."""
        return self.options[self.answer]

    def __str__(self) -> str:
        return f"row {self.number}" + (f" (item {self.id!r})" if self.id else "")


Pair = tuple[Draft, Draft]

Group = tuple[Draft, ...]
"""Rows that stand or fall together: an item alone, a pair, or the four items of a NaturalBench row."""


def natural(text: str) -> tuple[Any, ...]:
    """A sort key in which item 9 comes before item 10.

    >>> sorted(["10", "9", "a2", "a10"], key=natural)
    ['9', '10', 'a2', 'a10']
    """
    parts = re.split(r"(\d+)", text)
    return (
        *[
            (len(part.lstrip("0")), part.lstrip("0"), part) if place % 2 else part
            for place, part in enumerate(parts)
        ],
    )


def read_pairs(table: Table, columns: Columns, *, by_number: bool) -> list[Pair]:
    """The pairs of a table in the natural order of their ids, each ordered in itself as well.

    Args:
        table: the rows.
        columns: which column says what.
        by_number: MMVP's rule where there is no pair_id column: items 2k-1 and 2k are pair k. It is by
            id, never by a row's place, and holds only if what makes a pair is true of every one.

    Raises:
        UserError: rows that cannot be read or do not pair, each named with what is wrong.
    """
    paired = "pair_id" in columns.found
    if not paired and not (by_number and "id" in columns.found):
        raise UserError(
            f"{table.path}: {missing_column('pair_id', columns.unused)}, and this is no layout that goes without: "
            "give the two items of a pair (one question, two pictures, opposite answers) the same pair_id, "
            "or have every row scored by itself with the kind 'items'. "
            "In an MMVP-shaped folder ids 2k-1 and 2k are pair k."
        )
    problems: list[str] = []
    drafts = []
    for row in table.rows:
        try:
            drafts.append(read_draft(row, columns))
        except ValueError as error:
            problems.append(f"row {row.number}: {error}")
    complain(table, problems)
    if not paired:
        drafts = [_numbered(table, draft) for draft in drafts]
    pairs = _group(drafts, problems)
    complain(table, problems)
    return sorted(pairs, key=lambda pair: natural(pair[0].pair_id))


def complain(table: Table, problems: Sequence[str]) -> None:
    """Raise what was found, if anything was.

    Raises:
        UserError: the first ten problems, and how many more there are.
    """
    if problems:
        more = f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        listed = "".join(f"\n  {problem}" for problem in problems[:_SHOWN])
        raise UserError(f"{table.path}: this cannot be scored as it stands:{listed}{more}")


def read_draft(row: Row, columns: Columns) -> Draft:
    """A row with question, options, answer and image in columns of their own.

    Raises:
        ValueError: what is wrong with it.
    """
    question = " ".join(text_of(columns.cell(row.cells, "question")).split())
    if not question:
        raise ValueError("the question is empty")
    if "id" in columns.found and not text_of(columns.cell(row.cells, "id")):
        raise ValueError("the id is empty")
    options, labels = _options(row, columns)
    check_options(options)
    return Draft(
        number=row.number,
        id=text_of(columns.cell(row.cells, "id")),
        pair_id=text_of(columns.cell(row.cells, "pair_id")),
        question=question,
        options=options,
        answer=read_answer(columns.cell(row.cells, "answer"), options, labels),
        image=_image(row, columns),
        pattern=text_of(columns.cell(row.cells, "pattern")) or None,
    )


def check_options(options: Sequence[str]) -> None:
    """Two to 26 options, none empty, all different.

    Raises:
        ValueError: they are not.
    """
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"{len(options)} options {options!r}; a question has 2 to {len(LETTERS)}")
    if not all(options):
        raise ValueError(f"an option is empty: {options!r}")
    if len(set(options)) < len(options):
        raise ValueError(f"two options are the same: {options!r}")


def _options(row: Row, columns: Columns) -> tuple[tuple[str, ...], Any]:
    if not columns.letters:
        return read_options(columns.cell(row.cells, "options"))
    texts = [text_of(row.cells.get(name)) for name in columns.letters]
    while texts and not texts[-1]:
        texts.pop()
    return tuple(texts), "letters"


def _image(row: Row, columns: Columns) -> Any:
    cell = columns.cell(row.cells, "image")
    if "image" in columns.found and (cell is None or text_of(cell) == ""):
        raise ValueError("the image is empty")
    return cell


def _numbered(table: Table, draft: Draft) -> Draft:
    if not re.fullmatch(r"[0-9]+", draft.id) or int(draft.id) < 1:
        raise UserError(
            f"{table.path}: {draft} has no whole number from 1 as its id, so MMVP's rule (ids 2k-1 and 2k are "
            "pair k) does not apply; add a pair_id column"
        )
    return replace(draft, pair_id=str((int(draft.id) + 1) // 2))


def _group(drafts: Iterable[Draft], problems: list[str]) -> list[Pair]:
    by_id: dict[str, Draft] = {}
    groups: defaultdict[str, list[Draft]] = defaultdict(list)
    for draft in drafts:
        if not draft.pair_id:
            problems.append(f"{draft}: the pair_id is empty")
            continue
        groups[draft.pair_id].append(draft)
        if draft.id and draft.id in by_id:
            problems.append(f"rows {by_id[draft.id].number} and {draft.number} have the same id {draft.id!r}")
        by_id[draft.id] = draft
    pairs: list[Pair] = []
    for pair_id, group in groups.items():
        wrong = _wrong(group)
        if wrong:
            rows = ", ".join(map(str, sorted(group, key=lambda draft: draft.number)))
            problems.append(f"pair {pair_id!r}: {wrong}: {rows}")
        else:
            pairs.append(_named(group))
    return pairs


def _wrong(group: Sequence[Draft]) -> str:
    """What keeps some rows from being a pair; empty when nothing does."""
    if len(group) != 2:
        return f"a pair has two items, this one has {len(group)}"
    a, b = group
    if a.question != b.question:
        return f"two questions ({a.question!r} and {b.question!r})"
    if set(a.options) != set(b.options):
        return f"the options differ ({a.options!r} and {b.options!r})"
    if a.right == b.right:
        return f"both have the answer {a.right!r}; the two items of a pair need opposite answers"
    if a.pattern != b.pattern:
        return f"the patterns differ ({a.pattern!r} and {b.pattern!r})"
    return ""


def _named(group: Sequence[Draft]) -> Pair:
    """The two in order; without ids of their own they are named after the pair, in the order of answers."""
    if group[0].id:
        first, second = sorted(group, key=lambda draft: natural(draft.id))
        return first, second
    first, second = sorted(group, key=lambda draft: draft.right)
    return replace(first, id=f"{first.pair_id}-1"), replace(second, id=f"{second.pair_id}-2")
