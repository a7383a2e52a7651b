"""Load captions and images for encoders with a text tower: MMVP-VLM, Winoground-shaped sets, SugarCrepe, the world's.

Every match is joined by ids that stand in the table, never by the order of rows, folders or files.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eyechart.core.errors import UserError
from eyechart.core.records import Match, MatchSet, Quarantined
from eyechart.score.benchmarks import benchmark_name
from eyechart.score.cells import text_of
from eyechart.score.finding import find_tables
from eyechart.score.kinds import MATCH_KINDS, recognise_matches
from eyechart.score.match_rows import MatchDraft, picture_in, read_rows, said_in
from eyechart.score.mmvp import note_on_sizes
from eyechart.score.mmvp_vlm import MMVP_VLM_PREFIX, mmvp_vlm
from eyechart.score.pairing import complain, natural
from eyechart.score.pictures import Opened, Pictures
from eyechart.score.tables import Row, Table, read_tables
from eyechart.score.taking import in_turn, open_all

__all__ = ["MATCH_KINDS", "load_matches", "match_hash"]


def load_matches(
    source: str | Path,
    *,
    name: str | None = None,
    limit: int | None = None,
    images: str | Path | None = None,
    kind: str = "auto",
) -> MatchSet:
    """Read and check a set of captions and images.

    Args:
        source: a folder or a table: MMVP-VLM (`Questions.csv` with Question ID, Type, Statement, and a folder of
            pictures for each Type), Winoground's columns, SugarCrepe's files, or any table with two captions and two
            images a row, as the world's `captions.parquet`.
        name: what the results call it; the file's or folder's name unless given.
        limit: at most so many matches, taken in turn from every pattern in the order of ids.
        images: folder for pictures that stand in the table as bytes.
        kind: one of `MATCH_KINDS`, or `auto`, which goes by the columns.

    Raises:
        UserError: there is no such source or kind, rows cannot be read or do not belong together (all named), the
            limit is below 1, or nothing is left.
    """
    root = Path(source).expanduser()
    if limit is not None and limit < 1:
        raise UserError(f"a limit of {limit} matches leaves nothing to match; give 1 or more")
    table = read_tables(find_tables(root), root)
    found = recognise_matches(table, kind)
    drafts, notes = _READERS[found](table)
    drafts = _in_order(table, drafts)
    pictures = Pictures(
        table=table, store=Path(images).expanduser() if images is not None else None, search=True
    )
    matches, quarantined, sizes = _take(drafts, pictures, limit)
    if not matches:
        listed = "".join(f"\n  {one.path}: {one.reason}: {one.detail}" for one in quarantined[:10])
        raise UserError(f"{source}: no match is left; what could not be used:{listed}")
    if found == "mmvp-vlm":
        notes += note_on_sizes(sizes)
    if quarantined:
        notes.append(f"{len(quarantined)} things could not be used; their matches are left out and listed")
    if limit is not None and len(matches) < len(drafts):
        notes.append(f"limited to {len(matches)} of {len(drafts)} matches, taken in turn from every pattern")
    return MatchSet(
        name=benchmark_name(root, name),
        source=str(source),
        sha256=match_hash(matches),
        matches=tuple(sorted(matches, key=lambda match: natural(match.id))),
        in_source=len(drafts),
        prefix=MMVP_VLM_PREFIX if found == "mmvp-vlm" else "",
        quarantined=tuple(quarantined),
        notes=(*table.notes, *notes),
    )


def match_hash(matches: Sequence[Match]) -> str:
    """A hash of captions, patterns and picture bytes; ids and order play no part."""
    said = sorted(json.dumps([one.captions, one.images_sha256, one.pattern]) for one in matches)
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _in_order(table: Table, drafts: Sequence[MatchDraft]) -> list[MatchDraft]:
    times = Counter(draft.id for draft in drafts)
    complain(table, [f"the id {name!r} stands {n} times" for name, n in times.items() if n > 1])
    return sorted(drafts, key=lambda draft: natural(draft.id))


def _take(
    drafts: Sequence[MatchDraft], pictures: Pictures, limit: int | None
) -> tuple[list[Match], list[Quarantined], dict[str, tuple[int, int]]]:
    matches: list[Match] = []
    quarantined: list[Quarantined] = []
    sizes: dict[str, tuple[int, int]] = {}
    for draft in in_turn(drafts, lambda draft: draft.pattern or ""):
        if limit is not None and len(matches) == limit:
            break
        left_out = f"match {draft.id!r} is left out"
        opened, bad = open_all(draft.cells, pictures, left_out)
        if not bad:
            bad = _contradictions(draft, opened, left_out)
        quarantined += bad
        if bad:
            continue
        sizes |= {cell[1]: each.size for cell, each in zip(draft.cells, opened, strict=True)}
        matches.append(
            Match(
                id=draft.id,
                captions=draft.captions,
                images=tuple(each.path for each in opened),
                images_sha256=tuple(each.sha256 for each in opened),
                pattern=draft.pattern,
            )
        )
    return matches, quarantined, sizes


def _contradictions(draft: MatchDraft, opened: Sequence[Opened], left_out: str) -> list[Quarantined]:
    """Two captions or two pictures that are the same cannot be told apart by any encoder."""
    path = str(opened[0].path)
    if len(set(draft.captions)) < len(draft.captions):
        detail = f"two captions are the same ({draft.captions[0]!r}); {left_out}"
    elif len({each.sha256 for each in opened}) < len(opened):
        detail = f"two pictures are the same; {left_out}"
    else:
        return []
    return [Quarantined(path=path, reason="bad_row", detail=detail)]


def _winoground(table: Table) -> tuple[list[MatchDraft], list[str]]:
    def one(row: Row, cells: dict[str, Any]) -> MatchDraft:
        item_id = said_in(cells, "id")
        return MatchDraft(
            id=item_id,
            captions=(said_in(cells, "caption_0"), said_in(cells, "caption_1")),
            cells=tuple((picture_in(cells, f"image_{place}"), f"{item_id}-{place}") for place in "01"),
            pattern=text_of(cells.get("collapsed_tag")) or text_of(cells.get("tag")) or None,
        )

    return read_rows(table, one), []


def _captions(table: Table) -> tuple[list[MatchDraft], list[str]]:
    def one(row: Row, cells: dict[str, Any]) -> MatchDraft:
        item_id = text_of(cells.get("id")) or said_in(cells, "pair_id")
        said = "caption" if "caption_a" in cells else "statement"
        return MatchDraft(
            id=item_id,
            captions=(said_in(cells, f"{said}_a"), said_in(cells, f"{said}_b")),
            cells=tuple((picture_in(cells, f"image_{place}"), f"{item_id}-{place}") for place in "ab"),
            pattern=text_of(cells.get("pattern")) or None,
        )

    return read_rows(table, one), []


def _sugarcrepe(table: Table) -> tuple[list[MatchDraft], list[str]]:
    def one(row: Row, cells: dict[str, Any]) -> MatchDraft:
        file = Path(row.file or table.path).stem
        known = re.search(r"(add|replace|swap)_(att|obj|rel)", file)
        category = text_of(cells.get("category")) or (known[0] if known else "")
        image = picture_in(cells, "filename" if "filename" in cells else "image")
        right, wrong = _right_and_wrong(cells)
        key = text_of(cells.get("id")) or _key(image, right, wrong)
        item_id = f"{category}-{key}" if category else key
        return MatchDraft(
            id=item_id, captions=(right, *wrong), cells=((image, item_id),), pattern=category or None
        )

    return read_rows(table, one), []


def _right_and_wrong(cells: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    if "caption" in cells:
        return said_in(cells, "caption"), (said_in(cells, "negative_caption"),)
    right = said_in(cells, "true_label")
    tested = cells.get("tested_labels")
    wrong = (
        tuple(text_of(each) for each in tested if text_of(each) != right) if isinstance(tested, list) else ()
    )
    if not wrong or not all(wrong):
        raise ValueError(f"the tested_labels {tested!r} hold no other caption than {right!r}")
    return right, wrong


def _key(image: Any, right: str, wrong: Sequence[str]) -> str:
    """An id made of what a row says, where it has none."""
    content = image.get("bytes") or image.get("path") if isinstance(image, Mapping) else image
    said = content if isinstance(content, bytes) else str(content).encode()
    return hashlib.sha256(said + "\n".join((right, *wrong)).encode()).hexdigest()[:12]


_READERS: Mapping[str, Callable[[Table], tuple[list[MatchDraft], list[str]]]] = {
    "mmvp-vlm": mmvp_vlm,
    "winoground": _winoground,
    "sugarcrepe": _sugarcrepe,
    "captions": _captions,
}
