"""Every choice of a mine, and its folder's name."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eyechart.core.config import to_dict
from eyechart.core.errors import UserError
from eyechart.find.thresholds import Wish

WORLD = "world:"
"""The source that is rendered: pairs of scenes of the world's test split."""

HUB_SEMANTIC, HUB_REFERENCE = "openai/clip-vit-large-patch14", "facebook/dinov2-large"
"""The encoders of the published rule ("Eyes Wide Shut?", arXiv 2401.06209, section 3): both ViT-L/14."""

HOW = ("workers", "batch_size", "engine", "ray_address")
"""Choices that change how fast something is found, and not what."""

ZOO_SEMANTIC, ZOO_REFERENCE = "zoo:clip-biased", "zoo:two-view"
"""The encoders on the world where none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MineConfig:
    """Every choice of a mine."""

    source: str
    """A path, `hf:ORG/NAME[:SPLIT]`, or `world:`; see `sources.KINDS`."""

    semantic: str = "auto"
    """The encoder that is examined; 'auto': the zoo's biased CLIP on the world, else `HUB_SEMANTIC`."""

    reference: str = "auto"
    """The encoder that tells pictures apart; 'auto': the zoo's on the world, else `HUB_REFERENCE`."""

    semantic_pooling: str | None = None
    reference_pooling: str | None = None

    min_semantic: str = "0.95"
    """A cosine, or `pQ` for the Q-th percentile of the cosines of drawn pairs."""

    max_reference: str = "0.6"
    centred: bool = False
    """Take the mean over the pictures away from the vectors first."""

    classes: Literal["any", "same", "different"] = "any"
    """Whether the two pictures of a pair must have the same label."""

    per_image: int = 5
    """At most so many pairs of one picture."""

    per_burst: int = 1
    """At most so many pairs between the same two groups of near-duplicates."""

    budget: int = 10_000
    """At most so many pairs in all."""

    min_alike: float = 0.9
    """Near-duplicates have at least this cosine under the reference, too ..."""

    most_bits: int = 10
    """... and perceptual hashes that differ in so many of 64 bits at most."""

    pictured: int = 100
    """So many of the first pairs are drawn as pictures on the page."""

    image_column: str | None = None
    label_column: str | None = None
    scene_seed: int = 0
    size: int = 96
    pairs: int = 20
    limit: int | None = None
    seed: int = 0
    batch_size: int = 32
    workers: int = 1
    dtype: str = "float32"
    device: str = "auto"
    engine: Literal["local", "ray"] = "local"
    """Where it is done: in this process, or on a Ray cluster. The pairs are the same."""

    ray_address: str | None = None
    """Of the cluster's head; None: the one RAY_ADDRESS names, else a Ray that is started on this machine."""

    def __post_init__(self) -> None:
        for name in ("min_semantic", "max_reference"):
            Wish.parse(getattr(self, name), name=name)
        for name in ("per_image", "per_burst", "budget", "pairs", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be 1 or more, got {value}")
        for name in ("pictured", "most_bits", "workers", "seed", "scene_seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.ray_address is not None and self.engine != "ray":
            raise UserError(
                f"ray_address is {self.ray_address!r}, but engine is {self.engine!r}; say --engine ray"
            )
        if self.engine == "ray" and self.device.startswith("cuda:"):
            raise UserError(f"device is {self.device!r}: Ray hands out the GPUs itself; say --device cuda")

    @property
    def on_world(self) -> bool:
        """Whether the source is rendered."""
        return self.source.startswith(WORLD)

    @property
    def encoders(self) -> tuple[str, str]:
        """The names of both encoders, 'auto' resolved."""
        defaults = (ZOO_SEMANTIC, ZOO_REFERENCE) if self.on_world else (HUB_SEMANTIC, HUB_REFERENCE)
        named = (self.semantic, self.reference)
        return tuple(d if n == "auto" else n for n, d in zip(named, defaults, strict=True))  # type: ignore[return-value]

    @property
    def slug(self) -> str:
        """A folder name: which source, and a hash of every choice but those in `HOW`."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
        name = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(Path(self.source).parts[-2:])).strip("-.").lower()
        return f"mine-{name[:60] or 'source'}-{digest[:6]}"

    def identity(self) -> dict[str, Any]:
        """Every choice that can change what is found."""
        return {name: value for name, value in to_dict(self).items() if name not in HOW}
