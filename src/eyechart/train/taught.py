"""What of a VLM a stage trains, fed from features of its frozen encoders: stage 1 the adapters, stage 2 the language model too.

Every parameter that is trained takes part in every step, on every process: a batch without an image sends zeros through
the adapters and adds the result, zero times, to what the language model reads. So the backward pass goes the same way
everywhere, through the layers of a frozen language model too, and no process waits for another under DDP or FSDP; the
adapters' gradient of such a batch is exactly zero.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from eyechart.core.errors import UserError
from eyechart.models.vlms.feeding import Feeding, embedded
from eyechart.train.packs import NO_TARGET

Part = Literal["adapters", "adapters+language"]
"""What a stage trains. Never an encoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auxiliary:
    """A loss beside the one on answers."""

    weight: float
    loss: Callable[[Any, Mapping[str, Any]], Tensor]
    """Gets the model's output, with `hidden_states`, and the batch; gives a mean over the batch."""


class TaughtParts(nn.Module):
    """The adapters and the language model of a VLM, the same tensors under exact names; its forward pass is the loss.

    The encoders are no part of it: they are neither moved nor sharded nor stored with it.
    """

    def __init__(
        self, model: Any, feeding: Feeding, train: Part, *, auxiliaries: Mapping[str, Auxiliary] | None = None
    ) -> None:
        """Freeze what is not trained.

        Args:
            model: the whole VLM; with LoRA in its language model, that alone is trained of it.
            auxiliaries: further losses by name.
        """
        super().__init__()
        self.adapters = nn.ModuleDict(dict(feeding.adapters))
        self.language = feeding.language
        self._whole, self._feeding = (model,), (feeding,)
        self._auxiliaries, self._checked = dict(auxiliaries or {}), False
        self._widths: dict[str, tuple[int, int]] = {}
        blocks = [getattr(part, "_no_split_modules", None) or () for part in self.language.modules()]
        self._no_split_modules = sorted(
            {name for names in blocks for name in names}
        )  # read by FSDP's wrapping
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        lora = {name for name, _ in self.named_parameters() if "lora_" in name}
        model.requires_grad_(False)
        for name, parameter in self.named_parameters():
            inside = name.startswith("adapters.") or (
                train == "adapters+language" and (not lora or name in lora)
            )
            parameter.requires_grad_(inside)

    @property
    def whole(self) -> Any:
        """The model the parts belong to."""
        return self._whole[0]

    @property
    def trained_names(self) -> list[str]:
        """The parameters that move."""
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def frozen_values(self) -> dict[str, Tensor]:
        """Everything that must not move: encoders, buffers, and what the stage does not train."""
        still = {f"encoder.{name}": one for name, one in self._feeding[0].encoders.items()}
        found = {
            f"{name}.{key}": value for name, one in still.items() for key, value in one.state_dict().items()
        }
        moving = {id(parameter) for parameter in self.parameters() if parameter.requires_grad}
        here = self.state_dict(keep_vars=True).items()
        return found | {name: value for name, value in here if id(value) not in moving}

    def know_widths(self, seen: Mapping[str, Tensor]) -> None:
        """Learn from one image's features how large they are, for batches without an image."""
        self._widths = {name: (rows.shape[0], rows.shape[1]) for name, rows in seen.items()}

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Compute activations anew in the backward pass, as transformers does it for the whole model."""
        self.whole.activation_checkpointing_enable(**kwargs)

    def forward(
        self,
        input_ids: Int[Tensor, "row token"],
        attention_mask: Int[Tensor, "row token"],
        labels: Int[Tensor, "row token"],
        features: Mapping[str, Float[Tensor, "image patch dim"]],
    ) -> Float[Tensor, ""]:
        """The cross-entropy of all labels in nats, summed, and what keeps every parameter in the graph.

        Divided by the number of labels it is the model's own loss on pixels. An auxiliary loss counts, by its weight,
        as much for each label.

        Raises:
            UserError: the batch has another number of image positions than its images give tokens.
            ValueError: an auxiliary loss is zero, or has no gradient.
        """
        model = self.whole
        images = len(next(iter(features.values()))) if features else 0
        tokens = self._feeding[0].project(features if images else self._zeros())
        held = embedded(model, input_ids, self._feeding[0].image_token_id, tokens if images else None)
        if not images:
            held = held + 0.0 * tokens.sum()
        targets = functional.pad(labels[:, 1:], (0, 1), value=NO_TARGET)
        more: dict[str, Any] = {"output_hidden_states": True} if self._auxiliaries else {}
        if self._keeps:
            kept = (targets != NO_TARGET).any(0).nonzero().flatten()
            more["logits_to_keep"], targets = kept, targets[:, kept]
        made = model(inputs_embeds=held, attention_mask=attention_mask, use_cache=False, **more)
        summed = functional.cross_entropy(
            made.logits.float().flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET, reduction="sum"
        )
        batch = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "features": features,
        }
        return summed + self._beside(made, batch) * (labels != NO_TARGET).sum()

    def _zeros(self) -> dict[str, Tensor]:
        if not self._widths:
            raise UserError(
                "a batch has no image and no image was ever seen, so the size of features is unknown; give know_widths one"
            )
        like = next(self.adapters.parameters())
        return {name: like.new_zeros(1, *size) for name, size in self._widths.items()}

    def _beside(self, made: Any, batch: Mapping[str, Any]) -> Tensor | float:
        total: Tensor | float = 0.0
        for name, auxiliary in self._auxiliaries.items():
            loss = auxiliary.loss(made, batch)
            check_auxiliary(
                name, loss, [] if self._checked else [p for p in self.parameters() if p.requires_grad]
            )
            total = total + auxiliary.weight * loss
        self._checked = True
        return total


def check_auxiliary(name: str, loss: Tensor, parameters: list[nn.Parameter]) -> None:
    """Refuse a loss that teaches nothing.

    Args:
        parameters: those it may teach; where some are given, one of them at least must get a gradient that is not zero.

    Raises:
        ValueError: the loss is zero or not finite, or none of the parameters gets a gradient from it.
    """
    if not torch.isfinite(loss) or loss == 0:
        raise ValueError(f"the auxiliary loss {name!r} is {loss.item()}: it teaches nothing")
    if not loss.requires_grad:
        raise ValueError(f"the auxiliary loss {name!r} has no gradient: it is cut off from what is trained")
    if parameters:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        if not any(one is not None and bool((one != 0).any()) for one in found):
            raise ValueError(f"the auxiliary loss {name!r} gives a gradient to nothing that is trained")


def loss_of(parts: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """The objective for `fit`, `summed`: wrapped for several processes or not, the forward pass is the loss."""
    loss: Tensor = parts(**batch)
    return loss
