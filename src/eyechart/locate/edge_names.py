"""The table of names of edge sets: who looks at whom. `named` says how they are used."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from eyechart.locate.layout import LanguageLayout, Layout, VisionLayout
from eyechart.locate.random_edges import Match

TowerName = Literal["vision", "language"]

Places = Int[ndarray, " _"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a name leaves open; see the module's text."""

    special_is_rest: bool = True
    self_edges: bool = False
    sink: bool = False
    match: Match = "total"
    """How a random control is drawn: see `random_edges.RANDOM`."""

    seed: int = 0
    """Of the random control."""


DEFAULT = Choices()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Who looks (`query`) and who is looked at (`key`)."""

    query: Places
    key: Places


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A layout and a part, as the names read them."""

    layout: Layout
    part: Places
    choices: Choices

    @property
    def image(self) -> Places:
        """All patches, or image positions."""
        return places_of(self.layout.patches if isinstance(self.layout, VisionLayout) else self.layout.image)

    @property
    def special(self) -> Places:
        """Class token and registers; in the language tower text between tiles and rows of the image."""
        layout = self.layout
        return places_of(layout.special if isinstance(layout, VisionLayout) else layout.between)

    @property
    def rest(self) -> Places:
        """The image's tokens that are not the part's, special ones included where the choices say so."""
        return np.setdiff1d(self.whole, self.part)

    @property
    def whole(self) -> Places:
        """The image's tokens, special ones included where the choices say so."""
        return np.union1d(self.image, self.special) if self.choices.special_is_rest else self.image

    @property
    def before(self) -> Places:
        """Text before the image; none in the vision tower."""
        return places_of(self.layout.before if isinstance(self.layout, LanguageLayout) else ())

    @property
    def question(self) -> Places:
        """Text after the image; none in the vision tower."""
        return places_of(self.layout.question if isinstance(self.layout, LanguageLayout) else ())

    @property
    def last(self) -> Places:
        """The last position."""
        return places_of((self.layout.length - 1,))


def places_of(places: Iterable[int]) -> Places:
    """Places in a sequence as an ascending array."""
    return np.array(sorted(places), dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One row of the table of names."""

    says: str
    """A sentence for help texts and docs."""

    towers: tuple[TowerName, ...]
    sides: Callable[[Seen], Sides] = field(repr=False)
    needs_part: bool = True
    earlier: bool = False
    """Only keys before the query, also where the tower looks both ways."""


_BOTH: tuple[TowerName, ...] = ("vision", "language")

NAMES: dict[str, Named] = {
    "part<-rest": Named(
        says="The part's tokens read nothing from the image's other tokens, special ones (CLS, registers, tile marks) included.",
        towers=_BOTH,
        sides=lambda s: Sides(query=s.part, key=s.rest),
    ),
    "rest<-part": Named(
        says="The image's other tokens read nothing from the part: the reverse of part<-rest.",
        towers=_BOTH,
        sides=lambda s: Sides(query=s.rest, key=s.part),
    ),
    "part<-part": Named(
        says="The part's tokens read nothing from each other; each still reads itself.",
        towers=_BOTH,
        sides=lambda s: Sides(query=s.part, key=s.part),
    ),
    "part<-cls": Named(
        says="The part's tokens read nothing from class token and registers.",
        towers=("vision",),
        sides=lambda s: Sides(query=s.part, key=s.special),
    ),
    "patches<-patches": Named(
        says="No patch reads anything from another: each stands alone, and reads no special token (CLS, registers, tile marks).",
        towers=_BOTH,
        sides=lambda s: Sides(query=s.image, key=s.whole),
        needs_part=False,
    ),
    "patches<-cls": Named(
        says="No patch reads anything from class token and registers.",
        towers=("vision",),
        sides=lambda s: Sides(query=s.image, key=s.special),
        needs_part=False,
    ),
    "part<-earlier image": Named(
        says="The part's tokens read nothing from the image's other tokens that come before them.",
        towers=("language",),
        sides=lambda s: Sides(query=s.part, key=s.rest),
        earlier=True,
    ),
    "part<-earlier part": Named(
        says="The part's tokens read nothing from those of its tokens that come before them.",
        towers=("language",),
        sides=lambda s: Sides(query=s.part, key=s.part),
        earlier=True,
    ),
    "part<-text before": Named(
        says="The part's tokens read nothing from the text before the image (its first position stays).",
        towers=("language",),
        sides=lambda s: Sides(query=s.part, key=s.before),
    ),
    "part<-question": Named(
        says="The part's tokens read nothing from the text after the image; only towers that look both ways have such edges.",
        towers=("language",),
        sides=lambda s: Sides(query=s.part, key=s.question),
    ),
    "question<-image": Named(
        says="The text after the image, last position included, reads nothing from the image.",
        towers=("language",),
        sides=lambda s: Sides(query=s.question, key=s.whole),
        needs_part=False,
    ),
    "question<-part": Named(
        says="The text after the image, last position included, reads nothing from the part.",
        towers=("language",),
        sides=lambda s: Sides(query=s.question, key=s.part),
    ),
    "last<-image": Named(
        says="The last position, where the answer is read, reads nothing from the image.",
        towers=("language",),
        sides=lambda s: Sides(query=s.last, key=s.whole),
        needs_part=False,
    ),
    "last<-part": Named(
        says="The last position, where the answer is read, reads nothing from the part.",
        towers=("language",),
        sides=lambda s: Sides(query=s.last, key=s.part),
    ),
}
"""Every name there is; help texts and docs list it."""
