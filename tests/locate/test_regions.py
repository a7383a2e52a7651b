"""Regions are as large as the mask, elsewhere, connected where they must be, and drawn evenly."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.geometry import DROPPED, NOTHING_SHOWN, Box, Geometry, Tile, raster
from eyechart.locate.regions import (
    connected_regions,
    grid_neighbours,
    moved_regions,
    neighbours_of,
)


def grid_geometry(rows, columns, *, cell=10, shown=None, positions=None):
    box = Box(0.0, 0.0, float(columns * cell), float(rows * cell))
    tile = Tile(
        box=box, shown=shown or box, canvas=(rows * cell, columns * cell), cell=(cell, cell),
        positions=positions or raster(rows, columns), whole=True,
    )  # fmt: skip
    return Geometry(image_size=(rows * cell, columns * cell), tiles=(tile,), length=rows * columns)


def tiled_geometry():
    """A whole view of 2 x 2 cells, and two tiles of 3 x 3 beside each other that show the same image."""

    def tile(left, right, start, rows, columns, whole):
        box = Box(left, 0.0, right, 30.0)
        return Tile(
            box=box, shown=box, canvas=(rows * 10, columns * 10), cell=(10, 10), whole=whole,
            positions=raster(rows, columns, start=start),
        )  # fmt: skip

    tiles = (
        tile(0.0, 60.0, 0, 2, 2, True),
        tile(0.0, 30.0, 4, 3, 3, False),
        tile(30.0, 60.0, 13, 3, 3, False),
    )
    return Geometry(image_size=(30, 60), tiles=tiles, length=22)


def is_connected(region, neighbours):
    region = set(region)
    seen, edge = set(), [min(region)]
    while edge:
        one = edge.pop()
        seen.add(one)
        edge += [other for other in neighbours[one] if other in region and other not in seen]
    return seen == region


masks = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10_000)).map(
    lambda it: np.random.default_rng(it[2]).random(it[:2]) < 0.3
)


@settings(deadline=None)
@given(masks, st.integers(0, 5), st.integers(0, 99))
def test_moved_outlines_are_all_there_are_or_as_many_as_asked(mask, regions, seed):
    allowed = np.random.default_rng(seed).random(mask.shape) < 0.8
    found = moved_regions(mask, np.random.default_rng(seed), regions=regions, allowed=allowed)
    rolled = [np.roll(mask, (down, right), (0, 1)) for down, right in np.ndindex(mask.shape)]
    possible = [one for one in rolled if mask.any() and not (one & (mask | ~allowed)).any()]
    assert len(found) == min(regions, len(possible))
    for region in found:
        assert any((region == one).all() for one in possible)


def test_every_place_is_as_likely():
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 1:3] = True
    rng = np.random.default_rng(0)
    counts = Counter(moved_regions(mask, rng, regions=1)[0].tobytes() for _ in range(1_800))
    assert len(counts) == 9, "12 moves, of which three meet the mask"
    assert max(counts.values()) < 1.5 * min(counts.values())


@settings(deadline=None)
@given(masks, st.integers(0, 99))
def test_connected_regions_have_the_masks_size_and_keep_off(mask, seed):
    neighbours = grid_neighbours(*mask.shape)
    rng = np.random.default_rng(seed)
    cells = np.flatnonzero(mask).tolist()
    barred = [one for one in neighbours if rng.random() < 0.2]
    found = connected_regions(cells, neighbours, rng, regions=3, barred=barred)
    free = set(neighbours) - set(cells) - set(barred)
    largest = max((len(part) for part in flood(free, neighbours)), default=0)
    assert len(found) == (3 if cells and largest >= len(cells) else 0)
    for region in found:
        assert len(region) == len(set(region.tolist())) == len(cells)
        assert free.issuperset(region.tolist())
        assert is_connected(region.tolist(), neighbours)
        assert (np.diff(region) > 0).all()


def flood(free, neighbours):
    """Connected sets of cells by relabelling until nothing changes."""
    names = {one: one for one in free}
    for _ in free:
        for one in free:
            names[one] = min(names[other] for other in (one, *neighbours[one]) if other in free)
    return [[one for one in free if names[one] == name] for name in set(names.values())]


def test_connected_regions_reach_everywhere_and_differ():
    neighbours = grid_neighbours(5, 5)
    rng = np.random.default_rng(1)
    found = connected_regions([12, 13, 14], neighbours, rng, regions=400)
    reached = {one for region in found for one in region.tolist()}
    assert reached == set(range(25)) - {12, 13, 14}
    assert len({tuple(region) for region in found}) > 40
    again = connected_regions([12, 13, 14], neighbours, np.random.default_rng(1), regions=400)
    assert all((a == b).all() for a, b in zip(found, again, strict=True))


def test_every_place_beside_a_growing_region_is_as_likely_to_be_taken():
    """Against all ways of growing, written out: a place is no likelier for having two neighbours in the region."""
    neighbours = {0: (1, 2, 4), 1: (0, 2, 3), 2: (0, 1), 3: (1,), 4: (0, 5), 5: (4, 6), 6: (5,)}
    free = {0, 1, 2, 3}

    def ways(region, chance):
        if len(region) == 3:
            yield region, chance
            return
        beside = sorted({other for one in region for other in neighbours[one]} & free - region)
        for one in beside:
            yield from ways(region | {one}, chance / len(beside))

    wanted: Counter = Counter()
    for start in free:
        for region, chance in ways(frozenset({start}), 1 / 4):
            wanted[region] += chance
    found = connected_regions([4, 5, 6], neighbours, np.random.default_rng(0), regions=6000)
    counts = Counter(frozenset(region.tolist()) for region in found)
    assert set(counts) == set(wanted)
    for region, chance in wanted.items():
        assert abs(counts[region] / 6000 - chance) < 0.025


def test_a_region_too_large_to_fit_is_not_given():
    neighbours = grid_neighbours(3, 3)
    row = [3, 4, 5]
    rng = np.random.default_rng(0)
    assert len(connected_regions(row, neighbours, rng, regions=2)) == 2
    assert connected_regions([3, 4, 5, 6], neighbours, rng) == []
    assert connected_regions([], neighbours, rng) == []
    with pytest.raises(ValueError, match=r"positions \[9\] of the mask have no entry"):
        connected_regions([9], neighbours, rng)


def test_each_resolution_keeps_its_share():
    geometry = tiled_geometry()
    neighbours = neighbours_of(geometry)
    mask = np.zeros((30, 60), dtype=bool)
    mask[:15, 25:40] = True
    cells = geometry.positions_of(mask, threshold=0.4).tolist()
    coarse, fine = [one for one in cells if one < 4], [one for one in cells if one >= 4]
    assert len(fine) >= 2
    found = connected_regions([0, *fine], neighbours, np.random.default_rng(0), regions=50)
    assert coarse == []
    for region in found:
        assert sum(region < 4) == 1
        assert is_connected([one for one in region.tolist() if one >= 4], neighbours)
    assert any(min(r[r >= 4]) < 13 <= max(r) for r in found), "a region may lie across tiles"


def test_neighbours_of_one_grid_are_those_of_the_grid():
    for rows, columns in ((1, 1), (1, 4), (3, 2), (4, 5)):
        assert neighbours_of(grid_geometry(rows, columns)) == grid_neighbours(rows, columns)


def test_neighbours_across_tiles_and_not_across_resolutions():
    neighbours = neighbours_of(tiled_geometry())
    assert neighbours[6] == (5, 9, 13), "right end of the first tile's first row, left end of the second's"
    assert neighbours[16] == (9, 13, 17, 19)
    assert neighbours[0] == (1, 2)
    for one, beside in neighbours.items():
        assert all(one in neighbours[other] for other in beside)


def test_neighbours_agree_with_boxes_that_share_a_side():
    """The slow way: cells of one resolution whose boxes have a piece of border in common."""
    geometry = tiled_geometry()
    boxes = {}
    for number, tile in enumerate(geometry.tiles):
        for row, column in np.ndindex(tile.grid):
            boxes[tile.positions[row][column]] = (number > 0, geometry.cell_box(number, row, column))

    def beside(one, other):
        (fine, a), (also, b) = boxes[one], boxes[other]
        wide = min(a.right, b.right) - max(a.left, b.left)
        high = min(a.bottom, b.bottom) - max(a.top, b.top)
        return (
            fine == also
            and one != other
            and sorted([wide > 1e-6, high > 1e-6]) == [False, True]
            and min(wide, high) > -1e-6
        )

    slow = {one: tuple(other for other in boxes if beside(one, other)) for one in boxes}
    assert neighbours_of(geometry) == {one: tuple(sorted(some)) for one, some in sorted(slow.items())}


def test_padding_and_dropped_cells_belong_to_no_region():
    positions = ((0, 1, 2), (3, DROPPED, 4))
    geometry = grid_geometry(2, 3, shown=Box(0.0, 0.0, 20.0, 20.0), positions=positions)
    assert neighbours_of(geometry) == {0: (1, 3), 1: (0,), 3: (0,)}
    empty = Tile(
        box=Box(0.0, 0.0, 10.0, 10.0),
        shown=NOTHING_SHOWN,
        canvas=(10, 10),
        cell=(10, 10),
        positions=((4,),),
        whole=False,
    )
    two = Geometry(image_size=(20, 20), tiles=(grid_geometry(2, 2).tiles[0], empty), length=5)
    assert 4 not in neighbours_of(two)
