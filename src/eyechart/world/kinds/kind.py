"""What a kind of object is: its named parts, how it can differ from another of its kind, and how it is built."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from eyechart.world.shapes import Mesh

Slot = Literal["main", "accent", "glass", "dark", "light", "glow", "water", "wood", "leaf"]
"""What a piece is painted with: the object's own two colours, or a paint that never changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How one object of a kind looks: everything about it that is neither colour nor place."""

    state: str | None
    """One of the kind's two state words (`open`), or None where the kind has no states."""

    shape: str
    """One of the kind's two shape words (`round`)."""

    missing: str | None = None
    """The optional part that is not there, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A mesh of one part in the object's own frame: front +x, up +y, base on y = 0, about one unit tall."""

    part: str
    mesh: Mesh
    slot: Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A fact of the kind that can be two ways: the part it is said of (None: the whole object) and both words."""

    part: str | None
    words: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of object."""

    name: str
    parts: tuple[str, ...]
    """Three to seven everyday names, all visible in a typical view."""

    optional: tuple[str, ...]
    """The parts an object of this kind can lack and still be recognised."""

    state: Choice | None
    """Two conditions of the same object (`open`, `closed`)."""

    shape: Choice
    """Two builds of the same kind (`round`, `square`)."""

    has_front: bool
    """Whether a person would say which way it faces."""

    build: Callable[[Look], tuple[Piece, ...]]
    """Its pieces; use `pieces_of`, which keeps what was built."""


@lru_cache(maxsize=512)
def pieces_of(kind: Kind, look: Look) -> tuple[Piece, ...]:
    """The pieces of an object, built once for each look."""
    return tuple(piece for piece in kind.build(look) if piece.part != look.missing)
