"""Part identification: the best logit-lens rank of a part's name over the image positions that show the part.

Takishita et al. (arXiv 2506.05439, figure 1) take every patch in a part's mask and the highest rank of the part's label
over them, Ident_l(p) = min over i in S_p of r_l,i at layer l. The best of many is good by chance, so two controls stand
beside it: the same over regions as large that are elsewhere (`regions.py`), and the names of the object's other parts at
this part's own mask. Both are choices of ours, as are the share of a patch that the mask must cover, and that a control
stands for itself by its median rank (over regions, or names). Regions keep off every part of that name in the picture, of
whichever object, since the name is right there too.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.core.geometry import Geometry
from eyechart.locate.identify_records import (
    REASONS,
    THRESHOLD,
    Identified,
    ImageStates,
    MaskedPart,
    NotRanked,
    PartRanks,
    Settings,
    not_ranked,
)
from eyechart.locate.labels import Label, LabelSet
from eyechart.locate.lens import Lens, lens_ranks
from eyechart.locate.regions import (
    REGIONS,
    RegionRule,
    connected_regions,
    moved_regions,
    neighbours_of,
)

__all__ = [
    "REASONS",
    "REGIONS",
    "THRESHOLD",
    "Identified",
    "ImageStates",
    "MaskedPart",
    "NotRanked",
    "PartRanks",
    "PlacedPart",
    "Regions",
    "Settings",
    "best_ranks",
    "drawn_regions",
    "height_of",
    "identify_parts",
    "not_ranked",
    "placed_parts",
    "wrong_names",
]


def identify_parts(
    images: Iterable[ImageStates],
    lens: Lens,
    labels: LabelSet,
    names: Mapping[str, Sequence[str]],
    *,
    settings: Settings | None = None,
) -> Identified:
    """Rank every part's name over its mask and over the controls.

    Args:
        images: one at a time; only what is ranked is kept of them.
        lens: the model's.
        labels: of the parts' names; a name of several words is one label.
        names: of each object the names of its parts, from which the wrong ones are taken. A name that shares a token
            with the right one, or has no label, is no control and is left out.
        settings: see there.

    Raises:
        UserError: states and geometry do not fit, or the outline is to be moved over several grids.
    """
    chosen, known = settings or Settings(), {label.word: label for label in labels.labels}
    parts: list[PartRanks] = []
    unranked: list[NotRanked] = []
    for image in images:
        found, missing = _of_image(image, lens, known, names, chosen)
        parts += found
        unranked += missing
    return Identified(parts=tuple(parts), not_ranked=tuple(unranked))


def best_ranks(
    ranks: Real[ndarray, "layer position"], where: Bool[ndarray, " position"] | Int[ndarray, " some"]
) -> Float[ndarray, " layer"]:
    """The best rank over some positions, for each layer.

    Raises:
        ValueError: there are no positions.
    """
    return np.asarray(ranks[:, where].min(axis=1), dtype=np.float64)


def height_of(mask: Bool[ndarray, "row column"]) -> float:
    """How far down the middle of a mask lies: 0 at the top, 1 at the bottom.

    >>> height_of(np.array([[False, False], [True, True]]))
    0.75
    """
    rows, _ = np.nonzero(mask)
    return float((rows.mean() + 0.5) / len(mask))


def wrong_names(part: MaskedPart, known: Mapping[str, Label], names: Sequence[str]) -> tuple[str, ...]:
    """Names of an object's other parts that can be told from the right one, each once."""
    own = set(known[part.part].tokens)
    return tuple(
        name
        for name in dict.fromkeys(names)
        if name != part.part and name in known and not own.intersection(known[name].tokens)
    )


def _of_image(
    image: ImageStates,
    lens: Lens,
    known: Mapping[str, Label],
    names: Mapping[str, Sequence[str]],
    settings: Settings,
) -> tuple[list[PartRanks], list[NotRanked]]:
    count = image.states.shape[1]
    if count != image.geometry.length:
        raise UserError(
            f"{image.image}: states at {count} positions, but its geometry has {image.geometry.length}; "
            "expected those of the image positions"
        )
    where, missing = placed_parts(image.image, image.parts, image.geometry, known, settings.threshold)
    if not where:
        return [], missing
    others = [wrong_names(part, known, names.get(part.object, ())) for part, _ in where]
    words = list(dict.fromkeys([part.part for part, _ in where] + [name for some in others for name in some]))
    ranks = _by_word(image, lens, [known[word] for word in words], settings)
    regions = drawn_regions(image.image, image.geometry, where, settings)
    return [
        _record(image, part, cells, ranks, drawn, wrong, regions.rule)
        for (part, cells), drawn, wrong in zip(where, regions.of_part, others, strict=True)
    ], missing


