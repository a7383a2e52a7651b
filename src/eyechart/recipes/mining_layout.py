"""Which part of a layout moves a scene's vector: its camera, its light, its ground, or how things stand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from eyechart.core.stats import cluster_bootstrap
from eyechart.find.embed import View
from eyechart.world.facts import Facts
from eyechart.world.layout import lay_out
from eyechart.world.render import render
from eyechart.world.scene import Scene
from eyechart.world.sets import Progress
from eyechart.world.sets_plan import ScenePair

ASPECTS: Mapping[str, tuple[str, ...]] = {
    "camera": ("camera",),
    "light": ("light",),
    "ground": ("floor", "backdrop", "rugs"),
    "standing": ("things", "items", "sign"),
    "all four": ("camera", "light", "floor", "backdrop", "rugs", "things", "items", "sign"),
}
"""What of a scene is taken from another layout of the same facts; *standing* is where things are and how they are turned."""

FACT = "fact"
"""The same layout, the pair's other facts."""


def laid_out_otherwise(facts: Facts, nonces: tuple[int, int], aspect: str) -> Scene:
    """The facts as the first nonce lays them out, one aspect as the second does."""
    first, second = (lay_out(facts, nonce) for nonce in nonces)
    return replace(first, **{name: getattr(second, name) for name in ASPECTS[aspect]})


def what_of_layout_moves(
    pairs: Sequence[ScenePair],
    views: Mapping[str, View],
    *,
    size: int,
    batch_size: int,
    progress: Progress,
) -> dict[str, Any]:
    """The mean cosine of a scene with itself when one thing is changed, under every encoder.

    Args:
        pairs: siblings; the facts of the second scene are laid out as the first is, and then changed.
        views: the encoders by their names.
        size: of the pictures, in pixels.
        batch_size: pictures that are embedded at once.
        progress: told how many pairs are rendered.
    """
    changes = (FACT, *ASPECTS)
    pictures: list[Image.Image] = []
    for done, pair in enumerate(pairs, start=1):
        pictures += [Image.fromarray(render(scene, size).image) for scene in _scenes(pair)]
        progress("rendering one change at a time", done, len(pairs))
    names = [pair.id for pair in pairs]
    found: dict[str, Any] = {}
    for name, view in views.items():
        rows = view.embed(pictures, batch_size).astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = _to_first(rows.reshape(len(pairs), 1 + len(changes), -1))
        found[name] = {
            change: cluster_bootstrap(cosines[:, place], names, seed=0).to_dict()
            for place, change in enumerate(changes)
        }
    return found


def _scenes(pair: ScenePair) -> list[Scene]:
    before, after = pair.facts
    own = lay_out(after, pair.nonces[0])
    others = [laid_out_otherwise(after, pair.nonces, aspect) for aspect in ASPECTS]
    return [own, lay_out(before, pair.nonces[0]), *others]


def _to_first(rows: Float[ndarray, "pair scene dim"]) -> Float[ndarray, "pair change"]:
    found: Float[ndarray, "pair change"] = np.einsum("pd,pcd->pc", rows[:, 0], rows[:, 1:])
    return found
