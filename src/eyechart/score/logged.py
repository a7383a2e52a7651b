"""The records of answers that were logged before, and what all their readers need."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eyechart.core.errors import UserError
from eyechart.core.records import Quarantined

Source = Literal["eyechart", "lmms-eval", "VLMEvalKit"]
Kind = Literal["vlm", "encoder"]

READ = "our reader of the replies"
SCORES = "the options' scores in the log"
LOGGED = "as the run logged it"
VERDICT = "the harness's own verdict: the log has no options, or no reply, to grade again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One item of a log and its answer; places are in the log's own order of options."""

    id: str
    question: str
    """Empty where the log does not say."""

    options: tuple[str, ...]
    """Empty where the log does not say."""

    answer: int | None
    choice: int | None
    reply: str
    right: bool
    unread: bool
    theirs: bool | None = None
    """Whether the harness held it right; None where the log has no verdict beside ours."""

    regraded: bool = True
    """Whether `right` follows from `choice` and `answer`; if not it is the harness's verdict."""

    from_prompt: bool = False
    """Whether the question was cut out of a prompt, and may bring an instruction with it."""

    pair_id: str = ""
    group: str = ""
    """Of NaturalBench and its like: four items that count only together."""

    pattern: str | None = None
    images: tuple[str, ...] = ()
    images_sha256: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The answers of one model, asked in one way."""

    path: Path
    source: Source
    kind: Kind
    model: str
    identity: str
    """Equal for two logs of the same weights, as far as the logs tell."""

    task: str
    variant: str
    """How the items were put, where that differs from the run's first way; empty for the first."""

    control: str
    """What was shown instead of the item's own picture; empty where it was that picture."""

    answers: tuple[Answered, ...]
    graded: str
    way: Mapping[str, Any] = field(default_factory=dict)
    """Template, labels, order and what is shown, where the log tells."""

    benchmark: Mapping[str, Any] = field(default_factory=dict)
    """`name`, `sha256`, `rule`, `corrections`, as far as the log has them."""

    patterns: tuple[Mapping[str, Any], ...] = ()
    left_out: tuple[Quarantined, ...] = ()
    notes: tuple[str, ...] = ()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file.

    Raises:
        UserError: a line is no JSON object, or there is none.
    """
    rows = []
    # Not splitlines(): replies may hold U+2028 and its like, which end no line in JSONL.
    for number, line in enumerate(path.read_bytes().decode("utf-8-sig", "replace").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is no JSON ({error}); was the run cut off?") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: expected an object, got {type(row).__name__}")
        rows.append(row)
    if not rows:
        raise UserError(f"{path} holds no answers")
    return rows


def once(
    path: Path, answers: Iterable[Answered]
) -> tuple[tuple[Answered, ...], list[Quarantined], list[str]]:
    """One answer for each id: exact copies are merged and counted, contradicting ones are all left out."""
    groups: dict[str, list[Answered]] = {}
    for one in answers:
        groups.setdefault(one.id, []).append(one)
    kept, left_out = [], []
    copies = 0
    for name, group in groups.items():
        if all(one == group[0] for one in group):
            kept.append(group[0])
            copies += len(group) - 1
            continue
        questions = len({(one.question, one.options) for one in group})
        what = "different questions" if questions > 1 else "different answers"
        left_out.append(bad_row(path, f"item {name}: {len(group)} rows with this id and {what}"))
    notes = [f"{copies} rows were exact copies of others and count once"] if copies else []
    return tuple(kept), left_out, notes


def bad_row(path: Path, detail: str) -> Quarantined:
    """A row that cannot be used, for the table of what was left out."""
    return Quarantined(path=str(path), reason="bad_row", detail=detail)


def choose(found: Sequence[str], wanted: str | None, *, where: Path, what: str = "tasks") -> str:
    """The one that is meant of several.

    Raises:
        UserError: none is named and there are several, or there is no such one.
    """
    names = sorted(set(found))
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return str(wanted)
    asked = f"no {wanted!r} among" if wanted else f"{len(names)} {what}:"
    raise UserError(f"{where}: {asked} {', '.join(names)}; name one with --task, or give its file")
