"""What a VLM's projector really reads: the features, the layer and the tokens they come from, and their grid.

The tensor is taken where it enters the projector, in a forward pass of the model on the processor's real output.
Which layer it is, and which token stands where, is proved and not read from the config: on random pixels every number
is traced to a state of the vision tower (`provenance.py`) and every token to a patch (`geometry/proof.py`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from eyechart.core.errors import Incapable
from eyechart.models.geometry.inputs import Outputs, picture_inputs
from eyechart.models.geometry.proof import Parts
from eyechart.models.provenance import Axes, Match, Place, Trace, joined, match, traced
from eyechart.models.token_places import cells_of_rows, grids_of, patch_of_token, reading_order

POOLING = "mean_fed"
"""The name of `pool`: the mean over all tokens that the projector reads."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fed:
    """What the projector reads of one image."""

    features: Float[Tensor, "token dim"]
    """In float32 on the CPU, canvas after canvas; on each first the tokens that are no patch, then reading order."""

    cells: Int[Tensor, "token 3"]
    """Of each token its canvas, row and column; row and column are -1 for a token without a place."""

    grids: tuple[tuple[int, int], ...]
    """Rows and columns of each canvas; empty where the tokens have no places."""

    layer: int | tuple[int, ...] | None
    """Counted as in `hidden_states`, 0 being what the first block reads; several when layers are concatenated; None
    when the features are no layer's."""

    last_layer: int
    """How many blocks the tower has, and so the number of its last layer."""

    pooling: str
    """Which tokens, and what was done to them, in words."""

    encoder: str
    """Class of the vision tower."""

    note: str = ""

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns, where all canvases have the same."""
        return self.grids[0] if len(set(self.grids)) == 1 else None

    @property
    def tiles(self) -> int:
        """How many canvases the image was cut into."""
        return int(self.cells[:, 0].max()) + 1

    @property
    def layers_from_end(self) -> tuple[int, ...]:
        """The layers as negative indices into `hidden_states`; none when no layer was found."""
        layers = self.layer if isinstance(self.layer, tuple) else (self.layer,)
        return tuple(layer - self.last_layer - 1 for layer in layers if layer is not None)

    def describe(self) -> dict[str, Any]:
        """The `fed` block of results.json."""
        return {
            "encoder": self.encoder,
            "layer": list(self.layer) if isinstance(self.layer, tuple) else self.layer,
            "pooling": self.pooling,
            "grid": None if self.grid is None else list(self.grid),
            "dim": self.features.shape[1],
            "note": self.note,
        }


def pool(fed: Fed) -> Float[Tensor, " dim"]:
    """One vector for an image, `mean_fed`: the mean over all tokens that the projector reads."""
    return fed.features.mean(dim=0)


def fed_features(model: Any, processor: Any, images: Sequence[Image.Image], towers: Parts) -> list[Fed]:
    """What the projector reads of each image.

    Images go through the model one by one, so that none depends on another. The proof of layers and places runs on
    random pixels once for each shape of input.

    Args:
        model: a VLM of transformers.
        processor: its processor.
        images: pictures in RGB.
        towers: the model's parts, resolved with a forward pass.

    Raises:
        Incapable: nothing was found between vision tower and language model, so there is no projector.
    """
    if not towers.bridge_names:
        raise Incapable(
            f"{type(model).__name__} has no projector: no module was seen to carry the image from the vision tower to "
            "the language model"
        )
    plans: dict[tuple[Any, ...], _Plan] = {}
    found = []
    with _reading(model):
        for image in images:
            inputs = {key: _placed(value, model) for key, value in picture_inputs(processor, image).items()}
            key = _key(inputs)
            if key not in plans:
                plans[key] = _plan(model, processor, inputs, towers)
            found.append(plans[key].read(traced(model, inputs, towers, states=False)))
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Plan:
    """How to read the features of every image whose inputs have one shape."""

    sources: tuple[tuple[Place, Axes], ...]
    """What to read; several are put side by side."""

    order: Int[Tensor, " token"]
    """Which of the rows read comes at each place of the record."""

    cells: Int[Tensor, "token 3"]
    grids: tuple[tuple[int, int], ...]
    layer: int | tuple[int, ...] | None
    last_layer: int
    pooling: str
    encoder: str
    note: str

    def read(self, trace: Trace) -> Fed:
        rows = torch.cat([joined(trace.entered[place], axes).float() for place, axes in self.sources], dim=1)
        return Fed(
            features=rows.cpu()[self.order],
            cells=self.cells,
            grids=self.grids,
            layer=self.layer,
            last_layer=self.last_layer,
            pooling=self.pooling,
            encoder=self.encoder,
            note=self.note,
        )


def _plan(model: Any, processor: Any, inputs: Outputs, towers: Parts) -> _Plan:
    trace = traced(model, _random(inputs, seed=0), towers)
    found = _readers(trace)
    if not found:
        return _unmatched(model, inputs, towers, trace)
    matches = list(found.values())
    tokens = torch.cat([each.tokens for each in matches], dim=1)
    layers = tuple(layer for each in matches for layer in _layers(each))
    norms = tuple(dict.fromkeys(norm for each in matches for norm in each.norms))
    count = next(len(s.prints) for s in trace.states if s.layer == layers[-1])
    patches, why = _patches(model, processor, inputs, towers, count)
    cells, side = cells_of_rows(tokens, patches)
    empty = _empty_canvases(inputs)
    order = reading_order(cells)
    order = order[~torch.isin(cells[order, 0], empty)]
    last = len(towers.vision_blocks)
    return _Plan(
        sources=tuple((place, each.axes) for place, each in found.items()),
        order=order,
        cells=cells[order],
        grids=grids_of(cells[order]),
        layer=layers[0] if len(layers) == 1 else layers,
        last_layer=last,
        pooling=_words(tokens, patches, side, count, layers, norms, last),
        encoder=type(towers.vision).__name__,
        note="; ".join(filter(None, [why, *_notes(found, len(empty))])),
    )


def _layers(found: Match) -> tuple[int, ...]:
    """The layers side by side in a row; a layer that gives several tokens to each row counts once."""
    same_token = bool((found.tokens == found.tokens[:, :1]).all())
    return found.layers if same_token else tuple(dict.fromkeys(found.layers))


def _patches(
    model: Any, processor: Any, inputs: Outputs, towers: Parts, count: int
) -> tuple[Int[Tensor, "token 3"] | None, str]:
    """The patch of each of a layer's `count` tokens, or None and why not."""
    patches, why = patch_of_token(model, processor.image_processor, inputs, towers)
    if patches is None or len(patches) == count:
        return patches, why
    return None, f"no grid: the tower has {len(patches)} tokens at first and {count} where they are read"


