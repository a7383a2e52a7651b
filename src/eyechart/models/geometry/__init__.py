"""Derive the geometry record of an image from the processor that made its tensor, and check it.

A VLM's record maps pixels to LLM positions (`derive_geometry`); an encoder's, or that of a VLM's vision tower, maps
pixels to its patch features (`encoder_geometry`, `tower_geometry`). Nothing is guessed: what the tensors contradict,
and what cannot be measured, is refused with the reason.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from eyechart.core.errors import Incapable
from eyechart.core.geometry import Geometry, raster
from eyechart.core.records import Prompt
from eyechart.models.geometry.fiducial import Canvases, Process, disagreement, measured_views
from eyechart.models.geometry.layouts import KNOWN, Case, laid_out, no_map, patch_side, patches, tile
from eyechart.models.geometry.pixels import packing
from eyechart.models.geometry.proof import prove_positions
from eyechart.models.geometry.views import View, derived_views
from eyechart.models.vlms.prompting import Prompting, image_positions

__all__ = ["derive_geometry", "encoder_geometry", "tower_geometry", "verify_geometry"]

Outputs = Mapping[str, Any]
"""What a processor made of one image."""


class _ConfigOnly:
    """Stands for a model where only its config is wanted: inputs stay on the CPU in float32."""

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, config: Any) -> None:
        self.config = config

    def get_input_embeddings(self) -> nn.Module:
        raise NotImplementedError


def derive_geometry(
    processor: Any, model_or_config: Any, image: Image.Image, inputs: Outputs | None = None
) -> Geometry:
    """The map between the pixels of an image and a VLM's language positions.

    Position k of the record is the k-th image position of the input, in order. Model types not in
    `layouts.KNOWN` are proved on the model itself (`proof.py`) where a model is given, and on the processor
    always; the record's note says how far it was proved.

    Args:
        processor: the VLM's processor.
        model_or_config: the VLM, or its config.
        image: one picture in RGB.
        inputs: what the processor made of a prompt with just this image; made here when None.

    Raises:
        Incapable: the model has no spatial map in its language sequence (Q-Former, cross-attention), its
            processor does no clean resize, crop and padding, or the derived number of positions is not the
            real one. The text says which, with both numbers.
    """
    config = getattr(model_or_config, "config", model_or_config)
    if reason := no_map(config):
        raise Incapable(f"{config.model_type} has no spatial map in its language sequence: {reason}")
    prompting = Prompting(_ConfigOnly(config), processor)
    given = prompting.inputs([_prompt(image)]) if inputs is None else inputs
    positions = image_positions(given, prompting.image_token_id)
    if not positions:
        raise Incapable(f"{config.model_type} has no spatial map: its input holds no positions for the image")
    size = (image.height, image.width)
    views = _views(processor.image_processor, given, size, _vlm_process(prompting, processor.image_processor))
    strategy = getattr(config, "vision_feature_select_strategy", None)
    case = Case(config=config, views=views, size=size, count=len(positions), strategy=strategy)
    note = f"{type(processor.image_processor).__name__}, laid out as {config.model_type}"
    geometry = Geometry(image_size=size, tiles=laid_out(case), length=len(positions), note=note)
    if config.model_type in KNOWN:
        return geometry
    return _proved(geometry, model_or_config, given, positions, processor)


def _proved(
    geometry: Geometry, model: Any, inputs: Outputs, positions: Sequence[int], processor: Any
) -> Geometry:
    """A record whose layout was only supposed, with its note saying whether the model bore it out."""
    if not isinstance(model, nn.Module):
        note = f"{geometry.note}: supposed to lie in reading order, not proved, since only the config was given"
    else:
        prove_positions(model, inputs, positions, geometry, packing(inputs, processor.image_processor))
        note = f"{geometry.note}: reading order proved on the model"
    return Geometry(image_size=geometry.image_size, tiles=geometry.tiles, length=geometry.length, note=note)


def tower_geometry(
    processor: Any, model_or_config: Any, image: Image.Image, inputs: Outputs | None = None
) -> Geometry:
    """The map between the pixels of an image and the patches of a VLM's vision tower, before any merging.

    Positions count the patches of all canvases in reading order, tokens that are no patches (class token,
    registers) left out. A model without positions in its language sequence (Q-Former, cross-attention) has this map.

    Raises:
        Incapable: as for `derive_geometry`, but for the language sequence.
    """
    config = getattr(model_or_config, "config", model_or_config)
    prompting = Prompting(_ConfigOnly(config), processor)
    given = prompting.inputs([_prompt(image)]) if inputs is None else inputs
    process = _vlm_process(prompting, processor.image_processor)
    size = (image.height, image.width)
    return _patch_geometry(
        _views(processor.image_processor, given, size, process), config, size, processor.image_processor
    )


def encoder_geometry(image_processor: Any, config: Any, image: Image.Image) -> Geometry:
    """The map between the pixels of an image and an encoder's patch features.

    Positions count the patches in reading order, tokens that are no patches (class token, registers) left out.

    Args:
        image_processor: the encoder's own.
        config: of the encoder; a CLIP-like one is read for its vision half.
        image: one picture in RGB.

    Raises:
        Incapable: the processor does no clean resize, crop and padding, or the encoder has no patches.
    """
    size = (image.height, image.width)
    given = image_processor(images=[image], return_tensors="pt")
    views = _views(image_processor, given, size, _encoder_process(image_processor))
    return _patch_geometry(views, config, size, image_processor)


def _patch_geometry(
    views: Sequence[View], config: Any, size: tuple[int, int], image_processor: Any
) -> Geometry:
    patch = patch_side(config)
    tiles, start = [], 0
    for view in views:
        rows, columns = patches(view, patch)
        if not rows * columns:
            raise Incapable(f"a canvas of {view.canvas} holds no patch of {patch} pixels: no spatial map")
        tiles.append(tile(view, patch, raster(rows, columns, start=start)))
        start += rows * columns
    note = f"{type(image_processor).__name__}, patches of {patch[0]} x {patch[1]} pixels"
    return Geometry(image_size=size, tiles=tuple(tiles), length=start, note=note)


def _views(image_processor: Any, given: Outputs, size: tuple[int, int], process: Process) -> Sequence[View]:
    held = packing(given, image_processor)
    known = derived_views(image_processor, size, tiles=held.tiles, canvas=held.canvas)
    views = known or measured_views(process, size)
    if views is None:
        raise Incapable(
            f"{type(image_processor).__name__} has no spatial map that could be measured on an image of {size[1]} x "
            f"{size[0]} pixels: it is no clean resize, crop and padding, or the image is too small to tell"
        )
    return views


def verify_geometry(
    geometry: Geometry, image_processor: Any, *, processor: Any = None, config: Any = None
) -> None:
    """Send fiducial images through the real processor and compare every canvas with the record.

    Args:
        geometry: of an image of `geometry.image_size`; the pictures sent have that size.
        image_processor: the one that makes the canvases.
        processor: the VLM's processor, whose own settings override its image processor's; None for an encoder.
        config: of the VLM, wanted with `processor`.

    Raises:
        Incapable: they disagree; the text says where and by how much.
    """
    if processor is None:
        process = _encoder_process(image_processor)
    else:
        process = _vlm_process(Prompting(_ConfigOnly(config), processor), image_processor)
    views = [View(box=t.box, shown=t.shown, canvas=t.canvas, whole=t.whole) for t in geometry.tiles]
    if wrong := disagreement(views, process, geometry.image_size):
        raise Incapable(f"{type(image_processor).__name__} contradicts the derived geometry: {wrong}")


def _prompt(image: Image.Image) -> Prompt:
    return Prompt(text="a", images=(image,))


def _vlm_process(prompting: Prompting, image_processor: Any) -> Process:
    def process(image: Image.Image) -> Canvases:
        return _canvases(prompting.inputs([_prompt(image)]), image_processor)

    return process


def _encoder_process(image_processor: Any) -> Process:
    def process(image: Image.Image) -> Canvases:
        return _canvases(image_processor(images=[image], return_tensors="pt"), image_processor)

    return process


def _canvases(given: Outputs, image_processor: Any) -> Canvases:
    pixels = given["pixel_values"]
    unpacked: Tensor = packing(given, image_processor).unpack(pixels)
    return np.asarray(unpacked.float().cpu())
