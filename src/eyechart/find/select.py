"""From the pairs that were found to the list a person reads: without near-duplicates, and not one burst of photos again and again."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from eyechart.find.keep import Columns

AHEAD = 8
"""The join keeps so many times more pairs of an image than are listed, since some are set aside here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What is listed, what is set apart, and how many were left out."""

    pairs: Columns
    bits: Int[ndarray, " pair"]
    """In how many bits the perceptual hashes differ."""

    near_duplicates: Columns
    near_bits: Int[ndarray, " near"]
    set_apart: int
    """Pairs that satisfied both conditions and are near-duplicates."""


def select(
    found: Columns,
    alike: Columns,
    hashes: Float[ndarray, "image bit"],
    *,
    min_alike: float,
    most_bits: int,
    per_image: int,
    per_burst: int,
    budget: int,
) -> Selected:
    """Choose from pairs, the most suspicious first.

    Near-duplicates are near under the reference, too, and have nearly the same perceptual hash. Groups of pictures that
    are near-duplicates of each other, directly or through others, are bursts; between the same two bursts only
    `per_burst` pairs are listed.

    Args:
        found: pairs that satisfy both conditions.
        alike: pairs that both encoders take for nearly the same.
        hashes: of every picture, as -1 and 1.
    """
    alike_bits = differing_bits(hashes, alike)
    near = alike_bits <= most_bits
    bits = differing_bits(hashes, found)
    double = (bits <= most_bits) & (found.reference >= min_alike)
    bursts = _groups(len(hashes), alike.at(near))
    rest = np.flatnonzero(~double)
    listed = np.array(list(_spread(found, rest, bursts, per_image, per_burst)), np.int64)[:budget]
    return Selected(
        pairs=found.at(listed),
        bits=bits[listed],
        near_duplicates=alike.at(near),
        near_bits=alike_bits[near],
        set_apart=int(double.sum()),
    )


def differing_bits(hashes: Float[ndarray, "image bit"], pairs: Columns) -> Int[ndarray, " pair"]:
    """In how many bits the hashes of each pair differ."""
    agreeing = np.einsum("pb,pb->p", hashes[pairs.i], hashes[pairs.j])
    differing: Int[ndarray, " pair"] = np.rint((hashes.shape[1] - agreeing) / 2).astype(np.int32)
    return differing


def _groups(images: int, near: Columns) -> Int[ndarray, " image"]:
    """The number of the burst each picture belongs to; most are alone in theirs."""
    edges = coo_array((np.ones(len(near), np.int8), (near.i, near.j)), shape=(images, images))
    groups: Int[ndarray, " image"] = connected_components(edges, directed=False)[1]
    return groups


def _spread(
    found: Columns,
    places: Int[ndarray, " some"],
    bursts: Int[ndarray, " image"],
    per_image: int,
    per_burst: int,
) -> Iterator[int]:
    """The places that are listed, each image and each pair of bursts no more often than it may be."""
    images: Counter[int] = Counter()
    between: Counter[tuple[int, int]] = Counter()
    for place in places.tolist():
        i, j = int(found.i[place]), int(found.j[place])
        first, second = sorted((int(bursts[i]), int(bursts[j])))
        if images[i] >= per_image or images[j] >= per_image or between[first, second] >= per_burst:
            continue
        images.update((i, j))
        between[first, second] += 1
        yield place
