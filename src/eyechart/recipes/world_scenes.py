"""Solo scenes of one kind, rendered with the mask of one part: what the certificate of shared parts is measured on.

Scene i of two kinds has one nonce: the same camera, light, floor and clutter, so that a difference between the two
samples is one of the kinds. Facts are drawn freely. Rendered scenes are kept beside the fingerprint of the world.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from eyechart.world.draw import draw_facts
from eyechart.world.facts import Facts
from eyechart.world.kinds import part_id
from eyechart.world.layout import Split, nonces
from eyechart.world.sets import Progress, render_scene
from eyechart.world.sets_pool import in_order
from eyechart.world.sets_version import fingerprint

SIZE = 96
"""Side of the zoo's pictures, in pixels."""

_SHARD = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPictures:
    """Pictures of one kind alone, facing left or right, and where one of its parts is seen."""

    kind: str
    part: str
    images: UInt8[ndarray, "scene size size 3"]
    masks: Bool[ndarray, "scene size size"]


Job = tuple[tuple[tuple[Facts, int], ...], int]


def solo_scenes(kind: str, part: str, split: str, count: int, *, seed: int = 0) -> list[tuple[Facts, int]]:
    """Facts and nonces of so many scenes of a kind alone, facing left or right, the part not missing."""
    rng = random.Random(f"alone {kind} {part} {split} {seed}")
    stream = islice(nonces(cast(Split, split), seed), count)
    return [(_facts(kind, part, rng), nonce) for nonce in stream]


def _facts(kind: str, part: str, rng: random.Random) -> Facts:
    while True:
        facts = draw_facts(rng, family="solo")
        if facts.kind == kind and facts.missing != part and facts.facing in ("left", "right"):
            return facts


def part_pictures(
    folder: Path,
    kind: str,
    part: str,
    split: str,
    count: int,
    *,
    seed: int = 0,
    workers: int = 2,
    progress: Progress = lambda stage, done, total: None,
) -> PartPictures:
    """Render the scenes, or read them back from the folder if this world has rendered them there before."""
    kept = folder / f"{kind}-{part}-{split}-{count}-{seed}-{fingerprint()}.npz"
    if not kept.is_file():
        images, masks = _rendered(
            kind, part, solo_scenes(kind, part, split, count, seed=seed), workers, progress
        )
        folder.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f"{kept.stem}.partial.npz")
        np.savez(partial, images=images, masks=np.packbits(masks, axis=2))
        partial.replace(kept)
    with np.load(kept, allow_pickle=False) as arrays:
        masks = np.unpackbits(arrays["masks"], axis=2, count=SIZE).astype(np.bool_)
        return PartPictures(kind=kind, part=part, images=arrays["images"], masks=masks)


def _rendered(
    kind: str, part: str, scenes: Sequence[tuple[Facts, int]], workers: int, progress: Progress
) -> tuple[ndarray, ndarray]:
    number = part_id(kind, part)
    jobs = [(tuple(scenes[start : start + _SHARD]), number) for start in range(0, len(scenes), _SHARD)]
    images, masks, done = [], [], 0
    for pictures, seen in in_order(_work, jobs, workers=workers):
        images.append(pictures)
        masks.append(seen)
        done += len(pictures)
        progress(f"rendering {kind}", done, len(scenes))
    return np.concatenate(images), np.concatenate(masks)


def _work(job: Job) -> tuple[ndarray, ndarray]:
    scenes, number = job
    made = [render_scene(facts, nonce, SIZE) for facts, nonce in scenes]
    return np.stack([one.image for one in made]), np.stack([one.parts == number for one in made])
