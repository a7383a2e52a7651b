"""Knockouts: chosen (query, key) edges of a tower's self-attention carry nothing, in chosen layers and heads.

The logits of cut edges are minus infinity before the softmax, so the rest is renormalised (Geva et al. 2023, arXiv 2304.14767,
section 5). A knockout is a set of edges over a tower's own sequence; rows of a batch may have different ones, so the
conditions of a sweep share a batch.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor

from eyechart.core.errors import NeverFired, NoEdges, UserError
from eyechart.models.attention.calls import Call, Output, taking_calls
from eyechart.models.vlms.towers import AttentionSite, TowerName, Towers

_Edges = Bool[Tensor, "row head query key"]
_Allowed = Bool[Tensor, "mask_row mask_head query key"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """Attention edges of one tower that carry nothing, in chosen layers and heads."""

    name: str
    tower: TowerName
    edges: Bool[Tensor, "query key"]
    """True where an edge is cut, over the sequence of one prompt in its own order: in the vision tower tile by tile, class
    and register tokens included; in the language tower the whole prompt, image positions included."""

    layers: tuple[int, ...]
    """Blocks of the tower, from 0."""

    heads: tuple[int, ...] | None = None
    """Query heads; None for all."""

    def __post_init__(self) -> None:
        if self.edges.ndim != 2 or self.edges.shape[0] != self.edges.shape[1]:
            raise ValueError(f"the edges of {self.name!r} are no square matrix: {tuple(self.edges.shape)}")
        if not bool(self.edges.any()):
            raise NoEdges(f"the knockout {self.name!r} cuts nothing: its set of edges is empty")
        if not self.layers or (self.heads is not None and not self.heads):
            raise NoEdges(f"the knockout {self.name!r} cuts nothing: it names no layer, or no head")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Condition:
    """One row of a sweep: a name, and the cuts that hold in it; without cuts the model is intact."""

    name: str
    cuts: tuple[Cut, ...] = ()


@dataclass(slots=True, kw_only=True)
class Applied:
    """What a knockout met while the model ran."""

    edges: Counter[tuple[int, TowerName, int]] = field(default_factory=Counter)
    """Edges that existed and were cut, by row of the batch, tower and layer; those of several heads count as one
    where all heads have the same."""

    calls: Counter[tuple[TowerName, int]] = field(default_factory=Counter)
    """Attention calls that were changed, by tower and layer."""


@contextmanager
def cutting(
    towers: Towers, rows: Sequence[Sequence[Cut]], *, starts: Sequence[int] | None = None
) -> Iterator[Applied]:
    """Cut edges while a block runs the model, once, on a batch of prompts.

    Without any cut every call goes on untouched. The pass must read whole prompts: with a cache of earlier keys it is refused.

    Args:
        rows: the cuts of each prompt of the batch.
        starts: where each prompt begins in the language model's rows (after left padding); 0 where not given.

    Raises:
        UserError: a cut names a layer or head the tower has not, its edges are not as many as the tower's tokens, or they
            would leave a query without any key; or gradient checkpointing would run a block again after the cuts are gone.
        Incapable: the attention of a tower cannot be edited.
        NeverFired: a layer with a cut was not run.
        NoEdges: of a cut, the model has none of the edges in any of its layers.
    """
    cutter = _Cutter(towers, rows, starts)
    with taking_calls(cutter.sites, cutter.handle):
        yield cutter.applied
    cutter.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Square:
    """What a row of a call is of a prompt: a tile, a window, or all of it after padding."""

    prompt: int
    first: int
    """Of the prompt's tokens."""

    length: int
    start: int = 0
    """Where it begins in the row."""

    @property
    def part(self) -> slice:
        return slice(self.first, self.first + self.length)


