"""The encoder: pictures in, one named vector each out, or the patch states of any layer; texts too where it has them.

What a picture gives does not depend on the pictures it came with. On a CPU the tower runs one picture at a time,
which costs little there and is the same bit for bit. On a GPU it runs batches of one fixed size, the last one filled
up, so that every picture meets kernels of the same shape whatever its neighbours are.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from eyechart.core.errors import Incapable, UserError, unknown

POOLINGS: Mapping[str, str] = {
    "projected": "the image embedding that is compared with texts (CLIP: after its projection; SigLIP: its pooling head)",
    "cls": "the class token after the final norm, before any projection",
    "mean_patch": "the mean over patches after the final norm, without class and register tokens",
}
"""The names of what stands for a whole picture."""


class Reading(NamedTuple):
    """What one run of a tower gives, for a batch of pictures of one shape."""

    projected: Float[Tensor, "image dim"] | None
    tokens: Float[Tensor, "image token width"] | None
    """After the final norm, prefix tokens first."""

    layer: Float[Tensor, "image token width"] | None
    """Of the layer asked for, before the final norm, prefix tokens first."""


@runtime_checkable
class ImageTower(Protocol):
    """What the adapters to transformers, timm and open_clip have in common."""

    kind: Literal["clip_like", "vision_only"]
    dims: dict[str, int]
    """The poolings there are, and how long their vectors are."""
    layers: int
    """How many blocks there are; 0 where there is no sequence of tokens to look at."""
    prefix: int
    """How many tokens come before the patches: class token, registers."""
    preprocessing: str
    notes: tuple[str, ...]
    device: torch.device
    dtype: torch.dtype

    def prepare(self, image: Image.Image) -> dict[str, Tensor]:
        """The tensors of one picture, each with a leading axis of one."""

    def grid(self, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
        """Rows and columns of patches of one prepared picture."""

    def read(self, inputs: Mapping[str, Tensor], *, layer: int | None = None) -> Reading:
        """Run the tower on prepared pictures of one shape, stacked."""

    def read_texts(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """Embed texts into the space of `projected`; raises Incapable where there is no text tower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchFeatures:
    """The patch states of one layer. States are those between blocks, before the final norm."""

    features: Float[Tensor, "image patch width"]
    """float32 on the CPU, patches row by row from the top left."""

    grid: tuple[int, int]
    """Rows and columns."""

    layer: int
    """0 is what enters the first block, n is what leaves block n."""

    layers: int
    prefix: int
    """How many class and register tokens were taken off the front."""

    @property
    def stage(self) -> str:
        """Which states these are, in words."""
        if self.layer == 0:
            return "the embeddings, as they enter the first block"
        return f"the output of block {self.layer} of {self.layers}, before the final norm"


