"""Pascal-Part: a MATLAB file for each photo, with every object's silhouette and the masks of its parts.

Source: Chen et al., 2014, "Detect What You Can: Detecting and Representing Objects using Holistic Models and Body
Parts" (CVPR), `Annotations_Part/*.mat`. Objects are listed so that later ones cover earlier ones (`mat2map.m`), so
what a later silhouette covers is taken from an earlier object's parts. Within one object masks are left as they are:
a head's mask goes on under the eyes, which differs from PASCAL Panoptic Parts.
"""

import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from eyechart.core.errors import UserError
from eyechart.core.records import Quarantined
from eyechart.locate.part_files import files_below, pictures_of
from eyechart.locate.part_names import Words, object_word, part_word
from eyechart.locate.part_records import BadMarks, Draft, Part, Reading

FOLDER = "Annotations_Part"
"""Where the files are looked for below a folder, before the folder itself."""

_BROKEN = (
    OSError,  # cut short
    ValueError,  # no MATLAB file, impossible fields
    TypeError,  # fields of another kind
    LookupError,  # no such field or type
    NotImplementedError,  # version 7.3, which is HDF5
    AttributeError,
    OverflowError,
    MemoryError,  # a size field gone wrong
    struct.error,
    zlib.error,
    MatReadError,
)


def annotation_files(root: Path) -> list[Path]:
    """The annotations below `FOLDER`, or else in the folder itself."""
    if (root / FOLDER).is_dir():
        return files_below(root / FOLDER, frozenset({".mat"}))
    return sorted(root.glob("*.mat"))


def draft_pascal(root: Path, *, images: Path | None, words: Words) -> list[Draft]:
    """A draft for each annotation; its photo has the same stem.

    Raises:
        UserError: there are no annotations, or no folder of photos.
    """
    marks = annotation_files(root)
    if not marks:
        raise UserError(f"{root}: no .mat file here nor in {FOLDER}")
    pictures = pictures_of(root, images)
    return [
        Draft(id=path.stem, image=image, marks=path, read=partial(read_pascal, path, words))
        for path in marks
        for image in pictures.of(path.stem)
    ]


def read_pascal(path: Path, words: Words) -> Reading:
    """The parts in one annotation.

    Raises:
        BadMarks: it cannot be read, or is no annotation of Pascal-Part.
    """
    try:
        objects = np.ravel(loadmat(path)["anno"][0, 0]["objects"])
        silhouettes = [_mask(one["mask"]) for one in objects]
        parts: list[Part] = []
        bad: list[Quarantined] = []
        for place, one in enumerate(objects):
            later = silhouettes[place + 1 :]
            for named in _parts(one, place + 1, words):
                if isinstance(named, str):
                    bad.append(Quarantined(path=str(path), reason="unknown_code", detail=named))
                else:
                    parts.append(_uncovered(named, later))
    except _BROKEN as error:
        raise BadMarks(
            "bad_annotation", f"no Pascal-Part annotation ({type(error).__name__}: {error})"
        ) from None
    return Reading(parts=tuple(parts), quarantined=tuple(bad))


def _parts(one: Any, instance: int, words: Words) -> list[Part | str]:
    """The parts of one object, or for each that has no name what it is called."""
    name = _text(one["class"])
    found: list[Part | str] = []
    for marked in np.ravel(one["parts"]):
        code = _text(marked["part_name"])
        part = part_word(name, code, words)
        if part is None:
            found.append(
                f"object {instance} is a {name!r} and has a part {code!r}, which the tables do not have"
            )
            continue
        mask = _mask(marked["mask"])
        found.append(Part(object=object_word(name, words), part=part, instance=instance, mask=mask))
    return found


def _uncovered(part: Part, later: list[Bool[ndarray, "row column"]]) -> Part:
    """A part without what later objects cover; other sizes are left for the check of sizes."""
    mask = part.mask
    for silhouette in later:
        if silhouette.shape == mask.shape:
            mask = mask & ~silhouette
    return Part(object=part.object, part=part.part, instance=part.instance, mask=mask)


def _text(cell: Any) -> str:
    return str(np.ravel(cell)[0])


def _mask(cell: Any) -> Bool[ndarray, "row column"]:
    mask = np.asarray(cell)
    if mask.ndim != 2 or mask.dtype == object:
        raise ValueError(f"a mask of shape {mask.shape}")
    return mask.astype(bool)
