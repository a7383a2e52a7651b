"""Meshes: outward faces, unit normals, the volumes of geometry books, and which way a turn goes."""

import math

import numpy as np
import pytest

from eyechart.world import shapes
from eyechart.world.shapes import Mesh

TRIANGLE = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.6))

SOLIDS = {
    "box": (shapes.box(1, 2, 3), 6.0),
    "prism": (shapes.prism(TRIANGLE, 0.1), 0.015),
    "prism listed the other way": (shapes.prism(TRIANGLE[::-1], 0.1), 0.015),
    "cylinder": (shapes.cylinder(1, 2), 2 * math.pi),
    "cone": (shapes.cone(1, 3), math.pi),
    "frustum": (shapes.frustum(1, 0.5, 1), math.pi * (1 + 0.5 + 0.25) / 3),
    "ball": (shapes.ball(1), 4 * math.pi / 3),
    "ellipsoid": (shapes.ellipsoid(1, 2, 0.5), 4 * math.pi / 3),
    "dome": (shapes.dome(1, 2), 4 * math.pi / 3),
    "capsule": (shapes.capsule(0.5, 2), math.pi / 4 + math.pi / 6),
    "disc": (shapes.disc(1, 0.2), 0.2 * math.pi),
    "cup": (shapes.cup(1, 1, 1, 0.2), math.pi - 0.64 * math.pi * 0.8),
    "loft": (shapes.loft(TRIANGLE, TRIANGLE, 2), 0.3),
    "torus": (shapes.torus_arc(1, 0.2, 180), math.pi**2 * 0.04 + 4 / 3 * math.pi * 0.008),
    "mirrored": (shapes.box(1, 2, 3).scaled(-1, 1, 1), 6.0),
    "squashed": (shapes.ball(1).scaled(1, 0.5), 2 * math.pi / 3),
    "leaned": (shapes.cylinder(1, 2).leaned(0.5), 2 * math.pi),
    "turned": (shapes.box(1, 2, 3).turned("z", 33), 6.0),
    "joined": (shapes.join([shapes.box(1, 1, 1), shapes.box(1, 1, 1).moved(2)]), 2.0),
}
SHARED = ("cone", "ball", "post", "disc", "fin", "curl")


def corners(mesh: Mesh) -> np.ndarray:
    return mesh.vertices.astype(np.float64)[mesh.faces]


def volume(mesh: Mesh) -> float:
    """By the divergence theorem; positive only when the faces of a closed mesh turn outwards."""
    a, b, c = np.moveaxis(corners(mesh), 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("name", SOLIDS)
def test_volume_is_the_solids_own(name: str) -> None:
    mesh, expected = SOLIDS[name]
    assert volume(mesh) == pytest.approx(expected, rel=0.08)
    assert name not in {"box", "prism", "loft", "mirrored", "joined"} or volume(mesh) == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    "mesh",
    [*(mesh for mesh, _ in SOLIDS.values()), *(getattr(shapes, f"shared_{name}")() for name in SHARED)],
    ids=[*SOLIDS, *SHARED],
)
def test_normals_are_unit_and_point_the_way_the_faces_do(mesh: Mesh) -> None:
    assert mesh.vertices.dtype == mesh.normals.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-5)
    a, b, c = np.moveaxis(corners(mesh), 1, 0)
    across = np.cross(b - a, c - a)
    areas = np.linalg.norm(across, axis=1, keepdims=True)
    assert areas.min() > 1e-8, "a face without area"
    assert ((across / areas)[:, None] * mesh.normals[mesh.faces]).sum(-1).min() > 0.3


@pytest.mark.parametrize("mesh", [mesh for mesh, _ in SOLIDS.values()], ids=SOLIDS)
def test_every_edge_has_two_faces_that_run_along_it_opposite_ways(mesh: Mesh) -> None:
    """After joining the vertices that a sharp edge repeats; so no ray enters and never leaves."""
    _, same = np.unique(np.round(mesh.vertices, 4), axis=0, return_inverse=True)
    faces = same.reshape(-1)[mesh.faces]
    edges = {}
    for first, second in np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]):
        edges[first, second] = edges.get((first, second), 0) + 1
    assert all(edges.get((second, first)) == count for (first, second), count in edges.items())


def test_ball_has_the_balls_own_normals() -> None:
    mesh = shapes.ball(2)
    np.testing.assert_allclose(mesh.normals, mesh.vertices / 2, atol=0.03)


def test_normals_of_a_stretched_and_leaned_plane_stay_across_it() -> None:
    """The plane x + y = 1: what is across it after a linear map follows from two directions within it."""
    mesh = shapes.loft([(1, 0), (0, 0), (0, 1)], [(1, 0), (0, 0), (0, 1)], 1).turned("x", 90)
    for changed in (mesh.scaled(1, 3, 2), mesh.leaned(0.7)):
        for face in changed.faces:
            for corner in face:
                along = changed.vertices[face[1]] - changed.vertices[face[0]]
                assert abs(float(along @ changed.normals[corner])) < 1e-5


@pytest.mark.parametrize(
    ("yaw", "front"),
    [(0, (1, 0, 0)), (180, (-1, 0, 0)), (-90, (0, 0, 1)), (90, (0, 0, -1)), (270, (0, 0, 1))],
)
def test_yaw_turns_the_front_from_the_right_over_the_back_to_the_left(
    yaw: int, front: tuple[int, int, int]
) -> None:
    """An object's front is +x; +z is towards the viewer, x to the viewer's right."""
    tip = shapes.box(0.1, 0.1, 0.1).moved(1, -0.05).turned("y", yaw)
    np.testing.assert_allclose(tip.vertices.mean(axis=0), front, atol=1e-6)


@pytest.mark.parametrize(("axis", "start", "end"), [("x", "y", "z"), ("y", "z", "x"), ("z", "x", "y")])
def test_a_quarter_turn_takes_each_axis_to_the_next(axis: shapes.Axis, start: str, end: str) -> None:
    units = dict(zip("xyz", np.eye(3), strict=True))
    np.testing.assert_allclose(shapes.rotation(axis, 90) @ units[start], units[end], atol=1e-12)


def test_scaling_without_a_factor_uses_the_first() -> None:
    np.testing.assert_allclose(
        shapes.box(1, 1, 1).scaled(2).vertices, shapes.box(2, 2, 2).vertices, atol=1e-6
    )


def test_outlines_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="got 3 and 4"):
        shapes.loft(TRIANGLE, [*TRIANGLE, (0.0, 0.1)], 1)


@pytest.mark.parametrize("name", SHARED)
def test_shared_parts_are_one_object(name: str) -> None:
    part = getattr(shapes, f"shared_{name}")
    assert part() is part()
    width, height, _ = np.ptp(part().vertices, axis=0)
    assert width * height > 0.1, "too small for two patches"
