"""Cells of sketches, and which rows have to visit which: most pairs of cells need not be compared at all.

Every row has the nearest of some centres as its home. Let m_x(j) be the distance of x to the plane halfway between the
centre of its home i and that of cell j. Two rows of different homes lie on different sides of such a plane, so
m_x(j) + m_y(i) <= |x - y|: of two rows that are nearer than 2h, at least one is within h of the plane and visits the
other's cell. (The bisector rule of ClusterJoin, Das Sarma et al., VLDB 2014, with half the distance for each side.)
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from eyechart.find.exact import FEW, SINGLE, Result, lane_sums, pool_of

CENTRES = 0.8
"""So many cells, times the square root of the number of rows."""

PER_CELL, ROUNDS = 24, 5
"""Rows to a centre on which centres are found, and rounds of k-means."""

STEP = 16_384
"""Rows at a time."""

TABLE = 2**19
"""Products of rows and centres at a time: so few that they stay in a core's own cache."""

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
    halves: Float[Tensor, " cell"]
    """Half of each centre's squared length."""

    nearness: Float[Tensor, " row"]
    """Of each row to its own centre: the product less the half above, in float32."""

    away: Float[ndarray, " row"]
    """How far each row is from its own centre, squared, in float64."""

    error: float
    """A bound on what float32 takes from a comparison of two nearnesses with `reach` times a distance, for a reach of 1 at most."""

    @property
    def count(self) -> int:
        """How many cells there are."""
        return len(self.centres)

    def of(self, cell: int) -> slice:
        """The places of a cell's rows."""
        return slice(int(self.starts[cell]), int(self.starts[cell + 1]))


def make_cells(rows: Float[ndarray, "row column"], *, seed: int = 0, threads: int = 1) -> Cells:
    """Find centres by k-means on some rows, and every row's home."""
    count = max(1, round(CENTRES * len(rows) ** 0.5))
    table = torch.from_numpy(rows)
    generator = torch.Generator().manual_seed(seed)
    some = table[torch.randperm(len(rows), generator=generator)[: count * PER_CELL]]
    centres = some[:count].clone()
    for _ in range(ROUNDS):
        nearest = _nearest(some, centres, threads)
        sums = torch.zeros_like(centres).index_add_(0, nearest, some)
        sizes = torch.bincount(nearest, minlength=count)
        centres = torch.where((sizes > 0)[:, None], sums / sizes.clamp_min(1)[:, None], centres)
    homes = _nearest(table, centres, threads)
    order = torch.argsort(homes, stable=True)
    return _sorted(table[order], centres, homes[order], order.numpy(), threads)


def _sorted(
    rows: Float[Tensor, "row column"],
    centres: Float[Tensor, "cell column"],
    homes: Int[Tensor, " row"],
    order: Int[ndarray, " row"],
    threads: int,
) -> Cells:
    halves = centres.square().sum(1) / 2
    own = _in_portions(len(rows), threads, lambda part: (rows[part] * centres[homes[part]]).sum(1))
    away = _in_portions(
        len(rows), threads, lambda part: _squares(rows[part].numpy(), centres[homes[part]].numpy())
    )
    largest = max(float(rows.square().sum(1).max()) if len(rows) else 0.0, 2 * float(halves.max()))
    sizes = torch.bincount(homes, minlength=len(centres)).numpy()
    return Cells(
        order=order,
        starts=np.concatenate([[0], np.cumsum(sizes)]),
        homes=homes.numpy(),
        rows=rows,
        centres=centres,
        halves=halves,
        nearness=torch.cat([*own, torch.zeros(0)]) - halves[homes],
        away=np.concatenate([*away, np.zeros(0)]),
        error=8 * (rows.shape[1] + 4) * SINGLE * (largest + math.sqrt(largest)),
    )


