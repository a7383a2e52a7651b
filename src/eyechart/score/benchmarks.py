"""Load a benchmark: an MMVP-shaped folder or a table, checked, in pairs, in one order.

What cannot be scored by pair is an error that names the rows; a picture that cannot be opened takes its whole
pair out, listed with the reason. Nothing is dropped in silence, nothing depends on the order of rows.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from eyechart.core.errors import UserError
from eyechart.core.images import BadImage
from eyechart.core.records import Benchmark, Item, Quarantined
from eyechart.score.cells import LETTERS, Columns, find_columns, missing_column
from eyechart.score.doubts import doubtful
from eyechart.score.pairing import Draft, Pair, natural, read_pairs
from eyechart.score.pictures import Opened, Pictures
from eyechart.score.tables import Table, find_table, is_saved_dataset, read_table

LAYOUTS: Mapping[str, str] = {
    "MMVP-shaped folder": "pictures 1.jpg ... in a folder of any name, and Questions.csv (Index or lndex, Question, Options,"
    " Correct Answer)",
    "table": "CSV, TSV, JSON, JSONL, Parquet or a folder of datasets.save_to_disk, with question, options, answer, image,"
    " pattern, pair_id",
    "world": "the default: pairs of 3-D scenes that differ in one fact, rendered for the exam (--scene-seed, --size, --pairs)",
}
"""What `load_benchmark` reads, for people."""

_LEAK = 0.05  # a constant answer may be right this much more often than chance before it is noted


def load_benchmark(
    source: str | Path, *, name: str | None = None, limit: int | None = None, images: str | Path | None = None
) -> Benchmark:
    """Read, check and pair a benchmark.

    Args:
        source: an MMVP-shaped folder (pictures `1.jpg` ... in a folder of any name, `Questions.csv`), or a
            table (CSV, TSV, JSON, JSONL, Parquet, a folder of `datasets.save_to_disk`) with the columns
            question, options (or A, B, ...), answer, image, pair_id, and optionally pattern and id.
        name: what the results call it; the file's or folder's name unless given.
        limit: at most so many pairs, taken in turn from every pattern in the order of pair ids; pictures
            of pairs not taken are not opened.
        images: folder for pictures that stand in the table as bytes; each is written under its sha256.

    Raises:
        UserError: there is no such source, a column is missing, rows do not pair (all named), the limit is
            below 1, or no pair is left.
    """
    if limit is not None and limit < 1:
        raise UserError(f"a limit of {limit} pairs leaves nothing to ask; give 1 or more")
    root = Path(source).expanduser()
    table = read_table(find_table(root))
    columns = find_columns(table)
    _need_pictures(table, columns, root)
    pairs = read_pairs(table, columns, by_number=root.is_dir() and not is_saved_dataset(root))
    pictures = Pictures(table=table, store=Path(images).expanduser() if images is not None else None)
    kept, quarantined = _open(pairs, pictures, limit)
    if not kept:
        raise UserError(f"{source}: no pair is left; {_reasons(quarantined)}")
    items = tuple(sorted((item for pair in kept for item in pair), key=lambda item: natural(item.id)))
    notes = [*table.notes, *_notes_on_rows(table.folder, columns, pairs, kept, quarantined, limit)]
    return Benchmark(
        name=_name(root, name),
        source=str(source),
        sha256=exam_hash(items),
        in_source=2 * len(pairs),
        items=items,
        quarantined=tuple(quarantined),
        notes=(*notes, *_notes_on_answers(kept), *_notes_on_pictures(pictures), *doubtful(items)),
    )


def exam_hash(items: Sequence[Item]) -> str:
    """A hash of questions, options, answers, pairing and picture bytes; ids, patterns and order play no part.

    Two sets with equal hashes ask the same. `core.records.Benchmark.rows_sha256` tells their labels apart too.
    """
    pairs: defaultdict[str, list[str]] = defaultdict(list)
    for item in items:
        said = [item.question, list(item.options), item.answer, item.image_sha256]
        pairs[item.pair_id].append(json.dumps(said, ensure_ascii=True))
    canonical = json.dumps(sorted(sorted(pair) for pair in pairs.values()))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _need_pictures(table: Table, columns: Columns, root: Path) -> None:
    """A table must say where its pictures are, unless they lie beside it under the items' ids."""
    if "image" in columns.found or (root.is_dir() and "id" in columns.found):
        return
    raise UserError(
        f"{table.path}: {missing_column('image', columns.unused)}. Columns there: {', '.join(table.columns)}. "
        "Only in an MMVP-shaped folder, given as the folder, may an id stand for the picture of that name."
    )