def _notes(found: dict[Place, Match], empty: int) -> Iterator[str]:
    alike = sorted({layer for each in found.values() for layer in each.alike})
    if alike:
        yield f"layers {alike} hold the very same numbers"
    if len(found) > 1:
        yield f"put together from what {', '.join(place.module for place in found)} read"
    if empty:
        yield f"empty canvases left out: {empty}"


def _empty_canvases(inputs: Outputs) -> Int[Tensor, " canvas"]:
    """Canvases that only fill up the batch (Mllama); the projector reads them, and no later module does."""
    real = inputs.get("aspect_ratio_mask")
    return torch.arange(0) if real is None else (real.flatten() == 0).nonzero().flatten().cpu()


def _readers(trace: Trace) -> dict[Place, Match]:
    """What entered the bridge and is made of the tower's states, each once; all of as many rows as the last."""
    found: dict[Place, Match] = {}
    for place, calls in trace.entered.items():
        made = match(calls, trace)
        if made is not None and not any(_same(made, other) for other in found.values()):
            found[place] = made
    rows = [len(each.tokens) for each in found.values()]
    return {place: each for place, each in found.items() if len(each.tokens) == rows[-1]}


def _same(first: Match, second: Match) -> bool:
    alike = first.layers == second.layers and first.norms == second.norms
    return alike and torch.equal(first.tokens, second.tokens)


