"""A scene becomes a picture, with exact maps of its parts, objects and depth.

Rays are traced with Embree against the scene's triangles; floor, rugs and backdrop are solved in closed form. The maps
come from the ray through the middle of each pixel, the picture from the mean of that ray and four more, in linear
light. Nothing is random: the same scene gives the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Bool, Float32, Int, Int32, UInt8
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.world import shading, surfaces
from eyechart.world.kinds import part_id
from eyechart.world.paints import encoded, linear, paint
from eyechart.world.scene import Scene
from eyechart.world.solids import RUG, THICK, Solids, sign_frame, solids_of
from eyechart.world.views import View, view_of

SIZES = (32, 672)
"""The smallest and the largest side of a picture, in pixels."""

OFFSETS = ((0.0, 0.0), (0.125, 0.375), (0.375, -0.125), (-0.125, -0.375), (-0.375, 0.125))
"""Where a pixel's rays go through it, from its middle, in pixels: the middle, and a turned square."""

CHUNK = 13_000
"""Pixels worked on at a time: the arrays of their rays fit the processor's cache, and memory does not grow with size."""

FAR = (1.7, 3.2)
"""The floor turns into the backdrop between these depths, in distances from the camera to what it looks at."""

LIFT = 0.012
"""How far above a surface its shadow ray starts, so that facets of round things do not shade themselves."""

CROWDED = 0.55
"""Share of the light from all round that a thing takes from the floor right under it."""

KNEE, WHITE = 0.5, 1.8
"""Linear light from which on brightness is bent, and the one that becomes full white."""

_STEPS = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rendered:
    """A picture and what is seen in each of its pixels."""

    image: UInt8[ndarray, "row column rgb"]
    """sRGB."""

    parts: UInt8[ndarray, "row column"]
    """`kinds.part_id` of what is seen; 0 is floor and backdrop."""

    objects: UInt8[ndarray, "row column"]
    """0 floor and backdrop, 1 the main object, 2 the other one, 3.. the items, 200 the sign, 201.. the rugs."""

    depth: Float32[ndarray, "row column"]
    """Distance along the camera's axis in world units, of the floor too; infinite where nothing but backdrop is seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """A scene made ready for tracing."""

    scene: Scene
    view: View
    solids: Solids
    corners: Float32[ndarray, "9 face"]
    """Normal of the first corner and the steps to the other two, so that two products interpolate."""

    tracer: EmbreeScene
    lights: Float32[ndarray, "ray 3"]
    near: Bool[ndarray, "row column"]
    """Pixels whose rays can meet a solid."""

    shadows: Float32[ndarray, "object 4"]
    """Where shadows can fall on the floor: least and greatest x, least and greatest z."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hits:
    """What the rays of some pixels meet; `n` counts all rays, pixels of the first ray first."""

    rays: Float32[ndarray, "3 n"]
    solid: Int[ndarray, " solid"]
    """Which of the rays meet a solid ..."""

    face: Int32[ndarray, " solid"]
    """... and which triangle of it, at which place."""

    u: Float32[ndarray, " solid"]
    v: Float32[ndarray, " solid"]
    depth: Float32[ndarray, " n"]
    """Of the nearest thing, solid or floor."""

    floor: Int[ndarray, " floor"]
    """Which of the rays meet the floor."""


