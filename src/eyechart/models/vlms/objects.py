"""Use a person's model and processor and leave both as they were found."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_LEFT_BEHIND = ("generation_config", "rope_deltas")
"""Attributes that asking a model changes."""


@contextmanager
def undisturbed(model: nn.Module, processor: Any) -> Iterator[None]:
    """Run a block without gradients, in eval mode, with left padding and a padding token; then put everything back.

    What is put back: each module's own `training`, each sub-model's `generation_config` (the block may replace it)
    and `rope_deltas` (Qwen's leave them from the last prompt), and the tokenizer's padding side and token.
    Encoder-decoder models keep their tokenizer's side, since their encoders are trained with it.
    """
    modules = list(model.modules())
    training = [module for module in modules if module.training]
    left = [(m, name, m.__dict__[name]) for m in modules for name in _LEFT_BEHIND if name in m.__dict__]
    tokenizer = tokenizer_of(processor)
    side, padding = tokenizer.padding_side, tokenizer.pad_token
    try:
        for module in training:
            module.training = False
        if not is_encoder_decoder(model):
            tokenizer.padding_side = "left"
        if padding is None:
            tokenizer.pad_token = tokenizer.eos_token
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
        for module, name, value in left:
            setattr(module, name, value)
        tokenizer.padding_side = side
        if padding is None:
            tokenizer.pad_token = None


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor; a processor that is a tokenizer is its own."""
    return getattr(processor, "tokenizer", processor)


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether replies come from a decoder that starts empty: of the model itself or of the language model in it."""
    configs = (getattr(module, "config", None) for module in model.modules())
    return any(bool(getattr(config, "is_encoder_decoder", False)) for config in configs)


def text_config(model: Any) -> Any:
    """The config of the language model; of a model without one, its own."""
    return model.config.get_text_config(decoder=True)
