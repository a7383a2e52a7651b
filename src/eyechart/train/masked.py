"""Masked autoencoding (MAE): an encoder that learns by painting in the patches it was not shown.

He et al., "Masked Autoencoders Are Scalable Vision Learners" (arXiv 2111.06377): the encoder runs on the quarter of
the patches that is left, which makes it fast; a small decoder paints the rest. Nothing is said about a picture, so
nothing in it is more worth mentioning than anything else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from eyechart.train.crops import Crops
from eyechart.train.towers import (
    TowerShape,
    export_tower,
    sine_positions,
    start_embeddings,
    start_weights,
    to_pixels,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedSettings:
    """What the encoder is trained against."""

    mask_ratio: float = 0.75
    """Share of the patches that the encoder is not shown."""

    decoder_hidden_size: int = 64
    decoder_num_hidden_layers: int = 2
    decoder_num_attention_heads: int = 4
    decoder_intermediate_size: int = 256
    norm_pix_loss: bool = True
    """Paint each patch with mean 0 and variance 1: its structure rather than its shade (section 4.1)."""

    crops: Crops | None = None
    """What is done to a picture first."""

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must lie between 0 and 1, got {self.mask_ratio}")


def masked_model(shape: TowerShape, settings: MaskedSettings) -> ViTMAEForPreTraining:
    """An encoder with its decoder, with random weights from torch's generator and positions that learn."""
    config = ViTMAEConfig(
        **shape.options(),
        layer_norm_eps=1e-6,
        mask_ratio=settings.mask_ratio,
        norm_pix_loss=settings.norm_pix_loss,
        decoder_hidden_size=settings.decoder_hidden_size,
        decoder_num_hidden_layers=settings.decoder_num_hidden_layers,
        decoder_num_attention_heads=settings.decoder_num_attention_heads,
        decoder_intermediate_size=settings.decoder_intermediate_size,
    )
    model = ViTMAEForPreTraining(config)
    start_weights(model)
    start_embeddings(model.vit.embeddings, shape)
    decoder = model.decoder
    decoder.decoder_pos_embed.data = sine_positions(shape.grid, settings.decoder_hidden_size)
    decoder.decoder_pos_embed.requires_grad_(True)
    decoder.mask_token.data.normal_(std=config.initializer_range)
    return model


class MaskedObjective:
    """The loss of one batch of pictures; which patches are hidden comes from torch's generator."""

    def __init__(self, settings: MaskedSettings) -> None:
        self._crops = settings.crops

    def __call__(
        self, model: nn.Module, batch: Mapping[str, UInt8[Tensor, "image side side 3"]]
    ) -> Float[Tensor, ""]:
        """Mean squared error over the hidden patches of `batch["pictures"]`; with `norm_pix_loss`, 1 is a blank guess."""
        pixels = to_pixels(batch["pictures"])
        if self._crops is not None:
            pixels = self._crops(pixels)
        loss: Tensor = model(pixels).loss
        return loss


def export_masked(model: ViTMAEForPreTraining, shape: TowerShape, folder: Path) -> Path:
    """Write the encoder alone, as a `ViTModel`, which sees every patch."""
    return export_tower(model.vit.state_dict(), shape, folder)
