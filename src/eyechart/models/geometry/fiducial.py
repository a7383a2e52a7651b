"""Measure what an image processor shows on its canvases by sending it images whose pixels say where they are.

Three images of one size go through the processor: black, white, and a ramp whose red grows to the right and whose
green grows downwards, dithered so that eight bits do not limit it. Where black and white come out alike there is
padding; elsewhere (ramp - black) / (white - black) is the original coordinate, whatever the normalisation.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from eyechart.core.errors import Incapable
from eyechart.core.geometry import Box, Length
from eyechart.models.geometry.views import Frame, View

Canvases: TypeAlias = npt.NDArray[np.float32]
"""Pixel canvases `[tile, channel, row, column]` of one image."""

Process: TypeAlias = Callable[[Image.Image], Canvases]

Array: TypeAlias = npt.NDArray[np.float64]

_FEW = 16
"""Fewer original pixels than this across are all within reach of a border's blur."""

_NEAR = 0.25
"""Measured borders this near (in pixels) to a whole number are taken for it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """What one axis of one canvas says: which pixels hold content, and the coordinate each reads there."""

    content: tuple[int, int]
    """First and one past the last canvas pixel that shows the image."""

    reads: Array
    """Original coordinate read at each canvas pixel; NaN in padding."""

    size: int
    """Of the original image along this axis."""


_Reading: TypeAlias = tuple[_Axis, _Axis]


def fiducials(size: tuple[int, int]) -> tuple[Image.Image, Image.Image, Image.Image]:
    """The black, the white and the ramp image of that height and width, in RGB."""
    height, width = size
    black = np.zeros((height, width, 3), dtype=np.uint8)
    noise = np.random.default_rng(0).random((height, width, 2))
    ramp = black.copy()
    ramp[..., 0] = 255 * (np.arange(width) + 0.5) / width + noise[..., 0]
    ramp[..., 1] = (255 * (np.arange(height) + 0.5) / height)[:, None] + noise[..., 1]
    return Image.fromarray(black), Image.fromarray(black + np.uint8(255)), Image.fromarray(ramp)


def _read(process: Process, size: tuple[int, int]) -> list[_Reading | None]:
    """What each canvas says along its rows and its columns; None for an empty one."""
    black, white, ramp = (process(image).astype(np.float64) for image in fiducials(size))
    if not black.shape == white.shape == ramp.shape:
        raise Incapable(
            f"the processor's canvases depend on the content: {black.shape}, {white.shape}, {ramp.shape}"
        )
    return [_read_canvas(*three, size) for three in zip(black, white, ramp, strict=True)]


def _read_canvas(black: Array, white: Array, ramp: Array, size: tuple[int, int]) -> _Reading | None:
    span = white - black
    if not span.max() > 0:
        return None
    held = span > 0.5 * span.max(axis=(1, 2), keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        place = np.where(held, (ramp - black) / span, np.nan)
    rows = _axis(held[1], place[1] * size[0], size[0])
    return rows, _axis(held[0].T, place[0].T * size[1], size[1])


def _axis(held: npt.NDArray[np.bool], place: Array, size: int) -> _Axis:
    """The median over the second axis, inside the content.

    Beside padding a filter overshoots, and white is cut off at 255 where the ramp is not: a few rows read much too far.
    """
    inside = np.flatnonzero(held.any(axis=1))
    across = np.flatnonzero(held[inside].all(axis=0))
    reads = np.full(len(held), np.nan)
    reads[inside] = np.median(place[inside][:, across], axis=1)
    return _Axis((int(inside[0]), int(inside[-1]) + 1), reads, size)


def disagreement(views: Sequence[View], process: Process, size: tuple[int, int]) -> str:
    """How a processor contradicts the views derived for an image of that size; '' when it agrees.

    Every canvas must show content just where predicted (to a pixel), and its pixels must read the predicted
    coordinates to half a canvas pixel, away from borders that the resampling filter blurs. Where very few pixels
    are shown, the tolerance grows by what eight bits can say, and by one original pixel; beside padding or a cut
    they are all blurred, so that only the place of the content counts.
    """
    return _contradicts(views, _read(process, size), size)


def _contradicts(views: Sequence[View], readings: Sequence[_Reading | None], size: tuple[int, int]) -> str:
    if len(readings) != len(views):
        return f"{len(views)} canvases were predicted, {len(readings)} came out"
    for index, (view, reading) in enumerate(zip(views, readings, strict=True)):
        sides = (view.shown.bottom - view.shown.top, view.shown.right - view.shown.left)
        if reading is None or not min(sides):
            if reading is None and not min(sides):
                continue
            return f"canvas {index} should show {view.shown} of the image and shows {'none' if reading is None else 'some'}"
        pixels, few = sides[0] * sides[1], min(sides) < _FEW
        tolerance = math.inf if few and view.shown != view.box else 0.5
        for number, axis in enumerate(reading):
            first, last = view.box[1 - number], view.box[3 - number]
            shown = (view.shown[1 - number], view.shown[3 - number])
            scale = view.canvas[number] / (last - first)
            noise = 3 * axis.size / 255 / max(pixels, 1.0) ** 0.5 + few
            allowed = tolerance + noise * scale
            if wrong := _contradiction(axis, (first, last), shown, view.canvas[number], allowed):
                return f"canvas {index} should show {view.shown} of the image: {wrong}"
    return ""


def _contradiction(
    axis: _Axis, box: tuple[Length, Length], shown: tuple[Length, Length], length: int, tolerance: float
) -> str:
    if len(axis.reads) != length:
        return f"{length} pixels were predicted, {len(axis.reads)} came out"
    first, last = box
    scale = length / (last - first)
    begin, end = (shown[0] - first) * scale, (shown[1] - first) * scale
    if abs(axis.content[0] - begin) > 1 or abs(axis.content[1] - end) > 1:
        return f"content predicted in pixels {begin:.1f}..{end:.1f}, found in {axis.content[0]}..{axis.content[1]}"
    expected = first + (np.arange(length, dtype=np.float64) + 0.5) / scale
    clear = _clear(axis, scale, expected)
    if len(clear) < 2:
        return ""
    gap = (axis.reads - expected)[clear] * scale
    slope, offset = np.polyfit(clear, gap, 1) if len(clear) > 8 else (0.0, gap.mean())
    worst = max(abs(slope * place + offset) for place in (clear[0], clear[-1]))
    return f"it is off by {worst:.2f} of its pixels" if worst > tolerance else ""


def _clear(axis: _Axis, scale: float, expected: Array) -> npt.NDArray[np.int64]:
    """The canvas pixels whose reading no border disturbs: three filter widths away from the image's."""
    margin = 3 * max(1.0, 1 / scale)
    known = ~np.isnan(axis.reads) & (expected > margin) & (expected < axis.size - margin)
    return np.flatnonzero(known)


