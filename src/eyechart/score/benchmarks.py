"""Load a benchmark: an MMVP-shaped folder, a table, or a known set in its own layout, checked, in one order.

Rows that cannot be read or do not belong together are an error that names them; a picture that cannot be opened takes
its whole pair or group out, listed with the reason. Nothing is dropped in silence, nothing depends on the order of rows.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eyechart.core.errors import UserError
from eyechart.core.records import Benchmark, Item, Quarantined
from eyechart.score import mmvp
from eyechart.score.cells import LETTERS, Columns, find_columns, missing_column
from eyechart.score.doubts import doubtful
from eyechart.score.finding import find_tables
from eyechart.score.kinds import recognise
from eyechart.score.layouts import Read, read_layout
from eyechart.score.pairing import Draft, Group, complain, natural, read_pairs
from eyechart.score.pictures import Opened, Pictures
from eyechart.score.tables import Table, is_saved_dataset, read_tables
from eyechart.score.taking import in_turn, open_all

LAYOUTS: Mapping[str, str] = {
    "MMVP-shaped folder": "pictures 1.jpg ... in a folder of any name, and Questions.csv (Index or lndex, Question, Options,"
    " Correct Answer)",
    "table": "CSV, TSV, JSON, JSONL, Parquet (shards of a split are joined) or a folder of datasets.save_to_disk, with"
    " question, options, answer, image, pattern, pair_id; without pair_id as kind 'items'",
    "MMVP, re-hosted": "Parquet with the pictures in it and Index, Question, Options, Correct Answer",
    "CV-Bench": "test_2d.parquet and test_3d.parquet: idx, type, task, image, question, choices, answer, source",
    "POPE": "Parquet (question_id, question, answer, image, category, image_source) or coco_pope_*.json beside its pictures",
    "NaturalBench": "Parquet: Index, Question_0, Question_1, Image_0, Image_1, Image_0_Question_0 ..., Question_Type",
    "VSR": "JSONL (image, caption, label, relation) beside its pictures",
    "BLINK-shaped": "Parquet: idx, sub_task, question, image_1 ... image_4, choices, answer",
    "MMVP-VLM": "for encoders: pictures TYPE/1.jpg ... and Questions.csv (Question ID, Type, Statement)",
    "Winoground-shaped": "for encoders: id, image_0, image_1, caption_0, caption_1, collapsed_tag",
    "SugarCrepe": "for encoders: replace_obj.json ... (filename, caption, negative_caption) beside its pictures",
    "captions": "for encoders: any table with caption_a, caption_b, image_a, image_b, pattern",
    "world": "the default: pairs of 3-D scenes that differ in one fact, rendered for the exam (--scene-seed, --size, --pairs)",
}
"""What is read, for people."""

_LEAK = 0.05  # a constant answer may be right this much more often than chance before it is noted

_UNITS = {"pairs": "pair", "naturalbench": "group"}


def load_benchmark(
    source: str | Path,
    *,
    name: str | None = None,
    limit: int | None = None,
    images: str | Path | None = None,
    kind: str = "auto",
) -> Benchmark:
    """Read and check a benchmark.

    Args:
        source: a folder or a table (CSV, TSV, JSON, JSONL, Parquet, a folder of `datasets.save_to_disk`), in one of
            `LAYOUTS`. Shards of one split are joined.
        name: what the results call it; the file's or folder's name unless given.
        limit: at most so many pairs (items, where these are not in pairs; NaturalBench's groups of four), taken in
            turn from every pattern in the order of ids; pictures of what is not taken are not opened.
        images: folder for pictures that stand in the table as bytes; each is written under its sha256.
        kind: one of `kinds.KINDS`; `auto` goes by the columns (`kinds.SIGNATURES`), and never takes rows for `items`.

    Raises:
        UserError: there is no such source or kind, a column is missing, rows cannot be read or do not belong together
            (all named), the limit is below 1, or nothing is left.
    """
    root = Path(source).expanduser()
    _check_limit(limit)
    table = read_tables(find_tables(root), root)
    found = recognise(table, kind)
    read, columns = _read(table, found, root, kind)
    pictures = Pictures(
        table=table,
        store=Path(images).expanduser() if images is not None else None,
        search=found not in ("pairs", "mmvp", "items"),
    )
    unit = _UNITS.get(read.rule, "item")
    taken = _take(read.groups, pictures, limit, unit)
    if not taken.items:
        raise UserError(f"{source}: no {unit} is left; {_reasons(taken.quarantined)}")
    items, corrections, on_labels = mmvp.label_sets(sorted(taken.items, key=lambda item: natural(item.id)))
    corrected = {one.item_id for one in corrections}
    on_sizes = mmvp.note_on_sizes(taken.sizes) if _is_mmvp(read.groups, found, kind) else ()
    return Benchmark(
        name=benchmark_name(root, name),
        source=str(source),
        sha256=exam_hash(items),
        in_source=sum(map(len, read.groups)),
        items=items,
        quarantined=tuple(taken.quarantined),
        notes=(
            *table.notes,
            *read.notes,
            *_notes_on_rows(pictures, columns, taken, read, unit),
            *_notes_on_answers(items, read.rule),
            *on_sizes,
            *_notes_on_pictures(pictures),
            *on_labels,
            *doubtful(item for item in items if item.id not in corrected),
        ),
        rule=read.rule,
        corrections=corrections,
    )


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UserError(f"a limit of {limit} pairs leaves nothing to ask; give 1 or more")


def exam_hash(items: Sequence[Item]) -> str:
    """A hash of questions, options, answers, pairing and picture bytes; ids, patterns and order play no part.

    Two sets with equal hashes ask the same. `core.records.Benchmark.rows_sha256` tells their labels apart too.
    """
    together: defaultdict[str, list[str]] = defaultdict(list)
    for item in items:
        said = [item.question, list(item.options), item.answer, item.image_sha256, *item.more_sha256]
        group = item.facet("group")
        key = f"pair {item.pair_id}" if item.pair_id else f"group {group}" if group else f"item {item.id}"
        together[key].append(json.dumps(said, ensure_ascii=True))
    canonical = json.dumps(sorted(sorted(each) for each in together.values()))
    return hashlib.sha256(canonical.encode()).hexdigest()


def benchmark_name(root: Path, name: str | None) -> str:
    """The name a set goes by: the one given, or the file's or folder's.

    Raises:
        UserError: the one given cannot be part of a file's name.
    """
    if name is None:
        plain = re.sub(r"[^\w.-]+", "-", root.resolve().name if root.is_dir() else root.stem).strip("-.")
        return plain or "benchmark"
    if not re.fullmatch(r"[\w-][\w. -]*", name):
        raise UserError(f"a benchmark cannot be named {name!r}: its name is part of file names")
    return name


def _read(table: Table, found: str, root: Path, kind: str) -> tuple[Read, Columns | None]:
    """The groups of a table; its columns, too, where they are free to be named in more than one way."""
    if found not in ("pairs", "mmvp"):
        read = read_layout(found, table)
        return read, find_columns(table) if found == "items" else None
    columns = find_columns(table)
    _need_pictures(table, columns, root)
    numbered = found == "mmvp" or (root.is_dir() and not is_saved_dataset(root))
    pairs = read_pairs(table, columns, by_number=numbered)
    if kind == "mmvp" or _is_mmvp(pairs, found, kind):
        complain(table, mmvp.faults(pairs))
    return Read(groups=list(pairs), rule="pairs"), columns


def _is_mmvp(groups: Sequence[Group], found: str, kind: str) -> bool:
    """Whether this is all of MMVP, or has its 300 ids and was not said to be something else."""
    return found in ("pairs", "mmvp") and kind in ("auto", "mmvp") and mmvp.is_whole(groups)


def _need_pictures(table: Table, columns: Columns, root: Path) -> None:
    """A table must say where its pictures are, unless they lie beside it under the items' ids."""
    if "image" in columns.found or (root.is_dir() and "id" in columns.found):
        return
    raise UserError(
        f"{table.path}: {missing_column('image', columns.unused)}. Columns there: {', '.join(table.columns)}. "
        "Only in an MMVP-shaped folder, given as the folder, may an id stand for the picture of that name."
    )


@dataclass(slots=True, kw_only=True)
class _Taken:
    items: list[Item] = field(default_factory=list)
    groups: int = 0
    quarantined: list[Quarantined] = field(default_factory=list)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of the first picture of each item, by id."""

    limited: bool = False


def _take(groups: Sequence[Group], pictures: Pictures, limit: int | None, unit: str) -> _Taken:
    taken = _Taken()
    for group in in_turn(groups, _turn):
        if limit is not None and taken.groups == limit:
            taken.limited = True
            break
        opened, bad = _open_group(group, pictures, unit)
        taken.quarantined += bad
        if bad:
            continue
        taken.groups += 1
        for draft, own in zip(group, opened, strict=True):
            taken.items.append(_item(draft, own))
            taken.sizes[draft.id] = own[0].size
    return taken


def _turn(group: Group) -> str:
    """What a limit is spread over: patterns, and sources where an item names one."""
    return f"{group[0].pattern or ''}\n{dict(group[0].facets).get('source', '')}"


def _open_group(group: Group, pictures: Pictures, unit: str) -> tuple[list[list[Opened]], list[Quarantined]]:
    """The pictures of each item of a group, or what keeps the group from being used."""
    left_out = _left_out(group, unit)
    cells = [(cell, draft.id) for draft in group for cell in (draft.image, *draft.more)]
    opened, bad = open_all(cells, pictures, left_out)
    if bad:
        return [], bad
    rest = iter(opened)
    own = [[next(rest) for _ in (draft.image, *draft.more)] for draft in group]
    if len(group) > 1 and len({each[0].sha256 for each in own}) == 1:
        who = "both" if len(group) == 2 else "all"
        detail = f"{who} items show the same picture and have opposite answers; {left_out}"
        return [], [Quarantined(path=str(own[0][0].path), reason="bad_row", detail=detail)]
    return own, []


def _left_out(group: Group, unit: str) -> str:
    if len(group) == 1:
        return f"item {group[0].id!r} is left out"
    named = dict(group[0].facets).get("group", group[0].pair_id)
    ids = [repr(draft.id) for draft in group]
    return f"{unit} {named!r} (items {', '.join(ids[:-1])} and {ids[-1]}) is left out"


def _item(draft: Draft, opened: Sequence[Opened]) -> Item:
    first, *more = opened
    return Item(
        id=draft.id,
        pair_id=draft.pair_id,
        question=draft.question,
        options=draft.options,
        answer=draft.answer,
        image=first.path,
        image_sha256=first.sha256,
        pattern=draft.pattern,
        facets=draft.facets,
        more_images=tuple(each.path for each in more),
        more_sha256=tuple(each.sha256 for each in more),
    )


def _reasons(quarantined: Sequence[Quarantined]) -> str:
    counts = Counter(entry.reason for entry in quarantined)
    listed = ", ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))
    first = "".join(f"\n  {entry.path}: {entry.reason}: {entry.detail}" for entry in quarantined[:10])
    return f"pictures that could not be used ({listed}){first}"


def _notes_on_rows(
    pictures: Pictures, columns: Columns | None, taken: _Taken, read: Read, unit: str
) -> Iterator[str]:
    if columns is not None and columns.unused:
        yield f"columns not used: {', '.join(columns.unused)}"
    homes = [home.resolve() for home in (pictures.table.folder, pictures.store) if home is not None]
    outside = sum(
        not any(path.resolve().is_relative_to(home) for home in homes)
        for item in taken.items
        for path in item.images
    )
    if outside:
        yield f"{outside} pictures lie outside the benchmark's folder, where its table points to"
    if columns is not None and read.rule == "pairs" and "pair_id" not in columns.found:
        yield "paired by MMVP's rule: items 2k-1 and 2k are pair k (same question and options, opposite answers)"
    if taken.quarantined:
        yield f"{len(taken.quarantined)} pictures could not be used; their {unit}s are left out and listed"
    if taken.limited and taken.groups < len(read.groups):
        yield f"limited to {taken.groups} of {len(read.groups)} {unit}s, taken in turn from every pattern"


def _notes_on_answers(items: Sequence[Item], rule: str) -> Iterator[str]:
    chance = sum(1 / len(item.options) for item in items) / len(items)
    answer, times = min(Counter(item.answer for item in items).items(), key=lambda pair: (-pair[1], pair[0]))
    if times / len(items) > chance + _LEAK:
        yield (
            f"the answers are not balanced: always saying {LETTERS[answer]} is right for {times} of "
            f"{len(items)} items ({times / len(items):.0%}; chance {chance:.0%})"
        )
    if rule != "pairs":
        return
    by_pair: dict[str, int] = {}
    for item in items:
        by_pair.setdefault(item.pair_id, item.answer)
    if len(set(by_pair.values())) == 1 and len(by_pair) > 4:
        yield (
            f"in all {len(by_pair)} pairs the item with the lower id has answer {LETTERS[items[0].answer]}: an id "
            "or an order shown to the model would give the answer away"
        )


def _notes_on_pictures(pictures: Pictures) -> Iterator[str]:
    sizes = sorted(set(pictures.sizes), key=lambda size: (size[0] * size[1], size))
    if len(sizes) == 1:
        yield f"all pictures are {sizes[0][0]} x {sizes[0][1]} pixels"
    elif sizes:
        (w, h), (width, height) = sizes[0], sizes[-1]
        yield f"pictures from {w} x {h} to {width} x {height} pixels"
    for remark, count in sorted(pictures.remarks.items()):
        yield f"{count} pictures: {remark}"
