"""The scenes that cards are measured on: pairs of siblings with their pictures in memory, and pairs crossed.

Crossed pictures show each scene's facts laid out as the pair's other scene is. A scene then has one sibling with the
same facts and one with a fact changed, and these two differ in nothing else.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.core.images import open_image
from eyechart.world.facts import Facts
from eyechart.world.labels import PairedFacts
from eyechart.world.sets import Progress, render_scene
from eyechart.world.sets_plan import facts_of
from eyechart.world.sets_pool import in_order
from eyechart.world.sets_version import fingerprint

_SHARD = 20

_Job = tuple[tuple[tuple[Facts, int], ...], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScenes:
    """A benchmark of the world in memory; the scenes of pair i are those at 2 i and 2 i + 1."""

    folder: Path
    images: UInt8[ndarray, "scene size size 3"]
    scenes: tuple[PairedFacts, ...]
    nonces: tuple[int, ...]
    sha256: str
    """Of facts, nonces and pictures."""

    def pictures(self) -> list[Image.Image]:
        """The pictures as encoders take them."""
        return as_pictures(self.images)

    def facts(self) -> tuple[Facts, ...]:
        """The facts of every scene."""
        return tuple(scene.facts for scene in self.scenes)

    def pairs(self) -> tuple[str, ...]:
        """The pair of every scene."""
        return tuple(scene.pair for scene in self.scenes)


def as_pictures(images: UInt8[ndarray, "image size size 3"]) -> list[Image.Image]:
    """Arrays as PIL pictures."""
    return [Image.fromarray(image) for image in images]


def load_pairs(folder: Path) -> PairScenes:
    """Read a benchmark that `world.sets_pairs.render_pairs` wrote.

    Raises:
        UserError: there is none in the folder, or its scenes do not come in pairs.
    """
    path = folder / "facts.jsonl"
    if not path.is_file() or not (folder / "questions.csv").is_file():
        raise UserError(f"{folder} holds no finished benchmark of the world; render one there first")
    rows = [json.loads(line) for line in path.read_text("utf8").splitlines()]
    images = np.stack([np.asarray(open_image(folder / row["image"]).image) for row in rows])
    digest = hashlib.sha256(path.read_bytes())
    digest.update(images.tobytes())
    return PairScenes(
        folder=folder,
        images=images,
        scenes=tuple(_paired(rows, place, folder) for place in range(len(rows))),
        nonces=tuple(row["nonce"] for row in rows),
        sha256=digest.hexdigest(),
    )


def _paired(rows: Sequence[dict[str, Any]], place: int, folder: Path) -> PairedFacts:
    row, partner = rows[place], place ^ 1
    if partner >= len(rows) or rows[partner]["pair_id"] != row["pair_id"]:
        raise UserError(f"{folder}: scene {row['id']} has no other scene of its pair beside it")
    return PairedFacts(
        pair=row["pair_id"],
        pattern=row["pattern"],
        facts=facts_of(row["facts"]),
        rival=facts_of(rows[partner]["facts"]),
    )


def crossed(
    known: PairScenes,
    kept: Path,
    *,
    workers: int = 2,
    progress: Progress = lambda stage, done, total: None,
) -> UInt8[ndarray, "scene size size 3"]:
    """Each scene's facts, laid out with the nonce of its pair's other scene; kept in a folder once rendered."""
    path = kept / f"crossed-{known.sha256[:16]}-{fingerprint()}.npz"
    if not path.is_file():
        size = known.images.shape[1]
        scenes = [(scene.facts, known.nonces[place ^ 1]) for place, scene in enumerate(known.scenes)]
        jobs: list[_Job] = [
            (tuple(scenes[start : start + _SHARD]), size) for start in range(0, len(scenes), _SHARD)
        ]
        made: list[ndarray] = []
        for pictures in in_order(_work, jobs, workers=workers):
            made.append(pictures)
            progress("rendering crossed pairs", min(len(made) * _SHARD, len(scenes)), len(scenes))
        kept.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.stem}.partial.npz")
        np.savez(partial, images=np.concatenate(made))
        partial.replace(path)
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays["images"])


def _work(job: _Job) -> UInt8[ndarray, "scene size size 3"]:
    scenes, size = job
    return np.stack([render_scene(facts, nonce, size).image for facts, nonce in scenes])
