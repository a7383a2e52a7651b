"""COCO-style annotations: one JSON file with pictures, categories, and polygons or run lengths.

What object a category is a part of, and what the part is called, `categories` says:

- `name`: the category's name holds both, as `cat:tail` or `cat/tail` (PACO: `mug:handle`); categories without `:` and
  `/` are whole objects and are left out, counted in a note;
- `supercategory`: the object is the supercategory, the part the name;
- `whole`: the object is its own only part, under its own name;
- `auto`: `name` where any category has `:` or `/`, else `supercategory`; a note says which.

PACO (Ramanathan et al., 2023) names the object that a part belongs to in `obj_ann_id`, and parts of one object are put
together by it. Without it nothing says which parts belong to one object, and each annotation is an object of its own.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from jaxtyping import Bool
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.core.records import Quarantined
from eyechart.locate.part_files import Pictures, pictures_of
from eyechart.locate.part_records import BadMarks, Draft, Part, Reading
from eyechart.locate.part_shapes import polygons_mask, runs_mask

Categories: TypeAlias = Literal["auto", "name", "supercategory", "whole"]
"""Where a category's object and part are read from."""

KEYS = ("images", "annotations", "categories")

_SPLIT = re.compile(r"[:/]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What each category is called, by its number."""

    parts: Mapping[int | str | None, tuple[str, str]]
    """(object, part)."""

    whole: frozenset[int | str | None]
    """Categories of whole objects."""

    notes: tuple[str, ...]


def annotation_files(root: Path) -> list[Path]:
    """The file itself, or JSON files in a folder or in `annotations` there that speak of segmentations."""
    if root.is_file():
        return [root] if root.suffix.lower() == ".json" else []
    folders = [one for one in (root, root / "annotations") if one.is_dir()]
    return [path for one in folders for path in sorted(one.glob("*.json")) if _is_coco(path)]


def draft_polygons(
    root: Path, *, images: Path | None, categories: Categories
) -> tuple[list[Draft], list[Quarantined], tuple[str, ...]]:
    """Drafts for every picture of an annotation file, rows for what belongs to no picture, and notes.

    Raises:
        UserError: there is no annotation file or several, it is not of COCO's shape, no category names a part, or no
            folder of pictures is found.
    """
    files = annotation_files(root)
    if len(files) != 1:
        listed = ", ".join(path.name for path in files) or "none"
        raise UserError(f"{root}: COCO-style files with segmentations here: {listed}; name the one to read")
    read = _read(files[0])
    names = category_names(read["categories"], categories)
    if not names.parts:
        raise UserError(
            f"{files[0]}: no category names a part with categories={categories!r}: "
            f"{', '.join(str(one.get('name')) for one in read['categories'][:5])}"
        )
    pictures = pictures_of(files[0].parent, images)
    marks, lost = _by_picture(read, files[0])
    drafts = [_draft(row, marks[row["id"]], pictures, names, files[0]) for row in read["images"]]
    left = sum(_id(one, "category_id") in names.whole for one in read["annotations"])
    note = (f"{left} annotations of whole objects are no parts and are not in the set",) if left else ()
    return drafts, lost, (*names.notes, *note)


def category_names(rows: Sequence[Mapping[str, Any]], categories: Categories) -> Names:
    """What each category of a file is called."""
    split = {row["id"]: tuple(_SPLIT.split(str(row["name"]), maxsplit=1)) for row in rows}
    way: str = categories
    notes: tuple[str, ...] = ()
    if categories == "auto":
        way = "name" if any(len(one) == 2 for one in split.values()) else "supercategory"
        notes = (f"objects and parts are read from each category's {way}",)
    if way == "name":
        parts = {number: (one[0].strip(), one[1].strip()) for number, one in split.items() if len(one) == 2}
    elif way == "whole":
        parts = {row["id"]: (str(row["name"]), str(row["name"])) for row in rows}
    else:
        parts = {
            row["id"]: (str(row["supercategory"]), str(row["name"]))
            for row in rows
            if row.get("supercategory")
        }
    whole = frozenset(number for number, one in split.items() if number not in parts and way == "name")
    return Names(parts=parts, whole=whole, notes=notes)


def _is_coco(path: Path) -> bool:
    """Whether a file has the words of COCO's shape; it is parsed when it is read."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return all(f'"{key}"'.encode() in data for key in (*KEYS, "segmentation"))


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The three lists of a file, checked as far as every later step needs."""
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no JSON ({error})") from None
    if not isinstance(read, dict) or not all(isinstance(read.get(key), list) for key in KEYS):
        raise UserError(f"{path} is not of COCO's shape: expected the lists {', '.join(KEYS)}")
    needed = {"images": ("id", "file_name"), "categories": ("id", "name"), "annotations": ()}
    for key, wanted in needed.items():
        for place, row in enumerate(read[key]):
            if not isinstance(row, dict) or not all(isinstance(row.get(one), int | str) for one in wanted):
                listed = " and ".join(wanted) or "what is known of it"
                raise UserError(f"{path}: {key}[{place}] is {str(row)[:80]}; expected a record with {listed}")
    return {key: read[key] for key in KEYS}


def _by_picture(
    read: Mapping[str, list[dict[str, Any]]], path: Path
) -> tuple[dict[Any, list[dict[str, Any]]], list[Quarantined]]:
    """The annotations of each picture's number, and rows for those of no picture."""
    known = {row["id"] for row in read["images"]}
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    lost = []
    for place, row in enumerate(read["annotations"]):
        number = _id(row, "image_id")
        if number in known:
            found[number].append(row)
        else:
            detail = (
                f"annotations[{place}] is of picture {row.get('image_id')!r}, which the file does not list"
            )
            lost.append(Quarantined(path=str(path), reason="bad_annotation", detail=detail))
    return found, lost


def _draft(
    row: Mapping[str, Any], marks: list[dict[str, Any]], pictures: Pictures, names: Names, path: Path
) -> Draft:
    image = pictures.folder / row["file_name"]
    if not image.is_file():
        there = pictures.of(Path(row["file_name"]).stem)
        image = there[0] if len(there) == 1 else image
    return Draft(id=str(row["id"]), image=image, marks=path, read=partial(_reading, row, marks, names, path))


def _reading(row: Mapping[str, Any], marks: Sequence[Mapping[str, Any]], names: Names, path: Path) -> Reading:
    """The parts of one picture.

    Raises:
        BadMarks: the file does not say how large the picture is.
    """
    size = row.get("height"), row.get("width")
    if not all(type(side) is int and side > 0 for side in size):
        raise BadMarks("bad_annotation", f"height and width are {size}; expected whole numbers above 0")
    instances = _instances(marks)
    parts, bad = [], []
    for one, instance in zip(marks, instances, strict=True):
        if _id(one, "category_id") in names.whole:
            continue
        try:
            name, part = _named(one, names)
            mask = _mask(one, int(row["height"]), int(row["width"]))
            parts.append(Part(object=name, part=part, instance=instance, mask=mask))
        except BadMarks as error:
            detail = f"picture {row['id']}, annotation {one.get('id')}: {error.detail}"
            bad.append(Quarantined(path=str(path), reason=error.reason, detail=detail))
    return Reading(parts=tuple(parts), quarantined=tuple(bad))


def _instances(marks: Sequence[Mapping[str, Any]]) -> list[int]:
    """A number from 1 for each annotation; the same one for those of one object, where the file says so."""
    numbers: dict[Any, int] = {}
    keys = [_id(one, "obj_ann_id") or ("alone", place) for place, one in enumerate(marks)]
    return [numbers.setdefault(key, len(numbers) + 1) for key in keys]


def _id(row: Mapping[str, Any], key: str) -> int | str | None:
    """What a record refers to; None where it says nothing that could be an id."""
    found = row.get(key)
    return found if isinstance(found, int | str) else None


def _named(one: Mapping[str, Any], names: Names) -> tuple[str, str]:
    found = names.parts.get(_id(one, "category_id"))
    if found is None or not all(found):
        raise BadMarks("unknown_code", f"category {one.get('category_id')!r} has no object and part")
    return found


def _mask(one: Mapping[str, Any], height: int, width: int) -> Bool[ndarray, "height width"]:
    if one.get("iscrowd"):
        raise BadMarks("crowd", "it is marked as a crowd")
    marked = one.get("segmentation")
    if isinstance(marked, Mapping):
        return runs_mask(marked, height, width)
    if not marked:
        raise BadMarks("empty_mask", "it has no segmentation")
    return polygons_mask(marked, height, width)
