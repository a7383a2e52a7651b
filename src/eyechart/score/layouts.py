"""The columns of known sets of questions turned into items that are not in pairs.

Every reader goes row by row, by ids that stand in the row, and names every row it cannot read.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eyechart.score.cells import Columns, find_columns, read_answer, read_options, text_of
from eyechart.score.kinds import plain
from eyechart.score.pairing import Draft, Group, check_options, complain, natural, read_draft
from eyechart.score.tables import Row, Table

YES_NO = ("Yes", "No")

VSR_QUESTION = 'Is the following statement true of the image? "{caption}"'
"""How a caption of VSR is asked. VSR has captions and labels and no question, so this wording is Eyechart's own."""

CV_DIMENSION = {"Count": "2D", "Relation": "2D", "Depth": "3D", "Distance": "3D"}
"""CV-Bench's tasks and what they are counted under (Tong et al., 2024, "Cambrian-1", section 3.2)."""

CV_SOURCES = {"ADE20K": "2D", "COCO": "2D", "Omni3D": "3D"}
"""CV-Bench's sources and what they are counted under."""

POPE_CATEGORIES = ("adversarial", "popular", "random")


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What a reader made of a table."""

    groups: list[Group]
    rule: str
    notes: tuple[str, ...] = ()


def read_layout(kind: str, table: Table) -> Read:
    """The items of a table of a known kind, in the natural order of their ids.

    Raises:
        UserError: rows that cannot be read, or ids that stand twice, each named.
        KeyError: there is no such kind here.
    """
    read = READERS[kind](table)
    _unique(table, [draft for group in read.groups for draft in group])
    return replace(read, groups=sorted(read.groups, key=lambda group: natural(group[0].id)))


def _unique(table: Table, drafts: Sequence[Draft]) -> None:
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for draft in drafts:
        rows[draft.id].append(draft.number)
    twice = [(name, numbers) for name, numbers in rows.items() if len(numbers) > 1]
    complain(table, [f"rows {' and '.join(map(str, n))} have the same id {name!r}" for name, n in twice])


Cells = Mapping[str, Any]


def _read(table: Table, one: Callable[[Row, Cells], Draft]) -> list[Draft]:
    """Every row through `one`, which gets its cells by plain names; all that fail are named."""
    drafts: list[Draft] = []
    problems = []
    for row in table.rows:
        try:
            drafts.append(one(row, {plain(name): cell for name, cell in row.cells.items()}))
        except ValueError as error:
            where = f"row {row.number}" + (f" ({row.file})" if row.file else "")
            problems.append(f"{where}: {error}")
    complain(table, problems)
    return drafts


def _draft(
    row: Row,
    *,
    item_id: str,
    question: Any,
    options: tuple[str, ...],
    answer: Any,
    images: Sequence[Any],
    pattern: str | None,
    facets: Mapping[str, str],
) -> Draft:
    asked = " ".join(text_of(question).split())
    if not asked:
        raise ValueError("the question is empty")
    if not item_id:
        raise ValueError("the id is empty")
    shown = [cell for cell in images if not _is_empty(cell)]
    if not shown or _is_empty(images[0]):
        raise ValueError("the image is empty")
    check_options(options)
    return Draft(
        number=row.number,
        id=item_id,
        pair_id="",
        question=asked,
        options=options,
        answer=read_answer(answer, options, None),
        image=shown[0],
        pattern=pattern,
        more=tuple(shown[1:]),
        facets=tuple(facets.items()),
    )


def _is_empty(cell: Any) -> bool:
    if isinstance(cell, Mapping):
        return cell.get("bytes") is None and not cell.get("path")
    return not isinstance(cell, bytes) and text_of(cell) == ""


def _of(cells: Cells, name: str) -> str:
    """A cell that must say something.

    Raises:
        ValueError: it is empty, or there is no such column.
    """
    found = text_of(cells.get(name))
    if not found:
        raise ValueError(f"the {name} is empty" if name in cells else f"there is no column {name!r}")
    return found


# ---- CV-Bench


def _cv_bench(table: Table) -> Read:
    drafts = _numbered_twice(_read(table, _cv_row))
    there = {dict(draft.facets)["source"] for draft in drafts}
    return Read(groups=_alone(drafts), rule="cv-bench", notes=tuple(_notes_on_sources(there)))


def _notes_on_sources(there: set[str]) -> Iterator[str]:
    other = sorted(there - CV_SOURCES.keys())
    missing = [source for source in CV_SOURCES if source not in there]
    if other:
        yield (
            f"sources that are not CV-Bench's: {', '.join(other)}; 2D and 3D are means over the sources there are, as"
            " CV-Bench's formula has it for its own"
        )
    elif missing:
        yield f"no items of {', '.join(missing)}: what CV-Bench's formula needs them for is left undefined"


def _cv_row(row: Row, cells: Cells) -> Draft:
    dimension, task, source = (_of(cells, name) for name in ("type", "task", "source"))
    known = {name.casefold(): name for name in CV_DIMENSION}
    task = known.get(task.casefold(), task)
    for what, said in (
        (f"task {task}", CV_DIMENSION.get(task)),
        (f"source {source}", CV_SOURCES.get(source)),
    ):
        if said is not None and said != dimension:
            raise ValueError(f"the type is {dimension!r}, but {what} is of {said}")
    if dimension not in ("2D", "3D"):
        raise ValueError(f"the type is {dimension!r}, expected 2D or 3D")
    options, _ = read_options(cells.get("choices"))
    return _draft(
        row,
        item_id=text_of(cells.get("idx")) or _content_id(cells),
        question=cells.get("question"),
        options=options,
        answer=cells.get("answer"),
        images=[cells.get("image")],
        pattern=task,
        facets={"type": dimension, "source": source},
    )


def _numbered_twice(drafts: list[Draft]) -> list[Draft]:
    """Where 2D and 3D items are numbered apart, the number alone is no id."""
    times = Counter(draft.id for draft in drafts)
    if max(times.values(), default=0) == 1:
        return drafts
    return [replace(draft, id=f"{dict(draft.facets)['type']}-{draft.id}") for draft in drafts]


# ---- POPE


def _pope(table: Table) -> Read:
    drafts = _read(table, lambda row, cells: _pope_row(row, cells, row.file or table.path.name))
    notes = ["an unread reply counts as wrong; POPE's own script takes every reply without a 'no' for a yes"]
    return Read(groups=_alone(drafts), rule="pope", notes=tuple(notes))


def _pope_row(row: Row, cells: Cells, file: str) -> Draft:
    question = cells.get("question") or cells.get("text")
    category = text_of(cells.get("category")) or _category_of(file)
    if category not in POPE_CATEGORIES:
        raise ValueError(
            f"the category is {category!r}, expected {', '.join(POPE_CATEGORIES)}; where there is no such column the"
            " file's name says it (coco_pope_random.json)"
        )
    answer = text_of(cells.get("answer") if "answer" in cells else cells.get("label"))
    if answer.casefold() not in ("yes", "no"):
        raise ValueError(f"the answer is {answer!r}, expected yes or no")
    return _draft(
        row,
        item_id=f"{category}-{_of(cells, 'question_id')}",
        question=question,
        options=YES_NO,
        answer=answer,
        images=[cells.get("image")],
        pattern=category,
        facets={"category": category},
    )


def _category_of(file: str) -> str:
    found = re.fullmatch(r".*_(adversarial|popular|random)\.\w+", file)
    return found[1] if found else ""


# ---- NaturalBench

_IN_QUESTION = re.compile(
    r"(?s)(.+?)\s*\bOptions?\s*:\s*A\s*[:.]\s*(.+?)\s*[;,]?\s*\bB\s*[:.]\s*(.+?)\s*[;.]?\s*"
)


def _naturalbench(table: Table) -> Read:
    groups: list[Group] = []
    problems, bare = [], 0
    for row in table.rows:
        try:
            group = _natural_row(row, {plain(name): cell for name, cell in row.cells.items()})
        except ValueError as error:
            problems.append(f"row {row.number}: {error}")
            continue
        bare += any(draft.options == ("A", "B") for draft in group)
        groups.append(group)
    complain(table, problems)
    note = f"{bare} rows hold their two options in the question's own words; there A and B are the options"
    return Read(groups=groups, rule="naturalbench", notes=(note,) if bare else ())


def _natural_row(row: Row, cells: Cells) -> Group:
    index, kind = _of(cells, "index"), _of(cells, "question_type").casefold().replace(" ", "_")
    kinds = {"yes_no": YES_NO, "yes_or_no": YES_NO, "multiple_choice": None}
    if kind not in kinds:
        raise ValueError(f"the question_type is {kind!r}, expected yes_no or multiple_choice")
    drafts = []
    for asked in "01":
        question, options = text_of(cells.get(f"question_{asked}")), kinds[kind]
        if options is None:
            question, options = _options_in(question)
        for shown in "01":
            facets = {
                "group": index,
                "question": asked,
                "image": shown,
                "source": text_of(cells.get("source")),
            }
            drafts.append(
                _draft(
                    row,
                    item_id=f"{index}-q{asked}-i{shown}",
                    question=question,
                    options=options,
                    answer=_natural_answer(cells, asked, shown, options),
                    images=[cells.get(f"image_{shown}")],
                    pattern="multiple_choice" if kinds[kind] is None else "yes_no",
                    facets={name: said for name, said in facets.items() if said},
                )
            )
    said = [draft.answer for draft in drafts]
    if said not in ([0, 1, 1, 0], [1, 0, 0, 1]):
        raise ValueError(
            f"row {index!r} of the set: each question must have opposite answers on the two images, and each image on"
            f" the two questions; the right options are {said} (question 0 on images 0 and 1, question 1 on both)"
        )
    return tuple(drafts)


def _natural_answer(cells: Cells, asked: str, shown: str, options: tuple[str, ...]) -> str:
    """The answer of a cell; a letter stands for the option's place, whatever the options say."""
    said = _of(cells, f"image_{shown}_question_{asked}")
    return f"({said})" if options != YES_NO and said.upper() in ("A", "B") else said


