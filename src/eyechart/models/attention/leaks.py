"""Does anything find a way round a cut? What may depend on what follows from the edges that are left; the rest must stay still.

Over a run of consecutive cut blocks, from the input of the first to the output of the last, positions that no chain of
edges links must not know of each other: when the one changes, the other stays the same bit for bit. Blocks after the run
are left out on purpose. An intact block behind the cut ones (the unused last block of a vision tower, say) links everything to
everything, and a test at the tower's end would ask for no zero at all. Where the chains through a whole run link everything, the
first of its blocks that promises a zero is tested alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from eyechart.core.errors import Incapable, NeverFired
from eyechart.models.attention.cuts import Cut, cutting
from eyechart.models.vlms.towers import TowerName, Towers

_Edges = Bool[Tensor, "query key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A run of blocks in which nothing got round the cuts."""

    shielded: int
    """Positions that were shown to be cut off; 0 when the edges that are left promise no zero, as when only some heads are cut."""

    sources: int
    """Positions that these are cut off from, and that were changed."""

    leak: float
    """Largest change of the shielded: 0."""


def prove_sealed(
    towers: Towers,
    tower: TowerName,
    run: Callable[[], object],
    cuts: Sequence[Cut],
    existing: Mapping[int, _Edges],
    left: Mapping[int, _Edges],
    name: str,
) -> list[Sealed]:
    """Test each run of consecutive cut blocks.

    Args:
        existing: by block of the tower, the edges of the model.
        left: the same, less the cuts.

    Raises:
        NeverFired: there is a way round the cuts, or changing the input of a block changes nothing.
        Incapable: the blocks hold states of another length than their attention.
    """
    blocks = towers.vision_blocks if tower == "vision" else towers.language_blocks
    found = []
    for layers in _runs(existing, left):
        promise = _promise(layers, existing, left)
        if promise is None:
            found.append(Sealed(shielded=0, sources=0, leak=0.0))
            continue
        some, sources, shielded = promise
        ends = []
        for noise in (0.0, 1.0):
            disturbed, read = _disturbed(blocks[some[0]], sources, noise), _read(blocks[some[-1]])
            with cutting(towers, [list(cuts)]), disturbed, read as end:
                run()
            ends.append(torch.cat(end))
        where = f"{name}: the {tower} tower's blocks {some[0]} to {some[-1]}"
        found.append(_compared(ends[0], ends[1], sources, shielded, where))
    return found


def _promise(
    layers: Sequence[int], existing: Mapping[int, _Edges], left: Mapping[int, _Edges]
) -> tuple[Sequence[int], Bool[Tensor, " token"], Bool[Tensor, " token"]] | None:
    """Blocks, the sources that the position most cut off has lost over them, and all positions that have lost those.

    All of the layers, or the first of them that promises a zero by itself; None where none does.
    """
    for some in (layers, *([layer] for layer in layers)):
        depended, depends = (_reach([edges[layer] for layer in some]) for edges in (existing, left))
        freed = depended & ~depends
        if freed.any():
            sources = ~depends[int(freed.sum(dim=1).argmax())]
            return some, sources, ~depends[:, sources].any(dim=1)
    return None


def _runs(existing: Mapping[int, _Edges], left: Mapping[int, _Edges]) -> list[list[int]]:
    """Cut blocks, in runs without an attention block between them that is not cut."""
    found: list[list[int]] = []
    together = False
    for layer in sorted(existing):
        if torch.equal(existing[layer], left[layer]):
            together = False
            continue
        if not together:
            found.append([])
        found[-1].append(layer)
        together = True
    return found


def _reach(layers: Sequence[_Edges]) -> Bool[Tensor, "query source"]:
    """Whether what a position holds after some blocks can depend on what another held before the first."""
    itself = torch.eye(len(layers[0]), dtype=torch.bool, device=layers[0].device)
    found = itself
    for edges in layers:
        found = ((edges | itself).float() @ found.float()) > 0
    return found


def _compared(
    still: Tensor,
    changed: Tensor,
    sources: Bool[Tensor, " token"],
    shielded: Bool[Tensor, " token"],
    where: str,
) -> Sealed:
    if len(still) != len(sources):
        raise Incapable(
            f"{where} hold {len(still)} states, and their attention is over {len(sources)} tokens"
        )
    moved = (changed - still).abs().amax(dim=-1)
    sources, shielded = sources.to(moved.device), shielded.to(moved.device)
    if not bool((moved[sources] > 0).any()):
        raise NeverFired(f"{where} give the same when their input changes, so no leak would show")
    leak = float(moved[shielded].max())
    if leak != 0:
        raise NeverFired(
            f"{where} keep {int(shielded.sum())} positions from {int(sources.sum())} others, and yet they change by {leak:.3g} with"
            " them: there is a way round the cut"
        )
    return Sealed(shielded=int(shielded.sum()), sources=int(sources.sum()), leak=leak)


@contextmanager
def _disturbed(block: nn.Module, sources: Bool[Tensor, " token"], noise: float) -> Iterator[None]:
    """Add noise as large as the states themselves to some tokens of what a block reads."""
    passed = 0

    def disturb(module: nn.Module, args: Any, kwargs: Any) -> Any:
        nonlocal passed
        held = args[0] if args else kwargs["hidden_states"]
        flat = held.reshape(-1, held.shape[-1])
        some = sources[passed : passed + len(flat)].to(flat.device)
        passed += len(flat)
        if len(some) != len(flat):
            raise Incapable(f"a block reads {passed} states, and its attention is over {len(sources)} tokens")
        drawn = torch.randn(flat.shape, generator=torch.Generator().manual_seed(passed)).to(flat)
        added = torch.where(some[:, None], drawn * (noise * flat.std()), 0)
        changed = (flat + added).reshape(held.shape)
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    handle = block.register_forward_pre_hook(disturb, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _read(block: nn.Module) -> Iterator[list[Tensor]]:
    """What a block gives, token by token, one tensor a call."""
    found: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        held = output if isinstance(output, Tensor) else output[0]
        found.append(held.detach().flatten(0, -2))

    handle = block.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
