"""The geometry record against a slow reference, planted numbers and its own inverse."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eyechart.core.geometry import DROPPED, NOTHING_SHOWN, Box, Cell, Geometry, Tile, raster


def tile(
    box: Box, grid: tuple[int, int], size: tuple[int, int], side: int = 4, start: int = 0, **more: Any
) -> Tile:
    """A tile whose cells fill its canvas, shown as far as the image goes."""
    shown = Box(max(box.left, 0), max(box.top, 0), min(box.right, size[1]), min(box.bottom, size[0]))
    made = {
        "box": box, "shown": shown, "canvas": (grid[0] * side, grid[1] * side), "cell": (side, side),
        "positions": raster(*grid, start=start), "whole": True,
    }  # fmt: skip
    return Tile(**{**made, **more})


def geometry(*tiles: Tile, size: tuple[int, int]) -> Geometry:
    length = 1 + max(p for one in tiles for row in one.positions for p in row)
    return Geometry(image_size=size, tiles=tiles, length=length)


def slow_share(mask: np.ndarray, box: Box, shown: Box) -> float:
    """The covered share of a rectangle's visible part, pixel by pixel."""
    covered = visible = 0.0
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            height = min(row + 1, box.bottom, shown.bottom) - max(row, box.top, shown.top)
            width = min(column + 1, box.right, shown.right) - max(column, box.left, shown.left)
            area = max(height, 0) * max(width, 0)
            visible += area
            covered += area * mask[row, column]
    return covered / visible if visible > 1e-6 else 0.0


Recipe = tuple[tuple[int, int], list[tuple[Box, tuple[int, int]]], list[bool]]


@st.composite
def recipes(draw: Any) -> Recipe:
    """What goes into a record of one or two tiles that may crop and pad, and the bits of a mask."""
    height, width = draw(st.integers(1, 13)), draw(st.integers(1, 13))
    tiles = []
    for _ in range(draw(st.integers(1, 2))):
        left, top = draw(st.floats(-5, width - 0.5)), draw(st.floats(-5, height - 0.5))
        right = draw(st.floats(max(left, 0) + 0.25, width + 5))
        bottom = draw(st.floats(max(top, 0) + 0.25, height + 5))
        tiles.append((Box(left, top, right, bottom), draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))))
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return (height, width), tiles, bits


def made(recipe: Recipe) -> tuple[Geometry, np.ndarray]:
    """The record and the mask (outside the strategy: the run-time type checks use `random`)."""
    size, tiles, bits = recipe
    record = geometry(*(tile(box, grid, size) for box, grid in tiles), size=size)
    return record, np.array(bits, dtype=bool).reshape(size)