class _Cutter:
    def __init__(self, towers: Towers, rows: Sequence[Sequence[Cut]], starts: Sequence[int] | None) -> None:
        self.rows = [tuple(row) for row in rows]
        self.starts = [0] * len(rows) if starts is None else list(starts)
        if len(self.starts) != len(rows):
            raise UserError(f"{len(rows)} prompts have {len(self.starts)} starts; give one for each prompt")
        self.applied = Applied()
        self.passed: Counter[int] = Counter()
        """Tokens that went through a site so far."""

        self.met: set[tuple[int, int]] = set()
        """Row and place in it of the cuts that met an edge."""

        cuts = [cut for row in self.rows for cut in row]
        touched = {(cut.tower, layer) for cut in cuts for layer in cut.layers}
        by_place = {(site.tower, site.layer): site for site in towers.sites}
        for cut in cuts:
            check_named(cut, by_place)
        self.sites = [by_place[place] for place in sorted(touched)]
        self.whole = _vision_length(cuts)
        _check_run_once(towers, self.sites)

    def handle(self, call: Call) -> Output:
        squares = self._tiles(call) if call.site.tower == "vision" else self._prompts(call)
        self.passed[id(call.site.module)] += call.query.shape[0] * call.query.shape[2]
        allowed = call.allowed()
        cut = self._stacked(call, squares)
        cut = None if cut is None else cut & allowed
        if cut is None or not bool(cut.any()):
            return call.run()
        if bool((allowed.any(dim=-1) & ~(allowed & ~cut).any(dim=-1)).any()):
            raise UserError(
                f"a knockout leaves a query of {call.site.name} without any key: keep the edge of a token to itself"
            )
        self._count(call, squares, cut, allowed)
        return call.without(cut).run()

    def _count(self, call: Call, squares: Sequence[_Square], cut: _Edges, allowed: _Allowed) -> None:
        tower, layer = call.site.tower, call.site.layer
        self.applied.calls[tower, layer] += 1
        many = cut.flatten(1).sum(dim=1).tolist()
        for row, (square, found) in enumerate(zip(squares, many, strict=True)):
            self.applied.edges[square.prompt, tower, layer] += found
            there = allowed[row if len(allowed) > 1 else 0, :, square.start :, square.start :].any(dim=0)
            for place, one in enumerate(self.rows[square.prompt]):
                if (square.prompt, place) not in self.met and _holds(one, call.site):
                    if bool((one.edges[square.part, square.part].to(there.device) & there).any()):
                        self.met.add((square.prompt, place))

    def _tiles(self, call: Call) -> list[_Square]:
        """Rows are tiles, or windows of a packed sequence: each is a square on the diagonal of a prompt's edges."""
        rows, length, begin = call.query.shape[0], call.query.shape[2], self.passed[id(call.site.module)]
        found = []
        for row in range(rows):
            prompt, first = divmod(begin + row * length, self.whole)
            if first + length > self.whole or prompt >= len(self.rows):
                raise _other_length(call.site, self.whole, (begin + rows * length) / len(self.rows))
            found.append(_Square(prompt=prompt, first=first, length=length))
        return found

    def _prompts(self, call: Call) -> list[_Square]:
        rows, queries, keys = call.query.shape[0], call.query.shape[2], call.key.shape[2]
        if rows != len(self.rows):
            raise UserError(f"knockouts were given for {len(self.rows)} prompts, and {rows} were run")
        if queries != keys:
            raise UserError(
                f"{call.site.name} was given {queries} queries and {keys} keys: a knockout is for one pass over whole prompts,"
                " without a cache of earlier keys (use_cache=False)"
            )
        for cuts, start in zip(self.rows, self.starts, strict=True):
            for cut in cuts:
                if _holds(cut, call.site) and start + len(cut.edges) != keys:
                    raise _other_length(call.site, len(cut.edges), keys - start)
        return [
            _Square(prompt=row, first=0, length=keys - start, start=start)
            for row, start in enumerate(self.starts)
        ]

    def _edges(self, site: AttentionSite, square: _Square) -> Bool[Tensor, "head query key"] | None:
        """What is cut in a square of one prompt's edges; one head where all have the same."""
        cuts = [cut for cut in self.rows[square.prompt] if _holds(cut, site)]
        if not cuts:
            return None
        heads = 1 if all(cut.heads is None for cut in cuts) else int(site.heads or 1)
        found = torch.zeros(heads, square.length, square.length, dtype=torch.bool)
        for cut in cuts:
            chosen = list(range(heads)) if cut.heads is None else list(cut.heads)
            found[chosen] |= cut.edges[square.part, square.part].cpu()
        return found

    def _stacked(self, call: Call, squares: Sequence[_Square]) -> _Edges | None:
        edges = [self._edges(call.site, square) for square in squares]
        there = [one for one in edges if one is not None]
        if not any(bool(one.any()) for one in there):
            return None
        heads, size = max(len(one) for one in there), call.query.shape[2]
        cut = torch.zeros(len(squares), heads, size, size, dtype=torch.bool)
        for row, (one, square) in enumerate(zip(edges, squares, strict=True)):
            if one is not None:
                cut[row, :, square.start :, square.start :] = one
        return cut.to(call.query.device)

    def check(self) -> None:
        """After the pass: every site was run, on as many tokens as there are edges for, and every cut has met an edge."""
        ran = {(site.tower, site.layer): self.passed[id(site.module)] for site in self.sites}
        for cut in (cut for row in self.rows for cut in row):
            if missed := [layer for layer in cut.layers if not ran[cut.tower, layer]]:
                raise NeverFired(
                    f"the knockout {cut.name!r} was set up in layers {missed} of the {cut.tower} tower, and the model never"
                    " passed through them"
                )
        for site in self.sites:
            tokens = self.passed[id(site.module)]
            if site.tower == "vision" and tokens != len(self.rows) * self.whole:
                raise _other_length(site, self.whole, tokens / len(self.rows))
        for number, row in enumerate(self.rows):
            for place, cut in enumerate(row):
                if (number, place) not in self.met:
                    raise NoEdges(
                        f"the knockout {cut.name!r} cuts nothing: the model has none of its {int(cut.edges.sum())} edges"
                        " (a causal tower has none to later positions, a windowed one none to other windows)"
                    )