def _in_portions(rows: int, threads: int, work: Callable[[slice], Result], step: int = STEP) -> list[Result]:
    with pool_of(threads) as pool:
        return list(pool.map(work, (slice(start, start + step) for start in range(0, rows, step))))


def _nearest(
    rows: Float[Tensor, "row column"], centres: Float[Tensor, "cell column"], threads: int
) -> Int[Tensor, " row"]:
    half = centres.square().sum(1) / 2

    def nearest(part: slice) -> Int[ndarray, " row"]:
        products = torch.addmm(-half, rows[part], centres.T)
        found: Int[ndarray, " row"] = products.numpy().argmax(1)  # several times as fast as torch's
        return found

    parts = _in_portions(len(rows), threads, nearest, max(64, TABLE // len(centres)))
    return torch.from_numpy(np.concatenate([*parts, np.zeros(0, np.int64)]))


def visitors(cells: Cells, group: slice, reach: float) -> Iterator[Int[ndarray, " visitor"]]:
    """For each cell of a group the places of all rows of other cells that may be within `reach` of it, and a few more."""
    chosen = cells.centres[group]
    between = torch.cdist(chosen, cells.centres, compute_mode="donot_use_mm_for_euclid_dist")
    least = cells.halves[group, None] - reach * between - cells.error
    least[torch.arange(len(chosen)), torch.arange(group.start, group.stop)] = torch.inf  # nobody visits home
    found: list[list[Int[ndarray, " visitor"]]] = [[] for _ in range(len(chosen))]
    for start in range(0, len(cells.rows), STEP):
        part = slice(start, min(start + STEP, len(cells.rows)))
        nearer = torch.addmm(-cells.nearness[part], chosen, cells.rows[part].T)
        near = torch.empty(nearer.shape, dtype=torch.bool)
        for home in range(cells.homes[start], cells.homes[part.stop - 1] + 1):
            rows = cells.of(home)
            some = slice(max(rows.start - start, 0), max(min(rows.stop, part.stop) - start, 0))
            torch.ge(nearer[:, some], least[:, home, None], out=near[:, some])
        column, row = near.nonzero(as_tuple=True)
        borders = torch.bincount(column, minlength=len(chosen)).cumsum(0)[:-1]
        for cell, places in enumerate(torch.tensor_split(row, borders)):
            found[cell].append(places.numpy().astype(np.int32) + np.int32(start))
    for parts in found:
        yield np.concatenate(parts) if parts else np.zeros(0, np.int32)


def found_here(
    cells: Cells, visiting: Int[ndarray, " pair"], cell: int, at_home: Int[ndarray, " pair"], reach: float
) -> Bool[ndarray, " pair"]:
    """Which pairs of a visitor and a row at home in a cell count here: each counts in one of the cells it may be found in.

    Of its two rows, the one whose home has the larger number is asked whether it is within `reach` of the plane between
    the two homes. If so the pair counts in the other's cell, and otherwise in its own: there the other must be. The answer is the same
    in both cells, bit for bit.
    """
    theirs = cells.homes[visiting]
    centres = cells.centres.numpy()
    others, which = np.unique(theirs, return_inverse=True)
    apart = np.sqrt(_squares(centres[others], centres[[cell]]))[which]
    asked = np.where(theirs > cell, visiting, at_home)
    target = np.where(theirs > cell, cell, theirs)
    away = np.empty(len(asked))
    for start in range(0, len(asked), FEW):
        row, to = asked[start : start + FEW], target[start : start + FEW]
        away[start : start + FEW] = _squares(cells.rows.numpy()[row], centres[to]) - cells.away[row]
    within = away <= 2 * reach * apart
    counted: Bool[ndarray, " pair"] = within == (theirs > cell)
    return counted


def _squares(
    rows: Float[ndarray, "row column"], others: Float[ndarray, "other column"]
) -> Float[ndarray, " row"]:
    """How far rows are from others, squared, in float64; the same whatever rows they come with."""
    return lane_sums(np.square(rows.astype(np.float64) - others))
