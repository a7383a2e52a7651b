"""The items of a set as plain rows, the two of a pair beside each other: what every export is written from."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyechart.core.errors import UserError
from eyechart.core.records import Benchmark, Item
from eyechart.score.asking import build_prompt
from eyechart.score.cells import LETTERS, read_answer

SIDES = "ab"
"""The two items of a pair, in the order in which the set has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An item as it is written down."""

    item: Item
    side: str
    """`a` or `b` in a pair, else empty."""

    answer: str
    """The letter of the right option; in brackets where a bare letter is the text of another option."""

    corrected: str
    """The same under the corrected labels; equal to `answer` where nothing is corrected."""

    prompt: str
    """What is asked: the template `letter`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The letters of the options in the prompt."""
        return tuple(LETTERS[: len(self.item.options)])

    @property
    def target(self) -> str:
        """The bare letter of the right option."""
        return LETTERS[self.item.answer]


def rows_of(benchmark: Benchmark) -> list[Row]:
    """All items, pair by pair in the order of their first items; items alone keep their order.

    Raises:
        UserError: an answer cannot be written so that it is read back as the same option.
    """
    corrected = {item.id: item.answer for item in benchmark.corrected()}
    return [
        Row(
            item=item,
            side=side,
            answer=_letter(item, item.answer),
            corrected=_letter(item, corrected[item.id]),
            prompt=build_prompt(item, "letter").text,
        )
        for item, side in _in_pairs(benchmark.items)
    ]


def _in_pairs(items: Sequence[Item]) -> Iterator[tuple[Item, str]]:
    groups: dict[str, list[Item]] = {}
    for place, item in enumerate(items):
        groups.setdefault(f"pair {item.pair_id}" if item.pair_id else f"item {place}", []).append(item)
    for name, group in groups.items():
        paired = name.startswith("pair ")
        if paired and len(group) != len(SIDES):
            raise UserError(f"{name}: a pair has two items, this one has {len(group)}; nothing was exported")
        yield from ((item, SIDES[place] if paired else "") for place, item in enumerate(group))


def _letter(item: Item, place: int) -> str:
    for written in (LETTERS[place], f"({LETTERS[place]})"):
        try:
            if read_answer(written, item.options, None) == place:
                return written
        except ValueError:
            continue
    raise UserError(
        f"item {item.id!r}: option {LETTERS[place]} of {item.options!r} cannot be named by its letter, since other"
        " options read like letters; reword the options"
    )


def in_pairs(benchmark: Benchmark) -> bool:
    """Whether it is scored by pair."""
    return benchmark.rule == "pairs"


def chance(benchmark: Benchmark) -> tuple[float, float]:
    """The share of items, and of pairs, that a coin gets right."""
    items = [1 / len(item.options) for item in benchmark.items]
    by_pair: dict[str, float] = {}
    for item in benchmark.items:
        by_pair[item.pair_id] = by_pair.get(item.pair_id, 1.0) / len(item.options)
    return sum(items) / len(items), sum(by_pair.values()) / len(by_pair)


def facets_of(item: Item) -> str | None:
    """The facets as JSON, None where there are none."""
    return json.dumps(dict(item.facets), ensure_ascii=False) if item.facets else None


def images_of(item: Item) -> list[tuple[Path, str]]:
    """Each picture's file and the sha256 of its bytes."""
    return list(zip(item.images, (item.image_sha256, *item.more_sha256), strict=True))


def plain(row: Row) -> dict[str, Any]:
    """What harnesses get of an item beside its pictures."""
    item = row.item
    return {
        "id": item.id,
        "pair_id": item.pair_id,
        "side": row.side,
        "question": item.question,
        "options": list(item.options),
        "answer": row.answer,
        "corrected_answer": row.corrected,
        "pattern": item.pattern,
        "facets": facets_of(item),
        "image_sha256": item.image_sha256,
    }
