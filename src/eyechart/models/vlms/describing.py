"""What a loaded VLM is, in words for the run's record."""

from typing import Any

from torch import nn

from eyechart.models.vlms.prompting import Prompting
from eyechart.models.vlms.proof import Proof
from eyechart.models.vlms.towers import Towers


def devices_of(model: nn.Module) -> str:
    """Where the weights are; several devices are joined by commas."""
    return ", ".join(sorted({str(parameter.device) for parameter in model.parameters()}))


def attention_of(model: Any, towers: Towers | None) -> str:
    """The attention implementation in use; where the towers differ, each tower's."""
    parts = {"model": model} if towers is None else {"vision": towers.vision, "language": towers.language}
    used = {name: _implementation(getattr(part, "config", model.config)) for name, part in parts.items()}
    if len(set(used.values())) == 1:
        return next(iter(used.values()))
    return ", ".join(f"{name} {how}" for name, how in used.items())


def _implementation(config: Any) -> str:
    return str(getattr(config, "_attn_implementation", "unknown"))


def notes_of(prompting: Prompting, proof: Proof) -> tuple[str, ...]:
    """What was chosen for this model and why, where it matters to results."""
    notes = [f"template: {prompting.note}"]
    if proof.blind:
        notes.append(
            "two different pictures gave the same scores to the last digit: the picture may not be read"
        )
    if proof.why_no_batches:
        notes.append(f"prompts are answered one at a time: {proof.why_no_batches}")
    if proof.why_no_cache:
        notes.append(f"replies are made without a cache: {proof.why_no_cache}")
    if proof.why_not_shared:
        notes.append(f"options are scored with a pass of their own each: {proof.why_not_shared}")
    elif proof.why_not_together:
        notes.append(f"options are scored one prompt at a time, token by token: {proof.why_not_together}")
    return tuple(notes)
