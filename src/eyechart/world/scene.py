"""A scene laid out in space: every object, light and camera setting the renderer needs, and nothing drawn at random."""

from dataclasses import dataclass
from typing import Literal

from eyechart.world.facts import Facts
from eyechart.world.kinds.kind import Look


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """An object on the floor: its look and paints, where its base stands, its turn in degrees and its scale."""

    kind: str
    look: Look
    color: str
    accent: str
    material: str
    x: float
    z: float
    yaw: float
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One small countable thing resting on the floor."""

    noun: str
    color: str
    x: float
    z: float
    radius: float
    yaw: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A board with one letter; `height` is the letter's own, in world units, `yaw` 0 when it faces +z."""

    letter: str
    x: float
    z: float
    yaw: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rug:
    """Clutter: a flat coloured patch on the floor; `size` is its radius or half side."""

    shape: Literal["disc", "square", "ring"]
    color: str
    x: float
    z: float
    size: float
    angle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The ground: two grey-brown tones (sRGB, 0..1) in a pattern of so many units, turned by degrees."""

    pattern: Literal["plain", "checks", "planks", "tiles", "speckles"]
    first: tuple[float, float, float]
    second: tuple[float, float, float]
    scale: float
    angle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdrop:
    """What lies behind: a vertical gradient between two sRGB colours."""

    top: tuple[float, float, float]
    bottom: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """One distant light (degrees), its strength, and the share that comes from everywhere."""

    azimuth: float
    elevation: float
    strength: float
    ambient: float
    warmth: float
    """-1 (bluish) .. 1 (yellowish)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A pinhole camera without roll: where it is, what it looks at, its vertical field of view in degrees."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    fov: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A whole scene; `things` holds the main object first, then the other one where there is one."""

    facts: Facts
    nonce: int
    things: tuple[Thing, ...]
    items: tuple[Item, ...]
    sign: Sign | None
    rugs: tuple[Rug, ...]
    floor: Floor
    backdrop: Backdrop
    light: Light
    camera: Camera
