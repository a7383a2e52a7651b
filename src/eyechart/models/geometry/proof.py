"""Prove on the model itself which pixels each row of its tensors reads, by changing them and looking.

Each cell of the canvases gets a number, and for each binary digit the cells with a 1 there are changed, then those
with a 0. A row that reads one cell alone answers to one of the two each time, and its answers spell the cell's number;
a row that answers to both reads several cells, one that never answers reads none. n cells take about 2 log2(n) passes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eyechart.core.errors import Incapable
from eyechart.core.geometry import Geometry, Length
from eyechart.models.geometry.inputs import Outputs
from eyechart.models.geometry.pixels import Packing

NOTHING, SEVERAL = -1, -2
"""What a row reads that answers to no cell, and to more than one."""

Run: TypeAlias = Callable[[Tensor], Tensor]
"""From `pixel_values` to rows of features."""


@runtime_checkable
class Parts(Protocol):
    """What is needed of a VLM's resolved towers (`eyechart.models.vlms.towers.Towers`)."""

    @property
    def vision(self) -> nn.Module:
        """The vision tower."""

    @property
    def vision_blocks(self) -> tuple[nn.Module, ...]:
        """Its blocks, in order."""

    @property
    def language_blocks(self) -> tuple[nn.Module, ...]:
        """The blocks of the language model which the image enters."""

    @property
    def bridge_names(self) -> tuple[str, ...]:
        """Paths of the modules between the two, in the order they run."""

    @property
    def flow(self) -> Any:
        """What the image did on its way; its `side` names the modules that lead out of the tower's middle."""

    @property
    def sites(self) -> tuple[Any, ...]:
        """The self-attention modules, each with its `tower` and `module`."""


class Region(NamedTuple):
    """A rectangle of pixels on one canvas."""

    tile: int
    top: int
    left: int
    bottom: int
    right: int


class Reached(Exception):
    """Ends a forward pass at the module that was waited for."""


def regions(tiles: int, canvas: tuple[int, int], cell: tuple[Length, Length]) -> list[Region]:
    """The cells of that many canvases in reading order, one canvas after the other."""
    rows, columns = int(canvas[0] / cell[0] + 1e-6), int(canvas[1] / cell[1] + 1e-6)
    return [
        _region(index, row, column, cell)
        for index in range(tiles)
        for row in range(rows)
        for column in range(columns)
    ]


def _region(index: int, row: int, column: int, cell: tuple[Length, Length]) -> Region:
    edges = [round(place * size) for place, size in ((row, cell[0]), (column, cell[1]), (row + 1, cell[0]))]
    return Region(index, edges[0], edges[1], edges[2], round((column + 1) * cell[1]))


def cells_read(run: Run, pixels: Tensor, held: Packing, cells: Sequence[Region]) -> Int[Tensor, " row"]:
    """For each row of features, the index of the one cell whose pixels it reads, or `NOTHING`, or `SEVERAL`."""
    codes = torch.zeros(held.tiles, 1, *held.canvas, dtype=torch.long)
    for code, (index, top, left, bottom, right) in enumerate(cells, start=1):
        codes[index, 0, top:bottom, left:right] = code
    noise = torch.randn(held.tiles, 3, *held.canvas, generator=torch.Generator().manual_seed(0))
    before = run(pixels)
    found = torch.zeros(len(before), dtype=torch.long)
    ever = torch.zeros(len(before), dtype=torch.bool)
    twice = ever.clone()
    for digit in range(len(cells).bit_length()):
        answers = []
        for side in (0, 1):
            chosen = (codes > 0) & ((codes >> digit & 1) == side)
            changed = pixels + held.pack(noise * chosen).to(pixels)
            answers.append(_differs(run(changed), before))
        found += answers[1].long() << digit
        ever |= answers[0] | answers[1]
        twice |= answers[0] & answers[1]
    return torch.where(twice, SEVERAL, torch.where(ever, found - 1, NOTHING))