def _options_in(question: str) -> tuple[str, tuple[str, str]]:
    """The question without its options, and these; where they stand otherwise, all words and A and B."""
    found = _IN_QUESTION.fullmatch(question)
    if found is None or found[2] == found[3]:
        return question, ("A", "B")
    return found[1], (found[2], found[3])


# ---- VSR


def _vsr(table: Table) -> Read:
    notes = (f"the captions are asked as {VSR_QUESTION.format(caption='...')}, which is Eyechart's wording",)
    return Read(groups=_alone(_read(table, _vsr_row)), rule="items", notes=notes)


def _vsr_row(row: Row, cells: Cells) -> Draft:
    label = _of(cells, "label").casefold()
    answers = {"1": "Yes", "0": "No", "true": "Yes", "false": "No"}
    if label not in answers:
        raise ValueError(f"the label is {label!r}, expected 1 or 0")
    caption, relation = _of(cells, "caption"), _of(cells, "relation")
    return _draft(
        row,
        item_id=text_of(cells.get("id")) or _content_id({"image": cells.get("image"), "caption": caption}),
        question=VSR_QUESTION.format(caption=caption),
        options=YES_NO,
        answer=answers[label],
        images=[cells.get("image")],
        pattern=relation,
        facets={"relation": relation},
    )


