"""Where a pattern is lost, as lines of a log, as a table of pairs and as the block of `results.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from eyechart.core.files import JsonLines
from eyechart.exam.locating_items import Material
from eyechart.locate.probes import PatternStages, pattern_stages
from eyechart.locate.verdict import Answers, PatternVerdict, Rule
from eyechart.train.pair_labels import Covered
from eyechart.train.pair_reading import PairsRead

LOCATED, LOCATED_SCHEMA = (
    "located.parquet",
    pa.schema(
        [
            *(pa.field(name, pa.string(), nullable=False) for name in ("pattern", "pair_id", "stage")),
            pa.field("read", pa.float64(), nullable=False),
            pa.field("control", pa.float64()),
        ]
    ),
)
"""Of each pair and stage the share of repeats in which it was read, and in which its control was; the stage `answer` is whether the
model answered the pair."""


def line_of(read: PatternStages, notes: Sequence[str]) -> dict[str, Any]:
    stages = {
        one.stage.name: {"read": one.read.tolist(), "control": one.control.tolist()} for one in read.stages
    }
    return {"pattern": read.pattern, "probe": read.probe, "stages": stages, "notes": list(notes)}


def read_back(log: JsonLines, chosen: Sequence[Covered], notes: list[str], seed: int) -> list[PatternStages]:
    """As it was written, whether now or by an earlier start."""
    lines = {line["pattern"]: line for line in log}
    notes[:] = dict.fromkeys(note for line in lines.values() for note in line["notes"])
    found = []
    for one in chosen:
        line = lines[one.pattern]
        shares = {
            name: PairsRead(right=np.array(kept["read"]), control=np.array(kept["control"]))
            for name, kept in line["stages"].items()
        }
        found.append(pattern_stages(one, shares, probe=line["probe"], seed=seed))
    return found


def rows_of(read: Sequence[PatternStages], answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for one in read:
        for reading in one.stages:
            for pair, value, control in zip(one.pair_ids, reading.read, reading.control, strict=True):
                key = {"pattern": one.pattern, "pair_id": pair, "stage": reading.stage.name}
                rows.append({**key, "read": float(value), "control": float(control)})
        for pair in one.pair_ids:
            key = {"pattern": one.pattern, "pair_id": pair, "stage": "answer"}
            rows.append({**key, "read": float(answers[one.pattern].right[pair]), "control": None})
    return rows


def block_of(
    read: Sequence[PatternStages],
    verdicts: Sequence[PatternVerdict],
    rule: Rule,
    made: Material,
    notes: Sequence[str],
) -> dict[str, Any]:
    return {
        "missing": None,
        "items": made.words,
        "probe": next((one.probe for one in read if one.stages), None),
        "rule": asdict(rule),
        "notes": list(notes),
        "patterns": [
            {
                **verdict.to_dict(),
                "in_set": one.in_set,
                "label_pairs": dict(one.labels),
                "stages": [
                    {
                        "stage": stage.stage.name,
                        "kind": stage.stage.kind,
                        "layer": stage.stage.layer,
                        "pairs": stage.pairs.to_dict(),
                        "control": stage.dealt.to_dict(),
                        "difference": stage.difference.to_dict(),
                    }
                    for stage in one.stages
                ],
            }
            for one, verdict in zip(read, verdicts, strict=True)
        ],
    }
