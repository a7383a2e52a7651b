"""Watch a knockout in one pass: each attention call as the model makes it, and as the cut leaves it.

Both are read through the attention function itself (`Call.weights`), from the same query and key, so beside the zeros of the
cut edges the renormalisation can be checked in every layer and not only in the first: the weights that stay keep
their shares of what stays. That is what finds a mechanism that cuts too much. No layer's weights outlive its calls.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from eyechart.core.errors import NeverFired
from eyechart.models.attention.calls import Call, Output, taking_calls
from eyechart.models.attention.cuts import Cut, cutting
from eyechart.models.vlms.towers import TowerName, Towers

ROUNDING = {torch.float32: 0.01, torch.float64: 1e-6}
"""By how much a weight's share may differ, as a part of itself, from what renormalising gives."""

HALF = 0.1
"""The same in half precision, where a weight holds two or three digits and two kernels round it differently."""

_LEAST = 1e-5
"""Shares below this are not compared: half precision holds too few digits of them."""

_Weights = Float[Tensor, "head query key"]
_Edges = Bool[Tensor, "head query key"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Watched:
    """What was seen of one tower while one prompt ran with its cuts."""

    existing: dict[int, Bool[Tensor, "query key"]]
    """By layer, the edges that some head of the model has; tiles and windows stand on the diagonal."""

    left: dict[int, Bool[Tensor, "query key"]]
    """Those that the cuts leave to some head, by what was asked for and not by any mask."""

    weight_before: float
    """Attention on the edges that are cut, just before they are: the mean over the queries that lose one, heads and layers."""

    weight_after: float
    """The largest weight of a cut edge."""

    drift: float
    """The largest difference, as a part of itself, of a weight that stays from what renormalising gives."""


def watch(
    towers: Towers, tower: TowerName, run: Callable[[], object], cuts: Sequence[Cut], name: str
) -> Watched:
    """Run the model once with its cuts and see what they do to each call of a tower.

    Raises:
        NeverFired: a cut edge carries weight, edges were cut that nobody asked for, the mechanism is wrong about which edges the model has, or the
            blocks run in another order than they are counted in.
        NoEdges, UserError, Incapable: as `cutting`.
    """
    watcher = _Watcher(cuts, name)
    sites = towers.self_attentions(tower)
    with (
        taking_calls(sites, watcher.after),
        cutting(towers, [list(cuts)]),
        taking_calls(sites, watcher.before),
    ):
        run()
    if list(watcher.passed) != sorted(watcher.passed):
        raise NeverFired(f"{name}: the blocks of the {tower} tower run in the order {list(watcher.passed)}")
    return Watched(
        existing={layer: _on_the_diagonal(some) for layer, some in watcher.existing.items()},
        left={layer: _on_the_diagonal(some) for layer, some in watcher.left.items()},
        weight_before=sum(watcher.held) / max(len(watcher.held), 1),
        weight_after=watcher.largest,
        drift=watcher.drift,
    )


def _on_the_diagonal(squares: Sequence[Tensor]) -> Bool[Tensor, "query key"]:
    size = sum(len(square) for square in squares)
    found = torch.zeros(size, size, dtype=torch.bool, device=squares[0].device)
    first = 0
    for square in squares:
        found[first : first + len(square), first : first + len(square)] = square
        first += len(square)
    return found


class _Watcher:
    """Two handlers round a knockout: `before` is the nearer to the model."""

    def __init__(self, cuts: Sequence[Cut], name: str) -> None:
        self.cuts, self.name = cuts, name
        self.existing: dict[int, list[Tensor]] = defaultdict(list)
        self.left: dict[int, list[Tensor]] = defaultdict(list)
        self.passed: dict[int, int] = defaultdict(int)
        self.held: list[float] = []
        self.largest = self.drift = 0.0
        self.call: Call | None = None

    def before(self, call: Call) -> Output:
        self.call = call
        return call.run()

    def after(self, call: Call) -> Output:
        assert self.call is not None
        assert self.call.site is call.site
        wide = torch.promote_types(call.query.dtype, torch.float32)
        plain = replace(self.call, function=call.function)  # past the cut
        before, after = plain.weights().to(wide), call.weights().to(wide)
        existing, still = (one.allowed().expand_as(before) for one in (self.call, call))
        for row in range(len(before)):
            self._compare(call, before[row], after[row], existing[row], still[row])
        self.call = None
        return call.run()

    def _compare(
        self, call: Call, before: _Weights, after: _Weights, existing: _Edges, still: _Edges
    ) -> None:
        layer, length = call.site.layer, before.shape[-1]
        first = self.passed[layer]
        self.passed[layer] += length
        gone = existing & self._asked(layer, slice(first, first + length), existing)
        left = existing & ~gone
        self.existing[layer].append(existing.any(0))
        self.left[layer].append(left.any(0))
        if gone.any():
            losing = gone.any(-1)
            self.held.append(float((before * gone).sum(-1)[losing].mean()))
            self.largest = _worse(self.largest, after[gone].abs().max())
            if self.largest != 0:
                raise NeverFired(
                    f"{self.name}: in {call.site.name} a cut edge still carries a weight of {self.largest:.3g}"
                )
        live = existing.any(-1, keepdim=True)
        if bool((before[live & ~existing] != 0).any()):
            raise NeverFired(
                f"{self.name}: in {call.site.name} edges carry weight that the mechanism takes for missing: it reads the mask of"
                " this attention wrongly"
            )
        self.drift = _worse(self.drift, _drift(before, after, left))
        rounding = ROUNDING.get(call.query.dtype, HALF)
        if not self.drift <= rounding or not torch.equal(still, left):
            raise NeverFired(
                f"{self.name}: in {call.site.name} more was changed than was asked for: weights that should stay are off by"
                f" {self.drift:.2g} of themselves after renormalising (rounding: {rounding:g}), and"
                f" {int((still != left).sum())} edges are masked or open that should not be"
            )

    def _asked(self, layer: int, part: slice, like: _Edges) -> _Edges:
        """The edges that were asked to be cut, made anew from the cuts and not from any mask."""
        found = torch.zeros_like(like)
        for cut in self.cuts:
            if layer in cut.layers:
                heads = list(range(len(like))) if cut.heads is None else list(cut.heads)
                found[heads] |= cut.edges[part, part].to(like.device)
        return found


def _drift(before: _Weights, after: _Weights, left: _Edges) -> Tensor:
    """How far shares of what is left have moved, relative to the larger of the two."""
    shares = []
    for weights in (before, after):
        kept = weights * left
        shares.append(kept / kept.sum(-1, keepdim=True).clamp_min(1e-30))
    larger = torch.maximum(*shares)
    known = (larger > _LEAST) & ((before * left).sum(-1, keepdim=True) > _LEAST)
    return torch.where(known, (shares[0] - shares[1]).abs() / larger.clamp_min(1e-30), 0).max()


def _worse(first: float, second: Tensor) -> float:
    """The larger of two; a number that is none is the largest of all."""
    number = float(second)
    return max(first, number) if number == number else float("inf")
