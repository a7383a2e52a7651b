"""Two-view learning: an encoder that must tell which of many near-identical scenes a picture shows.

Two pictures of each scene are encoded, each from a part of its patches, and either has to be found from the other
among those of the whole batch (SimCLR, arXiv 2002.05709). Four things keep it from the shortcut of colours and layout.
Batches come in families of scenes that differ in single facts, so that the nearest wrong answers can be told apart by
such a fact alone. A second term looks inside each family after its mean is taken off, where what all members share
can neither help nor drown the rest. Views are cropped mildly and never mirrored, re-coloured or made grey. And the
patches that the encoder was not shown are painted in, as in MAE (arXiv 2111.06377; a contrast and a painting term
together are those of CMAE, arXiv 2207.13532), so that patches stay worth reading.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTModel

from eyechart.core.errors import UserError
from eyechart.train.crops import Crops
from eyechart.train.towers import TowerShape, export_tower, make_tower, sine_positions, to_pixels
from eyechart.train.weights import weights_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoViewSettings:
    """What the encoder is trained against."""

    members: int = 4
    """Scenes of one family; a batch is whole families, one after another."""

    temperature: float = 0.1
    family_temperature: float = 0.2
    family: float = 1.0
    """Weight of the term within families; 0 leaves it out."""

    hidden: float = 0.5
    """Share of the patches that the encoder is not shown."""

    painting: float = 1.0
    """Weight of painting them in; 0 leaves the decoder out."""

    pooling: Literal["cls", "mean_patch"] = "mean_patch"
    """What stands for the whole picture when views are compared."""

    head_size: int = 128
    decoder_size: int = 64
    decoder_layers: int = 1
    crops: Crops = field(default_factory=Crops)

    def __post_init__(self) -> None:
        if not min(self.temperature, self.family_temperature) > 0:
            raise ValueError(
                f"temperatures must be above 0, got {self.temperature} and {self.family_temperature}"
            )
        if not 0 <= self.hidden < 1:
            raise ValueError(f"hidden must be at least 0 and below 1, got {self.hidden}")
        if self.painting and not self.hidden:
            raise ValueError(f"painting {self.painting} with no patch hidden: there is nothing to paint")
        if self.family and self.members < 2:
            raise ValueError(f"a term within families of {self.members}: there is nobody to be told from")


class Terms(NamedTuple):
    """The parts of the loss, unweighted."""

    batch: Float[Tensor, ""]
    """Of finding a view among all of the batch."""

    family: Float[Tensor, ""]
    """Of finding it within its family, the family's mean taken off."""

    painting: Float[Tensor, ""]


class TwoView(nn.Module):
    """The encoder, and what is thrown away after training: head and decoder."""

    def __init__(self, shape: TowerShape, settings: TwoViewSettings) -> None:
        super().__init__()
        self.shape, self.settings = shape, settings
        self.tower = make_tower(shape)
        width, size = shape.hidden_size, settings.head_size
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, size))
        self.decoder = _Decoder(shape, settings) if settings.painting else None

    def forward(
        self, first: Float[Tensor, "image 3 side side"], second: Float[Tensor, "image 3 side side"]
    ) -> Terms:
        """The terms for two views of the same scenes."""
        settings, pixels = self.settings, torch.cat([first, second])
        keep = _kept(len(pixels), self.shape.grid**2, settings.hidden).to(pixels.device)
        tokens = encode_kept(self.tower, pixels, keep)
        one, two = self.head(_pool(tokens, settings.pooling)).chunk(2)
        nothing = torch.zeros_like(one[0, 0])
        return Terms(
            batch=(
                finding_loss(one, two, settings.temperature) + finding_loss(two, one, settings.temperature)
            )
            / 2,
            family=family_loss(one, two, settings.members, settings.family_temperature)
            if settings.family
            else nothing,
            painting=nothing if self.decoder is None else self.decoder(tokens, keep, pixels),
        )


class TwoViewObjective:
    """The loss of one batch; crops and hidden patches come from torch's generator."""

    def __init__(self, settings: TwoViewSettings) -> None:
        self._settings = settings

    def __call__(
        self, model: nn.Module, batch: Mapping[str, UInt8[Tensor, "image side side 3"]]
    ) -> Float[Tensor, ""]:
        """All terms for `batch["first"]` and `batch["second"]`: two pictures of each scene, or one picture twice."""
        settings = self._settings
        first, second = (settings.crops(to_pixels(batch[name])) for name in ("first", "second"))
        terms: Terms = model(first, second)
        return terms.batch + settings.family * terms.family + settings.painting * terms.painting


def finding_loss(
    asked: Float[Tensor, "image dim"], answers: Float[Tensor, "image dim"], temperature: float
) -> Float[Tensor, ""]:
    """InfoNCE: the cross-entropy of picking the own answer by cosine, all others of the batch being wrong."""
    logits = functional.normalize(asked, dim=1) @ functional.normalize(answers, dim=1).T / temperature
    return functional.cross_entropy(logits, torch.arange(len(asked), device=asked.device))


