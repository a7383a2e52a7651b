"""Feed a VLM from features of its frozen encoders, so that a training step need not run them again.

A forward pass on pixels is `features` of each image, `project`, and the language model on embeddings in which the
projected tokens stand at the image positions (`embedded`). Each part is the model's own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from eyechart.core.errors import UserError
from eyechart.models.mixtures.modeling import MixtureForConditionalGeneration
from eyechart.models.vlms.towers import unwrapped

Fed: TypeAlias = dict[str, Float[Tensor, "_ _"]]
"""What one image gives: of each encoder its (patch, dim) features, by the encoder's name."""

Embeddings: TypeAlias = Float[Tensor, "row position hidden"]


@runtime_checkable
class Feeding(Protocol):
    """The parts of a VLM that a training step on cached features needs."""

    @property
    def encoders(self) -> Mapping[str, nn.Module]:
        """What turns pixels into features, by name; frozen in training. Only those that are run."""

    @property
    def adapters(self) -> Mapping[str, nn.Module]:
        """What stands between features and language model, by name; what stage 1 trains."""

    @property
    def language(self) -> nn.Module:
        """The language model with its unembedding."""

    @property
    def image_token_id(self) -> int:
        """The token that holds the place of one projected token."""

    def features(self, images: Sequence[Image.Image]) -> list[Fed]:
        """What each image gives, as the model reads it: layer and norm chosen, other tokens dropped; no gradients.

        The images go through the encoders in one batch, in eval mode whatever mode the model is in. On the model's
        device, in its number format.
        """

    def project(
        self, features: Mapping[str, Float[Tensor, "image _ _"]]
    ) -> Float[Tensor, "image token hidden"]:
        """The tokens that stand for each image, with gradients to the adapters and to the features."""

    def tokens(self, image: Image.Image) -> int:
        """How many image tokens stand for one image."""


def feeding_of(model: Any, processor: Any) -> Feeding:
    """The parts of a model for training on features.

    Args:
        model: transformers' `LlavaForConditionalGeneration` or a `MixtureForConditionalGeneration`, PEFT-wrapped or not.
        processor: its processor.

    Raises:
        UserError: the model is of another class.
    """
    inner = unwrapped(model)
    if isinstance(inner, MixtureForConditionalGeneration):
        return _MixtureFeeding(model=inner, processor=processor)
    if isinstance(inner, LlavaForConditionalGeneration):
        return _LlavaFeeding(model=inner, processor=processor)
    raise UserError(
        f"{type(inner).__name__} cannot be fed from features; expected a LlavaForConditionalGeneration of transformers or "
        "a MixtureForConditionalGeneration of eyechart.models.mixtures"
    )


def embedded(
    model: Any, input_ids: Int[Tensor, "row position"], image_token_id: int, tokens: Tensor | None
) -> Embeddings:
    """A batch's input embeddings with the projected tokens at the image positions, in reading order.

    Args:
        model: whose `get_input_embeddings` gives the embeddings.
        tokens: `project`'s output for all images of the batch in order; None where it has none.

    Raises:
        UserError: the batch has another number of image positions than there are tokens.
    """
    found: Tensor = model.get_input_embeddings()(input_ids)
    held = input_ids == image_token_id
    count = 0 if tokens is None else tokens.shape[0] * tokens.shape[1]
    if int(held.sum()) != count:
        raise UserError(
            f"{int(held.sum())} image positions for {count} projected tokens; expected as many of one as of the other"
        )
    if tokens is None:
        return found
    return found.masked_scatter(held[..., None].to(found.device), tokens.to(found.device, found.dtype))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Parts:
    """What both kinds have in common: LLaVA's names for the language model, and one number of tokens for any image."""

    model: Any
    processor: Any

    @property
    def language(self) -> nn.Module:
        return nn.ModuleDict(
            {"language_model": self.model.model.language_model, "lm_head": self.model.lm_head}
        )

    @property
    def image_token_id(self) -> int:
        return int(self.model.config.image_token_id)

    def tokens(self, image: Image.Image) -> int:
        made = self.processor(text=[self.processor.image_token], images=[image], return_tensors="pt")
        return int((made["input_ids"] == self.image_token_id).sum())

    def _pixels(self, image_processor: Any, images: Sequence[Image.Image]) -> Tensor:
        pixels: Tensor = image_processor(list(images), return_tensors="pt")["pixel_values"]
        return pixels.to(self.model.device, self.model.dtype)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _LlavaFeeding(_Parts):
    @property
    def encoders(self) -> Mapping[str, nn.Module]:
        return {"vision_tower": self.model.model.vision_tower}

    @property
    def adapters(self) -> Mapping[str, nn.Module]:
        return {"multi_modal_projector": self.model.model.multi_modal_projector}

    def features(self, images: Sequence[Image.Image]) -> list[Fed]:
        config, pixels = self.model.config, self._pixels(self.processor.image_processor, images)
        with _reading(self.encoders.values()):
            out = self.model.model.vision_tower(pixels, output_hidden_states=True, return_dict=True)
        layers = config.vision_feature_layer
        start = 1 if config.vision_feature_select_strategy == "default" else 0
        chosen = [out.hidden_states[n] for n in ([layers] if isinstance(layers, int) else layers)]
        found = torch.cat([one[:, start:] for one in chosen], dim=-1)
        return [{"vision_tower": one} for one in found]

    def project(self, features: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.model.model.multi_modal_projector(features["vision_tower"])
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _MixtureFeeding(_Parts):
    @property
    def encoders(self) -> Mapping[str, nn.Module]:
        found: dict[str, nn.Module] = self.model.model.encoders
        return found

    @property
    def adapters(self) -> Mapping[str, nn.Module]:
        found: dict[str, nn.Module] = self.model.model.adapters
        return found

    def tokens(self, image: Image.Image) -> int:
        return int(self.processor.tokens_per_image)

    def features(self, images: Sequence[Image.Image]) -> list[Fed]:
        pixels = {"pixel_values": self._pixels(self.processor.image_processor, images)}
        if self.processor.second_sees == "own":
            second = self._pixels(self.processor.second_image_processor, images)
            pixels["second_pixel_values"] = second
        with _reading(self.encoders.values()):
            found, _ = self.model.model.encoded(**pixels)
        return [{name: rows[place] for name, rows in found.items()} for place in range(len(images))]

    def project(self, features: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.model.model.projected(features)
        return found


@contextmanager
def _reading(encoders: Iterable[nn.Module]) -> Iterator[None]:
    """Eval mode and no gradients for a block; each module's own mode is put back."""
    training = [module for one in encoders for module in one.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
