"""Index pictures: one PNG for each photo whose pixel values are numbers of labels, and a table of the labels.

The table is `labels.json`, `.yaml`, `.yml` or `.csv` in the folder, or named. JSON and YAML map a number to a label;
a CSV has the columns `number` and `label`, or `number`, `object` and `part`. A label is one of

- `cat:tail` or `cat/tail`, or a pair [cat, tail];
- a plain word, which is a part of `object` where that is given (`object="person"`: a person's shoes), else an object
  that is its own only part;
- nothing, or one of `VOID`: not a part.

0 is no part unless the table says what it is. Any other number that the table does not have is listed with its reason.
All pixels of one number are one part: index pictures do not tell two objects of a kind apart, unless a second picture
of the same name in a folder `instances` numbers them.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from eyechart.core.errors import UserError
from eyechart.core.records import Quarantined
from eyechart.locate.part_files import files_below, pictures_of
from eyechart.locate.part_labels import label_values
from eyechart.locate.part_records import BadMarks, Draft, Part, Reading

FOLDERS = ("masks", "labels", "annotations")
"""Where the index pictures are looked for."""

INSTANCES = "instances"
TABLES = ("labels.json", "labels.yaml", "labels.yml", "labels.csv")

VOID = frozenset({"", "null", "none", "void", "background", "unlabeled", "unlabelled", "ignore"})
"""Labels that stand for no part, in lower case."""

Label = tuple[str, str] | None
"""(object, part), or None for no part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    masks: Path
    table: Path


def found_layout(root: Path, table: Path | None = None) -> _Layout | None:
    """Where masks and table are, None where there are none."""
    masks = next((root / one for one in FOLDERS if (root / one).is_dir()), None)
    listed = table or next((root / one for one in TABLES if (root / one).is_file()), None)
    return _Layout(masks=masks, table=listed) if masks is not None and listed is not None else None


def draft_index(
    root: Path, *, images: Path | None, table: Path | None = None, object_name: str | None = None
) -> list[Draft]:
    """A draft for each index picture; its photo has the same stem.

    Raises:
        UserError: there is no folder of masks or of photos, no table, or the table cannot be read.
    """
    found = found_layout(root, table)
    if found is None:
        raise UserError(
            f"{root}: expected a folder {' or '.join(FOLDERS)} and a table {', '.join(TABLES)}, or labels=TABLE"
        )
    labels = read_labels(found.table, object_name)
    pictures = pictures_of(root, images)
    return [
        Draft(
            id=path.stem,
            image=image,
            marks=path,
            read=partial(read_index, path, labels, _beside(root, found.masks, path)),
        )
        for path in files_below(found.masks, frozenset({".png"}))
        for image in pictures.of(path.stem)
    ]


def read_labels(path: Path, object_name: str | None = None) -> dict[int, Label]:
    """The table of labels.

    Raises:
        UserError: there is no such file, it is no table, or a number stands in it twice.
    """
    readers = {".json": _json, ".yaml": _yaml, ".yml": _yaml, ".csv": _csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: tables of labels end in {', '.join(readers)}")
    labels: dict[int, Label] = {}
    try:
        text = path.read_text("utf8")
        for key, label in reader(text):
            number = int(str(key))
            if number in labels:
                raise UserError(f"{path}: the number {number} stands there twice")
            labels[number] = _label(label, object_name)
    except (OSError, ValueError, TypeError, AttributeError, LookupError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: no table of labels ({' '.join(str(error).split())}); expected a number and a label a row"
        ) from None
    if not labels:
        raise UserError(f"{path}: the table has no labels")
    return labels


def read_index(path: Path, labels: Mapping[int, Label], instances: Path | None = None) -> Reading:
    """The parts in one index picture.

    Raises:
        BadImage: it, or the picture of instances, cannot be read.
        BadMarks: the two are not of one size.
    """
    values = label_values(path)
    numbers = label_values(instances) if instances is not None else np.ones_like(values)
    if numbers.shape != values.shape:
        raise BadMarks(
            "size_mismatch", f"masks are {values.shape}, instances {numbers.shape} (height, width)"
        )
    parts, bad = [], []
    for value in np.unique(values).tolist():
        if value not in labels and value != 0:
            detail = f"the number {value} is not in the table"
            bad.append(Quarantined(path=str(path), reason="unknown_code", detail=detail))
        label = labels.get(value)
        if label is None:
            continue
        here = values == value
        for instance in np.unique(numbers[here]).tolist():
            mask = here & (numbers == instance)
            parts.append(Part(object=label[0], part=label[1], instance=instance, mask=mask))
    return Reading(parts=tuple(parts), quarantined=tuple(bad))


def _beside(root: Path, masks: Path, path: Path) -> Path | None:
    """The picture of instances that goes with an index picture, where there is such a folder."""
    folder = root / INSTANCES
    return folder / path.relative_to(masks) if folder.is_dir() else None


def _label(label: Any, object_name: str | None) -> Label:
    if isinstance(label, Mapping):
        label = [label["object"], label["part"]]
    if isinstance(label, list):
        name, part = (str(one if one is not None else "").strip() for one in label)
        return None if part.lower() in VOID else (name, part)
    text = str(label if label is not None else "").strip()
    if text.lower() in VOID:
        return None
    name, mark, part = text.replace("/", ":", 1).partition(":")
    return (name.strip(), part.strip()) if mark else (object_name or text, text)


def _json(text: str) -> Iterator[tuple[Any, Any]]:
    """Pairs of a JSON object, a key that stands twice included."""
    pairs = json.loads(text, object_pairs_hook=lambda found: tuple(found))
    if not isinstance(pairs, tuple):
        raise ValueError("not a mapping")
    for key, value in pairs:
        yield key, dict(value) if isinstance(value, tuple) else value


def _yaml(text: str) -> Iterator[tuple[Any, Any]]:
    """Pairs of a YAML mapping, a key that stands twice included; everything is text."""
    node = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("not a mapping")
    for key, value in node.value:
        yield key.value, _plain(value)


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {key.value: value.value for key, value in node.value}
    return [one.value for one in node.value] if isinstance(node, yaml.SequenceNode) else node.value


def _csv(text: str) -> Iterator[tuple[Any, Any]]:
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
    columns = set(rows.fieldnames or ())
    if not ({"number", "label"} <= columns or {"number", "object", "part"} <= columns):
        raise ValueError(f"columns {', '.join(sorted(columns))}")
    for row in rows:
        yield row["number"], row["label"] if "label" in columns else [row["object"], row["part"]]