def family_loss(
    one: Float[Tensor, "image dim"], two: Float[Tensor, "image dim"], members: int, temperature: float
) -> Float[Tensor, ""]:
    """InfoNCE within families, both ways, on what is left when each view's mean over the family is taken off."""
    apart = [
        functional.normalize(view - view.mean(dim=1, keepdim=True), dim=2)
        for view in (side.reshape(-1, members, side.shape[1]) for side in (one, two))
    ]
    logits = apart[0] @ apart[1].transpose(1, 2) / temperature
    own = torch.arange(members, device=one.device).expand(len(logits), -1)
    there, back = (functional.cross_entropy(each, own) for each in (logits, logits.transpose(1, 2)))
    return (there + back) / 2


def encode_kept(
    tower: ViTModel, pixels: Float[Tensor, "image 3 side side"], keep: Int[Tensor, "image kept"]
) -> Float[Tensor, "image token width"]:
    """Run a tower on its class token and on the patches named in `keep` only, which costs as much less."""
    tokens = tower.embeddings(pixels)
    places = keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
    tokens = torch.cat([tokens[:, :1], tokens[:, 1:].gather(1, places)], dim=1)
    for layer in tower.layers:
        tokens = layer(tokens)
    normed: Tensor = tower.layernorm(tokens)
    return normed


def begin_with(model: TwoView, folder: Path) -> str:
    """Give the encoder the weights of another one of its shape, such as `mae`; the hash of what it began with.

    Raises:
        UserError: the encoder in the folder has another shape.
    """
    begun = ViTModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
    there = {name: tuple(value.shape) for name, value in begun.state_dict().items()}
    if there != {name: tuple(value.shape) for name, value in model.tower.state_dict().items()}:
        raise UserError(
            f"{folder} holds an encoder of another shape than {model.shape}; train both with one shape"
        )
    model.tower.load_state_dict(begun.state_dict())
    return weights_sha256(model.tower)


def export_two_view(model: TwoView, folder: Path) -> Path:
    """Write the encoder alone, as a `ViTModel`."""
    return export_tower(model.tower.state_dict(), model.shape, folder)


class _Decoder(nn.Module):
    """Paints the hidden patches of a picture from what the student made of the others."""

    def __init__(self, shape: TowerShape, settings: TwoViewSettings) -> None:
        super().__init__()
        size, self._patch = settings.decoder_size, shape.patch_size
        self.embed = nn.Linear(shape.hidden_size, size)
        self.blank = nn.Parameter(torch.randn(1, 1, size) * 0.02)
        self.places = nn.Parameter(sine_positions(shape.grid, size))
        layer = nn.TransformerEncoderLayer(
            size, 4, size * 4, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, settings.decoder_layers, enable_nested_tensor=False)
        self.paint = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, 3 * shape.patch_size**2))

    def forward(
        self,
        tokens: Float[Tensor, "image token width"],
        keep: Int[Tensor, "image kept"],
        pixels: Float[Tensor, "image 3 side side"],
    ) -> Float[Tensor, ""]:
        """Mean squared error over the hidden patches, each brought to mean 0 and variance 1."""
        wanted = normed_patches(pixels, self._patch)
        shown = self.embed(tokens)
        size = shown.shape[-1]
        canvas = self.blank.expand(len(shown), wanted.shape[1], size)
        canvas = canvas.scatter(1, keep.unsqueeze(-1).expand(-1, -1, size), shown[:, 1:])
        painted = self.paint(self.layers(torch.cat([shown[:, :1], canvas], dim=1) + self.places))[:, 1:]
        errors: Tensor = (painted - wanted).square().mean(dim=-1)
        return errors[_hidden(keep, wanted.shape[1])].mean()


def normed_patches(
    pixels: Float[Tensor, "image 3 side side"], patch: int
) -> Float[Tensor, "image patch values"]:
    """The pixels of each patch, row by row, with mean 0 and variance 1 (arXiv 2111.06377, section 4.1)."""
    values = functional.unfold(pixels, patch, stride=patch).transpose(1, 2)
    return (values - values.mean(dim=-1, keepdim=True)) / (values.var(dim=-1, keepdim=True) + 1e-6).sqrt()


def _kept(images: int, patches: int, hidden: float) -> Int[Tensor, "image kept"]:
    kept = patches - int(patches * hidden)
    return torch.rand(images, patches).argsort(dim=1)[:, :kept]


def _hidden(keep: Int[Tensor, "image kept"], patches: int) -> Bool[Tensor, "image patch"]:
    everything = torch.ones(len(keep), patches, dtype=torch.bool, device=keep.device)
    return everything.scatter(1, keep, torch.zeros_like(keep, dtype=torch.bool))


def _pool(tokens: Float[Tensor, "image token width"], pooling: str) -> Float[Tensor, "image width"]:
    return tokens[:, 0] if pooling == "cls" else tokens[:, 1:].mean(dim=1)
