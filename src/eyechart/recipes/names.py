"""Single regions of a picture and what they are called: what makes a projector's patches say words.

A region is some of the patches that show one part of one object, a thing, a rug or the sign; it is shown without the
rest of its picture, and its name follows at once, as captions do in the first stage of LLaVA ("plain", in its code).
Patches of bare floor are shown, too, and followed by `no`: what shows nothing should not say a part's name either.
Captions of whole pictures do not do this, nor does asking for the name (docs/studies/zoo.md).
"""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.train.packs import Example
from eyechart.world.kinds import KINDS, PARTS
from eyechart.world.sets import SceneSet

FLOOR = "no"
"""What follows where there is nothing."""

COVERED, BARE = 0.5, 0.9
"""So much of a patch is covered by what it shows; so much of a patch of floor is bare."""

LARGEST = 6
"""Patches of a region at most."""

COMMONEST = 6
"""No name comes more often than once in so many."""


def names() -> list[str]:
    """All names that a region can have: of parts, of things that have none, and of the floor."""
    return [*sorted(set(_named().values())), FLOOR]


def _named() -> Mapping[int, str]:
    """The name of each number in a map of parts: the part's, or that of the thing if it is none of the objects."""
    return {number: part if owner in KINDS else owner for number, (owner, part) in enumerate(PARTS, start=1)}


def name_map(parts: UInt8[ndarray, "side side"], grid: int) -> Int[ndarray, " patch"]:
    """The name of each patch as its place in `names`, -1 where several things share it.

    Raises:
        ValueError: the picture does not fall into whole patches.
    """
    side, rest = divmod(len(parts), grid)
    if rest:
        raise ValueError(f"a picture of {len(parts)} pixels does not fall into {grid} x {grid} whole patches")
    known = names()
    place = np.zeros(len(PARTS) + 1, np.int64)
    place[0] = len(known) - 1
    for number, name in _named().items():
        place[number] = known.index(name)
    found = place[parts].reshape(grid, side, grid, side).transpose(0, 2, 1, 3).reshape(grid * grid, -1)
    shares = np.stack([(found == each).mean(axis=1) for each in range(len(known))], axis=1)
    first = shares.argmax(axis=1)
    enough = np.where(first == len(known) - 1, BARE, COVERED)
    return np.where(shares.max(axis=1) >= enough, first, -1)


def namings(scenes: SceneSet, count: int, *, grid: int, seed: int = 0, weight: float = 1.0) -> list[Example]:
    """So many regions with their names, drawn as often as they are there but none above one in `COMMONEST`.

    Args:
        scenes: a set with maps; its pictures are the first of those whose features are read.
        grid: patches on a side.
        weight: of each name's tokens.

    Raises:
        UserError: the set was rendered without maps.
    """
    if scenes.parts is None:
        raise UserError(f"{scenes.folder} has no maps of parts; render it with maps")
    rng, known = random.Random(f"names {seed}"), names()
    regions: dict[int, list[tuple[int, list[int]]]] = {}
    for picture in range(len(scenes.scenes)):
        found = name_map(np.asarray(scenes.parts[picture]), grid)
        for name in np.unique(found[found >= 0]).tolist():
            regions.setdefault(name, []).append((picture, np.flatnonzero(found == name).tolist()))
    there = sorted(regions)
    numbers = [len(regions[name]) for name in there]
    shares = [min(number, sum(numbers) / COMMONEST) for number in numbers]
    return [
        _shown(*rng.choice(regions[name]), known[name], rng, weight)
        for name in rng.choices(there, shares, k=count)
    ]


def _shown(picture: int, patches: Sequence[int], name: str, rng: random.Random, weight: float) -> Example:
    shown = rng.sample(list(patches), min(LARGEST, rng.randint(1, len(patches))))
    return Example(picture=picture, text=None, answer=name, weight=weight, patches=tuple(sorted(shown)))
