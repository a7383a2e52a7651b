"""A set as a task of inspect: one Python file with its samples and pictures beside it, working without Eyechart."""

import json
from pathlib import Path
from typing import Any

from eyechart.core.files import write_bytes
from eyechart.core.records import Benchmark
from eyechart.score.export.card import about, render
from eyechart.score.export.lmms import MAX_NEW_TOKENS
from eyechart.score.export.pictures import read_picture, suffix_of
from eyechart.score.export.reader import reader_source
from eyechart.score.export.rows import Row, images_of, in_pairs, plain


def write_inspect(folder: Path, benchmark: Benchmark, rows: list[Row], *, task: str) -> None:
    """Write `<task>.py`, `samples.jsonl` and `images/` into `folder`."""
    lines = [json.dumps(_sample(folder, row), ensure_ascii=False) for row in rows]
    write_bytes(folder / "samples.jsonl", ("\n".join(lines) + "\n").encode())
    values = {
        **about(benchmark, rows),
        "task": task,
        "reader": reader_source(),
        "paired": in_pairs(benchmark),
        "max_new_tokens": MAX_NEW_TOKENS,
    }
    write_bytes(folder / f"{task}.py", render("inspect_task.py", **values).encode())
    write_bytes(folder / "README.md", render("inspect_readme.md", **values).encode())


def _sample(folder: Path, row: Row) -> dict[str, Any]:
    names = []
    for path, sha256 in images_of(row.item):
        content = read_picture(path, sha256)
        names.append(f"images/{sha256[:16]}{suffix_of(content)}")
        if not (folder / names[-1]).exists():
            write_bytes(folder / names[-1], content)
    return {**plain(row), "target": row.target, "prompt": row.prompt, "images": names}
