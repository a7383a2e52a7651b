"""Meshes of simple solids, and the parts that two kinds of object share under different names.

Right-handed, y up. Lengths are in units of an object's height. Round surfaces carry smooth normals and edges sharper
than `CREASE` degrees stay sharp, so a mesh repeats its vertices along them. Every face turns its outside
anticlockwise. A solid stands on y = 0 with its axis at x = z = 0 unless its docstring says that it is centred.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int32

Axis: TypeAlias = Literal["x", "y", "z"]
Number: TypeAlias = float | int
Points: TypeAlias = Sequence[tuple[Number, Number]]
Grid: TypeAlias = npt.NDArray[np.float64]

SEGMENTS = 16
"""Sides of a round solid."""

CREASE = 50.0
"""Faces of a profile that meet at a larger angle, in degrees, keep a sharp edge."""


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """Triangles with a unit normal at each vertex; two meshes are equal only when they are the same object."""

    vertices: Float32[np.ndarray, "v 3"]
    faces: Int32[np.ndarray, "f 3"]
    normals: Float32[np.ndarray, "v 3"]

    def moved(self, x: Number = 0, y: Number = 0, z: Number = 0) -> "Mesh":
        """The same mesh elsewhere."""
        offset = np.array([x, y, z], dtype=np.float32)
        return Mesh(self.vertices + offset, self.faces, self.normals)

    def turned(self, axis: Axis, degrees: Number) -> "Mesh":
        """Turned about an axis through the origin, by the right hand: about y, 90 degrees take +x to -z."""
        turn = rotation(axis, degrees).T
        return _mesh(self.vertices @ turn, self.faces, self.normals @ turn)

    def scaled(self, sx: Number, sy: Number | None = None, sz: Number | None = None) -> "Mesh":
        """Stretched from the origin; `sy` and `sz` are `sx` where they are not given. Negative factors mirror."""
        factors = np.array([sx, sx if sy is None else sy, sx if sz is None else sz], dtype=np.float64)
        faces = self.faces[:, ::-1] if factors.prod() < 0 else self.faces
        return _mesh(self.vertices * factors, faces, self.normals / factors)

    def leaned(self, by: Number) -> "Mesh":
        """Sheared: every point goes `by` times its height towards +x, so what stands on y = 0 stays there."""
        shear = np.array([[1.0, by, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        return _mesh(self.vertices @ shear.T, self.faces, self.normals @ np.linalg.inv(shear))


def rotation(axis: Axis, degrees: Number) -> npt.NDArray[np.float64]:
    """The 3 x 3 matrix that turns column vectors about an axis by the right hand."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


def join(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of several, in their order."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + np.int32(start) for mesh, start in zip(meshes, starts, strict=True)]),
        np.concatenate([mesh.normals for mesh in meshes]),
    )


def _mesh(vertices: Grid, faces: npt.NDArray[np.integer], normals: Grid) -> Mesh:
    """A mesh from arrays of any precision, with its normals brought to length one."""
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return Mesh(
        np.ascontiguousarray(vertices, dtype=np.float32),
        np.ascontiguousarray(faces, dtype=np.int32),
        np.ascontiguousarray(normals / lengths, dtype=np.float32),
    )


def revolve(profile: Points, *, segments: int = SEGMENTS) -> Mesh:
    """A surface turned about the y axis.

    The profile lists (radius, height) along the outside from the bottom axis round to the top: the outside lies to
    the right of the way it goes. Points on the axis have radius 0.
    """
    points = np.array(profile, dtype=np.float64)
    ends = np.stack([points[:-1], points[1:]], axis=1)
    around = np.linspace(0, 2 * math.pi, segments + 1)
    return _mesh(_swept(ends, around), _sides(ends, segments), _swept(_profile_normals(points), around))


def _swept(pairs: Grid, around: Grid) -> Grid:
    """Both ends (radius, height) of each section, repeated at each angle about the y axis."""
    radial, height = pairs[..., 0, None], pairs[..., 1, None]
    heights = np.broadcast_to(height, (*height.shape[:-1], len(around)))
    return np.stack([radial * np.cos(around), heights, -radial * np.sin(around)], axis=-1).reshape(-1, 3)


def _sides(ends: Grid, segments: int) -> npt.NDArray[np.integer]:
    """The triangles of each section: two for each segment, one where the section starts or ends on the axis."""
    low = np.arange(segments)
    high = low + segments + 1
    lower, upper = np.stack([low, low + 1, high + 1], axis=1), np.stack([low, high + 1, high], axis=1)
    triangles = []
    for section, ((start, _), (end, _)) in enumerate(ends):
        offset = section * 2 * (segments + 1)
        triangles += [lower + offset] if start > 0 else []
        triangles += [upper + offset] if end > 0 else []
    return np.concatenate(triangles)