def measured_views(process: Process, size: tuple[int, int]) -> list[View] | None:
    """The views of an image of that height and width, read off the canvases; None when they are no clean map.

    The image squashed to the canvas or letterboxed in it is tried first. Other clean maps resize, crop and pad by
    whole pixels (of the resized or of the original image) and turn nothing; their borders are good to half a canvas
    pixel. Canvases at the end that hold nothing are left out. An image under 16 pixels on a side is too small.
    """
    if min(size) < _FEW:
        return None
    readings = _read(process, size)
    while readings and readings[-1] is None:
        readings.pop()
    if len(readings) == 1 and readings[0] is not None:
        canvas = (len(readings[0][0].reads), len(readings[0][1].reads))
        for view in _usual(size, canvas):
            if not _contradicts([view], readings, size):
                return [view]
    views = [_measure(reading, alone=len(readings) == 1) for reading in readings if reading is not None]
    found = [view for view in views if view is not None]
    if not found or len(found) != len(readings) or _contradicts(found, readings, size):
        return None
    return found


def _usual(size: tuple[int, int], canvas: tuple[int, int]) -> list[View]:
    """The image squashed to the canvas, letterboxed in its middle, and in its corner."""
    factor = max(size[0] / canvas[0], size[1] / canvas[1])
    padded = (round(canvas[0] * factor), round(canvas[1] * factor))
    middle = ((padded[0] - size[0]) // 2, (padded[1] - size[1]) // 2)
    return [
        Frame.of(size).resized(canvas).view(),
        Frame.of(size).cut(-middle[0], -middle[1], padded).resized(canvas).view(),
        Frame.of(size).cut(0, 0, padded).resized(canvas).view(),
    ]


def _measure(reading: _Reading, *, alone: bool) -> View | None:
    ends = [_fit(axis) for axis in reading]
    if ends[0] is None or ends[1] is None:
        return None
    (top, bottom), (left, right) = ends[0], ends[1]
    sizes = tuple(axis.size for axis in reading)
    shown = Box(max(left, 0.0), max(top, 0.0), min(right, sizes[1]), min(bottom, sizes[0]))
    whole = alone or shown == (0, 0, sizes[1], sizes[0])
    canvas = (len(reading[0].reads), len(reading[1].reads))
    return View(box=Box(left, top, right, bottom), shown=shown, canvas=canvas, whole=whole)


def _fit(axis: _Axis) -> tuple[float, float] | None:
    """Where a canvas begins and ends in the original image, on whole pixels."""
    places = np.arange(len(axis.reads)) + 0.5
    first, last = axis.content
    spare = (last - first) // 4
    clear = np.arange(first + spare, last - spare)
    for _ in range(2):
        if len(clear) < 3:
            return None
        slope, offset = np.polyfit(places[clear], axis.reads[clear], 1)
        if slope <= 0:
            return None
        clear = _clear(axis, 1 / slope, offset + slope * places)
    return _whole_pixels(axis, clear, 1 / slope)


def _whole_pixels(axis: _Axis, clear: npt.NDArray[np.int64], scale: float) -> tuple[float, float] | None:
    """The nearest map by whole pixels: a resize of the image and a cut of that, or a cut and then a resize."""
    places, length = clear + 0.5, len(axis.reads)
    resized = round(axis.size * scale)
    if resized and abs(axis.size * scale - resized) < _NEAR:
        scale = resized / axis.size
        start = float((places - axis.reads[clear] * scale).mean())
        if abs(start - round(start)) < _NEAR:
            return round(-round(start) / scale, 9) + 0.0, round((length - round(start)) / scale, 9)
    middle = float(axis.reads[clear].mean() - places.mean() / scale)
    ends = (middle, middle + length / scale)
    if all(abs(end - round(end)) < _NEAR for end in ends):
        return float(round(ends[0])), float(round(ends[1]))
    return None
