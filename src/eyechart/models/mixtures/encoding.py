"""What one encoder of a mixture gives: a chosen layer's patch features, in reading order, without other tokens."""

import inspect
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eyechart.core.errors import UserError
from eyechart.models.mixtures.mixing import Features, Grid

Pixels = Float[Tensor, "image 3 height width"]

_FINAL_NORMS = ("post_layernorm", "layernorm", "layer_norm", "norm")


def patch_features(tower: nn.Module, pixels: Pixels, *, layer: int, norm: bool) -> Features:
    """The patches' states at a layer of an encoder; class and register tokens are dropped.

    MAE's random order is switched off: with no patch masked, rising noise leaves them in reading order. Positions are
    interpolated where the pixels are not of the size the encoder was made for.

    Args:
        tower: a vision model of transformers.
        layer: counted as in `hidden_states`.
        norm: apply the encoder's final LayerNorm to them.

    Raises:
        UserError: the encoder's tokens are not its patches after a class token and registers, or it has no final norm.
    """
    model: Any = tower
    out = model(pixels, output_hidden_states=True, return_dict=True, **_arguments(model, pixels))
    states: Tensor = out.hidden_states[layer]
    rows, columns = patch_grid(model.config, pixels)
    before = states.shape[1] - rows * columns
    registers = int(getattr(model.config, "num_register_tokens", 0) or 0)
    if before not in (registers, registers + 1):
        raise UserError(
            f"{type(tower).__name__} gives {states.shape[1]} tokens for {rows} x {columns} patches; expected the patches "
            f"after a class token or none, and {registers} registers"
        )
    if norm:
        states = final_norm(tower)(states)
    return states[:, before:]


def patch_grid(config: Any, pixels: Tensor) -> Grid:
    """Rows and columns of an encoder's whole patches on these pixels."""
    side = config.patch_size
    down, across = (side, side) if isinstance(side, int) else side
    return pixels.shape[-2] // down, pixels.shape[-1] // across


def final_norm(tower: nn.Module) -> nn.Module:
    """An encoder's final LayerNorm, by the names transformers gives it.

    Raises:
        UserError: it has none.
    """
    for name in _FINAL_NORMS:
        found = getattr(tower, name, None)
        if isinstance(found, nn.Module):
            return found
    raise UserError(f"{type(tower).__name__} has no final norm; set the norm of this encoder to False")


def _arguments(model: Any, pixels: Tensor) -> dict[str, Any]:
    known = inspect.signature(model.forward).parameters
    arguments: dict[str, Any] = {}
    side = getattr(model.config, "image_size", None)
    made_for = (side, side) if isinstance(side, int) else tuple(side or pixels.shape[-2:])
    if "interpolate_pos_encoding" in known and made_for != tuple(pixels.shape[-2:]):
        arguments["interpolate_pos_encoding"] = True
    if "noise" in known and hasattr(model.config, "mask_ratio"):
        rows, columns = patch_grid(model.config, pixels)
        rising = torch.arange(rows * columns, device=pixels.device, dtype=torch.float32)
        arguments["noise"] = rising.expand(len(pixels), -1)
    return arguments
