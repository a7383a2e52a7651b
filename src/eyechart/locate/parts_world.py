"""The world's own scenes as pictures with part masks: exact, drawn when they are asked for.

Three ways in: scenes of the test split rendered for the occasion, a folder of a rendered set with maps
(`world.sets.render_set`), or a folder of rendered pairs with maps (`world.sets_pairs.render_pairs`). A part's object is
the kind that it belongs to ("mug"), its instance the number in the map of objects (1 the main object, 2 the other one,
3 and up the items, 200 the sign, 201 and up the rugs). What has one part only is its own part. Pixels of one part on
one object are one part: a table's four legs are its "leg".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from numpy import ndarray

from eyechart.core.config import read_yaml
from eyechart.core.errors import UserError
from eyechart.core.files import write_bytes
from eyechart.core.records import Quarantined
from eyechart.locate.part_labels import label_values
from eyechart.locate.part_records import BadMarks, Draft, Part, Progress, Reading
from eyechart.world.kinds import PARTS
from eyechart.world.sets import SceneSet, load_set, png, render_set, set_hash
from eyechart.world.sets_plan import SetPlan
from eyechart.world.sets_version import fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldScenes:
    """Which scenes of the test split are rendered."""

    scene_seed: int = 0
    """Another number draws other scenes."""

    scenes: int = 60
    size: int = 96
    """Side of a picture, in pixels."""

    def folder_name(self) -> str:
        """A name for the folder of these scenes: others, or another version of the world, have another one."""
        return f"world-parts-seed{self.scene_seed}-{self.size}px-{self.scenes}-{fingerprint()[:6]}"


DEFAULT = WorldScenes()
"""The scenes that are drawn where nobody chose."""


def draft_scenes(
    chosen: WorldScenes, bundled: Path, *, workers: int, progress: Progress
) -> tuple[list[Draft], tuple[str, ...]]:
    """Drafts for scenes of the test split, rendered now where they are not in `bundled`; and notes.

    Raises:
        UserError: there are no such scenes, or another process renders them.
    """
    plan = SetPlan(split="test", scenes=chosen.scenes, seed=chosen.scene_seed)
    folder = bundled / chosen.folder_name()
    render_set(folder, plan, size=chosen.size, workers=workers, maps=True, progress=progress)
    return draft_set(folder, bundled)


def draft_set(folder: Path, bundled: Path | None) -> tuple[list[Draft], tuple[str, ...]]:
    """Drafts for a rendered set; its pictures, one array there, are written as PNGs.

    Args:
        folder: the set.
        bundled: where the pictures are written, under a name that follows from the set; None for `pictures` in the
            set's own folder.

    Raises:
        UserError: the folder holds no finished set, or one without maps.
    """
    scenes = load_set(folder)
    if scenes.parts is None or scenes.objects is None:
        raise UserError(f"{folder}: the set was rendered without maps; render it again with maps")
    config = read_yaml(folder / "config.yaml")
    called = f"{config['split']}-{config['seed']}"
    pictures = folder / "pictures" if bundled is None else bundled / f"pictures-{set_hash(folder)[:12]}"
    drafts = []
    for place in range(len(scenes.scenes)):
        image = pictures / f"{place:05d}.png"
        _write(image, png(np.asarray(scenes.images[place])))
        read = partial(_read_scene, scenes, place)
        drafts.append(Draft(id=f"{called}-{place:05d}", image=image, marks=folder, read=read))
    return drafts, (f"scenes of the world's {config['split']} split, seed {config['seed']}",)


def draft_pairs(folder: Path) -> tuple[list[Draft], tuple[str, ...]]:
    """Drafts for the pictures of rendered pairs, with their maps as PNGs.

    Raises:
        UserError: the folder has no maps.
    """
    marks = sorted((folder / "maps").glob("*-parts.png"))
    if not marks:
        raise UserError(f"{folder}: no maps/*-parts.png; render the pairs again with maps")
    names = _names(folder)
    drafts = []
    for path in marks:
        item = path.name.removesuffix("-parts.png")
        read = partial(_read_pair, path, path.with_name(f"{item}-objects.png"), names)
        drafts.append(Draft(id=item, image=folder / "images" / f"{item}.png", marks=path, read=read))
    split = read_yaml(folder / "config.yaml").get("split")
    return drafts, (f"scenes of the world's {split} split, two and two with one fact changed",)


def parts_of(
    parts: Integer[ndarray, "row column"],
    objects: Integer[ndarray, "row column"],
    names: Mapping[int, tuple[str, str]],
    where: Path,
) -> Reading:
    """Each part of each object in a pair of maps."""
    found: list[Part] = []
    bad: list[Quarantined] = []
    for number in np.unique(parts[parts > 0]).tolist():
        here = parts == number
        if number not in names:
            detail = f"part {number} of the map has no name"
            bad.append(Quarantined(path=str(where), reason="unknown_code", detail=detail))
            continue
        name, part = names[number]
        for instance in np.unique(objects[here]).tolist():
            found.append(Part(object=name, part=part, instance=instance, mask=here & (objects == instance)))
    return Reading(parts=tuple(found), quarantined=tuple(bad))


def _read_scene(scenes: SceneSet, place: int) -> Reading:
    assert scenes.parts is not None
    assert scenes.objects is not None
    seen, numbers = np.asarray(scenes.parts[place]), np.asarray(scenes.objects[place])
    return parts_of(seen, numbers, dict(enumerate(PARTS, start=1)), scenes.folder)


def _read_pair(parts: Path, objects: Path, names: dict[int, tuple[str, str]]) -> Reading:
    seen, numbers = label_values(parts), label_values(objects)
    if seen.shape != numbers.shape:
        raise BadMarks(
            "size_mismatch", f"maps of parts {seen.shape} and objects {numbers.shape} (height, width)"
        )
    return parts_of(seen, numbers, names, parts)


def _names(folder: Path) -> dict[int, tuple[str, str]]:
    path = folder / "maps" / "parts.json"
    try:
        return {int(number): (name, part) for number, (name, part) in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: no table of parts ({error})") from None


def _write(path: Path, data: bytes) -> None:
    """Write a picture unless it is there as it should be."""
    if not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
