"""A set of questions written for other tools: a dataset of the hub, tasks of lmms-eval and inspect, a TSV of VLMEvalKit."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eyechart.core.errors import UserError, unknown
from eyechart.core.records import Benchmark
from eyechart.score.export.hub import write_hub
from eyechart.score.export.inspect_task import write_inspect
from eyechart.score.export.lmms import write_lmms
from eyechart.score.export.rows import in_pairs, rows_of
from eyechart.score.export.vlmevalkit import write_vlmevalkit

FORMATS: Mapping[str, str] = {
    "hf": "a dataset of the hub: Parquet with an Image feature, and its card",
    "lmms-eval": "a task folder for --include_path",
    "vlmevalkit": "a TSV with pictures in base64",
    "inspect": "a task file with its samples and pictures",
}
"""What a set can be written as, for people."""

__all__ = ["FORMATS", "Exported", "export", "task_name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written where."""

    folder: Path
    to: str
    task: str
    """What the task or table is called there."""

    items: int
    notes: tuple[str, ...]
    """What the reader of the export must know."""


def export(
    benchmark: Benchmark, to: str, folder: Path | str, *, licence: str = "unknown", task: str | None = None
) -> Exported:
    """Write a set in another tool's format; the folder appears whole or not at all.

    Args:
        benchmark: the set; what was quarantined is not in it.
        to: a name in `FORMATS`.
        folder: new, or empty.
        licence: what the dataset's card says, in the hub's words (`cc-by-4.0`).
        task: the task's name (letters, digits, underscores); made of the set's name unless given.

    Raises:
        UserError: there is no such format, the folder is in use, a picture has changed, or an answer or pair cannot
            be written so that it is read back.
    """
    if to not in FORMATS:
        raise unknown("format to export to", to, FORMATS)
    name = task_name(benchmark) if task is None else task
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise UserError(f"a task cannot be named {name!r}: it is a name of Python; use letters, digits and _")
    out = Path(folder).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there and not an empty folder; choose another --out")
    rows = rows_of(benchmark)
    out.parent.mkdir(parents=True, exist_ok=True)
    begun = out.with_name(f".{out.name}.exporting")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir()
    try:
        if to == "hf":
            write_hub(begun, benchmark, rows, licence=licence)
        elif to == "lmms-eval":
            write_lmms(begun, benchmark, rows, task=name)
        elif to == "vlmevalkit":
            write_vlmevalkit(begun, benchmark, rows, task=name)
        else:
            write_inspect(begun, benchmark, rows, task=name)
        if out.exists():
            out.rmdir()
        begun.rename(out)
    except BaseException:
        shutil.rmtree(begun, ignore_errors=True)
        raise
    return Exported(folder=out, to=to, task=name, items=len(rows), notes=tuple(_notes(benchmark, to)))


def task_name(benchmark: Benchmark) -> str:
    """`eyechart_` and the set's name, so that it is not taken for a task the other tool has itself.

    >>> from types import SimpleNamespace
    >>> task_name(SimpleNamespace(name="My-Set 2"))
    'eyechart_my_set_2'
    """
    return "eyechart_" + re.sub(r"\W+", "_", benchmark.name.lower(), flags=re.ASCII).strip("_")


def _notes(benchmark: Benchmark, to: str) -> list[str]:
    notes = []
    if benchmark.rule not in ("pairs", "items"):
        notes.append(
            f"the rule of this set ({benchmark.rule}) does not travel with it: there each item counts by itself"
        )
    if to == "vlmevalkit" and in_pairs(benchmark):
        notes.append("VLMEvalKit counts items; 'eyechart compare' counts the pairs of its results")
    if benchmark.quarantined:
        notes.append(f"{len(benchmark.quarantined)} pictures could not be used; their items are left out")
    if benchmark.corrections:
        notes.append(
            f"answers are as first published; {len(benchmark.corrections)} corrections stand beside them"
        )
    return notes
