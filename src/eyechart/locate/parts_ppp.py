"""PASCAL Panoptic Parts: one picture of numbers for each photo, which hold object, instance and part.

Source: Meletis et al., 2020, "Cityscapes-Panoptic-Parts and PASCAL-Panoptic-Parts datasets for Scene Understanding"
(arXiv 2004.07944), label format of version 2.0. A number is the semantic id (one or two digits), then the instance
(three), then the part (two). Shorter numbers have no part (four or five digits) or no instance either (one or two).
Part 0 is void. Repeated parts (wheels, doors, coaches, ...) have an id each and are one part of their object here.

Files are 32-bit TIFFs, as published, or PNGs; a PNG of 24-bit colour holds red + 256 green + 65536 blue.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eyechart.core.errors import UserError
from eyechart.core.records import Quarantined
from eyechart.locate.part_files import files_below, pictures_of
from eyechart.locate.part_labels import label_values
from eyechart.locate.part_names import CLASSES, PART_IDS, Words, object_word, part_word
from eyechart.locate.part_records import Draft, Part, Reading

TIFF = frozenset({".tif", ".tiff"})
_SUFFIXES = TIFF | {".png"}
FOLDERS = ("labels", "annotations")
"""Where the numbers are looked for below a folder, before the folder itself."""

SPLITS = ("training", "validation")


class Uid(NamedTuple):
    """What a number says; None where it says nothing."""

    semantic: int
    instance: int | None
    part: int | None


def decoded(uid: int) -> Uid | None:
    """A number taken apart, or None where it is none of the format: of three digits, of more than seven, negative.

    >>> decoded(2401002), decoded(26002), decoded(23), decoded(123)
    (Uid(semantic=24, instance=10, part=2), Uid(semantic=26, instance=2, part=None), \
Uid(semantic=23, instance=None, part=None), None)
    """
    if 0 <= uid < 100:
        return Uid(uid, None, None)
    if 1_000 <= uid < 100_000:
        return Uid(uid // 1_000, uid % 1_000, None)
    if 100_000 <= uid < 10_000_000:
        return Uid(uid // 100_000, uid // 100 % 1_000, uid % 100)
    return None


def label_files(root: Path) -> list[Path]:
    """The files of numbers: TIFFs and PNGs below one of `FOLDERS`, else TIFFs in the folder itself and in `SPLITS`."""
    for name in FOLDERS:
        if (root / name).is_dir():
            return files_below(root / name, _SUFFIXES)
    here = (one for folder in (root, *(root / split for split in SPLITS)) for one in folder.glob("*"))
    return sorted(one for one in here if one.suffix.lower() in TIFF)


def fits(root: Path) -> bool:
    """Whether there are TIFFs of numbers; PNGs could be index pictures too, so they have to be named."""
    return any(one.suffix.lower() in TIFF for one in label_files(root))


def draft_ppp(root: Path, *, images: Path | None, words: Words) -> list[Draft]:
    """A draft for each file of numbers; its photo has the same stem.

    Raises:
        UserError: there are no such files, or no folder of photos.
    """
    marks = label_files(root)
    if not marks:
        raise UserError(f"{root}: no .tif here, nor .tif or .png in {' or '.join(FOLDERS)}")
    pictures = pictures_of(root, images)
    return [
        Draft(id=path.stem, image=image, marks=path, read=partial(read_ppp, path, words))
        for path in marks
        for image in pictures.of(path.stem)
    ]


def read_ppp(path: Path, words: Words) -> Reading:
    """The parts in one file of numbers.

    Raises:
        BadImage: it cannot be read.
    """
    values, places = np.unique(label_values(path, colour=True), return_inverse=True)
    parts: list[Part] = []
    bad: list[Quarantined] = []
    for place, uid in enumerate(values.tolist()):
        named = _named(uid, words)
        if isinstance(named, str):
            bad.append(Quarantined(path=str(path), reason="unknown_code", detail=named))
        elif named is not None:
            name, part, instance = named
            parts.append(Part(object=name, part=part, instance=instance, mask=places == place))
    return Reading(parts=tuple(parts), quarantined=tuple(bad))


def _named(uid: int, words: Words) -> tuple[str, str, int] | str | None:
    """(object, part, instance) of a number, why it has none, or None where it marks no part."""
    found = decoded(uid)
    if found is None:
        return f"the number {uid} is none of the format"
    if not found.part:
        return None
    name = CLASSES[found.semantic - 1] if 1 <= found.semantic <= len(CLASSES) else None
    codes = PART_IDS.get(name or "", ())
    if name is None or not 1 <= found.part <= len(codes):
        called = name or f"class {found.semantic}"
        return f"the number {uid} is part {found.part} of {called}, which has {len(codes)} part ids"
    part = part_word(name, codes[found.part - 1], words)
    assert part is not None  # the tables hold every code they list
    return object_word(name, words), part, found.instance or 0