class Encoder:
    """A loaded encoder. Made by `load_encoder`."""

    def __init__(self, tower: ImageTower, *, id: str, revision: str | None, sha256: str | None) -> None:
        self._tower = tower
        self._one_by_one = tower.device.type == "cpu"
        self.id = id
        self.revision = revision
        self.sha256 = sha256
        self.kind = tower.kind
        self.dims = dict(tower.dims)
        self.poolings = tuple(name for name in POOLINGS if name in self.dims)
        self.default_pooling = self.poolings[0]
        self.layers = tower.layers
        self.preprocessing = tower.preprocessing
        self.notes = tower.notes
        self.device = str(tower.device)
        self.dtype = str(tower.dtype).removeprefix("torch.")

    def __repr__(self) -> str:
        return f"Encoder({self.id!r}, {self.kind}, poolings={self.poolings}, dtype={self.dtype})"

    def embed(
        self, images: Sequence[Image.Image], *, pooling: str | None = None, batch_size: int = 8
    ) -> Float[Tensor, "image dim"]:
        """One vector for each picture, float32 on the CPU, not normalised.

        Args:
            images: RGB pictures of any size.
            pooling: one of `poolings`; the default is `default_pooling`.
            batch_size: how many pictures are prepared, and on a GPU computed, at once. It changes no result on a
                CPU; on a GPU keep it fixed for results that agree in the last bit.

        Raises:
            UserError: the encoder has no such pooling, or a picture is not RGB.
        """
        wanted = self._pooling(pooling)
        rows = []
        for pictures, inputs, count in self._batches(images, batch_size):
            reading = self._tower.read(inputs)
            rows.append((pictures, self._pool(reading, inputs, wanted)[:count].float().cpu()))
        return _in_order(rows) if rows else torch.zeros(0, self.dims[wanted])

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """One vector for each text, in the space of the pooling `projected`; float32 on the CPU, not normalised.

        Raises:
            Incapable: the encoder has no text tower.
            UserError: the checkpoint's text tower would pool at a token that does not end the text.
        """
        if not texts:
            return torch.zeros(0, self.dims["projected"]) if "projected" in self.dims else torch.zeros(0, 0)
        return self._tower.read_texts(texts).float().cpu()

    def patches(self, images: Sequence[Image.Image], *, layer: int, batch_size: int = 8) -> PatchFeatures:
        """The patch states of one layer: 0 is the embeddings, -1 what leaves the last block, before the final norm.

        Raises:
            Incapable: the encoder is no sequence of patch tokens.
            UserError: there is no such layer, a picture is not RGB, or the pictures give different grids.
        """
        place = self._layer(layer)
        if not images:
            raise UserError("no pictures were given, so there is no grid of patches to speak of")
        rows, grids = [], set()
        for pictures, inputs, count in self._batches(images, batch_size):
            states = self._tower.read(inputs, layer=place).layer
            assert states is not None
            grids |= {self._tower.grid(_one(inputs, row)) for row in range(count)}
            height, width = max(grids)
            start = self._tower.prefix
            rows.append((pictures, states[:count, start : start + height * width].float().cpu()))
        if len(grids) != 1:
            raise UserError(
                f"the pictures give grids of {len(grids)} shapes ({sorted(grids)}); ask for them one by one"
            )
        return PatchFeatures(
            features=_in_order(rows),
            grid=grids.pop(),
            layer=place,
            layers=self.layers,
            prefix=self._tower.prefix,
        )

    def cache_key(self, pooling: str | None = None) -> str:
        """A stable name for what `embed` gives: it changes with weights, pooling, preprocessing and number format."""
        pooling = self._pooling(pooling)
        weights = self.sha256 or f"{self.id}@{self.revision}"
        text = json.dumps([weights, pooling, self.preprocessing, self.dtype])
        return f"{pooling}-{self.dtype}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def describe(self) -> dict[str, Any]:
        """What a manifest should say about this encoder."""
        names = (
            "id",
            "revision",
            "sha256",
            "kind",
            "poolings",
            "layers",
            "preprocessing",
            "dtype",
            "device",
            "notes",
        )
        return {
            name: list(value) if isinstance(value := getattr(self, name), tuple) else value for name in names
        }

    def _pooling(self, given: str | None) -> str:
        if given is None:
            return self.default_pooling
        if given not in self.poolings:
            raise unknown(f"pooling of {self.id}", given, self.poolings)
        return given

    def _layer(self, given: int) -> int:
        if self.layers == 0:
            raise Incapable(f"{self.id} is no sequence of patch tokens, so it has no patch features by layer")
        if not -self.layers - 1 <= given <= self.layers:
            raise UserError(
                f"{self.id} has no layer {given}: give 0 (embeddings) to {self.layers} (what leaves the last block), "
                f"or -1 to {-self.layers - 1} from the end"
            )
        return given % (self.layers + 1)

    def _batches(
        self, images: Sequence[Image.Image], batch_size: int
    ) -> Iterator[tuple[list[int], dict[str, Tensor], int]]:
        """Places, stacked inputs, and how many of the rows are real; pictures of one shape come together."""
        if batch_size < 1:
            raise UserError(f"batch size must be 1 or more, got {batch_size}")
        size = 1 if self._one_by_one else batch_size
        waiting: dict[tuple[Any, ...], list[tuple[int, dict[str, Tensor]]]] = {}
        for place, image in enumerate(images):
            if image.mode != "RGB":
                raise UserError(
                    f"picture {place} is in mode {image.mode!r}, expected 'RGB': open it with open_image"
                )
            inputs = self._tower.prepare(image)
            shape = tuple(tensor.shape for tensor in inputs.values())
            waiting.setdefault(shape, []).append((place, inputs))
            if len(waiting[shape]) == size:
                yield self._stack(waiting.pop(shape), size)
        for rest in waiting.values():
            yield self._stack(rest, size)

    def _stack(
        self, rows: list[tuple[int, dict[str, Tensor]]], size: int
    ) -> tuple[list[int], dict[str, Tensor], int]:
        filled = [inputs for _, inputs in rows] + [rows[0][1]] * (size - len(rows))
        stacked = {name: torch.cat([inputs[name] for inputs in filled]) for name in filled[0]}
        moved = {
            name: tensor.to(self._tower.device, self._tower.dtype if tensor.is_floating_point() else None)
            for name, tensor in stacked.items()
        }
        return [place for place, _ in rows], moved, len(rows)

    def _pool(
        self, reading: Reading, inputs: Mapping[str, Tensor], pooling: str
    ) -> Float[Tensor, "image dim"]:
        if pooling == "projected":
            assert reading.projected is not None
            return reading.projected
        assert reading.tokens is not None
        if pooling == "cls":
            return reading.tokens[:, 0]
        start = self._tower.prefix
        means = []
        for row, tokens in enumerate(reading.tokens):
            height, width = self._tower.grid(_one(inputs, row))
            means.append(tokens[start : start + height * width].mean(dim=0))
        return torch.stack(means)


def _one(inputs: Mapping[str, Tensor], row: int) -> dict[str, Tensor]:
    return {name: tensor[row : row + 1] for name, tensor in inputs.items()}


def _in_order(rows: list[tuple[list[int], Tensor]]) -> Tensor:
    """Stack what came in batches of mixed order back into the order of the pictures."""
    places = torch.tensor([place for pictures, _ in rows for place in pictures])
    return torch.cat([row for _, row in rows])[torch.argsort(places)]
