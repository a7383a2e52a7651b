"""The pixel canvases inside a processor's output, whichever way it packs them, and the way back.

Most processors give canvases as they are (`[tile, channel, row, column]`, with batch axes before). Qwen's give one
row for each patch, in the order in which patches are merged; SigLIP 2's one row for each patch in reading order.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from eyechart.core.errors import Incapable


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How the `pixel_values` of one image hold its canvases."""

    kind: Literal["canvases", "merged patches", "patches"]
    shape: tuple[int, ...]
    """Of `pixel_values`."""

    tiles: int
    """How many canvases there are, empty ones included."""

    canvas: tuple[int, int]
    """Height and width of each in pixels."""

    patch: int = 1
    merge: int = 1
    """Side of the square of patches that stand together, for `merged patches`."""

    def unpack(self, pixels: Tensor) -> Float[Tensor, "tile channel row column"]:
        """The canvases of one image."""
        if self.kind == "canvases":
            return pixels.reshape(-1, *self.shape[-3:])
        rows, columns = self._grid
        p, m = self.patch, self.merge
        if self.kind == "patches":
            real = pixels.reshape(-1, self.shape[-1])[: rows * columns].reshape(rows, columns, p, p, -1)
            return real.permute(4, 0, 2, 1, 3).reshape(1, -1, *self.canvas)
        blocks = pixels.reshape(rows // m, columns // m, m, m, 3, -1, p, p)[:, :, :, :, :, 0]
        return blocks.permute(4, 0, 2, 5, 1, 3, 6).reshape(1, 3, *self.canvas)

    def pack(self, canvases: Float[Tensor, "tile channel row column"]) -> Tensor:
        """Canvases in the shape of `pixel_values`; the inverse of `unpack` where it loses nothing."""
        if self.kind == "canvases":
            return canvases.reshape(self.shape)
        rows, columns = self._grid
        p, m = self.patch, self.merge
        if self.kind == "patches":
            packed = canvases.new_zeros(math.prod(self.shape[:-1]), self.shape[-1])
            cut = canvases.reshape(-1, rows, p, columns, p).permute(1, 3, 2, 4, 0)
            packed[: rows * columns] = cut.reshape(rows * columns, -1)
            return packed.reshape(self.shape)
        times = self.shape[-1] // (3 * p * p)
        cut = canvases.reshape(3, rows // m, m, p, columns // m, m, p).permute(1, 4, 2, 5, 0, 3, 6)
        return cut[:, :, :, :, :, None].expand(-1, -1, -1, -1, -1, times, -1, -1).reshape(self.shape)

    @property
    def _grid(self) -> tuple[int, int]:
        return self.canvas[0] // self.patch, self.canvas[1] // self.patch


def packing(outputs: Mapping[str, Any], image_processor: object) -> Packing:
    """How a processor's output for one image holds its canvases.

    Raises:
        Incapable: it has no `pixel_values`, or packs them in a way not known here.
    """
    pixels = outputs.get("pixel_values")
    name = type(image_processor).__name__
    if not isinstance(pixels, Tensor):
        raise Incapable(f"{name} gives no tensor called 'pixel_values' but {sorted(outputs)}: no spatial map")
    shape = tuple(pixels.shape)
    if "image_grid_thw" in outputs and pixels.ndim == 2:
        return _merged(shape, outputs["image_grid_thw"], image_processor)
    if "spatial_shapes" in outputs and pixels.ndim == 3:
        rows, columns = (int(n) for n in outputs["spatial_shapes"].reshape(-1)[:2])
        patch = math.isqrt(shape[-1] // 3)
        return Packing(
            kind="patches", shape=shape, tiles=1, canvas=(rows * patch, columns * patch), patch=patch
        )
    if pixels.ndim < 3 or shape[-3] != 3:
        raise Incapable(f"{name} packs its pixels as {list(shape)}, which is no canvas: no spatial map")
    tiles = math.prod(shape[:-3])
    return Packing(kind="canvases", shape=shape, tiles=tiles, canvas=(shape[-2], shape[-1]))


def _merged(shape: tuple[int, ...], grids: Tensor, image_processor: object) -> Packing:
    times, rows, columns = (int(n) for n in grids.reshape(-1, 3)[0])
    patch = getattr(image_processor, "patch_size", None)
    merge = getattr(image_processor, "merge_size", None)
    name = type(image_processor).__name__
    if not isinstance(patch, int) or not isinstance(merge, int) or shape[1] % (3 * patch * patch):
        raise Incapable(f"{name}: rows of {shape[1]} numbers are no patches of side {patch}: no spatial map")
    if times != 1 or grids.numel() != 3:
        raise Incapable(f"{name}: expected the grid of one still image, got image_grid_thw {grids.tolist()}")
    return Packing(
        kind="merged patches",
        shape=shape,
        tiles=1,
        canvas=(rows * patch, columns * patch),
        patch=patch,
        merge=merge,
    )
