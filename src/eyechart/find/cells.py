"""Cells of sketches, and which rows have to visit which: most pairs of cells need not be compared at all.

Every row has the nearest of some centres as its home. Let m_x(j) be the distance of x to the plane halfway between the
centre of its home i and that of cell j. Two rows of different homes lie on different sides of such a plane, so
m_x(j) + m_y(i) <= |x - y|: of two rows that are nearer than 2h, at least one is within h of the plane and visits the
other's cell. (The bisector rule of ClusterJoin, Das Sarma et al., VLDB 2014, with half the distance for each side.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

CENTRES = 2.0
"""So many cells, times the square root of the number of rows."""

PER_CELL, ROUNDS = 24, 5
"""Rows to a centre on which centres are found, and rounds of k-means."""

STEP = 16_384
"""Rows at a time."""

GROUP = 64
"""Cells whose visitors are found together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Rows sorted by their homes. All places are those after sorting."""

    order: Int[ndarray, " row"]
    """Which row lies at each place."""

    starts: Int[ndarray, " border"]
    """Where each cell's rows begin, and the end."""

    homes: Int[ndarray, " row"]
    rows: Float[Tensor, "row column"]
    centres: Float[Tensor, "cell column"]

    @property
    def count(self) -> int:
        """How many cells there are."""
        return len(self.centres)

    def of(self, cell: int) -> slice:
        """The places of a cell's rows."""
        return slice(int(self.starts[cell]), int(self.starts[cell + 1]))


def make_cells(rows: Float[ndarray, "row column"], *, seed: int = 0) -> Cells:
    """Find centres by k-means on some rows, and every row's home."""
    count = max(1, round(CENTRES * len(rows) ** 0.5))
    table = torch.from_numpy(rows)
    generator = torch.Generator().manual_seed(seed)
    some = table[torch.randperm(len(rows), generator=generator)[: count * PER_CELL]]
    centres = some[:count].clone()
    for _ in range(ROUNDS):
        nearest = _nearest(some, centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, some)
        sizes = torch.bincount(nearest, minlength=count)
        centres = torch.where((sizes > 0)[:, None], sums / sizes.clamp_min(1)[:, None], centres)
    homes = _nearest(table, centres)
    order = torch.argsort(homes, stable=True)
    starts = np.concatenate([[0], np.cumsum(torch.bincount(homes, minlength=count).numpy())])
    return Cells(
        order=order.numpy(), starts=starts, homes=homes[order].numpy(), rows=table[order], centres=centres
    )


def _portions(rows: Float[Tensor, "row column"]) -> Iterator[Float[Tensor, "part column"]]:
    for start in range(0, len(rows), STEP):
        yield rows[start : start + STEP]


def _nearest(rows: Float[Tensor, "row column"], centres: Float[Tensor, "cell column"]) -> Int[Tensor, " row"]:
    half = centres.square().sum(1) / 2
    parts = [torch.addmm(-half, part, centres.T).argmax(1) for part in _portions(rows)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)


def visitors(cells: Cells, group: slice, reach: float, slack: float) -> Iterator[Int[ndarray, " visitor"]]:
    """For each cell of a group the places of all rows of other cells that may be within `reach` of it, and a few more.

    Args:
        slack: a bound on the float32 errors of the comparison.
    """
    chosen = cells.centres[group]
    half = cells.centres.square().sum(1) / 2
    between = torch.cdist(cells.centres, chosen, compute_mode="donot_use_mm_for_euclid_dist")
    found: list[list[Int[ndarray, " visitor"]]] = [[] for _ in range(len(chosen))]
    homes = torch.from_numpy(cells.homes)
    for start in range(0, len(cells.rows), STEP):
        rows, home = cells.rows[start : start + STEP], homes[start : start + STEP]
        own = (rows * cells.centres[home]).sum(1) - half[home]
        nearer = torch.addmm(-half[group], rows, chosen.T) - own[:, None]
        near = nearer >= -reach * between[home] - slack
        near &= home[:, None] != torch.arange(group.start, group.stop)
        column, row = near.T.nonzero(as_tuple=True)
        borders = torch.bincount(column, minlength=len(chosen)).cumsum(0)[:-1]
        for cell, part in enumerate(torch.tensor_split(row, borders)):
            found[cell].append(part.numpy().astype(np.int32) + np.int32(start))
    for parts in found:
        yield np.concatenate(parts) if parts else np.zeros(0, np.int32)


def visits(
    cells: Cells, places: Int[ndarray, " pair"], targets: Int[ndarray, " pair"], reach: float
) -> Bool[ndarray, " pair"]:
    """Whether each row is within `reach` of the plane between its home and the target cell; in float64."""
    rows = cells.rows.numpy()[places].astype(np.float64)
    centres = cells.centres.numpy()
    own = centres[cells.homes[places]].astype(np.float64)
    other = centres[targets].astype(np.float64)
    apart = np.linalg.norm(other - own, axis=1)
    away = (np.square(rows - other).sum(1) - np.square(rows - own).sum(1)) / 2
    within: Bool[ndarray, " pair"] = away <= reach * apart
    return within


def found_here(
    cells: Cells, visiting: Int[ndarray, " pair"], at_home: Int[ndarray, " pair"], reach: float
) -> Bool[ndarray, " pair"]:
    """Which pairs of a visitor and a row at home count here: each pair counts in one of the two cells it may be found in.

    Where only one of the two visits the other, it counts there; where both do, in the cell of the smaller number.
    """
    theirs, ours = cells.homes[visiting], cells.homes[at_home]
    here = visits(cells, visiting, ours, reach)
    there = visits(cells, at_home, theirs, reach)
    counted: Bool[ndarray, " pair"] = here & (~there | (ours < theirs))
    return counted
