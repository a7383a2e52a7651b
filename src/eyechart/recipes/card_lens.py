"""The logit lens on a VLM's image positions: whether a part's name is read off the patches that show it.

Each hidden state at an image position goes through the model's own final norm, once, and its own unembedding
(nostalgebraist 2020; at image positions Neo et al., arXiv 2410.07149). The best rank of the part's name over the patches
of its mask is set against the best rank over as many patches of the same outline elsewhere. The layer is chosen on
selection scenes and reported on test scenes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from eyechart.core.errors import UserError
from eyechart.core.records import Prompt
from eyechart.models.vlms import VLM
from eyechart.train.loop import Report
from eyechart.train.prompts import DESCRIBE
from eyechart.world.kinds import KINDS, PARTS
from eyechart.world.sets import SceneSet

COVERED = 0.5
"""A patch belongs to a part when this much of it is covered by the part."""

REGIONS = 8
"""Random regions for each mask; the median of their ranks stands for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRanks:
    """One named part in one scene: best ranks by layer, 1 for the likeliest token."""

    scene: int
    part: str
    mask: Float[ndarray, " layer"]
    random: Float[ndarray, " layer"]


def lens_ranks(
    vlm: VLM, known: SceneSet, *, seed: int = 0, report: Report | None = None
) -> tuple[PartRanks, ...]:
    """Rank the names of all visible parts of the objects of all scenes.

    Raises:
        UserError: the set was rendered without maps, or a part's name is not one token.
        Incapable: the model's image positions are no plain grid, or it gives no hidden states.
    """
    if known.parts is None:
        raise UserError(f"{known.folder} has no maps of parts; render it with maps")
    rng, found = np.random.default_rng(seed), []
    for place in range(len(known.scenes)):
        image = Image.fromarray(np.asarray(known.images[place]))
        logits, grid = lens_logits(vlm, image)
        for part, mask in part_masks(np.asarray(known.parts[place]), grid).items():
            regions = elsewhere(mask, rng)
            if regions:
                ranks = _ranks(logits, token_of(vlm, part))
                found.append(
                    PartRanks(
                        scene=place,
                        part=part,
                        mask=_best(ranks, mask),
                        random=np.median([_best(ranks, region) for region in regions], axis=0),
                    )
                )
        if report is not None:
            report("scenes under the lens", place + 1, len(known.scenes))
    return tuple(found)


def lens_logits(
    vlm: VLM, image: Image.Image
) -> tuple[Float[Tensor, "layer position token"], tuple[int, int]]:
    """Logits of every token at every image position and layer, and the grid of the positions.

    Raises:
        UserError: the positions are no single grid, or the model has no final norm or unembedding of its own.
    """
    states = vlm.hidden_states(Prompt(text=DESCRIBE, images=(image,)))
    towers = vlm.towers
    norm, head, device = towers.final_norm, towers.lm_head, vlm.device
    if states.grid is None or norm is None or head is None:
        raise UserError(f"{vlm.id}: its image positions, its final norm or its unembedding are not to be had")
    with torch.no_grad():
        layers = [
            state if states.last_is_normed and number == states.last_layer else norm(state.to(device)).cpu()
            for number, state in zip(states.layer_numbers, states.layers, strict=True)
        ]
        logits: Tensor = head(torch.stack(layers).to(device))
    return logits.float().cpu(), states.grid


def token_of(vlm: VLM, word: str) -> int:
    """The token of a word with its leading space.

    Raises:
        UserError: it is several tokens.
    """
    ids: list[int] = vlm.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise UserError(f"{vlm.id}: {word!r} is {len(ids)} tokens, and the lens reads single ones")
    return ids[0]


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


def elsewhere(
    mask: Bool[ndarray, "row column"], rng: np.random.Generator, *, regions: int = REGIONS
) -> list[Bool[ndarray, "row column"]]:
    """The mask's outline moved to random places, round the edges, where it does not meet the mask; up to so many."""
    rows, columns = mask.shape
    moves = [(down, right) for down in range(rows) for right in range(columns)]
    found = []
    for number in rng.permutation(len(moves)):
        moved = np.roll(mask, moves[number], axis=(0, 1))
        if not (moved & mask).any():
            found.append(moved)
        if len(found) == regions:
            break
    return found


def _ranks(logits: Float[Tensor, "layer position token"], token: int) -> Int[ndarray, "layer position"]:
    """1 where no token is likelier; tokens as likely count as likelier, so that equal logits are the worst rank."""
    return (logits >= logits[..., token : token + 1]).sum(dim=-1).numpy()


def _best(
    ranks: Int[ndarray, "layer position"], region: Bool[ndarray, "row column"]
) -> Float[ndarray, " layer"]:
    return np.asarray(ranks[:, region.reshape(-1)].min(axis=1), dtype=np.float64)


def best_layer(found: Sequence[PartRanks]) -> int:
    """The layer at which the median ratio is largest, the first of several.

    Raises:
        ValueError: nothing was ranked.
    """
    return int(np.argmax(np.median(_log_ratios(found), axis=0)))


def lens_score(
    found: Sequence[PartRanks], layer: int, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Median ratio of the best rank elsewhere to the best rank over the mask at a layer; scenes are drawn anew.

    Raises:
        ValueError: nothing was ranked.
    """
    ratios = np.exp(_log_ratios(found)[:, layer])
    scenes = np.array([one.scene for one in found])
    members = [np.flatnonzero(scenes == scene) for scene in np.unique(scenes)]
    rng = np.random.default_rng(seed)
    drawn = [
        np.median(
            ratios[
                np.concatenate([members[place] for place in rng.integers(len(members), size=len(members))])
            ]
        )
        for _ in range(resamples)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "ratio": {
            "value": float(np.median(ratios)),
            "low": float(low),
            "high": float(high),
            "n": len(found),
            "clusters": len(members),
            "level": 0.95,
            "method": "percentile bootstrap of the median, scenes drawn anew",
            "seed": seed,
        },
        "layer": layer,
        "median_rank_mask": float(np.median([one.mask[layer] for one in found])),
        "median_rank_random": float(np.median([one.random[layer] for one in found])),
        "by_layer": np.exp(np.median(_log_ratios(found), axis=0)).tolist(),
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
    return np.array([np.log(one.random) - np.log(one.mask) for one in found])
