"""The result tables of VLMEvalKit: `index, question, A, B, ..., answer, prediction, category, hit`."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyechart.core.errors import UserError, need
from eyechart.score.cells import LETTERS, read_answer, text_of
from eyechart.score.grading import read_choice
from eyechart.score.logged import READ, VERDICT, Answered, Log, bad_row, once
from eyechart.score.tables import Row, Table, read_table

SUFFIXES = (".xlsx", ".tsv", ".csv", ".json")

_ENDINGS = re.compile(r"_(?:[\w.-]*_)?result$")
_FAILED = "Failed to obtain answer via API"
_PATTERNS = ("pattern", "category", "task", "type")


def read_vlmevalkit(path: Path) -> Log:
    """One result table.

    `index` is the id. Options are the columns A, B, ...; without them the answer must be yes or no. `hit` is the
    harness's verdict. An empty prediction, and the text VLMEvalKit writes where an API gave no answer, are unread.

    Raises:
        UserError: the table cannot be read or lacks a column, or nothing in it can be used.
    """
    table = _sheet(path) if path.suffix.lower() == ".xlsx" else read_table(path)
    names = {name.strip().lower(): name for name in table.columns}
    missing = [name for name in ("index", "question", "prediction") if name not in names]
    if "answer" not in names and "hit" not in names:
        missing.append("answer")
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(map(repr, missing))}, so this is no result of VLMEvalKit; its columns are"
            f" {', '.join(table.columns)}"
        )
    answers, left_out = [], []
    for row in table.rows:
        try:
            answers.append(_answered({name: row.cells.get(own) for name, own in names.items()}))
        except ValueError as error:
            left_out.append(bad_row(path, f"row {row.number}: {error}"))
    kept, twice, notes = once(path, answers)
    if not kept:
        raise UserError(
            f"{path}: none of its {len(table.rows)} rows can be used; the first: {left_out[0].detail}"
        )
    model, task = _named(path)
    failed = sum(one.reply.startswith(_FAILED) or not one.reply for one in kept)
    if failed:
        notes.append(
            f"{failed} items have no reply (an empty cell, or an API that failed) and count as unread"
        )
    return Log(
        path=path,
        source="VLMEvalKit",
        kind="vlm",
        model=model,
        identity=model,
        task=task,
        variant="",
        control="",
        answers=kept,
        graded=READ if any(one.regraded for one in kept) else VERDICT,
        benchmark={"name": task},
        left_out=(*left_out, *twice),
        notes=(*table.notes, *notes),
    )


def _named(path: Path) -> tuple[str, str]:
    """Model and benchmark out of a name such as `llava_v1.5_7b_MMVP_openai_result.xlsx`."""
    stem = path.stem
    for ending in ("_openai_result", "_exact_matching_result", "_result"):
        stem = stem.removesuffix(ending)
    stem = _ENDINGS.sub("", stem)
    model, _, task = stem.rpartition("_")
    return (model, task) if model else (stem, "")


def _sheet(path: Path) -> Table:
    try:
        openpyxl = need("openpyxl", why=f"reading {path.name}")
    except UserError:
        raise UserError(
            f"reading {path} needs the package 'openpyxl'. Install it with: pip install 'eyechart[xlsx]'. Or save the sheet"
            " as .csv or .tsv"
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        lines = [list(line) for line in book.worksheets[0].iter_rows(values_only=True)]
        book.close()
    except Exception as error:  # openpyxl lets through what its zip and XML readers raise
        raise UserError(f"{path}: no readable .xlsx ({error})") from None
    if len(lines) < 2:
        raise UserError(f"{path}: the sheet has no rows")
    header = [text_of(cell) for cell in lines[0]]
    rows = [
        Row(number=number, cells=dict(zip(header, line, strict=False)))
        for number, line in enumerate(lines[1:], start=1)
        if any(cell is not None for cell in line)
    ]
    return Table(path=path, folder=path.parent, columns=tuple(header), rows=tuple(rows))


def _answered(cells: Mapping[str, Any]) -> Answered:
    name = text_of(cells.get("index"))
    if not name:
        raise ValueError("the index is empty")
    options = _options(cells)
    reply = _said(cells.get("prediction"))
    hit = _hit(cells.get("hit"))
    answer = read_answer(cells.get("answer"), options, "letters") if options else None
    if answer is None and hit is None:
        raise ValueError("neither options with an answer, nor a hit")
    unanswered = not reply or reply.startswith(_FAILED)
    choice = None
    if options and not unanswered:
        choice = read_choice(reply, options, list(LETTERS[: len(options)]))
    regraded = answer is not None
    sha256 = _image_hash(cells.get("image"))
    return Answered(
        id=name,
        question=" ".join(text_of(cells.get("question")).split()),
        options=options,
        answer=answer,
        choice=choice,
        reply=reply,
        right=choice == answer if regraded else bool(hit),
        unread=regraded and choice is None,
        theirs=hit,
        regraded=regraded,
        pair_id=text_of(cells.get("pair_id")),
        pattern=next((text for key in _PATTERNS if (text := text_of(cells.get(key)))), None),
        images=tuple(filter(None, (text_of(cells.get("image_path")),))),
        images_sha256=(sha256,) if sha256 else (),
    )


def _options(cells: Mapping[str, Any]) -> tuple[str, ...]:
    texts = []
    for letter in LETTERS:
        text = _said(cells.get(letter.lower()))
        if not text:
            break
        texts.append(text)
    if len(texts) >= 2:
        return tuple(texts)
    return ("Yes", "No") if text_of(cells.get("answer")).casefold() in ("yes", "no") else ()


def _said(cell: Any) -> str:
    """A cell as text; spreadsheets turn Yes/No and TRUE/FALSE into truth values."""
    return {True: "True", False: "False"}[cell] if isinstance(cell, bool) else text_of(cell)


def _hit(cell: Any) -> bool | None:
    said = text_of(cell).casefold()
    return {"1": True, "0": False, "true": True, "false": False}.get(said)


def _image_hash(cell: Any) -> str:
    """The hash of a picture that stands in the table in base64; empty where it does not."""
    text = text_of(cell)
    if len(text) < 64:
        return ""
    try:
        return hashlib.sha256(base64.b64decode(text, validate=True)).hexdigest()
    except (binascii.Error, ValueError):
        return ""
