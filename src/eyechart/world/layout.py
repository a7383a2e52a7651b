"""Facts become a scene: where everything stands, how it is lit and seen, all from one number.

The number (the nonce) decides everything that no fact decides, by the same draws in the same order whatever the facts are.
So two sets of facts laid out with one nonce are twins, with two nonces siblings.
"""

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from eyechart.world.draw import ALIKE
from eyechart.world.facts import COLORS, Facts
from eyechart.world.kinds import KINDS
from eyechart.world.kinds.kind import Look, pieces_of
from eyechart.world.paints import encoded, linear
from eyechart.world.scene import Backdrop, Camera, Floor, Item, Light, Rug, Scene, Sign, Thing
from eyechart.world.shading import FILL

Split = Literal["train", "selection", "test"]

FIELD_OF_VIEW = 35.0
_TURN = {"right": 0.0, "left": 180.0, "front": -90.0, "back": 90.0}
_SLOTS = 4
_SIZES, _VARIED = (math.log(0.14), math.log(0.75)), 0.85
"""Least and greatest logarithm of the size of a scene's rugs, and how far the logarithm of one's own is from it."""

_SEAMLESS = 0.6
"""Share of backdrops in the floor's tones."""

_TONES = (0.36, 0.84)
"""The darkest and the lightest grey of floors and backdrops, alike for both, so that more of either shows nothing."""


def split_of(nonce: int) -> Split:
    """The split a scene belongs to, a function of its nonce alone: no scene can be in two of them."""
    tenth = hashlib.sha256(f"split {nonce}".encode()).digest()[0] % 10
    return "train" if tenth < 8 else "selection" if tenth == 8 else "test"


def nonces(split: Split, seed: int) -> Iterator[int]:
    """An endless stream of a split's nonces; another seed gives another stream."""
    index = 0
    while True:
        digest = hashlib.sha256(f"nonce {seed} {index}".encode()).digest()
        nonce = int.from_bytes(digest[:6], "big")
        if split_of(nonce) == split:
            yield nonce
        index += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Jitter:
    """All that is drawn at random, each part of it from the same stream in the same order."""

    turn: float
    shift: float
    side: float
    """-1 or 1: to which side an object before or behind the main one is moved so that both are seen."""
    scale: float
    other_turn: float
    other_scale: float
    slots: tuple[int, ...]
    item_shifts: tuple[tuple[float, float, float], ...]
    item_sizes: tuple[float, ...]
    """Radii: a size for all and one for each, so that the area of all tells little of their number."""
    sign_side: float
    sign_turn: float
    azimuth: float
    low: float
    high: float
    distance: float
    aim: tuple[float, float]


def lay_out(facts: Facts, nonce: int) -> Scene:
    """The scene in which the facts hold, everything else decided by the nonce.

    Units: an object is about one unit tall; x to the right of the viewer, y up, z towards the viewer.
    """
    rng = random.Random(f"layout {nonce}")
    jitter = _draw(rng)
    things = _things(facts, jitter)
    light = Light(
        azimuth=rng.uniform(0, 360),
        elevation=rng.uniform(34, 70),
        strength=rng.uniform(0.75, 1.0),
        ambient=rng.uniform(0.36, 0.5),
        warmth=rng.uniform(-1, 1),
    )
    floor = _floor(rng)
    backdrop = _backdrop(rng, floor, light)
    return Scene(
        facts=facts,
        nonce=nonce,
        things=things,
        items=_items(facts, jitter),
        sign=_sign(facts, jitter),
        rugs=_rugs(facts, rng),
        floor=floor,
        backdrop=backdrop,
        light=light,
        camera=_camera(facts, jitter),
    )


def _draw(rng: random.Random) -> _Jitter:
    return _Jitter(
        turn=rng.uniform(-16, 16),
        shift=rng.uniform(-0.06, 0.06),
        side=rng.choice((-1.0, 1.0)),
        scale=rng.uniform(0.9, 1.1),
        other_turn=rng.uniform(-30, 30) + rng.choice((0, 180)),
        other_scale=rng.uniform(0.92, 1.1),
        slots=tuple(rng.sample(range(_SLOTS), _SLOTS)),
        item_shifts=tuple(
            (rng.uniform(-0.03, 0.03), rng.uniform(-0.07, 0.07), rng.uniform(0, 90)) for _ in range(_SLOTS)
        ),
        item_sizes=_item_sizes(rng),
        sign_side=rng.choice((-1.0, 1.0)),
        sign_turn=rng.uniform(-10, 10),
        azimuth=rng.uniform(-12, 12),
        low=rng.uniform(11, 20),
        high=rng.uniform(34, 42),
        distance=rng.uniform(0.94, 1.08),
        aim=(rng.uniform(-0.05, 0.05), rng.uniform(-0.04, 0.04)),
    )


