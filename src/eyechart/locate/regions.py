"""Regions of an image that a part's mask is set against: as large, elsewhere, and never on the mask.

The best rank over n patches is better than over one by chance alone (for n independent ranks among V tokens its
expectation is (V + 1) / (n + 1)), so a large part looks identifiable by its size. Regions of the same number of cells are
subject to the same luck. Two kinds: the mask's *outline* moved over one grid, round its edges, which keeps how far its
cells lie apart; and *connected* regions grown cell by cell, on any set of positions that has a neighbour relation, such as
the tiles of several resolutions. Neither is given by a paper; both are choices, and a record says which was taken.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from eyechart.core.geometry import DROPPED, Geometry

REGIONS = 8
"""Random regions for each mask by default."""

_TOUCH = 1e-3
"""Borders nearer than this, in original pixels, are one."""

Neighbours = Mapping[int, Sequence[int]]
"""For each position that may be part of a region, the positions beside it."""


class RegionRule(StrEnum):
    """How a region is drawn."""

    OUTLINE = "outline"
    """The mask's outline moved elsewhere; one grid only."""

    CONNECTED = "connected"
    """Connected cells, as many as the mask has in each connected set of positions."""


def moved_regions(
    mask: Bool[ndarray, "row column"],
    rng: np.random.Generator,
    *,
    regions: int = REGIONS,
    allowed: Bool[ndarray, "row column"] | None = None,
) -> list[Bool[ndarray, "row column"]]:
    """The mask's outline moved to random places, round the edges, where it does not meet the mask; all different moves.

    Args:
        mask: on one grid.
        rng: takes one permutation of the grid's cells.
        regions: how many; fewer are given where there are fewer such places.
        allowed: the cells that a region may hold; None allows all that are not the mask's.
    """
    rows, columns = mask.shape
    barred = mask if allowed is None else mask | ~allowed
    moves = [(down, right) for down in range(rows) for right in range(columns)]
    found: list[Bool[ndarray, "row column"]] = []
    for number in rng.permutation(len(moves)):
        if len(found) >= regions:
            break
        moved = np.roll(mask, moves[number], axis=(0, 1))
        if mask.any() and not (moved & barred).any():
            found.append(moved)
    return found


def connected_regions(
    mask: Collection[int],
    neighbours: Neighbours,
    rng: np.random.Generator,
    *,
    regions: int = REGIONS,
    barred: Collection[int] = (),
) -> list[Int[ndarray, " _"]]:
    """Random regions of as many positions as the mask, connected within each connected set of positions.

    A model that sees an image at several resolutions has no edges between them, and the mask's share of each is matched
    there. A region begins at a random position and takes in a random neighbour until it is full. Regions are drawn
    independently of each other and may meet or be the same.

    Args:
        mask: positions, each of which has an entry in `neighbours`.
        neighbours: a symmetric relation.
        rng: of the drawing.
        regions: how many; none are given where no region fits beside the mask.
        barred: further positions that no region may hold.

    Returns:
        The positions of each region, ascending.

    Raises:
        ValueError: the mask holds a position without an entry.
    """
    if strange := set(mask) - set(neighbours):
        raise ValueError(f"positions {sorted(strange)} of the mask have no entry among the neighbours")
    wanted = [(part, len(part & set(mask))) for part in _components(neighbours, set(neighbours))]
    wanted = [(part, count) for part, count in wanted if count]
    outside = set(mask) | set(barred)
    starts = [(_room(neighbours, part - outside, count), count) for part, count in wanted]
    if not starts or any(not room for room, _ in starts):
        return []
    return [
        np.array(sorted(set().union(*(_grown(room, count, neighbours, rng) for room, count in starts))))
        for _ in range(regions)
    ]


def grid_neighbours(rows: int, columns: int) -> dict[int, tuple[int, ...]]:
    """The neighbours above, below, left and right of each cell of a grid, whose cells count row by row.

    >>> grid_neighbours(2, 2)
    {0: (1, 2), 1: (0, 3), 2: (0, 3), 3: (1, 2)}
    """
    steps = ((-1, 0), (0, -1), (0, 1), (1, 0))
    return {
        row * columns + column: tuple(
            (row + down) * columns + column + right
            for down, right in steps
            if 0 <= row + down < rows and 0 <= column + right < columns
        )
        for row in range(rows)
        for column in range(columns)
    }


