"""Pictures read and decoded in processes of their own, in order, with what is known of each from its bytes alone."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eyechart.core.images import BadImage, open_bytes
from eyechart.core.processes import end_with_parent
from eyechart.core.records import Quarantined
from eyechart.find.listing import Picture
from eyechart.find.sources import read_picture

HASH_BITS = 64
"""Bits of a perceptual hash."""

_AHEAD = 4  # pictures that a process decodes ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One picture of a source, or why there is none."""

    picture: Picture
    sha256: str | None = None
    """Of its bytes; None where it cannot be used."""

    pixels: UInt8[Tensor, "height width 3"] | None = None
    """RGB and upright; None where the picture's bytes were known already."""

    bits: Float32[ndarray, " bit"] | None = None
    """Its perceptual hash, as -1 and 1."""

    bad: Quarantined | None = None

    @property
    def image(self) -> Image.Image:
        """The pixels as a picture."""
        assert self.pixels is not None
        return Image.fromarray(self.pixels.numpy())


def decoded(pictures: Sequence[Picture], *, known: Collection[str], workers: int) -> Iterator[Decoded]:
    """The pictures, in their order.

    Args:
        known: hashes of bytes that need not be decoded, since everything about them is there.
        workers: processes that read and decode; 0 does it in this one.
    """
    loader: DataLoader[Decoded] = DataLoader(
        _Pictures(pictures, known),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        worker_init_fn=_settle_in,
    )
    yield from loader


class _Pictures(Dataset[Decoded]):
    def __init__(self, pictures: Sequence[Picture], known: Collection[str]) -> None:
        self._pictures, self._known = pictures, known

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, place: int) -> Decoded:
        return decode(self._pictures[place], self._known)


def _as_it_is(one: Any) -> Any:
    return one


def _settle_in(_worker: int) -> None:
    """In a worker, at its start. By itself torch looks every five seconds whether the parent is still there."""
    end_with_parent()


def decode(picture: Picture, known: Collection[str] = ()) -> Decoded:
    """Read one picture and decode it, unless its bytes are known."""
    try:
        data = read_picture(picture)
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in known:
            return Decoded(picture=picture, sha256=sha256)
        image = open_bytes(data, picture.id).image
    except BadImage as error:
        return Decoded(picture=picture, bad=error.row())
    pixels = torch.from_numpy(np.array(image))
    return Decoded(picture=picture, sha256=sha256, pixels=pixels, bits=difference_hash(image))


def difference_hash(image: Image.Image) -> Float32[ndarray, " bit"]:
    """A perceptual hash: whether each cell of an 8 x 9 thumbnail in grey is brighter than its right neighbour, as 1 and -1.

    Krawetz, "Kind of Like That" (2013): copies of a picture that were scaled or compressed differ in few bits, pictures
    that show different things in about half of them.
    """
    small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS), np.int16)
    brighter = small[:, :-1] > small[:, 1:]
    return np.where(brighter, 1.0, -1.0).astype(np.float32).ravel()