PlacedPart = tuple[MaskedPart, Int[ndarray, " _"]]
"""A part and the image positions of its mask."""


def placed_parts(
    image: str,
    parts: Sequence[MaskedPart],
    geometry: Geometry,
    known: Mapping[str, Label],
    threshold: float,
) -> tuple[list[PlacedPart], list[NotRanked]]:
    """The parts of a picture that can be ranked, with their positions, and those that cannot."""
    where: list[PlacedPart] = []
    missing: list[NotRanked] = []
    for part in parts:
        if fault := _fault(part, geometry, known, threshold):
            missing.append(not_ranked(image, part, *fault))
        else:
            where.append((part, geometry.positions_of(part.mask, threshold=threshold)))
    return where, missing


def _fault(
    part: MaskedPart, geometry: Geometry, known: Mapping[str, Label], threshold: float
) -> tuple[str, str] | None:
    """Why a part cannot be ranked."""
    if part.part not in known:
        return "no_label", f"{part.part!r} is none of the {len(known)} labels"
    if part.mask.shape != geometry.image_size:
        return "size_mismatch", f"mask {part.mask.shape}, picture {geometry.image_size} (height, width)"
    if not part.mask.any():
        return "empty_mask", "no pixel"
    if len(geometry.positions_of(part.mask, threshold=threshold)):
        return None
    seen, most = geometry.visible_share(part.mask), max(one.max() for one in geometry.shares(part.mask))
    if seen == 0:
        return "lost_to_crop", f"{int(part.mask.sum())} pixels"
    return "no_cell", f"at most {most:.3g} of a cell is covered; more than {threshold:g} is asked for"


def _by_word(
    image: ImageStates, lens: Lens, labels: Sequence[Label], settings: Settings
) -> dict[str, Real[ndarray, "layer position"]]:
    read = lens_ranks(image.states, labels, lens, normed=image.normed, ties=settings.ties, held=settings.held)
    ranks = read.ranks.numpy()
    return {label.word: ranks[:, :, place] for place, label in enumerate(labels)}


@dataclass(frozen=True, slots=True)
class Regions:
    """Regions for the parts of a picture, and the rule by which they were drawn."""

    rule: RegionRule
    of_part: list[list[Int[ndarray, " _"]]]


def drawn_regions(image: str, geometry: Geometry, where: Sequence[PlacedPart], settings: Settings) -> Regions:
    """The regions of each part, which keep off all masks of its name."""
    single = len(geometry.tiles) == 1
    rule = settings.control or (RegionRule.OUTLINE if single else RegionRule.CONNECTED)
    if rule is RegionRule.OUTLINE and not single:
        raise UserError(
            f"{image}: an outline can be moved over one grid, and this model sees the picture in "
            f"{len(geometry.tiles)}; take the control 'connected'"
        )
    neighbours = neighbours_of(geometry)
    found = []
    for part, cells in where:
        rng = _rng(settings.seed, image, part)
        barred = np.unique(np.concatenate([own for other, own in where if other.part == part.part]))
        if rule is RegionRule.CONNECTED:
            some = connected_regions(
                cells.tolist(), neighbours, rng, regions=settings.regions, barred=barred.tolist()
            )
        else:
            grid = geometry.tiles[0].position_grid
            allowed = np.isin(grid, [*neighbours]) & ~np.isin(grid, barred)
            moved = moved_regions(np.isin(grid, cells), rng, regions=settings.regions, allowed=allowed)
            some = [np.sort(grid[region]) for region in moved]
        found.append(some)
    return Regions(rule, found)


def _rng(seed: int, image: str, part: MaskedPart) -> np.random.Generator:
    text = "\0".join((image, part.object, part.part, str(part.instance)))
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")])


def _record(
    image: ImageStates,
    part: MaskedPart,
    cells: Int[ndarray, " _"],
    ranks: Mapping[str, Real[ndarray, "layer position"]],
    regions: Sequence[Int[ndarray, " _"]],
    others: tuple[str, ...],
    control: RegionRule,
) -> PartRanks:
    own = ranks[part.part]
    return PartRanks(
        image=image.image,
        object=part.object,
        part=part.part,
        instance=part.instance,
        cells=len(cells),
        row=height_of(part.mask),
        share=float(part.mask.mean()),
        visible=image.geometry.visible_share(part.mask),
        layers=image.layers,
        mask=best_ranks(own, cells),
        random=_median([best_ranks(own, region) for region in regions]),
        wrong=_median([best_ranks(ranks[name], cells) for name in others]),
        control=control,
        regions=len(regions),
        others=others,
    )


def _median(some: Sequence[Float[ndarray, " layer"]]) -> Float[ndarray, " layer"] | None:
    return np.median(some, axis=0) if some else None