def _differs(after: Float[Tensor, "row dim"], before: Float[Tensor, "row dim"]) -> Tensor:
    gap = (after - before).float().abs().amax(dim=-1)
    return (gap > 1e-3 * gap.max()).cpu()


def prove_positions(
    model: Any,
    inputs: Outputs,
    positions: Sequence[int],
    geometry: Geometry,
    held: Packing,
    parts: Parts,
) -> None:
    """Check that each LLM position reads the pixels of its own cells, and no position those of another.

    The vision tower's self-attention is silenced while this runs, so that each patch is read on its own.

    Args:
        model: the VLM, in eval mode.
        inputs: of one image, on the model's device.
        positions: where the language sequence holds the image, in order.
        geometry: the record to be proved; each position must be that of one cell at most.
        held: how `pixel_values` holds the canvases.
        parts: the VLM's towers.

    Raises:
        Incapable: they do not fit; the text names a position, the cell predicted and what was seen.
    """
    cells = [
        _region(index, row, column, tile.cell)
        for index, tile in enumerate(geometry.tiles)
        for row, column in _places(tile.grid)
    ]
    expected = torch.full((geometry.length,), NOTHING)
    flat = [p for tile in geometry.tiles for row in tile.positions for p in row]
    for index, position in enumerate(flat):
        if position >= 0:
            expected[position] = index
    place = torch.tensor(positions)

    def run(pixels: Tensor) -> Tensor:
        taken = language_input(model, {**inputs, "pixel_values": pixels}, parts.language_blocks[0])
        return taken.reshape(-1, *taken.shape[-2:])[0][place.to(taken.device)]

    silent = [site.module for site in parts.sites if site.tower == "vision"]
    with torch.no_grad(), silenced(silent):
        seen = cells_read(run, inputs["pixel_values"], held, cells)
    wrong = (seen != expected).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise Incapable(
            f"{type(model).__name__} has no spatial map that can be trusted: {len(wrong)} of {geometry.length} image "
            f"positions do not read the cell derived for them; position {first} should read cell {int(expected[first])} "
            f"and reads {_says(int(seen[first]))}"
        )


def _places(grid: tuple[int, int]) -> Iterator[tuple[int, int]]:
    return ((row, column) for row in range(grid[0]) for column in range(grid[1]))


def _says(cell: int) -> str:
    return {NOTHING: "none", SEVERAL: "several"}.get(cell, f"cell {cell}")


def language_input(model: Any, inputs: Outputs, first: nn.Module) -> Tensor:
    """What the first language block is given; the pass ends there."""
    taken: list[Tensor] = []

    def take(module: nn.Module, args: Any, kwargs: Any) -> None:
        taken.append(first_tensor((args, kwargs)))
        raise Reached

    with hooked([first.register_forward_pre_hook(take, with_kwargs=True)]):
        run_until_reached(model, inputs)
    return taken[0]


def run_until_reached(model: Any, inputs: Outputs) -> None:
    """One forward pass, ended by a hook that raises `Reached` (or by its own end)."""
    try:
        model(**inputs)
    except Reached:
        pass


@contextmanager
def hooked(handles: Sequence[Any]) -> Iterator[None]:
    """Keep hooks for a block, then take them off."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def silenced(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Make attention modules put out zeros for a block."""

    def silence(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return torch.zeros_like(output)
        return (torch.zeros_like(output[0]), *output[1:])

    with hooked([module.register_forward_hook(silence) for module in modules]):
        yield


def first_tensor(tree: Any) -> Tensor:
    """The first floating-point tensor in nested tuples, lists and mappings."""
    return next(float_tensors(tree))


def float_tensors(tree: Any) -> Iterator[Tensor]:
    """All floating-point tensors in nested tuples, lists and mappings, in order."""
    if isinstance(tree, Tensor):
        if tree.is_floating_point():
            yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from float_tensors(value)
    elif isinstance(tree, tuple | list):
        for value in tree:
            yield from float_tensors(value)