@settings(max_examples=60, deadline=None)
@given(recipes())
def test_shares_are_exact_areas(recipe: Recipe) -> None:
    record, mask = made(recipe)
    for index, (one, shares) in enumerate(zip(record.tiles, record.shares(mask), strict=True)):
        for row, column in np.ndindex(*one.grid):
            expected = slow_share(mask, record.cell_box(index, row, column), one.shown)
            assert shares[row, column] == pytest.approx(expected, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(recipes())
def test_the_visible_share_is_that_of_the_tiles_together(recipe: Recipe) -> None:
    record, mask = made(recipe)
    mask[0, 0] = True
    fine = 40
    places = (np.arange(mask.shape[0] * fine) + 0.5) / fine, (np.arange(mask.shape[1] * fine) + 0.5) / fine
    seen = np.zeros((len(places[0]), len(places[1])), dtype=bool)
    for one in record.tiles:
        ys = (places[0] >= one.shown.top) & (places[0] < one.shown.bottom)
        xs = (places[1] >= one.shown.left) & (places[1] < one.shown.right)
        seen |= np.outer(ys, xs)
    finer = mask.repeat(fine, axis=0).repeat(fine, axis=1)
    assert record.visible_share(mask) == pytest.approx((finer & seen).sum() / finer.sum(), abs=0.06)


@settings(max_examples=60, deadline=None)
@given(recipes(), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_a_point_lies_in_its_cells(recipe: Recipe, across: float, down: float) -> None:
    record, _ = made(recipe)
    height, width = record.image_size
    x, y = across * width, down * height
    cells = record.point_to_cells(x, y)
    assert len(cells) == len({cell.tile for cell in cells})
    for cell in cells:
        box = record.cell_box(*cell)
        assert box.left <= x <= box.right
        assert box.top <= y <= box.bottom
    for index, one in enumerate(record.tiles):
        if one.shown.left < x < one.shown.right and one.shown.top < y < one.shown.bottom:
            assert index in {cell.tile for cell in cells}


def test_a_centre_crop_loses_a_quarter_of_a_wide_photo() -> None:
    """500 x 375 through CLIP at 336 with patches of 14: 15.63 pixels for each patch, 25 % of the pixels gone."""
    crop = tile(Box(62.5, 0, 437.5, 375), (24, 24), (375, 500), side=14)
    record = geometry(crop, size=(375, 500))
    box = record.cell_box(0, 0, 0)
    assert box.right - box.left == pytest.approx(15.625)
    assert record.visible_share(np.ones((375, 500), dtype=bool)) == pytest.approx(0.75)
    gone = np.zeros((375, 500), dtype=bool)
    gone[:, :62] = True
    assert record.visible_share(gone) == 0
    assert not record.positions_of(gone, threshold=0).size


def test_a_letterbox_leaves_18_rows_of_24() -> None:
    """The same photo padded to a square: 20.83 pixels for each patch, 18 rows with content."""
    record = geometry(tile(Box(0, -62.5, 500, 437.5), (24, 24), (375, 500), side=14), size=(375, 500))
    (covered,) = record.mask_to_cells(np.ones((375, 500), dtype=bool), threshold=0)
    assert covered.any(axis=1).sum() == 18
    assert covered[3:21].all()
    box = record.cell_box(0, 5, 5)
    assert box.bottom - box.top == pytest.approx(20.833, abs=1e-3)


def test_the_threshold_is_a_share_of_the_visible_cell() -> None:
    record = geometry(tile(Box(0, -4, 8, 8), (3, 2), (8, 8)), size=(8, 8))
    mask = np.zeros((8, 8), dtype=bool)
    mask[0:2, 0:4] = True  # half of cell (1, 0)
    mask[4, 4] = True  # a sixteenth of cell (2, 1)
    (shares,) = record.shares(mask)
    assert shares.tolist() == [[0, 0], [0.5, 0], [0, 1 / 16]]
    assert record.positions_of(mask, threshold=0).tolist() == [2, 5]
    assert record.positions_of(mask, threshold=0.49).tolist() == [2]
    assert record.positions_of(mask, threshold=0.5).tolist() == []


def test_positions_and_cells_are_inverse_and_separators_are_counted() -> None:
    whole = tile(Box(0, 0, 8, 8), (2, 2), (8, 8))
    parts = tile(Box(0, 0, 8, 8), (2, 2), (8, 8), positions=((4, 5), (7, DROPPED)), whole=False)
    record = Geometry(image_size=(8, 8), tiles=(whole, parts), length=9)
    assert record.separators == 2  # 6 and 8
    assert record.cells_of_position(7) == (Cell(1, 1, 0),)
    assert record.cells_of_position(6) == ()
    assert record.point_to_cells(7.9, 7.9) == (Cell(0, 1, 1),), "a dropped cell shows nothing"
    mask = np.zeros((8, 8), dtype=bool)
    mask[4:, 4:] = True
    assert record.positions_of(mask, threshold=0.5).tolist() == [3]
    mask[4:, :4] = True
    assert record.positions_of(mask, threshold=0.5).tolist() == [2, 3, 7]
    assert record.positions_of(mask, threshold=0.5, tiles=(1,)).tolist() == [7]
    alone = Geometry(image_size=(8, 8), tiles=(parts,), length=9)
    assert alone.visible_share(np.ones((8, 8), dtype=bool)) == 0.75


def test_padding_inside_the_image_shows_nothing() -> None:
    """A quarter of an image, padded: its box reaches over pixels that it does not show."""
    quarter = tile(Box(0, 0, 8, 8), (2, 2), (8, 8), shown=Box(0, 0, 4, 4), whole=False)
    record = geometry(quarter, size=(8, 8))
    mask = np.ones((8, 8), dtype=bool)
    assert record.mask_to_cells(mask, threshold=0)[0].tolist() == [[True, False], [False, False]]
    assert record.visible_share(mask) == 0.25
    assert record.mask_to_canvas(mask, 0).sum() == 16
    assert record.point_to_cells(6, 6) == ()


def test_a_tile_of_padding_shows_nothing() -> None:
    """A very thin picture in LLaVA-NeXT: some tiles hold none of it."""
    whole = tile(Box(0, 0, 1, 8), (2, 2), (8, 1))
    beside = tile(Box(1, 0, 9, 8), (2, 2), (8, 1), start=4, shown=NOTHING_SHOWN, whole=False)
    record = geometry(whole, beside, size=(8, 1))
    mask = np.ones((8, 1), dtype=bool)
    assert record.positions_of(mask, threshold=0).tolist() == [0, 1, 2, 3]
    assert record.visible_share(mask) == 1
    assert record.mask_to_canvas(mask, 1).sum() == 0
    assert record.point_to_cells(0.5, 0.5) == (Cell(0, 0, 1),)


def test_what_cells_leave_over_is_lost() -> None:
    """A canvas of 8 with cells of 3 has two pixels at the end that no cell reads."""
    odd = tile(Box(0, 0, 8, 8), (2, 2), (8, 8), canvas=(8, 8), cell=(3, 3))
    assert geometry(odd, size=(8, 8)).visible_share(np.ones((8, 8), dtype=bool)) == pytest.approx(36 / 64)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_mask_on_the_canvas_is_what_a_box_filter_makes(factor: int) -> None:
    mask = np.random.default_rng(factor).random((30, 60)) < 0.4
    canvas = (30 // factor, 60 // factor)
    one = tile(Box(0, 0, 60, 30), (1, 1), (30, 60), canvas=canvas, cell=canvas)
    got = geometry(one, size=(30, 60)).mask_to_canvas(mask, 0)
    image = Image.fromarray(mask.astype(np.float32)).resize((canvas[1], canvas[0]), Image.Resampling.BOX)
    np.testing.assert_allclose(got, np.asarray(image), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(recipes())
def test_a_mask_on_the_canvas_keeps_its_visible_area(recipe: Recipe) -> None:
    record, mask = made(recipe)
    for index, one in enumerate(record.tiles):
        down, across = one.scale
        whole = Box(one.shown.left, one.shown.top, one.shown.right, one.shown.bottom)
        area = slow_share(mask, whole, one.shown) * (whole.right - whole.left) * (whole.bottom - whole.top)
        assert record.mask_to_canvas(mask, index).sum() / (down * across) == pytest.approx(area, abs=1e-4)


def test_a_record_is_a_value() -> None:
    first, second = (geometry(tile(Box(0, 0, 8, 8), (2, 2), (8, 8)), size=(8, 8)) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)


def test_reading_order_with_row_ends() -> None:
    assert raster(2, 3) == ((0, 1, 2), (3, 4, 5))
    assert raster(2, 2, start=5, stride=3) == ((5, 6), (8, 9))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"positions": ((0, 1), (2,))}, r"lengths \[1, 2\]"),
        ({"cell": (5, 4)}, r"cells of \(5, 4\) pixels do not fit a canvas of \(8, 8\)"),
        ({"shown": Box(3, 0, 3, 8)}, r"a rectangle of its box or NOTHING_SHOWN, got Box\(left=3"),
    ],
)
def test_a_tile_that_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tile(Box(0, 0, 8, 8), (2, 2), (8, 8), **change)


