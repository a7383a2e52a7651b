"""Several models on one benchmark: the first one's run folder is told how the others did on the same pairs."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from eyechart.core.config import build
from eyechart.core.errors import UserError
from eyechart.core.files import read_table
from eyechart.core.runs import CONFIG, RunFolder
from eyechart.core.stats import mcnemar_exact
from eyechart.exam.config import ExamConfig, rerun_several
from eyechart.exam.defaults import ABOUT
from eyechart.exam.main import ExamResult
from eyechart.report import summary_sentences, write_report
from eyechart.score.compare import ERROR_RATE, TEST, against, by_pattern

BESIDE, BESIDE_SCHEMA = (
    "beside.parquet",
    pa.schema(
        [
            *(pa.field(name, pa.string()) for name in ("pair_id", "pattern", "model")),
            pa.field("pair_right", pa.bool_()),
        ]
    ),
)
"""Every pair under every model, the first model first."""


def place_beside(results: Sequence[ExamResult]) -> ExamResult:
    """Set the other models beside the first: in its `results.json`, in `beside.parquet` and on its page.

    Differences are another model's pair accuracy minus the first's. Each other model is compared with the first by
    pattern, with Holm's correction over the patterns, and on all pairs together.

    Args:
        results: finished exams of two or more models on one benchmark; a benchmark's questions and pictures count,
            not where they lie.

    Returns:
        The first exam, with what was added to it.

    Raises:
        UserError: fewer than two exams, or they were not held on the same pairs.
    """
    if len(results) < 2:
        raise UserError(f"{len(results)} exams cannot be set beside one another; give two or more")
    rights = [_rights(result.folder) for result in results]
    _check_same(results, rights)
    first = results[0]
    block = {
        "command": shlex.join(_command(results)),
        "test": TEST,
        "error_rate": ERROR_RATE,
        "about": _about(first),
        "others": [
            _other(result, first, rights[0], right)
            for result, right in zip(results[1:], rights[1:], strict=True)
        ],
    }
    _write(first.folder, block, _rows(results))
    page = write_report(first.folder)
    return ExamResult(
        folder=first.folder,
        page=page,
        results=_results(first.folder),
        summary=summary_sentences(first.folder),
        again=first.again,
    )


def _rights(folder: Path) -> dict[str, bool]:
    """Whether each pair was got right, in the benchmark's order."""
    return {row["pair_id"]: row["pair_right"] for row in read_table(folder / "pairs.parquet")}


def _results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text("utf8"))
    return found


def _check_same(results: Sequence[ExamResult], rights: Sequence[Mapping[str, bool]]) -> None:
    first = results[0]
    for result, right in zip(results[1:], rights[1:], strict=True):
        hashes = [one.results["eyechart"]["benchmark"]["sha256"] for one in (first, result)]
        if hashes[0] != hashes[1] or list(right) != list(rights[0]):
            raise UserError(
                f"{first.folder} and {result.folder} were not examined on the same pairs (sha256 {hashes[0][:12]} and"
                f" {hashes[1][:12]}), so they cannot be set beside one another"
            )


def _command(results: Sequence[ExamResult]) -> list[str]:
    """The shell words that hold all these exams again, where their folders bear the names the exam gives them."""
    configs = [_config(result.folder) for result in results]
    return rerun_several(configs, results[0].folder.parent)


def _config(folder: Path) -> ExamConfig:
    stored = yaml.safe_load((folder / CONFIG).read_bytes())
    return build(ExamConfig, {name: value for name, value in stored.items() if name != "resolved"})


def _about(result: ExamResult) -> str | None:
    return ABOUT.get(result.results["eyechart"]["model"]["id"])


def _other(
    result: ExamResult, first: ExamResult, before: Mapping[str, bool], after: Mapping[str, bool]
) -> dict[str, Any]:
    """How another model did: its rates, and its differences from the first."""
    block = result.results["eyechart"]
    score = block["score"]
    return {
        "id": block["model"]["id"],
        "trained": block["model"]["trained"],
        "about": _about(result),
        "page": Path(os.path.relpath(result.page, first.folder)).as_posix(),
        "pairs": score["pairs"],
        "chance_pairs": score["chance_pairs"],
        "unread": score["unread"],
        "against": against(mcnemar_exact([*before.values()], [*after.values()])),
        "patterns": _patterns(result, first, before, after),
    }


def _patterns(
    result: ExamResult, first: ExamResult, before: Mapping[str, bool], after: Mapping[str, bool]
) -> list[dict[str, Any]]:
    rates = {row["pattern"]: row["pairs"] for row in result.results["eyechart"]["patterns"]}
    of = {row["pair_id"]: row["pattern"] for row in read_table(first.folder / "pairs.parquet")}
    named = {pair: of[pair] for pair in before if of[pair] in rates}
    tests = by_pattern({pair: before[pair] for pair in named}, {pair: after[pair] for pair in named}, named)
    return [
        {"pattern": pattern, "pairs": rates[pattern], "against": tests[pattern]}
        for pattern in rates
        if pattern in tests  # none where the benchmark names no pattern
    ]


def _rows(results: Sequence[ExamResult]) -> list[dict[str, Any]]:
    rows = []
    for result in results:
        for row in read_table(result.folder / "pairs.parquet"):
            kept = {name: row[name] for name in ("pair_id", "pattern", "pair_right")}
            rows.append({**kept, "model": result.results["eyechart"]["model"]["id"]})
    return rows


def _write(folder: Path, block: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    config = yaml.safe_load((folder / CONFIG).read_bytes())
    results = _results(folder)
    results["eyechart"]["beside"] = block
    with RunFolder.open(folder, config=config, command=()) as run:
        run.write_table(BESIDE, rows, BESIDE_SCHEMA)
        run.write_json("results.json", results)
