"""Things of a set taken in turn from every pattern, and their pictures opened or the whole thing left out."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

from eyechart.core.images import BadImage
from eyechart.core.records import Quarantined
from eyechart.score.pictures import Opened, Pictures

T = TypeVar("T")


def in_turn(things: Sequence[T], kind: Callable[[T], str]) -> Iterator[T]:
    """The things, one of every kind in turn, so that any beginning is spread over the kinds."""
    kinds: defaultdict[str, list[T]] = defaultdict(list)
    for thing in things:
        kinds[kind(thing)].append(thing)
    for turn in zip_longest(*(kinds[name] for name in sorted(kinds))):
        yield from (thing for thing in turn if thing is not None)


def open_all(
    cells: Sequence[tuple[Any, str]], pictures: Pictures, left_out: str
) -> tuple[list[Opened], list[Quarantined]]:
    """Open pictures that stand or fall together.

    Args:
        cells: what the table says of each picture, and the id of its item.
        pictures: where they are.
        left_out: what a bad one takes with it, for the list of what could not be used.

    Returns:
        The pictures that opened, and each bad one once.
    """
    opened: list[Opened] = []
    bad: dict[str, Quarantined] = {}
    for cell, item_id in cells:
        try:
            opened.append(pictures.open(cell, item_id))
        except BadImage as error:
            path = str(pictures.find(cell, item_id))
            bad[path] = Quarantined(path=path, reason=error.reason, detail=f"{error.detail}; {left_out}")
    return opened, list(bad.values())