def _unmatched(model: Any, inputs: Outputs, towers: Parts, first: Trace) -> _Plan:
    """The first thing to enter the bridge that depends on the picture, with no layer named."""
    second = traced(model, _random(inputs, seed=1), towers, states=False)
    for place, calls in first.entered.items():
        if not all(torch.equal(a, b) for a, b in zip(calls, second.entered[place], strict=True)):
            axes: Axes = "map" if calls[0].ndim == 4 and calls[0].shape[1] in first.widths else "last"
            rows = len(joined(calls, axes))
            return _Plan(
                sources=((place, axes),),
                order=torch.arange(rows),
                cells=torch.tensor([[0, -1, -1]]).repeat(rows, 1),
                grids=(),
                layer=None,
                last_layer=len(towers.vision_blocks),
                pooling="as it enters the projector",
                encoder=type(towers.vision).__name__,
                note=f"what enters {place.module} is, number for number, no layer of the vision tower, "
                "so no layer is named",
            )
    raise Incapable(
        f"{type(model).__name__}: nothing that enters {', '.join(towers.bridge_names)} depends on the picture, so "
        "there is nothing to read"
    )


def _words(
    tokens: Int[Tensor, "row state"],
    patches: Int[Tensor, "token 3"] | None,
    side: int,
    count: int,
    layers: tuple[int, ...],
    norms: tuple[str, ...],
    last: int,
) -> str:
    """Which tokens are read, and what was done to them on the way."""
    words = [_which(tokens, patches, count)]
    if side > 1:
        words.append(f"{side} x {side} patches in each")
    if len(layers) > 1:
        words.append(f"concatenated layers ({', '.join(str(layer - last - 1) for layer in layers)})")
    for norm in norms:
        words.append(f"after final norm ({norm})" if "norm" in norm or "ln" in norm else f"after {norm}")
    return ", ".join(words)


def _which(tokens: Int[Tensor, "row state"], patches: Int[Tensor, "token 3"] | None, count: int) -> str:
    used = torch.tensor(sorted(set(tokens.flatten().tolist())))
    if patches is None:
        return "all tokens" if len(used) == count else f"{len(used)} of {count} tokens"
    outside, canvases = patches[:, 1] < 0, int(patches[:, 0].max()) + 1
    others, kept = int(outside.sum()), int(outside[used].sum())
    seen, of_seen = len(used) - kept, int((~outside).sum())
    part = "patches" if seen == of_seen else f"{seen} of {of_seen} patches"
    if not others:
        return "all patches" if seen == of_seen else part
    if others == canvases:
        return f"{part} {'with' if kept else 'without'} CLS"
    each, of_each = kept // canvases, others // canvases
    return (
        f"{part} with {each} of {of_each} other tokens" if kept else f"{part} without {of_each} other tokens"
    )


def _random(inputs: Outputs, *, seed: int) -> dict[str, Any]:
    pixels: Tensor = inputs["pixel_values"]
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
    return {**inputs, "pixel_values": noise.to(pixels)}


def _key(inputs: Outputs) -> tuple[Any, ...]:
    """What the plan of an input depends on: the shape of its pixels, and what else says how they are cut."""
    rest = {key: value for key, value in inputs.items() if key not in ("pixel_values", "attention_mask")}
    tensors = ((k, v.cpu().numpy().tobytes()) for k, v in rest.items() if isinstance(v, Tensor))
    return (tuple(inputs["pixel_values"].shape), *sorted(tensors))


def _placed(value: Any, model: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(device=model.device, dtype=model.dtype if value.is_floating_point() else None)


@contextmanager
def _reading(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for a block; each module's own mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