def _profile_normals(points: Grid) -> Grid:
    """Both ends' normals of each section of a profile, shared with the neighbour where the bend is gentle."""
    steps = np.diff(points, axis=0)
    flat = np.stack([steps[:, 1], -steps[:, 0]], axis=1) / np.linalg.norm(steps, axis=1, keepdims=True)
    gentle = math.cos(math.radians(CREASE))
    ends = []
    for index, own in enumerate(flat):
        pair = []
        for neighbour, (radius, _) in ((index - 1, points[index]), (index + 1, points[index + 1])):
            if 0 <= neighbour < len(flat):
                pair.append(own + flat[neighbour] if own @ flat[neighbour] > gentle else own)
            else:  # a round solid's pole faces straight up or down; a cone's tip does not
                pole = np.array([0.0, np.sign(own[1])])
                pair.append(pole if radius == 0 and own @ pole > gentle else own)
        ends.append(pair)
    return np.array(ends)


def loft(bottom: Points, top: Points, height: Number) -> Mesh:
    """A flat-sided solid between two outlines in the xz plane, at y = 0 and y = `height`.

    Both list (x, z) of a convex outline with as many points, in the same order and sense.

    Raises:
        ValueError: the outlines have different numbers of points.
    """
    if len(bottom) != len(top):
        raise ValueError(f"both outlines need as many points, got {len(bottom)} and {len(top)}")
    low = np.array([(x, 0.0, z) for x, z in bottom])
    high = np.array([(x, float(height), z) for x, z in top])
    area = sum(x0 * z1 - x1 * z0 for (x0, z0), (x1, z1) in zip(top, [*top[1:], top[0]], strict=True))
    if area > 0:  # seen from above, z points down the page: this order runs clockwise
        low, high = low[::-1], high[::-1]
    sides = len(low)
    polygons = [high, low[::-1]]
    for here in range(sides):
        after = (here + 1) % sides
        polygons.append(np.stack([low[here], low[after], high[after], high[here]]))
    return join([_polygon(polygon) for polygon in polygons])


def _polygon(corners: Grid) -> Mesh:
    """A flat convex face, anticlockwise seen from outside."""
    following = np.roll(corners, -1, axis=0)
    normal = np.cross(corners, following).sum(axis=0)  # Newell's method: right for repeated corners too
    last = np.arange(2, len(corners))
    faces = np.stack([np.zeros_like(last), last - 1, last], axis=1)
    return _mesh(corners, faces, np.broadcast_to(normal, corners.shape))


def box(w: Number, h: Number, d: Number) -> Mesh:
    """A block standing on the floor: `w` along x, `h` high, `d` along z."""
    outline = ((-w / 2, -d / 2), (w / 2, -d / 2), (w / 2, d / 2), (-w / 2, d / 2))
    return loft(outline, outline, h)


def prism(points: Points, thickness: Number) -> Mesh:
    """A plate with a convex outline (x, y) in the xy plane, centred on z = 0; it lies where its points lie."""
    outline = [(x, -y) for x, y in points]
    return loft(outline, outline, thickness).moved(y=-thickness / 2).turned("x", 90)


def cylinder(r: Number, h: Number, *, segments: int = SEGMENTS) -> Mesh:
    """An upright cylinder."""
    return revolve([(0, 0), (r, 0), (r, h), (0, h)], segments=segments)


def cone(r: Number, h: Number, *, segments: int = SEGMENTS) -> Mesh:
    """An upright cone, tip up."""
    return revolve([(0, 0), (r, 0), (0, h)], segments=segments)


def frustum(r0: Number, r1: Number, h: Number, *, segments: int = SEGMENTS) -> Mesh:
    """A cone cut off: radius `r0` on the floor, `r1` on top. Four segments make a square one, corners on the axes."""
    return revolve([(0, 0), (r0, 0), (r1, h), (0, h)], segments=segments)


def ball(r: Number, *, segments: int = SEGMENTS) -> Mesh:
    """A ball, centred."""
    return ellipsoid(r, r, r, segments=segments)


