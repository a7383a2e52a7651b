"""Use a person's model and processor and leave both as they were found."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def undisturbed(model: nn.Module, processor: Any) -> Iterator[None]:
    """Run a block without gradients, in eval mode and with left padding; then put every flag back.

    What is put back: each module's own `training`, each sub-model's `generation_config` (the block may replace it),
    and the tokenizer's padding side. Encoder-decoder models keep their tokenizer's side, since their encoders are
    trained with it.
    """
    training = [(module, module.training) for module in model.modules()]
    configs = [(m, m.generation_config) for m in model.modules() if hasattr(m, "generation_config")]
    tokenizer = tokenizer_of(processor)
    side = tokenizer.padding_side
    try:
        for module, _ in training:
            module.training = False
        if not is_encoder_decoder(model):
            tokenizer.padding_side = "left"
        with torch.no_grad():
            yield
    finally:
        for module, flag in training:
            module.training = flag
        for owner, config in configs:
            owner.generation_config = config
        tokenizer.padding_side = side


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
