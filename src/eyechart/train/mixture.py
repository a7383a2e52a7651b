"""A mixture of features from checkpoints that were trained before, taught as the zoo's LLaVA is (`train.vlm`).

Its encoders stay frozen, so each one's features are computed once for each picture, and every mixture of the same
encoders, layers and norms reads the same ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor, nn

from eyechart.models.mixtures import EncoderChoice, MixtureProcessor, build_mixture, channel_statistics
from eyechart.models.mixtures.config import Mixture
from eyechart.models.mixtures.encoding import patch_features
from eyechart.models.mixtures.modeling import FIRST, SECOND, MixtureForConditionalGeneration
from eyechart.train.cached import SideBySide, cached
from eyechart.train.loop import Report
from eyechart.train.prompts import CHAT_TEMPLATE, chat_tokenizer
from eyechart.train.tokens import load_tokenizer
from eyechart.train.weights import weights_sha256

SAMPLED = 1000
"""Pictures whose features' statistics scale a mixture's channels, where they are scaled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Through which encoders a VLM sees, and how their features are joined."""

    first: str
    """The name of an encoder's folder: in the paper's mixtures CLIP."""

    second: str | None = None
    mixture: Mixture = "single"
    alpha: float = 0.5
    """Share of the first encoder, where features are added."""

    first_layer: int = -2
    second_layer: int = -1
    standardise: bool = False
    """Whether each channel is standardised before features are joined."""


def join_mixture(
    sight: Sight, models: Path, language: Path, *, seed: int = 0
) -> tuple[MixtureForConditionalGeneration, MixtureProcessor]:
    """A mixture of trained encoders and a language model, with adapters of random weights, and its processor.

    Args:
        models: where the encoders' folders are.
        language: a folder with a causal language model and a tokenizer that holds `<image>`.
        seed: of the adapters' weights.
    """
    second = sight.second and EncoderChoice(source=str(models / sight.second), layer=sight.second_layer)
    more: dict[str, Any] = {"alpha": sight.alpha} if sight.mixture == "additive" else {}
    model, processor = build_mixture(
        EncoderChoice(source=str(models / sight.first), layer=sight.first_layer),
        str(language),
        second=second or None,
        mixture=sight.mixture,
        seed=seed,
        standardise="per_channel" if sight.standardise else "none",
        **more,
    )
    asking: Any = processor
    asking.tokenizer, asking.chat_template = chat_tokenizer(load_tokenizer(language)), CHAT_TEMPLATE
    return model, processor


def mixture_features(
    model: MixtureForConditionalGeneration,
    processor: MixtureProcessor,
    images: UInt8[ndarray, "image side side 3"],
    folders: Mapping[str, Path],
    *,
    source: str,
    report: Report | None = None,
) -> SideBySide:
    """What each encoder that is run gives of all images, side by side; each one's is kept in a folder of its own.

    Args:
        folders: by the name of the encoder in the model.
        source: what identifies the images, such as the hash of their set.
        report: called with "features", images done, images in all.
    """
    config: Any = model.config
    read = {
        FIRST: (config.vision_layer, config.vision_norm),
        SECOND: (config.second_layer, config.second_norm),
    }
    asking: Any = processor
    own = {FIRST: asking.image_processor, SECOND: asking.second_image_processor}
    found = []
    for name, tower in model.model.encoders.items():
        layer, norm = read[name]
        images_by = own[name if config.second_sees == "own" else FIRST]
        identity = {"tower": weights_sha256(tower), "layer": layer, "norm": norm, "images": source}
        found.append(
            cached(
                _Seeing(tower=tower, images_by=images_by, layer=layer, norm=norm),
                images,
                folders[name],
                shape=(int(np.prod(config.grid)), tower.config.hidden_size),
                identity={**identity, "processor": images_by.to_dict()},
                report=report,
            )
        )
    return SideBySide(found)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seeing:
    """One encoder with its own pictures."""

    tower: nn.Module
    images_by: Any
    layer: int
    norm: bool

    @torch.no_grad()
    def __call__(self, images: UInt8[ndarray, "some side side 3"]) -> Float[Tensor, "some patch dim"]:
        shown = [Image.fromarray(one) for one in images]
        pixels = self.images_by(shown, return_tensors="pt")["pixel_values"]
        return patch_features(self.tower, pixels, layer=self.layer, norm=self.norm).float()


def see_all(
    sight: Sight,
    model: MixtureForConditionalGeneration,
    processor: MixtureProcessor,
    images: UInt8[ndarray, "image side side 3"],
    work: Path,
    *,
    source: str,
    report: Report | None = None,
) -> SideBySide:
    """`mixture_features` in a folder in `work` for each encoder and layer; a mixture that standardises learns its channels."""
    folders = {FIRST: work / f"features-{sight.first}-at-{sight.first_layer}"}
    folders[SECOND] = work / f"features-{sight.second}-at-{sight.second_layer}"
    found = mixture_features(model, processor, images, folders, source=source, report=report)
    if sight.standardise:
        know_channels(model, found)
    return found


def know_channels(model: MixtureForConditionalGeneration, features: SideBySide) -> None:
    """Give a mixture that standardises the statistics of a sample of its pictures' features."""
    step = max(1, len(features) // SAMPLED)
    some = [torch.from_numpy(np.asarray(part[::step], np.float32)) for part in features.parts]
    model.set_channel_statistics(
        {name: channel_statistics(part) for name, part in zip(model.model.encoders, some, strict=True)}
    )