def _item_sizes(rng: random.Random) -> tuple[float, ...]:
    common = rng.uniform(0.082, 0.125)
    return tuple(min(0.132, max(0.075, common * rng.uniform(0.85, 1.18))) for _ in range(_SLOTS))


def _alone(facts: Facts) -> bool:
    return facts.other is None and facts.items is None and facts.letter is None


def _lean(facts: Facts, jitter: _Jitter) -> float:
    """How far the main object is moved aside, to make room for what stands with it."""
    if facts.other is not None:
        away = {"left": 0.36, "right": -0.36}.get(facts.other.place)
        return away if away is not None else -0.24 * jitter.side
    return -0.38 * jitter.sign_side if facts.letter is not None else 0.0


def _things(facts: Facts, jitter: _Jitter) -> tuple[Thing, ...]:
    look = Look(state=facts.state, shape=facts.shape, missing=facts.missing)
    alone = _alone(facts)
    turn = _TURN["front"] if alone and facts.facing == "back" else _TURN[facts.facing]
    main = Thing(
        kind=facts.kind,
        look=look,
        color=facts.color,
        accent=facts.accent,
        material=facts.material,
        x=_lean(facts, jitter) + jitter.shift,
        z=0.0,
        yaw=turn + jitter.turn,
        scale=jitter.scale * (1.0 if alone else 0.86),
    )
    return (main,) if facts.other is None else (main, _other(facts, jitter))


def _other(facts: Facts, jitter: _Jitter) -> Thing:
    other = facts.other
    assert other is not None
    x, z, scale = {
        "left": (-0.62, 0.1, 0.6),
        "right": (0.62, 0.1, 0.6),
        "front": (0.42 * jitter.side, 0.85, 0.42),
        "behind": (0.6 * jitter.side, -1.0, 0.72),
    }[other.place]
    kind = KINDS[other.kind]
    return Thing(
        kind=other.kind,
        look=Look(
            state=kind.state.words[0] if kind.state is not None else None,
            shape=kind.shape.words[0],
            missing=None,
        ),
        color=other.color,
        accent=other.color,
        material=facts.material,
        x=x + jitter.shift,
        z=z,
        yaw=jitter.other_turn,
        scale=scale * jitter.other_scale,
    )


def _items(facts: Facts, jitter: _Jitter) -> tuple[Item, ...]:
    if facts.items is None:
        return ()
    slots = jitter.slots[: facts.items.number]
    placed = zip(slots, jitter.item_shifts, jitter.item_sizes, strict=False)
    return tuple(
        Item(
            noun=facts.items.noun,
            color=facts.items.color,
            x=-0.51 + 0.34 * slot + dx,
            z=0.86 + dz,
            radius=radius,
            yaw=yaw,
        )
        for slot, (dx, dz, yaw), radius in placed
    )


def _sign(facts: Facts, jitter: _Jitter) -> Sign | None:
    if facts.letter is None:
        return None
    side = jitter.sign_side
    return Sign(letter=facts.letter, x=0.55 * side, z=0.2, yaw=jitter.sign_turn, height=0.46)


def _camera(facts: Facts, jitter: _Jitter) -> Camera:
    """Around the main object; the side of an object alone that shows its back is seen by walking round it."""
    alone = _alone(facts)
    azimuth = math.radians(jitter.azimuth + (180.0 if alone and facts.facing == "back" else 0.0))
    elevation = math.radians(jitter.low if facts.view == "side" else jitter.high)
    distance = jitter.distance * (2.55 if alone else 3.15)
    middle = 0.5 if alone else 0.32
    target = (jitter.aim[0], middle + jitter.aim[1], 0.0 if alone else 0.15)
    eye = (
        target[0] + distance * math.cos(elevation) * math.sin(azimuth),
        target[1] + distance * math.sin(elevation),
        target[2] + distance * math.cos(elevation) * math.cos(azimuth),
    )
    return Camera(eye=eye, target=target, fov=FIELD_OF_VIEW)


