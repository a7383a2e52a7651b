"""Every choice of a score, its folder's name and the ways in which the items are put."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eyechart.core.config import to_dict
from eyechart.core.errors import UserError
from eyechart.score.answers import Ask
from eyechart.score.opening import WORLD, WorldChoice, is_world
from eyechart.score.variants import Order, Show, Variant, changed


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreConfig:
    """Every choice of a score."""

    model: str
    """A VLM, an encoder, or the URL of an OpenAI-compatible server; see `models.sources.NAMING`."""

    on: str = WORLD
    """A set's folder or table, or `world`, `world:cv`, `world:captions`."""

    kind: str = "auto"
    """How the set is to be read; see `benchmarks.KINDS` and `matches.MATCH_KINDS`."""

    ask: Ask = "generate"
    template: str = "letter"
    labels: str | None = None
    order: Order = "original"
    show: Show = "image"
    side: int | None = None

    also: tuple[str, ...] = ()
    """Further ways of asking, each with one thing changed: names in `variants.CHANGES`, or `side=N`."""

    max_new_tokens: int = 16
    scene_seed: int = 0
    size: int = 96
    pairs: int = 20
    limit: int | None = None
    """At most this many pairs, items or matches."""

    seed: int = 0
    batch_size: int | Literal["auto"] = "auto"
    served_model: str | None = None
    """Of a server: which of its models."""

    concurrency: int = 8
    """Of a server: questions under way at once."""

    retries: int = 6
    """Of a server: how often a question is put again that was not answered."""

    timeout: float = 120.0
    """Of a server: seconds to wait for an answer."""

    judge: str | None = None
    """A model or a server that reads replies beside the rules; what it decides is told beside the score."""

    judge_model: str | None = None
    """Where the judge is a server: which of its models."""

    judge_for: Literal["unread", "all"] = "unread"
    """Which replies the judge reads: those that the rules left unread, or all."""

    adapter: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    attn: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "limit", "batch_size", "concurrency"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise UserError(f"{name} must be 1 or more, got {value}")
        if self.seed < 0 or self.retries < 0:
            raise UserError(f"seed and retries must be 0 or more, got {self.seed} and {self.retries}")
        if self.judge is not None and self.ask != "generate":
            raise UserError(
                f"a judge reads replies, and by {self.ask!r} there are none; use ask 'generate', or no judge"
            )
        _ = self.variants, self.world

    @property
    def variants(self) -> dict[str, Variant]:
        """The ways of asking by name, the one asked first under the empty name."""
        base = Variant(
            template=self.template, labels=self.labels, order=self.order, show=self.show, side=self.side
        )
        made = {"": base}
        for change in self.also:
            variant = changed(base, change)
            if variant in made.values():
                raise UserError(f"{change!r} was asked for twice")
            made[change] = variant
        return made

    @property
    def world(self) -> WorldChoice:
        """Which scenes, where the set is the world's."""
        choice = WorldChoice(scene_seed=self.scene_seed, size=self.size, pairs=self.pairs)
        if choice != WorldChoice() and not is_world(self.on):
            raise UserError(
                f"scene_seed, size and pairs draw scenes of the world and {self.on!r} was named: leave them out, or"
                f" ask on {WORLD!r}"
            )
        return choice

    @property
    def slug(self) -> str:
        """A folder name: which model on which set, and a hash of every choice, so that no two runs share it."""
        digest = hashlib.sha256(json.dumps(to_dict(self), sort_keys=True).encode()).hexdigest()
        return f"score-{slug_of(self.model)}-on-{slug_of(self.on)}-{digest[:6]}"


def given(config: ScoreConfig) -> dict[str, Any]:
    """The choices that differ from the defaults."""
    default = to_dict(ScoreConfig(model=config.model))
    return {name: value for name, value in to_dict(config).items() if value != default[name]}


def command_of(config: ScoreConfig, folder: Path) -> list[str]:
    """The shell words that run this again, or continue it."""
    words = ["eyechart", "score", config.served_model or config.model]
    words += ["--base-url", config.model] if config.served_model else []
    for name, value in given(config).items():
        if name == "served_model":
            continue
        flag = "--" + name.replace("_", "-")
        values = value if isinstance(value, list) else [value]
        words += [flag] if value is True else [word for one in values for word in (flag, str(one))]
    return [*words, "--out", str(folder)]


def slug_of(name: str) -> str:
    """The last two parts of an id or path, in letters that any file system takes."""
    tail = "-".join(part for part in Path(name).parts[-2:] if part not in ("/", ".", ".."))
    return re.sub(r"[^A-Za-z0-9._]+", "-", tail).strip("-.").lower()[:60] or "model"
