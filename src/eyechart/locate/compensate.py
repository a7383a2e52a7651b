"""The 2x2 of knockouts: whether the language model makes up for what the vision tower was kept from doing.

Two factors, each intact or cut: attention among patches in the vision tower, and attention by which the
part's positions read others in the language tower. The part's name is read off the part's positions after
the projector (layer 0) and after every language layer. The hypothesis is that of arXiv 2506.05439 (findings
A and B of its abstract); the paper's own cells, metrics and controls could not be checked, so what follows
is our operationalisation. With I, V, L, B for the mean readability of intact, vision cut, language cut and
both cut at a layer, on a scale whose zero means nothing (`readable_scale`):

- *retained* = V / I, and as well L / I and B / I.
- *recovered* = (V - B) / (I - B): of what both cuts take away, the share that language attention alone can
  bring back.
- *interaction* = (V - B) - (I - L): how much more language attention brings where the vision tower was cut
  than where it was intact. Above 0: it does more of the work when the vision tower did less.
- *missing* = I - V at layer 0: what the language model was not given. Where its interval touches 0 there is
  nothing to recover.

Ratios are of means over part instances, not means of ratios; images are drawn anew for the intervals (a rank
of one part tells of its neighbours in the same image), with the same draws for numerator and denominator; a
ratio whose denominator's interval touches 0 is undefined. Layers are reported each with its own interval;
choose the layer to speak of on other scenes.

Controls are further *arms* with a vision cut, a both cut, or a language cut of their own, over the same
intact cell: `part<-rest+rest<-part` (neighbours cannot take the part up either, so that the language model
cannot read it back from them) and equally many random edges. An optional *floor* (a random language model)
is taken off every cell, and an optional *ceiling* (a model trained on cut features) gives *reached* = (V -
B) / (ceiling - B).

Knockouts show what a model can do when a path is cut, not what it does in normal use (Salazar et al., arXiv
2607.03358); the summary says so.
"""

from collections.abc import Hashable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.core.stats import Estimate, Ratio, cluster_mean, cluster_ratios
from eyechart.locate.readable_scale import SCALES, Scale

Readout = Float[ndarray, "instance layer"]

