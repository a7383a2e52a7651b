"""Which layer and which token each number that enters a projector comes from, by comparing it bit for bit.

During one forward pass every row of the states between a vision tower's blocks leaves a 64-bit fingerprint, and so do
the rows that its closing norms make; every tensor that enters a module on the way to the language model is kept. A row
of such a tensor is looked up among the fingerprints. Selecting tokens, reordering them, putting several side by side
(pixel-shuffle) and concatenating layers all leave the numbers as they are, so each is recognised without knowing the
architecture.

Layers are counted as in transformers' `hidden_states`: 0 is what the first block reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eyechart.models.geometry.inputs import Outputs
from eyechart.models.geometry.proof import Parts, Reached, float_tensors, hooked, run_until_reached

Rows: TypeAlias = Float[Tensor, "row dim"]
Axes = Literal["last", "map"]
"""Where a tensor's features stand: along its last axis, or along the second of `[image, dim, row, column]`."""

_MOST = 64
"""States that one row may hold."""


class Place(NamedTuple):
    """Where a tensor entered: the module's path and which of its floating-point arguments it was."""

    module: str
    argument: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """The rows of one layer, by their fingerprints."""

    layer: int
    norm: str
    """Path in the tower of the norm that was applied to the layer's state; empty for the state itself."""

    width: int
    """How many numbers a row has."""

    prints: Int[Tensor, " row"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """What one forward pass showed."""

    states: tuple[State, ...]
    entered: dict[Place, list[Tensor]]
    """What entered each module, call by call, in the order the modules ran."""

    widths: frozenset[int]
    """The widths that the tower's norms and biases have: what a row of its features can measure."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Match:
    """How the rows of what entered a module are made of the tower's states."""

    axes: Axes
    layers: tuple[int, ...]
    """The layer of each state in a row, in order."""

    norms: tuple[str, ...]
    """Paths in the tower of norms that were applied to them."""

    tokens: Int[Tensor, "row state"]
    """Which row of its layer each state in a row is."""

    alike: tuple[int, ...] = ()
    """Layers that hold the very same numbers as the one named."""


def as_rows(tensor: Tensor, axes: Axes) -> Rows:
    """A tensor as rows of features."""
    moved = tensor.permute(0, 2, 3, 1) if axes == "map" else tensor
    return moved.reshape(-1, moved.shape[-1])


def joined(calls: Sequence[Tensor], axes: Axes) -> Rows:
    """What entered a module over all its calls, row under row."""
    return torch.cat([as_rows(tensor, axes) for tensor in calls])


def readers(parts: Parts) -> tuple[str, ...]:
    """Paths of the modules that may read the vision tower's states: the bridge, and what leads out of its middle."""
    side = parts.flow.side if parts.flow is not None else ()
    return tuple(dict.fromkeys((*side, *parts.bridge_names)))


@dataclass(slots=True)
class _Watch:
    """Fills a trace from hooks."""

    widths: frozenset[int]
    found: list[State] = field(default_factory=list)
    entered: dict[Place, list[Tensor]] = field(default_factory=dict)
    last: int = -1
    tokens: int = 0
    """Rows of the block state kept last."""

    def keep(self, layer: int, norm: str, tree: Any) -> None:
        """Keep a block's state, or what a closing norm makes of it.

        A norm keeps one row a token; what has another number of rows (a convolution that merges patches, a map read
        along the wrong axis) says nothing of tokens and is let go.
        """
        tensor = next(float_tensors(tree), None)
        if tensor is None or tensor.ndim < 2:
            return
        for axes in _axes(tensor, self.widths):
            rows = as_rows(tensor, axes)
            if norm and len(rows) != self.tokens:
                continue
            if not norm:
                self.tokens = len(rows)
            state = State(layer=layer, norm=norm, width=rows.shape[1], prints=fingerprints(rows))
            self.found.append(state)

    def enter(self, name: str, tree: Any) -> None:
        for argument, tensor in enumerate(float_tensors(tree)):
            self.entered.setdefault(Place(name, argument), []).append(tensor.detach())

    def trace(self) -> Trace:
        return Trace(states=tuple(_merged(self.found)), entered=self.entered, widths=self.widths)


def _axes(tensor: Tensor, widths: frozenset[int]) -> tuple[Axes, ...]:
    """Where the features of a tensor may stand, given how wide they can be."""
    if tensor.ndim != 4 or tensor.shape[1] not in widths:
        return ("last",)
    return ("last", "map") if tensor.shape[-1] in widths else ("map",)


def _merged(states: Sequence[State]) -> Iterator[State]:
    """A block that ran several times in a pass gives one state, row under row."""
    groups: dict[tuple[int, str, int], list[Tensor]] = {}
    for state in states:
        groups.setdefault((state.layer, state.norm, state.width), []).append(state.prints)
    for (layer, norm, width), prints in groups.items():
        yield State(layer=layer, norm=norm, width=width, prints=torch.cat(prints))


def traced(model: nn.Module, inputs: Outputs, parts: Parts, *, states: bool = True) -> Trace:
    """Run a pass up to the language model, and keep the tower's states and what entered the bridge.

    Args:
        model: the VLM, in eval mode and without gradients.
        inputs: of one image, on the model's device.
        parts: its towers, resolved with a pass.
        states: False keeps only what entered the bridge.
    """
    widths = {len(parameter) for parameter in parts.vision.parameters() if parameter.ndim == 1}
    watch, handles = _Watch(frozenset(widths)), []
    for name in readers(parts):
        module = model.get_submodule(name)
        hook = _entering(watch, name)
        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    if states:
        handles += _watch_tower(watch, model, parts)
    handles.append(parts.language_blocks[0].register_forward_pre_hook(_stop))
    with hooked(handles):
        run_until_reached(model, inputs)
    return watch.trace()


def _stop(module: nn.Module, args: Any) -> None:
    raise Reached


def _entering(watch: _Watch, name: str) -> Any:
    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        watch.enter(name, (args, kwargs))

    return enter


def _watch_tower(watch: _Watch, model: nn.Module, parts: Parts) -> list[Any]:
    blocks = parts.vision_blocks
    if not blocks:
        return []

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        watch.keep(0, "", (args, kwargs))

    def after(number: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            watch.keep(number, "", output)
            watch.last = number

        return hook

    def closing(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if watch.last == len(blocks):
                watch.keep(len(blocks), name, output)

        return hook

    handles: list[Any] = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.register_forward_hook(after(number)) for number, block in enumerate(blocks, start=1)]
    skip = {id(part) for block in blocks for part in block.modules()}
    skip |= {id(part) for name in readers(parts) for part in model.get_submodule(name).modules()}
    for name, module in parts.vision.named_modules():
        if id(module) not in skip and not list(module.children()) and list(module.parameters()):
            handles.append(module.register_forward_hook(closing(name)))
    return handles


def match(calls: Sequence[Tensor], trace: Trace) -> Match | None:
    """How what entered a module is made of a tower's states; None when it is not, number for number."""
    for axes in _axes(calls[0], trace.widths):
        rows = joined(calls, axes)
        for width in sorted({state.width for state in trace.states}, reverse=True):
            held = rows.shape[1] // width
            if rows.shape[1] % width or not 0 < held <= _MOST:
                continue
            same = [state for state in trace.states if state.width == width]
            for split in ("side by side", "interleaved")[: 1 + (held > 2)]:
                found = _matched(_split(rows, width, split), same, axes)
                if found is not None:
                    return found
    return None


def _split(rows: Rows, width: int, split: str) -> Float[Tensor, "row state width"]:
    """The states in each row: one after another, or the first alone and the rest number by number (Mllama)."""
    if split == "side by side":
        return rows.reshape(len(rows), -1, width)
    rest = rows[:, width:].reshape(len(rows), width, -1).transpose(1, 2)
    return torch.cat([rows[:, None, :width], rest], dim=1)


def _matched(pieces: Float[Tensor, "row state dim"], states: Sequence[State], axes: Axes) -> Match | None:
    layers, norms, tokens = [], [], []
    alike: set[int] = set()
    for piece in pieces.unbind(1):
        prints = fingerprints(piece)
        found = [(state, place) for state in states if (place := _places(prints, state.prints)) is not None]
        if not found:
            return None
        state, place = found[-1]
        alike |= {other.layer for other, _ in found} - {state.layer}
        layers.append(state.layer)
        norms.append(state.norm)
        tokens.append(place)
    return Match(
        axes=axes,
        layers=tuple(layers),
        norms=tuple(dict.fromkeys(norm for norm in norms if norm)),
        tokens=torch.stack(tokens, dim=1),
        alike=tuple(sorted(alike)),
    )


def _places(wanted: Int[Tensor, " row"], known: Int[Tensor, " token"]) -> Int[Tensor, " row"] | None:
    """For each fingerprint the first place where it is known; None when one is not."""
    ordered, order = known.sort(stable=True)
    slot = torch.searchsorted(ordered, wanted).clamp(max=len(ordered) - 1)
    place: Tensor = order[slot]
    return place if torch.equal(known[place], wanted) else None


def fingerprints(rows: Rows) -> Int[Tensor, " row"]:
    """A 64-bit number for each row, on the CPU: equal rows have equal ones, others differ but for chance (2^-64)."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator) * 2 + 1
    weights = weights.to(rows.device)
    prints = []
    for first in range(0, len(rows), 4096):
        bits = (rows[first : first + 4096].float() + 0.0).contiguous().view(torch.int32).to(torch.int64)
        prints.append((bits * weights).sum(dim=1).cpu())
    return torch.cat(prints)
