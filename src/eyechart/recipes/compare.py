"""Runs that were made before, compared on the same items: from their logs to one folder with a page."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from eyechart.core.config import to_dict
from eyechart.core.errors import UserError
from eyechart.core.images import BadImage, open_image, sha256_of, thumbnail_jpeg
from eyechart.core.runs import RunFolder
from eyechart.report import write_comparison
from eyechart.score.comparison import Comparison, compare_runs
from eyechart.score.logged import Log

PICTURED = 100
"""Changed units whose pictures are put into the folder."""

_TEXTS = ("pair_id", "unit", "pattern", "run", "model")
PAIRS_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in _TEXTS),
        pa.field("right", pa.bool_()),
        pa.field("items_right", pa.int64()),
        pa.field("items", pa.int64()),
    ]
)
"""Each unit under each run, the first run first."""

ITEMS_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("item_id", "pair_id", "pattern", "run")),
        pa.field("choice", pa.int64()),
        *(pa.field(name, pa.bool_()) for name in ("right", "unread", "right_by_harness")),
        pa.field("reply", pa.string()),
    ]
)
"""Each item under each run; `choice` is a place in the first run's order of options, `right` by its labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig:
    """Every choice of a comparison."""

    runs: tuple[str, ...]
    """Run folders, samples or result tables; the others are compared with the first."""

    every: bool = False
    """Compare each two of them."""

    common: bool = False
    """Leave out items that not all runs have, instead of refusing."""

    task: str | None = None
    """Which task, of runs of several."""

    seed: int = 0

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("no run was named; give two runs or more, or one that was asked in several ways")

    @property
    def slug(self) -> str:
        """A folder name with a hash of every choice."""
        digest = hashlib.sha256(json.dumps(to_dict(self), sort_keys=True).encode()).hexdigest()
        return f"compare-{Path(self.runs[0]).stem[:40]}-{digest[:6]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareResult:
    """What `eyechart compare` made."""

    folder: Path
    page: Path
    record: dict[str, Any]
    """`compare.json`."""

    again: bool
    """Whether it was compared before and is only shown again."""


def compare(
    config: CompareConfig, *, out: Path | None = None, fresh: bool = False, command: Sequence[str] = ()
) -> CompareResult:
    """Compare runs and write a run folder.

    Args:
        config: every choice.
        out: the run folder (default `runs/compare-...`).
        fresh: start over.
        command: the words of the command line, for the manifest.

    Raises:
        UserError: something the caller can mend; the text says what was given, what was expected and what to do.
    """
    folder = out or Path("runs") / config.slug
    found = compare_runs(
        config.runs, every=config.every, common=config.common, task=config.task, seed=config.seed
    )
    read = {str(log.path): sha256_of(log.path) for log in found.logs}
    identity = {**to_dict(config), "resolved": {"files": read}}
    with RunFolder.open(folder, config=identity, command=command, fresh=fresh) as run:
        again = run.finished
        if not again:
            _write(run, found)
            run.own("compare.html")  # so that --fresh removes it
            run.finish()
    page = write_comparison(folder)
    record = json.loads((folder / "compare.json").read_text("utf8"))
    return CompareResult(folder=folder, page=page, record=record, again=again)


def _write(run: RunFolder, found: Comparison) -> None:
    run.write_quarantine(row for log in found.logs for row in log.left_out)
    run.write_table("pairs.parquet", found.pairs, PAIRS_SCHEMA)
    run.write_table("items.parquet", found.items, ITEMS_SCHEMA)
    for change in found.changes[:PICTURED]:
        for item in change["items"]:
            _pictures(run, item, found.logs)
    lines = "".join(json.dumps(change, ensure_ascii=False) + "\n" for change in found.changes)
    run.write_text("changes.jsonl", lines)
    run.write_json("compare.json", found.record)


def _pictures(run: RunFolder, item: Mapping[str, Any], logs: Sequence[Log]) -> None:
    """Small pictures of an item, out of the folders of the runs or of the pictures themselves, where they still are."""
    for path, sha256 in zip(item["images"], item["images_sha256"], strict=False):
        name = f"thumbs/{sha256}.jpg"
        if not (sha256.isascii() and sha256.isalnum()) or (run.path / name).exists():
            continue
        small = next((data for log in logs if (data := _small(log.path.parent / name))), None) or _made(
            path, sha256
        )
        if small is not None:
            run.write_bytes(name, small)


def _small(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _made(path: str, sha256: str) -> bytes | None:
    try:
        if sha256_of(path) != sha256:
            return None
        return thumbnail_jpeg(open_image(path).image)
    except BadImage:  # taken away since; the page says that there is none
        return None