Columns = Float[ndarray, "instance column"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arm:
    """One pair of knockouts and the cells they give; None for cells that were not run."""

    name: str
    vision_cut: Readout | None = None
    both_cut: Readout | None = None
    language_cut: Readout | None = None

    def cells(self) -> dict[str, Readout]:
        """The cells there are, by name."""
        found = {"vision cut": self.vision_cut, "language cut": self.language_cut, "both cut": self.both_cut}
        return {name: cell for name, cell in found.items() if cell is not None}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Readouts:
    """Readability of every part instance at every layer in every cell."""

    intact: Readout
    main: Arm
    """The knockout in question; all three of its cells are needed."""

    images: tuple[Hashable, ...]
    """The image of each instance."""

    layers: tuple[int, ...]
    """Layer numbers of the columns: 0 is what the projector gives, n what language block n - 1 gives."""

    scale: Scale = "log_rank"
    controls: tuple[Arm, ...] = ()
    floor: Readout | None = None
    """The same with a random language model, vision intact: taken off every cell."""

    ceiling: Readout | None = None
    """A model trained on cut features, read with its vision tower cut."""

    def __post_init__(self) -> None:
        shape = (len(self.images), len(self.layers))
        if lacking := {"vision cut", "language cut", "both cut"} - set(self.main.cells()):
            raise UserError(f"the 2x2 needs all its cells, and {', '.join(sorted(lacking))} is missing")
        for name, cell in self.named().items():
            if cell.shape != shape:
                raise UserError(f"{name} has shape {cell.shape}; expected {shape}, instances x layers")
            if not np.isfinite(cell).all():
                raise UserError(
                    f"{name} holds a number that is not finite; leave such instances out and list them"
                )
        names = [arm.name for arm in (self.main, *self.controls)]
        if len(set(names)) != len(names):
            raise UserError(f"two arms have one name: {names}")

    def named(self) -> dict[str, Readout]:
        """Every array with its name."""
        found = {"intact": self.intact}
        for arm in (self.main, *self.controls):
            found |= {f"{arm.name}: {name}": cell for name, cell in arm.cells().items()}
        found |= {} if self.floor is None else {"floor": self.floor}
        return found | ({} if self.ceiling is None else {"ceiling": self.ceiling})


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmAtLayer:
    """One arm at one layer. A field is None where its cells were not run."""

    arm: str
    layer: int
    means: dict[str, Estimate]
    """Mean readability of each of its cells."""

    effects: dict[str, Estimate]
    """What each cell lost: intact minus the cell."""

    retained: dict[str, Ratio]
    """Each cell divided by intact."""

    recovered: Ratio | None
    reached: Ratio | None
    interaction: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """The 2x2 with its controls, layer by layer."""

    scale: Scale
    layers: tuple[int, ...]
    intact: tuple[Estimate, ...]
    """Mean readability of the intact model at each layer."""

    arms: dict[str, tuple[ArmAtLayer, ...]]
    """For the arm in question and each control, one entry a layer."""

    floor: tuple[Estimate, ...]
    ceiling: tuple[Estimate, ...]
    n: int
    images: int
    main: str
    notes: tuple[str, ...] = field(default=())

    def at(self, layer: int, arm: str | None = None) -> ArmAtLayer:
        """One arm (the one in question when None) at one layer.

        Raises:
            UserError: there is no such arm or layer.
        """
        name = self.main if arm is None else arm
        if name not in self.arms or layer not in self.layers:
            raise UserError(
                f"no arm {name!r} at layer {layer}; there are {list(self.arms)} at layers {list(self.layers)}"
            )
        return self.arms[name][self.layers.index(layer)]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return {**asdict(self), "scale_says": SCALES[self.scale]}


def compensation(
    readouts: Readouts, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Compensation:
    """Retained, recovered and interaction at every layer, with intervals from drawing images anew.

    Raises:
        ValueError: there is only one image.
    """
    drawn = _Drawing(readouts, level=level, resamples=resamples, seed=seed)
    floor = readouts.floor
    return Compensation(
        scale=readouts.scale,
        layers=readouts.layers,
        intact=drawn.means(drawn.intact),
        arms={arm.name: _arm(arm, drawn) for arm in (readouts.main, *readouts.controls)},
        floor=() if floor is None else drawn.means(floor),
        ceiling=() if drawn.ceiling is None else drawn.means(drawn.ceiling),
        n=len(readouts.images),
        images=len(set(readouts.images)),
        main=readouts.main.name,
        notes=_notes(readouts),
    )


class _Drawing:
    """The cells above the floor, and statistics of them that share their draws."""

    def __init__(self, readouts: Readouts, *, level: float, resamples: int, seed: int) -> None:
        self.readouts = readouts
        self.options: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
        self.intact = self.above_floor(readouts.intact)
        self.ceiling = None if readouts.ceiling is None else self.above_floor(readouts.ceiling)
        self.reach = 2 * max(float(np.abs(self.above_floor(c)).max()) for c in readouts.named().values())

    def above_floor(self, cell: Readout) -> Readout:
        return cell if self.readouts.floor is None else cell - self.readouts.floor

    def means(self, values: Columns) -> tuple[Estimate, ...]:
        return tuple(
            cluster_mean(column, self.readouts.images, reach=self.reach, **self.options)
            for column in values.T
        )

    def ratios(self, numerators: Columns, denominators: Columns) -> tuple[Ratio, ...]:
        return cluster_ratios(numerators, denominators, self.readouts.images, **self.options)


def _arm(arm: Arm, drawn: _Drawing) -> tuple[ArmAtLayer, ...]:
    cells = {name: drawn.above_floor(cell) for name, cell in arm.cells().items()}
    intact = drawn.intact
    means = {name: drawn.means(cell) for name, cell in cells.items()}
    effects = {name: drawn.means(intact - cell) for name, cell in cells.items()}
    retained = {name: drawn.ratios(cell, intact) for name, cell in cells.items()}
    vision, language, both = (cells.get(name) for name in ("vision cut", "language cut", "both cut"))
    recovered = reached = interaction = None
    if vision is not None and both is not None:
        recovered = drawn.ratios(vision - both, intact - both)
        if drawn.ceiling is not None:
            reached = drawn.ratios(vision - both, drawn.ceiling - both)
        if language is not None:
            interaction = drawn.means((vision - both) - (intact - language))
    return tuple(
        ArmAtLayer(
            arm=arm.name,
            layer=layer,
            means={name: each[place] for name, each in means.items()},
            effects={name: each[place] for name, each in effects.items()},
            retained={name: each[place] for name, each in retained.items()},
            recovered=recovered[place] if recovered else None,
            reached=reached[place] if reached else None,
            interaction=interaction[place] if interaction else None,
        )
        for place, layer in enumerate(drawn.readouts.layers)
    )


def _notes(readouts: Readouts) -> tuple[str, ...]:
    """What the cells show to be wrong with how they were read: language cuts cannot change layer 0."""
    if 0 not in readouts.layers:
        return ("layer 0 was not read, so what the language model was given is not known",)
    at, notes = readouts.layers.index(0), []
    for arm in (readouts.main, *readouts.controls):
        cells = arm.cells()
        pairs = [("language cut", "intact", readouts.intact), ("both cut", "vision cut", arm.vision_cut)]
        for name, like, other in pairs:
            if name not in cells or other is None:
                continue
            gap = float(np.abs(cells[name][:, at] - other[:, at]).max())
            if gap > 0:
                notes.append(
                    f"{arm.name}: {name} and {like} differ by up to {gap:.3g} at layer 0, which no language cut can change"
                    " but by rounding"
                )
    return tuple(notes)
