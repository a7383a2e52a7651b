"""The small parts of a mixture's model: adapters, standardisers, and what it hands out."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.generic import ModelOutput

from eyechart.core.errors import UserError
from eyechart.models.mixtures.mixing import ChannelStatistics, Features, standardised


@dataclass
class MixtureModelOutput(BaseModelOutputWithPast):
    """The language model's output, and the images' tokens one under another."""

    image_hidden_states: Tensor | None = None


@dataclass
class MixtureOutput(ModelOutput):
    """What the model gives; fields as in transformers' LLaVA."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    image_hidden_states: Tensor | None = None


class Adapter(nn.Module):
    """LLaVA-1.5's `mlp2x_gelu`: linear, activation, linear."""

    def __init__(self, inputs: int, outputs: int, act: str) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, outputs)
        self.act = ACT2FN[act]
        self.linear_2 = nn.Linear(outputs, outputs)

    def forward(self, features: Features) -> Float[Tensor, "image patch hidden"]:
        """Features to tokens of the language model."""
        tokens: Tensor = self.linear_2(self.act(self.linear_1(features)))
        return tokens


class Standardiser(nn.Module):
    """Per-channel mean and deviation of one encoder's features, kept with the weights; empty until they are set."""

    mean: Tensor
    deviation: Tensor
    tokens: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("tokens", torch.zeros((), dtype=torch.long))
        self._known = False

    def set(self, statistics: ChannelStatistics) -> None:
        """Take up the statistics of this encoder's features.

        Raises:
            UserError: they are of another width.
        """
        if statistics.mean.shape != self.mean.shape:
            raise UserError(
                f"statistics of {len(statistics.mean)} channels for an encoder of {len(self.mean)}; expected as many"
            )
        self.mean.copy_(statistics.mean)
        self.deviation.copy_(statistics.deviation)
        self.tokens.fill_(statistics.tokens)

    def forward(self, features: Features) -> Features:
        """Standardised features.

        Raises:
            UserError: the statistics were never set.
        """
        if not self._known:
            if not int(self.tokens):
                raise UserError(
                    "standardise is 'per_channel', but this model holds no channel statistics; compute them with "
                    "channel_statistics on features of this encoder and give them to set_channel_statistics"
                )
            self._known = True
        return standardised(features, self.mean.to(features.dtype), self.deviation.to(features.dtype))
