"""The conditions under which one part of a picture is read: the 2x2 of two knockouts, its controls, its windows and its doses.

An arm is a vision cut and a language cut; its cells are vision cut, language cut and both cut, over one intact cell that all arms
share (`compensate`). The main arm keeps the part's tokens from reading the rest of the picture in either tower. Controls:
`both ways` cuts the reverse edges of the vision tower too, so that neighbours cannot take the part up and be read in its
place; `random` cuts as many edges as the main arm, drawn from those it leaves. Where layers are named in several sets
(`window:9`, `each`), the main arm cuts all usable layers and each set is an arm of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Int
from numpy import ndarray

from eyechart.core.errors import NoEdges, unknown
from eyechart.locate.doses import SHARES, Order, edge_doses, layer_doses
from eyechart.locate.edge_names import DEFAULT, Choices
from eyechart.locate.layout import LanguageLayout, Layout, VisionLayout
from eyechart.locate.named import EdgeSet, named_edges
from eyechart.locate.named_layers import LayerSet, Usable, named_layers
from eyechart.models.attention import Condition

INTACT = "intact"

VISION, LANGUAGE, BOTH = "vision cut", "language cut", "both cut"
"""The cells of an arm."""

Cell = tuple[str, str]
"""An arm and a cell of it; ("", "intact") for the intact model."""

WHOLE: Cell = ("", INTACT)

CONTROLS = {
    "both ways": "the reverse edges of the vision tower are cut, too",
    "random": "as many edges in both towers, drawn from those that the main arm leaves",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPlan:
    """Which edges an arm cuts, by name (`named.NAMES`), and in which blocks."""

    name: str
    vision: str
    language: str
    vision_layers: tuple[int, ...]
    language_layers: tuple[int, ...]
    cells: tuple[str, ...] = (VISION, LANGUAGE, BOTH)
    share: float = 1.0
    """Of the edges of each query, drawn by the seed: a dose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Towered:
    """The two layouts of a prompt, and the blocks that may be cut in each."""

    vision: VisionLayout
    language: LanguageLayout
    vision_layers: Usable
    language_layers: Usable


def arms_of(
    towers: Towered,
    *,
    vision: str,
    language: str,
    vision_layers: str = "all",
    language_layers: str = "all",
    controls: Sequence[str] = tuple(CONTROLS),
) -> tuple[ArmPlan, ...]:
    """The main arm first, its controls, then an arm for each set of layers where several are named.

    Raises:
        UserError: there is no such control, or no such layers.
    """
    for control in controls:
        if control not in CONTROLS:
            raise unknown("control", control, CONTROLS)
    seen, said = (
        named_layers(spec, usable).sets
        for spec, usable in ((vision_layers, towers.vision_layers), (language_layers, towers.language_layers))
    )
    main = ArmPlan(
        name="main",
        vision=vision,
        language=language,
        vision_layers=seen[0].layers if len(seen) == 1 else towers.vision_layers.layers,
        language_layers=said[0].layers if len(said) == 1 else towers.language_layers.layers,
    )
    found = [main]
    if "both ways" in controls:
        both = f"{vision}+rest<-part"
        found.append(replace(main, name="both ways", vision=both, cells=(VISION, BOTH)))
    if "random" in controls:
        found.append(replace(main, name="random", vision=f"random:{vision}", language=f"random:{language}"))
    return (*found, *_windows(main, "vision", seen), *_windows(main, "language", said))


