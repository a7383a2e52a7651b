"""CLIP in small: its sizes, its loss without false negatives, mild crops, and the checkpoint it is stored as."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

from eyechart.train.crops import Crops
from eyechart.train.export import export
from eyechart.train.loop import Batch, Objective
from eyechart.train.towers import sine_positions, to_pixels

MAX_LOGIT_SCALE = math.log(100)
"""Logits are never scaled by more than 100 (CLIP, arXiv 2103.00020, section 2.5)."""

MILD = Crops(smallest=0.92, brightness=0.1, contrast=0.1)
"""Cuts off no more than 4 of 96 pixels on a side, on average 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipShape:
    """How large the two towers are; widths, heads and the projection are the same in both."""

    image_size: int = 96
    patch_size: int = 12
    hidden_size: int = 128
    intermediate_size: int = 512
    num_attention_heads: int = 4
    vision_layers: int = 6
    text_layers: int = 3
    max_position_embeddings: int = 48
    """Tokens of the longest caption, with the two that open and close it."""


def make_clip(tokenizer: PreTrainedTokenizerFast, shape: ClipShape | None = None) -> CLIPModel:
    """A `CLIPModel` with weights from torch's generator and sine-cosine positions, for the tokens of that tokenizer."""
    shape = shape or ClipShape()
    both = {
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_attention_heads": shape.num_attention_heads,
        "projection_dim": shape.hidden_size,
        "hidden_act": "gelu",
    }
    image = {"image_size": shape.image_size, "patch_size": shape.patch_size}
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": shape.max_position_embeddings,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    model = CLIPModel(
        CLIPConfig(
            vision_config={**both, **image, "num_hidden_layers": shape.vision_layers},
            text_config={**both, **text, "num_hidden_layers": shape.text_layers},
            projection_dim=shape.hidden_size,
        )
    )
    _start_places(model, shape)
    return model


@torch.no_grad()
def _start_places(model: CLIPModel, shape: ClipShape) -> None:
    """Let the vision tower know from the start where a patch is.

    transformers draws positions and patch projection with a deviation of .02, and less is learnt from as many pictures
    (docs/studies/zoo.md).
    """
    embeddings: Any = model.vision_model.embeddings
    grid = shape.image_size // shape.patch_size
    embeddings.position_embedding.weight.copy_(sine_positions(grid, shape.hidden_size)[0])
    nn.init.xavier_uniform_(embeddings.patch_embedding.weight.flatten(1))


def clip_objective(*, crops: Crops | None = None) -> Objective:
    """The loss of batches with `pictures` (bytes: image, side, side, 3), `input_ids` and `attention_mask`.

    Args:
        crops: how pictures are cut and lit anew each time; not at all unless given.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        pixels = to_pixels(batch["pictures"])
        pixels = pixels if crops is None else crops(pixels)
        made = model(
            pixel_values=pixels, input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        )
        return contrastive_loss(made.logits_per_image, same_captions(batch["input_ids"]))

    return loss


def contrastive_loss(
    logits: Float[Tensor, "image text"], same: Bool[Tensor, "image text"]
) -> Float[Tensor, ""]:
    """CLIP's symmetric InfoNCE (arXiv 2103.00020, figure 3), in which another image's equal caption is no negative.

    Args:
        logits: scaled cosines; image i belongs to text i.
        same: whether two images bear the same caption. Equal captions but the image's own are left out of the sums
            in both directions: they are neither pulled nor pushed.
    """
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    kept = logits.masked_fill(same & ~own, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(kept, target) + functional.cross_entropy(kept.T, target)) / 2


def same_captions(ids: Int[Tensor, "text token"]) -> Bool[Tensor, "text text"]:
    """Which captions are the same tokens, padding included."""
    return (ids[:, None] == ids[None]).all(-1)


def limit_scale(model: nn.Module, step: int) -> None:
    """After each step: keep the learnt scale of the logits within bounds."""
    model.get_parameter("logit_scale").data.clamp_(0.0, MAX_LOGIT_SCALE)


def tokenize(tokenizer: PreTrainedTokenizerFast, captions: Sequence[str], *, length: int) -> Batch:
    """Captions as token ids, padded to the longest.

    Raises:
        ValueError: a caption is longer than `length` tokens.
    """
    made: Any = tokenizer(list(captions), padding=True, return_tensors="pt")
    if made["input_ids"].shape[1] > length:
        longest = max(captions, key=lambda caption: len(tokenizer(caption)["input_ids"]))
        raise ValueError(
            f"a caption has {made['input_ids'].shape[1]} tokens, of {length} at most: {longest!r}"
        )
    return {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"]}


def export_clip(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write the checkpoint and its processor, so that `CLIPModel` and `AutoProcessor` load them."""
    vision: Any = model.config.vision_config
    text: Any = model.config.text_config
    side = vision.image_size
    reader = copy.deepcopy(tokenizer)
    reader.model_max_length = text.max_position_embeddings
    make_images: Callable[..., CLIPImageProcessorPil] = CLIPImageProcessorPil
    make_processor: Callable[..., CLIPProcessor] = CLIPProcessor
    images = make_images(
        size={"height": side, "width": side}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return export(model, folder, make_processor(images, reader))
