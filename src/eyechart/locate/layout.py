"""What stands where in the sequences of a VLM's two towers, and which attention edges there are.

A knockout is a set of (query, key) places, so somebody must say which places are the patches, the class
token, the registers, the text before the image and the question. These records do, without a model;
`layout_of_vlm` makes them from one. Vision attention is bidirectional within a row (a tile, where tiles go
through the tower as a batch). Language attention is causal, with two exceptions: towers that look both ways
(an encoder, a prefix model such as PaliGemma), and those in which only the image's own tokens see each other
both ways (Gemma 3).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.core.geometry import Cell, Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionLayout:
    """The sequence of a vision tower for one image: all rows (tiles) one after the other."""

    length: int
    """Tokens in all rows together, those included that are no patch."""

    patches: tuple[int, ...]
    """The token of each patch, in reading order and tile by tile: place k here is position k of the tower's
    geometry."""

    special: tuple[int, ...] = ()
    """Tokens that are no patch: class token and registers."""

    rows: int = 1
    """Sequences of equal length that do not see each other: tiles that are a batch; 1 for one joint
    sequence."""

    cells: tuple[Cell, ...] = ()
    """Of each patch its tile, row and column, in the order of `patches`; empty where not known."""

    def __post_init__(self) -> None:
        _check_places("patches and special tokens", (*self.patches, *self.special), self.length)
        if len(self.patches) + len(self.special) != self.length:
            raise ValueError(
                f"{len(self.patches)} patches and {len(self.special)} special tokens make no {self.length} tokens"
            )
        if self.rows < 1 or self.length % self.rows:
            raise ValueError(f"{self.length} tokens do not fall into {self.rows} rows of one length")
        if self.cells and len(self.cells) != len(self.patches):
            raise ValueError(f"{len(self.cells)} cells for {len(self.patches)} patches")

    def existing(self) -> Bool[ndarray, "query key"]:
        """The edges the tower has: all between tokens of one row."""
        row = np.arange(self.length) // (self.length // self.rows)
        return np.asarray(row[:, None] == row[None, :], dtype=np.bool)

    def patches_of(self, positions: Iterable[int], geometry: Geometry) -> tuple[int, ...]:
        """The tokens whose patches lie in the cells that stand at these LLM positions of the image.

        Where the projector merges patches, a cell has several: a cut must take them all, or the part would
        be read in part.

        Args:
            positions: as `geometry.positions_of` gives them.
            geometry: of the language side; its tiles are those of this layout.

        Raises:
            UserError: its cells are no whole squares of this layout's patches.
        """
        wanted = {cell for position in positions for cell in geometry.cells_of_position(int(position))}
        sides = self._merged(geometry)
        return tuple(
            token
            for token, (tile, row, column) in zip(self.patches, self.cells, strict=True)
            if tile in sides and Cell(tile, row // sides[tile][0], column // sides[tile][1]) in wanted
        )

    def _merged(self, geometry: Geometry) -> dict[int, tuple[int, int]]:
        """For each tile how many patches down and across make one cell."""
        if not self.cells:
            raise UserError("the places of this tower's patches are not known, so no cell has patches")
        sides = {}
        for tile in sorted({cell.tile for cell in self.cells}):
            here = [cell for cell in self.cells if cell.tile == tile]
            down, across = max(c.row for c in here) + 1, max(c.column for c in here) + 1
            rows, columns = geometry.tiles[tile].grid if tile < len(geometry.tiles) else (0, 0)
            if not rows or down % rows or across % columns:
                raise UserError(
                    f"tile {tile} has {down} x {across} patches and {rows} x {columns} cells in the language model; expected"
                    " whole patches in each cell. Give the part's patches from the tower's own geometry instead"
                )
            sides[tile] = (down // rows, across // columns)
        return sides


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageLayout:
    """The sequence of a language tower for one prompt with its image."""

    length: int
    image: tuple[int, ...]
    """Positions that hold the image, in order: place k here is position k of the image's geometry."""

    before: tuple[int, ...] = ()
    """Text before the image."""

    question: tuple[int, ...] = ()
    """Text after the image, the last position included."""

    between: tuple[int, ...] = ()
    """Text between the image's first and last position: marks of tiles and rows that carry no image token."""

    causal: bool = True
    """Whether a position sees only itself and earlier ones."""

    image_both_ways: bool = False
    """In a causal tower, whether image positions see each other both ways."""

    def __post_init__(self) -> None:
        if not self.image:
            raise ValueError("a layout without image positions has nothing to cut")
        places = (*self.before, *self.image, *self.between, *self.question)
        _check_places("image and text", places, self.length)
        if len(places) != self.length:
            raise ValueError(
                f"image and text have {len(places)} positions together, the sequence {self.length}"
            )
        if any(
            tuple(sorted(some)) != some for some in (self.before, self.image, self.between, self.question)
        ):
            raise ValueError("positions of a layout go up")

    @property
    def last(self) -> int:
        """Where the answer is read."""
        return self.length - 1

    @property
    def sink(self) -> int:
        """The first position (BOS, where there is one): attention that has nowhere else to go rests on it."""
        return 0

    def existing(self) -> Bool[ndarray, "query key"]:
        """The edges the tower has."""
        found = np.ones((self.length, self.length), dtype=np.bool)
        if self.causal:
            found = np.tril(found)
            if self.image_both_ways:
                found[np.ix_(self.image, self.image)] = True
        return found


Layout = VisionLayout | LanguageLayout


def _check_places(what: str, places: tuple[int, ...], length: int) -> None:
    wrong = [place for place in places if not 0 <= place < length]
    if wrong or len(set(places)) != len(places):
        raise ValueError(f"{what} must be different places in 0..{length - 1}, got {wrong or sorted(places)}")
