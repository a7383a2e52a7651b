"""Which patch each token of a vision tower is, and in which order tokens stand when they are read as a picture.

A token's patch is found by changing pixels and seeing which tokens the first block is given anew
(`geometry/proof.py`): class tokens and registers answer to none, and a tower that sorts its patches into windows is
seen through.
"""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from eyechart.core.errors import Incapable
from eyechart.models.geometry.inputs import Outputs, as_examined, pixels_of
from eyechart.models.geometry.layouts import patch_side
from eyechart.models.geometry.pixels import Packing, packing
from eyechart.models.geometry.proof import (
    SEVERAL,
    Parts,
    Reached,
    cells_read,
    first_tensor,
    hooked,
    regions,
    run_until_reached,
)


def patch_of_token(
    model: Any, image_processor: Any, inputs: Outputs, towers: Parts
) -> tuple[Int[Tensor, "token 3"] | None, str]:
    """Of each token of the tower its canvas, row and column (-1 for one that reads no patch), or None and why."""
    try:
        held = packing(as_examined(inputs, model), image_processor)
        cells = regions(held.tiles, held.canvas, patch_side(model.config))
    except Incapable as error:
        return None, f"no grid: {error}"

    name = pixels_of(model)

    def run(pixels: Tensor) -> Tensor:
        return _first_block_input(model, {**inputs, name: pixels}, towers.vision_blocks[0])

    read = cells_read(run, inputs[name], held, cells)
    if (read == SEVERAL).any() or _different(read[read >= 0]) != int((read >= 0).sum()):
        return None, "no grid: the first layer's tokens are no single patches"
    return _located(read, held, patch_side(model.config)), ""


def _located(read: Int[Tensor, " token"], held: Packing, patch: tuple[int, int]) -> Int[Tensor, "token 3"]:
    """Cell numbers as canvas, row and column; a token without a cell is put on the canvas of its neighbours."""
    rows, columns = held.canvas[0] // patch[0], held.canvas[1] // patch[1]
    tile, rest = read // (rows * columns), read % (rows * columns)
    place = torch.stack([tile, rest // columns, rest % columns], dim=1)
    outside = read < 0
    place[outside] = -1
    if len(read) % held.tiles == 0:
        place[outside, 0] = (torch.arange(len(read)) // (len(read) // held.tiles))[outside]
    else:
        place[outside, 0] = 0
    return place


def _first_block_input(model: Any, inputs: Outputs, block: nn.Module) -> Tensor:
    taken: list[Tensor] = []

    def take(module: nn.Module, args: Any, kwargs: Any) -> None:
        taken.append(first_tensor((args, kwargs)))
        raise Reached

    with hooked([block.register_forward_pre_hook(take, with_kwargs=True)]):
        run_until_reached(model, inputs)
    return taken[0].reshape(-1, taken[0].shape[-1])


def cells_of_rows(
    tokens: Int[Tensor, "row state"], patches: Int[Tensor, "token 3"] | None
) -> tuple[Int[Tensor, "row 3"], int]:
    """The place of each row in units of `side` x `side` patches, and that side; no places where there is none."""
    nowhere = torch.tensor([[0, -1, -1]]).repeat(len(tokens), 1)
    if patches is None:
        return nowhere, 1
    held = patches[tokens]
    first, last = held.amin(dim=1), held.amax(dim=1)
    side = int((last - first)[:, 1].max()) + 1
    different = _different(tokens[0])
    square = bool(((last - first) == torch.tensor([0, side - 1, side - 1])).all()) and different == side**2
    if not square:
        return nowhere, 1
    outside = first[:, 1:] < 0
    units = torch.where(outside, -1, first[:, 1:] // side)
    return torch.cat([first[:, :1], units], dim=1), side


def reading_order(cells: Int[Tensor, "row 3"]) -> Int[Tensor, " row"]:
    """Canvas by canvas, row by row, column by column; equals keep their order, and what has no place comes first."""
    width = int(cells.max()) + 2
    key = (cells[:, 0] * width + cells[:, 1] + 1) * width + cells[:, 2] + 1
    return key.argsort(stable=True)


def grids_of(cells: Int[Tensor, "row 3"]) -> tuple[tuple[int, int], ...]:
    """Rows and columns of each canvas; none unless every canvas is filled."""
    grids = []
    for tile in range(int(cells[:, 0].max()) + 1):
        placed = cells[(cells[:, 0] == tile) & (cells[:, 1] >= 0)]
        if not len(placed):
            return ()
        rows, columns = int(placed[:, 1].max()) + 1, int(placed[:, 2].max()) + 1
        if len(placed) != rows * columns or _different(placed[:, 1] * columns + placed[:, 2]) != len(placed):
            return ()
        grids.append((rows, columns))
    return tuple(grids)


def _different(numbers: Int[Tensor, " n"]) -> int:
    return len(set(numbers.tolist()))
