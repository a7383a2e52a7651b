"""A set as a dataset of the hub: a folder that `datasets.load_dataset` reads, with its card."""

from pathlib import Path

from eyechart.core.files import write_bytes
from eyechart.core.records import Benchmark
from eyechart.score.export.card import card
from eyechart.score.export.parquet import columns, write_shards
from eyechart.score.export.rows import Row

SPLIT = "test"


def write_hub(folder: Path, benchmark: Benchmark, rows: list[Row], *, licence: str) -> None:
    """Write `data/test-*.parquet` and `README.md` into `folder`; `load_benchmark` of it is the same exam."""
    names = write_shards(folder / "data", rows, split=SPLIT)
    size = sum((folder / "data" / name).stat().st_size for name in names)
    text = card(benchmark, rows, kinds=columns(rows), split=SPLIT, licence=licence, megabytes=size / 1e6)
    write_bytes(folder / "README.md", text.encode())
