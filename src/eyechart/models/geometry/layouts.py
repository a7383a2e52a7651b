"""At which LLM position each patch of each canvas stands, by model family.

Most families lay their canvases down one after another, each in reading order, after merging squares of patches
(pixel-shuffle, patch merger, average pooling). LLaVA-NeXT and LLaVA-OneVision put tiles together, cut the padding
off and end each row with a newline. What is derived here is compared with the image's real number of positions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.image_processing_utils import select_best_resolution

from eyechart.core.errors import Incapable
from eyechart.core.geometry import DROPPED, Box, Length, Positions, Tile, raster
from eyechart.models.geometry.views import View

_BY_CROSS_ATTENTION = (
    "its language model reads the image by cross-attention, so the sequence holds no image positions"
)
_BY_QUERIES = (
    "a fixed number of learned queries (Q-Former, Perceiver, resampler) stands between patches and language model, "
    "and no query has a place in the image"
)
_BY_CONVOLUTION = "the patches of its vision tower overlap and are mixed by convolutions, so that no position has pixels of its own"
NO_MAP = {
    "florence2": _BY_CONVOLUTION,
    "mllama": _BY_CROSS_ATTENTION,
    "idefics": _BY_CROSS_ATTENTION,
    "blip": _BY_CROSS_ATTENTION,
    "evolla": _BY_CROSS_ATTENTION,
    "blip-2": _BY_QUERIES,
    "instructblip": _BY_QUERIES,
    "instructblipvideo": _BY_QUERIES,
    "idefics2": _BY_QUERIES,
    "kosmos-2": _BY_QUERIES,
    "aria": _BY_QUERIES,
}
"""Model types without a spatial map in the language sequence, and why."""

_QUERY_SETTINGS = ("qformer_config", "perceiver_config", "num_query_tokens", "latent_query_num")

KNOWN = frozenset({
    "llava", "vipllava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3", "smolvlm",
    "paligemma", "internvl", "gemma3", "aya_vision", "mistral3", "eyechart_mixture",
})  # fmt: skip
"""Model types whose layout is known; any other is proved on the model before it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One image in one model: all that a layout reads."""

    config: Any
    views: Sequence[View]
    size: tuple[int, int]
    """Height and width of the image in pixels."""

    count: int
    """How many LLM positions the image takes."""

    strategy: str | None
    """`vision_feature_select_strategy`: with `default`, the first token of each canvas is dropped."""


def no_map(config: Any) -> str:
    """Why a model has no spatial map in its language sequence; '' when nothing says so."""
    known = NO_MAP.get(config.model_type)
    if known is None and any(getattr(config, name, None) is not None for name in _QUERY_SETTINGS):
        return _BY_QUERIES
    return known or ""


def laid_out(case: Case) -> tuple[Tile, ...]:
    """The tiles of an image with the LLM position of every cell.

    Raises:
        Incapable: the derived number of positions is not the real one, or this arrangement is not known.
    """
    tiles, length = _LAYOUTS.get(case.config.model_type, _one_after_another)(case)
    if length != case.count:
        raise Incapable(
            f"{case.config.model_type} has no spatial map that can be trusted: its patches make {length} positions, "
            f"but its input has {case.count} for the image"
        )
    return tiles


def patch_side(config: Any) -> tuple[int, int]:
    """Height and width in pixels of a vision tower's patches.

    Raises:
        Incapable: its config gives none.
    """
    vision = getattr(config, "examined_config", None) or getattr(config, "vision_config", config)
    side = getattr(vision, "patch_size", None)
    if isinstance(side, int):
        return side, side
    if isinstance(side, list | tuple) and len(side) == 2 and all(isinstance(one, int) for one in side):
        return side[0], side[1]
    raise Incapable(f"{vision.model_type}: no patch size in its config ({side!r}), so no spatial map")


def patches(view: View, patch: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of whole patches on a canvas."""
    return view.canvas[0] // patch[0], view.canvas[1] // patch[1]


def tile(view: View, cell: tuple[Length, Length], positions: Positions) -> Tile:
    """A view cut into cells."""
    return Tile(
        box=view.box, shown=view.shown, canvas=view.canvas, cell=cell, positions=positions, whole=view.whole
    )


