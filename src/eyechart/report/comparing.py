"""Reads and checks the files of a comparison's run folder; nothing here computes or draws."""

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from eyechart.core.errors import UserError
from eyechart.report.reading import Rate

SCHEMA = 1
_MEND = "A comparison is made by: eyechart compare RUN RUN --out FOLDER; --fresh makes it anew"

Verdict = Literal["better", "worse", "undecided"]


class _Record(BaseModel):
    """A frozen record from a file; keys it does not know are left alone, NaN is refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True, allow_inf_nan=False)


class ComparedRun(_Record):
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


class Test(_Record):
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


class TestedPattern(_Record):
    """Both rates on one pattern, and the test."""

    pattern: str
    first: Rate
    second: Rate
    against: Test


class LabelSet(_Record):
    """The same comparison under other labels."""

    labels: str
    items: tuple[str, ...]
    first: Rate
    second: Rate
    against: Test


class Detectable(_Record):
    """The smallest true difference that is found with this power."""

    difference: float
    discordant: float
    power: float


class SmallestGain(_Record):
    """The fewest fixes that are significant beside a number of regressions."""

    fixes: int
    regressions: int
    difference: float


class Compared(_Record):
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


class Way(_Record):
    """One way of asking against the first one."""

    name: str
    differs: str
    units: Rate
    items: Rate
    flips: Rate | None
    against: Test


class Sensitivity(_Record):
    """One model asked in several ways."""

    model: str
    base: str
    unit: str
    units: Rate
    ways: tuple[Way, ...]
    consistent: Rate


class Control(_Record):
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


class Correlation(_Record):
    """A correlation over patterns."""

    value: float
    low: float
    high: float
    p_value: float
    n: int


class Point(_Record):
    """One pattern under an encoder and a model."""

    pattern: str
    encoder: Rate
    model: Rate


class Correlated(_Record):
    """Two series over patterns."""

    points: tuple[Point, ...]
    pearson: Correlation
    spearman: Correlation
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


class EncoderAgainst(_Record):
    """An encoder's patterns beside a model's."""

    encoder: str
    model: str
    correlated: Correlated


class Disagreement(_Record):
    """An answer that our reader and the harness hold differently."""

    run: str
    item: str
    reply: str
    reader: str | None
    right: str | None
    held_by_reader: Literal["right", "wrong", "unread"]
    held_by_harness: Literal["right", "wrong"]


class Unmatched(_Record):
    """An item or a row that is in no comparison."""

    run: str
    item: str
    why: str


class ComparisonRecord(_Record):
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


class Answer(_Record):
    """One run's answer to one item."""

    choice: str | None
    reply: str
    outcome: Literal["right", "wrong", "unread"]


class ChangedItem(_Record):
    """One item of a unit that the runs do not have equal."""

    id: str
    question: str
    options: tuple[str, ...]
    answer: str | None
    images: tuple[str, ...]
    images_sha256: tuple[str, ...]
    answers: tuple[Answer, ...]


class Change(_Record):
    """A line of `changes.jsonl`."""

    id: str
    unit: str
    pattern: str | None
    runs: tuple[str, ...]
    right: tuple[bool, ...]
    items: tuple[ChangedItem, ...]


Row = TypeVar("Row", bound=BaseModel)


def read_comparison(folder: Path) -> ComparisonRecord:
    """`compare.json` of a run folder, checked.

    Raises:
        UserError: it is missing, no JSON, of another schema, or lacks a key.
    """
    path = folder / "compare.json"
    value = read_object(path)
    if value.get("schema") != SCHEMA:
        raise UserError(
            f"{path}: schema is {value.get('schema')!r}, and this version reads {SCHEMA}. {_MEND}"
        )
    return _validated(ComparisonRecord, value, where=str(path))


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
                found.append(_validated(Change, json.loads(line), where=f"{path}, line {number}"))
    except OSError:
        raise UserError(f"{folder} holds no changes.jsonl that can be read. {_MEND}") from None
    except ValueError as error:
        raise UserError(f"{path} is no valid JSON ({error}). {_MEND}") from None
    return found


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: there is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path.parent} holds no {path.name} that can be read. {_MEND}") from None
    except ValueError as error:
        raise UserError(f"{path} is no valid JSON ({error}). {_MEND}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, expected an object. {_MEND}")
    return value


def _validated(kind: type[Row], value: Any, *, where: str) -> Row:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
    key, given = ".".join(str(part) for part in first["loc"]), repr(first["input"])
    if first["type"] == "missing":
        raise UserError(f"{where}: the key {key!r} is missing. {_MEND}")
    raise UserError(f"{where}: {key!r} is {given[:80]}: {first['msg']}. {_MEND}")
