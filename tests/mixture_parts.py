"""Small mixtures with random weights, and the pictures they are tried on."""

from typing import Any

import numpy as np
import transformers as tf
from PIL import Image

from checkpoint_parts import build, clip_images, language, tower
from eyechart.models.mixtures import MixtureConfig, MixtureForConditionalGeneration, MixtureProcessor
from eyechart.models.untrained import TEMPLATE, tiny_tokenizer

KINDS = ("single", "additive", "interleaved", "concatenated")

SECOND: dict[str, dict[str, Any]] = {
    "dinov2": tower("dinov2", mlp_ratio=2),
    "registers": tower("dinov2_with_registers", mlp_ratio=2, num_register_tokens=3),
    "mae": tower("vit_mae"),
    "vit": tower("vit"),
    "siglip": tower("siglip_vision_model"),
}
"""Vision-only encoders (and one more CLIP-like) of width 32 on 7 x 7 patches."""


def mixture(kind: str, second: dict[str, Any] | None = None, seed: int = 0, **fields: Any) -> Any:
    """A model and its processor: CLIP first, by default a DINOv2 second, Llama; grids of 7 x 7."""
    tokenizer = tiny_tokenizer(["<image>"], chat_template=TEMPLATE)
    other = None if kind == "single" else (second or SECOND["dinov2"])
    fields = {"vision_layer": -2, "image_token_index": tokenizer.convert_tokens_to_ids("<image>"), **fields}
    config = MixtureConfig(
        vision_config=fields.pop("vision_config", tower("clip_vision_model", projection_dim=16)),
        second_vision_config=other,
        text_config=language("llama", tokenizer),
        mixture=kind,
        **fields,
    )
    return build(MixtureForConditionalGeneration, config, seed), processor_for(config, tokenizer)


def processor_for(config: Any, tokenizer: Any) -> MixtureProcessor:
    """CLIP's square for the first, a squashed square of ImageNet's numbers for the second."""
    second = config.second_vision_config
    side = config.vision_config.image_size
    own = side if second is None else second.image_size
    rows = side // config.vision_config.patch_size
    return MixtureProcessor(
        clip_images(side),
        tf.ViTImageProcessorPil(size={"height": own, "width": own}, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]),
        tokenizer,
        grid=config.grid or [rows, rows],
        tokens_per_cell=config.tokens_per_cell,
        second_sees=config.second_sees if second is not None else "first",
        chat_template=TEMPLATE,
    )  # fmt: skip


def noise(width: int = 80, height: int = 56, *, seed: int = 0) -> Image.Image:
    """A picture of noise."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def batch(processor: Any, pictures: list[list[Image.Image]]) -> dict[str, Any]:
    """Inputs of texts with so many pictures each, padded."""
    texts = ["USER: " + "<image>\n" * len(some) + "What is it? ASSISTANT:" for some in pictures]
    flat = [one for some in pictures for one in some]
    return dict(processor(text=texts, images=flat or None, return_tensors="pt", padding=True))
