"""What each pixel canvas shows of the original image, from the settings of the processor that made it.

The rounding of every resize, crop and padding is the processor's own: where transformers has a function for it, that
function is called. A processor that is not known here is measured instead (`fiducial.py`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_transforms import get_resize_output_image_size, get_size_with_aspect_ratio
from transformers.image_utils import ChannelDimension, SizeDict, get_image_size_for_max_height_width
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from eyechart.core.geometry import NOTHING_SHOWN, Box, Length


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One canvas: what it stands for in original pixels, what of that is image, and its own size.

    `whole` tells a view of the whole image from one tile out of several.
    """

    box: Box
    shown: Box
    canvas: tuple[int, int]
    whole: bool


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of a canvas in the making: canvas coordinate = scale * original coordinate + offset."""

    length: int
    first: Length
    last: Length
    """Where the image begins and ends on the canvas; outside there is padding."""

    scale: Length = 1.0
    offset: Length = 0.0

    def resized(self, length: int) -> "_Axis":
        by = length / self.length
        return _Axis(length, self.first * by, self.last * by, self.scale * by, self.offset * by)

    def cut(self, start: int, length: int) -> "_Axis":
        """Crop, or pad where the cut reaches beyond the canvas."""
        first, last = (min(max(end - start, 0), length) for end in (self.first, self.last))
        return _Axis(length, first, last, self.scale, self.offset - start)

    def original(self, place: Length) -> float:
        """A canvas coordinate in original pixels, free of the last bits' rounding."""
        return round((place - self.offset) / self.scale, 9) + 0.0


@dataclass(frozen=True, slots=True)
class Frame:
    """A canvas in the making, with the steps that image processors take."""

    rows: _Axis
    columns: _Axis

    @classmethod
    def of(cls, size: tuple[int, int]) -> "Frame":
        """The original image itself."""
        return cls(_Axis(size[0], 0, size[0]), _Axis(size[1], 0, size[1]))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the canvas so far."""
        return self.rows.length, self.columns.length

    def resized(self, size: tuple[int, int]) -> "Frame":
        """Squash or stretch to a size."""
        return Frame(self.rows.resized(size[0]), self.columns.resized(size[1]))

    def cut(self, top: int, left: int, size: tuple[int, int]) -> "Frame":
        """Crop to a rectangle, or pad where it reaches beyond the canvas."""
        return Frame(self.rows.cut(top, size[0]), self.columns.cut(left, size[1]))

    def view(self, *, whole: bool = True) -> View:
        """What the canvas shows."""
        down, across = self.rows, self.columns
        shown = Box(
            across.original(across.first),
            down.original(down.first),
            across.original(across.last),
            down.original(down.last),
        )
        return View(
            box=Box(
                across.original(0),
                down.original(0),
                across.original(across.length),
                down.original(down.length),
            ),
            shown=shown if across.first < across.last and down.first < down.last else NOTHING_SHOWN,
            canvas=self.size,
            whole=whole,
        )


def _size(value: Any) -> Any:
    """A processor's size setting with its fields; those that are not set are None."""
    return value if isinstance(value, SizeDict) else SizeDict(**dict(value))


def _resize(frame: Frame, wanted: Any) -> Frame:
    """The backends' own `resize`."""
    size, (height, width) = _size(wanted), frame.size
    if size.shortest_edge and size.longest_edge:
        return frame.resized(
            get_size_with_aspect_ratio((height, width), size.shortest_edge, size.longest_edge)
        )
    if size.shortest_edge:
        image = np.broadcast_to(np.uint8(0), (3, height, width))
        new = get_resize_output_image_size(
            image, size.shortest_edge, default_to_square=False, input_data_format=ChannelDimension.FIRST
        )
        return frame.resized(new)
    if size.max_height and size.max_width:
        return frame.resized(
            get_image_size_for_max_height_width((height, width), size.max_height, size.max_width)
        )
    return frame.resized((size.height, size.width))


def _centre_crop(frame: Frame, wanted: Any, backend: str) -> Frame:
    """The backends' own `center_crop`: where they pad an odd number of pixels, they put the odd one apart."""
    size, (height, width) = _size(wanted), frame.size

    def start(length: int, crop: int) -> int:
        spare = length - crop
        return spare // 2 if spare >= 0 or backend == "pil" else -(-spare // 2)

    return frame.cut(start(height, size.height), start(width, size.width), (size.height, size.width))


