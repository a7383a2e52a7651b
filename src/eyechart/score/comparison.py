"""Runs read, named, brought together and compared: everything that `compare.json` holds, as plain values."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyechart.core.errors import UserError
from eyechart.score.beside_encoder import beside_encoder
from eyechart.score.board import Board, lay_out
from eyechart.score.cells import LETTERS
from eyechart.score.compare import ERROR_RATE, compare_all, disagreements, run_rows
from eyechart.score.logged import Answered, Kind, Log
from eyechart.score.logs import read_logs
from eyechart.score.sensitivity import sensitivity

SCHEMA = 1

REPLY_KEPT = 2_000
"""Characters of a reply that are kept in the lists; the whole stands in the run's own samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of comparing: the record, and the rows of the tables beside it."""

    record: dict[str, Any]
    pairs: list[dict[str, Any]]
    """Each unit under each run."""

    items: list[dict[str, Any]]
    """Each item under each run."""

    changes: list[dict[str, Any]]
    """The units that not all runs have equal, with questions, pictures and replies."""

    logs: tuple[Log, ...]


def compare_runs(
    runs: Sequence[Path | str],
    *,
    every: bool = False,
    common: bool = False,
    task: str | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare runs on the items that they share.

    Args:
        runs: see `logs.read_logs`; the others are compared with the first.
        every: compare each two of them.
        common: leave out items that not all have, instead of refusing.
        task: which task, of runs of several.
        seed: of the intervals' resampling.

    Raises:
        UserError: a run cannot be read, the runs are not on the same items, or there is nothing to compare.
    """
    read = [read_logs(run, task=task) for run in runs]
    if len(read) == 1 and len(read[0]) == 1:
        raise UserError(
            f"{runs[0]} is one run asked in one way; give two runs or more, or one that was asked in several ways"
        )
    named = _named(read)
    firsts = [named[place] for place in _starts(read)]
    boards = [board for kind in ("vlm", "encoder") if (board := _board(firsts, kind, common=common))]
    different, controls, notes = sensitivity(
        [log for _, log in named], [name for name, _ in named], seed=seed
    )
    split: dict[str, list[tuple[str, Log]]] = {"vlm": [], "encoder": []}
    for name, log in firsts:
        split[log.kind].append((name, log))
    correlated, more = beside_encoder(split["encoder"], split["vlm"], seed=seed)
    record = {
        "schema": SCHEMA,
        "error_rate": ERROR_RATE,
        "seed": seed,
        "runs": [row for board in boards for row in run_rows(board, seed=seed)],
        "comparisons": [one for board in boards for one in compare_all(board, every=every, seed=seed)],
        "sensitivity": different,
        "controls": controls,
        "encoder_against_model": correlated,
        "disagreements": [row for board in boards for row in _disagreements(board)],
        "unmatched": [row for board in boards for row in _unmatched(board)],
        "notes": [*notes, *more],
    }
    changes = [row for board in boards for row in _changes(board)]
    return Comparison(
        record={**record, "changed": len(changes)},
        pairs=[row for board in boards for row in _pair_rows(board)],
        items=[row for board in boards for row in _item_rows(board)],
        changes=changes,
        logs=tuple(log for _, log in named),
    )


def _starts(read: Sequence[Sequence[Log]]) -> list[int]:
    """The places of each run's first way, when all ways stand in one row."""
    starts = [0]
    for logs in read[:-1]:
        starts.append(starts[-1] + len(logs))
    return starts


def _board(named: Sequence[tuple[str, Log]], kind: Kind, *, common: bool) -> Board | None:
    own = [(name, log) for name, log in named if log.kind == kind]
    if not own:
        return None
    return lay_out([log for _, log in own], [name for name, _ in own], common=common)


def _named(read: Sequence[Sequence[Log]]) -> list[tuple[str, Log]]:
    """A name for every way of every run, each only once: the model; where two share it, what tells them apart."""
    bases = [_short(logs[0].model) for logs in read]
    words: list[list[str]] = [
        [logs[0].source for logs in read],
        [logs[0].path.parent.name for logs in read],
        [logs[0].path.stem for logs in read],
    ]
    for tried in words:
        several = {
            base for base in bases if len({w for w, b in zip(tried, bases, strict=True) if b == base}) > 1
        }
        bases = [
            f"{base} ({word})" if base in several else base for base, word in zip(bases, tried, strict=True)
        ]
    seen: Counter[str] = Counter()
    for place, base in enumerate(bases):
        seen[base] += 1
        bases[place] = base if seen[base] == 1 else f"{base} #{seen[base]}"
    return [
        (f"{base} @{log.variant}" if place and log.variant else base, log)
        for base, logs in zip(bases, read, strict=True)
        for place, log in enumerate(logs)
    ]


def _short(model: str) -> str:
    """The last part of a path; a hub id stays whole."""
    is_path = model.startswith(("/", ".", "~")) or model.count("/") > 1
    return Path(model).name or model if is_path else model


def _disagreements(board: Board) -> list[dict[str, Any]]:
    rows = []
    for name, answers in zip(board.names, board.answers, strict=True):
        for one in disagreements(answers):
            rows.append(
                {
                    "run": name,
                    "item": one.id,
                    "reply": one.reply[:REPLY_KEPT],
                    "reader": _option(one, one.choice),
                    "right": _option(one, one.answer),
                    "held_by_reader": "unread" if one.unread else "right" if one.right else "wrong",
                    "held_by_harness": "right" if one.theirs else "wrong",
                }
            )
    return rows


def _option(one: Answered, place: int | None) -> str | None:
    """`(B) the option's text`, by its place in the order that is shown everywhere here."""
    return None if place is None else f"({LETTERS[place]}) {one.options[place]}"


def _unmatched(board: Board) -> list[dict[str, Any]]:
    rows = []
    for name, log, join in zip(board.names[1:], board.logs[1:], board.joins, strict=True):
        rows += [{"run": board.names[0], "item": one, "why": f"not in {name}"} for one in join.only_first]
        rows += [{"run": name, "item": one, "why": f"not in {board.names[0]}"} for one in join.only_here]
        rows += [{"run": name, "item": "", "why": why} for why in join.mismatched]
        rows += [{"run": name, "item": "", "why": row.detail} for row in log.left_out]
    rows += [{"run": board.names[0], "item": "", "why": row.detail} for row in board.logs[0].left_out]
    return rows + [
        {"run": board.names[0], "item": one, "why": "the pair is not whole"} for one in board.units.incomplete
    ]


def _pair_rows(board: Board) -> list[dict[str, Any]]:
    of = {one.id: one.pattern for one in board.items}
    rows = []
    for place, (name, log) in enumerate(zip(board.names, board.logs, strict=True)):
        items = board.right_items(place)
        for unit, right in board.right(place).items():
            group = board.units.groups[unit]
            rows.append(
                {
                    "pair_id": unit,
                    "unit": board.units.unit,
                    "pattern": of[group[0]],
                    "run": name,
                    "model": log.model,
                    "right": right,
                    "items_right": sum(items[one] for one in group),
                    "items": len(group),
                }
            )
    return rows


def _item_rows(board: Board) -> list[dict[str, Any]]:
    inside = {name: unit for unit, group in board.units.groups.items() for name in group}
    rows = []
    for place, name in enumerate(board.names):
        right = board.right_items(place)
        for one in board.answers[place].values():
            rows.append(
                {
                    "item_id": one.id,
                    "pair_id": inside[one.id],
                    "pattern": one.pattern,
                    "run": name,
                    "choice": one.choice,
                    "right": right[one.id],
                    "unread": one.unread,
                    "right_by_harness": one.theirs,
                    "reply": one.reply,
                }
            )
    return rows


def _changes(board: Board) -> list[dict[str, Any]]:
    places = range(len(board.logs))
    by_unit, by_item = (
        [board.right(place) for place in places],
        [board.right_items(place) for place in places],
    )
    items = {one.id: one for one in board.items}
    return [
        {
            "id": unit,
            "unit": board.units.unit,
            "pattern": items[group[0]].pattern,
            "runs": list(board.names),
            "right": [each[unit] for each in by_unit],
            "items": [_changed_item(board, items[name], [each[name] for each in by_item]) for name in group],
        }
        for unit, group in board.units.groups.items()
        if len({each[unit] for each in by_unit}) > 1
    ]


def _changed_item(board: Board, item: Answered, rights: Sequence[bool]) -> dict[str, Any]:
    answers = [each[item.id] for each in board.answers]
    return {
        "id": item.id,
        "question": item.question,
        "options": list(item.options),
        "answer": _option(item, item.answer) if item.options else None,
        "images": list(item.images),
        "images_sha256": list(item.images_sha256),
        "answers": [
            {
                "choice": _option(one, one.choice) if one.options else None,
                "reply": one.reply[:REPLY_KEPT],
                "outcome": "right" if right else "unread" if one.unread else "wrong",
            }
            for one, right in zip(answers, rights, strict=True)
        ],
    }
