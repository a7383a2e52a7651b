"""Pairs read from features of any kind: a probe is right on both items of a pair that it was not trained on, or not.

Probes, folds and control are those of `train.readability`; patches, and tokens of any kind, are read flat.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from eyechart.train.pair_labels import Covered
from eyechart.train.readability import Readability, read_attentively, read_linearly

MOST = 400
"""Pairs of a pattern that are read at most; a drawn sample of them where there are more."""

FOLDS = 5

ROOM = 1 << 26
"""Numbers of token features held at once; where a pattern has more, neighbouring tokens are averaged."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairsRead:
    """What one probe read of a pattern's pairs, in their order."""

    right: Float[ndarray, " pair"]
    """Share of the seeds in which both items of the pair were read rightly."""

    control: Float[ndarray, " pair"]
    """The same after labels were dealt out anew."""


def read_features(
    features: Mapping[str, ndarray],
    chosen: Covered,
    *,
    linear: bool = True,
    attentive: bool = False,
    repeats: int = 1,
    folds: int = FOLDS,
    seed: int = 0,
) -> dict[str, PairsRead]:
    """Read one pattern from each kind of features of its items, all with the same labels and the same folds.

    Args:
        features: item x dim, or item x token x dim, which the linear probe reads flat.
        chosen: the items and their labels.
        linear: read by the linear probe.
        attentive: read what has tokens by the attentive probe, too.
        repeats: seeds of splits and controls that are averaged.
        folds: of the cross-validation.
        seed: of the first split.

    Returns:
        By `FEATURES linear` and `FEATURES attentive`.

    Raises:
        ValueError: features and labels differ in number, or there are fewer groups than folds.
    """
    found: dict[str, PairsRead] = {}
    for name, values in features.items():
        if linear:
            flat = np.asarray(values, dtype=np.float32).reshape(len(values), -1)
            found[f"{name} linear"] = _shares(
                [read_linearly(flat, chosen.task, folds=folds, seed=seed + i) for i in range(repeats)]
            )
        if attentive and values.ndim == 3:
            seeds = [(seed + i,) for i in range(repeats)]
            found[f"{name} attentive"] = _shares(
                [read_attentively(values, chosen.task, folds=folds, seeds=each) for each in seeds]
            )
    return found


def _shares(reads: Sequence[Readability]) -> PairsRead:
    """Items come two by two: a pair is read where both are right."""
    right, control = (
        np.mean([np.asarray(one).reshape(-1, 2).min(axis=1) for one in many], axis=0)
        for many in ([read.right for read in reads], [read.control for read in reads])
    )
    return PairsRead(right=right, control=control)


def sample(one: Covered, most: int, seed: int) -> Covered:
    """At most so many of a pattern's pairs, drawn by the seed."""
    pairs = len(one.items) // 2
    if pairs <= most:
        return one
    return one.of(sorted(random.Random(f"readable {one.pattern} {seed}").sample(range(pairs), most)))


def coarser(
    patches: Float[Tensor, "image patch dim"], grid: tuple[int, int], *, items: int, room: int = ROOM
) -> Float[Tensor, "image cell dim"]:
    """Patches averaged in square blocks, as small as the room for so many items allows.

    Args:
        patches: row by row.
        grid: rows and columns; one row where the tokens have no other order.
        items: that will be held at once.
        room: numbers that may be held.
    """
    height, width = grid
    block = 1

    def cells() -> int:
        return -(-height // block) * -(-width // block)

    while items * cells() * patches.shape[2] > room and block < max(grid):
        block += 1
    if block == 1:
        return patches
    laid = patches.reshape(len(patches), height, width, -1).permute(0, 3, 1, 2)
    sides = (min(block, height), min(block, width))
    pooled = torch.nn.functional.avg_pool2d(laid, sides, ceil_mode=True, count_include_pad=False)
    return pooled.flatten(2).transpose(1, 2)
