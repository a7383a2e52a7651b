"""From graded replies to the score: by pair, by image, by pattern, each with its interval and its chance.

A pair counts only if both its items are right; an unread reply earns nothing and is counted beside the score.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyechart.core.records import NO_PATTERN, Graded, Item, Outcome
from eyechart.core.stats import Rate, cluster_rate, wilson
from eyechart.score.cells import LETTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOutcome:
    """What became of a pair; `a` is the item that comes first in the benchmark."""

    pair_id: str
    pattern: str | None
    a: Item
    b: Item
    right_a: bool
    right_b: bool

    @property
    def right(self) -> bool:
        """Whether both items are right."""
        return self.right_a and self.right_b


@dataclass(frozen=True, slots=True, kw_only=True)
class Favourite:
    """The option named most often, by its place's letter, and its share of the replies that were read.

    A model that answers without looking, always A, has a share of 1 here.
    """

    label: str
    share: Rate

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return {"label": self.label, "share": self.share.to_dict()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How a model did on a benchmark."""

    pairs: Rate
    """Pair accuracy, with Wilson's interval."""

    images: Rate
    """The share of items right, with an interval from drawing whole pairs again."""

    unread: Rate
    """The share of items whose reply was unread, with an interval from drawing whole pairs again."""

    chance_pairs: float
    """Expected pair accuracy of answers drawn evenly and independently: the mean of 1 / options squared."""

    chance_images: float
    above_chance: str
    """`above` or `below` when chance lies outside the interval of `pairs`, else `at`."""

    favourite_option: Favourite | None
    """None when no reply was read."""

    def to_dict(self) -> dict[str, Any]:
        """The `score` block of `results.json`."""
        favourite = self.favourite_option
        return {
            "pairs": self.pairs.to_dict(),
            "images": self.images.to_dict(),
            "unread": self.unread.to_dict(),
            "chance_pairs": self.chance_pairs,
            "chance_images": self.chance_images,
            "above_chance": self.above_chance,
            "favourite_option": None if favourite is None else favourite.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternScore:
    """How a model did on one pattern; `suspects` is None where nothing is known of similarity."""

    pattern: str
    pairs: Rate
    images: Rate
    unread: int
    chance_pairs: float
    suspects: int | None

    def to_dict(self) -> dict[str, Any]:
        """An entry of the `patterns` block of `results.json`."""
        return {
            "pattern": self.pattern,
            "pairs": self.pairs.to_dict(),
            "images": self.images.to_dict(),
            "unread": self.unread,
            "chance_pairs": self.chance_pairs,
            "suspects": self.suspects,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The score, the score by pattern (sorted by name), and the pairs behind both in the benchmark's order."""

    score: Score
    patterns: tuple[PatternScore, ...]
    pairs: tuple[PairOutcome, ...]

    def to_dict(self) -> dict[str, Any]:
        """The `score` and `patterns` blocks of `results.json`."""
        return {"score": self.score.to_dict(), "patterns": [pattern.to_dict() for pattern in self.patterns]}


def summarise(
    items: Sequence[Item],
    graded: Iterable[Graded],
    *,
    suspects: Mapping[str, bool | None] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Summary:
    """Score graded replies by pair, by image and by pattern.

    Args:
        items: what was asked, in pairs.
        graded: one reply for each item, in any order.
        suspects: for each pair id whether the pair is a suspect, None where that is not known; `None`
            as a whole when similarity was not looked at.
        level: confidence of the intervals.
        resamples: how often pairs are drawn again for the intervals of shares of items.
        seed: of that drawing.

    Raises:
        ValueError: there are no items, a pair has not two items, or items and graded replies do not match
            one to one.
    """
    replies = matched(items, graded)
    pairs = _paired(items, replies)
    options = {"level": level, "resamples": resamples, "seed": seed}
    patterns = sorted({pair.pattern or NO_PATTERN for pair in pairs})
    return Summary(
        score=_score(pairs, replies, **options),
        patterns=tuple(_pattern(name, pairs, replies, suspects, **options) for name in patterns),
        pairs=tuple(pairs),
    )


def matched(items: Sequence[Item], graded: Iterable[Graded]) -> dict[str, Graded]:
    """The graded replies by item.

    Raises:
        ValueError: there are no items, or items and graded replies do not match one to one.
    """
    given = list(graded)
    replies = {reply.item_id: reply for reply in given}
    asked = {item.id for item in items}
    if not items:
        raise ValueError("nothing was asked (0 items), so there is no score")
    faults = {
        "items without a graded reply": sorted(asked - replies.keys()),
        "graded replies to no item": sorted(replies.keys() - asked),
        "items graded twice": sorted(name for name, n in Counter(r.item_id for r in given).items() if n > 1),
        "items asked twice": sorted(name for name, n in Counter(item.id for item in items).items() if n > 1),
    }
    found = [f"{what}: {', '.join(names[:10])} ({len(names)})" for what, names in faults.items() if names]
    if found:
        raise ValueError("; ".join(found))
    return replies


def _paired(items: Sequence[Item], replies: Mapping[str, Graded]) -> list[PairOutcome]:
    groups: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.pair_id].append(item)
    odd = [f"{pair_id!r} has {len(group)}" for pair_id, group in groups.items() if len(group) != 2]
    if odd:
        raise ValueError(f"a pair has two items; pair {', '.join(odd[:10])}")
    return [
        PairOutcome(
            pair_id=pair_id,
            pattern=a.pattern,
            a=a,
            b=b,
            right_a=replies[a.id].outcome is Outcome.RIGHT,
            right_b=replies[b.id].outcome is Outcome.RIGHT,
        )
        for pair_id, (a, b) in groups.items()
    ]


def _share(pairs: Sequence[PairOutcome], hits: Sequence[bool], options: Mapping[str, Any]) -> Rate:
    """A share of items (two for each pair, in order). From one pair nothing can be drawn: 0 to 1 then."""
    if len(pairs) == 1:
        return Rate(
            value=sum(hits) / len(hits),
            low=0.0,
            high=1.0,
            hits=sum(hits),
            n=len(hits),
            level=options["level"],
        )
    return cluster_rate(hits, [pair.pair_id for pair in pairs for _ in "ab"], **options)


def _images(pairs: Sequence[PairOutcome], options: Mapping[str, Any]) -> Rate:
    return _share(pairs, [right for pair in pairs for right in (pair.right_a, pair.right_b)], options)


def _unread(pairs: Sequence[PairOutcome], replies: Mapping[str, Graded]) -> list[bool]:
    return [replies[item.id].outcome is Outcome.UNREAD for pair in pairs for item in (pair.a, pair.b)]


def _chance(pairs: Sequence[PairOutcome]) -> float:
    return sum(1 / (len(pair.a.options) * len(pair.b.options)) for pair in pairs) / len(pairs)


def _score(pairs: Sequence[PairOutcome], replies: Mapping[str, Graded], **options: Any) -> Score:
    by_pair = wilson(sum(pair.right for pair in pairs), len(pairs), level=options["level"])
    chance = _chance(pairs)
    items = [item for pair in pairs for item in (pair.a, pair.b)]
    return Score(
        pairs=by_pair,
        images=_images(pairs, options),
        unread=_share(pairs, _unread(pairs, replies), options),
        chance_pairs=chance,
        chance_images=sum(1 / len(item.options) for item in items) / len(items),
        above_chance="above" if by_pair.low > chance else "below" if by_pair.high < chance else "at",
        favourite_option=_favourite(items, replies, options),
    )


def _favourite(
    items: Sequence[Item], replies: Mapping[str, Graded], options: Mapping[str, Any]
) -> Favourite | None:
    """The most frequent option among the replies that were read, with an interval from drawing whole pairs again."""
    read = [(item.pair_id, choice) for item in items if (choice := replies[item.id].choice) is not None]
    counts = Counter(choice for _, choice in read)
    if not counts:
        return None
    best = min(counts, key=lambda choice: (-counts[choice], choice))
    hits, clusters = [choice == best for _, choice in read], [pair_id for pair_id, _ in read]
    if len(set(clusters)) == 1:
        whole = Rate(
            value=sum(hits) / len(hits),
            low=0.0,
            high=1.0,
            hits=sum(hits),
            n=len(hits),
            level=options["level"],
        )
        return Favourite(label=LETTERS[best], share=whole)
    return Favourite(label=LETTERS[best], share=cluster_rate(hits, clusters, **options))


def _pattern(
    name: str,
    pairs: Sequence[PairOutcome],
    replies: Mapping[str, Graded],
    suspects: Mapping[str, bool | None] | None,
    **options: Any,
) -> PatternScore:
    own = [pair for pair in pairs if (pair.pattern or NO_PATTERN) == name]
    known = [None] if suspects is None else [suspects.get(pair.pair_id) for pair in own]
    return PatternScore(
        pattern=name,
        pairs=wilson(sum(pair.right for pair in own), len(own), level=options["level"]),
        images=_images(own, options),
        unread=sum(_unread(own, replies)),
        chance_pairs=_chance(own),
        suspects=None if None in known else sum(bool(flag) for flag in known),
    )
