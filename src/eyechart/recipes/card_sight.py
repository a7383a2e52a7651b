"""What an encoder's features show: readability by pattern with its controls, and the sibling-difference score.

Readability is of the patches that a VLM is fed, at hidden layer -2, and of pooled vectors; beside them stand
chance, labels dealt out anew, and the same probe on raw pixels and on histograms of gradients.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from eyechart.core.stats import Estimate, Rate, cluster_bootstrap, cluster_rate, wilson
from eyechart.models.encoders.encoder import Encoder
from eyechart.recipes.card_scenes import PairScenes, as_pictures
from eyechart.recipes.card_tasks import Readable
from eyechart.train.readability import Readability, read_attentively, read_linearly
from eyechart.train.untrained import gradient_histograms, raw_pixels

FED = -2
"""The layer that the zoo's VLMs read: what enters the last block."""

PATCHES = "patches"
"""The features of that layer, patch by patch; all other features are one vector a picture."""

Features = Mapping[str, ndarray]
"""Features by name: scene x patch x dim, or scene x dim."""

MoreRows = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is spent on reading."""

    scenes: int = 800
    """Of a pattern at most; pairs of the pattern first."""

    folds: int = 5
    attentive: bool = True
    attentive_seeds: int = 1


def encoder_features(encoder: Encoder, images: UInt8[ndarray, "scene size size 3"]) -> dict[str, ndarray]:
    """The fed layer's patches, and every pooled vector there is."""
    pictures = as_pictures(images)
    found: dict[str, ndarray] = {PATCHES: encoder.patches(pictures, layer=FED).features.numpy()}
    for pooling in encoder.poolings:
        found[pooling] = encoder.embed(pictures, pooling=pooling).numpy()
    return found


def untrained_features(images: UInt8[ndarray, "scene size size 3"]) -> dict[str, ndarray]:
    """What nobody trained; averaged pixels and gradients are both laid out in space, and are read flat."""
    side = images.shape[1]
    block = 4 if side % 4 == 0 else 1
    return {
        "raw pixels": raw_pixels(images, side=side // block),
        "gradient histograms": gradient_histograms(images),
    }


def read_all(
    features: Features,
    tasks: Sequence[Readable],
    effort: Effort,
    *,
    report: Callable[[str, int, int], None] | None = None,
) -> dict[str, MoreRows]:
    """Every pattern read from every kind of features.

    Returns:
        By pattern, by `FEATURES probe`: accuracy and shuffled control with intervals, chance, and `right`, the share of
        seeds in which each scene was read rightly.
    """
    found: dict[str, MoreRows] = {}
    for number, each in enumerate(tasks, start=1):
        places = np.array(each.places)
        rows: MoreRows = {}
        for name, values in features.items():
            chosen = np.asarray(values[places], dtype=np.float32)
            rows[f"{name} linear"] = plain(
                read_linearly(chosen.reshape(len(chosen), -1), each.task, folds=effort.folds)
            )
            if name == PATCHES and effort.attentive:
                seeds = range(effort.attentive_seeds)
                rows[f"{name} attentive"] = plain(
                    read_attentively(chosen, each.task, folds=effort.folds, seeds=tuple(seeds))
                )
        found[each.pattern] = rows
        if report is not None:
            report("patterns read", number, len(tasks))
    return found


def plain(read: Readability) -> dict[str, Any]:
    """A result as JSON can hold it."""
    return {
        "accuracy": read.accuracy.to_dict(),
        "shuffled": read.shuffled.to_dict(),
        "chance": read.chance,
        "probe": read.probe,
        "right": [round(float(value), 4) for value in read.right],
    }


def difference(
    reference: Mapping[str, Any], other: Mapping[str, Any], groups: Sequence[Any], *, seed: int = 0
) -> dict[str, Any]:
    """How much more often the reference's features are read rightly, on the same scenes, drawn anew by pairs.

    Where the difference is the same in every pair, as when both are read without a mistake, no drawing differs. The
    interval is then a bound: the share of pairs unlike those seen is at most Wilson's upper limit for none of as many,
    and these could differ fully, either way.

    Raises:
        ValueError: the two were not read on the same number of scenes.
    """
    first, second = np.array(reference["right"]), np.array(other["right"])
    if len(first) != len(second):
        raise ValueError(f"{len(first)} scenes read from the one and {len(second)} from the other")
    between = first - second
    means = [between[[group == each for group in groups]].mean() for each in dict.fromkeys(groups)]
    if max(means) > min(means):
        return cluster_bootstrap(between, list(groups), seed=seed).to_dict()
    value, unseen = float(means[0]), wilson(0, len(means)).high
    return Estimate(
        value=value,
        low=value - unseen * (1 + value),
        high=value + unseen * (1 - value),
        n=len(between),
        clusters=len(means),
        level=0.95,
        method="Wilson bound on unseen pairs",
        seed=seed,
        resamples=0,
    ).to_dict()


def sibling_difference(
    shown: Float[ndarray, "scene dim"],
    crossed: Float[ndarray, "scene dim"],
    known: PairScenes,
) -> dict[str, Rate]:
    """How often a scene is nearer, by cosine, to the sibling with its own facts than to the one with a fact changed.

    Both siblings are laid out alike, so only the fact can tell. Ties are wrong; half is chance.

    Args:
        shown: pooled features of the scenes.
        crossed: of each scene's facts laid out as the other scene of its pair.

    Returns:
        By pattern, and of `all`, with intervals from drawing pairs anew.
    """
    other = np.arange(len(shown)) ^ 1
    own, changed = _cosines(shown, crossed), _cosines(shown, shown[other])
    right, pairs = own > changed, known.pairs()
    patterns = np.array([scene.pattern for scene in known.scenes])
    rates = {
        str(pattern): cluster_rate(
            right[patterns == pattern].astype(float),
            [pair for pair, there in zip(pairs, patterns == pattern, strict=True) if there],
            seed=0,
        )
        for pattern in dict.fromkeys(patterns.tolist())
    }
    return {"all": cluster_rate(right.astype(float), list(pairs), seed=0), **rates}


def _cosines(
    first: Float[ndarray, "scene dim"], second: Float[ndarray, "scene dim"]
) -> Float[ndarray, " scene"]:
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(axis=1) / np.maximum(lengths, 1e-12))
