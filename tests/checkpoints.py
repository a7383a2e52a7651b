"""Small random-weight checkpoints of the real transformers classes, saved as hub checkpoints are.

`checkpoint(name, folder)` writes one and returns its folder; the names are in `VLMS`, `ENCODERS` and `VARIANTS`.
Every model comes with its own processor class, a tiny byte-level tokenizer, and a chat template where the real
checkpoint has one. Tests get them through the session fixture `checkpoint_dir`, which builds each once.

Load processors with `eyechart.models.processors.load_processor`: without torchvision, `AutoProcessor` itself
cannot give those that also have a video half (`VIDEO`). Not here, because their images or processors need torchvision: lfm2_vl, Pixtral and Mistral 3.
"""

import json
from collections.abc import Callable
from pathlib import Path

import checkpoint_encoders as encoders
import checkpoint_vlms as vlms
from checkpoint_parts import Made

VLMS: dict[str, Callable[[], Made]] = {
    "llava": vlms.llava,
    "llava_next": vlms.llava_next,
    "qwen2_5_vl": vlms.qwen2_5_vl,
    "smolvlm": vlms.smolvlm,
    "idefics3": vlms.idefics3,
    "paligemma": vlms.paligemma,
    "mllama": vlms.mllama,
    "instructblip": vlms.instructblip,
    "blip_2": vlms.blip_2,
    "qwen2_vl": vlms.qwen2_vl,
    "qwen3_vl": vlms.qwen3_vl,
    "gemma3": vlms.gemma3,
    "internvl": vlms.internvl,
    "llava_onevision": vlms.llava_onevision,
    "idefics2": vlms.idefics2,
    "aya_vision": vlms.aya_vision,
    "florence2": vlms.florence2,
    "kosmos2": vlms.kosmos2,
}
"""Checkpoints that `AutoModelForImageTextToText` loads."""

ENCODERS: dict[str, Callable[[], Made]] = {
    "clip": encoders.clip,
    "siglip": encoders.siglip,
    "siglip2_naflex": encoders.siglip2_naflex,
    "metaclip_2": encoders.metaclip_2,
    "chinese_clip": encoders.chinese_clip,
    "dinov2": encoders.dinov2,
    "dinov2_with_registers": encoders.dinov2_with_registers,
    "dinov3": encoders.dinov3,
    "vit": encoders.vit,
    "vit_mae": encoders.vit_mae,
}
"""Checkpoints that `load_encoder` loads."""

VARIANTS: dict[str, Callable[[], Made]] = {
    "llava_no_chat": lambda: vlms.llava(chat=False),
    "clip_legacy": encoders.clip_legacy,
    "clip_vision": encoders.clip_vision,
    "clip_vision_projected": encoders.clip_vision_projected,
}
"""Checkpoints with one thing out of the ordinary."""

VIDEO = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "internvl", "llava_onevision")
"""Checkpoints whose processor has a video half."""


def checkpoint(name: str, folder: Path) -> Path:
    """Write the checkpoint called `name` to `folder / name`, the same each time, and return that folder."""
    model, processor = {**VLMS, **ENCODERS, **VARIANTS}[name]()
    target = folder / name
    model.save_pretrained(target)
    processor.save_pretrained(target)
    if name == "dinov3":
        _claim_image_processor(target, "DINOv3ViTImageProcessorFast")
    return target


def _claim_image_processor(target: Path, class_name: str) -> None:
    """Make the saved settings name the image processor that the real checkpoint names."""
    path = target / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"image_processor_type": class_name}, indent=2))