def _pipeline(frame: Frame, settings: Any, *, pad: bool = True) -> Frame:
    """Resize, centre crop, pad at the right and bottom: what a processor does that overrides nothing."""
    if settings.do_resize:
        frame = _resize(frame, settings.size)
    if getattr(settings, "do_center_crop", None):
        frame = _centre_crop(frame, settings.crop_size, settings.backend)
    if pad and getattr(settings, "do_pad", None) and settings.pad_size:
        padded = _size(settings.pad_size)
        frame = frame.cut(0, 0, (padded.height, padded.width))
    return frame


Settings = Any
"""An image processor, read for its settings."""

Views = list[View]


def _plain(settings: Settings, size: tuple[int, int], tiles: int, canvas: tuple[int, int]) -> Views:
    return [_pipeline(Frame.of(size), settings).view()]


def _llava(settings: Settings, size: tuple[int, int], tiles: int, canvas: tuple[int, int]) -> Views:
    """LLaVA's own processor pads to a square first."""
    frame, side = Frame.of(size), max(size)
    if settings.do_pad:
        frame = frame.cut(-((side - size[0]) // 2), -((side - size[1]) // 2), (side, side))
    return [_pipeline(frame, settings, pad=False).view()]


def _anyres(settings: Settings, size: tuple[int, int], tiles: int, canvas: tuple[int, int]) -> Views:
    """LLaVA-NeXT and LLaVA-OneVision: the whole image squashed, then tiles of it letterboxed."""
    wanted, crop = _size(settings.size), settings.crop_size and _size(settings.crop_size)
    base = (wanted.height, wanted.width) if wanted.height else (wanted.shortest_edge,) * 2
    side = (crop and crop.height) or wanted.height or wanted.shortest_edge
    best = select_best_resolution(size, settings.image_grid_pinpoints)
    image = np.broadcast_to(np.uint8(0), (3, *size))
    inner = get_patch_output_size(image, best, ChannelDimension.FIRST)  # type: ignore[no-untyped-call]
    full = Frame.of(size).resized(inner)
    full = full.cut(-((best[0] - inner[0]) // 2), -((best[1] - inner[1]) // 2), best)
    views = [_pipeline(Frame.of(size).resized(base), settings, pad=False).view()]
    for top in range(0, best[0], side):
        for left in range(0, best[1], side):
            part = full.cut(top, left, (min(side, best[0] - top), min(side, best[1] - left)))
            views.append(_pipeline(part, settings, pad=False).view(whole=False))
    return views


def _squash(settings: Settings, size: tuple[int, int], tiles: int, canvas: tuple[int, int]) -> Views:
    """The image fills the canvas: Qwen, SigLIP 2, and Gemma 3 without pan-and-scan."""
    return [Frame.of(size).resized(canvas).view()] if tiles == 1 else []


def _idefics3(settings: Settings, size: tuple[int, int], tiles: int, canvas: tuple[int, int]) -> Views:
    """Idefics3 and SmolVLM: squashed to a multiple of the tile, cut into tiles, and the whole last."""
    whole = Frame.of(size).resized(canvas).view()
    if tiles == 1:
        return [whole]
    longest, side = _size(settings.size).longest_edge, _size(settings.max_image_size).longest_edge
    height, width = _idefics3_resized(size, longest) if settings.do_resize else size
    ratio = width / height
    if width >= height:
        columns = math.ceil(width / side)
        rows = math.ceil(int(columns * side / ratio) / side)
    else:
        rows = math.ceil(height / side)
        columns = math.ceil(int(rows * side * ratio) / side)
    return [*_grid(size, rows, columns, canvas), whole]


def _idefics3_resized(size: tuple[int, int], longest: int, most: int = 4096) -> tuple[int, int]:
    """Longest side to `longest` with the other side even, and then down to `most` pixels."""
    height, width = size
    ratio = width / height
    if width >= height:
        height, width = int(longest / ratio), longest
        height += height % 2
    else:
        height, width = longest, int(longest * ratio)
        width += width % 2
    height, width = max(height, 1), max(width, 1)
    ratio = width / height
    if width >= height and width > most:
        height, width = int(most / ratio), most
    elif height > width and height > most:
        height, width = most, int(most * ratio)
    return max(height, 1), max(width, 1)


def _grid(size: tuple[int, int], rows: int, columns: int, canvas: tuple[int, int]) -> Views:
    """The image squashed to rows x columns canvases."""
    full = Frame.of(size).resized((rows * canvas[0], columns * canvas[1]))
    return [
        full.cut(row * canvas[0], column * canvas[1], canvas).view(whole=False)
        for row in range(rows)
        for column in range(columns)
    ]


def _got_ocr2(settings: Settings, size: tuple[int, int], tiles: int, canvas: tuple[int, int]) -> Views:
    """InternVL and Aya Vision: the tiling of the nearest aspect ratio, and a thumbnail last."""
    whole = Frame.of(size).resized(canvas).view()
    if tiles == 1:
        return [whole]
    columns, rows = get_optimal_tiled_canvas(size, canvas, settings.min_patches, settings.max_patches)
    return [*_grid(size, rows, columns, canvas), whole]


def _idefics2(settings: Settings, size: tuple[int, int], tiles: int, canvas: tuple[int, int]) -> Views:
    """Idefics2: four quarters and the whole, each resized alone and padded to the largest of them."""
    height, width = size
    original = Frame.of(size)
    y, x = height // 2, width // 2
    if tiles == 5 and not (x and y):  # a quarter of it is empty
        return []
    parts = [
        original.cut(0, 0, (y, x)),
        original.cut(0, x, (y, width - x)),
        original.cut(y, 0, (height - y, x)),
        original.cut(y, x, (height - y, width - x)),
    ]
    views = []
    for index, part in enumerate([*parts, original] if tiles == 5 else [original]):
        resized = part.resized(_idefics2_resized(part.size, settings)) if settings.do_resize else part
        views.append(resized.cut(0, 0, canvas).view(whole=tiles == 1 or index == 4))
    return views


def _idefics2_resized(size: tuple[int, int], settings: Settings) -> tuple[int, int]:
    wanted = _size(settings.size)
    if not wanted.shortest_edge:
        return wanted.height, wanted.width
    height, width = size
    ratio = width / height
    if width >= height and width > wanted.longest_edge:
        height, width = int(wanted.longest_edge / ratio), wanted.longest_edge
    elif height > width and height > wanted.longest_edge:
        height, width = wanted.longest_edge, int(wanted.longest_edge * ratio)
    return max(height, wanted.shortest_edge), max(width, wanted.shortest_edge)


_KNOWN: dict[str, Callable[[Settings, tuple[int, int], int, tuple[int, int]], Views]] = {
    "LlavaImageProcessor": _llava,
    "LlavaNextImageProcessor": _anyres,
    "LlavaOnevisionImageProcessor": _anyres,
    "Qwen2VLImageProcessor": _squash,
    "Siglip2ImageProcessor": _squash,
    "Gemma3ImageProcessor": _squash,
    "PixtralImageProcessor": _squash,
    "Idefics2ImageProcessor": _idefics2,
    "Idefics3ImageProcessor": _idefics3,
    "SmolVLMImageProcessor": _idefics3,
    "GotOcr2ImageProcessor": _got_ocr2,
}
_STEPS = (
    "_preprocess", "_preprocess_image_like_inputs", "_prepare_image_like_inputs", "preprocess", "process_image",
    "resize", "center_crop", "pad",
)  # fmt: skip


def derived_views(
    image_processor: Settings, size: tuple[int, int], *, tiles: int, canvas: tuple[int, int]
) -> Views | None:
    """The views of an image of `size` (height, width), in the order of the canvases; None when not known here.

    Args:
        image_processor: whose settings made the canvases.
        size: height and width of the image in pixels.
        tiles: how many canvases came out.
        canvas: height and width of each.
    """
    name = type(image_processor).__name__.removesuffix("Pil").removesuffix("Fast")
    derive = _KNOWN.get(name) or (_plain if _overrides_nothing(type(image_processor)) else None)
    if derive is None:
        return None
    views = derive(image_processor, size, tiles, canvas)
    return views if len(views) == tiles and all(view.canvas == canvas for view in views) else None


def _overrides_nothing(cls: type) -> bool:
    """Whether an image processor runs one of the backends' pipelines as it stands."""
    return any(
        issubclass(cls, base) and all(getattr(cls, step) is getattr(base, step) for step in _STEPS)
        for base in (PilBackend, TorchvisionBackend)
    )
