"""MMVP-VLM (Tong et al., 2024, "Eyes Wide Shut?", section 3): 135 pairs of statements and images, 15 of each pattern.

Odd Question IDs are the first of a pair; the Type of a row, not its number, says its pattern.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyechart.score.match_rows import MatchDraft, rows_of, said_in
from eyechart.score.pairing import complain
from eyechart.score.tables import Table

MMVP_VLM_PREFIX = "a photo of "
"""What MMVP-VLM's own script puts before each statement."""

MMVP_VLM_TYPES: Mapping[str, tuple[str, ...]] = {
    "orientation": ("orientation", "orientation and direction"),
    "presence": ("presence", "presence of specific features"),
    "state": ("state", "state and condition"),
    "quantity": ("quantity", "quantity and count"),
    "position": ("spatial", "spatial relationship", "positional and relational context"),
    "color": ("color", "color and appearance"),
    "structure": (
        "structural character",
        "structural characteristics",
        "structural and physical characteristics",
    ),
    "text": ("text", "texts"),
    "viewpoint": ("camera perspective", "viewpoint and perspective"),
}
"""The patterns and the names that MMVP-VLM has for them, in the order of its ids: 1 to 30 are of the first."""

_PAIRS_EACH = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """One row of MMVP-VLM."""

    number: int
    """The Question ID."""

    pattern: str
    text: str
    image: Any


def mmvp_vlm(table: Table) -> tuple[list[MatchDraft], list[str]]:
    by_id = _statements(table)
    pictures = None if any("image" in cells for _, cells in rows_of(table)) else _typed_pictures(table)
    drafts = []
    problems = _shape_faults(by_id)
    for first in sorted(number for number in by_id if number % 2 == 1 and number + 1 in by_id):
        a, b = by_id[first], by_id[first + 1]
        if a.pattern != b.pattern:
            problems.append(
                f"ids {first} and {first + 1} are a pair, but of two types: {a.pattern}, {b.pattern}"
            )
        cells = []
        for each in (a, b):
            if pictures is None:
                cells.append((each.image, str(each.number)))
                continue
            path, of = pictures.get(each.number, (None, each.pattern))
            if of != each.pattern:
                problems.append(
                    f"id {each.number} is of type {each.pattern} in the table, and its picture lies in that of {of}"
                )
            cells.append((str(path.relative_to(table.folder)) if path else None, str(each.number)))
        drafts.append(
            MatchDraft(
                id=f"{first}-{first + 1}", captions=(a.text, b.text), cells=tuple(cells), pattern=a.pattern
            )
        )
    complain(table, problems)
    return drafts, _notes_on_places(by_id)


def _statements(table: Table) -> dict[int, _Statement]:
    found: dict[int, _Statement] = {}
    problems = []
    for row, cells in rows_of(table):
        try:
            said = said_in(cells, "question_id")
            if not re.fullmatch(r"[0-9]+", said):
                raise ValueError(f"the Question ID is {said!r}, expected a whole number")
            one = _Statement(
                number=int(said),
                pattern=_pattern_of(said_in(cells, "type")),
                text=said_in(cells, "statement"),
                image=cells.get("image"),
            )
            if one.number in found:
                raise ValueError(f"the Question ID {said} stands twice")
            found[one.number] = one
        except ValueError as error:
            problems.append(f"row {row.number}: {error}")
    complain(table, problems)
    return found


def _pattern_of(type_name: str) -> str:
    """The pattern that a Type of MMVP-VLM is.

    Raises:
        ValueError: it is none of the nine.
    """
    words = " ".join(re.sub(r"[_&-]+", " ", type_name).casefold().split())
    for pattern, names in MMVP_VLM_TYPES.items():
        if words in names:
            return pattern
    known = ", ".join(names[0] for names in MMVP_VLM_TYPES.values())
    raise ValueError(f"the Type {type_name!r} is none of MMVP-VLM's nine ({known})")


def _shape_faults(by_id: Mapping[int, _Statement]) -> list[str]:
    last = 2 * _PAIRS_EACH * len(MMVP_VLM_TYPES)
    wanted = set(range(1, last + 1))
    problems = []
    for what, ids in (("missing", wanted - by_id.keys()), ("not among them", by_id.keys() - wanted)):
        if ids:
            listed = ", ".join(map(str, sorted(ids)[:10])) + (" ..." if len(ids) > 10 else "")
            problems.append(f"MMVP-VLM has the ids 1 to {last}; {what}: {listed}")
    counts = Counter(each.pattern for each in by_id.values())
    for pattern in MMVP_VLM_TYPES:
        if counts[pattern] != 2 * _PAIRS_EACH:
            problems.append(
                f"{counts[pattern]} statements of {pattern}; MMVP-VLM has {2 * _PAIRS_EACH} of each pattern"
            )
    return problems


def _typed_pictures(table: Table) -> dict[int, tuple[Path, str]]:
    """The pictures below the table's folder, by number, with the pattern of the folder each lies in."""
    found: defaultdict[int, list[tuple[Path, str]]] = defaultdict(list)
    for path in sorted(table.folder.glob("*/*")) + sorted(table.folder.glob("*/*/*")):
        if path.is_file() and re.fullmatch(r"[0-9]+", path.stem) and not path.name.startswith("."):
            try:
                found[int(path.stem)].append((path, _pattern_of(path.parent.name)))
            except ValueError:
                continue  # a folder that is none of the nine types
    twice = [f"two pictures for id {n}: {p[0][0]} and {p[1][0]}" for n, p in found.items() if len(p) > 1]
    complain(table, twice)
    return {number: places[0] for number, places in found.items()}


def _notes_on_places(by_id: Mapping[int, _Statement]) -> list[str]:
    """The official script goes by the number and not by the Type; a note where the two differ."""
    order = list(MMVP_VLM_TYPES)
    other = [
        number
        for number, each in sorted(by_id.items())
        if order[(number - 1) // (2 * _PAIRS_EACH)] != each.pattern
    ]
    if not other:
        return []
    listed = ", ".join(map(str, other[:10])) + (" ..." if len(other) > 10 else "")
    return [
        f"{len(other)} statements are of another type than the official script takes from their number ({listed});"
        " here the Type counts"
    ]
