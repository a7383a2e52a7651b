"""Which pixels of an image each patch shows, and at which position of the LLM it stands: the geometry record.

Coordinates are original pixels: x to the right, y downwards, and the pixel in row i, column j covers the square
[j, j+1) x [i, i+1). A model sees an image through one or more tiles. A tile's *canvas* is the pixel array that the
image processor made; its *box* is the rectangle of the original image which that canvas shows; its *cells* are the
units that reach the language model (patches after pixel-shuffle or pooling). A mask goes through the same map as
the pixels, by exact areas and without resampling. The record is made in `eyechart.models.geometry`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int

Mask: TypeAlias = Bool[np.ndarray, "height width"]
"""True where the object is, in original pixels."""

Length: TypeAlias = float | int
"""A length or coordinate in pixels."""

Positions: TypeAlias = tuple[tuple[int, ...], ...]
"""One position for each cell, row by row."""

Covered: TypeAlias = npt.NDArray[np.float64]

DROPPED = -1
"""The position of a cell whose features the model throws away before its language model."""

_EPSILON = 1e-6
"""Shares closer to the threshold than this are rounding, not area."""


class Box(NamedTuple):
    """A rectangle in original pixels; it may reach beyond the image, where the canvas was padded."""

    left: Length
    top: Length
    right: Length
    bottom: Length


NOTHING_SHOWN = Box(0.0, 0.0, 0.0, 0.0)
"""What a canvas that is all padding shows."""


class Cell(NamedTuple):
    """One unit of one tile, by its place."""

    tile: int
    row: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One pixel canvas, the part of the image it shows, and the grid of units that it was cut into."""

    box: Box
    """The rectangle that the whole canvas stands for, padding included."""

    shown: Box
    """The part of `box` that holds image; the rest of the canvas is padding. `NOTHING_SHOWN` where there is none."""

    canvas: tuple[int, int]
    """Height and width of the canvas in its own pixels."""

    cell: tuple[Length, Length]
    """Height and width of one cell in canvas pixels; what is left over at the right and bottom is seen by none."""

    positions: Positions
    """For each cell its place among the LLM positions of this image, counted from 0, or `DROPPED`."""

    whole: bool
    """Whether this is a view of the whole image rather than one tile out of several."""

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.positions}
        if len(widths) != 1 or not all(widths):
            raise ValueError(f"a tile's positions need rows of one length, got lengths {sorted(widths)}")
        rows, columns = self.grid
        used = (rows * self.cell[0], columns * self.cell[1])
        if min(self.cell) <= 0 or used[0] > self.canvas[0] + 1e-6 or used[1] > self.canvas[1] + 1e-6:
            raise ValueError(
                f"{rows} x {columns} cells of {self.cell} pixels do not fit a canvas of {self.canvas}"
            )
        area = (self.shown.right - self.shown.left) * (self.shown.bottom - self.shown.top)
        if self.box.right <= self.box.left or self.box.bottom <= self.box.top:
            raise ValueError(f"a tile's box must have an area, got {self.box}")
        if area <= 0 and self.shown != NOTHING_SHOWN:
            raise ValueError(f"a tile shows a rectangle of its box or NOTHING_SHOWN, got {self.shown}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return len(self.positions), len(self.positions[0])

    @property
    def position_grid(self) -> Int[np.ndarray, "row column"]:
        """`positions` as an array."""
        return np.array(self.positions, dtype=np.int64)

    @property
    def scale(self) -> tuple[float, float]:
        """Canvas pixels per original pixel, down and across."""
        height, width = self.canvas
        return height / (self.box.bottom - self.box.top), width / (self.box.right - self.box.left)

    def edges(self) -> tuple[Float[np.ndarray, " row_edge"], Float[np.ndarray, " column_edge"]]:
        """Where the cells' borders lie, in original pixels: one more than there are rows, and columns."""
        rows, columns = self.grid
        down, across = self.scale
        return (
            self.box.top + np.arange(rows + 1) * (self.cell[0] / down),
            self.box.left + np.arange(columns + 1) * (self.cell[1] / across),
        )

    def shown_edges(self) -> tuple[Float[np.ndarray, " row_edge"], Float[np.ndarray, " column_edge"]]:
        """The same with padding cut away: a cell that holds none of the image has no height or no width."""
        ys, xs = self.edges()
        return ys.clip(self.shown.top, self.shown.bottom), xs.clip(self.shown.left, self.shown.right)


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The map between the pixels of one image, the cells of its tiles and its positions in the language model."""

    image_size: tuple[int, int]
    """Height and width of the original image in pixels."""

    tiles: tuple[Tile, ...]
    length: int
    """How many LLM positions the image takes, separators that hold no picture included."""

    note: str = ""
    """How the record was derived, in words."""

    def __post_init__(self) -> None:
        if min(self.image_size) < 1 or not self.tiles:
            raise ValueError(
                f"an image of size {self.image_size} with {len(self.tiles)} tiles has no geometry"
            )
        height, width = self.image_size
        for index, tile in enumerate(self.tiles):
            grid, shown = tile.position_grid, tile.shown
            if min(shown.left, shown.top) < -_EPSILON or shown.right > width or shown.bottom > height:
                raise ValueError(f"tile {index} shows {shown}, beyond an image of size {self.image_size}")
            if grid.min() < DROPPED or grid.max() >= self.length:
                raise ValueError(
                    f"tile {index} has positions from {grid.min()} to {grid.max()}, outside -1..{self.length - 1}"
                )

    @property
    def separators(self) -> int:
        """How many of the image's LLM positions show no part of it (row ends, class tokens)."""
        shown = {p for tile in self.tiles for row in tile.positions for p in row}
        return self.length - len(shown - {DROPPED})

    def cell_box(self, tile: int, row: int, column: int) -> Box:
        """The rectangle of the original image that a cell shows; it may reach beyond the image into padding."""
        rows, columns = self.tiles[tile].grid
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(
                f"tile {tile} has {rows} x {columns} cells, so none at row {row}, column {column}"
            )
        ys, xs = self.tiles[tile].edges()
        return Box(float(xs[column]), float(ys[row]), float(xs[column + 1]), float(ys[row + 1]))

    def cells_of_position(self, position: int) -> tuple[Cell, ...]:
        """The cells whose features stand at an LLM position: none for a separator.

        Raises:
            ValueError: the image has no such position.
        """
        if not 0 <= position < self.length:
            raise ValueError(f"the image has positions 0..{self.length - 1}, so none at {position}")
        return tuple(
            Cell(index, int(row), int(column))
            for index, tile in enumerate(self.tiles)
            for row, column in np.argwhere(tile.position_grid == position)
        )

    def point_to_cells(self, x: Length, y: Length) -> tuple[Cell, ...]:
        """The cells that show a point of the original image, one for each tile that shows it and keeps it."""
        height, width = self.image_size
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"the point ({x}, {y}) lies outside an image {width} wide and {height} high")
        return tuple(self._cells_at(x, y))

    def _cells_at(self, x: Length, y: Length) -> Iterator[Cell]:
        for index, tile in enumerate(self.tiles):
            ys, xs = tile.shown_edges()
            row, column = int(np.searchsorted(ys, y, "right")) - 1, int(np.searchsorted(xs, x, "right")) - 1
            rows, columns = tile.grid
            if 0 <= row < rows and 0 <= column < columns and tile.positions[row][column] != DROPPED:
                yield Cell(index, row, column)

    def shares(self, mask: Mask) -> tuple[Float[np.ndarray, "row column"], ...]:
        """For each tile, the share of each cell's visible area which the mask covers, between 0 and 1.

        The visible area of a cell is its part that holds image; a cell that lies in padding has share 0.

        Raises:
            ValueError: the mask is not of the image's size.
        """
        area = _Area(self._checked(mask))
        return tuple(area.shares(*tile.shown_edges()) for tile in self.tiles)

    def mask_to_cells(self, mask: Mask, *, threshold: Length) -> tuple[Bool[np.ndarray, "row column"], ...]:
        """For each tile, the cells of a mask: S = {i : |M and R_i| > threshold * |R_i|}, R_i the visible cell.

        With threshold 0 any overlap counts, with 0.5 the majority. `visible_share` says what was lost to a crop.

        Raises:
            ValueError: the mask is not of the image's size, or the threshold is not in [0, 1).
        """
        if not 0 <= threshold < 1:
            raise ValueError(f"the threshold is a share of a cell, in [0, 1), got {threshold}")
        return tuple(share > threshold + _EPSILON for share in self.shares(mask))

    def positions_of(
        self, mask: Mask, *, threshold: Length, tiles: tuple[int, ...] | None = None
    ) -> Int[np.ndarray, " position"]:
        """The LLM positions of a mask's cells, ascending, each once.

        Args:
            mask: true where the object is, in original pixels.
            threshold: as in `mask_to_cells`.
            tiles: count only these tiles; None takes all of them.
        """
        chosen = range(len(self.tiles)) if tiles is None else tiles
        cells = self.mask_to_cells(mask, threshold=threshold)
        found = [self.tiles[index].position_grid[cells[index]] for index in chosen]
        positions: npt.NDArray[np.int64] = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *found]))
        kept: npt.NDArray[np.int64] = positions[positions != DROPPED]
        return kept

    def visible_share(self, mask: Mask) -> float:
        """The share of the mask's area that some kept cell shows; the rest was lost to a crop or an odd border.

        Raises:
            ValueError: the mask is empty, or not of the image's size.
        """
        checked = self._checked(mask)
        if not checked.any():
            raise ValueError("an empty mask has no visible share")
        ys, xs, seen = self._seen()
        return float((_Area(checked).areas(ys, xs) * seen).sum() / checked.sum())

    def _seen(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool]]:
        """The image cut along every cell border, and which pieces some kept cell shows."""
        edges = [tile.shown_edges() for tile in self.tiles]
        ys = np.unique(np.concatenate([rows for rows, _ in edges]))
        xs = np.unique(np.concatenate([columns for _, columns in edges]))
        seen = np.zeros((len(ys) - 1, len(xs) - 1), dtype=np.bool)
        for tile, (rows, columns) in zip(self.tiles, edges, strict=True):
            kept = np.zeros((len(rows) + 1, len(columns) + 1), dtype=np.bool)
            kept[1:-1, 1:-1] = tile.position_grid != DROPPED
            row = np.searchsorted(rows, (ys[1:] + ys[:-1]) / 2)
            column = np.searchsorted(columns, (xs[1:] + xs[:-1]) / 2)
            seen |= kept[row][:, column]
        return ys, xs, seen

    def mask_to_canvas(self, mask: Mask, tile: int) -> Float[np.ndarray, "canvas_row canvas_column"]:
        """The mask pushed through a tile's resize, crop and padding: the share of each canvas pixel it covers."""
        chosen = self.tiles[tile]
        height, width = chosen.canvas
        box, shown = chosen.box, chosen.shown
        ys = np.linspace(box.top, box.bottom, height + 1)
        xs = np.linspace(box.left, box.right, width + 1)
        area = _Area(self._checked(mask))
        covered = area.areas(ys.clip(shown.top, shown.bottom), xs.clip(shown.left, shown.right))
        share: Covered = covered / np.outer(np.diff(ys), np.diff(xs))
        return share

    def _checked(self, mask: Mask) -> Mask:
        if mask.shape != self.image_size or mask.dtype != np.bool:
            raise ValueError(
                f"the image is {self.image_size} pixels high and wide, the mask {mask.shape} of {mask.dtype}"
            )
        return mask


