"""Made embeddings that are shaped as those of photo collections are said to be, for both encoders at once.

A row is a common direction, a superclass, a class and what is its own. Some classes are tight, and three in ten pictures
lie in groups of near-duplicates of all sizes; the second encoder tells the members of a third of the groups apart. How the
variance falls from axis to axis is what decides how well few columns bound a cosine, so there are three spectra: `steep` is near
what is reported of CLIP (arXiv 2204.06125, section 5.1: a third of the axes hold nearly all), `iso` is the worst case.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

Rows = Float[ndarray, "image dim"]
WIDTHS = 768, 1024
SPECTRA = {
    "steep": ((1.0, 4, 300), (0.9, 8, 500)),
    "flat": ((0.6, 4, None), (0.5, 8, None)),
    "iso": ((0.0, 1, None), (0.0, 1, None)),
}
"""Of both encoders: the variance along axis k is (k + second) ** -first, cut at the third."""

SUPERCLASSES, CLASSES, ATTRIBUTES = 60, 3000, 400
POPULATION = 12345  # the same whatever is drawn from it
PART = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Where an encoder puts superclasses, classes and attributes, and how it turns and scales what is drawn."""

    scales: Float[ndarray, " dim"]
    turn: Float[ndarray, "dim dim"]
    centre: Float[ndarray, " dim"]
    classes: Float[ndarray, "class dim"]
    attributes: Float[ndarray, "attribute dim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """What each picture shows, and how near those of a group are."""

    classes: Int[ndarray, " image"]
    attributes: Int[ndarray, " image"]
    groups: Int[ndarray, " image"]
    """-1 for a picture of its own."""

    blind: ndarray
    """Of each group: whether only the first encoder takes its members for alike."""

    spreads: Float[ndarray, "group encoder"]
    """The variance inside each group."""


def made(images: int, spectrum: str, seed: int = 0) -> tuple[Rows, Rows]:
    """Rows of length 1 of so many pictures under both encoders, 768 and 1,024 columns."""
    fixed, drawn = np.random.default_rng(POPULATION), np.random.default_rng(seed)
    parents = fixed.integers(0, SUPERCLASSES, CLASSES)
    spreads = _class_spreads(fixed)
    first, second = (
        _space(fixed, dim, curve, parents, shares)
        for dim, curve, shares in zip(WIDTHS, SPECTRA[spectrum], ((0.10, 0.15), (0.10, 0.30)), strict=True)
    )
    pictures = _pictures(drawn, images)
    grouped = pictures.groups >= 0
    semantic = _rows(drawn, first, 0.5, pictures, spreads[pictures.classes], grouped, encoder=0)
    shared = grouped & ~pictures.blind[pictures.groups]
    reference = _rows(drawn, second, 0.03, pictures, np.full(images, 0.42, np.float32), shared, encoder=1)
    return semantic, reference


def _class_spreads(rng: np.random.Generator) -> Float[ndarray, " class"]:
    """The variance inside each class: of some, and of none of the commonest, it is small."""
    places = np.arange(CLASSES)
    spreads = np.clip(np.exp(rng.normal(np.log(0.25), 0.25, CLASSES)), 0.03, 0.45)
    spreads[places % 25 == 15] = 0.08
    spreads[places % 50 == 40] = 0.035
    return spreads.astype(np.float32)


def _space(
    rng: np.random.Generator,
    dim: int,
    curve: tuple[float, int, int | None],
    parents: Int[ndarray, " class"],
    shares: tuple[float, float],
) -> Space:
    power, shift, cut = curve
    k = np.arange(1, dim + 1)
    variances = (k + shift) ** -power * (np.exp(-((k / cut) ** 2)) if cut else 1.0)
    scales = np.sqrt(variances / variances.sum()).astype(np.float32)
    above, own = (
        rng.standard_normal((count, dim), np.float32) * scales * np.sqrt(np.float32(share))
        for count, share in zip((SUPERCLASSES, CLASSES), shares, strict=True)
    )
    centre = rng.standard_normal(dim, np.float32)
    return Space(
        scales=scales,
        turn=np.linalg.qr(rng.standard_normal((dim, dim), np.float32))[0],
        centre=centre / np.linalg.norm(centre),
        classes=above[parents] + own,
        attributes=rng.standard_normal((ATTRIBUTES, dim), np.float32) * scales * np.sqrt(np.float32(0.15)),
    )


def _pictures(drawn: np.random.Generator, images: int) -> Pictures:
    share = 1 / np.arange(1, CLASSES + 1) ** 0.8  # a few classes are common
    share /= share.sum()
    some = drawn.permutation(images)[: int(0.3 * images)]
    sizes = np.minimum(2 + drawn.pareto(1.5, len(some) // 2 + 1), 120).astype(int)
    ends = np.minimum(np.cumsum(sizes), len(some))
    count = int(np.searchsorted(ends, len(some))) + 1 if len(some) else 0
    groups = np.full(images, -1)
    groups[some] = np.repeat(np.arange(count), np.diff(ends[:count], prepend=0))
    blind = drawn.random(max(count, 1)) < 0.35
    classes, attributes = drawn.choice(CLASSES, images, p=share), drawn.integers(0, ATTRIBUTES, images)
    of_group = drawn.choice(CLASSES, max(count, 1), p=share)
    shown = drawn.integers(0, ATTRIBUTES, max(count, 1))
    classes[some] = of_group[groups[some]]
    alike = some[~blind[groups[some]]]
    attributes[alike] = shown[groups[alike]]
    spreads = np.exp(drawn.uniform(np.log((0.001, 0.005)), np.log(0.25), (max(count, 1), 2)))
    return Pictures(
        classes=classes,
        attributes=attributes,
        groups=groups,
        blind=blind,
        spreads=spreads.astype(np.float32),
    )


def _rows(
    rng: np.random.Generator,
    space: Space,
    common: float,
    pictures: Pictures,
    variances: Float[ndarray, " image"],
    shared: ndarray,
    *,
    encoder: int,
) -> Rows:
    dim = len(space.scales)
    of_group = rng.standard_normal((len(pictures.blind), dim), np.float32) * space.scales
    rows = np.empty((len(variances), dim), np.float32)
    for start in range(0, len(rows), PART):
        part = slice(start, min(start + PART, len(rows)))
        own = rng.standard_normal((part.stop - start, dim), np.float32) * space.scales
        groups, inside = pictures.groups[part], shared[part]
        apart = np.where(
            inside, np.minimum(pictures.spreads[groups, encoder], 0.9 * variances[part]), variances[part]
        )
        some = space.classes[pictures.classes[part]] + own * np.sqrt(apart)[:, None]
        some[inside] += of_group[groups[inside]] * np.sqrt(variances[part] - apart)[inside, None]
        if encoder:
            some += space.attributes[pictures.attributes[part]]
        some = some @ space.turn.T + space.centre * np.sqrt(np.float32(common))
        rows[part] = some / np.linalg.norm(some, axis=1, keepdims=True)
    return rows


if __name__ == "__main__":  # what they are like
    for spectrum in SPECTRA:
        semantic, reference = made(6000, spectrum)
        upper = np.triu_indices(len(semantic), 1)
        near, far = ((rows @ rows.T)[upper] for rows in (semantic, reference))
        left = np.linalg.eigvalsh(np.cov(semantic.T))[::-1]
        held = np.cumsum(left / left.sum())
        print(
            f"{spectrum}: first cosine {near.mean():.2f} +- {near.std():.3f}, second {far.mean():.3f}, correlation"
            f" {np.corrcoef(near, far)[0, 1]:.2f}, variance in 64 and 256 axes {held[63]:.0%} and {held[255]:.0%}"
        )
