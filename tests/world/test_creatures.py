"""Creatures: every look is built whole, each part is large enough to be seen, and each word changes what is seen."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import get_args

import numpy as np
import pytest
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from eyechart.world import shapes
from eyechart.world.kinds import creatures
from eyechart.world.kinds.creatures import CREATURES
from eyechart.world.kinds.kind import Choice, Kind, Look, Slot, pieces_of

SIZE, PATCH = 96, 12
SEEN = 2 * PATCH * PATCH
TURN = {"right": 0.0, "left": 180.0, "front": -90.0, "back": 90.0}
SHARED = {
    "snowman": ("head", shapes.shared_ball, 1),
    "mushroom": ("stem", shapes.shared_post, 1),
    "snail": ("shell", shapes.shared_disc, 1),
    "fish": ("fin", shapes.shared_fin, 1),
    "cat": ("tail", shapes.shared_curl, 1),
    "flower": ("center", shapes.shared_disc, 1),
}
BY_NAME = {kind.name: kind for kind in CREATURES}

every_kind = pytest.mark.parametrize("kind", CREATURES, ids=lambda kind: kind.name)
with_front = pytest.mark.parametrize(
    "kind", [kind for kind in CREATURES if kind.has_front], ids=lambda kind: kind.name
)


def looks(kind: Kind, *, whole: bool = False) -> Iterator[Look]:
    """Every look of a kind; only those that lack nothing where `whole`."""
    for state in kind.state.words if kind.state is not None else (None,):
        for shape in kind.shape.words:
            for missing in (None,) if whole else (None, *kind.optional):
                yield Look(state=state, shape=shape, missing=missing)


@lru_cache(maxsize=512)
def seen(name: str, look: Look, facing: str) -> tuple[np.ndarray, np.ndarray]:
    """What a camera 14 degrees up sees of an object alone: the index of a piece in each pixel (-1: none), and normals.

    A slow plain way, apart from the renderer's: one ray a pixel, one flat normal a triangle.
    """
    pieces = pieces_of(BY_NAME[name], look)
    turned = [piece.mesh.turned("y", TURN[facing]) for piece in pieces]
    corners = np.concatenate([mesh.vertices[mesh.faces] for mesh in turned])
    owner = np.repeat(np.arange(len(pieces)), [len(mesh.faces) for mesh in turned])
    lift = math.radians(14)
    away = np.array([0, math.sin(lift), math.cos(lift)])
    eye = np.array([0, 0.45, 0]) + 2.45 * away
    across = (2 * (np.arange(SIZE) + 0.5) / SIZE - 1) * math.tan(math.radians(17.5))
    up = np.cross(away, [1, 0, 0])
    rays = -away + across[None, :, None] * np.array([1.0, 0, 0]) - across[:, None, None] * up
    directions = rays.reshape(-1, 3).astype(np.float32)
    origins = np.broadcast_to(eye.astype(np.float32), directions.shape).copy()
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(corners, dtype=np.float32))
    hit = scene.run(origins, directions)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    found = np.where(hit < 0, -1, owner[hit])
    return found.reshape(SIZE, SIZE), np.where(hit[:, None] < 0, 0, normals[hit]).reshape(SIZE, SIZE, 3)


def slots_seen(name: str, look: Look, facing: str) -> np.ndarray:
    """The paint in each pixel, "" for none."""
    slots = np.array([piece.slot for piece in pieces_of(BY_NAME[name], look)] + [""])
    return slots[seen(name, look, facing)[0]]


def parts_seen(name: str, look: Look, facing: str) -> np.ndarray:
    """The part's name in each pixel, "" for none."""
    parts = np.array([piece.part for piece in pieces_of(BY_NAME[name], look)] + [""])
    return parts[seen(name, look, facing)[0]]


def changed(name: str, first: Look, second: Look, facing: str) -> int:
    """Pixels whose paint differs, or whose surface turns by more than 30 degrees and so is lit otherwise."""
    paint = slots_seen(name, first, facing) != slots_seen(name, second, facing)
    turns = (seen(name, first, facing)[1] * seen(name, second, facing)[1]).sum(axis=-1)
    solid = (seen(name, first, facing)[0] >= 0) & (seen(name, second, facing)[0] >= 0)
    return int((paint | (solid & (turns < math.cos(math.radians(30))))).sum())