class _Area:
    """Exact areas of a mask inside rectangles with fractional borders, from a summed-area table."""

    def __init__(self, mask: Mask) -> None:
        height, width = mask.shape
        self.size = (height, width)
        self.table = np.zeros((height + 1, width + 1))
        self.table[1:, 1:] = mask.cumsum(0, dtype=np.float64).cumsum(1)

    def areas(
        self, ys: Float[np.ndarray, " row_edge"], xs: Float[np.ndarray, " column_edge"]
    ) -> Float[np.ndarray, "row column"]:
        """Area of the mask in each cell between consecutive borders; there is none outside the image."""
        down = _weights(ys, self.size[0])
        across = _weights(xs, self.size[1])
        rows = self.table[down[0]] * (1 - down[1])[:, None] + self.table[down[0] + 1] * down[1][:, None]
        corners = rows[:, across[0]] * (1 - across[1]) + rows[:, across[0] + 1] * across[1]
        covered: Covered = np.diff(np.diff(corners, axis=0), axis=1).clip(0)
        return covered

    def shares(
        self, ys: Float[np.ndarray, " row_edge"], xs: Float[np.ndarray, " column_edge"]
    ) -> Float[np.ndarray, "row column"]:
        """The same as a share of each cell; 0 where a cell has no area."""
        visible = np.outer(np.diff(ys), np.diff(xs))
        covered = self.areas(ys, xs)
        share: Covered = np.divide(covered, visible, out=np.zeros_like(covered), where=visible > _EPSILON)
        return share.clip(0, 1)


def _weights(
    edges: npt.NDArray[np.float64], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The table row below each border, and how far the border lies beyond it."""
    inside = edges.clip(0, size)
    below = np.minimum(inside.astype(np.int64), size - 1)
    return below, inside - below


def raster(rows: int, columns: int, *, start: int = 0, stride: int | None = None) -> Positions:
    """Positions in reading order.

    Args:
        rows: of cells.
        columns: of cells.
        start: position of the first cell.
        stride: positions from one row's first cell to the next's; more than `columns` where a separator ends rows.

    >>> raster(2, 3, start=1, stride=4)
    ((1, 2, 3), (5, 6, 7))
    """
    step = columns if stride is None else stride
    return tuple(tuple(range(first, first + columns)) for first in range(start, start + rows * step, step))
