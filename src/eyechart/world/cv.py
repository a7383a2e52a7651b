"""Questions in the shape of CV-Bench about a scene in space: how many, on which side, which is nearer, what lies closer to what.

The four tasks are those of CV-Bench (Tong et al. 2024, Cambrian-1, section 3): count, relation, depth, distance. Where
things are comes from the scene, what is seen of them from the rendered maps; what a person could hesitate over is not
asked.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from eyechart.world.facts import COLORS
from eyechart.world.render import Rendered
from eyechart.world.scene import Scene
from eyechart.world.words import NUMBERS, plural

Task = Literal["count", "relation", "depth", "distance"]
Role = Literal["thing", "item", "sign", "rug"]

SEEN = 0.004
"""Share of the picture that must show a thing for it to be asked of."""

APART = 0.15
"""How far apart, in widths of the picture, two things must be seen for one to be left of the other."""

DEEPER = 0.3
"""How much farther from the camera, in world units, the one of two things must be."""

FARTHER = 1.5
"""How many times as far from the third the one of two things must be."""

MOST = 4
"""The largest number of things to count."""

_SIGN, _RUGS = 200, 201

_TEXTS: dict[Task, tuple[str, ...]] = {
    "count": ("How many {k} are in the picture?", "How many {k} are there in the image?"),
    "relation": (
        "Where is the {k} in the picture: to the left or to the right of the {o}?",
        "In the image, is the {k} to the left or to the right of the {o}?",
    ),
    "depth": (
        "Which is closer to the camera: the {x} or the {y}?",
        "In this picture, is the {x} or the {y} closer to the camera?",
    ),
    "distance": (
        "Which is closer to the {k}: the {x} or the {y}?",
        "Is the {x} or the {y} closer to the {k}?",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CVQuestion:
    """A question with two to four options, one of them right."""

    task: Task
    text: str
    options: tuple[str, ...]
    answer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A thing that has a name of its own and is seen well enough to be asked of."""

    name: str
    x: float
    z: float
    """Where it stands on the floor."""

    across: float
    """The middle of what is seen of it, in widths of the picture."""

    depth: float
    """The median depth of what is seen of it."""

    role: Role
    """What a thing may be asked of: depth and distance only of objects, since items always lie in front, rugs of nothing."""


def cv_questions(scene: Scene, rendered: Rendered, rng: random.Random) -> list[CVQuestion]:
    """The questions that can be asked of a scene without ambiguity, at most one of each task; options in random order.

    Args:
        scene: what was rendered.
        rendered: its picture and maps, at any size.
        rng: decides what is asked of what, in which words and order.
    """
    seen = list(_seen(scene, rendered))
    found = (
        _count(scene, rendered, rng),
        _relation(seen, rng),
        _depth(scene, seen, rng),
        _distance(seen, rng),
    )
    return [question for question in found if question is not None]


def _seen(scene: Scene, rendered: Rendered) -> Iterator[_Seen]:
    for index, role, name, x, z in _named(scene):
        mask = rendered.objects == index
        if mask.mean() >= SEEN:
            depth = float(np.median(rendered.depth[mask]))
            yield _Seen(name=name, x=x, z=z, across=_middle(mask), depth=depth, role=role)


def _named(scene: Scene) -> Iterator[tuple[int, Role, str, float, float]]:
    """What has a name that means it alone: its number in the map of objects, role, name and place."""
    for index, thing in enumerate(scene.things, start=1):
        yield index, "thing", thing.kind, thing.x, thing.z
    if len(scene.items) == 1:
        yield 3, "item", scene.items[0].noun, scene.items[0].x, scene.items[0].z
    if scene.sign is not None:
        yield _SIGN, "sign", "sign", scene.sign.x, scene.sign.z
    colors = Counter(rug.color for rug in scene.rugs)
    for index, rug in enumerate(scene.rugs):
        if rug.color in COLORS and colors[rug.color] == 1:
            yield _RUGS + index, "rug", f"{rug.color} rug", rug.x, rug.z


def _middle(mask: Bool[ndarray, "row column"]) -> float:
    columns = np.flatnonzero(mask.any(axis=0))
    return float((columns[0] + columns[-1] + 1) / (2 * mask.shape[1]))


def _count(scene: Scene, rendered: Rendered, rng: random.Random) -> CVQuestion | None:
    """Every set of two to four numbers that holds the right one is as likely, so that the set tells nothing."""
    number = len(scene.items)
    if not number or any((rendered.objects == 3 + index).mean() < SEEN for index in range(number)):
        return None
    others = [n for n in range(1, MOST + 1) if n != number]
    numbers = sorted([number, *rng.sample(others, rng.randint(1, len(others)))])
    text = rng.choice(_TEXTS["count"]).format(k=plural(scene.items[0].noun))
    return CVQuestion(
        task="count",
        text=text,
        options=tuple(NUMBERS[n - 1] for n in numbers),
        answer=numbers.index(number),
    )


def _relation(seen: list[_Seen], rng: random.Random) -> CVQuestion | None:
    pairs = [
        (one, two)
        for one, two in permutations([each for each in seen if each.role != "rug"], 2)
        if abs(one.across - two.across) >= APART and (one.across < two.across) == (one.x < two.x)
    ]
    if not pairs:
        return None
    one, two = rng.choice(pairs)
    right, wrong = ("left", "right") if one.across < two.across else ("right", "left")
    text = rng.choice(_TEXTS["relation"]).format(k=one.name, o=two.name)
    return _two_options("relation", text, right, wrong, rng)


def _depth(scene: Scene, seen: list[_Seen], rng: random.Random) -> CVQuestion | None:
    """Nearer both by what is seen and by where it stands."""
    pairs = [
        (near, far)
        for near, far in permutations([each for each in seen if each.role == "thing"], 2)
        if far.depth - near.depth >= DEEPER and _from_camera(scene, far) - _from_camera(scene, near) >= DEEPER
    ]
    return _which("depth", "", rng.choice(pairs), rng) if pairs else None


def _from_camera(scene: Scene, thing: _Seen) -> float:
    x, _, z = scene.camera.eye
    return math.hypot(thing.x - x, thing.z - z)


def _distance(seen: list[_Seen], rng: random.Random) -> CVQuestion | None:
    """Between the places where things stand, measured from anything; of sign and main object one is nearer too often."""
    threes = [
        (third, near, far)
        for third in seen
        for near, far in permutations(
            [each for each in seen if each is not third and each.role == "thing"], 2
        )
        if _between(third, far) >= FARTHER * _between(third, near) and _between(third, far) >= DEEPER
    ]
    if not threes:
        return None
    third, near, far = rng.choice(threes)
    return _which("distance", third.name, (near, far), rng)


def _between(one: _Seen, two: _Seen) -> float:
    return math.hypot(one.x - two.x, one.z - two.z)


def _which(task: Task, third: str, pair: tuple[_Seen, _Seen], rng: random.Random) -> CVQuestion:
    named = sorted(each.name for each in pair)
    rng.shuffle(named)
    text = rng.choice(_TEXTS[task]).format(k=third, x=named[0], y=named[1])
    return _two_options(task, text, pair[0].name, pair[1].name, rng)


def _two_options(task: Task, text: str, right: str, wrong: str, rng: random.Random) -> CVQuestion:
    options = (right, wrong) if rng.random() < 0.5 else (wrong, right)
    return CVQuestion(task=task, text=text, options=options, answer=options.index(right))
