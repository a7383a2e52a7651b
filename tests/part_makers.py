"""Small data sets in the layouts of part masks, written for tests: known masks, so that reading can be checked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from pictures import picture


def photo(path: Path, width: int = 12, height: int = 9, *, seed: int = 0, orientation: int = 1) -> Path:
    """A photo as JPEG or PNG, with EXIF's orientation where it is not 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    picture(width, height, seed).save(path, exif=exif)
    return path


def box(top: int, left: int, bottom: int, right: int, height: int = 9, width: int = 12) -> Any:
    """A mask that is True in rows top to bottom - 1 and columns left to right - 1."""
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def uid_map(*marked: tuple[int, Any], height: int = 9, width: int = 12) -> Any:
    """Numbers laid on each other in turn."""
    values = np.zeros((height, width), np.int32)
    for uid, mask in marked:
        values[mask] = uid
    return values


def ppp_folder(root: Path, maps: dict[str, Any]) -> Path:
    """PASCAL Panoptic Parts: a TIFF of numbers and a photo for each id."""
    for seed, (name, values) in enumerate(maps.items()):
        path = root / "labels" / "validation" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(np.int32)).save(path)
        photo(root / "JPEGImages" / f"{name}.jpg", values.shape[1], values.shape[0], seed=seed)
    return root


def mat_file(path: Path, objects: list[tuple[str, Any, list[tuple[str, Any]]]]) -> Path:
    """An annotation in the shape of Pascal-Part: (class, silhouette, [(part code, mask)]) for each object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = [("class", object), ("class_ind", object), ("mask", object), ("parts", object)]
    rows = np.zeros((1, len(objects)), kinds)
    for place, (name, silhouette, parts) in enumerate(objects):
        marked = np.zeros((1 if parts else 0, len(parts)), [("part_name", object), ("mask", object)])
        for number, (code, mask) in enumerate(parts):
            marked[0, number] = (code, mask.astype(np.uint8))
        rows[0, place] = (name, float(place + 1), silhouette.astype(np.uint8), marked)
    savemat(path, {"anno": {"imname": path.stem, "objects": rows}}, do_compression=True)
    return path


def coco_file(path: Path, *, images: list[Any], categories: list[Any], annotations: list[Any]) -> Path:
    """An annotation file in COCO's shape."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return path


def index_folder(root: Path, masks: dict[str, Any], labels: Any, *, seed: int = 0) -> Path:
    """Index pictures with a table, and a photo for each."""
    (root / "masks").mkdir(parents=True, exist_ok=True)
    for place, (name, values) in enumerate(masks.items()):
        Image.fromarray(values.astype(np.uint8)).save(root / "masks" / f"{name}.png")
        photo(root / "images" / f"{name}.jpg", values.shape[1], values.shape[0], seed=seed + place)
    (root / "labels.json").write_text(json.dumps(labels))
    return root


def seen(image: Any) -> dict[tuple[str, int, str], Any]:
    """The masks of a picture by object, instance and part."""
    return {(part.object, part.instance, part.part): part.mask for part in image.parts}


def same(found: dict[Any, Any], wanted: dict[Any, Any]) -> None:
    """The same parts with the same masks, or an assertion that says which differ."""
    assert sorted(found) == sorted(wanted)
    for key, mask in wanted.items():
        np.testing.assert_array_equal(found[key], mask, err_msg=str(key))
