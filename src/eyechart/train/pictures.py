"""Batches of pictures from an array of bytes, each a function of the step alone."""

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy import ndarray
from torch import Tensor

from eyechart.train.loop import Shuffled

Pictures = UInt8[ndarray, "_ side side 3"]


class PictureBatches:
    """Batches in which every picture comes once an epoch."""

    def __init__(self, pictures: Pictures, batch_size: int, *, seed: int = 0) -> None:
        self._pictures = pictures
        self._order = Shuffled(items=len(pictures), batch_size=batch_size, seed=seed)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """`pictures`, of shape (image, side, side, 3)."""
        return {"pictures": _take(self._pictures, self._order.at(step)[1])}


class FamilyBatches:
    """Batches of whole families: `first` and `second`, two pictures of each scene, families one after another.

    Which of a scene's pictures is first changes from step to step.
    """

    def __init__(
        self,
        first: Pictures,
        second: Pictures,
        families: Int[ndarray, " scene"],
        families_per_batch: int,
        *,
        seed: int = 0,
    ) -> None:
        """Take two arrays of the same scenes, or one array twice.

        Args:
            families: the family of each scene; all families must be of one size.

        Raises:
            ValueError: the arrays differ in length, or the families in size.
        """
        if not len(first) == len(second) == len(families):
            raise ValueError(f"{len(first)} and {len(second)} pictures for {len(families)} scenes")
        self._pictures, self._seed = (first, second), seed
        self._members = _by_family(families)
        self._order = Shuffled(items=len(self._members), batch_size=families_per_batch, seed=seed)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """`first` and `second`, of shape (image, side, side, 3)."""
        chosen = self._members[self._order.at(step)[1]].reshape(-1)
        turn = int(np.random.default_rng((self._seed, step)).integers(2))
        return {
            "first": _take(self._pictures[turn], chosen),
            "second": _take(self._pictures[1 - turn], chosen),
        }


def _by_family(families: Int[ndarray, " scene"]) -> Int[ndarray, "family member"]:
    _, sizes = np.unique(families, return_counts=True)
    if sizes.min() != sizes.max():
        raise ValueError(f"families of {sizes.min()} and of {sizes.max()} scenes: all must be of one size")
    return np.argsort(families, kind="stable").reshape(len(sizes), -1)


def _take(pictures: Pictures, places: Int[ndarray, " image"]) -> UInt8[Tensor, "image side side 3"]:
    order = np.argsort(places)
    taken = np.empty((len(places), *pictures.shape[1:]), dtype=np.uint8)
    taken[order] = pictures[places[order]]
    return torch.from_numpy(taken)
