"""Trained models as stored checkpoints: float16 files that `from_pretrained` loads as float32."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from eyechart.core.files import write_json
from eyechart.models.quiet import quiet


def export(model: PreTrainedModel, folder: Path, *companions: Any) -> Path:
    """Write a model as float16 safetensors whose config says float32 and no path, and beside it what it is used with.

    Args:
        companions: processors or tokenizers; each is saved by its `save_pretrained`.

    Raises:
        ValueError: a weight is too large for float16, or not finite.
    """
    stored: Any = copy.deepcopy(model)
    stored.to(device="cpu", dtype=torch.float16)
    for name, value in stored.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{name} holds values that float16 cannot hold")
    with quiet():
        for each in (stored, *companions):
            each.save_pretrained(folder)
    path = folder / "config.json"
    write_json(path, _as_stored(json.loads(path.read_text())))
    return folder


def _as_stored(config: Any) -> Any:
    """The config with every `dtype` in it, at any depth, made float32, and without the folders its parts came from."""
    if not isinstance(config, dict):
        return config
    return {
        key: "float32" if key == "dtype" and value else _as_stored(value)
        for key, value in config.items()
        if key != "_name_or_path"
    }
