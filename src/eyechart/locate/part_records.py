"""Pictures with part masks as records, and the words for what cannot be used.

Masks are in the pixels of the picture as `core.images.open_image` gives it. Layouts have them in the pixels that the
file stores; where EXIF turns the picture, the masks are turned with it.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from eyechart.core.images import REASONS as IMAGE_REASONS
from eyechart.core.records import Quarantined

REASONS: Mapping[str, str] = MappingProxyType(
    {
        **IMAGE_REASONS,
        "size_mismatch": "picture and mask are not of one size",
        "empty_mask": "the mask covers no pixel",
        "duplicate_id": "two pictures have this id, so masks cannot be told apart",
        "unknown_code": "the tables have no such part",
        "bad_annotation": "the annotation cannot be read as what it should be",
        "crowd": "one mask for a crowd of objects, not for one",
    }
)
"""Why a picture or a part is left out: the words of `Quarantined.reason`, and their sentences."""

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One named part of one object in a picture."""

    object: str
    """What the object is called: "cat"."""

    part: str
    """What the part is called: "tail"."""

    instance: int
    """Which object of the picture; parts with the same number and the same `object` belong together."""

    mask: Bool[ndarray, "height width"]
    """True where the part is, in pixels of the picture as it is opened."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartImage:
    """One picture and its parts; of each object no two parts have one name."""

    id: str
    image: Path
    sha256: str
    """Of the file's bytes."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartSet:
    """A checked set of pictures with part masks, and what had to be left out of it."""

    name: str
    source: str
    sha256: str
    """Of ids, picture bytes, names and masks, whatever files they came in: two equal hashes are the same set."""

    images: Sequence[PartImage]
    """Read lazily, in the order of ids."""

    quarantined: tuple[Quarantined, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a layout reads for one picture: parts in stored pixels, and what it had to leave out."""

    parts: tuple[Part, ...]
    quarantined: tuple[Quarantined, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One picture of a layout before anything is opened."""

    id: str
    image: Path
    marks: Path
    """The file that holds the masks."""

    read: Callable[[], Reading]
    """Reads the masks; raises `BadMarks` where there is nothing to read, `BadImage` where masks are a picture."""


class BadMarks(Exception):
    """An annotation that cannot be used: a `reason` out of `REASONS`, and a `detail`."""

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"{reason!r} is no reason; there are: {', '.join(REASONS)}")
        super().__init__(f"{REASONS[reason]}: {detail}")
        self.reason, self.detail = reason, detail


def left_out(draft: Draft, reason: str, detail: str) -> Quarantined:
    """The row for a part, or for all masks of a picture, that is left out."""
    return Quarantined(path=str(draft.marks), reason=reason, detail=f"picture {draft.id}: {detail}")


def merged(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Parts of one name on one object become one part, the union of their masks, where the first of them stood."""
    found: dict[tuple[str, int, str], Part] = {}
    for part in parts:
        key = (part.object, part.instance, part.part)
        before = found.get(key)
        found[key] = part if before is None else replace(part, mask=before.mask | part.mask)
    return tuple(found.values())


def marks_hash(parts: Iterable[Part]) -> str:
    """A hash of names and masks."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps([part.object, part.part, part.instance, part.mask.shape]).encode())
        digest.update(np.packbits(part.mask).tobytes())
    return digest.hexdigest()