def neighbours_of(geometry: Geometry) -> dict[int, tuple[int, ...]]:
    """The neighbour relation of an image's positions; those that show none of it (padding, separators) have no entry.

    Cells are neighbours inside a tile, and across the borders of tiles that stand side by side. A view of the whole image
    and the tiles of its enlargement are not connected.
    """
    found: dict[int, set[int]] = {}
    for tile in geometry.tiles:
        grid = tile.position_grid
        ys, xs = tile.shown_edges()
        shown = (np.outer(np.diff(ys), np.diff(xs)) > _TOUCH) & (grid != DROPPED)
        for position in grid[shown]:
            found.setdefault(int(position), set())
        for flip in (False, True):  # down, then across
            cells, seen = (grid.T, shown.T) if flip else (grid, shown)
            both = seen[:-1] & seen[1:]
            _join(found, cells[:-1][both], cells[1:][both])
    boxes, positions = _rims(geometry)
    if len(positions):
        first, second = np.nonzero(_touching(boxes))
        _join(found, positions[first], positions[second])
    return {position: tuple(sorted(beside)) for position, beside in sorted(found.items())}


def _join(found: dict[int, set[int]], first: Int[ndarray, " pair"], second: Int[ndarray, " pair"]) -> None:
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        if one != other:
            found[one].add(other)
            found[other].add(one)


def _rims(geometry: Geometry) -> tuple[Float[ndarray, "cell 4"], Int[ndarray, " cell"]]:
    """What the outermost cells of tiles that are no whole view show (left, top, right, bottom), and their positions."""
    boxes, positions = [np.empty((0, 4))], [np.empty(0, dtype=np.int64)]
    for tile in geometry.tiles:
        if tile.whole:
            continue
        ys, xs = tile.shown_edges()
        rim = np.ones(tile.grid, dtype=np.bool)
        rim[1:-1, 1:-1] = False
        rim &= (np.outer(np.diff(ys), np.diff(xs)) > _TOUCH) & (tile.position_grid != DROPPED)
        rows, columns = np.nonzero(rim)
        boxes.append(np.stack([xs[columns], ys[rows], xs[columns + 1], ys[rows + 1]], axis=1))
        positions.append(tile.position_grid[rim])
    return np.concatenate(boxes), np.concatenate(positions)


def _touching(boxes: Float[ndarray, "cell 4"]) -> Bool[ndarray, "cell cell"]:
    """Which box has another at its right or below, with more than a corner in common."""
    left, top, right, bottom = boxes.T

    def share(low: Float[ndarray, " cell"], high: Float[ndarray, " cell"]) -> Float[ndarray, "cell cell"]:
        return np.asarray(np.minimum(high[:, None], high) - np.maximum(low[:, None], low))

    beside = (np.abs(right[:, None] - left) < _TOUCH) & (share(top, bottom) > _TOUCH)
    below = (np.abs(bottom[:, None] - top) < _TOUCH) & (share(left, right) > _TOUCH)
    return np.asarray(beside | below)


def _components(neighbours: Neighbours, among: set[int]) -> list[set[int]]:
    """The connected sets of some positions, in order of their first one."""
    left, found = set(among), []
    for start in sorted(among):
        if start not in left:
            continue
        part, edge = {start}, [start]
        while edge:
            new = {one for one in neighbours[edge.pop()] if one in left and one not in part}
            part |= new
            edge += sorted(new)
        left -= part
        found.append(part)
    return found


def _room(neighbours: Neighbours, free: set[int], count: int) -> list[int]:
    """The free positions from which a region of so many can grow, ascending."""
    parts = [part for part in _components(neighbours, free) if len(part) >= count]
    return sorted(set().union(*parts))


def _grown(room: list[int], count: int, neighbours: Neighbours, rng: np.random.Generator) -> set[int]:
    allowed = set(room)
    region = {room[int(rng.integers(len(room)))]}
    edge = sorted(allowed.intersection(neighbours[next(iter(region))]))
    while len(region) < count:
        taken = edge.pop(int(rng.integers(len(edge))))
        region.add(taken)
        known = region.union(edge)
        edge += sorted(one for one in neighbours[taken] if one in allowed and one not in known)
    return region