def _windows(main: ArmPlan, tower: str, sets: Sequence[LayerSet]) -> list[ArmPlan]:
    if len(sets) == 1:
        return []
    if tower == "vision":
        return [
            replace(main, name=f"vision {one.name}", vision_layers=one.layers, cells=(VISION, BOTH))
            for one in sets
        ]
    return [
        replace(main, name=f"language {one.name}", language_layers=one.layers, cells=(LANGUAGE, BOTH))
        for one in sets
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class DosePlan:
    """One curve of doses: its arms, the smallest dose first."""

    name: str
    cell: str
    arms: tuple[ArmPlan, ...]
    shares: tuple[float, ...]


def doses_of(
    main: ArmPlan,
    towers: Towered,
    *,
    shares: Sequence[float] = SHARES,
    order: Order = "last first",
    seed: int = 0,
) -> tuple[DosePlan, ...]:
    """The main arm at a growing share of each tower's layers, and of its edges in all layers."""
    plans = []
    for tower, cell in (("vision", VISION), ("language", LANGUAGE)):
        usable = towers.vision_layers if tower == "vision" else towers.language_layers
        layers = layer_doses(usable.layers, shares, order=order, seed=seed)
        name = f"{tower} layers, {order}"
        plans.append(
            DosePlan(
                name=name,
                cell=cell,
                arms=tuple(
                    replace(
                        main,
                        name=f"{name}: {dose.share:.3f}",
                        cells=(cell,),
                        vision_layers=dose.layers if tower == "vision" else main.vision_layers,
                        language_layers=dose.layers if tower == "language" else main.language_layers,
                    )
                    for dose in layers
                ),
                shares=tuple(dose.share for dose in layers),
            )
        )
        name = f"{tower} edges"
        plans.append(
            DosePlan(
                name=name,
                cell=cell,
                arms=tuple(
                    replace(main, name=f"{name}: {share:.3f}", cells=(cell,), share=share) for share in shares
                ),
                shares=tuple(shares),
            )
        )
    return tuple(plans)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A part's tokens in both towers."""

    vision: tuple[int, ...]
    language: tuple[int, ...]
    """Positions in the prompt's sequence."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartConditions:
    """What one part is read under: conditions by arm and cell, and what could not be cut."""

    cells: dict[Cell, Condition]
    missing: dict[str, str]
    """Arms that have nothing to cut for this part, and why."""


def conditions_of(
    placed: Placed, towers: Towered, arms: Sequence[ArmPlan], *, choices: Choices = DEFAULT, name: str = ""
) -> PartConditions:
    """The conditions of a part.

    An arm is left out where one of its sets of edges is empty for this part (a part in the picture's first cell has no earlier
    image to read).

    Args:
        placed: the part's tokens.
        towers: what stands where.
        arms: as `arms_of` and `doses_of` give them.
        choices: what the names of edges leave open; its seed also draws the edges of a dose.
        name: put before the names of the conditions.

    Raises:
        UserError: a name is not known, or a cut would leave a query without any key.
    """
    cells = {WHOLE: Condition(name=INTACT)}
    missing: dict[str, str] = {}
    for arm in arms:
        try:
            vision = _edges(arm.vision, towers.vision, placed.vision, choices, arm.share)
            language = _edges(arm.language, towers.language, placed.language, choices, arm.share)
        except NoEdges as error:
            missing[arm.name] = str(error)
            continue
        seen, said = vision.cut(arm.vision_layers), language.cut(arm.language_layers)
        cut = {VISION: (seen,), LANGUAGE: (said,), BOTH: (seen, said)}
        for cell in arm.cells:
            cells[arm.name, cell] = Condition(name=f"{name}{arm.name}: {cell}", cuts=cut[cell])
    return PartConditions(cells=cells, missing=missing)


def _edges(name: str, layout: Layout, part: Sequence[int], choices: Choices, share: float) -> EdgeSet:
    found = named_edges(name, layout, part=part, choices=choices)
    if share == 1:
        return found
    return replace(found, edges=edge_doses(found.edges, [share], seed=choices.seed)[0].edges)


def positions_in(layout: LanguageLayout, cells: Int[ndarray, " cell"]) -> tuple[int, ...]:
    """The prompt's positions of image positions that are counted from the picture's first."""
    return tuple(layout.image[int(cell)] for cell in cells)
