"""Every choice of an exam, its folder's name and the command that runs it again."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eyechart.core.config import to_dict
from eyechart.core.errors import UserError, unknown
from eyechart.score import TEMPLATES

DEFAULT_REFERENCE = "facebook/dinov2-base"
"""The vision-only encoder that 'auto' means; CLIP-blind pairs were first mined with a DINOv2 (arXiv 2401.06209)."""

IN_MEMORY = "memory:"
"""How a model that was handed over as an object is named in a config, before its class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamConfig:
    """Every choice of an exam. `model` None is the random-weight LLaVA, `on` None the generated pictures."""

    model: str | None = None
    on: str | None = None

    reference: str = "auto"
    """A vision-only encoder, 'none', or 'auto': `DEFAULT_REFERENCE` where it can be had."""

    reference_pooling: str | None = None
    """What stands for the whole image under the reference; its own default when None."""

    percentile: float = 95.0
    """A suspect reaches this percentile of similarities under the model's encoder and not under the reference."""

    ask: Literal["auto", "generate", "options"] = "auto"
    """Read a reply, or compare the options' likelihoods; 'auto' reads, but for the random-weight model, which says noise."""

    template: str = "letter"
    max_new_tokens: int = 16
    adapter: str | None = None

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
        if self.seed < 0:
            raise UserError(f"seed must be 0 or more, got {self.seed}")
        if self.template not in TEMPLATES:
            raise unknown("prompt template", self.template, TEMPLATES)
        for name in ("max_new_tokens", "limit", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise UserError(f"{name} must be 1 or more, got {value}")

    @property
    def slug(self) -> str:
        """A folder name: which model on which benchmark, and a hash of every choice, so that no two exams share it."""
        digest = hashlib.sha256(json.dumps(to_dict(self), sort_keys=True).encode()).hexdigest()
        return f"exam-{_slug(self.model or 'untrained')}-on-{_slug(self.on or 'pictures')}-{digest[:6]}"

    @property
    def asking(self) -> Literal["generate", "options"]:
        """`ask` with 'auto' resolved."""
        if self.ask == "auto":
            return "options" if self.model is None else "generate"
        return self.ask


def given(config: ExamConfig) -> dict[str, Any]:
    """The choices that differ from the defaults."""
    default = to_dict(ExamConfig())
    return {name: value for name, value in to_dict(config).items() if value != default[name]}


def rerun_command(config: ExamConfig, folder: Path) -> list[str]:
    """The shell words that run this exam again, or continue it; of a model in memory, that it cannot be."""
    if config.model is not None and config.model.startswith(IN_MEMORY):
        return ["#", "a model in memory:", f"eyechart.examine(model, processor, out={str(folder)!r}, ...)"]
    words = ["eyechart", "exam", *([config.model] if config.model else [])]
    for name, value in given(config).items():
        if name != "model":
            flag = "--" + name.replace("_", "-")
            words += [flag] if value is True else [flag, str(value)]
    return [*words, "--out", str(folder)]


def _slug(name: str) -> str:
    """The last two parts of an id or path, in letters that any file system takes."""
    tail = "-".join(part for part in Path(name).parts[-2:] if part not in ("/", ".", ".."))
    return re.sub(r"[^A-Za-z0-9._]+", "-", tail).strip("-.").lower()[:60] or "model"
