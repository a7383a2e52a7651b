"""Before a knockout counts, it proves on this model, this number format and this attention that it does what it says.

Shown on one real prompt, or the run stops:

(a) with the mechanism in place and nothing cut, every state is what it is without it, bit for bit;
(b) the cut changes the tower's states, and with a cut in the vision tower the language model's; it changes none before its first
    block, and each attention module is where it is said to be;
(c) the cut edges carry exactly zero weight, where before they carried some, and the weights that stay are the old ones
    renormalised, in every layer: neither too little is cut nor too much (`watching`);
(d) nothing leaks: positions that the edges left do not link keep still, bit for bit, when the others change (`leaks`). This finds
    ways round a cut that the weights do not show, as a convolution beside the attention.

What it cannot show: whether a set of edges is the one a question needs. `part <- rest` with the class token left open is a
sound knockout that shields nothing over two blocks; `shielded` is then what one block does.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eyechart.core.errors import NeverFired
from eyechart.models.attention.calls import Call, taking_calls
from eyechart.models.attention.cuts import Cut, cutting
from eyechart.models.attention.leaks import prove_sealed
from eyechart.models.attention.watching import watch
from eyechart.models.vlms.towers import TowerName, Towers, is_within

Run = Callable[[], object]
"""Runs the model once on one prompt, without a cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerProof:
    """What the knockouts of one tower were seen to do."""

    tower: TowerName
    layers: tuple[int, ...]
    edges: int
    """Edges that were cut, over all layers; heads that have the same count once."""

    weight_before: float
    """Attention that lay on these edges before, as a mean over the queries that lost one, heads and layers: 0 to 1."""

    weight_after: float
    """The largest weight of any cut edge: 0, or the run would have stopped."""

    drift: float
    """Largest difference of a weight that stays from what renormalising gives, as a part of itself: rounding."""

    change: float
    """Largest change of a state of the tower's last block, over the spread of these states."""

    shielded: int
    """Positions shown to be cut off from others, in the run of cut blocks where they are fewest; 0 where the edges that are left
    promise no zero, as when only some heads are cut."""

    sources: int
    """Positions that these are cut off from, where they are fewest."""

    leak: float
    """Largest change of the shielded when the sources changed: 0, or the run would have stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnockoutProof:
    """A knockout that fired."""

    name: str
    idle: bool
    """With the mechanism in place and nothing cut, all states were what they are without it."""

    towers: tuple[TowerProof, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, ready for JSON."""
        return asdict(self)


@torch.no_grad()
def prove_knockout(towers: Towers, run: Run, cuts: Sequence[Cut], *, name: str = "") -> KnockoutProof:
    """Show that cuts fire on one prompt.

    Args:
        towers: of the model that `run` runs.
        run: one pass over one prompt, without a cache, always the same.
        cuts: of one or both towers.
        name: of the condition, for its record.

    Raises:
        NeverFired: one of these things does not hold; the text says which, and with what numbers.
        NoEdges: there was nothing to cut.
        Incapable: the attention of a tower cannot be edited, or its blocks hold states of different lengths.
        UserError: as `cutting`.
    """
    name = name or " and ".join(dict.fromkeys(cut.name for cut in cuts))
    kinds = [tower for tower in _TOWERS if any(cut.tower == tower for cut in cuts)]
    plain = _states(towers, run)
    sites = [site for site in towers.sites if site.tower in kinds]
    with taking_calls(sites, Call.run):
        again = _states(towers, run)
    if not all(_same(plain[tower], again[tower]) for tower in _TOWERS):
        raise NeverFired(
            f"{name}: with the mechanism in place and nothing cut the model's states are not what they are without it; it is not"
            " the same from run to run, or its attention is not called as its registry says"
        )
    proofs = tuple(
        _prove_tower(towers, run, [cut for cut in cuts if cut.tower == tower], tower, plain, name)
        for tower in kinds
    )
    return KnockoutProof(name=name, idle=True, towers=proofs)


_TOWERS: tuple[TowerName, ...] = ("vision", "language")

States = dict[TowerName, list[list[Tensor]]]
"""What each block gave, call by call."""


def _prove_tower(
    towers: Towers, run: Run, cuts: list[Cut], tower: TowerName, plain: States, name: str
) -> TowerProof:
    _check_places(towers, tower, name)
    seen = watch(towers, tower, run, cuts, name)
    with cutting(towers, [cuts]) as applied:
        states = _states(towers, run)
    edges, layers = sum(applied.edges.values()), sorted({layer for cut in cuts for layer in cut.layers})
    change = _change(plain[tower][-1], states[tower][-1])
    what = f"{name}: cutting {edges} edges of the {tower} tower in blocks {layers}"
    if not change > 0:
        raise NeverFired(f"{what} changes nothing")
    if not seen.weight_before > 0:  # another kernel's rounding may pass for a change
        raise NeverFired(f"{what} does nothing: they carried no weight before")
    _check_states(plain, states, tower, layers[0], what)
    sealed = prove_sealed(towers, tower, run, cuts, seen.existing, seen.left, name)
    return TowerProof(
        tower=tower,
        layers=tuple(layers),
        edges=edges,
        weight_before=seen.weight_before,
        weight_after=seen.weight_after,
        drift=seen.drift,
        change=change,
        shielded=min((one.shielded for one in sealed), default=0),
        sources=min((one.sources for one in sealed), default=0),
        leak=max((one.leak for one in sealed), default=0.0),
    )


def _check_states(plain: States, states: States, tower: TowerName, first: int, what: str) -> None:
    if not _same(plain[tower][:first], states[tower][:first]):
        raise NeverFired(f"{what} changes states before block {first}, the first that was cut")
    if tower == "vision" and any(plain["language"]) and _same(plain["language"], states["language"]):
        raise NeverFired(
            f"{what} changes nothing that the language model holds; do they lie behind the block that its features are"
            " taken from?"
        )


def _check_places(towers: Towers, tower: TowerName, name: str) -> None:
    blocks = towers.vision_blocks if tower == "vision" else towers.language_blocks
    for site in towers.self_attentions(tower):
        if not is_within(site.module, blocks[site.layer]):
            raise NeverFired(
                f"{name}: {site.name} is not in block {site.layer} of the {tower} tower, as its record says"
            )


def _states(towers: Towers, run: Run) -> States:
    """What every block of both towers gives while the model runs."""
    every: dict[TowerName, tuple[nn.Module, ...]] = {
        "vision": towers.vision_blocks,
        "language": towers.language_blocks,
    }
    found: States = {tower: [[] for _ in every[tower]] for tower in _TOWERS}

    def keep(into: list[Tensor]) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            into.append((output if isinstance(output, Tensor) else output[0]).detach())

        return hook

    with ExitStack() as stack:
        for tower in _TOWERS:
            for block, into in zip(every[tower], found[tower], strict=True):
                stack.callback(block.register_forward_hook(keep(into)).remove)
        run()
    return found


def _same(first: Sequence[list[Tensor]], second: Sequence[list[Tensor]]) -> bool:
    return all(
        len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        for one, other in zip(first, second, strict=True)
    )


def _change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    first, second = (torch.cat([one.flatten().float() for one in some]) for some in (before, after))
    return float((first - second).abs().max() / first.std().clamp_min(1e-12))
