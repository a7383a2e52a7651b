"""The renderer against slow, obvious references: every ray by hand, closed forms, and pictures of other sizes."""

import dataclasses
import hashlib
import math
import random
import subprocess
import sys

import numpy as np
import pytest

from eyechart.core.errors import UserError
from eyechart.world import render as room
from eyechart.world.draw import draw_facts
from eyechart.world.facts import COLORS, Items
from eyechart.world.kinds import KINDS, part_id
from eyechart.world.kinds.kind import pieces_of
from eyechart.world.layout import lay_out
from eyechart.world.paints import encoded, linear
from eyechart.world.render import SIZES, render
from eyechart.world.scene import Light, Rug
from eyechart.world.shading import light_directions
from eyechart.world.solids import RUG, solids_of, turn
from eyechart.world.views import view_of

SCENES = [(family, seed) for seed in (1, 2) for family in ("solo", "duo", "items", "letter")]


def facts_of(family, seed):
    return draw_facts(random.Random(seed), family=family)


def scene_of(family, seed):
    return lay_out(facts_of(family, seed), 1000 + seed)


def bare(scene, **changes):
    """The scene on a plain floor without rugs, evenly coloured."""
    plain = dataclasses.replace(scene.floor, pattern="plain", first=(0.6, 0.6, 0.6))
    return dataclasses.replace(scene, **{"floor": plain, "rugs": (), **changes})


# A second reader of a scene: everything in double precision, every ray against every triangle.


def reference_camera(camera, size):
    """Origins and directions of the pixels' middle rays, from the definition of a pinhole camera."""
    eye, target = np.array(camera.eye), np.array(camera.target)
    ahead = (target - eye) / np.linalg.norm(target - eye)
    side = np.cross(ahead, (0, 1, 0)) / np.linalg.norm(np.cross(ahead, (0, 1, 0)))
    over = np.cross(side, ahead)
    reach = math.tan(math.radians(camera.fov / 2))
    places = ((np.arange(size) + 0.5) / size * 2 - 1) * reach
    down, right = np.meshgrid(-places, places, indexing="ij")
    return eye, ahead + right[..., None] * side + down[..., None] * over


def reference_triangles(scene):
    """Corners, part and object of every triangle; the things are placed here, not by the renderer."""
    corners, parts, objects = [], [], []
    for number, thing in enumerate(scene.things, start=1):
        angle = math.radians(thing.yaw)
        for piece in pieces_of(KINDS[thing.kind], thing.look):
            x, y, z = piece.mesh.vertices.astype(float).T * thing.scale
            # a turn from +x by the yaw goes to -z: facing away from the viewer at +90
            moved = np.stack(
                [
                    thing.x + x * math.cos(angle) + z * math.sin(angle),
                    y,
                    thing.z - x * math.sin(angle) + z * math.cos(angle),
                ]
            ).T
            corners.append(moved[piece.mesh.faces])
            parts += [part_id(thing.kind, piece.part)] * len(piece.mesh.faces)
            objects += [number] * len(piece.mesh.faces)
    solids = solids_of(scene)
    rest = solids.objects > 2
    corners.append(solids.vertices.astype(float)[solids.faces[rest]])
    return np.concatenate(corners), [*parts, *solids.parts[rest]], [*objects, *solids.objects[rest]]


def reference_hits(eye, ray, corners):
    """Distance along one ray to each triangle, infinite where it misses (Moller and Trumbore 1997)."""
    first, one, two = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    across = np.cross(ray, two)
    volume = (one * across).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        away = eye - first
        u = (away * across).sum(1) / volume
        turned = np.cross(away, one)
        v = (turned * ray).sum(1) / volume
        distance = (turned * two).sum(1) / volume
        return np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0), distance, np.inf)


def reference_maps(scene, size):
    eye, rays = reference_camera(scene.camera, size)
    corners, parts, objects = reference_triangles(scene)
    maps = np.zeros((3, size, size))
    for row in range(size):
        for column in range(size):
            ray = rays[row, column]
            distances = reference_hits(eye, ray, corners)
            nearest = int(distances.argmin())
            floor = -eye[1] / ray[1] if ray[1] < 0 else np.inf
            if distances[nearest] < floor:
                maps[:, row, column] = parts[nearest], objects[nearest], distances[nearest]
            else:
                maps[:, row, column] = *reference_rug(scene, eye, ray, floor), floor
    return maps


def reference_rug(scene, eye, ray, depth):
    seen = (0, 0)
    if not np.isfinite(depth):
        return seen
    x, _, z = eye + depth * ray
    for number, rug in enumerate(scene.rugs):
        away = math.hypot(x - rug.x, z - rug.z)
        turned = complex(x - rug.x, z - rug.z) * complex(
            math.cos(math.radians(rug.angle)), math.sin(math.radians(rug.angle))
        )
        inside = {
            "disc": away <= rug.size,
            "ring": 0.55 * rug.size <= away <= rug.size,
            "square": max(abs(turned.real), abs(turned.imag)) <= rug.size,
        }[rug.shape]
        if inside:
            seen = (part_id("rug", rug.shape), RUG + number)
    return seen


