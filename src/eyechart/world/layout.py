"""Facts become a scene: where everything stands, how it is lit and seen, all from one number.

The number (the nonce) decides everything that no fact decides, by the same draws in the same order whatever the facts are.
So two sets of facts laid out with one nonce are twins, with two nonces siblings.
"""

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from eyechart.world.facts import COLORS, Facts
from eyechart.world.kinds import KINDS
from eyechart.world.kinds.kind import Look
from eyechart.world.scene import Backdrop, Camera, Floor, Item, Light, Rug, Scene, Sign, Thing

Split = Literal["train", "selection", "test"]

FIELD_OF_VIEW = 35.0
_TURN = {"right": 0.0, "left": 180.0, "front": -90.0, "back": 90.0}
_SLOTS = 4


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
    item_size: float
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
        elevation=rng.uniform(38, 68),
        strength=rng.uniform(0.75, 1.0),
        ambient=rng.uniform(0.36, 0.5),
        warmth=rng.uniform(-1, 1),
    )
    floor, backdrop = _floor(rng), _backdrop(rng)
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
        scale=rng.uniform(0.92, 1.08),
        other_turn=rng.uniform(-30, 30) + rng.choice((0, 180)),
        other_scale=rng.uniform(0.92, 1.1),
        slots=tuple(rng.sample(range(_SLOTS), _SLOTS)),
        item_shifts=tuple(
            (rng.uniform(-0.03, 0.03), rng.uniform(-0.07, 0.07), rng.uniform(0, 90)) for _ in range(_SLOTS)
        ),
        item_size=rng.uniform(0.085, 0.125),
        sign_side=rng.choice((-1.0, 1.0)),
        sign_turn=rng.uniform(-10, 10),
        azimuth=rng.uniform(-12, 12),
        low=rng.uniform(9, 19),
        high=rng.uniform(36, 43),
        distance=rng.uniform(0.95, 1.08),
        aim=(rng.uniform(-0.05, 0.05), rng.uniform(-0.04, 0.04)),
    )


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
    placed = zip(jitter.slots[: facts.items.number], jitter.item_shifts, strict=False)
    return tuple(
        Item(
            noun=facts.items.noun,
            color=facts.items.color,
            x=-0.48 + 0.32 * slot + dx,
            z=0.86 + dz,
            radius=jitter.item_size,
            yaw=yaw,
        )
        for slot, (dx, dz, yaw) in placed
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
    """None to three, half of them in a colour that is also spoken of, so that an amount of colour tells nothing."""
    spoken = sorted(
        {facts.color, facts.accent}
        | ({facts.other.color} if facts.other is not None else set())
        | ({facts.items.color} if facts.items is not None else set())
    )
    drawn = [
        Rug(
            shape=rng.choice(("disc", "square", "ring")),
            color=_pick(rng.random(), spoken) if rng.random() < 0.5 else _pick(rng.random(), COLORS),
            x=rng.uniform(-1.1, 1.1),
            z=rng.uniform(-0.9, 0.9),
            size=rng.uniform(0.15, 0.5),
            angle=rng.uniform(0, 90),
        )
        for _ in range(3)
    ]
    return tuple(rug for rug in drawn[: rng.randrange(4)] if not _hides_items(rug, facts))


def _hides_items(rug: Rug, facts: Facts) -> bool:
    """Whether things to be counted would stand on a patch of their own colour."""
    return facts.items is not None and rug.color == facts.items.color and rug.z + rug.size > 0.5


def _pick(share: float, words: list[str] | tuple[str, ...]) -> str:
    return words[int(share * len(words))]


def _tone(rng: random.Random, low: float, high: float) -> tuple[float, float, float]:
    """A grey or a pale brown: no colour that is spoken of."""
    level, warm = rng.uniform(low, high), rng.uniform(-0.04, 0.09)
    return (min(1.0, level + warm), level, max(0.0, level - warm))


def _floor(rng: random.Random) -> Floor:
    return Floor(
        pattern=rng.choice(("plain", "checks", "planks", "tiles", "speckles")),
        first=_tone(rng, 0.5, 0.72),
        second=_tone(rng, 0.38, 0.55),
        scale=rng.uniform(0.25, 0.5),
        angle=rng.uniform(0, 90),
    )


def _backdrop(rng: random.Random) -> Backdrop:
    return Backdrop(top=_tone(rng, 0.5, 0.8), bottom=_tone(rng, 0.68, 0.9))
