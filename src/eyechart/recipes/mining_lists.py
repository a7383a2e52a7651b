"""Lists of pairs as `eyechart mine` makes them, at many thresholds from one join, and how true they are.

A pair is *true* where it was made as one and differs in a fact that captions are silent about. Many others differ in
such facts alone without having been made as pairs; lists are also measured by these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from eyechart.core.stats import PairedTest, Rate, mcnemar_exact, wilson
from eyechart.find.config import MineConfig
from eyechart.find.join import mine_pairs
from eyechart.find.keep import Columns, Keeper, no_pairs
from eyechart.find.mined import truth
from eyechart.find.select import AHEAD, Selected, select
from eyechart.find.thresholds import Drawn, Wish, draw
from eyechart.recipes.mining_pictures import Collection, Told

LIMITS = MineConfig(source="world:")
"""All that the study leaves as `eyechart mine` has it: the limits of a list, and when two pictures are near-duplicates."""

_ALL = 2.0  # above any cosine


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What two encoders say of a collection."""

    collection: Collection
    drawn: Drawn
    near: Columns
    """All pairs above the lowest semantic threshold, whatever the reference says of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Both thresholds, and whether the mean is taken away first."""

    min_semantic: str
    max_reference: str
    centred: bool

    def __str__(self) -> str:
        return f"{self.min_semantic}, {self.max_reference}{', centred' * self.centred}"


def joined(known: Collection, semantic: str, reference: str, *, lowest: str, centred: bool) -> Joined:
    """Join a collection's pictures with themselves under two encoders.

    Args:
        lowest: the lowest semantic threshold that will be asked for.
    """
    first, second = (known.vectors[name, centred] for name in (semantic, reference))
    drawn = draw(first, second, seed=LIMITS.seed)
    floor = Wish.parse(lowest, name="lowest").among(drawn.semantic)
    mined = mine_pairs(first, second, min_semantic=floor, max_reference=_ALL)
    return Joined(collection=known, drawn=drawn, near=mined.pairs)


def listed_at(both: Joined, wishes: Wishes) -> Selected:
    """The list that `eyechart mine` makes at these thresholds."""
    lowest = Wish.parse(wishes.min_semantic, name="min_semantic").among(both.drawn.semantic)
    highest = Wish.parse(wishes.max_reference, name="max_reference").among(both.drawn.reference)
    near = both.near.at(both.near.semantic > lowest)
    far = near.reference < highest
    alike = near.at(~far & (near.reference > LIMITS.min_alike))
    return _selected(_kept(near.at(far)), _kept(alike), both.collection.bits)


def most_alike(both: Joined, count: int) -> Columns:
    """So many of the pairs with the largest semantic cosines, under a list's limits but whatever the reference says."""
    near = both.near
    free = Columns(i=near.i, j=near.j, semantic=near.semantic, reference=np.zeros(len(near)))
    pairs = _selected(_kept(free), no_pairs(), both.collection.bits).pairs
    return pairs.at(np.arange(min(count, len(pairs))))


def _kept(pairs: Columns) -> Columns:
    keeper = Keeper(per_image=AHEAD * LIMITS.per_image)
    keeper.add(pairs)
    return keeper.kept()


def _selected(found: Columns, alike: Columns, bits: Float[ndarray, "image bit"]) -> Selected:
    return select(
        found,
        alike,
        bits,
        min_alike=LIMITS.min_alike,
        most_bits=LIMITS.most_bits,
        per_image=LIMITS.per_image,
        per_burst=LIMITS.per_burst,
        budget=LIMITS.budget,
    )


def without(pairs: Columns, others: Columns) -> Columns:
    """The pairs that are not among others."""
    known = set(zip(others.i.tolist(), others.j.tolist(), strict=True))
    new = [pair not in known for pair in zip(pairs.i.tolist(), pairs.j.tolist(), strict=True)]
    return pairs.at(np.array(new, np.bool_))


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How true a list is."""

    listed: int
    recall: Rate
    """Of true pairs, those that are listed."""

    precision: Rate | None
    """Of listed pairs, those that are true; None of an empty list."""

    silent_only: Rate | None
    """Of listed pairs, those that differ in nothing that captions tell, and in something that they do not."""

    patterns: dict[str, Rate]
    """Recall of made pairs by pattern, the told ones too."""

    @property
    def f1(self) -> float:
        """Twice the true pairs that are listed, over true pairs and listed pairs together."""
        return 2 * self.recall.hits / (self.recall.n + self.listed)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        rates = {"recall": self.recall, "precision": self.precision, "silent_only": self.silent_only}
        return {
            "listed": self.listed,
            "f1": self.f1,
            **{name: None if rate is None else rate.to_dict() for name, rate in rates.items()},
            "patterns": {pattern: rate.to_dict() for pattern, rate in self.patterns.items()},
        }


def score(known: Collection, pairs: Columns, told: Told, silent: Sequence[str]) -> Score:
    """Measure a list.

    Args:
        told: which pictures captions hardly tell apart.
        silent: the patterns that captions are silent about.
    """
    found = truth(known.pictures, pairs)
    assert found is not None  # every picture of a collection was made as one of a pair
    patterns = {
        row["pattern"]: wilson(row["recall"]["hits"], row["recall"]["n"]) for row in found["patterns"]
    }
    hits = sum(patterns[pattern].hits for pattern in silent)
    only = int(told.silent_only(pairs.i, pairs.j).sum())
    return Score(
        listed=len(pairs),
        recall=wilson(hits, sum(patterns[pattern].n for pattern in silent)),
        precision=wilson(hits, len(pairs)) if len(pairs) else None,
        silent_only=wilson(only, len(pairs)) if len(pairs) else None,
        patterns=patterns,
    )


def found_more(known: Collection, before: Columns, after: Columns, silent: Sequence[str]) -> PairedTest:
    """Whether a second list holds more of the true pairs than a first."""
    partners = known.partners
    true = [
        (row, int(partners[row]))
        for row, pattern in enumerate(known.patterns)
        if pattern in silent and row < partners[row]
    ]
    rows = [set(zip(each.i.tolist(), each.j.tolist(), strict=True)) for each in (before, after)]
    return mcnemar_exact(*([pair in listed for pair in true] for listed in rows))


def by_chance(known: Collection, told: Told, silent: Sequence[str]) -> dict[str, Any]:
    """Of all pairs of pictures, the share that is true, and the share that differs in silent facts alone.

    A list of L drawn pairs has this precision on average, and L over all pairs as its recall.
    """
    pairs = len(known.pictures) * (len(known.pictures) - 1) // 2
    true = sum(pattern in silent for pattern in known.patterns) // 2
    return {"pairs": pairs, "precision": true / pairs, "silent_only": told.count() / pairs}
