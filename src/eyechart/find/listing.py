"""What a collection of pictures is made of: where the bytes of each lie, its label, and what could not be listed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eyechart.core.records import Quarantined

Kind = Literal["file", "tar", "parquet", "dataset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Where the bytes of one picture lie."""

    id: str
    """Unique in its source: a path below it, or the place in a shard."""

    kind: Kind
    file: str
    place: tuple[int, int] = (0, 0)
    """In a tar, where the bytes start and how many they are; in a table, the row group and the row in it."""

    column: str = ""
    label: str | None = None
    pair: str | None = None
    """In a source that knows which pictures were made as a pair, which pair this is one of ..."""

    pattern: str | None = None
    """... and in what its two differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All pictures of a source, in an order of their own."""

    source: str
    pictures: tuple[Picture, ...]
    sha256: str
    """Of what is listed, with sizes; it changes when pictures are added, taken away or change their size."""

    passed_over: int = 0
    """Files that are no pictures by their name."""

    quarantined: tuple[Quarantined, ...] = ()


def listing_of(
    source: str,
    pictures: Sequence[Picture],
    sizes: Sequence[int],
    passed_over: int = 0,
    quarantined: Sequence[Quarantined] = (),
) -> Listing:
    """A listing, its hash over ids and sizes."""
    digest = hashlib.sha256()
    for picture, size in zip(pictures, sizes, strict=True):
        digest.update(f"{picture.id}\n{size}\n".encode())
    return Listing(
        source=source,
        pictures=tuple(pictures),
        sha256=digest.hexdigest(),
        passed_over=passed_over,
        quarantined=tuple(quarantined),
    )