def _check_run_once(towers: Towers, sites: Sequence[AttentionSite]) -> None:
    blocks = {"vision": towers.vision_blocks, "language": towers.language_blocks}
    for site in sites:
        block = blocks[site.tower][site.layer]
        if getattr(block, "gradient_checkpointing", False) and block.training and torch.is_grad_enabled():
            raise UserError(
                f"{site.name} is under gradient checkpointing, whose backward pass would run it again without the knockout;"
                " turn checkpointing off, or run without gradients"
            )


def _holds(cut: Cut, site: AttentionSite) -> bool:
    return cut.tower == site.tower and site.layer in cut.layers


def _vision_length(cuts: Sequence[Cut]) -> int:
    """How many vision tokens each prompt of a batch has; 0 without a cut there."""
    lengths = sorted({len(cut.edges) for cut in cuts if cut.tower == "vision"})
    if len(lengths) > 1:
        raise UserError(
            f"the rows of a batch have knockouts over {' and '.join(map(str, lengths))} vision tokens; pictures of one size go"
            " into a batch together"
        )
    return lengths[0] if lengths else 0


def _other_length(site: AttentionSite, given: int, found: int | float) -> UserError:
    return UserError(
        f"the edges of a knockout in {site.name} are over {given} tokens, and the tower has {found:g} a prompt; edges are over"
        " all of a tower's tokens, tile by tile"
    )


def check_named(cut: Cut, by_place: dict[tuple[TowerName, int], AttentionSite]) -> None:
    there = sorted(layer for tower, layer in by_place if tower == cut.tower)
    if missing := [layer for layer in cut.layers if layer not in there]:
        raise UserError(
            f"the knockout {cut.name!r} names layers {missing} of the {cut.tower} tower; those with self-attention are"
            f" {', '.join(map(str, there)) or 'none'}"
        )
    for layer in cut.layers:
        heads = by_place[cut.tower, layer].heads
        if cut.heads is not None and (heads is None or not all(0 <= head < heads for head in cut.heads)):
            raise UserError(
                f"the knockout {cut.name!r} names heads {list(cut.heads)}; layer {layer} of the {cut.tower} tower has"
                f" {heads or 'an unknown number of'} heads"
            )
