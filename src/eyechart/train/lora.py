"""LoRA on the language model of a VLM, by peft: put on before training, merged or stored as an adapter after it.

Low-rank adaptation: Hu et al. 2021, arXiv 2106.09685. The adapters between encoder and language model are trained in full
beside it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from eyechart.core.devices import seeded
from eyechart.core.errors import UserError
from eyechart.models.quiet import quiet


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraPlan:
    """How to put LoRA on; names and defaults are those of `peft.LoraConfig`, but for `r` and `save`."""

    r: int = 64
    """Rank."""

    lora_alpha: int = 16
    lora_dropout: float = 0.0
    save: Literal["merged", "adapter"] = "merged"
    """Afterwards: folded into the language model's weights, or beside the model as a PEFT adapter."""

    def __post_init__(self) -> None:
        """Refuse what peft would refuse later."""
        if self.r < 1 or self.lora_alpha < 1 or not 0 <= self.lora_dropout < 1:
            raise UserError(
                f"lora: r {self.r}, lora_alpha {self.lora_alpha}, lora_dropout {self.lora_dropout}; expected at least 1, "
                "at least 1, and from 0 to below 1"
            )


def linear_names(model: Any, language: nn.Module) -> list[str]:
    """The full names of the language model's linear layers, its unembedding left out."""
    inside = {id(module) for module in language.modules() if isinstance(module, nn.Linear)}
    inside.discard(id(model.get_output_embeddings()))
    return [name for name, module in model.named_modules() if id(module) in inside]


def put_lora(model: Any, language: nn.Module, plan: LoraPlan, *, seed: int) -> PeftModel:
    """Wrap a VLM so that its language model's linear layers have LoRA; the modules inside stay where they are.

    Args:
        language: the part of `model` that gets it, with the unembedding, which does not.
        seed: of the first matrices; the second ones begin at zero, so that nothing is changed yet.

    Raises:
        UserError: there is no linear layer in the language model.
    """
    names = linear_names(model, language)
    if not names:
        raise UserError(f"no linear layer was found in the language model of {type(model).__name__}")
    config = LoraConfig(
        r=plan.r,
        lora_alpha=plan.lora_alpha,
        lora_dropout=plan.lora_dropout,
        target_modules=names,
        bias="none",
    )
    with seeded(seed), quiet():
        wrapped: PeftModel = get_peft_model(model, config)
    return wrapped


def save_lora(wrapped: PeftModel, folder: Path, save: Literal["merged", "adapter"]) -> Any:
    """The plain model again: with LoRA folded in, or without it and the adapter stored in `folder`.

    The adapter loads by `PeftModel.from_pretrained(model, folder)`, or by `--adapter` of Eyechart's commands.
    """
    with quiet():
        if save == "merged":
            return wrapped.merge_and_unload(safe_merge=True)
        wrapped.save_pretrained(str(folder))
        return wrapped.unload()
