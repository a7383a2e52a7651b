"""Rows of benchmarks and ways to write them down, for the tests of loading."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
