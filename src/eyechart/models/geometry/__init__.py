"""Derive the geometry record of an image from the processor that made its tensor, and check it.

A VLM's record maps pixels to LLM positions (`derive_geometry`); an encoder's, or that of a VLM's vision tower, maps
pixels to its patch features (`encoder_geometry`, `tower_geometry`). Nothing is guessed: what the tensors contradict,
and what cannot be measured, is refused with the reason.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from eyechart.core.errors import Incapable
from eyechart.core.geometry import Geometry, raster
from eyechart.models.geometry.fiducial import Canvases, Process, disagreement, measured_views
from eyechart.models.geometry.inputs import Outputs, as_examined, images_of, picture_inputs, picture_positions
from eyechart.models.geometry.layouts import KNOWN, Case, laid_out, no_map, patch_side, patches, tile
from eyechart.models.geometry.pixels import packing
from eyechart.models.geometry.proof import Parts, prove_positions
from eyechart.models.geometry.views import View, derived_views

__all__ = ["derive_geometry", "encoder_geometry", "tower_geometry", "verify_geometry"]


def derive_geometry(
    processor: Any,
    model_or_config: Any,
    image: Image.Image,
    inputs: Outputs | None = None,
    *,
    towers: Parts | None = None,
) -> Geometry:
    """The map between the pixels of an image and a VLM's language positions.

    Position k of the record is the k-th image position of the input, in order. Model types not in
    `layouts.KNOWN` are proved on the model itself (`proof.py`) where its towers are given, and image processors
    not known are measured; the record's note says how far it was proved.

    Args:
        processor: the VLM's processor.
        model_or_config: the VLM, or its config.
        image: one picture in RGB.
        inputs: what the processor made of a prompt with just this image; made here when None.
        towers: the parts of the model, which must then be the model itself and in eval mode.

    Raises:
        Incapable: the model has no spatial map in its language sequence (Q-Former, cross-attention), its
            processor does no clean resize, crop and padding, or the derived number of positions is not the
            real one. The text says which, with both numbers.
    """
    config = getattr(model_or_config, "config", model_or_config)
    if reason := no_map(config):
        raise Incapable(f"{config.model_type} has no spatial map in its language sequence: {reason}")
    given = picture_inputs(processor, image) if inputs is None else inputs
    positions = picture_positions(given, config, processor)
    if not positions:
        raise Incapable(f"{config.model_type} has no spatial map: its input holds no positions for the image")
    size = (image.height, image.width)
    views = _views_fed(processor, config, given, size)
    strategy = getattr(config, "vision_feature_select_strategy", None)
    case = Case(config=config, views=views, size=size, count=len(positions), strategy=strategy)
    note = f"{_processors(processor, config)}, laid out as {config.model_type}"
    note += _unlike(config, views)
    geometry = Geometry(image_size=size, tiles=laid_out(case), length=len(positions), note=note)
    if config.model_type in KNOWN:
        return geometry
    if towers is None or not isinstance(model_or_config, nn.Module):
        return replace(geometry, note=f"{note}: taken to lie in reading order, which was not proved")
    placed = {key: _placed(value, model_or_config) for key, value in given.items()}
    held = packing(given, processor.image_processor)
    prove_positions(model_or_config, placed, positions, geometry, held, towers)
    return replace(geometry, note=f"{note}: reading order proved on the model")


def _placed(value: Any, model: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(device=model.device, dtype=model.dtype if value.is_floating_point() else None)


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
    given = picture_inputs(processor, image) if inputs is None else inputs
    size = (image.height, image.width)
    images = images_of(processor, config)
    process = _process(processor) if images is processor.image_processor else _process(images)
    views = _views(images, as_examined(given, config), size, process)
    return _patch_geometry(views, config, size, images)


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
    views = _views(image_processor, given, size, _process(image_processor))
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


def _views_fed(processor: Any, config: Any, given: Outputs, size: tuple[int, int]) -> Sequence[View]:
    """What each canvas shows whose features reach the language model: of a mixture of encoders each encoder's."""
    first = _views(processor.image_processor, given, size, _process(processor))
    active = getattr(config, "active", ("first",))
    if "second_pixel_values" not in given or active == ("first",):
        return [*first] * len(active)
    images = processor.second_image_processor
    held = {**given, "pixel_values": given["second_pixel_values"]}
    second = _views(images, held, size, _process(images))
    return [*second] if active == ("second",) else [*first, *second]


def _unlike(config: Any, views: Sequence[View]) -> str:
    """Says so where a mixture's encoders are shown different parts of a picture, and one position holds both."""
    if getattr(config, "tokens_per_cell", 2) == 2 or len(views) < 2 or views[0].box == views[1].box:
        return ""
    return f"; a position's cell is where the {config.examined_encoder} encoder looks, the other is shown another part"


def _processors(processor: Any, config: Any) -> str:
    """The image processors whose canvases a record is about."""
    first, second = processor.image_processor, getattr(processor, "second_image_processor", None)
    if len(getattr(config, "active", ())) < 2 or getattr(processor, "second_sees", "") != "own":
        return type(images_of(processor, config)).__name__
    return f"{type(first).__name__} and {type(second).__name__}"


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


def verify_geometry(processor: Any, size: tuple[int, int]) -> None:
    """Send fiducial images of a size through the real processor and compare every canvas with the derived map.

    Args:
        processor: a VLM's processor, or an encoder's image processor.
        size: height and width of the image in pixels.

    Raises:
        Incapable: they disagree (the text says where and by how much), or there is no map to derive.
    """
    process, inner = _process(processor), getattr(processor, "image_processor", processor)
    blank = Image.new("RGB", (size[1], size[0]))
    given = (
        inner(images=[blank], return_tensors="pt") if inner is processor else picture_inputs(processor, blank)
    )
    if wrong := disagreement(_views(inner, given, size, process), process, size):
        raise Incapable(f"{type(inner).__name__} contradicts the derived geometry: {wrong}")


def _process(processor: Any) -> Process:
    """From a picture to its canvases, through a VLM's processor or an image processor."""
    inner = getattr(processor, "image_processor", None)

    def process(image: Image.Image) -> Canvases:
        if inner is None:
            given = processor(images=[image], return_tensors="pt")
        else:
            given = picture_inputs(processor, image)
        unpacked: Tensor = packing(given, inner or processor).unpack(given["pixel_values"])
        return np.asarray(unpacked.float().cpu())

    return process