@pytest.mark.parametrize(("family", "seed"), SCENES[:4])
def test_the_maps_are_those_of_a_slow_reference(family, seed):
    scene = scene_of(family, seed)
    size = 32
    parts, objects, depth = reference_maps(scene, size)
    seen = render(scene, size)
    board = part_id("sign", "board")
    drawn = np.where(seen.parts == part_id("sign", "letter"), board, seen.parts)
    same = (drawn == parts) & (seen.objects == objects)
    assert same.mean() > 0.997  # a ray along an edge may go either way
    assert np.allclose(seen.depth[same], depth[same], rtol=1e-4)
    assert len(np.unique(objects)) > 1


def test_what_lies_under_the_floor_is_not_seen(monkeypatch):
    def sunken(scene):
        solids = solids_of(scene)
        return dataclasses.replace(solids, vertices=solids.vertices - np.float32([0, 0.3, 0]))

    scene = scene_of("solo", 2)
    monkeypatch.setattr(room, "solids_of", sunken)
    seen = render(scene, 128)
    eye, rays = reference_camera(scene.camera, 128)
    heights = eye[1] + seen.depth * rays[..., 1]
    assert (seen.objects == 1).sum() > 500
    assert heights[seen.objects == 1].min() > -1e-3


@pytest.mark.parametrize("seed", range(3))
def test_the_depth_of_a_ball_is_its_closed_form(seed):
    facts = dataclasses.replace(facts_of("items", seed), items=Items(noun="ball", color="red", number=3))
    scene = lay_out(facts, seed)
    seen = render(scene, 192)
    eye, rays = reference_camera(scene.camera, 192)
    checked = 0
    for number, item in enumerate(scene.items):
        centre = np.array([item.x, item.radius, item.z])
        mask = seen.objects == 3 + number
        ray = rays[mask]
        a, b = (ray**2).sum(1), ray @ (eye - centre)
        inside = b**2 - a * (((eye - centre) ** 2).sum() - (0.8 * item.radius) ** 2) > 0  # not at its rim
        root = b**2 - a * (((eye - centre) ** 2).sum() - item.radius**2)
        exact = (-b[inside] - np.sqrt(root[inside])) / a[inside]
        checked += inside.sum()
        # facets of 20 degrees lie up to 5 % of the radius below the round surface
        assert np.all(seen.depth[mask][inside] >= exact - 1e-4)
        assert np.all(seen.depth[mask][inside] <= exact + 0.09 * item.radius)
    assert checked > 200


def test_the_floors_depth_is_its_closed_form():
    scene = scene_of("solo", 4)
    seen = render(scene, 64)
    eye, rays = reference_camera(scene.camera, 64)
    floor = (seen.parts == 0) & np.isfinite(seen.depth)
    heights = eye[1] + seen.depth[floor] * rays[floor][:, 1]
    assert floor.any()
    assert np.allclose(heights, 0, atol=1e-4)
    assert np.all(rays[np.isinf(seen.depth)][:, 1] >= 0)


@pytest.mark.parametrize(
    ("azimuth", "away"), [(0.0, (0, -1)), (90.0, (-1, 0)), (180.0, (0, 1)), (270.0, (1, 0))]
)
def test_shadows_fall_on_the_side_away_from_the_light(azimuth, away):
    scene = scene_of("solo", 5)
    thing = dataclasses.replace(
        scene.things[0],
        kind="house",
        look=dataclasses.replace(scene.things[0].look, missing=None, **first_look("house")),
        x=0.0,
        z=0.0,
        scale=1.0,
    )
    scene = bare(
        scene,
        things=(thing,),
        light=Light(azimuth=azimuth, elevation=40.0, strength=0.9, ambient=0.4, warmth=0.0),
        camera=dataclasses.replace(scene.camera, eye=(0.0, 6.0, 2.0), target=(0.0, 0.0, 0.0)),
    )
    seen = render(scene, 128)
    points = np.array([[0.7 * away[0], 0, 0.7 * away[1]], [-0.7 * away[0], 0, -0.7 * away[1]]])
    (dark, bright) = (
        seen.image[int(row), int(column)].astype(int).sum()
        for column, row, _ in view_of(scene.camera, 128).project(points)
    )
    assert dark < 0.8 * bright


