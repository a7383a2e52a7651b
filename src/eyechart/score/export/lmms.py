"""A set as a task folder of lmms-eval: `<task>.yaml`, `utils.py` and the data, working without Eyechart."""

from pathlib import Path

from eyechart.core.files import write_bytes
from eyechart.core.records import Benchmark
from eyechart.score.asking import TEMPLATES
from eyechart.score.export.card import about, render
from eyechart.score.export.parquet import image_columns, write_shards
from eyechart.score.export.reader import reader_source
from eyechart.score.export.rows import Row, in_pairs

MAX_NEW_TOKENS = 16
"""As `eyechart score` has it."""

POST_PROMPT = TEMPLATES["letter"].write("", ())
"""What follows the options: a line break and the instruction."""

PAIRED = (
    ("pair_accuracy", "pair_accuracy", True),
    ("pair_accuracy_low", "pair_accuracy_low", True),
    ("pair_accuracy_high", "pair_accuracy_high", True),
    ("image_accuracy", "mean", True),
    ("unread", "mean", False),
)
SINGLE = (("accuracy", "mean", True), ("unread", "mean", False))
"""Metrics: name, the function that sums them up, whether more is better."""


def write_lmms(folder: Path, benchmark: Benchmark, rows: list[Row], *, task: str) -> None:
    """Write the task into `folder`.

    The samples it logs hold the item's id, pair and pattern in every metric's record, since lmms-eval 0.7 drops the
    item itself from its logs.
    """
    own = folder / task
    shards = write_shards(own / "data", rows, split="test")
    paired = in_pairs(benchmark)
    values = {
        **about(benchmark, rows),
        "task": task,
        "shards": repr(shards),
        "images": repr(image_columns(rows)),
        "reader": reader_source(),
        "post_prompt": POST_PROMPT.replace("\n", "\\n"),
        "max_new_tokens": MAX_NEW_TOKENS,
        "metrics": PAIRED if paired else SINGLE,
    }
    for template, name in (
        ("lmms_utils.py", "utils.py"),
        ("lmms_task.yaml", f"{task}.yaml"),
        ("lmms_readme.md", "README.md"),
    ):
        write_bytes(own / name, render(template, **values).encode())
