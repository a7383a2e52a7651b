"""What the study of mining looks at: pairs of the world as vectors under every encoder, with the facts of each scene."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.core.runs import RunFolder
from eyechart.find.embed import HASHES, Vectors, View, embed_pictures, quarantined, store_of, unit_matrix
from eyechart.find.listing import Listing, Picture
from eyechart.find.world_pictures import list_pairs
from eyechart.recipes.mine import unique
from eyechart.world.captions import Rates
from eyechart.world.facts import PATTERNS, Facts
from eyechart.world.sets import Progress
from eyechart.world.sets_pairs import items_of
from eyechart.world.sets_plan import PairPlan, draw_pairs
from eyechart.world.words import from_where, shape_said, side_faced, state_said

SIZE = 96
"""Side of the zoo's pictures, in pixels."""

MOST_SILENT = 0.12
"""Captions are silent about a fact that they mention no more often than this; what they mention more often, they tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Pictures, and which of them were made as a pair; one row each in everything."""

    split: str
    relation: str
    pictures: tuple[Picture, ...]
    hashes: tuple[str, ...]
    """Of the bytes."""

    facts: tuple[Facts, ...]
    bits: Vectors
    """Perceptual hashes, as -1 and 1."""

    vectors: Mapping[tuple[str, bool], Vectors]
    """Rows of length 1, by encoder and whether the mean was taken away."""

    @property
    def partners(self) -> Int[ndarray, " image"]:
        """The row of the picture that each was made as a pair with."""
        rows: dict[str | None, list[int]] = {}
        for row, picture in enumerate(self.pictures):
            rows.setdefault(picture.pair, []).append(row)
        found = np.empty(len(self.pictures), np.int64)
        for first, second in rows.values():
            found[first], found[second] = second, first
        return found

    @property
    def patterns(self) -> tuple[str, ...]:
        """In what each picture differs from its partner."""
        return tuple(str(picture.pattern) for picture in self.pictures)


def collection(
    data: Path, plan: PairPlan, views: Mapping[str, View], *, batch_size: int, progress: Progress
) -> Collection:
    """Render the pairs of a plan and embed them; what is there already is used again.

    Args:
        data: where pictures, vectors and tables are kept.
        views: the encoders by their names.
        batch_size: pictures that are embedded at once.
        progress: told how far each stage is.

    Raises:
        UserError: a picture cannot be read, or two are the same.
    """
    listing = list_pairs(data / "bundled", plan, size=SIZE, limit=None, progress=progress)
    pictures = _embedded(data, plan, listing, views, batch_size, progress)
    hashes, ids = list(pictures), [picture.id for picture in pictures.values()]
    facts = {
        f"{item}.png": facts
        for pair in draw_pairs(plan)
        for item, facts in zip(items_of(pair), pair.facts, strict=True)
    }
    folder = data / "vectors" / f"{plan.split}-{plan.relation}"
    return Collection(
        split=plan.split,
        relation=plan.relation,
        pictures=tuple(pictures.values()),
        hashes=tuple(hashes),
        facts=tuple(facts[id_] for id_ in ids),
        bits=store_of(data / "embeddings", HASHES).rows(hashes),
        vectors={
            (name, centred): unit_matrix(
                store_of(data / "embeddings", view.key),
                hashes,
                folder / f"{name}{'-centred' * centred}.npy",
                names=ids,
                centred=centred,
            )
            for name, view in views.items()
            for centred in (False, True)
        },
    )


def _embedded(
    data: Path,
    plan: PairPlan,
    listing: Listing,
    views: Mapping[str, View],
    batch_size: int,
    progress: Progress,
) -> dict[str, Picture]:
    """The pictures by the hash of their bytes, each in the cache under every encoder."""
    keys = {name: view.key for name, view in views.items()}
    config = {**asdict(plan), "listing": listing.sha256, "encoders": keys}
    with RunFolder.open(data / f"{plan.split}-{plan.relation}", config=config, command=()) as run:
        seen = embed_pictures(
            listing.pictures,
            list(views.values()),
            cache=data / "embeddings",
            run=run,
            batch_size=batch_size,
            workers=1,
            progress=progress,
        )
        if not run.finished:
            run.finish()
    pictures, bad = unique(seen), quarantined(seen)
    if bad or len(pictures) != len(seen):
        raise UserError(
            f"of {len(seen)} pictures {len(bad)} cannot be read and {len(pictures)} are unlike all others; delete"
            f" {data / 'bundled'} to render them again"
        )
    return pictures


def silent(rates: Rates) -> tuple[str, ...]:
    """The patterns whose facts captions of these rates are silent about."""
    return tuple(pattern for pattern in PATTERNS if getattr(rates, pattern) <= MOST_SILENT)


def said(facts: Facts, patterns: Sequence[str]) -> tuple[object, ...]:
    """What is there, and what can be said of it in these patterns; equal where no such sentence tells two scenes apart."""
    other, items = facts.other, facts.items
    known: dict[str, object] = {
        "orientation": side_faced(facts),
        "presence": facts.missing,
        "state": state_said(facts),
        "quantity": None if items is None else (items.noun, items.number),
        "position": None if other is None else other.place,
        "color": (facts.color, None if other is None else other.color),
        "structure": shape_said(facts),
        "text": facts.letter,
        "viewpoint": from_where(facts),
    }
    there = facts.kind, None if other is None else other.kind, facts.letter is not None
    return (*there, *(known[pattern] for pattern in patterns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Which pictures captions of given rates hardly tell apart, and which are alike in all that can be said."""

    told: Int[ndarray, " image"]
    """Equal numbers: alike in what is there and in every pattern that captions are not silent about."""

    whole: Int[ndarray, " image"]
    """Equal numbers: alike in every pattern."""

    @classmethod
    def by(cls, facts: Sequence[Facts], rates: Rates) -> "Told":
        """The scenes under captions of these rates."""
        spoken = [pattern for pattern in PATTERNS if pattern not in silent(rates)]
        return cls(
            told=_numbered([said(each, spoken) for each in facts]),
            whole=_numbered([said(each, PATTERNS) for each in facts]),
        )

    def silent_only(self, i: Int[ndarray, " pair"], j: Int[ndarray, " pair"]) -> Bool[ndarray, " pair"]:
        """Which pairs differ in facts that captions are silent about, and in no others."""
        differing: Bool[ndarray, " pair"] = (self.told[i] == self.told[j]) & (self.whole[i] != self.whole[j])
        return differing

    def count(self) -> int:
        """How many pairs of pictures there are that differ so."""
        return _pairs_within(self.told) - _pairs_within(self.whole)


def _numbered(keys: Sequence[object]) -> Int[ndarray, " image"]:
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def _pairs_within(groups: Int[ndarray, " image"]) -> int:
    sizes = np.bincount(groups).astype(np.int64)
    return int((sizes * (sizes - 1) // 2).sum())
