"""What a sweep has to do: which cuts act in which layer, and which conditions have what in common.

A cut counts in a layer only if the model has one of its edges there and the layer lies before what is read; where that leaves
nothing of a cut, it cannot show in the reading and is refused, so that no condition passes for a knockout that is none.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from eyechart.core.errors import NoEdges, UserError
from eyechart.models.attention.calls import Call, Output, taking_calls
from eyechart.models.attention.cuts import Condition, Cut, check_named
from eyechart.models.attention.replay import Chain, Enough, stop_after
from eyechart.models.vlms.towers import AttentionSite, TowerName, Towers

Edges = Bool[Tensor, "query key"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What is done in one tower."""

    cuts: tuple[tuple[tuple[Cut, ...], ...], ...]
    """By condition and layer: the cuts that act there, each with this one layer."""

    steps: tuple[tuple[int, ...], ...]
    """The same as numbers: equal ones cut the same edges in the same heads; 0 cuts none."""

    existing: tuple[Edges | None, ...]
    """By layer, the edges there are; layers with the same have the same tensor."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reach:
    """How much of a tower is run."""

    tower: TowerName
    depth: int
    """Blocks."""

    whole: int
    """Tokens of the whole sequence of one prompt."""

    tokens: int
    """Tokens that are run."""


def plan_tower(
    conditions: Sequence[Condition], towers: Towers, reach: Reach, existing: Sequence[Edges | None]
) -> Plan:
    """Which cuts act in which layer of a tower.

    Args:
        existing: the edges of each block in the part of the sequence that is run; see `existing_edges`.

    Raises:
        UserError: a cut names a layer or head that the tower has not, or its edges are not over the tower's tokens.
        NoEdges: a cut cannot show in what is read.
    """
    acting = _Acting(reach, existing)
    by_place = {(site.tower, site.layer): site for site in towers.sites}
    for condition in conditions:
        for cut in condition.cuts:
            if cut.tower == reach.tower:
                check_named(cut, by_place)
    cuts = tuple(acting.by_layer(condition) for condition in conditions)
    steps = tuple(tuple(map(acting.number, layers)) for layers in cuts)
    return Plan(cuts=cuts, steps=steps, existing=tuple(existing))


class _Acting:
    """Finds what is left of cuts in each layer, and gives equal things equal numbers."""

    def __init__(self, reach: Reach, existing: Sequence[Edges | None]) -> None:
        self.reach, self.existing = reach, existing
        self.left: dict[tuple[int, int], tuple[Tensor, str]] = {}
        self.digests: dict[tuple[int, tuple[int, ...] | None], str] = {}
        self.numbers: dict[frozenset[tuple[str, tuple[int, ...] | None]], int] = {frozenset(): 0}
        self.held: list[Tensor] = []

    def by_layer(self, condition: Condition) -> tuple[tuple[Cut, ...], ...]:
        found: list[list[Cut]] = [[] for _ in range(self.reach.depth)]
        for cut in condition.cuts:
            if cut.tower != self.reach.tower:
                continue
            layers = [layer for layer in sorted(set(cut.layers)) if self._acts(cut, layer)]
            if not layers:
                raise NoEdges(self._why(cut, condition))
            for layer in layers:
                found[layer].append(self._in(cut, layer))
        return tuple(map(tuple, found))

    def number(self, cuts: tuple[Cut, ...]) -> int:
        """Of what these cuts do together in a layer."""
        what = frozenset((self.digests[id(cut.edges), cut.heads], cut.heads) for cut in cuts)
        return self.numbers.setdefault(what, len(self.numbers))

    def _acts(self, cut: Cut, layer: int) -> bool:
        return layer < self.reach.depth and bool(self._left(cut, layer)[1])

    def _in(self, cut: Cut, layer: int) -> Cut:
        edges, digest = self._left(cut, layer)
        heads = None if cut.heads is None else tuple(sorted(set(cut.heads)))
        self.digests[id(edges), heads] = digest
        return replace(cut, edges=edges, layers=(layer,), heads=heads)

    def _left(self, cut: Cut, layer: int) -> tuple[Tensor, str]:
        """The edges of a cut that a layer has, and what they are known by; an empty text when there are none."""
        there = self.existing[layer]
        key = (id(cut.edges), id(there))
        if key not in self.left:
            if len(cut.edges) != self.reach.whole:
                raise UserError(
                    f"the edges of the knockout {cut.name!r} are over {len(cut.edges)} tokens, and the {self.reach.tower} tower"
                    f" has {self.reach.whole} for this prompt; edges are over all of a tower's tokens"
                )
            tokens = self.reach.tokens
            edges = cut.edges[:tokens, :tokens] & (torch.tensor(False) if there is None else there).to(
                cut.edges.device
            )
            self.left[key] = (edges, _digest(edges) if bool(edges.any()) else "")
            self.held.append(cut.edges)  # so that no other tensor gets its id
        return self.left[key]

    def _why(self, cut: Cut, condition: Condition) -> str:
        return (
            f"the knockout {cut.name!r} of the condition {condition.name!r} cannot show in what is read: of its"
            f" {int(cut.edges.sum())} edges the {self.reach.tower} tower has none in layers {list(cut.layers)} among the"
            f" {self.reach.depth} layers and {self.reach.tokens} tokens that the reading depends on"
        )


def _digest(edges: Tensor) -> str:
    return hashlib.blake2b(edges.cpu().numpy().tobytes(), digest_size=16).hexdigest()


def existing_edges(towers: Towers, chain: Chain, depth: int) -> list[Edges | None]:
    """The edges that each of a tower's first blocks has, over one prompt's sequence; None for blocks without self-attention.

    Blocks that are called with the same masks have the same, and only the first of them is asked: it is run as far
    as its attention.
    """
    sites = {site.layer: site for site in towers.self_attentions(chain.tower)}
    known: dict[tuple[object, ...], Edges] = {}
    found: list[Edges | None] = []
    for layer in range(depth):
        site = sites.get(layer)
        if site is None:
            found.append(None)
            continue
        causal = getattr(site.module, "is_causal", None)
        kind = (*chain.calls[layer].kind(), type(chain.blocks[layer]), causal)
        if kind not in known:
            known[kind] = _edges_of(chain, layer, site)
        found.append(known[kind])
    return found


def _edges_of(chain: Chain, layer: int, site: AttentionSite) -> Edges:
    squares: list[Tensor] = []

    def look(call: Call) -> Output:
        allowed = call.allowed().any(dim=1)
        squares.extend(allowed.expand(call.query.shape[0], *allowed.shape[1:]))
        return call.run()

    hook = stop_after(site.module)
    try:
        with taking_calls([site], look):
            chain.step(layer, chain.root[None])
    except Enough:
        pass
    finally:
        hook.remove()
    found: Tensor = torch.block_diag(*squares)  # type: ignore[no-untyped-call]
    return found.bool()
