"""Which of the pairs that were found are kept: the most suspicious, so many of an image and so many in all.

A dense clump of M images has M² / 2 pairs, so a limit has to work while pairs are being found, not after. What is kept
does not depend on the order in which they come.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

ROOM = 1_000_000
"""Pairs that are held above what can still be kept before the rest are let go; 24 bytes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Pairs of images, a column each: `i` < `j`, and their cosines under the two encoders."""

    i: Int[ndarray, " pair"]
    j: Int[ndarray, " pair"]
    semantic: Float[ndarray, " pair"]
    reference: Float[ndarray, " pair"]

    def __len__(self) -> int:
        return len(self.i)

    def at(self, places: Int[ndarray, " some"] | Bool[ndarray, " pair"]) -> "Columns":
        """Some of the pairs."""
        return Columns(
            i=self.i[places],
            j=self.j[places],
            semantic=self.semantic[places],
            reference=self.reference[places],
        )


def no_pairs() -> Columns:
    """Columns without a row."""
    return Columns(
        i=np.zeros(0, np.int32), j=np.zeros(0, np.int32), semantic=np.zeros(0), reference=np.zeros(0)
    )


def joined(parts: "list[Columns]") -> Columns:
    """The pairs of all parts, one after another."""
    if not parts:
        return no_pairs()
    names = ("i", "j", "semantic", "reference")
    return Columns(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def most_suspicious_first(pairs: Columns) -> Columns:
    """By the gap between the two cosines, the largest first; ties by `i` and then `j`."""
    return pairs.at(np.lexsort((pairs.j, pairs.i, pairs.reference - pairs.semantic)))


class Keeper:
    """Takes pairs in any order and keeps the first `per_image` of every image and the first `budget` of all.

    A pair stays if it is among the first `per_image` of both its images, so no image is in more pairs than that.
    """

    def __init__(self, *, per_image: int | None = None, budget: int | None = None) -> None:
        self.found = 0
        """How many came, kept or not."""
        self._per_image, self._budget = per_image, budget
        self._parts: list[Columns] = []
        self._held, self._full = 0, ROOM

    def add(self, pairs: Columns, *, found: int | None = None) -> None:
        """Take in pairs that were not there before.

        Args:
            found: how many these are the `possible` ones of, where another keeper has seen the rest.
        """
        self.found += len(pairs) if found is None else found
        self._parts.append(pairs)
        self._held += len(pairs)
        if self._held > self._full and (self._per_image is not None or self._budget is not None):
            left = self._still_possible(joined(self._parts))
            self._parts, self._held = [left], len(left)
            self._full = 2 * self._held + ROOM

    def kept(self) -> Columns:
        """What is kept of all pairs so far, the most suspicious first."""
        pairs = most_suspicious_first(joined(self._parts))
        if self._per_image is not None:
            first, second = ranks(pairs)
            pairs = pairs.at((first < self._per_image) & (second < self._per_image))
        return pairs.at(np.arange(min(len(pairs), self._budget if self._budget is not None else len(pairs))))

    def possible(self) -> Columns:
        """What may be kept once the pairs of other keepers are there, too, and what counts in the ranks of such pairs."""
        pairs = joined(self._parts)
        limited = self._per_image is not None or self._budget is not None
        return self._still_possible(pairs) if limited else pairs

    def _still_possible(self, pairs: Columns) -> Columns:
        """Those that matter still: a pair among the first of either image counts in that image's ranks."""
        pairs = most_suspicious_first(pairs)
        if self._per_image is not None:
            first, second = ranks(pairs)
            return pairs.at((first < self._per_image) | (second < self._per_image))
        return pairs.at(np.arange(min(len(pairs), self._budget or 0)))


def ranks(pairs: Columns) -> tuple[Int[ndarray, " pair"], Int[ndarray, " pair"]]:
    """The place of each pair among those of its image `i`, and of its image `j`, counted from 0 in the order given."""
    images = np.stack([pairs.i, pairs.j], axis=1).ravel()
    order = np.argsort(images, kind="stable")
    ordered = images[order]
    starts = (
        np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)
    )
    sizes = np.diff(np.r_[starts, len(ordered)])
    found = np.empty(len(images), np.int64)
    found[order] = np.arange(len(images)) - np.repeat(starts, sizes)
    both = found.reshape(-1, 2)
    return both[:, 0], both[:, 1]
