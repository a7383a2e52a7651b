"""One picture's parts read under every condition: how readable each part's name is at each layer, in each cell of the 2x2.

A part's name is read by the logit lens off the part's own positions, under the same knockout as its control (regions as large, elsewhere), since a
knockout changes both. Beside the ranks the mean state over the part's positions is kept for a linear probe.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from eyechart.core.errors import UserError
from eyechart.core.geometry import Geometry
from eyechart.locate.arms import (
    ArmPlan,
    Cell,
    PartConditions,
    Placed,
    Towered,
    conditions_of,
    positions_in,
)
from eyechart.locate.edge_names import DEFAULT, Choices
from eyechart.locate.identify import (
    MaskedPart,
    NotRanked,
    Settings,
    best_ranks,
    drawn_regions,
    height_of,
    placed_parts,
)
from eyechart.locate.labels import Label
from eyechart.locate.lens import Lens, lens_ranks
from eyechart.models.attention import Condition

Rivals = Mapping[tuple[str, str], str]
"""Of an object's part the name that the part alone could as well have: only what stands around it tells."""

Read = Callable[[Sequence[Condition]], Iterable[tuple[Condition, Float[Tensor, "layer position dim"]]]]
"""States at all image positions, at layers 0 (after the projector) to the last, none of them normed, for each condition."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellReading:
    """What one part shows under one condition."""

    rank: Float[ndarray, " layer"]
    """Best rank of its name over its positions."""

    control: Float[ndarray, " layer"] | None
    """Median over the regions of the best rank of the same name there; None where there is no room for one."""

    rival: Float[ndarray, " layer"] | None
    """Best rank over the part's own positions of the name that it could be taken for; None where it has none."""

    state: Float[ndarray, "layer dim"]
    """Mean over its positions."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartReading:
    """One part of one picture under all conditions."""

    image: str
    object: str
    part: str
    instance: int
    cells: int
    row: float
    share: float
    readings: Mapping[Cell, CellReading]
    missing: Mapping[str, str]
    """Arms that have nothing to cut for this part, and why."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictured:
    """A picture with its parts, and where things stand in it."""

    image: str
    parts: Sequence[MaskedPart]
    geometry: Geometry
    towers: Towered
    vision_of: Callable[[MaskedPart, Int[ndarray, " position"]], tuple[int, ...]]
    """The vision tokens of a part that has these image positions."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planned:
    """A part that will be read: where, beside which regions, and under which conditions."""

    part: MaskedPart
    cells: Int[ndarray, " position"]
    regions: list[Int[ndarray, " position"]]
    conditions: PartConditions


def plan_parts(
    pictured: Pictured,
    labels: Mapping[str, Label],
    arms: Sequence[ArmPlan],
    *,
    settings: Settings,
    choices: Choices = DEFAULT,
) -> tuple[list[Planned], list[NotRanked]]:
    """The parts of a picture with their conditions, and those that cannot be read; arguments and errors as `knock_parts`."""
    where, missing = placed_parts(
        pictured.image, pictured.parts, pictured.geometry, labels, settings.threshold
    )
    regions = drawn_regions(pictured.image, pictured.geometry, where, settings).of_part
    planned = []
    for number, ((part, cells), drawn) in enumerate(zip(where, regions, strict=True)):
        tokens = Placed(
            vision=pictured.vision_of(part, cells), language=positions_in(pictured.towers.language, cells)
        )
        conditions = conditions_of(tokens, pictured.towers, arms, choices=choices, name=f"{number} ")
        planned.append(Planned(part=part, cells=cells, regions=drawn, conditions=conditions))
    return planned, missing


def knock_parts(
    pictured: Pictured,
    read: Read,
    lens: Lens,
    labels: Mapping[str, Label],
    arms: Sequence[ArmPlan],
    *,
    settings: Settings,
    choices: Choices = DEFAULT,
    rivals: Rivals = MappingProxyType({}),
) -> tuple[list[PartReading], list[NotRanked]]:
    """Read every part of a picture under every condition.

    Args:
        pictured: the picture.
        read: runs the model; see `Read`.
        lens: the model's.
        labels: by the parts' names; parts without one are listed.
        arms: the knockouts.
        settings: of masks and control regions.
        choices: what the names of edges leave open.
        rivals: names that parts could be taken for; one without a label is passed over.

    Raises:
        UserError: states and geometry do not fit, or a cut cannot be made.
        NeverFired: a cut was not run.
    """
    planned, missing = plan_parts(pictured, labels, arms, settings=settings, choices=choices)
    if not planned:
        return [], missing
    words = _words(planned, labels, rivals)
    return _read_all(pictured, planned, read, lens, words, settings), missing


def _words(
    planned: Sequence[Planned], labels: Mapping[str, Label], rivals: Rivals
) -> list[tuple[Label, ...]]:
    """Of each part its own name, and its rival's where it has one."""
    named = ((one.part.part, rivals.get((one.part.object, one.part.part), "")) for one in planned)
    return [tuple(labels[name] for name in names if name in labels) for names in named]


def _read_all(
    pictured: Pictured,
    work: Sequence[Planned],
    read: Read,
    lens: Lens,
    words: Sequence[tuple[Label, ...]],
    settings: Settings,
) -> list[PartReading]:
    """All conditions of all parts in one sweep; the intact one is run once for all."""
    asked: dict[str, tuple[Condition, list[tuple[int, Cell]]]] = {}
    for number, one in enumerate(work):
        for cell, condition in one.conditions.cells.items():
            asked.setdefault(condition.name, (condition, []))[1].append((number, cell))
    by_id = {id(condition): readers for condition, readers in asked.values()}
    found: list[dict[Cell, CellReading]] = [{} for _ in work]
    for condition, states in read([condition for condition, _ in asked.values()]):
        if states.shape[1] != pictured.geometry.length:
            raise UserError(
                f"{pictured.image}: states at {states.shape[1]} positions, but its geometry has"
                f" {pictured.geometry.length}; expected those of the image positions"
            )
        for number, cell in by_id[id(condition)]:
            found[number][cell] = _reading(work[number], states, lens, words[number], settings)
    return [
        PartReading(
            image=pictured.image,
            object=one.part.object,
            part=one.part.part,
            instance=one.part.instance,
            cells=len(one.cells),
            row=height_of(one.part.mask),
            share=float(one.part.mask.mean()),
            readings=readings,
            missing=one.conditions.missing,
        )
        for one, readings in zip(work, found, strict=True)
    ]


def _reading(
    one: Planned,
    states: Float[Tensor, "layer position dim"],
    lens: Lens,
    words: Sequence[Label],
    settings: Settings,
) -> CellReading:
    """Ranks are made where they are needed only: over the mask and over its regions."""
    needed = np.unique(np.concatenate([one.cells, *one.regions]))
    place = {int(position): number for number, position in enumerate(needed)}
    held = states[:, torch.from_numpy(needed)]
    normed = [False] * len(states)
    read = lens_ranks(held, words, lens, normed=normed, ties=settings.ties, held=settings.held)
    ranks = read.ranks.numpy()

    def over(cells: Int[ndarray, " some"], word: int = 0) -> Float[ndarray, " layer"]:
        return best_ranks(ranks[:, :, word], np.array([place[int(cell)] for cell in cells]))

    control = np.median([over(region) for region in one.regions], axis=0) if one.regions else None
    mean = states[:, torch.from_numpy(one.cells)].float().mean(dim=1)
    return CellReading(
        rank=over(one.cells),
        control=control,
        rival=over(one.cells, 1) if len(words) > 1 else None,
        state=mean.numpy(),
    )