def _rugs(facts: Facts, rng: random.Random) -> tuple[Rug, ...]:
    """Clutter that makes amounts of colour tell little: a rug in every paint that a fact can show more or less of.

    Sizes go from a few pixels to far more than any part covers. Which rugs there are follows from what twins share:
    neither state nor build, missing part, number, nor which of two objects has which colour.
    """
    spoken = _spoken(facts)
    paints = [*sorted(spoken), *fixed_paints(facts.kind)]
    rng.shuffle(paints)
    paints += [_pick(rng.random(), COLORS) for _ in range(rng.randrange(2))]
    common = rng.uniform(*_SIZES)
    drawn = [_rug(paint, common, rng) for paint in paints]
    return tuple(_aside(rug, facts, spoken) for rug in drawn)


def _spoken(facts: Facts) -> set[str]:
    """The colours of the scene that can be asked about."""
    company = [one.color for one in (facts.other, facts.items) if one is not None]
    return {facts.color, facts.accent, *company}


def _rug(paint: str, common: float, rng: random.Random) -> Rug:
    """Beside or before the middle: there, more than far behind, a low camera sees nearly as much of it as a high one."""
    z = rng.uniform(-1.0, 0.8)
    return Rug(
        shape=rng.choice(("disc", "square", "ring")),
        color=paint,
        x=rng.choice((-1, 1)) * rng.uniform(0.2, 1.1 - 0.3 * min(z, 0.0)),
        z=z,
        size=math.exp(common + rng.uniform(-_VARIED, _VARIED)),
        angle=rng.uniform(0, 90),
    )


def _aside(rug: Rug, facts: Facts, spoken: set[str]) -> Rug:
    """The rug moved so that nothing asked about stands on its own colour or on one that could be taken for it."""
    if facts.items is not None and _alike(rug.color, facts.items.color):
        reach = rug.size * (math.sqrt(2) if rug.shape == "square" else 1.0)
        return replace(rug, z=min(rug.z, 0.45 - reach))
    if rug.color in spoken:
        return replace(rug, x=math.copysign(max(abs(rug.x), 0.4 + 0.8 * rug.size), rug.x))
    return rug


def _alike(first: str, second: str) -> bool:
    return first == second or frozenset((first, second)) in ALIKE


@lru_cache(maxsize=64)
def fixed_paints(kind: str) -> tuple[str, ...]:
    """The paints of a kind that are never changed, those that only some of its looks show among them."""
    spec = KINDS[kind]
    states = spec.state.words if spec.state is not None else (None,)
    looks = [Look(state=state, shape=shape) for state in states for shape in spec.shape.words]
    slots = {piece.slot for look in looks for piece in pieces_of(spec, look)}
    return tuple(sorted(slots - {"main", "accent"}))


def _pick(share: float, words: list[str] | tuple[str, ...]) -> str:
    return words[int(share * len(words))]


def _tone(rng: random.Random) -> tuple[float, float, float]:
    """A grey or a pale brown: no colour that is spoken of."""
    level, warm = rng.uniform(*_TONES), rng.uniform(-0.04, 0.09)
    return (min(1.0, level + warm), level, max(0.0, level - warm))


def _tone_near(tone: tuple[float, float, float], rng: random.Random) -> tuple[float, float, float]:
    """Another grey or pale brown, a little darker or lighter than a tone."""
    step, warm = rng.choice((-1, 1)) * rng.uniform(0.07, 0.2), rng.uniform(-0.04, 0.09)
    level = tone[1] + step if _TONES[0] <= tone[1] + step <= _TONES[1] else tone[1] - step
    return (min(1.0, level + warm), level, max(0.0, level - warm))


def _floor(rng: random.Random) -> Floor:
    first = _tone(rng)
    return Floor(
        pattern=rng.choices(("plain", "checks", "planks", "tiles", "speckles"), weights=(3, 1, 3, 2, 2))[0],
        first=first,
        second=_tone_near(first, rng),
        scale=rng.uniform(0.25, 0.5),
        angle=rng.uniform(0, 90),
    )


def _backdrop(rng: random.Random, floor: Floor, light: Light) -> Backdrop:
    """A wall as bright as a floor of its tones: the floor's first, from that to the second, or two near it."""
    bottom, top = _tone_near(floor.first, rng), _tone_near(floor.first, rng)
    share = rng.random()
    if share < _SEAMLESS:
        bottom, top = floor.first, floor.second if share < _SEAMLESS / 3 else floor.first
    return Backdrop(top=_as_floor(top, light), bottom=_as_floor(bottom, light))


def _as_floor(tone: tuple[float, float, float], light: Light) -> tuple[float, float, float]:
    """The tone as bright as a floor of it looks where nothing shades it."""
    level = light.ambient + 0.4 * FILL + light.strength * math.sin(math.radians(light.elevation))
    red, green, blue = (round(float(channel), 4) for channel in encoded(linear(tone) * np.float32(level)))
    return (red, green, blue)