def prefix_tokens(vision: Any) -> int | None:
    """How many tokens stand before a vision tower's patches (class token, registers); None when not known."""
    kind: str = vision.model_type
    if kind.startswith(("siglip", "pixtral", "idefics", "smolvlm", "aimv2")):
        return 0
    if kind.startswith(
        ("clip", "metaclip", "chinese_clip", "internvl_vision", "dinov2", "dinov3", "vit", "deit")
    ):
        return 1 + int(getattr(vision, "num_register_tokens", None) or 0) + (kind == "deit")
    return None


def _one_after_another(case: Case) -> tuple[tuple[Tile, ...], int]:
    """Canvas after canvas in reading order, with squares of factor x factor patches merged."""
    patch, factor = patch_side(case.config), _factor(case)
    tiles, start = [], _kept_prefix(case)
    for view in case.views:
        rows, columns = (n // factor for n in patches(view, patch))
        positions = raster(rows, columns, start=start)
        if start < 0:
            positions = tuple(tuple(max(p, DROPPED) for p in row) for row in positions)
        tiles.append(tile(view, (patch[0] * factor, patch[1] * factor), positions))
        start += rows * columns
    return tuple(tiles), start


def _kept_prefix(case: Case) -> int:
    """How many tokens stand before the first patch in the language sequence; -1 when that patch is dropped."""
    prefix = prefix_tokens(case.config.vision_config) if case.strategy else 0
    if prefix is None:  # the count decides whether this holds
        prefix = 1
    kept = prefix - (case.strategy == "default")
    if kept and len(case.views) > 1:
        raise Incapable(
            f"{case.config.model_type}: with vision_feature_select_strategy {case.strategy!r} each of its "
            f"{len(case.views)} canvases has {kept} tokens more than patches: this arrangement is not known"
        )
    return kept


def _factor(case: Case) -> int:
    """The side of the square of patches that becomes one position: from the config, else from the count."""
    config = case.config
    vision = getattr(config, "vision_config", config)
    if config.model_type in ("gemma3", "gemma3n"):
        return int(vision.image_size // vision.patch_size // math.isqrt(config.mm_tokens_per_image))
    for owner in (config, vision):
        for name in ("scale_factor", "downsample_factor", "spatial_merge_size", "projector_pooling_ratio"):
            factor = getattr(owner, name, None)
            if isinstance(factor, int):
                return factor
        ratio = getattr(owner, "downsample_ratio", None)
        if isinstance(ratio, float):
            return round(1 / ratio)
    patch = patch_side(config)
    cells = sum(math.prod(patches(view, patch)) for view in case.views)
    return max(1, math.isqrt(cells // max(case.count, 1)))


def _anyres(case: Case) -> tuple[tuple[Tile, ...], int]:
    """The whole image first, then its tiles as one grid, without padding and with a newline after each row."""
    config, patch = case.config, patch_side(case.config)
    _kept_prefix(case)
    base, parts = case.views[0], case.views[1:]
    rows, columns = patches(base, patch)
    side = config.vision_config.image_size
    best = select_best_resolution(case.size, config.image_grid_pinpoints)
    down, across = best[0] // side, best[1] // side
    if down * across != len(parts):
        raise Incapable(
            f"{config.model_type}: its config wants {down} x {across} tiles, its processor made {len(parts)}; "
            "image_grid_pinpoints differ between the two"
        )
    first = tile(base, patch, raster(rows, columns))
    kept = _unpadded(case.size, (down * rows, across * columns))
    smaller = _downsampled(config, kept, rows)
    start = rows * columns
    if smaller:
        union = _union(parts, across, kept, smaller, (rows, columns), start)
        return (first, union), start + smaller[0] * (smaller[1] + 1)
    height, width = kept[2] - kept[0], kept[3] - kept[1]
    tiles = [first]
    for index, view in enumerate(parts):
        top, left = index // across * rows - kept[0], index % across * columns - kept[1]
        positions = tuple(
            tuple(
                start + y * (width + 1) + x if 0 <= y < height and 0 <= x < width else DROPPED
                for x in range(left, left + columns)
            )
            for y in range(top, top + rows)
        )
        tiles.append(tile(view, patch, positions))
    return tuple(tiles), start + height * (width + 1)


def _unpadded(size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int, int, int]:
    """First row, first column, end row and end column of what `unpad_image` leaves of a grid of patches."""
    (height, width), (rows, columns) = size, grid
    if width / height > columns / rows:
        spare = (rows - int(round(height * (columns / width), 7))) // 2
        return spare, 0, rows - spare, columns
    spare = (columns - int(round(width * (rows / height), 7))) // 2
    return 0, spare, rows, columns - spare


def _downsampled(config: Any, kept: tuple[int, int, int, int], side: int) -> tuple[int, int] | None:
    """The smaller grid to which OneVision interpolates one that is too big; None when it fits."""
    limit = getattr(config, "vision_aspect_ratio", None)
    if not limit:
        return None
    height, width = kept[2] - kept[0], kept[3] - kept[1]
    ratio = math.sqrt(height * width / (int(limit.removeprefix("anyres_max_")) * side**2))
    return (int(height // ratio), int(width // ratio)) if ratio > 1.1 else None


def _union(
    parts: Sequence[View],
    across: int,
    kept: tuple[int, int, int, int],
    grid: tuple[int, int],
    per_tile: tuple[int, int],
    start: int,
) -> Tile:
    """The tiles as one canvas without its padding, cut into the interpolated grid.

    Each interpolated unit stands for its share of the canvas; what it reads beyond (bilinear) is left out.
    """
    height, width = parts[0].canvas
    cell = (height / per_tile[0], width / per_tile[1])
    first, last = parts[0].box, parts[-1].box
    scale_y, scale_x = height / (first.bottom - first.top), width / (first.right - first.left)
    box = Box(
        first.left + kept[1] * cell[1] / scale_x,
        first.top + kept[0] * cell[0] / scale_y,
        first.left + kept[3] * cell[1] / scale_x,
        first.top + kept[2] * cell[0] / scale_y,
    )
    shown = Box(
        max(box.left, min(v.shown.left for v in parts)),
        max(box.top, min(v.shown.top for v in parts)),
        min(box.right, max(v.shown.right for v in parts), last.right),
        min(box.bottom, max(v.shown.bottom for v in parts), last.bottom),
    )
    canvas = (round((kept[2] - kept[0]) * cell[0]), round((kept[3] - kept[1]) * cell[1]))
    return Tile(
        box=box,
        shown=shown,
        canvas=canvas,
        cell=(canvas[0] / grid[0], canvas[1] / grid[1]),
        positions=raster(*grid, start=start, stride=grid[1] + 1),
        whole=len(parts) == 1,
    )


def _mixture(case: Case) -> tuple[tuple[Tile, ...], int]:
    """One position for each cell of the mixture's grid; interleaved, two: each encoder's canvas has its own positions.

    Of encoders that are added or concatenated the record shows the canvas of the one examined.
    """
    config, turns = case.config, case.config.tokens_per_cell
    towers = {"first": config.vision_config, "second": config.second_vision_config}
    chosen = list(zip(config.active, case.views, strict=True))
    if turns == 1:
        chosen = [pair for pair in chosen if pair[0] == config.examined_encoder]
    lead = dict(zip(config.active, case.views, strict=True))[config.active[0]]
    grid = config.grid or patches(lead, patch_side(towers[config.active[0]]))
    tiles = []
    for turn, (name, view) in enumerate(chosen):
        patch = patch_side(towers[name])
        cell = tuple(
            n * side / cells for n, side, cells in zip(patches(view, patch), patch, grid, strict=True)
        )
        positions = raster(grid[0], grid[1])
        tiles.append(
            tile(view, (cell[0], cell[1]), tuple(tuple(p * turns + turn for p in row) for row in positions))
        )
    return tuple(tiles), grid[0] * grid[1] * turns


_LAYOUTS: dict[str, Callable[[Case], tuple[tuple[Tile, ...], int]]] = {
    "llava_next": _anyres,
    "llava_onevision": _anyres,
    "eyechart_mixture": _mixture,
}