def otherwise(choice: Choice, word: str | None) -> str:
    return choice.words[1] if word == choice.words[0] else choice.words[0]


def test_there_are_seven_kinds_in_their_order():
    assert [kind.name for kind in CREATURES if kind.name != "rabbit"] == list(SHARED)
    assert len(CREATURES) == 7


@every_kind
def test_words_are_plain_and_told_apart(kind):
    assert 3 <= len(set(kind.parts)) == len(kind.parts) <= 7
    assert set() < set(kind.optional) < set(kind.parts)
    choices = [choice for choice in (kind.state, kind.shape) if choice is not None]
    words = [kind.name, *kind.parts, *(word for choice in choices for word in choice.words)]
    assert all(re.fullmatch("[a-z]+", word) for word in words)
    for choice in choices:
        assert len(set(choice.words)) == 2
        assert choice.part is None or choice.part in kind.parts
        assert choice.part not in kind.optional, "what is said of a part needs the part"


def test_no_word_is_a_state_here_and_a_shape_there():
    states = {word for kind in CREATURES if kind.state is not None for word in kind.state.words}
    assert not states & {word for kind in CREATURES for word in kind.shape.words}


@every_kind
def test_every_look_has_all_its_parts_and_only_those(kind):
    for look in looks(kind):
        pieces = pieces_of(kind, look)
        assert {piece.part for piece in pieces} == set(kind.parts) - {look.missing}
        assert {piece.slot for piece in pieces} <= set(get_args(Slot))
        whole = pieces_of(kind, replace(look, missing=None))
        kept = [piece for piece in whole if piece.part != look.missing]
        assert [piece.part for piece in pieces] == [piece.part for piece in kept]
        for piece, same in zip(pieces, kept, strict=True):
            np.testing.assert_array_equal(piece.mesh.vertices, same.mesh.vertices)


@every_kind
def test_meshes_stand_on_the_floor_within_bounds_and_budget(kind):
    for look in looks(kind, whole=True):
        meshes = [piece.mesh for piece in pieces_of(kind, look)]
        points = np.concatenate([mesh.vertices[mesh.faces].reshape(-1, 3) for mesh in meshes])
        assert np.isfinite(points).all()
        assert points[:, 1].min() == pytest.approx(0, abs=0.005)
        assert 0.6 < points[:, 1].max() <= 1.12
        assert (np.abs(points).max(axis=0)[[0, 2]] <= (0.66, 0.5)).all()
        assert sum(len(mesh.faces) for mesh in meshes) <= 1500


