"""Two-view learning: an encoder that must tell which of many near-identical scenes a picture shows.

The student sees part of the patches of one view and has to find the other view of the same scene, as a slowly moving
teacher sees it, among those of the whole batch (MoCo v3, arXiv 2104.02057). Three things keep it from the shortcut of
colours and layout. Batches come in families of scenes that differ in a single fact, so that the nearest wrong answers
can be told apart by that fact alone. Views are cropped mildly and never mirrored, re-coloured or made grey. And the
patches that the student was not shown are painted in, as in MAE (arXiv 2111.06377; both terms together are those of
CMAE, arXiv 2207.13532), so that patches stay worth reading.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTModel

from eyechart.train.crops import Crops
from eyechart.train.towers import TowerShape, export_tower, make_tower, sine_positions, to_pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoViewSettings:
    """What the encoder is trained against."""

    temperature: float = 0.1
    momentum: float = 0.99
    """Of the teacher in the first step; it rises to 1 along a cosine."""

    steps: int = 1
    """How many steps there will be, for that rise."""

    hidden: float = 0.5
    """Share of the patches that the student is not shown."""

    painting: float = 1.0
    """Weight of painting them in; 0 leaves the decoder out."""

    pooling: Literal["cls", "mean_patch"] = "mean_patch"
    """What stands for the whole picture when views are compared."""

    head_size: int = 256
    decoder_size: int = 64
    decoder_layers: int = 1
    crops: Crops = field(default_factory=Crops)

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if not 0 <= self.hidden < 1:
            raise ValueError(f"hidden must be at least 0 and below 1, got {self.hidden}")
        if self.painting and not self.hidden:
            raise ValueError(f"painting {self.painting} with no patch hidden: there is nothing to paint")


class TwoView(nn.Module):
    """Student, teacher, and what is thrown away after training: heads and decoder."""

    def __init__(self, shape: TowerShape, settings: TwoViewSettings) -> None:
        super().__init__()
        self.shape, self.settings = shape, settings
        self.student = make_tower(shape)
        self.head = _head(shape.hidden_size, settings.head_size)
        self.predictor = _head(settings.head_size, settings.head_size)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.teacher_head = copy.deepcopy(self.head).requires_grad_(False)
        self.decoder = _Decoder(shape, settings) if settings.painting else None

    def forward(
        self, first: Float[Tensor, "image 3 side side"], second: Float[Tensor, "image 3 side side"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss of finding `second[i]` from `first[i]`, and of painting what was hidden of `first`."""
        keep = _kept(len(first), self.shape.grid**2, self.settings.hidden).to(first.device)
        tokens = encode_kept(self.student, first, keep)
        asked = self.predictor(self.head(_pool(tokens, self.settings.pooling)))
        with torch.no_grad():
            seen = self.teacher(second).last_hidden_state
            answers = self.teacher_head(_pool(seen, self.settings.pooling))
        found = finding_loss(asked, answers, self.settings.temperature)
        if self.decoder is None:
            return found, torch.zeros_like(found)
        return found, self.decoder(tokens, keep, first)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move the teacher a little towards the student, after so many steps were done."""
        done = min(step / self.settings.steps, 1.0)
        momentum = 1 - (1 - self.settings.momentum) * (1 + math.cos(math.pi * done)) / 2
        for mean, now in ((self.teacher, self.student), (self.teacher_head, self.head)):
            for slow, fast in zip(mean.parameters(), now.parameters(), strict=True):
                slow.lerp_(fast, 1 - momentum)


class TwoViewObjective:
    """The loss of one batch; crops and hidden patches come from torch's generator."""

    def __init__(self, settings: TwoViewSettings) -> None:
        self._settings = settings

    def __call__(
        self, model: TwoView, batch: Mapping[str, UInt8[Tensor, "image side side 3"]]
    ) -> Float[Tensor, ""]:
        """Both terms for `batch["first"]` and `batch["second"]`: two pictures of each scene, or one picture twice."""
        crops = self._settings.crops
        first, second = (crops(to_pixels(batch[name])) for name in ("first", "second"))
        found, painted = model(first, second)
        loss: Tensor = found + self._settings.painting * painted
        return loss


def follow(model: TwoView, step: int) -> None:
    """`TwoView.follow` as the training loop calls it after each step."""
    model.follow(step)


def finding_loss(
    asked: Float[Tensor, "image dim"], answers: Float[Tensor, "image dim"], temperature: float
) -> Float[Tensor, ""]:
    """InfoNCE: the cross-entropy of picking the own answer by cosine, all others of the batch being wrong."""
    logits = functional.normalize(asked, dim=1) @ functional.normalize(answers, dim=1).T / temperature
    return functional.cross_entropy(logits, torch.arange(len(asked), device=asked.device))


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


def export_two_view(model: TwoView, folder: Path) -> Path:
    """Write the teacher, which is the average of the student over its last steps, as a `ViTModel`."""
    return export_tower(model.teacher.state_dict(), model.shape, folder)


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
        return (painted - wanted).square().mean(dim=-1)[_hidden(keep, wanted.shape[1])].mean()


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


def _head(width: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 512), nn.GELU(), nn.Linear(512, out))
