"""Which pairs the model's own encoder takes for nearly the same and a reference encoder tells apart.

Vectors and items come in, similarities, percentiles and suspects come out. A cosine means little by itself (each
encoder has a range of its own), so each pair is placed among the cosines of all pairs of pictures in the
benchmark under the same encoder. Published CLIP-blind pairs are cut at fixed cosines, 0.95 under CLIP and 0.6
under DINOv2 ("Eyes Wide Shut?", arXiv 2401.06209, section 3); a percentile asks the same of any encoder.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from eyechart.core.errors import UserError
from eyechart.core.records import Item
from eyechart.find.cosines import Placed, place_pairs

_FEW = 100  # pairs of pictures; below, a percentile means little

MOST_COMPARED = 2_000_000
"""The most pairs of pictures whose cosines are kept; of more, so many are drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSimilarity:
    """How alike the two pictures of a pair are under each encoder; None where there is no reference."""

    pair_id: str
    pattern: str | None
    item_a: str
    item_b: str
    image_a: str
    image_b: str
    similarity_model: float
    percentile_model: float
    similarity_reference: float | None = None
    percentile_reference: float | None = None
    suspect: bool | None = None
    identical: bool = False
    """Whether both pictures are the same file, byte for byte: no encoder can tell such a pair apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The similarities of a benchmark's pairs, and what they were placed among."""

    pairs: tuple[PairSimilarity, ...]
    percentile: float
    compared: int
    """Pairs of pictures whose cosines make up the distribution."""

    exhaustive: bool
    """Whether these are all pairs of different pictures there are, or a drawn part."""

    threshold_model: float
    threshold_reference: float | None
    seed: int
    centred: bool
    notes: tuple[str, ...]
    """What a reader of the numbers has to know."""


def compare_pairs(
    items: Sequence[Item],
    images: Sequence[str],
    model: Float[np.ndarray, "image dim_model"],
    reference: Float[np.ndarray, "image dim_reference"] | None = None,
    *,
    percentile: float = 95.0,
    centre: bool = False,
    seed: int = 0,
    most_compared: int = MOST_COMPARED,
) -> Comparison:
    """Place each pair among all pairs of pictures under both encoders, and say which are suspects.

    A pair is a suspect when its cosine under the model's fed features reaches the percentile of the
    cosines of all unordered pairs of different pictures, and its cosine under the reference stays below
    that percentile there. A pair of two identical pictures is flagged and never a suspect.

    Args:
        items: the benchmark's items, two to a pair; of a pair the first is `a`.
        images: the sha256 of each picture that has vectors, without repetition.
        model: a vector for each picture as the model's projector reads it; of any length.
        reference: a vector for each picture under the reference, or None.
        percentile: where "nearly the same" begins, in 0..100 (linear interpolation).
        centre: take the mean over the pictures away first, which spreads the cosines of encoders whose
            vectors all lie in one narrow cone.
        seed: of the draw, where there are more pairs than `most_compared`.
        most_compared: the most cosines kept; 8 bytes each.

    Raises:
        UserError: a vector is zero or not finite (the picture is named), fewer than two pictures, or a
            percentile outside 0..100.
        ValueError: a picture is listed twice or has no vector, there are no items, or a pair has not two.
    """
    places = _places(images)
    if not 0 < percentile < 100:
        raise UserError(f"a percentile lies between 0 and 100, got {percentile}; usual is 95")
    if len(images) < 2:
        raise UserError(f"{len(images)} picture cannot be compared with others; two are needed")
    pairs = _pairs(items, places)
    at = np.array([pair[2] for pair in pairs]), np.array([pair[3] for pair in pairs])
    options: dict[str, Any] = {
        "percentile": percentile,
        "centre": centre,
        "seed": seed,
        "most": most_compared,
    }
    seen = place_pairs(model, images, *at, **options)
    beside = None if reference is None else place_pairs(reference, images, *at, **options)
    total = len(images) * (len(images) - 1) // 2
    rows = tuple(_row(place, pair, seen, beside) for place, pair in enumerate(pairs))
    return Comparison(
        pairs=rows,
        percentile=percentile,
        compared=min(total, most_compared),
        exhaustive=total <= most_compared,
        threshold_model=seen.threshold,
        threshold_reference=None if beside is None else beside.threshold,
        seed=seed,
        centred=centre,
        notes=tuple(_notes(rows, total, most_compared, seen, beside)),
    )


Pair = tuple[Item, Item, int, int]
"""Two items and the rows of their pictures' vectors."""


def _places(images: Sequence[str]) -> dict[str, int]:
    places = {image: place for place, image in enumerate(images)}
    if len(places) < len(images):
        twice = sorted({image for image in images if images.count(image) > 1})
        raise ValueError(f"pictures listed more than once: {', '.join(twice[:10])}")
    return places


def _pairs(items: Sequence[Item], places: Mapping[str, int]) -> list[Pair]:
    groups: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.pair_id].append(item)
        if item.image_sha256 not in places:
            raise ValueError(f"item {item.id!r}: there is no vector for its picture {item.image_sha256!r}")
    if not groups:
        raise ValueError("there are no items (0), so there are no pairs to compare")
    odd = [f"{pair_id!r} has {len(group)}" for pair_id, group in groups.items() if len(group) != 2]
    if odd:
        raise ValueError(f"a pair has two items; pair {', '.join(odd[:10])}")
    return [(a, b, places[a.image_sha256], places[b.image_sha256]) for a, b in groups.values()]


def _row(place: int, pair: Pair, seen: Placed, beside: Placed | None) -> PairSimilarity:
    a, b = pair[:2]
    identical = a.image_sha256 == b.image_sha256
    similarity = float(seen.similarity[place])
    known: dict[str, Any] = {}
    if beside is not None:
        other = float(beside.similarity[place])
        known = {
            "similarity_reference": other,
            "percentile_reference": float(beside.percentile[place]),
            "suspect": not identical and similarity >= seen.threshold and other < beside.threshold,
        }
    return PairSimilarity(
        pair_id=a.pair_id,
        pattern=a.pattern,
        item_a=a.id,
        item_b=b.id,
        image_a=a.image_sha256,
        image_b=b.image_sha256,
        similarity_model=similarity,
        percentile_model=float(seen.percentile[place]),
        identical=identical,
        **known,
    )


def _notes(
    rows: Sequence[PairSimilarity], total: int, most: int, seen: Placed, beside: Placed | None
) -> Iterator[str]:
    same = [row.pair_id for row in rows if row.identical]
    if same:
        yield f"pairs of two identical pictures, which no encoder can tell apart: {', '.join(same)}"
    if total > most:
        yield f"percentiles are among {most} drawn pairs of pictures (there are {total})"
    if total < _FEW:
        yield f"only {total} pairs of pictures to place a pair among: percentiles are coarse"
    if seen.flat:
        yield "the model's encoder gives all pictures the same features, so every pair is nearly the same to it"
    if beside is not None and beside.flat:
        yield "the reference gives all pictures the same features, so it tells nothing apart and there are no suspects"
