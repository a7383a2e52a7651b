"""Cosines of listed pairs of pictures, and where each stands among those of all pairs; in blocks, no square kept."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from eyechart.core.errors import UserError
from eyechart.core.stats import percentile_of

_log = logging.getLogger(__name__)

_BLOCK = 512  # rows of vectors multiplied at a time
_DIGITS = 9  # cosines are rounded to these, so that equal pictures tie whatever way they were multiplied


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The cosine of each listed pair, its mid-rank percentile among those of all pairs, and the cut there."""

    similarity: Float[np.ndarray, " pair"]
    percentile: Float[np.ndarray, " pair"]
    threshold: float
    flat: bool
    """Whether all pairs have the same cosine."""


def place_pairs(
    vectors: Float[np.ndarray, "image dim"],
    images: Sequence[str],
    first: Int[np.ndarray, " pair"],
    second: Int[np.ndarray, " pair"],
    *,
    percentile: float,
    centre: bool,
    seed: int,
    most: int,
) -> Placed:
    """Place listed pairs among all unordered pairs of different pictures, or among `most` drawn ones.

    Args:
        vectors: one for each picture, of any length.
        images: the pictures' names, for messages.
        first: for each listed pair the row of one picture ...
        second: ... and of the other.
        percentile: where the threshold is cut, by linear interpolation.
        centre: take the vectors' mean away first.
        seed: of the draw.
        most: the most cosines kept.

    Raises:
        UserError: a vector has no direction (zero, not finite, or the mean itself); its picture is named.
        ValueError: there is not one vector for each picture.
    """
    unit = _unit(vectors, images, centre=centre)
    drawn = _drawn(len(images), most, seed)
    sample = np.concatenate(list(_all_cosines(unit) if drawn is None else _cosines(unit, *drawn)))
    own = np.concatenate(list(_cosines(unit, first, second)))
    return Placed(
        similarity=own,
        percentile=percentile_of(sample, own),
        threshold=float(np.round(np.percentile(sample, percentile), _DIGITS)),
        flat=len(sample) > 1 and bool(np.ptp(sample) == 0),
    )


def _unit(
    vectors: Float[np.ndarray, "image dim"], images: Sequence[str], *, centre: bool
) -> Float[np.ndarray, "image dim"]:
    """The vectors in float64 at length 1, around their mean if asked.

    Raises:
        UserError: a vector has no direction.
        ValueError: there is not one vector for each picture.
    """
    if len(vectors) != len(images):
        raise ValueError(f"{len(vectors)} vectors for {len(images)} pictures")
    wide = vectors.astype(np.float64)
    _refuse(np.any(~np.isfinite(wide), axis=1), images, "holds values that are not finite")
    scale = np.abs(wide).max(axis=1, keepdims=True, initial=0.0)
    _refuse(scale[:, 0] == 0, images, "is all zeros")
    if centre:
        wide = wide - wide.mean(axis=0)
        _refuse(np.abs(wide).max(axis=1) <= 1e-9 * scale[:, 0], images, "equals the mean of all pictures")
        scale = np.abs(wide).max(axis=1, keepdims=True)
    wide = wide / scale  # so that no square overflows or vanishes
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), dtype=np.float64)


def _refuse(wrong: Bool[np.ndarray, " image"], images: Sequence[str], what: str) -> None:
    if wrong.any():
        named = [image for image, bad in zip(images, wrong, strict=True) if bad]
        raise UserError(
            f"the vector of {', '.join(named[:5])} {what} ({len(named)} of {len(images)} pictures)"
        )


def _drawn(
    images: int, most: int, seed: int
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]] | None:
    """Rows of vectors to compare, drawn evenly and with repetition; None where all pairs are few enough."""
    if images * (images - 1) // 2 <= most:
        return None
    rng = np.random.default_rng(seed)
    first = rng.integers(0, images, most)
    second = rng.integers(0, images - 1, most)
    _log.info("%d pictures: %d of their pairs are drawn for the percentiles", images, most)
    return first, second + (second >= first)


def _all_cosines(unit: Float[np.ndarray, "image dim"]) -> Iterator[Float[np.ndarray, " part"]]:
    """The cosines of all unordered pairs of different pictures, a block of rows at a time."""
    for start in range(0, len(unit), _BLOCK):
        block = unit[start : start + _BLOCK]
        cosines = block @ unit[start:].T
        rows, columns = np.triu_indices(len(block), k=1, m=cosines.shape[1])
        yield np.round(cosines[rows, columns], _DIGITS)


def _cosines(
    unit: Float[np.ndarray, "image dim"], first: Int[np.ndarray, " pair"], second: Int[np.ndarray, " pair"]
) -> Iterator[Float[np.ndarray, " part"]]:
    """The cosines of listed pairs, some thousands at a time."""
    step = 16 * _BLOCK
    for start in range(0, len(first), step):
        some = slice(start, start + step)
        yield np.round(np.einsum("pd,pd->p", unit[first[some]], unit[second[some]]), _DIGITS)