@every_kind
def test_surfaces_face_outwards(kind):
    """Faces agree with the normals of their corners, and what they enclose has a positive volume."""
    for look in looks(kind, whole=True):
        for piece in pieces_of(kind, look):
            np.testing.assert_allclose(np.linalg.norm(piece.mesh.normals, axis=1), 1, atol=1e-4)
            corners = piece.mesh.vertices[piece.mesh.faces]
            flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            smooth = piece.mesh.normals[piece.mesh.faces].sum(axis=1)
            real = np.linalg.norm(flat, axis=1) > 1e-6
            assert ((flat * smooth).sum(axis=1)[real] > 0).all(), (kind.name, look, piece.part)
            if (piece.part, piece.slot) != ("cap", "main"):  # a cut cap is closed by the faces of its cut
                volume = (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() / 6
                assert volume > 0, (kind.name, look, piece.part)


@every_kind
@pytest.mark.parametrize("facing", ["right", "left"])
def test_every_part_covers_two_patches(kind, facing):
    for look in looks(kind):
        parts = parts_seen(kind.name, look, facing)
        for part in set(kind.parts) - {look.missing}:
            assert (parts == part).sum() >= SEEN, (look, part)
        assert look.missing is None or look.missing not in parts


@every_kind
@pytest.mark.parametrize("facing", ["right", "left"])
def test_the_main_paint_is_what_is_seen_most(kind, facing):
    for look in looks(kind, whole=True):
        slots = slots_seen(kind.name, look, facing)
        share = {slot: int((slots == slot).sum()) for slot in set(get_args(Slot))}
        assert max(share, key=lambda slot: share[slot]) == "main", (look, share)


@every_kind
def test_the_object_fills_a_good_part_of_the_picture(kind):
    for look in looks(kind, whole=True):
        rows, columns = np.nonzero(seen(kind.name, look, "right")[0] >= 0)
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 0.55 * SIZE <= extent <= 0.9 * SIZE, (look, extent)
        assert min(*rows, *columns) > 0
        assert max(*rows, *columns) < SIZE - 1


@every_kind
@pytest.mark.parametrize("facing", ["right", "left"])
def test_state_shape_and_missing_part_change_two_patches(kind, facing):
    for look in looks(kind):
        other = replace(look, shape=otherwise(kind.shape, look.shape))
        assert changed(kind.name, look, other, facing) >= SEEN, (look, other)
        if kind.state is not None:
            other = replace(look, state=otherwise(kind.state, look.state))
            assert changed(kind.name, look, other, facing) >= SEEN, (look, other)
        if look.missing is not None:
            assert changed(kind.name, look, replace(look, missing=None), facing) >= SEEN, look


@with_front
@pytest.mark.parametrize("facing", ["front", "back"])
def test_from_front_and_back_every_difference_still_shows(kind, facing):
    for look in looks(kind, whole=True):
        for part in kind.optional:
            assert changed(kind.name, look, replace(look, missing=part), facing) >= SEEN // 4, (look, part)
        for field in ("state", "shape"):
            other = replace(look, **{field: otherwise(getattr(kind, field), getattr(look, field))})
            assert changed(kind.name, look, other, facing) >= SEEN // 4, (look, other)


@pytest.mark.parametrize("name", SHARED)
def test_shared_parts_are_only_moved(name):
    kind = BY_NAME[name]
    part, source, copies = SHARED[name]
    mesh = source()
    for look in looks(kind):
        pieces = [piece for piece in pieces_of(kind, look) if piece.part == part]
        if look.missing == part:
            assert not pieces
            continue
        (piece,) = pieces
        assert piece.slot == "accent"
        assert len(piece.mesh.vertices) == copies * len(mesh.vertices)
        for index in range(copies):
            rows = slice(index * len(mesh.vertices), (index + 1) * len(mesh.vertices))
            offset = piece.mesh.vertices[rows] - mesh.vertices
            np.testing.assert_allclose(offset, np.broadcast_to(offset[0], offset.shape), atol=1e-6)
            np.testing.assert_array_equal(piece.mesh.normals[rows], mesh.normals)


@with_front
def test_a_head_leads_where_the_object_faces(kind):
    """Yaw 0 faces the right of the picture, 180 its left, and -90 the viewer."""
    for look in looks(kind, whole=True):
        faced = "head" if "head" in kind.parts else "body"
        for facing, sign in (("right", 1), ("left", -1)):
            parts = parts_seen(kind.name, look, facing)
            lead = np.nonzero(parts == faced)[1].mean() - np.nonzero(parts != "")[1].mean()
            assert sign * lead > 2, (look, facing)
        heads = [piece.mesh for piece in pieces_of(kind, look) if piece.part == faced]
        rest = [piece.mesh for piece in pieces_of(kind, look) if piece.part != faced]
        toward = [np.concatenate([m.turned("y", -90).vertices for m in some])[:, 2] for some in (heads, rest)]
        assert toward[0].mean() > toward[1].mean()


@pytest.mark.parametrize("name", ["snowman", "mushroom", "flower"])
def test_kinds_without_a_front_show_the_same_from_left_and_right(name):
    """A half turn shows what was behind: as much of every part, within a tenth of it."""
    kind = BY_NAME[name]
    assert not kind.has_front
    for look in looks(kind, whole=True):
        for part in kind.parts:
            right, left = (
                int((parts_seen(name, look, facing) == part).sum()) for facing in ("right", "left")
            )
            assert right == pytest.approx(left, rel=0.1), (look, part)


def test_a_spot_off_the_cap_is_a_bug_that_says_where():
    with pytest.raises(ValueError, match=r"no point at 1\.5 of its height"):
        creatures._on_profile([(0.4, 0), (0, 0.6)], 1.5, shapes.ball(0.1))
