"""What is true of a scene, in words: drawn at random, changed in one fact, read by captions and questions alike."""

from dataclasses import dataclass
from typing import Literal

Facing = Literal["left", "right", "front", "back"]
View = Literal["side", "above"]
Place = Literal["left", "right", "front", "behind"]

PATTERNS = (
    "orientation",
    "presence",
    "state",
    "quantity",
    "position",
    "color",
    "structure",
    "text",
    "viewpoint",
)

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
ITEMS = ("ball", "cube", "egg")
LETTERS = ("C", "E", "H", "K", "L", "N", "O", "P", "S", "T", "X", "Z")
MATERIALS = ("matte", "shiny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """The second object: of another kind and colour, beside, before or behind the main one as the viewer sees it."""

    kind: str
    color: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Small things of one sort to be counted, one to four."""

    noun: str
    color: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that is said or asked about a scene; where things stand exactly is the layout's own."""

    kind: str
    color: str
    accent: str
    material: str
    facing: Facing
    """Where its front points as the viewer sees it; kinds without a front have one too, which is never spoken of."""

    state: str | None
    shape: str
    missing: str | None
    view: View
    other: Other | None = None
    items: Items | None = None
    letter: str | None = None
    """The letter on the sign beside the object; None where there is no sign."""
