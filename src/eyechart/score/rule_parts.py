"""What the rules of scoring have in common: clusters, rates with intervals, and shares of unread replies."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

from eyechart.core.records import Graded, Item, Outcome
from eyechart.score.measures import Measure
from eyechart.score.resampling import Drawing, Mean, rate

Replies = Mapping[str, Graded]
"""Graded replies by item id."""


def cluster_of(item: Item) -> tuple[str, ...]:
    """Questions on the same pictures stand or fall together."""
    return (item.image_sha256, *item.more_sha256)


def is_right(item: Item, replies: Replies) -> bool:
    """Whether an item's reply is right."""
    return replies[item.id].outcome is Outcome.RIGHT


def chance_of(items: Sequence[Item]) -> float:
    """The expected share right of answers drawn evenly: the mean of 1 / options."""
    return sum(1 / len(item.options) for item in items) / len(items)


def of_rate(
    name: str,
    hits: Sequence[bool],
    clusters: Sequence[Hashable],
    drawing: Drawing,
    *,
    unit: str = "items",
    chance: float | None = None,
    of: str | None = None,
) -> Measure:
    """A share of hits under a name, undefined where nothing is counted; see `resampling.rate` for its interval."""
    found = rate(hits, clusters, drawing)
    if found is None:
        return undefined(name, drawing, unit=unit, chance=chance, of=of)
    return Measure.of_rate(name, found, unit, chance=chance, of=of)


def undefined(
    name: str, drawing: Drawing, *, unit: str = "items", chance: float | None = None, of: str | None = None
) -> Measure:
    """A measure without a value, as a precision is where nothing was answered yes."""
    return Measure(
        name=name, value=None, low=None, high=None, n=0, unit=unit, chance=chance, level=drawing.level, of=of
    )


def of_mean(
    name: str,
    mean: Mean,
    n: int,
    drawing: Drawing,
    *,
    unit: str = "items",
    chance: float | None = None,
) -> Measure:
    """A weighted mean under a name."""
    return Measure(
        name=name,
        value=mean.value,
        low=mean.low,
        high=mean.high,
        n=n,
        unit=unit,
        chance=chance,
        level=drawing.level,
    )


def accuracy(
    items: Sequence[Item],
    replies: Replies,
    drawing: Drawing,
    *,
    name: str = "accuracy",
    of: str | None = None,
    cluster: Callable[[Item], Hashable] = cluster_of,
) -> Measure:
    """The share of items right."""
    hits, clusters = [is_right(item, replies) for item in items], [cluster(item) for item in items]
    return of_rate(name, hits, clusters, drawing, chance=chance_of(items) if items else None, of=of)


def unread(
    items: Sequence[Item],
    replies: Replies,
    drawing: Drawing,
    cluster: Callable[[Item], Hashable] = cluster_of,
) -> Measure:
    """The share of items whose reply was not read."""
    hits = [replies[item.id].outcome is Outcome.UNREAD for item in items]
    return of_rate("unread", hits, [cluster(item) for item in items], drawing)


def groups_of(items: Sequence[Item], key: Callable[[Item], str]) -> dict[str, list[Item]]:
    """The items by a key, the keys sorted."""
    found: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return dict(sorted(found.items()))
