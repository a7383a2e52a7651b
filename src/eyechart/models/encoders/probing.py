"""What the tokens of an unknown vision transformer are, found out from one run on a picture of noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

_CLASS_TOKENS = {"deit": 2}
"""Model types with another token beside the class token (DeiT's for distillation)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayout:
    """How to read a model's tokens."""

    layers: int
    prefix: int
    """Tokens before the patches."""

    classed: bool
    """Whether the first of them is a class token."""

    width: int
    norm: nn.Module | None
    """The final norm, where the model hands its last tokens out without it."""

    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _NormCall:
    module: nn.Module
    given: Tensor
    made: Tensor


def noise_picture() -> Image.Image:
    """A picture of noise: with plain colour, two different things might look the same."""
    generator = torch.Generator().manual_seed(0)
    return Image.fromarray(torch.randint(0, 256, (64, 96, 3), generator=generator, dtype=torch.uint8).numpy())


@torch.no_grad()
def probe(
    model: nn.Module, run: Callable[[], Any], config: Any, inputs: Mapping[str, Tensor]
) -> tuple[Any, TokenLayout | str]:
    """Run a model once, with all hidden states.

    Returns:
        Its output, and the layout of its tokens or the reason why they are no grid of patches.
    """
    calls: list[_NormCall] = []
    norms = [module for module in model.modules() if "norm" in type(module).__name__.lower()]
    hooks = [norm.register_forward_hook(_recorder(calls)) for norm in norms]
    try:
        output = run()
    finally:
        for hook in hooks:
            hook.remove()
    return output, _layout(output, config, inputs, calls)


def patch_grid(config: Any, inputs: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Rows and columns of patches of one prepared picture; None where the config gives no patch size."""
    if "spatial_shapes" in inputs:
        rows, columns = inputs["spatial_shapes"][0].tolist()
        return int(rows), int(columns)
    patch = getattr(config, "patch_size", None)
    if patch is None:
        return None
    height, width = patch if isinstance(patch, (list, tuple)) else (patch, patch)
    return inputs["pixel_values"].shape[-2] // height, inputs["pixel_values"].shape[-1] // width


def _layout(
    output: Any, config: Any, inputs: Mapping[str, Tensor], calls: list[_NormCall]
) -> TokenLayout | str:
    states = getattr(output, "hidden_states", None)
    sequence = getattr(output, "last_hidden_state", None)
    grid = patch_grid(config, inputs)
    if not states or sequence is None or sequence.dim() != 3 or grid is None:
        return "it hands out no sequence of patch tokens"
    prefix = 0 if "spatial_shapes" in inputs else sequence.shape[1] - grid[0] * grid[1]
    registers = int(getattr(config, "num_register_tokens", 0) or 0)
    classes = prefix - registers
    if classes not in (0, _CLASS_TOKENS.get(config.model_type, 1)):
        return (
            f"it hands out {sequence.shape[1]} tokens for a grid of {grid[0]} x {grid[1]} patches, which one class token "
            f"and {registers} registers do not explain"
        )
    norm, normed = _final_norm(sequence, calls)
    return TokenLayout(
        layers=len(states) - 1,
        prefix=prefix,
        classed=classes > 0,
        width=sequence.shape[-1],
        norm=norm,
        notes=() if norm or normed else ("its tokens pass no final norm",),
    )


def _final_norm(sequence: Tensor, calls: list[_NormCall]) -> tuple[nn.Module | None, bool]:
    """The norm still to be applied to the last tokens, and whether a norm has just given them.

    CLIP's last tokens come bare, and its final norm is applied to the class token alone.
    """
    if any(call.made.shape == sequence.shape and torch.equal(call.made, sequence) for call in calls):
        return None, True
    for call in reversed(calls):
        if call.given.shape == sequence[:, 0].shape and torch.equal(call.given, sequence[:, 0]):
            return call.module, False
    return None, False


def _recorder(calls: list[_NormCall]) -> Any:
    def record(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        calls.append(_NormCall(module, given[0], made))

    return record
