"""From a picture to the tensors a transformers encoder wants, and the check that both agree on the size."""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, ViTImageProcessorPil
from transformers.image_processing_base import ImageProcessingMixin

from eyechart.core.errors import UserError

_PLAIN = {"DINOv3ViTImageProcessor": ViTImageProcessorPil}
"""Image processors that exist on torchvision only, and those that do the same steps without it: resize, scale, norm."""

_load: Callable[..., Any] = AutoImageProcessor.from_pretrained

_INPUTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")


class Preprocessor:
    """A checkpoint's own image processor, applied to one picture at a time."""

    def __init__(self, processor: Any, model: nn.Module, *, notes: tuple[str, ...] = ()) -> None:
        self._processor = processor
        self._wanted = [name for name in _INPUTS if name in _forward_inputs(model)]
        self.notes = notes

    def __call__(self, image: Image.Image) -> dict[str, Tensor]:
        """The tensors of one picture, each with a leading axis of one."""
        made = self._processor(images=[image], return_tensors="pt")
        return {name: torch.as_tensor(made[name]) for name in self._wanted if name in made}

    @property
    def description(self) -> str:
        """The processor's class, and a hash of its settings and of how patches are positioned."""
        settings = json.dumps(self._processor.to_dict(), sort_keys=True, default=str)
        return f"{type(self._processor).__name__}-{hashlib.sha256(settings.encode()).hexdigest()[:16]}"


def load_preprocessor(name: str, model: nn.Module, options: Mapping[str, Any]) -> Preprocessor:
    """The image processor of a checkpoint.

    Raises:
        UserError: the checkpoint has none, or one that needs torchvision where that is missing.
    """
    try:
        return Preprocessor(_load(name, **options), model)
    except ImportError as error:
        return _without_torchvision(name, model, options, error)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{name} has no image processor that can be loaded (preprocessor_config.json): {error}"
        ) from error


def _without_torchvision(
    name: str, model: nn.Module, options: Mapping[str, Any], error: ImportError
) -> Preprocessor:
    settings, _ = ImageProcessingMixin.get_image_processor_dict(name, revision=options["revision"])
    wanted = str(settings.pop("image_processor_type", "")).removesuffix("Fast")
    if wanted not in _PLAIN:
        raise UserError(
            f"{name}: its image processor {wanted!r} needs torchvision, built for this torch"
        ) from error
    note = f"{wanted} needs torchvision, which is missing: {_PLAIN[wanted].__name__} does its steps on 8-bit pixels"
    return Preprocessor(_PLAIN[wanted](**settings), model, notes=(note,))


def check_size(name: str, inputs: Mapping[str, Tensor], config: Any, *, resizable: bool) -> tuple[str, ...]:
    """Compare the side of a prepared picture with the side the weights were made for.

    Args:
        resizable: the model fits its positions to any size without being asked (DINOv2, rotary positions).

    Returns:
        A note where they differ and the model takes it in its stride.

    Raises:
        UserError: they differ, and the positions would have to be interpolated for it.
    """
    side = getattr(config, "image_size", None)
    if side is None or inputs["pixel_values"].dim() != 4:
        return ()
    expected = tuple(side) if isinstance(side, (list, tuple)) else (side, side)
    given = tuple(inputs["pixel_values"].shape[-2:])
    if given == expected:
        return ()
    says = f"the image processor gives {given[0]} x {given[1]} pixels, the config says {expected[0]} x {expected[1]}"
    if resizable:
        return (f"{says}; the model fits its positions to what it gets",)
    raise UserError(
        f"{name}: {says}. Mend size and crop_size in preprocessor_config.json, "
        "or ask for interpolate=True to have the position embeddings interpolated."
    )


def _forward_inputs(model: nn.Module) -> set[str]:
    reader = getattr(model, "get_image_features", model.forward)
    return set(inspect.signature(reader).parameters)