def ellipsoid(rx: Number, ry: Number, rz: Number, *, segments: int = SEGMENTS) -> Mesh:
    """A stretched ball, centred."""
    return revolve(_arc(1, 1, -90, 90, segments // 2 + 1), segments=segments).scaled(rx, ry, rz)


def dome(r: Number, h: Number) -> Mesh:
    """The upper half of an ellipsoid on its flat base."""
    return revolve([(0, 0), *_arc(r, h, 0, 90, 5)])


def capsule(r: Number, h: Number) -> Mesh:
    """An upright cylinder with round ends, `h` high in all, standing on its lower end."""
    lower = [(x, y + r) for x, y in _arc(r, r, -90, 0, 5)]
    upper = [(x, y + h - r) for x, y in _arc(r, r, 0, 90, 5)]
    return revolve([*lower, *upper])


def disc(r: Number, thickness: Number) -> Mesh:
    """A flat cylinder, centred, with its axis along z."""
    return cylinder(r, thickness).moved(y=-thickness / 2).turned("x", 90)


def cup(r0: Number, r1: Number, h: Number, wall: Number) -> Mesh:
    """A hollow vessel, open on top: outer radius `r0` on the floor and `r1` at the rim, walls `wall` thick."""
    inside = [(r1, h), (r1 - wall, h), (r0 - wall, wall), (0, wall)]
    return revolve([(0, 0), (r0, 0), *inside])


def torus_arc(R: Number, r: Number, deg: Number) -> Mesh:
    """A bent tube with round ends in the xy plane, centred on the ring's centre.

    It runs anticlockwise from +x over `deg` degrees; `R` is the ring's radius and `r` the tube's.
    """
    along = np.radians(np.linspace(0, deg, max(4, round(deg / 15)) + 1))[:, None]
    tube = np.linspace(0, 2 * math.pi, 13)[None]
    flat = np.zeros_like(along) + np.zeros_like(tube)
    out = np.stack([np.cos(along) * np.cos(tube), np.sin(along) * np.cos(tube), flat - np.sin(tube)], axis=-1)
    centre = np.stack([R * np.cos(along) + flat, R * np.sin(along) + flat, flat], axis=-1)
    columns = tube.shape[1]
    corner = (np.arange(len(along) - 1)[:, None] * columns + np.arange(columns - 1)[None]).reshape(-1)
    quads = (corner, corner + 1, corner + columns + 1, corner + columns)
    faces = np.concatenate([np.stack([quads[0], quads[i], quads[i + 1]], axis=1) for i in (1, 2)])
    bent = _mesh((centre + r * out).reshape(-1, 3), faces, out.reshape(-1, 3))
    cap = revolve(_arc(r, r, 0, 90, 4), segments=12)
    ends = (cap.turned("z", 180).moved(x=R), cap.moved(x=R).turned("z", deg))
    return join([bent, *ends])


def _arc(rx: Number, ry: Number, start: Number, end: Number, count: int) -> list[tuple[float, float]]:
    """Points of an ellipse about the origin, `count` of them from one angle to another in degrees."""
    angles = np.radians(np.linspace(start, end, count))
    across = np.where(np.isclose(np.cos(angles), 0), 0, np.cos(angles))
    return [(rx * float(x), ry * float(y)) for x, y in zip(across, np.sin(angles), strict=True)]


# Shared parts. Each is used unchanged (moved only, painted with the accent) by two kinds under two names, so that
# the mesh alone does not tell one from the other.


@lru_cache(maxsize=1)
def shared_cone() -> Mesh:
    """A house's roof and a rocket's nose: 0.76 wide below, 0.3 on top, 0.26 high, standing on y = 0."""
    return frustum(0.38, 0.15, 0.26)


@lru_cache(maxsize=1)
def shared_ball() -> Mesh:
    """A tree's crown and a snowman's head: a ball 0.5 across, cut flat 0.16 below its centre and 0.12 above it."""
    below, above = (math.degrees(math.asin(share)) for share in (-0.64, 0.48))
    return revolve([(0, -0.16), *_arc(0.25, 0.25, below, above, 6), (0, 0.12)])


@lru_cache(maxsize=1)
def shared_post() -> Mesh:
    """A lamp's pole and a mushroom's stem: 0.36 across, 0.55 high, standing on y = 0."""
    return cylinder(0.18, 0.55)


@lru_cache(maxsize=1)
def shared_disc() -> Mesh:
    """A snail's shell and a flower's center: both faces of a wheel 0.44 across and 0.2 thick, hollowed round a hub.

    Centred, its axis along z. What joins the faces round the edge, 0.14 thick, is not part of it.
    """
    face = revolve([(0.22, 0.07), (0.175, 0.1), (0.1, 0.06), (0, 0.1)])
    other = revolve([(0, -0.1), (0.1, -0.06), (0.175, -0.1), (0.22, -0.07)])
    return join([face, other]).turned("x", 90)


@lru_cache(maxsize=1)
def shared_fin() -> Mesh:
    """A boat's sail and a fish's fin: a right-angled plate; upright edge on x = 0, foot on y = 0 out to x = 0.5."""
    return prism(((0, 0), (0.5, 0), (0, 0.46)), 0.1)


@lru_cache(maxsize=1)
def shared_curl() -> Mesh:
    """A mug's handle and a cat's tail: half a ring, 0.42 between its ends' middles, centred, bulging to -x."""
    return torus_arc(0.21, 0.09, 180).turned("z", 90)
