"""The kinds of object of the world, and the number of each of their parts in the maps of parts."""

from collections.abc import Mapping
from types import MappingProxyType

from eyechart.core.errors import unknown
from eyechart.world.facts import ITEMS
from eyechart.world.kinds.creatures import CREATURES
from eyechart.world.kinds.kind import Kind
from eyechart.world.kinds.things import THINGS

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in (*THINGS, *CREATURES)})
"""Every kind by its name."""

SHARED: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = (
    (("house", "roof"), ("rocket", "nose")),
    (("tree", "crown"), ("snowman", "head")),
    (("lamp", "pole"), ("mushroom", "stem")),
    (("snail", "shell"), ("flower", "center")),
    (("boat", "sail"), ("fish", "fin")),
    (("mug", "handle"), ("cat", "tail")),
)
"""Pairs of (kind, part) with one mesh and one paint: only what stands around it tells one from the other."""

PARTS: tuple[tuple[str, str], ...] = (
    *((kind.name, part) for kind in KINDS.values() for part in kind.parts),
    *((noun, noun) for noun in ITEMS),
    ("sign", "post"),
    ("sign", "board"),
    ("sign", "letter"),
    ("rug", "disc"),
    ("rug", "square"),
    ("rug", "ring"),
)
"""What a map of parts can show, as (owner, part); what has one part only lends it its name."""

_IDS = {names: index for index, names in enumerate(PARTS, start=1)}


def part_id(kind: str, part: str) -> int:
    """The number of a part in a map of parts: its place in `PARTS`, from 1; 0 is the background.

    Raises:
        UserError: there is no such part.
    """
    if (kind, part) not in _IDS:
        raise unknown("part", f"{kind} {part}", [" ".join(names) for names in PARTS])
    return _IDS[kind, part]
