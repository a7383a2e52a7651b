"""A set as a TSV of VLMEvalKit: `index, image, question, A, B, ..., answer, category`, the two of a pair beside each other."""

import base64
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from eyechart.core.files import write_bytes
from eyechart.core.records import Benchmark
from eyechart.score.cells import LETTERS
from eyechart.score.export.card import about, render
from eyechart.score.export.pictures import read_picture
from eyechart.score.export.rows import Row, images_of


def write_vlmevalkit(folder: Path, benchmark: Benchmark, rows: list[Row], *, task: str) -> None:
    """Write `<task>.tsv` and a README into `folder`.

    `index` is the item's id where all ids are whole numbers; else a number from 1, and the id stands in `original_id`.
    Pictures are base64 of the source's bytes; several of one item are a list in JSON.
    """
    numbered = all(row.item.id.isdecimal() and str(int(row.item.id)) == row.item.id for row in rows)
    letters = LETTERS[: max(len(row.item.options) for row in rows)]
    path = folder / f"{task}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        for line in _lines(rows, letters, numbered=numbered):
            file.write(line)
    values = {**about(benchmark, rows), "task": task, "numbered": numbered}
    write_bytes(folder / "README.md", render("vlmevalkit_readme.md", **values).encode())


def _lines(rows: list[Row], letters: str, *, numbered: bool) -> Iterator[str]:
    yield _line(
        ["index", "question", *letters, "answer", "category", "pair_id", "side", "original_id", "image"]
    )
    for number, row in enumerate(rows, start=1):
        item = row.item
        options = [*item.options, *[""] * (len(letters) - len(item.options))]
        yield _line(
            [
                item.id if numbered else str(number), item.question, *options, row.target, item.pattern or "",
                item.pair_id, row.side, item.id, _images(row),
            ]
        )  # fmt: skip


def _images(row: Row) -> str:
    shown = [base64.b64encode(read_picture(path, sha256)).decode() for path, sha256 in images_of(row.item)]
    return shown[0] if len(shown) == 1 else json.dumps(shown)


def _line(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter="\t", lineterminator="\n").writerow(cells)
    return out.getvalue()
