"""The logit lens on a VLM's image positions: whether a part's name is read off the patches that show it.

The best rank of the part's name over the patches of its mask is set against the best rank over as many patches of the same
outline elsewhere (`eyechart.locate`). A scene's parts of one name are taken together, of whichever object, and the layer is
chosen on selection scenes and reported on test scenes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.core.records import Prompt
from eyechart.locate.identify import PartRanks, best_ranks, height_of
from eyechart.locate.identify_score import cluster_median
from eyechart.locate.labels import Speller, label_of, speller_of
from eyechart.locate.lens import Lens, lens_ranks
from eyechart.locate.lens_of_vlm import already_normed, lens_of
from eyechart.locate.regions import RegionRule, moved_regions
from eyechart.models.vlms import VLM, HiddenStates
from eyechart.train.loop import Report
from eyechart.train.prompts import DESCRIBE
from eyechart.world.kinds import KINDS, PARTS
from eyechart.world.sets import SceneSet

COVERED = 0.5
"""A patch belongs to a part when this much of it is covered by the part."""

REGIONS = 8
"""Random regions for each mask; the median of their ranks stands for them."""


def scene_ranks(
    vlm: VLM, known: SceneSet, *, seed: int = 0, report: Report | None = None
) -> tuple[PartRanks, ...]:
    """Rank the names of all visible parts of the objects of all scenes; a part that fills half the picture is left out.

    Raises:
        UserError: the set was rendered without maps, a part's name is not one token, or the image positions are no
            single grid.
        Incapable: the model gives no hidden states or has no logit lens.
    """
    if known.parts is None:
        raise UserError(f"{known.folder} has no maps of parts; render it with maps")
    lens, speller = lens_of(vlm), speller_of(vlm.tokenizer)
    rng, found = np.random.default_rng(seed), []
    for place in range(len(known.scenes)):
        image = Image.fromarray(np.asarray(known.images[place]))
        states = vlm.hidden_states(Prompt(text=DESCRIBE, images=(image,)))
        grid, each = _cells(vlm, states)
        masks = part_masks(np.asarray(known.parts[place]), grid)
        found += _ranked(str(place), states, each, masks, lens, speller, rng)
        if report is not None:
            report("scenes under the lens", place + 1, len(known.scenes))
    return tuple(found)


def _cells(vlm: VLM, states: HiddenStates) -> tuple[tuple[int, int], int]:
    """Rows and columns of cells, and how many image positions stand for each: two where a mixture interleaves."""
    if states.grid is not None:
        return states.grid, 1
    config: Any = getattr(getattr(vlm, "model", None), "config", None)
    each, grid = getattr(config, "tokens_per_cell", 1), getattr(config, "grid", None)
    if grid is None or states.layers.shape[1] != each * grid[0] * grid[1]:
        raise UserError(f"{vlm.id}: its image positions are no single grid, which a card's lens reads")
    return (grid[0], grid[1]), each


def _ranked(
    scene: str,
    states: HiddenStates,
    each: int,
    masks: Mapping[str, Bool[ndarray, "row column"]],
    lens: Lens,
    speller: Speller,
    rng: np.random.Generator,
) -> list[PartRanks]:
    """The parts of one scene for which there is room elsewhere; a cell has the best rank of its positions."""
    regions = {part: moved_regions(mask, rng, regions=REGIONS) for part, mask in masks.items()}
    parts = [part for part in masks if regions[part]]
    if not parts:
        return []
    labels = [label_of(part, speller) for part in parts]
    ranks = lens_ranks(states.layers, labels, lens, normed=already_normed(states)).ranks.numpy()
    ranks = ranks.reshape(len(ranks), -1, each, len(labels)).min(axis=2)
    return [
        _record(scene, part, states.layer_numbers, ranks[:, :, place], masks[part], regions[part])
        for place, part in enumerate(parts)
    ]


def _record(
    scene: str,
    part: str,
    layers: tuple[int, ...],
    ranks: Int[ndarray, "layer position"],
    mask: Bool[ndarray, "row column"],
    regions: Sequence[Bool[ndarray, "row column"]],
) -> PartRanks:
    elsewhere = [best_ranks(ranks, region.reshape(-1)) for region in regions]
    return PartRanks(
        image=scene,
        object="scene",
        part=part,
        instance=0,
        cells=int(mask.sum()),
        row=height_of(mask),
        share=float(mask.mean()),
        visible=1.0,
        layers=layers,
        mask=best_ranks(ranks, mask.reshape(-1)),
        random=np.median(elsewhere, axis=0),
        wrong=None,
        control=RegionRule.OUTLINE,
        regions=len(regions),
        others=(),
    )


def part_masks(
    parts: UInt8[ndarray, "size size"], grid: tuple[int, int]
) -> dict[str, Bool[ndarray, "row column"]]:
    """The patches of every part by its name, of all objects that have one of that name.

    Raises:
        ValueError: the picture does not fall into whole patches.
    """
    size, (rows, columns) = parts.shape[0], grid
    if size % rows or size % columns:
        raise ValueError(f"a picture of {size} pixels does not fall into {rows} x {columns} whole patches")
    found: dict[str, Bool[ndarray, "row column"]] = {}
    ids: dict[str, list[int]] = {}
    for number, (owner, part) in enumerate(PARTS, start=1):
        if owner in KINDS:
            ids.setdefault(part, []).append(number)
    for part, numbers in ids.items():
        shown = np.isin(parts, numbers).reshape(rows, size // rows, columns, size // columns)
        mask = shown.mean(axis=(1, 3)) >= COVERED
        if mask.any():
            found[part] = mask
    return found


def lens_score(
    found: Sequence[PartRanks], layer: int, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Median ratio of the best rank elsewhere to the best rank over the mask at a layer; scenes are drawn anew.

    Raises:
        ValueError: nothing was ranked, or in one scene only.
    """
    logs = _log_ratios(found)
    ratios = np.exp(logs[:, layer])
    drawn = cluster_median(ratios, [one.image for one in found], resamples=resamples, seed=seed)
    return {
        "ratio": {
            "value": drawn.value,
            "low": drawn.low,
            "high": drawn.high,
            "n": drawn.n,
            "clusters": drawn.clusters,
            "level": drawn.level,
            "method": "percentile bootstrap of the median, scenes drawn anew",
            "seed": seed,
        },
        "layer": layer,
        "median_rank_mask": float(np.median([one.mask[layer] for one in found])),
        "median_rank_random": float(
            np.median([one.random[layer] for one in found if one.random is not None])
        ),
        "by_layer": np.exp(np.median(logs, axis=0)).tolist(),
        "by_part": _by_part(found, ratios),
    }


def _by_part(
    found: Sequence[PartRanks], ratios: Float[ndarray, " part"]
) -> Mapping[str, dict[str, float | int]]:
    parts = sorted({one.part for one in found})
    places = {part: [place for place, one in enumerate(found) if one.part == part] for part in parts}
    return {part: {"ratio": float(np.median(ratios[rows])), "n": len(rows)} for part, rows in places.items()}


def _log_ratios(found: Sequence[PartRanks]) -> Float[ndarray, "part layer"]:
    if not found:
        raise ValueError("no part was ranked in any scene")
    return np.array([np.log(one.random) - np.log(one.mask) for one in found if one.random is not None])
