"""Sets of layers by name, and the layers of a vision tower that a knockout can matter in.

Layers are blocks counted from 0. In the vision tower only blocks before the layer that the projector reads
can matter: LLaVA reads the last but one, so its last block is dead code, and a knockout there does nothing.
`usable_layers` leaves such blocks out and says so; `last:n` counts from the last usable one.

Windows follow Geva et al. (arXiv 2304.14767): k layers centred on each layer, clipped at both ends, so that
windows near the ends hold fewer. With an even k the window holds one more layer before its centre than after
it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eyechart.core.errors import Incapable, UserError, unknown

LAYERS: dict[str, str] = {
    "all": "All usable layers at once.",
    "each": "Every layer alone, one condition each.",
    "first:n": "The first n usable layers.",
    "last:n": "The last n usable layers.",
    "window:k": "For each layer the k layers centred on it, clipped: one condition each.",
    "a-b": "Layers a to b, both included, counted from 0.",
    "a": "Layer a alone; several with commas: 3,5,7-9.",
}
"""Every way to name layers; help texts and docs list it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usable:
    """The blocks of a tower in which a knockout can matter."""

    layers: tuple[int, ...]
    excluded: tuple[int, ...] = ()
    note: str = ""
    """Why the others were left out; empty where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSet:
    """The layers of one condition."""

    name: str
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSets:
    """The conditions that a name of layers stands for."""

    sets: tuple[LayerSet, ...]
    note: str = ""
    """Which layers asked for were left out, and why."""


def usable_layers(layers: Sequence[int], *, fed: int | tuple[int, ...] | None) -> Usable:
    """The blocks of a vision tower before what the projector reads.

    Args:
        layers: its blocks with self-attention, from 0.
        fed: the layer the projector reads, counted as hidden states (`models.fed.Fed.layer`): layer n is
            what block n - 1 gives. The highest of several counts; None, where no layer is known, leaves all
            in and says so.

    Raises:
        Incapable: the projector reads what enters the first block, so no block matters.
    """
    if fed is None:
        return Usable(
            layers=tuple(layers), note="which layer the projector reads is not known: all layers are kept"
        )
    highest = max(fed) if isinstance(fed, tuple) else fed
    kept = tuple(layer for layer in layers if layer < highest)
    dead = tuple(layer for layer in layers if layer >= highest)
    if not kept:
        raise Incapable(f"the projector reads layer {highest}, before which no block has self-attention")
    note = (
        f"blocks {_listed(dead)} left out: the projector reads layer {highest}, what block {highest - 1} gives"
        if dead
        else ""
    )
    return Usable(layers=kept, excluded=dead, note=note)


def named_layers(spec: str, usable: Usable) -> LayerSets:
    """The layers of each condition that a name stands for.

    Args:
        spec: as in `LAYERS`.
        usable: of the tower.

    Raises:
        UserError: the name cannot be read, or none of its layers is usable.
    """
    kind, _, number = spec.partition(":")
    if number:
        return LayerSets(sets=_counted(spec, kind, number, usable.layers))
    if spec == "all":
        return LayerSets(sets=(LayerSet(name="all", layers=usable.layers),), note=usable.note)
    if spec == "each":
        return LayerSets(sets=tuple(LayerSet(name=str(n), layers=(n,)) for n in usable.layers))
    asked = _read(spec)
    kept, lost = (
        tuple(n for n in asked if n in usable.layers),
        tuple(n for n in asked if n not in usable.layers),
    )
    dead = tuple(n for n in lost if n in usable.excluded)
    if not kept or len(dead) < len(lost):
        raise UserError(
            f"layers {spec!r}: {_listed(dead or lost)} cannot be used; there are {_listed(usable.layers)}"
            + (f" ({usable.note})" if usable.note else "")
        )
    return LayerSets(sets=(LayerSet(name=_listed(kept), layers=kept),), note=usable.note if lost else "")


def _counted(spec: str, kind: str, number: str, layers: tuple[int, ...]) -> tuple[LayerSet, ...]:
    if kind not in ("first", "last", "window"):
        raise unknown("way to name layers", kind, [name.partition(":")[0] for name in LAYERS])
    if not number.isdecimal() or not 1 <= int(number) <= len(layers):
        raise UserError(f"layers {spec!r}: expected a number from 1 to {len(layers)} after {kind!r}")
    count = int(number)
    if kind == "window":
        return tuple(
            LayerSet(
                name=f"{layer}±{count}", layers=layers[max(0, at - count // 2) : at + (count - 1) // 2 + 1]
            )
            for at, layer in enumerate(layers)
        )
    chosen = layers[:count] if kind == "first" else layers[-count:]
    return (LayerSet(name=spec, layers=chosen),)


def _read(spec: str) -> tuple[int, ...]:
    found: set[int] = set()
    for piece in spec.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", piece)
        if match is None:
            raise UserError(
                f"layers {spec!r} cannot be read at {piece!r}. Ways to name layers: {', '.join(LAYERS)}"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"layers {spec!r}: {piece!r} goes down; write {last}-{first}")
        found |= set(range(first, last + 1))
    return tuple(sorted(found))


def _listed(layers: Sequence[int]) -> str:
    """Runs of layers as ranges: 0-3,7.

    >>> _listed((0, 1, 2, 3, 7))
    '0-3,7'
    """
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