def _name(root: Path, name: str | None) -> str:
    if name is None:
        plain = re.sub(r"[^\w.-]+", "-", root.resolve().name if root.is_dir() else root.stem).strip("-.")
        return plain or "benchmark"
    if not re.fullmatch(r"[\w-][\w. -]*", name):
        raise UserError(f"a benchmark cannot be named {name!r}: its name is part of file names")
    return name


def _in_turn(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """The pairs, one of every pattern in turn, so that any beginning is spread over the patterns."""
    patterns: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        patterns[pair[0].pattern or ""].append(pair)
    for turn in zip_longest(*(patterns[pattern] for pattern in sorted(patterns))):
        yield from (pair for pair in turn if pair is not None)


def _open(
    pairs: Sequence[Pair], pictures: Pictures, limit: int | None
) -> tuple[list[tuple[Item, Item]], list[Quarantined]]:
    kept: list[tuple[Item, Item]] = []
    quarantined: list[Quarantined] = []
    for pair in _in_turn(pairs):
        if limit is not None and len(kept) == limit:
            break
        opened, bad = _open_pair(pair, pictures)
        quarantined += bad
        if len(opened) == 2 and not bad:
            first, second = (_item(*both) for both in zip(pair, opened, strict=True))
            kept.append((first, second))
    return kept, quarantined


def _open_pair(pair: Pair, pictures: Pictures) -> tuple[list[Opened], list[Quarantined]]:
    left_out = f"pair {pair[0].pair_id!r} (items {pair[0].id!r} and {pair[1].id!r}) is left out"
    opened, bad = [], []
    for draft in pair:
        try:
            opened.append(pictures.open(draft.image, draft.id))
        except BadImage as error:
            path = str(pictures.find(draft.image, draft.id))
            bad.append(Quarantined(path=path, reason=error.reason, detail=f"{error.detail}; {left_out}"))
    if not bad and opened[0].sha256 == opened[1].sha256:
        detail = f"both items show the same picture and have opposite answers; {left_out}"
        bad.append(Quarantined(path=str(opened[0].path), reason="bad_row", detail=detail))
    return opened, bad


def _item(draft: Draft, opened: Opened) -> Item:
    return Item(
        id=draft.id,
        pair_id=draft.pair_id,
        question=draft.question,
        options=draft.options,
        answer=draft.answer,
        image=opened.path,
        image_sha256=opened.sha256,
        pattern=draft.pattern,
    )


def _reasons(quarantined: Sequence[Quarantined]) -> str:
    counts = Counter(entry.reason for entry in quarantined)
    listed = ", ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))
    first = "".join(f"\n  {entry.path}: {entry.reason}: {entry.detail}" for entry in quarantined[:10])
    return f"pictures that could not be used ({listed}){first}"


def _notes_on_rows(
    folder: Path,
    columns: Columns,
    pairs: Sequence[Pair],
    kept: Sequence[tuple[Item, Item]],
    quarantined: Sequence[Quarantined],
    limit: int | None,
) -> Iterator[str]:
    if columns.unused:
        yield f"columns not used: {', '.join(columns.unused)}"
    outside = sum(not item.image.resolve().is_relative_to(folder.resolve()) for pair in kept for item in pair)
    if outside:
        yield f"{outside} pictures lie outside the benchmark's folder, where its table points to"
    if "pair_id" not in columns.found:
        yield "paired by MMVP's rule: items 2k-1 and 2k are pair k (same question and options, opposite answers)"
    if quarantined:
        yield f"{len(quarantined)} pictures could not be used; their pairs are left out and listed"
    if limit is not None and len(kept) < len(pairs):
        yield f"limited to {len(kept)} of {len(pairs)} pairs, taken in turn from every pattern"


def _notes_on_answers(kept: Sequence[tuple[Item, Item]]) -> Iterator[str]:
    items = [item for pair in kept for item in pair]
    chance = sum(1 / len(item.options) for item in items) / len(items)
    answer, times = min(Counter(item.answer for item in items).items(), key=lambda pair: (-pair[1], pair[0]))
    if times / len(items) > chance + _LEAK:
        yield (
            f"the answers are not balanced: always saying {LETTERS[answer]} is right for {times} of "
            f"{len(items)} items ({times / len(items):.0%}; chance {chance:.0%})"
        )
    firsts = {pair[0].answer for pair in kept}
    if len(firsts) == 1 and len(kept) > 4:
        yield (
            f"in all {len(kept)} pairs the item with the lower id has answer {LETTERS[firsts.pop()]}: an id "
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
