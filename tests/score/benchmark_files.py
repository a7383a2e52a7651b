"""Rows of benchmarks and ways to write them down, for the tests of loading."""

import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(number: int, size: tuple[int, int] = (8, 8)) -> bytes:
    """A picture that no other number has."""
    out = io.BytesIO()
    Image.new("RGB", size, (number % 256, number // 256, 77)).save(out, "PNG")
    return out.getvalue()


def mmvp_rows(pairs: int, options: str = "(a) Open (b) Closed") -> list[dict[str, str]]:
    return [
        {
            "lndex": str(number),
            "Question": f"Is door {(number + 1) // 2} open (or closed)?",
            "Options": options,
            "Correct Answer": "(a)" if number % 2 else "(b)",
        }
        for number in range(1, 2 * pairs + 1)
    ]


def write_csv(path: Path, rows: Sequence[dict[str, Any]], *, delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def paired_rows(
    images: Sequence[Any], *, patterns: Sequence[str | None] = ("color",)
) -> list[dict[str, Any]]:
    """Yes/no rows, two to a pair."""
    return [
        {
            "id": f"q{number}",
            "pair_id": f"p{number // 2}",
            "question": f"Is thing {number // 2} red?",
            "options": ["Yes", "No"],
            "answer": "AB"[number % 2],
            "image": image,
            "pattern": patterns[(number // 2) % len(patterns)],
        }
        for number, image in enumerate(images)
    ]


def jpeg(number: int, size: tuple[int, int] = (224, 224)) -> bytes:
    """A photo-sized picture that no other number has."""
    out = io.BytesIO()
    colour = (10 + 16 * (number % 15), 10 + 16 * (number // 15 % 15), 10 + 30 * (number // 225))
    Image.new("RGB", size, colour).save(out, "JPEG", quality=90)
    return out.getvalue()


def mmvp_all(*, corrected: bool = False) -> list[dict[str, str]]:
    """300 rows with the quirks of MMVP's own table: brackets, quotation marks, yes and no, doubted labels; shuffled."""
    special = {
        5: ('Is the key "Z" to be seen?', "(a) Yes (b) No"),
        31: ("What is on the sign:", '(a) "Happy Easter" (b) "Happy Easter!"'),
        50: ("Does the elephant have long or short tusks?", "(a) Long (b) Short"),
        68: ("Are all eggs in a container (e.g. nest, basket)?", "(a) Yes (b) No"),
        116: ("Is the person (in the front) left, or right?", "(a) Left (b) Right"),
        140: ("Is the elderly person standing or sitting in the picture?", "(a) Standing (b) Sitting"),
    }
    rows = []
    for number in range(1, 301):
        pair = (number + 1) // 2
        question, options = special.get(pair, (f"Is there a thing of kind {pair} there?", "(a) Yes (b) No"))
        first = (number % 2 == 1) != (corrected and pair in (50, 140))
        rows.append(
            {
                "lndex": str(number),
                "Question": question,
                "Options": options,
                "Correct Answer": "(a)" if first else "(b)",
            }
        )
    random.Random(0).shuffle(rows)
    return rows


VLM_TYPES = (
    "Orientation", "Presence", "State", "Quantity", "Spatial", "Color", "Structural Character", "Text", "Camera Perspective",
)  # fmt: skip


def mmvp_vlm_rows() -> list[dict[str, str]]:
    """The 270 statements of an MMVP-VLM-shaped set, in the order of the folders and not of the ids."""
    rows = [
        {
            "Question ID": str(number),
            "Type": VLM_TYPES[(number - 1) // 30],
            "Statement": f'thing {number}, "as it were"',
        }
        for number in range(1, 271)
    ]
    return sorted(rows, key=lambda row: (row["Type"], row["Question ID"]))


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def in_table(content: bytes) -> dict[str, Any]:
    """A picture as `datasets` keeps it in Parquet."""
    return {"bytes": content, "path": None}
