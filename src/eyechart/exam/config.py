"""Every choice of an exam, its folder's name and the command that runs it again."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from eyechart.core.config import to_dict
from eyechart.core.errors import UserError, unknown
from eyechart.exam.defaults import UNTRAINED, default_models
from eyechart.models.servers import is_server
from eyechart.score import TEMPLATES
from eyechart.score.config import slug_of
from eyechart.score.opening import WORLD, WorldChoice

IN_MEMORY = "memory:"
"""How a model that was handed over as an object is named in a config, before its class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamConfig:
    """Every choice of an exam."""

    model: str = field(default_factory=lambda: default_models()[0])
    """An id, a folder, `zoo:NAME`, the URL of an OpenAI-compatible server, or `untrained` for a LLaVA with random weights."""

    served_model: str | None = None
    """Of a server: which of its models."""

    on: str = WORLD
    """A benchmark's folder or table, or `world` for pairs of scenes rendered for the exam."""

    scene_seed: int = 0
    """Of the world: another number draws other scenes."""

    size: int = 96
    """Of the world: side of a picture in pixels; the scenes are the same at every size."""

    pairs: int = 20
    """Of the world: pairs of each of its nine patterns."""

    reference: str = "auto"
    """A vision-only encoder, 'none', or 'auto': the zoo's on the world or for a zoo model, where the zoo has one, else
    `defaults.HUB_REFERENCE`."""

    reference_pooling: str | None = None
    """What stands for the whole image under the reference; its own default when None."""

    percentile: float = 95.0
    """A suspect reaches this percentile of similarities under the model's encoder and not under the reference."""

    ask: Literal["auto", "generate", "options"] = "auto"
    """Read a reply, or compare the options' likelihoods; 'auto' reads, but for the random-weight model, which says noise."""

    template: str = "letter"
    max_new_tokens: int = 16
    adapter: str | None = None

    locate: bool = True
    """Say for each pattern where it is lost: probes along the model's stages, beside its answers."""

    limit: int | None = None
    """At most this many pairs."""

    seed: int = 0
    batch_size: int | Literal["auto"] = "auto"
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    attn: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.percentile < 100:
            raise UserError(f"percentile must lie between 0 and 100, got {self.percentile}")
        if is_server(self.model) and self.ask == "options":
            raise UserError(
                f"{self.model} is a server, which gives replies and no options' scores; use ask 'generate'"
            )
        if self.seed < 0:
            raise UserError(f"seed must be 0 or more, got {self.seed}")
        if self.template not in TEMPLATES:
            raise unknown("prompt template", self.template, TEMPLATES)
        for name in ("max_new_tokens", "limit", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise UserError(f"{name} must be 1 or more, got {value}")
        _ = self.world

    @property
    def slug(self) -> str:
        """A folder name: which model on which benchmark, and a hash of every choice, so that no two exams share it."""
        digest = hashlib.sha256(json.dumps(to_dict(self), sort_keys=True).encode()).hexdigest()
        return f"exam-{slug_of(self.model)}-on-{slug_of(self.on)}-{digest[:6]}"

    @property
    def asking(self) -> Literal["generate", "options"]:
        """`ask` with 'auto' resolved."""
        if self.ask == "auto":
            return "options" if self.model == UNTRAINED else "generate"
        return self.ask

    @property
    def world(self) -> WorldChoice:
        """Which scenes, where the benchmark is the world."""
        choice = WorldChoice(scene_seed=self.scene_seed, size=self.size, pairs=self.pairs)
        if choice != WorldChoice() and self.on != WORLD:
            odd = next(
                name for name, value in asdict(choice).items() if value != getattr(WorldChoice(), name)
            )
            raise UserError(
                f"{odd} {getattr(self, odd)} draws scenes of the world and {self.on!r} was named: leave it out, or"
                f" examine on {WORLD!r}"
            )
        return choice


def given(config: ExamConfig) -> dict[str, Any]:
    """The choices that differ from the defaults."""
    default = to_dict(ExamConfig())
    return {name: value for name, value in to_dict(config).items() if value != default[name]}


def rerun_command(config: ExamConfig, folder: Path) -> list[str]:
    """The shell words that run this exam again, or continue it; of a model in memory, that it cannot be."""
    if config.model.startswith(IN_MEMORY):
        return ["#", "a model in memory:", f"eyechart.examine(model, processor, out={str(folder)!r}, ...)"]
    return ["eyechart", "exam", _named(config), *_flags(config), "--out", str(folder)]


def rerun_several(configs: Sequence[ExamConfig], folder: Path) -> list[str]:
    """The shell words that examine several models on one benchmark again, each in its folder below `folder`."""
    models = [_named(config) for config in configs]
    return ["eyechart", "exam", *models, *_flags(configs[0]), "--out", str(folder)]


def _named(config: ExamConfig) -> str:
    """What stands for the model on the command line: of a server's that was chosen, its name there."""
    return config.served_model or config.model


def _flags(config: ExamConfig) -> list[str]:
    """Every choice but the model that is not the default, as options of the command line."""
    words = ["--base-url", config.model] if config.served_model else []
    for name, value in given(config).items():
        if name not in ("model", "served_model"):
            flag = "--" + name.replace("_", "-")
            off = "--no-" + name.replace("_", "-")
            words += [flag] if value is True else [off] if value is False else [flag, str(value)]
    return words
