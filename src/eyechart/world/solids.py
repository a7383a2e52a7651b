"""The solid things of a scene as one heap of triangles, each triangle knowing its object, part and paint."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8
from numpy import ndarray

from eyechart.world.kinds import KINDS, PARTS, SHARED, part_id
from eyechart.world.kinds.kind import Look, pieces_of
from eyechart.world.paints import SHINE, SHINY, paint
from eyechart.world.scene import Item, Scene, Sign, Thing
from eyechart.world.shapes import Mesh, ball, box, ellipsoid

SIGN, RUG, ITEM = 200, 201, 3
"""Ids in the map of objects: the sign, the first rug, the first item (1 and 2 are the things)."""

BOARD = 1.5
"""Side of a sign's board, in heights of its letter."""

_UNSHADED = np.array([False, *(names in {name for pair in SHARED for name in pair} for names in PARTS)])

THICK = 0.16
"""Thickness of a sign's board, in heights of its letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solids:
    """Triangles in world space; every array but `vertices` has one row for each triangle."""

    vertices: Float32[ndarray, "vertex 3"]
    faces: Int[ndarray, "face 3"]
    normals: Float32[ndarray, "face 3 3"]
    """Unit normals of the three corners."""

    parts: UInt8[ndarray, " face"]
    objects: UInt8[ndarray, " face"]
    colors: Float32[ndarray, "face 3"]
    """Linear light."""

    shine: Float32[ndarray, " face"]
    """Strength of the highlight."""

    glow: Float32[ndarray, " face"]
    """Share of its colour that a paint gives off by itself."""

    unshaded: Bool[ndarray, " face"]
    """Whether no shadow falls on it: on shared parts, whose shade would tell what they are a part of."""

    spans: tuple[tuple[int, int], ...]
    """First vertex of each object and the one after its last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Pieces joined in their own frame: geometry, and part and paint of each triangle."""

    vertices: Float32[ndarray, "vertex 3"]
    faces: Int[ndarray, "face 3"]
    normals: Float32[ndarray, "face 3 3"]
    parts: UInt8[ndarray, " face"]
    slots: Int[ndarray, " face"]
    """Index into `names`."""

    names: tuple[str, ...]


def solids_of(scene: Scene) -> Solids:
    """All triangles of the scene: the things, the items and the sign. Floor, rugs and backdrop are no triangles."""
    placed = [_thing(thing, index + 1) for index, thing in enumerate(scene.things)]
    placed += [_item(item, ITEM + index) for index, item in enumerate(scene.items)]
    if scene.sign is not None:
        placed.append(_sign(scene.sign))
    starts = [0, *itertools.accumulate(len(one.vertices) for one in placed)]
    return Solids(
        vertices=np.concatenate([one.vertices for one in placed]),
        faces=np.concatenate([one.faces + start for one, start in zip(placed, starts, strict=False)]).astype(
            np.int32
        ),
        normals=np.concatenate([one.normals for one in placed]),
        parts=np.concatenate([one.parts for one in placed]),
        objects=np.concatenate([one.objects for one in placed]),
        colors=np.concatenate([one.colors for one in placed]),
        shine=np.concatenate([one.shine for one in placed]),
        glow=np.concatenate([one.glow for one in placed]),
        unshaded=np.concatenate([one.unshaded for one in placed]),
        spans=tuple(itertools.pairwise(starts)),
    )


def turn(yaw: float) -> Float32[ndarray, "3 3"]:
    """The matrix of a turn about y by degrees: +90 takes +x to -z (away from the viewer), -90 takes +x to +z."""
    angle = math.radians(yaw)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=np.float32)


def sign_frame(sign: Sign) -> tuple[Float32[ndarray, " 3"], Float32[ndarray, "3 3"]]:
    """The middle of the board's front face, and the axes (right, up, out) of that face as rows."""
    axes = turn(sign.yaw).T
    middle = np.array([sign.x, _board_middle(sign), sign.z], dtype=np.float32)
    return middle + axes[2] * np.float32(THICK * sign.height / 2), axes


def _board_middle(sign: Sign) -> float:
    return (0.3 + BOARD / 2) * sign.height


