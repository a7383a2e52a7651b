"""Reads and checks the files of a comparison's run folder; nothing here computes or draws."""

import json
from pathlib import Path
from typing import Any, Literal

from eyechart.core.errors import UserError
from eyechart.report.reading import Rate
from eyechart.report.records import Record, read_object, validated

SCHEMA = 1
MEND = "A comparison is made by: eyechart compare RUN RUN --out FOLDER; --fresh makes it anew"
"""What an error about its folder says to do."""

Verdict = Literal["better", "worse", "undecided"]


class ComparedRun(Record):
    """One run and its rates on the units that all share."""

    name: str
    model: str
    source: str
    kind: str
    path: str
    task: str
    way: dict[str, Any]
    graded: str
    unit: str
    units: Rate
    items: Rate | None
    chance_units: float | None
    chance_items: float | None
    unread: int
    answers: int
    left_out: int
    theirs: Rate | None
    disagreements: int
    notes: tuple[str, ...]


class Test(Record):
    """The second of two against the first, in -1..1, and what the test makes of it."""

    n: int
    fixes: int
    regressions: int
    difference: float
    low: float
    high: float
    p_value: float
    p_mcnemar: float
    p_holm: float | None
    verdict: Verdict


class TestedPattern(Record):
    """Both rates on one pattern, and the test."""

    pattern: str
    first: Rate
    second: Rate
    against: Test


class LabelSet(Record):
    """The same comparison under other labels."""

    labels: str
    items: tuple[str, ...]
    first: Rate
    second: Rate
    against: Test


class Detectable(Record):
    """The smallest true difference that is found with this power."""

    difference: float
    discordant: float
    power: float


class SmallestGain(Record):
    """The fewest fixes that are significant beside a number of regressions."""

    fixes: int
    regressions: int
    difference: float


class Compared(Record):
    """One run against another."""

    first: str
    second: str
    unit: str
    test: str
    overall: Test
    patterns: tuple[TestedPattern, ...]
    discordant: Rate
    detectable: Detectable | None
    smallest_gain: SmallestGain | None
    label_sets: tuple[LabelSet, ...]
    said: str


class Way(Record):
    """One way of asking against the first one."""

    name: str
    differs: str
    units: Rate
    items: Rate
    flips: Rate | None
    against: Test


class Sensitivity(Record):
    """One model asked in several ways."""

    model: str
    base: str
    unit: str
    units: Rate
    ways: tuple[Way, ...]
    consistent: Rate


class Control(Record):
    """One model without the items' own pictures."""

    model: str
    name: str
    shown: str
    unit: str
    units: Rate
    items: Rate
    base_items: Rate | None
    chance_units: float | None
    chance_items: float | None
    above_chance: Literal["above", "at", "below"] | None
    unread: int


class Correlation(Record):
    """A correlation over patterns."""

    value: float
    low: float
    high: float
    p_value: float
    n: int


class Point(Record):
    """One pattern under an encoder and a model."""

    pattern: str
    encoder: Rate
    model: Rate


class Correlated(Record):
    """Two series over patterns."""

    points: tuple[Point, ...]
    pearson: Correlation
    spearman: Correlation
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


class EncoderAgainst(Record):
    """An encoder's patterns beside a model's."""

    encoder: str
    model: str
    correlated: Correlated


class Disagreement(Record):
    """An answer that our reader and the harness hold differently."""

    run: str
    item: str
    reply: str
    reader: str | None
    right: str | None
    held_by_reader: Literal["right", "wrong", "unread"]
    held_by_harness: Literal["right", "wrong"]


class Unmatched(Record):
    """An item or a row that is in no comparison."""

    run: str
    item: str
    why: str


class ComparisonRecord(Record):
    """`compare.json`."""

    runs: tuple[ComparedRun, ...]
    comparisons: tuple[Compared, ...]
    sensitivity: tuple[Sensitivity, ...]
    controls: tuple[Control, ...]
    encoder_against_model: tuple[EncoderAgainst, ...]
    disagreements: tuple[Disagreement, ...]
    unmatched: tuple[Unmatched, ...]
    notes: tuple[str, ...]
    error_rate: float
    changed: int


class Answer(Record):
    """One run's answer to one item."""

    choice: str | None
    reply: str
    outcome: Literal["right", "wrong", "unread"]


class ChangedItem(Record):
    """One item of a unit that the runs do not have equal."""

    id: str
    question: str
    options: tuple[str, ...]
    answer: str | None
    images: tuple[str, ...]
    images_sha256: tuple[str, ...]
    answers: tuple[Answer, ...]


class Change(Record):
    """A line of `changes.jsonl`."""

    id: str
    unit: str
    pattern: str | None
    runs: tuple[str, ...]
    right: tuple[bool, ...]
    items: tuple[ChangedItem, ...]


def read_comparison(folder: Path) -> ComparisonRecord:
    """`compare.json` of a run folder, checked.

    Raises:
        UserError: it is missing, no JSON, of another schema, or lacks a key.
    """
    path = folder / "compare.json"
    value = read_object(path, mend=MEND)
    if value.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema is {value.get('schema')!r}, and this version reads {SCHEMA}. {MEND}")
    return validated(ComparisonRecord, value, where=str(path), mend=MEND)


def read_changes(folder: Path, most: int) -> list[Change]:
    """The first so many lines of `changes.jsonl`.

    Raises:
        UserError: it is missing, or a line of it is damaged.
    """
    path, found = folder / "changes.jsonl", []
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if number > most:
                    break
                where = f"{path}, line {number}"
                found.append(validated(Change, json.loads(line), where=where, mend=MEND))
    except OSError:
        raise UserError(f"{folder} holds no changes.jsonl that can be read. {MEND}") from None
    except ValueError as error:
        raise UserError(f"{path} is no valid JSON ({error}). {MEND}") from None
    return found