def render(scene: Scene, size: int = 96) -> Rendered:
    """The picture of a scene, `size` pixels a side.

    Raises:
        UserError: the size is not within `SIZES`.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(
            f"a picture of {size} pixels a side was asked for; sizes go from {SIZES[0]} to {SIZES[1]}."
        )
    stage = _stage(scene, size)
    image = np.empty((size * size, 3), dtype=np.uint8)
    parts = np.empty(size * size, dtype=np.uint8)
    objects = np.empty(size * size, dtype=np.uint8)
    depth = np.empty(size * size, dtype=np.float32)
    for pixels in _chunks(size):
        hits = _trace(stage, pixels)
        colors, parts[pixels], objects[pixels] = _paint(stage, hits, len(depth[pixels]))
        depth[pixels] = hits.depth[: len(depth[pixels])]
        image[pixels] = _to_bytes(colors).T
    return Rendered(
        image=image.reshape(size, size, 3),
        parts=parts.reshape(size, size),
        objects=objects.reshape(size, size),
        depth=depth.reshape(size, size),
    )


def _chunks(size: int) -> Iterator[slice]:
    for start in range(0, size * size, CHUNK):
        yield slice(start, min(start + CHUNK, size * size))


def _stage(scene: Scene, size: int) -> _Stage:
    solids, view = solids_of(scene), view_of(scene.camera, size)
    tracer = EmbreeScene()
    TriangleMesh(tracer, solids.vertices, solids.faces)
    first, second, third = solids.normals.transpose(1, 2, 0)
    lights = shading.light_directions(scene.light, len(OFFSETS))
    outlines = [solids.vertices[start:end] for start, end in solids.spans]
    return _Stage(
        scene=scene,
        view=view,
        solids=solids,
        corners=np.concatenate([first, second - first, third - first]),
        tracer=tracer,
        lights=lights,
        near=_near(view, outlines),
        shadows=np.array([_shadow(outline, lights) for outline in outlines], dtype=np.float32),
    )


def _near(view: View, outlines: list[Float32[ndarray, "_ 3"]]) -> Bool[ndarray, "row column"]:
    """The pixels within a rectangle round each object; all of them when one reaches behind the camera."""
    near = np.zeros((view.size, view.size), dtype=np.bool_)
    for outline in outlines:
        column, row, depth = view.project(outline).T
        if depth.min() < 1e-3:
            near[:] = True
            break
        left, top = max(0, int(column.min()) - 1), max(0, int(row.min()) - 1)
        near[top : max(0, int(row.max()) + 2), left : max(0, int(column.max()) + 2)] = True
    return near


def _shadow(outline: Float32[ndarray, "_ 3"], lights: Float32[ndarray, "ray 3"]) -> Float32[ndarray, " 4"]:
    """The rectangle on the floor that holds an object's shadow from every one of the lights."""
    x, y, z = outline.T
    slide = lights[:, :1] / lights[:, 1:2], lights[:, 2:] / lights[:, 1:2]
    fall_x, fall_z = x - slide[0] * y, z - slide[1] * y
    return np.array([fall_x.min() - LIFT, fall_x.max() + LIFT, fall_z.min() - LIFT, fall_z.max() + LIFT])


def _trace(stage: _Stage, pixels: slice) -> _Hits:
    index = np.arange(pixels.start, pixels.stop)
    row, column = index // stage.view.size, index % stage.view.size
    offsets = np.array(OFFSETS, dtype=np.float32) + np.float32(0.5)
    rays = stage.view.rays(
        (column.astype(np.float32) + offsets[:, :1]).reshape(-1),
        (row.astype(np.float32) + offsets[:, 1:]).reshape(-1),
    )
    tried = np.flatnonzero(np.tile(stage.near[row, column], len(OFFSETS)))
    found = _nearest(stage, rays[:, tried])
    depth = _floor_depth(stage, rays)
    met = (found["primID"] >= 0) & (found["tfar"] <= depth[tried])
    solid = tried[met]
    grounded = np.isfinite(depth)
    depth[solid] = found["tfar"][met]
    grounded[solid] = False
    return _Hits(
        rays=rays,
        solid=solid,
        face=found["primID"][met],
        u=found["u"][met],
        v=found["v"][met],
        depth=depth,
        floor=np.flatnonzero(grounded),
    )


def _floor_depth(stage: _Stage, rays: Float32[ndarray, "3 n"]) -> Float32[ndarray, " n"]:
    """Depth of the floor along each ray, infinite for rays that do not go down (or all but level, into the haze)."""
    down = rays[1] < np.float32(-1e-5)
    return np.where(down, -stage.view.eye[1] / np.where(down, rays[1], np.float32(-1)), np.float32(np.inf))


def _nearest(stage: _Stage, rays: Float32[ndarray, "3 n"]) -> dict[str, ndarray]:
    """Embree's answer for rays from the eye."""
    origins = np.broadcast_to(stage.view.eye, (rays.shape[1], 3)).copy()
    found: dict[str, ndarray] = stage.tracer.run(origins, np.ascontiguousarray(rays.T), output=1)
    return found


def _reached(
    stage: _Stage, points: Float32[ndarray, "3 n"], towards: Float32[ndarray, "3 n"]
) -> Bool[ndarray, " n"]:
    """Whether nothing stands between points and the light."""
    if not points.size:
        return np.zeros(0, dtype=np.bool_)
    blocked = stage.tracer.run(
        np.ascontiguousarray(points.T), np.ascontiguousarray(towards.T), query="OCCLUDED"
    )
    return np.asarray(blocked < 0)


