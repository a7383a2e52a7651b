"""The scenes the zoo is trained on: what the recipes read, rendered where it is not there yet.

    eyechart train clip

renders `build/world/train` first. A set that is there is used as it is, whichever version of the world drew it; each
training writes down the hash of the set it saw.
"""

import json
import logging
from pathlib import Path

import yaml

from eyechart.core.errors import UserError
from eyechart.recipes.two_view import SCENES as FAMILY_SCENES
from eyechart.recipes.two_view import render_families
from eyechart.train.towers import TowerShape
from eyechart.world.sets import Progress, render_set
from eyechart.world.sets_plan import SetPlan
from eyechart.world.sets_version import fingerprint

logger = logging.getLogger(__name__)

SCENES = 24_000
MAPPED = 5_000
"""So many of the first scenes are rendered with their maps of parts, too."""

SIZE = TowerShape().image_size


def training_scenes(
    folder: Path = Path("build/world/train"),
    *,
    scenes: int | None = None,
    size: int = SIZE,
    workers: int = 2,
    progress: Progress = lambda stage, done, total: None,
) -> Path:
    """The single scenes of the CLIPs, the masked encoder and the VLMs; resumable.

    Args:
        folder: where they lie, or are to lie.
        scenes: how many; None takes what is there, or `SCENES` where there is nothing.
        size: the pictures' side, in pixels.
        workers: processes that render.
        progress: told how many are done.

    Raises:
        UserError: a finished set of another number lies there, or an unfinished one of another plan.
    """
    if _kept(folder, scenes):
        return folder
    plan = SetPlan(split="train", scenes=SCENES if scenes is None else scenes)
    render_set(folder, plan, size=size, workers=workers, progress=progress)
    return folder


def training_maps(
    folder: Path = Path("build/world/maps"),
    *,
    scenes: int = MAPPED,
    size: int = SIZE,
    workers: int = 2,
    progress: Progress = lambda stage, done, total: None,
) -> Path:
    """The first of the training scenes with their maps of parts, for the VLMs; arguments and errors as `training_scenes`."""
    if not _kept(folder, scenes):
        render_set(
            folder,
            SetPlan(split="train", scenes=scenes),
            size=size,
            maps=True,
            workers=workers,
            progress=progress,
        )
    return folder


def training_families(
    folder: Path = Path("build/world/families"),
    *,
    scenes: int | None = None,
    size: int = SIZE,
    workers: int = 2,
    progress: Progress = lambda stage, done, total: None,
) -> Path:
    """The families of the two-view encoder, as twins and as siblings; arguments and errors as `training_scenes`."""
    if all([_kept(folder / relation, scenes) for relation in ("twins", "siblings")]):
        return folder
    wanted = FAMILY_SCENES if scenes is None else scenes
    return render_families(folder, scenes=wanted, size=size, workers=workers, progress=progress)


def count_of(folder: Path) -> int:
    """How many scenes a rendered set holds."""
    return int(yaml.safe_load((folder / "config.yaml").read_text("utf8"))["scenes"])


def _kept(folder: Path, scenes: int | None) -> bool:
    """Whether a finished set lies in the folder, which is then good for this training."""
    try:
        if json.loads((folder / "manifest.json").read_bytes())["finished"] is None:
            return False
        config = yaml.safe_load((folder / "config.yaml").read_text("utf8"))
    except (OSError, ValueError, KeyError):
        return False
    if scenes is not None and count_of(folder) != scenes:
        raise UserError(
            f"{folder} holds {count_of(folder)} scenes, not {scenes}: leave --scenes out, or name another --world"
        )
    if config["world"] != fingerprint():
        logger.warning("%s was rendered by another version of the world; it is used as it is", folder)
    return True