@pytest.mark.parametrize(("family", "seed"), SCENES[:4])
def test_leaving_out_rays_that_meet_nothing_changes_nothing(family, seed, monkeypatch):
    scene = scene_of(family, seed)
    sparing = render(scene, 64)
    monkeypatch.setattr(room, "_near", lambda view, outlines: np.ones((view.size, view.size), dtype=np.bool_))
    everywhere = np.array([-1e3, 1e3, -1e3, 1e3], dtype=np.float32)
    monkeypatch.setattr(room, "_shadow", lambda outline, lights: everywhere)
    every_ray = render(scene, 64)
    for field in dataclasses.fields(sparing):
        assert np.array_equal(getattr(sparing, field.name), getattr(every_ray, field.name))


def test_the_light_on_a_ball_follows_lamberts_law():
    """Its linear light is a sum of what falls from the lamp, from the viewer and from all round."""
    light = Light(azimuth=60.0, elevation=45.0, strength=0.5, ambient=0.3, warmth=0.0)
    facts = dataclasses.replace(facts_of("items", 1), items=Items(noun="ball", color="white", number=1))
    scene = bare(lay_out(facts, 1), light=light)
    ball = dataclasses.replace(scene.items[0], x=0.0, z=1.5, radius=0.3)
    camera = dataclasses.replace(scene.camera, eye=(0.0, 1.0, 4.0), target=(0.0, 0.3, 1.5))
    scene = dataclasses.replace(scene, items=(ball,), camera=camera)
    seen = render(scene, 192)
    mask = seen.objects == 3
    eye, rays = reference_camera(camera, 192)
    to_eye = -rays[mask] / np.linalg.norm(rays[mask], axis=1, keepdims=True)
    normals = (eye + seen.depth[mask][:, None] * rays[mask] - (0.0, 0.3, 1.5)) / 0.3
    towards = light_directions(light, 1)[0]
    falling = np.stack(
        [np.maximum(normals @ towards, 0), (normals * to_eye).sum(1), normals[:, 1], np.ones(len(normals))], 1
    )
    sent = linear(seen.image[mask] / 255.0).mean(1)
    dim = (sent < 0.48) & ((normals * to_eye).sum(1) > 0.4)  # neither bent by the exposure nor at the rim
    weights, *_ = np.linalg.lstsq(falling[dim], sent[dim], rcond=None)
    assert dim.sum() > 300
    assert np.abs(falling[dim] @ weights - sent[dim]).mean() < 0.01
    assert weights[0] == pytest.approx(0.5 * linear((0.948,))[0], rel=0.08)


def first_look(kind):
    state = KINDS[kind].state
    return {"state": state.words[0] if state else None, "shape": KINDS[kind].shape.words[0]}


def test_the_light_of_azimuth_90_comes_from_the_right():
    light = Light(azimuth=90.0, elevation=30.0, strength=1.0, ambient=0.4, warmth=0.0)
    assert light_directions(light, 5)[0] == pytest.approx((math.cos(math.pi / 6), 0.5, 0), abs=1e-6)
    assert np.allclose((light_directions(light, 5) ** 2).sum(1), 1)


@pytest.mark.parametrize("seed", range(4))
def test_a_point_in_space_lands_on_the_pixel_that_shows_it(seed):
    facts = dataclasses.replace(facts_of("items", seed), items=Items(noun="cube", color="red", number=4))
    scene = lay_out(facts, seed)
    rug = Rug(shape="disc", color="blue", x=-0.4, z=1.2, size=0.2, angle=0.0)
    scene = dataclasses.replace(scene, rugs=(rug,), items=tuple(one for one in scene.items if one.x > 0))
    seen, view = render(scene), view_of(scene.camera, 96)
    tops = np.array([[one.x, 1.7 * one.radius, one.z] for one in scene.items] + [[rug.x, 0, rug.z]])
    for (column, row, depth), number in zip(
        view.project(tops), [*range(3, 3 + len(scene.items)), RUG], strict=True
    ):
        if 0 <= column < 96 and 0 <= row < 96:
            assert seen.objects[int(row), int(column)] == number
            assert seen.depth[int(row), int(column)] == pytest.approx(depth, abs=0.1)


def test_rays_and_projection_are_inverse():
    view = view_of(scene_of("duo", 3).camera, 96)
    column, row = np.meshgrid(np.arange(96, dtype=np.float32), np.arange(96, dtype=np.float32))
    places = column.ravel() + 0.5, row.ravel() + 0.5
    points = view.eye + 2.5 * view.rays(*places).T
    assert np.allclose(view.project(points), np.stack([*places, np.full(96 * 96, 2.5)], axis=1), atol=1e-3)


def test_yaw_turns_the_front_from_right_to_the_viewer():
    front = np.array([1, 0, 0])
    assert turn(0.0) @ front == pytest.approx((1, 0, 0), abs=1e-6)
    assert turn(-90.0) @ front == pytest.approx((0, 0, 1), abs=1e-6)  # +z is where the viewer stands
    assert turn(90.0) @ front == pytest.approx((0, 0, -1), abs=1e-6)
    assert turn(180.0) @ front == pytest.approx((-1, 0, 0), abs=1e-6)


