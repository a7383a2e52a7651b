"""A condition of a sweep by one whole pass of the model: what a replay is proved against, and what stands in where none is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from eyechart.core.errors import Incapable
from eyechart.models.attention.cuts import Condition, Cut, cutting
from eyechart.models.attention.replay import Enough, both_towers, first_of, stop_after
from eyechart.models.attention.sweep_run import Found, Wanted
from eyechart.models.vlms.prompting import Inputs
from eyechart.models.vlms.towers import TowerName, Towers


def whole_pass(
    model: Any, inputs: Inputs, towers: Towers, condition: Condition, wanted: Wanted, place: int = 0
) -> Found:
    """What is read under one condition, by one pass of the model from pixels to what is read last.

    Raises:
        Incapable: the vision tower's blocks hold states of different shapes, and they were asked for.
        NeverFired, NoEdges, UserError: as `cutting`.
    """
    depth = wanted.language_depth(len(towers.language_blocks))
    seen: dict[TowerName, list[list[Tensor]]] = {
        tower: [[] for _ in range(len(blocks) + 1)] for tower, blocks in both_towers(towers)
    }
    out: Any = None
    with ExitStack() as stack:
        stack.enter_context(cutting(towers, [_before(condition.cuts, "language", depth)]))
        for tower, blocks in both_towers(towers):
            for remove in _noting(blocks, seen[tower]):
                stack.callback(remove)
        if not wanted.logits:
            stack.callback(_stop_before_or_after(towers.language_blocks, depth).remove)
        try:
            out = model(**inputs, use_cache=False, return_dict=True)
        except Enough:
            pass
    states = [seen["language"][layer][0][0] for layer in sorted(set(wanted.layers))]
    chosen = torch.tensor(wanted.positions, dtype=torch.long)
    return Found(
        place=place,
        layers=torch.stack([one[chosen.to(one.device)] for one in states]) if states else None,
        vision=tuple(_one(seen["vision"][layer]) for layer in sorted(set(wanted.vision_layers))),
        logits=out.logits[0, -1] if wanted.logits else None,
    )


def _before(cuts: Sequence[Cut], tower: TowerName, depth: int) -> list[Cut]:
    """Cuts without the layers of one tower that are not run."""
    kept = []
    for cut in cuts:
        layers = tuple(layer for layer in cut.layers if cut.tower != tower or layer < depth)
        kept.append(replace(cut, layers=layers))
    return kept


def _noting(blocks: Sequence[nn.Module], into: list[list[Tensor]]) -> Iterator[Callable[[], None]]:
    """Note what blocks read and give; yields what removes the notes."""

    def first(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        into[0].append(args[0] if args else next(v for v in kwargs.values() if isinstance(v, Tensor)))

    def after(depth: int) -> Callable[..., None]:
        return lambda module, args, output: into[depth].append(first_of(output))

    yield blocks[0].register_forward_pre_hook(first, with_kwargs=True).remove
    for depth, block in enumerate(blocks, start=1):
        yield block.register_forward_hook(after(depth)).remove


def _stop_before_or_after(blocks: Sequence[nn.Module], depth: int) -> Any:
    if depth:
        return stop_after(blocks[depth - 1])

    def stop(module: nn.Module, args: Any) -> None:
        raise Enough

    return blocks[0].register_forward_pre_hook(stop)


def _one(states: Sequence[Tensor]) -> Tensor:
    """A vision block's states over one prompt."""
    if len({one.shape[1:] for one in states}) != 1:
        raise Incapable(
            f"the vision tower's blocks hold states of different shapes: {[tuple(one.shape) for one in states]}"
        )
    return torch.cat(list(states))


def merged_length(model: Any, inputs: Inputs, towers: Towers) -> int:
    """How long the sequence is that the first language block reads."""
    seen: list[list[Tensor]] = [[], []]
    with ExitStack() as stack:
        for remove in _noting(towers.language_blocks[:1], seen):
            stack.callback(remove)
        stack.callback(_stop_before_or_after(towers.language_blocks, 0).remove)
        try:
            model(**inputs, use_cache=False)
        except Enough:
            pass
    return int(seen[0][0].shape[-2])
