"""What a mixture's adapters really read of an image, taken where it enters them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from eyechart.models.fed import Fed
from eyechart.models.geometry.inputs import picture_inputs
from eyechart.models.geometry.proof import Parts, Reached, hooked, run_until_reached
from eyechart.models.mixtures.modeling import MixtureForConditionalGeneration


def mixture_fed(
    model: MixtureForConditionalGeneration, processor: Any, images: Sequence[Image.Image], towers: Parts
) -> list[Fed]:
    """The features of each image; call it in eval mode and without gradients.

    Of an additive or concatenated mixture they are what the one adapter reads. Of an interleaved one, what its two
    adapters read of a cell stands side by side: with one of them alone, a fact that the other brings would be missed.
    """
    return [_fed(model, _entered(model, processor, image, towers)) for image in images]


def _entered(
    model: MixtureForConditionalGeneration, processor: Any, image: Image.Image, towers: Parts
) -> list[Tensor]:
    """What enters each adapter in a pass on one image, in their order."""
    inputs = {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in picture_inputs(processor, image).items()
    }
    taken: dict[str, Tensor] = {}

    def take(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        taken[name] = args[0][0].float().cpu()

    def stop(module: nn.Module, args: Any) -> None:
        raise Reached

    handles = [
        one.register_forward_pre_hook(partial(take, name)) for name, one in model.model.adapters.items()
    ]
    handles.append(towers.language_blocks[0].register_forward_pre_hook(stop))
    with hooked(handles):
        run_until_reached(model, inputs)
    return list(taken.values())


def _fed(model: MixtureForConditionalGeneration, entered: Sequence[Tensor]) -> Fed:
    config = model.config
    cells = len(entered[0])
    rows, columns = _rows_and_columns(config, cells)
    place = torch.arange(cells)
    tower: Any = config.examined_config
    layer = config.vision_layer if config.examined_encoder == "first" else config.second_layer
    return Fed(
        features=torch.cat(list(entered), dim=1),
        cells=torch.stack([place * 0, place // columns, place % columns], dim=1),
        grids=((rows, columns),),
        layer=layer % (tower.num_hidden_layers + 1),
        last_layer=tower.num_hidden_layers,
        pooling="all patches without other tokens",
        encoder=" + ".join(type(one).__name__ for one in model.model.encoders.values()),
        note=_note(model),
    )


def _rows_and_columns(config: Any, cells: int) -> tuple[int, int]:
    if config.grid:
        return config.grid[0], config.grid[1]
    side = round(cells**0.5)
    return (side, side) if side * side == cells else (1, cells)


def _note(model: MixtureForConditionalGeneration) -> str:
    """How the features came about, in words."""
    config = model.config
    read = {
        "first": (config.vision_layer, config.vision_norm),
        "second": (config.second_layer, config.second_norm),
    }
    parts = [
        f"layer {read[name][0]} of {type(tower).__name__}{' after its final norm' if read[name][1] else ''}"
        for name, tower in zip(config.active, model.model.encoders.values(), strict=True)
    ]
    how = {
        "single": "",
        "additive": f"A-MoF at alpha {config.alpha:g} (share of the first): ",
        "interleaved": "I-MoF, two tokens a cell, here side by side: ",
        "concatenated": "concatenated: ",
    }[config.mixture]
    scale = ", each channel standardised" if config.standardise == "per_channel" else ""
    named = f"; layer named: the {config.examined_encoder} encoder's" if len(parts) > 1 else ""
    return how + ", ".join(parts) + scale + named
