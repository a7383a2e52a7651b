"""Kinds: what is named is built, what differs can be seen, and what is shared is the same wherever it is used."""

import itertools
import re
from collections.abc import Iterator

import numpy as np
import pytest

from eyechart.core.errors import UserError
from eyechart.world import shapes
from eyechart.world.kinds import KINDS, PARTS, SHARED, part_id
from eyechart.world.kinds.kind import Kind, Look, Piece, pieces_of

TRIANGLES = 1500


def states(kind: Kind) -> tuple[str | None, ...]:
    return kind.state.words if kind.state is not None else (None,)


def looks(kind: Kind) -> Iterator[Look]:
    for state, shape, missing in itertools.product(states(kind), kind.shape.words, (None, *kind.optional)):
        yield Look(state=state, shape=shape, missing=missing)


EVERY_LOOK = [
    pytest.param(kind, look, id=f"{kind.name} {look.state} {look.shape} {look.missing}")
    for kind in KINDS.values()
    for look in looks(kind)
]
EVERY_KIND = [pytest.param(kind, id=kind.name) for kind in KINDS.values()]
SHAPES = ("cone", "ball", "post", "disc", "fin", "curl")
SHARING = [names for pair in SHARED for names in pair]


def signature(pieces: tuple[Piece, ...]) -> list[tuple[str, str, bytes]]:
    return [(piece.part, piece.slot, piece.mesh.vertices.tobytes()) for piece in pieces]


def test_there_are_fourteen_kinds_and_six_shared_parts() -> None:
    assert len(KINDS) == 14
    assert len(SHARED) == 6
    assert len(set(SHARING)) == 12


@pytest.mark.parametrize(("kind", "look"), EVERY_LOOK)
def test_the_parts_built_are_the_parts_named(kind: Kind, look: Look) -> None:
    expected = [part for part in kind.parts if part != look.missing]
    assert {piece.part for piece in pieces_of(kind, look)} == set(expected)


@pytest.mark.parametrize(("kind", "look"), EVERY_LOOK)
def test_geometry_is_sound(kind: Kind, look: Look) -> None:
    """Standing on the floor, in the room that is left for it, light enough to render fast."""
    pieces = pieces_of(kind, look)
    vertices = np.concatenate([piece.mesh.vertices for piece in pieces])
    normals = np.concatenate([piece.mesh.normals for piece in pieces])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert np.isfinite(vertices).all()
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    assert low[1] == pytest.approx(0, abs=0.03)
    assert 0.5 < high[1] <= 1.15
    assert low[0] >= -0.66
    assert high[0] <= 0.66
    assert low[2] >= -0.56
    assert high[2] <= 0.56
    assert sum(len(piece.mesh.faces) for piece in pieces) <= TRIANGLES


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_words_are_single_and_choices_are_of_named_parts(kind: Kind) -> None:
    choices = [choice for choice in (kind.state, kind.shape) if choice is not None]
    for word in (kind.name, *kind.parts, *(word for choice in choices for word in choice.words)):
        assert re.fullmatch("[a-z]+", word), word
    assert 3 <= len(kind.parts) <= 7
    assert len(set(kind.parts)) == len(kind.parts)
    assert kind.optional
    assert set(kind.optional) < set(kind.parts)
    for choice in choices:
        assert choice.part is None or choice.part in kind.parts
        assert choice.words[0] != choice.words[1]
    used = [word for choice in choices for word in choice.words]
    assert len(set(used)) == len(used), "one word for two facts"


def test_most_kinds_have_states() -> None:
    assert sum(kind.state is not None for kind in KINDS.values()) >= 11


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_states_and_shapes_change_what_is_built(kind: Kind) -> None:
    built = [signature(pieces_of(kind, look)) for look in looks(kind)]
    assert all(first != second for first, second in itertools.combinations(built, 2))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_missing_part_leaves_the_others_as_they_are(kind: Kind) -> None:
    for look in looks(kind):
        whole = pieces_of(kind, Look(state=look.state, shape=look.shape))
        rest = [piece for piece in whole if piece.part != look.missing]
        assert signature(pieces_of(kind, look)) == signature(tuple(rest))


SHARED_MESHES = dict(zip(SHARED, (getattr(shapes, f"shared_{name}")() for name in SHAPES), strict=True))


@pytest.mark.parametrize("pair", SHARED, ids=SHAPES)
def test_shared_parts_are_copies_of_one_mesh_in_one_paint(
    pair: tuple[tuple[str, str], tuple[str, str]],
) -> None:
    """Moved, never turned or scaled; a part of two such copies (ears) may be one piece."""
    mesh = SHARED_MESHES[pair]
    for name, part in pair:
        built = (pieces_of(KINDS[name], look) for look in looks(KINDS[name]))
        pieces = [piece for piece in itertools.chain.from_iterable(built) if piece.part == part]
        assert pieces
        for piece in pieces:
            assert piece.slot == "accent"
            copies = len(piece.mesh.vertices) // len(mesh.vertices)
            faces = [mesh.faces + copy * len(mesh.vertices) for copy in range(copies)]
            np.testing.assert_array_equal(piece.mesh.faces, np.concatenate(faces))
            np.testing.assert_array_equal(piece.mesh.normals, np.tile(mesh.normals, (copies, 1)))
            for vertices in np.split(piece.mesh.vertices, copies):
                moved = vertices - mesh.vertices
                np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-6)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_an_object_shows_its_own_colour_and_when_whole_its_other_colour(kind: Kind) -> None:
    for look in looks(kind):
        slots = {piece.slot for piece in pieces_of(kind, look)}
        assert "main" in slots
        assert "accent" in slots or look.missing is not None


def test_ids_count_from_one_and_lead_back_to_names() -> None:
    assert [part_id(*names) for names in PARTS] == list(range(1, len(PARTS) + 1))
    assert len(set(PARTS)) == len(PARTS) < 200
    assert {(kind.name, part) for kind in KINDS.values() for part in kind.parts} < set(PARTS)


def test_a_part_that_is_not_there_is_named_in_the_error() -> None:
    with pytest.raises(UserError, match="car tail"):
        part_id("car", "tail")
