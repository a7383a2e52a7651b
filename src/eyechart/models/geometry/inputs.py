"""What a VLM's processor makes of one picture, and which positions of its input stand for that picture."""

import logging
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from PIL import Image

logger = logging.getLogger(__name__)

Outputs: TypeAlias = Mapping[str, Any]
"""What a processor made of one image: names to tensors."""

_REFUSALS = (ValueError, TypeError, KeyError, IndexError, AttributeError)
"""What processors raise at a text that holds no image token where they want one."""


def picture_inputs(processor: Any, image: Image.Image) -> Outputs:
    """The tensors of one picture and a one-letter text, on the CPU, laid out as the checkpoint wants it.

    The chat template is used where there is one. Without it, the text is given alone to processors that place the
    image by themselves, and after the image token to the others.
    """
    options = {"images": [image], "return_tensors": "pt"}
    text = _templated(processor)
    if text is not None:
        return _plain_dict(processor(text=[text], **options))
    token = getattr(processor, "image_token", None) or getattr(processor.tokenizer, "image_token", None)
    placed = f"{getattr(token, 'content', token)}\na"
    try:
        alone = _plain_dict(processor(text=["a"], **options))
    except _REFUSALS as error:
        logger.debug("%s wants an image token in the text: %s", type(processor).__name__, error)
        return _plain_dict(processor(text=[placed], **options))
    ids = getattr(processor, "image_token_id", None)
    if not isinstance(ids, int) or token is None or bool((alone["input_ids"] == ids).any()):
        return alone
    return _plain_dict(processor(text=[placed], **options))


def as_examined(inputs: Outputs, model_or_config: Any) -> Outputs:
    """Inputs whose `pixel_values` are those of the vision tower that is examined: a mixture of encoders may have two."""
    name = pixels_of(model_or_config)
    return inputs if name not in inputs else {**inputs, "pixel_values": inputs[name]}


def pixels_of(model_or_config: Any) -> str:
    """The name of the input that the vision tower examined is given."""
    config = getattr(model_or_config, "config", model_or_config)
    return str(getattr(config, "examined_pixels", "pixel_values"))


def images_of(processor: Any, model_or_config: Any) -> Any:
    """The image processor of the vision tower examined, out of a VLM's processor."""
    second = pixels_of(model_or_config) != "pixel_values"
    return processor.second_image_processor if second else processor.image_processor


def _templated(processor: Any) -> str | None:
    if not getattr(processor, "chat_template", None):
        return None
    words = {"type": "text", "text": "a"}
    messages = [{"role": "user", "content": [{"type": "image"}, words]}]
    text: str = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text


def _plain_dict(made: Any) -> dict[str, Any]:
    return {key: value for key, value in made.items() if key != "labels"}


def picture_positions(inputs: Outputs, config: Any, processor: Any) -> tuple[int, ...]:
    """The positions of the one row of inputs that stand for its image, in order; none where nothing says so."""
    for key, value in inputs.items():
        if "image" in key and "position" in key and key.endswith("mask") and isinstance(value, torch.Tensor):
            return tuple(value[0].bool().nonzero().flatten().tolist())
    for owner in (config, processor):
        for name in ("image_token_id", "image_token_index"):
            token = getattr(owner, name, None)
            if isinstance(token, int):
                return tuple((inputs["input_ids"][0] == token).nonzero().flatten().tolist())
    return ()
