"""Every choice of a localisation, its folder's name and the command that runs it again."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eyechart.core.config import to_dict
from eyechart.core.errors import UserError, unknown
from eyechart.locate.arms import CONTROLS
from eyechart.locate.edge_names import Choices
from eyechart.locate.identify import REGIONS, THRESHOLD, Settings
from eyechart.locate.labels import LabelRule
from eyechart.locate.lens import Ties
from eyechart.locate.part_names import Words
from eyechart.locate.parts_polygons import Categories
from eyechart.locate.probes import ReadingKind
from eyechart.locate.readable_scale import Scale

WORLD = "world"
"""Names the pictures and pairs of the world, rendered for the occasion."""

STAGES = {
    "lens": "the names of parts read by the logit lens at every layer, beside controls",
    "knockout": "the 2x2 of knockouts in the two towers, each proved to fire",
    "dose": "how much is left as a growing share of a tower's layers is cut",
    "probes": "how readable each pattern is along the model, and the verdict: where it is lost",
}
"""What `--only` chooses from, with a sentence each."""

NOT_UNASKED = ("dose",)
"""Stages that run only where they are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocateConfig:
    """Every choice of a localisation."""

    model: str
    """A VLM: see `models.sources.NAMING`."""

    only: tuple[str, ...] = tuple(name for name in STAGES if name not in NOT_UNASKED)
    """Which stages are run."""

    parts: str = WORLD
    """Pictures with part masks: `world`, or a folder or file (docs/parts.md)."""

    parts_layout: str = "auto"
    """How `parts` is to be read, where it does not say."""

    parts_images: str | None = None
    """The folder of the pictures, where they do not lie beside the masks."""

    parts_words: Words = "folded"
    """What parts are called in Pascal-Part and PASCAL Panoptic Parts."""

    parts_labels: str | None = None
    """The table of an index layout."""

    parts_object: str | None = None
    """The object that plain labels of an index layout are parts of."""

    parts_categories: Categories = "auto"
    """Where a COCO-style file says object and part."""

    pictures: int = 40
    """At most so many pictures with parts."""

    on: str = WORLD
    """Pairs for probes and verdict: `world` (twins), or a benchmark in pairs."""

    pairs: int = 60
    """Of the world: pairs of each pattern."""

    scene_seed: int = 0
    size: int = 96
    """Of the world: side of a picture in pixels."""

    limit: int | None = None
    """At most this many pairs of a benchmark."""

    vision_edges: str = "part<-rest"
    language_edges: str = "part<-earlier image"
    vision_layers: str = "all"
    language_layers: str = "all"
    controls: tuple[str, ...] = tuple(CONTROLS)
    special_is_rest: bool = True
    sink: bool = False
    part_probe: bool = True
    """Whether a linear probe reads parts under knockouts beside the lens; it takes most of the stage's time."""

    label: LabelRule = LabelRule.WHOLE
    ties: Ties = Ties.PESSIMISTIC
    threshold: float = THRESHOLD
    regions: int = REGIONS
    scale: Scale = "log_rank"
    probe: ReadingKind = "flat"

    seed: int = 0
    batch_size: int | Literal["auto"] = "auto"
    adapter: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    attn: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for stage in self.only:
            if stage not in STAGES:
                raise unknown("stage", stage, STAGES)
        for name in ("pictures", "pairs", "regions", "limit", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise UserError(f"{name} must be 1 or more, got {value}")
        if not 0 <= self.threshold < 1:
            raise UserError(f"threshold is a share of a patch, in [0, 1), got {self.threshold}")
        if self.seed < 0 or self.scene_seed < 0:
            raise UserError(f"seeds must be 0 or more, got {self.seed} and {self.scene_seed}")
        for control in self.controls:
            if control not in CONTROLS:
                raise unknown("control", control, CONTROLS)

    @property
    def choices(self) -> Choices:
        """What the names of edges leave open."""
        return Choices(special_is_rest=self.special_is_rest, sink=self.sink, seed=self.seed)

    @property
    def settings(self) -> Settings:
        """Of masks and control regions."""
        return Settings(threshold=self.threshold, regions=self.regions, seed=self.seed, ties=self.ties)

    @property
    def slug(self) -> str:
        """A folder name: which model, and a hash of every choice, so that no two runs share it."""
        digest = hashlib.sha256(json.dumps(to_dict(self), sort_keys=True).encode()).hexdigest()
        tail = "-".join(part for part in Path(self.model).parts[-2:] if part not in ("/", ".", ".."))
        name = re.sub(r"[^A-Za-z0-9._]+", "-", tail).strip("-.").lower()[:60] or "model"
        return f"locate-{name}-{digest[:6]}"


def given(config: LocateConfig) -> dict[str, Any]:
    """The choices that differ from the defaults."""
    default = to_dict(LocateConfig(model=config.model))
    return {name: value for name, value in to_dict(config).items() if value != default[name]}


def command_of(config: LocateConfig, folder: Path) -> list[str]:
    """The shell words that run this again, or continue it."""
    words = ["eyechart", "locate", config.model]
    for name, value in given(config).items():
        flag = "--" + name.replace("_", "-")
        values = value if isinstance(value, list) else [value]
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + name.replace("_", "-"))
        else:
            words += [word for one in values for word in (flag, str(one))]
    return [*words, "--out", str(folder)]