@pytest.mark.parametrize("kind", sorted(name for name, kind in KINDS.items() if kind.has_front))
def test_what_is_in_front_is_on_the_side_it_faces(kind):
    look = dataclasses.replace(scene_of("solo", 1).things[0].look, missing=None, **first_look(kind))
    middles = {}
    for piece in pieces_of(KINDS[kind], look):
        middles.setdefault(piece.part, []).append(piece.mesh.vertices[:, 0].mean())
    fore, aft = (pick(middles, key=lambda part: np.mean(middles[part])) for pick in (max, min))
    for yaw, sign in ((0, 1), (180, -1)):
        scene = scene_of("solo", 1)
        camera = dataclasses.replace(scene.camera, eye=(0.0, 1.2, 3.5), target=(0.0, 0.45, 0.0))
        thing = dataclasses.replace(scene.things[0], kind=kind, look=look, yaw=float(yaw), x=0.0, scale=1.0)
        seen = render(bare(scene, things=(thing,), camera=camera))
        columns = [np.nonzero(seen.parts == part_id(kind, part))[1].mean() for part in (fore, aft)]
        assert sign * (columns[0] - columns[1]) > 0


@pytest.mark.parametrize(("family", "seed"), SCENES[:4])
def test_the_same_scene_gives_the_same_bytes(family, seed):
    first, again = render(scene_of(family, seed)), render(scene_of(family, seed))
    for field in dataclasses.fields(first):
        assert getattr(first, field.name).tobytes() == getattr(again, field.name).tobytes()


def test_another_process_gives_the_same_bytes():
    script = (
        "import hashlib, random\n"
        "from eyechart.world.draw import draw_facts\n"
        "from eyechart.world.layout import lay_out\n"
        "from eyechart.world.render import render\n"
        "seen = render(lay_out(draw_facts(random.Random(1), family='letter'), 1001))\n"
        "print(hashlib.sha256(seen.image.tobytes() + seen.depth.tobytes()).hexdigest())\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seen = render(scene_of("letter", 1))
    assert told.stdout.strip() == hashlib.sha256(seen.image.tobytes() + seen.depth.tobytes()).hexdigest()


def grown(mask):
    """The mask and the pixels that touch it."""
    padded = np.pad(mask, 1)
    rows, columns = mask.shape
    return np.any(
        [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)],
        axis=0,
    )


@pytest.mark.parametrize("seed", range(4))
def test_twins_of_another_color_differ_on_the_object_only(seed):
    facts = facts_of("duo", seed)
    color = next(one for one in COLORS if one not in (facts.color, facts.accent, facts.other.color))
    first, other = (
        render(dataclasses.replace(lay_out(one, seed), rugs=()))
        for one in (facts, dataclasses.replace(facts, color=color))
    )
    assert np.array_equal(first.parts, other.parts)
    assert np.array_equal(first.depth, other.depth)
    changed = (first.image != other.image).any(-1)
    assert changed.sum() > 100
    assert not (changed & ~grown(first.objects == 1)).any()


@pytest.mark.parametrize(("family", "seed"), SCENES)
def test_the_maps_agree_across_sizes(family, seed):
    scene = scene_of(family, seed)
    small, large = render(scene, 96), render(scene, 192)
    blocks = large.parts.reshape(96, 2, 96, 2).transpose(0, 2, 1, 3).reshape(96, 96, 4)
    even = (blocks == blocks[..., :1]).all(-1)
    assert even.mean() > 0.8
    assert (blocks[..., 0] == small.parts)[even].mean() > 0.998


@pytest.mark.parametrize(("family", "seed"), SCENES[1:3])
def test_a_picture_is_the_mean_of_a_larger_one(family, seed):
    scene = scene_of(family, seed)
    small, large = render(scene, 96).image, render(scene, 480).image
    light = linear(large / 255.0).reshape(96, 5, 96, 5, 3).mean((1, 3))
    error = np.abs(255 * encoded(light) - small)
    assert error.mean() < 2.5
    assert np.quantile(error, 0.98) < 24


@pytest.mark.parametrize("size", [SIZES[0] - 1, SIZES[1] + 1])
def test_a_size_beyond_the_limits_is_refused(size):
    with pytest.raises(UserError, match=rf"{size} pixels.*from 32 to 672"):
        render(scene_of("solo", 1), size)


@pytest.mark.parametrize("size", [32, 100, 250])
def test_every_size_has_pictures_and_maps_of_that_size(size):
    seen = render(scene_of("letter", 2), size)
    assert seen.image.shape == (size, size, 3)
    assert seen.parts.shape == seen.objects.shape == seen.depth.shape == (size, size)
