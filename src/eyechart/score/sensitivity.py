"""One model asked the same items in several ways: how many answers change, and what is left when it cannot see."""

from collections.abc import Mapping, Sequence
from typing import Any

from eyechart.core.errors import UserError
from eyechart.core.stats import wilson
from eyechart.score.board import Board, lay_out
from eyechart.score.compare import against, paired_test
from eyechart.score.logged import Log

CONTROLS = {
    "none": "no picture",
    "blank": "a grey picture",
    "other": "the pair's other picture",
    "told": "no picture, the scene told in words",
}


def sensitivity(
    logs: Sequence[Log], names: Sequence[str], *, seed: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Per model the ways of asking beside its first way, the controls, and what could not be looked at.

    Args:
        logs: all ways of all runs; logs of equal identity are of one model.
        names: what each is called.
        seed: of the intervals' resampling.
    """
    groups: dict[str, list[int]] = {}
    for place, log in enumerate(logs):
        if log.kind == "vlm":
            groups.setdefault(log.identity, []).append(place)
    ways, controls, notes = [], [], []
    for places in groups.values():
        base = next((place for place in places if not logs[place].control), places[0])
        boards: list[tuple[int, Board]] = []
        for place in places:
            if place == base:
                continue
            try:
                board = lay_out([logs[base], logs[place]], [names[base], names[place]], common=True)
            except UserError as error:
                notes.append(f"{names[place]} is not set beside {names[base]}: {error}")
            else:
                boards.append((place, board))
        plain = [(place, board) for place, board in boards if not logs[place].control]
        if plain and not logs[base].control:
            ways.append(_model(logs, names, base, plain, seed))
        controls += [
            _control(logs[place], board, names[base], seed) for place, board in boards if logs[place].control
        ]
        if logs[base].control:
            alone = lay_out([logs[base]], [names[base]])
            controls.insert(0, _control(logs[base], alone, None, seed))
    return ways, controls, notes


def _model(
    logs: Sequence[Log],
    names: Sequence[str],
    base: int,
    boards: Sequence[tuple[int, Board]],
    seed: int,
) -> dict[str, Any]:
    first = boards[0][1]
    together = lay_out(
        [logs[base], *(logs[place] for place, _ in boards)],
        [names[base], *(names[place] for place, _ in boards)],
        common=True,
    )
    right = [together.right(place) for place in range(len(together.logs))]
    all_right = [all(each[unit] for each in right) for unit in right[0]]
    return {
        "model": logs[base].model,
        "base": names[base],
        "unit": together.units.unit,
        "units": first.rate(0, seed=seed).to_dict(),
        "ways": [_way(logs[base], logs[place], names[place], board, seed) for place, board in boards],
        "consistent": wilson(sum(all_right), len(all_right)).to_dict(),
    }


def _way(base: Log, log: Log, name: str, board: Board, seed: int) -> dict[str, Any]:
    clusters = board.units.clusters if board.units.clustered else None
    test, p_value = paired_test(board.right(0), board.right(1), clusters, seed=seed)
    read = all(one.regraded for each in board.answers for one in each.values())
    flipped = flips(board)
    return {
        "name": name,
        "differs": differs(base, log),
        "units": board.rate(1, seed=seed).to_dict(),
        "items": board.item_rate(board.right_items(1), seed=seed).to_dict(),
        "flips": board.item_rate(flipped, seed=seed).to_dict() if read else None,
        "against": against(test, p_decides=p_value),
    }


def flips(board: Board) -> dict[str, bool]:
    """Whether the option named changes, item by item, whatever its label and place; unread counts as naming none."""
    first, second = board.answers[:2]
    return {name: first[name].choice != second[name].choice for name in first}


def differs(base: Log, log: Log) -> str:
    """What is put otherwise, in words."""
    if log.variant and log.path.parent == base.path.parent:
        return log.variant
    names = list(dict.fromkeys((*base.way, *log.way)))
    told = [f"{name}={log.way.get(name)}" for name in names if log.way.get(name) != base.way.get(name)]
    if log.source != base.source:
        told.append(f"asked by {log.source}")
    return ", ".join(told) or "the same way, asked again"


def _control(log: Log, board: Board, base: str | None, seed: int) -> dict[str, Any]:
    """Accuracy without the item's own picture, beside chance."""
    place = len(board.logs) - 1
    chance_units, chance_items = board.chance()
    items = board.item_rate(board.right_items(place), seed=seed)
    return {
        "model": log.model,
        "base": base,
        "name": board.names[place],
        "control": log.control,
        "shown": CONTROLS.get(log.control, log.control),
        "unit": board.units.unit,
        "units": board.rate(place, seed=seed).to_dict(),
        "items": items.to_dict(),
        "base_items": board.item_rate(board.right_items(0), seed=seed).to_dict() if base else None,
        "chance_units": chance_units,
        "chance_items": chance_items,
        "above_chance": _beside(items.to_dict(), chance_items),
        "unread": sum(one.unread for one in board.answers[place].values()),
    }


def _beside(rate: Mapping[str, Any], chance: float | None) -> str | None:
    if chance is None:
        return None
    return "above" if rate["low"] > chance else "below" if rate["high"] < chance else "at"
