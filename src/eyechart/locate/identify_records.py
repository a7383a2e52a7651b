"""Records of part identification: what goes in, what comes out, and what is chosen; no method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from eyechart.core.geometry import Geometry
from eyechart.locate.lens import HELD, Ties
from eyechart.locate.regions import REGIONS, RegionRule

THRESHOLD = 0.5
"""A cell belongs to a part when the part covers more than this share of it."""

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "no_label": "the rule has no tokens for the part's name",
        "size_mismatch": "picture and mask are not of one size",
        "empty_mask": "the mask covers no pixel",
        "lost_to_crop": "the model sees nothing of the part: it lies in what the processor cuts off",
        "no_cell": "no cell is covered enough",
        "unreadable": "the picture could not be read",
    }
)
"""Why a part has no rank: the words of `NotRanked.reason`, and their sentences."""


@runtime_checkable
class MaskedPart(Protocol):
    """One named part of one object in a picture."""

    @property
    def object(self) -> str:
        """What the object is called."""

    @property
    def part(self) -> str:
        """What the part is called."""

    @property
    def instance(self) -> int:
        """Which object of the picture."""

    @property
    def mask(self) -> Bool[ndarray, "height width"]:
        """True where the part is, in pixels of the picture."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageStates:
    """A picture as a language model holds it, and its parts."""

    image: str
    states: Float[Tensor, "layer position dim"]
    """At the image positions, in their order."""

    layers: tuple[int, ...]
    """Their numbers."""

    normed: tuple[bool, ...]
    """For each layer whether its states have been through the final norm."""

    geometry: Geometry
    parts: Sequence[MaskedPart]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartRanks:
    """One part of one object in one picture: best ranks by layer, 1 for the likeliest token."""

    image: str
    object: str
    part: str
    instance: int
    cells: int
    """Image positions of the mask, those of all resolutions together."""

    row: float
    """How far down the middle of the mask lies: 0 at the picture's top, 1 at its bottom."""

    share: float
    """Of the picture's pixels that the mask covers."""

    visible: float
    """Share of the mask that some cell shows; the rest was cut off."""

    layers: tuple[int, ...]
    mask: Float[ndarray, " layer"]
    random: Float[ndarray, " layer"] | None
    """Median over the regions; None where there is no room for one."""

    wrong: Float[ndarray, " layer"] | None
    """Median over the names of the object's other parts, at this mask; None where no other name can be told apart."""

    control: RegionRule
    regions: int
    others: tuple[str, ...]
    """The wrong names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRanked:
    """A part that has no rank, and why: listed, never dropped in silence."""

    image: str
    object: str
    part: str
    instance: int
    reason: str
    """One of the words in `REASONS`."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """All parts of some pictures: those ranked and those not."""

    parts: tuple[PartRanks, ...]
    not_ranked: tuple[NotRanked, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How masks become positions and what they are compared with."""

    threshold: float = THRESHOLD
    """As in `Geometry.mask_to_cells`: with 0 any overlap counts."""

    control: RegionRule | None = None
    """None: the outline on one grid, connected regions on several; each record says which."""

    regions: int = REGIONS
    seed: int = 0
    """Of the regions. Each part's are drawn by its own names and this, so that the order of pictures plays no part."""

    ties: Ties = Ties.PESSIMISTIC
    held: int = HELD
    """Logits held at once."""


def not_ranked(image: str, part: MaskedPart, reason: str, detail: str) -> NotRanked:
    """The record of a part without a rank."""
    if reason not in REASONS:
        raise ValueError(f"{reason!r} is no reason; there are: {', '.join(REASONS)}")
    return NotRanked(
        image=image, object=part.object, part=part.part, instance=part.instance, reason=reason, detail=detail
    )
