"""The small vision transformers that are trained here: made with positions that work, and stored as checkpoints."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

from eyechart.train.export import export

_MEAN = (0.5, 0.5, 0.5)
_STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerShape:
    """How large an encoder is."""

    image_size: int = 96
    """Pixels on a side."""

    patch_size: int = 12
    hidden_size: int = 128
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    intermediate_size: int = 512

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
        if self.hidden_size % 4 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of 4 and of {self.num_attention_heads} heads"
            )

    @property
    def grid(self) -> int:
        """Patches on a side."""
        return self.image_size // self.patch_size

    def options(self) -> dict[str, Any]:
        """As arguments of a transformers config."""
        return asdict(self)


def to_pixels(pictures: UInt8[Tensor, "image side side 3"]) -> Float[Tensor, "image 3 side side"]:
    """Bytes to what the encoders take: -1 is black and 1 is white, as the exported image processor makes them."""
    return pictures.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def make_tower(shape: TowerShape, *, use_mask_token: bool = False) -> ViTModel:
    """A `ViTModel` without pooler, its patch projection and positions initialised as in MAE (arXiv 2111.06377, A.1)."""
    model = ViTModel(_config(shape), add_pooling_layer=False, use_mask_token=use_mask_token)
    start_weights(model)
    start_embeddings(model.embeddings, shape)
    return model


@torch.no_grad()
def start_weights(model: nn.Module) -> None:
    """Initialise linear layers as MAE does: Xavier, uniform, biases 0.

    The default of transformers, a deviation of 0.02 whatever the width, is made for a width of 768. At 128 each
    block would add next to nothing to what it is given, and hundreds of steps go by before anything is learnt.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


@torch.no_grad()
def start_embeddings(embeddings: Any, shape: TowerShape) -> None:
    """Give embeddings of ViT or ViTMAE sine-cosine positions that learn on, and a patch projection like a linear layer.

    transformers (5.23) leaves the positions of a ViTMAE made from a config at zero and frozen, so that a model
    trained with them would not know where a patch is.
    """
    positions: nn.Parameter = embeddings.position_embeddings
    positions.copy_(sine_positions(shape.grid, positions.shape[-1]))
    positions.requires_grad_(True)
    nn.init.xavier_uniform_(embeddings.patch_embeddings.projection.weight.flatten(1))


def sine_positions(grid: int, width: int) -> Float[Tensor, "one token width"]:
    """Fixed sine-cosine codes of a square grid, row by row, after a row of zeros for the class token.

    The first half of the width says the column, the second the row; frequencies as in "Attention is all you need".
    """
    rates = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(grid, dtype=torch.float64).outer(rates)
    one = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = one.repeat(grid, 1), one.repeat_interleave(grid, dim=0)
    codes = torch.cat([columns, rows], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), codes]).float()[None]


def export_tower(weights: dict[str, Tensor], shape: TowerShape, folder: Path) -> Path:
    """Write an encoder as a checkpoint of transformers: `ViTModel`, fp16 weights, to be computed in float32.

    Args:
        weights: the state of a `ViTModel` without pooler, or of a `ViTMAEModel`, whose names are the same. The
            pooler that is written hands out the class token as it is, so that nothing is missing on loading.

    Raises:
        RuntimeError: the names or shapes are not those of such a model.
    """
    config = _config(shape)
    config.pooler_act = "linear"
    model = ViTModel(config, add_pooling_layer=True)
    pooler = {
        "pooler.dense.weight": torch.eye(shape.hidden_size),
        "pooler.dense.bias": torch.zeros(shape.hidden_size),
    }
    kept = {name: tensor for name, tensor in weights.items() if name != "embeddings.mask_token"}
    model.load_state_dict(kept | pooler)
    return export(model, folder, _processor(shape))


def _config(shape: TowerShape) -> ViTConfig:
    return ViTConfig(**shape.options(), encoder_stride=shape.patch_size, layer_norm_eps=1e-6)


def _processor(shape: TowerShape) -> ViTImageProcessorPil:
    side = {"height": shape.image_size, "width": shape.image_size}
    return ViTImageProcessorPil(size=side, image_mean=_MEAN, image_std=_STD)