# ---- BLINK-shaped sets, and rows of any set


def _blink(table: Table) -> Read:
    return Read(groups=_alone(_read(table, _blink_row)), rule="items")


def _blink_row(row: Row, cells: Cells) -> Draft:
    if text_of(cells.get("answer")).casefold() == "hidden":
        raise ValueError(
            "the answer is 'hidden': those of this split are not published; take the split 'val'"
        )
    options, _ = read_options(cells.get("choices"))
    return _draft(
        row,
        item_id=_of(cells, "idx" if "idx" in cells else "id"),
        question=cells.get("question"),
        options=options,
        answer=cells.get("answer"),
        images=_numbered_images(cells),
        pattern=_of(cells, "sub_task"),
        facets={"sub_task": _of(cells, "sub_task")},
    )


def _numbered_images(cells: Cells) -> list[Any]:
    """What stands in image_1, image_2, ... in the order of the numbers."""
    names = [name for name in cells if re.fullmatch(r"image_\d+", name)]
    return [cells[name] for name in sorted(names, key=natural)]


def _items(table: Table) -> Read:
    columns = find_columns(table)
    return Read(groups=_alone(_read(table, lambda row, cells: _item_row(row, cells, columns))), rule="items")


def _item_row(row: Row, cells: Cells, columns: Columns) -> Draft:
    draft = read_draft(row, columns)
    more = [cell for cell in _numbered_images(cells) if not _is_empty(cell)]
    if "image" not in columns.found and more:
        draft, more = replace(draft, image=more[0]), more[1:]
    return replace(draft, pair_id="", id=draft.id or _content_id(cells), more=tuple(more))


def _content_id(cells: Cells) -> str:
    """An id made of what the row says, for rows that have none: it does not depend on the row's place."""
    return (
        "item-" + hashlib.sha256(json.dumps(cells, sort_keys=True, default=_said).encode()).hexdigest()[:12]
    )


def _said(cell: Any) -> str:
    return hashlib.sha256(cell).hexdigest() if isinstance(cell, bytes) else str(cell)


def _alone(drafts: Sequence[Draft]) -> list[Group]:
    return [(draft,) for draft in drafts]


READERS: Mapping[str, Callable[[Table], Read]] = {
    "cv-bench": _cv_bench,
    "pope": _pope,
    "naturalbench": _naturalbench,
    "vsr": _vsr,
    "blink": _blink,
    "items": _items,
}
"""By kind."""