def _paint(
    stage: _Stage, hits: _Hits, count: int
) -> tuple[Float32[ndarray, "3 pixel"], UInt8[ndarray, " pixel"], UInt8[ndarray, " pixel"]]:
    """Mean linear colour of each pixel, and part and object that its first ray sees."""
    colors = np.empty_like(hits.rays)
    sky = np.flatnonzero(np.isinf(hits.depth))
    colors[:, sky] = _backdrop(stage, hits.rays[:, sky])
    parts = np.zeros(count, dtype=np.uint8)
    objects = np.zeros(count, dtype=np.uint8)
    if hits.floor.size:
        colors[:, hits.floor], rugs = _floor(stage, hits, count)
        first = hits.floor < count
        objects[hits.floor[first]] = rugs[first]
        # by shape: kinds.PARTS lists ("rug", "disc"), ("rug", "square"), ("rug", "ring")
        named = [0] * RUG + [part_id("rug", rug.shape) for rug in stage.scene.rugs]
        parts[hits.floor[first]] = np.array(named, dtype=np.uint8)[rugs[first]]
    if hits.solid.size:
        colors[:, hits.solid], seen = _solid(stage, hits, count)
        first = hits.solid < count
        objects[hits.solid[first]] = stage.solids.objects[hits.face[first]]
        parts[hits.solid[first]] = seen[first]
    return colors.reshape(3, len(OFFSETS), count).mean(axis=1), parts, objects


def _backdrop(stage: _Stage, rays: Float32[ndarray, "3 n"]) -> Float32[ndarray, "3 n"]:
    """From its lower colour at eye level to its upper one a field of view higher."""
    share = np.clip(rays[1] / np.float32(2 * stage.view.half), 0, 1)
    bottom, top = linear(stage.scene.backdrop.bottom)[:, None], linear(stage.scene.backdrop.top)[:, None]
    color: Float32[ndarray, "3 n"] = bottom + (top - bottom) * share
    return color