def _thing(thing: Thing, number: int) -> Solids:
    block = _built(thing.kind, thing.look)
    paints = {"main": thing.color, "accent": thing.accent}
    shine = SHINY if thing.material == "shiny" else 0.0
    names = tuple(paints.get(name, name) for name in block.names)
    shines = tuple(shine if name in paints else SHINE.get(name, 0.0) for name in block.names)
    return _placed(block, number, names, shines, x=thing.x, z=thing.z, yaw=thing.yaw, scale=thing.scale)


def _item(item: Item, number: int) -> Solids:
    return _placed(
        _item_block(item.noun),
        number,
        (item.color,),
        (0.0,),
        x=item.x,
        z=item.z,
        yaw=item.yaw,
        scale=item.radius,
    )


def _sign(sign: Sign) -> Solids:
    block = _sign_block()
    return _placed(block, SIGN, block.names, (0.0, 0.0), x=sign.x, z=sign.z, yaw=sign.yaw, scale=sign.height)


def _placed(
    block: _Block,
    number: int,
    names: tuple[str, ...],
    shines: tuple[float, ...],
    *,
    x: float,
    z: float,
    yaw: float,
    scale: float,
) -> Solids:
    matrix = turn(yaw).T
    table = np.stack([paint(name) for name in names])
    glow = np.array([0.75 if name == "glow" else 0.0 for name in names], dtype=np.float32)
    return Solids(
        vertices=_rotated(block.vertices, matrix) * np.float32(scale) + np.array([x, 0, z], dtype=np.float32),
        faces=block.faces,
        normals=_rotated(block.normals, matrix),
        parts=block.parts,
        objects=np.full(len(block.faces), number, dtype=np.uint8),
        colors=table[block.slots],
        shine=np.array(shines, dtype=np.float32)[block.slots],
        glow=glow[block.slots],
        unshaded=_UNSHADED[block.parts],
        spans=((0, len(block.vertices)),),
    )


def _rotated(
    vectors: Float32[ndarray, "*shape 3"], matrix: Float32[ndarray, "3 3"]
) -> Float32[ndarray, "*shape 3"]:
    """Row vectors times a turn about y, term by term: no library product, whose rounding differs by machine."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack([x * matrix[0, 0] + z * matrix[2, 0], y, x * matrix[0, 2] + z * matrix[2, 2]], axis=-1)


@lru_cache(maxsize=512)
def _built(kind: str, look: Look) -> _Block:
    return _block(
        (part_id(kind, piece.part), piece.mesh, piece.slot) for piece in pieces_of(KINDS[kind], look)
    )


@lru_cache(maxsize=8)
def _item_block(noun: str) -> _Block:
    """An item of radius 1 resting on the floor."""
    meshes = {
        "ball": ball(1.0).moved(y=1.0),
        "cube": box(1.7, 1.7, 1.7),
        "egg": ellipsoid(0.85, 1.2, 0.85).moved(y=1.2),
    }
    return _block([(part_id(noun, noun), meshes[noun], "item")])


@lru_cache(maxsize=1)
def _sign_block() -> _Block:
    """A sign whose letter is one unit high, facing +z."""
    post, board = box(0.16, 0.5, 0.12), box(BOARD, BOARD, THICK)
    return _block(
        [
            (part_id("sign", "post"), post, "wood"),
            (part_id("sign", "board"), board.moved(y=0.3), "light"),
        ]
    )


def _block(pieces: Iterable[tuple[int, Mesh, str]]) -> _Block:
    parts, meshes, slots = zip(*pieces, strict=True)
    names = tuple(dict.fromkeys(slots))
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    counts = [len(mesh.faces) for mesh in meshes]
    return _Block(
        vertices=np.concatenate([mesh.vertices for mesh in meshes]).astype(np.float32),
        faces=np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]),
        normals=np.concatenate([mesh.normals[mesh.faces] for mesh in meshes]).astype(np.float32),
        parts=np.repeat(np.array(parts, dtype=np.uint8), counts),
        slots=np.repeat([names.index(slot) for slot in slots], counts),
        names=names,
    )