def test_a_tile_without_a_box_is_refused() -> None:
    with pytest.raises(ValueError, match=r"box must have an area, got Box\(left=3"):
        tile(Box(3, 0, 3, 8), (2, 2), (8, 8), shown=Box(0, 0, 8, 8))


def test_a_record_that_cannot_be_is_refused() -> None:
    one = tile(Box(0, 0, 8, 8), (2, 2), (8, 8))
    with pytest.raises(ValueError, match=r"positions from 0 to 3, outside -1\.\.2"):
        Geometry(image_size=(8, 8), tiles=(one,), length=3)
    with pytest.raises(ValueError, match="with 0 tiles"):
        Geometry(image_size=(8, 8), tiles=(), length=3)
    with pytest.raises(ValueError, match=r"beyond an image of size \(8, 7\)"):
        Geometry(image_size=(8, 7), tiles=(one,), length=4)


def test_questions_outside_the_record_are_refused() -> None:
    record = geometry(tile(Box(0, 0, 8, 8), (2, 2), (8, 8)), size=(8, 8))
    with pytest.raises(ValueError, match=r"the mask \(8, 9\) of bool"):
        record.shares(np.zeros((8, 9), dtype=bool))
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 1.0"):
        record.mask_to_cells(np.zeros((8, 8), dtype=bool), threshold=1.0)
    with pytest.raises(ValueError, match="none at 4"):
        record.cells_of_position(4)
    with pytest.raises(ValueError, match="none at row 2, column 0"):
        record.cell_box(0, 2, 0)
    with pytest.raises(ValueError, match="an empty mask"):
        record.visible_share(np.zeros((8, 8), dtype=bool))
    with pytest.raises(ValueError, match=r"\(8.0, 1.0\) lies outside an image 8 wide"):
        record.point_to_cells(8.0, 1.0)


def test_the_borders_of_neighbours_meet() -> None:
    record = geometry(tile(Box(0.3, 0.1, 7.7, 9.9), (3, 7), (10, 8)), size=(10, 8))
    assert math.isclose(record.cell_box(0, 1, 3).right, record.cell_box(0, 1, 4).left)
    assert math.isclose(record.cell_box(0, 0, 3).bottom, record.cell_box(0, 1, 3).top)