def _floor(stage: _Stage, hits: _Hits, count: int) -> tuple[Float32[ndarray, "3 n"], UInt8[ndarray, " n"]]:
    """Colour of the floor where rays meet it, and the id of the rug there (0: bare floor)."""
    scene, rays, depth = stage.scene, hits.rays[:, hits.floor], hits.depth[hits.floor]
    x, z = (stage.view.eye[axis] + depth * rays[axis] for axis in (0, 2))
    length = np.sqrt(shading.dot(rays, rays))
    towards_eye = -rays[1] / length
    footprint = np.float32(stage.view.pixel) * depth * length / np.sqrt(towards_eye)
    albedo = surfaces.floor_color(scene.floor, x, z, footprint)
    rugs = np.zeros(len(x), dtype=np.uint8)
    for number, rug in enumerate(scene.rugs):
        inside = surfaces.on_rug(rug, x, z)
        rugs[inside] = RUG + number
        albedo[:, inside] = surfaces.rug_color(rug)
    light = stage.lights[hits.floor // count].T
    facing = light[1] * _sunny(stage, x, z, light)
    upward = np.ones_like(x)
    color = shading.lit(
        albedo,
        light=scene.light,
        facing=facing,
        upward=upward,
        towards_eye=towards_eye,
        open_sky=_open_sky(scene, x, z),
    )
    distance = np.float32(np.linalg.norm(np.subtract(scene.camera.eye, scene.camera.target)))
    fade = np.clip((depth / distance - FAR[0]) / (FAR[1] - FAR[0]), 0, 1)
    far = np.flatnonzero(fade)
    smooth = fade[far] * fade[far] * (3 - 2 * fade[far])
    color[:, far] += (_backdrop(stage, rays[:, far]) - color[:, far]) * smooth
    return color, rugs


def _sunny(
    stage: _Stage, x: Float32[ndarray, " n"], z: Float32[ndarray, " n"], light: Float32[ndarray, "3 n"]
) -> Bool[ndarray, " n"]:
    """Whether the light reaches places on the floor; asked only where a shadow can fall."""
    doubtful = np.zeros(len(x), dtype=np.bool_)
    for least_x, most_x, least_z, most_z in stage.shadows:
        doubtful |= (x >= least_x) & (x <= most_x) & (z >= least_z) & (z <= most_z)
    asked = np.flatnonzero(doubtful)
    points = np.stack([x[asked], np.zeros(len(asked), dtype=np.float32), z[asked]])
    sunny = np.ones(len(x), dtype=np.bool_)
    sunny[asked] = _reached(stage, points, light[:, asked])
    return sunny


def _open_sky(scene: Scene, x: Float32[ndarray, " n"], z: Float32[ndarray, " n"]) -> Float32[ndarray, " n"]:
    """Share of the light from all round that reaches the floor beside the things on it."""
    spots = [(one.x, one.z, 0.42 * one.scale) for one in scene.things]
    spots += [(one.x, one.z, 0.8 * one.radius) for one in scene.items]
    open_sky = np.ones_like(x)
    for at_x, at_z, radius in spots:
        dx, dz = x - np.float32(at_x), z - np.float32(at_z)
        fall = 1 + (dx * dx + dz * dz) * np.float32(1 / radius**2)
        open_sky *= 1 - np.float32(CROWDED) / (fall * fall)
    return open_sky


def _solid(stage: _Stage, hits: _Hits, count: int) -> tuple[Float32[ndarray, "3 n"], UInt8[ndarray, " n"]]:
    """Colour of the solids where rays meet them, and the part there."""
    solids, rays = stage.solids, hits.rays[:, hits.solid]
    points = stage.view.eye[:, None] + hits.depth[hits.solid] * rays
    corners = stage.corners[:, hits.face]
    normals = shading.unit(corners[:3] + hits.u * corners[3:6] + hits.v * corners[6:])
    albedo, parts = solids.colors[hits.face].T, solids.parts[hits.face]
    _letter(stage, points, hits.face, albedo, parts)
    light = stage.lights[hits.solid // count].T
    facing = np.maximum(shading.dot(normals, light), 0)
    lifted = points + np.float32(LIFT) * normals
    bright = np.flatnonzero((facing > 0) & ~solids.unshaded[hits.face])
    facing[bright] *= _reached(stage, lifted[:, bright], light[:, bright])
    to_eye = -shading.unit(rays)
    color = shading.lit(
        albedo,
        light=stage.scene.light,
        facing=facing,
        upward=normals[1],
        towards_eye=shading.dot(normals, to_eye),
        open_sky=np.ones_like(facing),
    )
    shine = solids.shine[hits.face] * (facing > 0)
    if shine.any():
        color += shine * shading.highlight(normals, light, to_eye)
    glow = solids.glow[hits.face]
    return np.maximum(color, glow * albedo), parts


def _letter(
    stage: _Stage,
    points: Float32[ndarray, "3 n"],
    face: Int32[ndarray, " n"],
    albedo: Float32[ndarray, "3 n"],
    parts: UInt8[ndarray, " n"],
) -> None:
    """Paints the sign's letter: changes colour and part, in place, where a point lies on it."""
    sign = stage.scene.sign
    if sign is None:
        return
    seen = np.flatnonzero(stage.solids.parts[face] == part_id("sign", "board"))
    middle, axes = sign_frame(sign)
    away = (points[:, seen] - middle[:, None]) / np.float32(sign.height)
    across, up, out = (shading.dot(axis[:, None], away) for axis in axes)
    inked = surfaces.on_letter(sign.letter, across, up) & (np.abs(out) < THICK / 4)
    albedo[:, seen[inked]] = paint("dark")[:, None]
    parts[seen[inked]] = part_id("sign", "letter")


def _to_bytes(colors: Float32[ndarray, "3 n"]) -> UInt8[ndarray, "3 n"]:
    """Linear light as sRGB bytes, read from a table."""
    index = (np.clip(colors, 0, WHITE) * np.float32((_STEPS - 1) / WHITE) + np.float32(0.5)).astype(np.int32)
    levels: UInt8[ndarray, "3 n"] = _BYTES[index]
    return levels


def _exposed(light: Float32[ndarray, " n"]) -> Float32[ndarray, " n"]:
    """As it is below `KNEE`, then bent smoothly so that `WHITE` becomes 1: bright sides keep their shading."""
    over = np.clip((light - KNEE) / (WHITE - KNEE), 0, 1)
    return np.where(light < KNEE, light, 1 - (1 - KNEE) * (1 - over) ** ((WHITE - KNEE) / (1 - KNEE)))


_BYTES = np.round(255 * encoded(_exposed(np.linspace(0, WHITE, _STEPS, dtype=np.float32)))).astype(np.uint8)
