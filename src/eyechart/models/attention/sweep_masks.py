"""The cuts of a batch's rows, put into a block's attention calls; what was made for one block serves the next that needs the same.

`cutting` makes its masks for every call anew and looks at every edge to be sure that something fired. A sweep knows before it runs which edges each
layer has (`sweep_plan.py`), and its conditions hold the same cuts in layer after layer: so the mask of a batch is made once and kept
until the rows, the cuts or the model's own mask change. What it gives is proved against `cutting` in whole passes (`sweep_proof.py`).
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from eyechart.core.errors import NeverFired, UserError
from eyechart.models.attention.calls import Call, Output, taking_calls
from eyechart.models.attention.replay import Chain
from eyechart.models.attention.sweep_plan import Plan
from eyechart.models.vlms.towers import Towers


class RowCutter:
    """Runs a tower's blocks on rows that each stand for a condition."""

    def __init__(self, towers: Towers, chain: Chain, plan: Plan) -> None:
        self.chain, self.plan = chain, plan
        self.sites = {site.layer: site for site in towers.self_attentions(chain.tower)}
        self.rows: tuple[int, ...] = ()
        """What is done to each row, as numbers of the plan: the masks at hand are for these."""

        self.masks: dict[tuple[Any, ...], Tensor | None] = {}
        self.passed = 0
        """Tokens that went through the attention of the block that is running."""

    def step(self, layer: int, states: Tensor, places: Sequence[int]) -> Tensor:
        """One block on some rows, each with the cuts of the condition at this place.

        Raises:
            NeverFired: the block did not pass all tokens through its attention.
            UserError: a cut leaves a query without any key.
        """
        rows = tuple(self.plan.steps[place][layer] for place in places)
        if not any(rows):
            return self.chain.step(layer, states)
        if rows != self.rows:
            self.rows, self.masks = rows, {}
        self.passed = 0
        with taking_calls([self.sites[layer]], lambda call: self._cut(call, layer, places)):
            output = self.chain.step(layer, states)
        if self.passed != len(places) * self.chain.tokens:
            raise NeverFired(
                f"{self.passed} of {len(places) * self.chain.tokens} tokens passed through {self.sites[layer].name}, where"
                " a knockout was set up"
            )
        return output

    def _cut(self, call: Call, layer: int, places: Sequence[int]) -> Output:
        """A call with its cuts; stretches of rows without any go by themselves, as the model would run them.

        Without a mask attention is cheaper: a causal tower leaves half of it out.
        """
        begin, rows = self.passed, self._rows(call, layer, places)
        self.passed += call.query.shape[0] * call.query.shape[2]
        stretches = [list(some) for _, some in groupby(range(len(rows)), rows.__getitem__)]
        if len(stretches) == 1 or not _parts(call):
            return self._masked(call, layer, places, begin)
        found = []
        for some in stretches:
            part = _some(call, some[0], some[-1] + 1)
            first = begin + some[0] * call.query.shape[2]
            found.append(self._masked(part, layer, places, first)[0] if rows[some[0]] else part.run()[0])
        return torch.cat(found), None

    def _rows(self, call: Call, layer: int, places: Sequence[int]) -> list[bool]:
        """Whether a call's rows belong to a condition that cuts something in this layer."""
        length, whole = call.query.shape[2], self.chain.tokens
        conditions = [places[(self.passed + row * length) // whole] for row in range(len(call.query))]
        return [bool(self.plan.steps[place][layer]) for place in conditions]

    def _masked(self, call: Call, layer: int, places: Sequence[int], begin: int) -> Output:
        there = self.plan.existing[layer]
        key = (begin, call.query.shape, call.eager, id(there), id(call.mask))
        if key in self.masks:
            mask = self.masks[key]
        else:
            mask = self._mask(call, layer, places, begin)
            if call.mask is None or id(call.mask) in self.chain.calls[layer].kind():
                self.masks[key] = mask  # the chain holds the model's mask, so that its id stays its own
        return (call if mask is None else replace(call, mask=mask)).run()

    def _mask(self, call: Call, layer: int, places: Sequence[int], begin: int) -> Tensor | None:
        cut = self._edges(call, layer, places, begin)
        if not bool(cut.any()):
            return None
        allowed = call.allowed()
        if bool((allowed.any(dim=-1) & ~(allowed & ~cut).any(dim=-1)).any()):
            raise UserError(
                f"a knockout leaves a query of {call.site.name} without any key: keep the edge of a token to itself"
            )
        mask = call.without(cut).mask
        if mask is not None and mask.dtype == torch.bool:  # what SDPA makes of it, at every call
            mask = torch.zeros(mask.shape, dtype=call.query.dtype, device=mask.device).masked_fill_(
                ~mask, -torch.inf
            )
        return mask

    def _edges(
        self, call: Call, layer: int, places: Sequence[int], begin: int
    ) -> Bool[Tensor, "row head query query"]:
        """What is cut in each row of a call: a tile, a window, or all of a condition's tokens."""
        rows, length, whole = call.query.shape[0], call.query.shape[2], self.chain.tokens
        every = all(cut.heads is None for place in places for cut in self.plan.cuts[place][layer])
        heads = 1 if every else call.query.shape[1]
        found = torch.zeros(rows, heads, length, length, dtype=torch.bool, device=call.query.device)
        for row in range(rows):
            condition, first = divmod(begin + row * length, whole)
            part = slice(first, first + length)
            for cut in self.plan.cuts[places[condition]][layer]:
                chosen = slice(None) if cut.heads is None else list(cut.heads)
                found[row, chosen] |= cut.edges[part, part].to(found.device)
        return found


def _parts(call: Call) -> bool:
    """Whether rows of a call may go one after another: nothing but query, key and value has a row for each."""
    same = len(call.query) == len(call.key) == len(call.value)
    return call.mask is None and not call.eager and same and call.options.get("position_bias") is None


def _some(call: Call, first: int, end: int) -> Call:
    """Some rows of a call."""
    return replace(call, query=call.query[first:end], key=call.key[first:end], value=call.value[first:end])
