"""The kinds that are alive, or look it: snowman, mushroom, snail, fish, cat, rabbit and flower.

Each is built in its own frame (front +x, base on y = 0, about one unit tall) of few, big parts. What has two sides is
alike from both, so that an object facing left shows what one facing right does. A shared part is moved, never turned
or scaled, and always painted with the accent.
"""

import math
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from eyechart.world.kinds.kind import Choice, Kind, Look, Piece, Slot
from eyechart.world.kinds.places import BALL, CURL, CURL_ENDS, DISC, FIN, brim, hoop, knob, mound
from eyechart.world.shapes import (
    Mesh,
    Number,
    Points,
    box,
    cone,
    cylinder,
    dome,
    ellipsoid,
    frustum,
    join,
    loft,
    prism,
    revolve,
    shared_ball,
    shared_curl,
    shared_disc,
    shared_fin,
    shared_post,
)

Pieces: TypeAlias = tuple[Piece, ...]


def _piece(part: str, slot: Slot, *meshes: Mesh) -> Piece:
    return Piece(part=part, mesh=join(meshes), slot=slot)


def _bead(r: Number, *, flat: Number = 1, segments: int = 10) -> Mesh:
    """A small ball of few triangles, centred; `flat` scales its height along y."""
    angles = [math.radians(degrees) for degrees in (-54, -18, 18, 54)]
    middle = [(r * math.cos(angle), r * math.sin(angle)) for angle in angles]
    return revolve([(0, -r), *middle, (0, r)], segments=segments).scaled(1, flat, 1)


def _dot(r: Number) -> Mesh:
    """An eye, a nose or a button: a ball of very few triangles, centred."""
    return revolve([(0, -r), (0.87 * r, -r / 2), (0.87 * r, r / 2), (0, r)], segments=8)


def _band(r: Number, h: Number, thick: Number) -> Mesh:
    """A ring about the y axis, centred: outer radius `r`, `h` high, rounded outside."""
    inside, edge = r - thick, r - thick / 3
    return revolve([(inside, -h / 2), (edge, -h / 2), (r, 0), (edge, h / 2), (inside, h / 2)])


def _egg(rx: Number, ry: Number, rz: Number) -> Mesh:
    """A stretched bead, centred."""
    return _bead(1, segments=8).scaled(rx, ry, rz)


def _block(rx: Number, ry: Number, rz: Number) -> Mesh:
    """A block given by its half sides, centred."""
    return box(2 * rx, 2 * ry, 2 * rz).moved(y=-ry)


def _rod(r: Number, length: Number, lean: Number) -> Mesh:
    """A cylinder from the origin, leaning so many degrees from upright towards +x."""
    return cylinder(r, length, segments=10).turned("z", -lean)


def _along(length: Number, lean: Number) -> tuple[float, float]:
    """Where (x, y) the axis of a rod of that length and lean ends."""
    return length * math.sin(math.radians(lean)), length * math.cos(math.radians(lean))


def _both_sides(mesh: Mesh) -> Mesh:
    """A mesh and its mirror image in the plane z = 0."""
    return join([mesh, mesh.scaled(1, 1, -1)])


def _half_turned(mesh: Mesh) -> Mesh:
    """A mesh and its like after half a turn about the y axis: left and right show the same."""
    return join([mesh, mesh.turned("y", 180)])


def _snowman(look: Look) -> Pieces:
    lean, shoulder = (40, 0.36) if look.state == "raised" else (130, 0.44)
    fork = _rod(0.045, 0.18, lean - 45).moved(*_along(0.24, lean))
    twig = join([_rod(0.06, 0.42, lean), fork]).moved(0.28, shoulder)
    rounded = look.shape == "round"
    body = ellipsoid(0.4, 0.3, 0.38).moved(y=0.3) if rounded else box(0.66, 0.54, 0.64)
    front = 0.37 if rounded else 0.32
    buttons = [_both_sides(_dot(0.055).moved(-0.06, y, front - 0.01)) for y in (0.19, 0.36)]
    end = box(0.13, 0.2, 0.1).moved(0.12, 0.3, front - 0.04)
    return (
        _piece("body", "main", body, dome(0.215, 0.08).moved(y=BALL + 0.12)),
        _piece("body", "dark", *buttons),
        _piece("head", "accent", shared_ball().moved(y=BALL)),
        _piece("hat", "dark", frustum(0.219, 0.19, 0.2).moved(y=BALL + 0.12)),
        _piece("scarf", "wood", _band(0.3, 0.16, 0.14).moved(y=0.56), _half_turned(end)),
        _piece("arm", "wood", _half_turned(twig)),
    )


def _mushroom(look: Look) -> Pieces:
    profile = _CAPS[look.shape]
    whole = revolve([(0, 0), *profile])
    places = _SPOTS if look.state == "whole" else _SPOTS[:3]
    spots = [_on_profile(profile, share, _bead(0.1, flat=0.5)).turned("y", turn) for turn, share in places]
    caps = [_piece("cap", "main", whole)]
    if look.state == "cut":
        section = prism([(0, 0), *profile], 0.01)
        faces = [section.turned("y", turn + half) for turn in _CUT for half in (0, 180)]
        caps = [_piece("cap", "main", _without_slices(whole)), _piece("cap", "light", *faces)]
    blades = [cone(0.06, h, segments=6).moved(x, z=z) for x, h, z in _GRASS]
    return (
        *(_piece(cap.part, cap.slot, cap.mesh.moved(y=0.58)) for cap in caps),
        _piece("cap", "main", brim()),
        _piece("stem", "accent", shared_post()),
        _piece("spot", "light", *(_half_turned(spot.moved(y=0.58)) for spot in spots)),
        _piece("grass", "leaf", mound(), *(_half_turned(blade) for blade in blades)),
    )


_CAPS: dict[str, Points] = {
    "round": [
        *((0.4 * math.cos(a), 0.46 * math.sin(a)) for a in np.radians((0, 20, 40, 60, 77))),
        (0.0, 0.46),
    ],
    "pointed": [(0.4, 0), (0.33, 0.14), (0, 0.54)],
}
"""Outside of the mushroom's cap from rim to top, as (radius, height)."""

_SPOTS = ((258, 0.2), (212, 0.24), (232, 0.6), (315, 0.3), (338, 0.64))
"""Spots on one side of the cap: degrees about the y axis, share of its height; the first three survive the cut."""

_CUT = (112.5, 157.5)
"""Where the slice begins and ends that is cut out of the cap, in degrees about the y axis; another faces it."""

_GRASS = ((0.37, 0.22, 0.0), (0.46, 0.28, 0.0))
"""The blades on one side of the mushroom: x, height, z."""


def _on_profile(profile: Points, share: Number, mesh: Mesh) -> Mesh:
    """A mesh laid flat on the solid that a profile sweeps, on its +x side at a share of the solid's height."""
    y = share * profile[-1][1]
    for (r0, y0), (r1, y1) in pairwise(profile):
        if y0 <= y <= y1:
            slope = math.degrees(math.atan2(y1 - y0, r0 - r1))
            return mesh.turned("z", -slope).moved(r0 + (r1 - r0) * (y - y0) / (y1 - y0), y)
    raise ValueError(f"a profile has no point at {share} of its height")


def _without_slices(mesh: Mesh) -> Mesh:
    """A turned solid without its slices between `_CUT` degrees about the y axis and half a turn further on."""
    middles = mesh.vertices[mesh.faces].mean(axis=1)
    angle = np.degrees(np.arctan2(-middles[:, 2], middles[:, 0])) % 180
    return Mesh(mesh.vertices, mesh.faces[(angle < _CUT[0]) | (angle > _CUT[1])], mesh.normals)


def _snail(look: Look) -> Pieces:
    flat = look.shape == "flat"
    top = 0.29 if flat else 0.43
    outline = [(0.52 * math.cos(a) - 0.07, 0.24 * math.sin(a)) for a in np.radians(np.arange(0, 360, 30))]
    body = loft(outline, outline, top) if flat else dome(1, 1).scaled(0.54, top, 0.25).moved(-0.07)
    lean, length, x, y = (14, 0.6, 0.26, 0.06) if look.state == "raised" else (80, 0.2, 0.21, 0.28)
    end_x, end_y = _along(length, lean)
    stalk = join([_rod(0.045, 0.22, 24), _bead(0.095).moved(*_along(0.24, 24))])
    return (
        _piece("body", "main", body, hoop(), box(0.3, 0.16, 0.2).moved(DISC[0], 0.27)),
        _piece("shell", "accent", shared_disc().moved(*DISC)),
        _piece(
            "head", "main", _rod(0.12, length, lean).moved(x, y), _bead(0.185).moved(x + end_x, y + end_y)
        ),
        _piece("horn", "dark", _half_turned(stalk.moved(0.02, 0.12, 0.11)).moved(x + end_x, y + end_y)),
    )


def _fish(look: Look) -> Pieces:
    puffed = look.state == "puffed"
    rx, ry, rz = (0.36, 0.24, 0.32) if puffed else (0.44, 0.2, 0.15)
    x, y = 0.14, FIN[1] - ry
    if look.shape == "round":
        body = ellipsoid(rx, ry, rz)
        stripe = _band(1.39, 0.24 / rx, 0.5).turned("z", 90).scaled(rx, ry / 1.4, rz)
        side, eye = rz * 0.84, (x + rx * 0.6, y + ry * 0.2)
    else:
        rx, ry, rz = rx * 0.92, ry * 0.86, rz * 0.86
        body, y = _block(rx, ry, rz), FIN[1] - ry
        stripe = _block(0.12, ry - 0.005, rz + 0.07)
        side, eye = rz, (x + rx * 0.64, y + ry * 0.25)
    lobe = prism(((0.1, -0.04), (0.06, 0.09), (-0.26, 0.32), (-0.3, 0.26), (-0.14, 0)), 0.12)
    return (
        _piece("body", "main", body.moved(x, y), box(0.5, 0.12, 0.1).moved(FIN[0] + 0.25, FIN[1] - 0.12)),
        _piece("body", "light", _both_sides(_bead(0.085).moved(*eye, side))),
        _piece("body", "dark", _both_sides(_dot(0.06).moved(eye[0] + 0.01, eye[1], side + 0.05))),
        _piece("tail", "main", join([lobe, lobe.scaled(1, -1, 1)]).moved(x - rx + 0.02, y)),
        _piece("fin", "accent", shared_fin().moved(*FIN)),
        _piece("stripe", "dark", stripe.moved(x - 0.01, y)),
        _piece("stand", "wood", dome(0.32, 0.24).moved(x)),
    )


def _cat(look: Look) -> Pieces:
    sitting = look.state == "sitting"
    if sitting:
        hx, hy, ends = 0.16, 0.71, [knob(CURL_ENDS[0], reach=0.2), knob(CURL_ENDS[1])]
        body = ellipsoid(0.24, 0.34, 0.22, segments=12).turned("z", -14).moved(0.02, 0.34)
        legs = [
            cylinder(0.085, 0.4, segments=10).moved(0.23, 0, 0.1),
            _egg(0.18, 0.15, 0.1).moved(0.0, 0.15, 0.17),
        ]
        collar = _band(0.26, 0.2, 0.12).turned("z", -8).moved(0.08, 0.45)
    else:
        hx, hy, ends = 0.36, 0.68, [knob(CURL_ENDS[0]), knob(CURL_ENDS[1], reach=0.3)]
        body = ellipsoid(0.34, 0.19, 0.2, segments=12).moved(0.1, 0.46)
        legs = [cylinder(0.09, 0.4, segments=10).moved(x, 0, 0.11) for x in (0.2, -0.1)]
        collar = _band(0.27, 0.17, 0.12).turned("z", -58).moved(0.19, 0.49)
    head = ellipsoid(0.22, 0.2, 0.22) if look.shape == "round" else _block(0.19, 0.19, 0.2)
    ear = cone(0.155, 0.28, segments=8).moved(0.1, 0.11, 0.12)
    return (
        _piece("body", "main", body, *ends),
        _piece("head", "main", head.moved(hx, hy)),
        _piece("head", "light", _bead(0.1).moved(hx + 0.18, hy - 0.06)),
        _piece(
            "head",
            "dark",
            _both_sides(_dot(0.055).moved(hx + 0.14, hy + 0.05, 0.18)),
            _dot(0.05).moved(hx + 0.245, hy - 0.03),
        ),
        _piece("ear", "main", _half_turned(ear).moved(hx, hy)),
        _piece("tail", "accent", shared_curl().moved(*CURL)),
        _piece("leg", "main", *(_both_sides(leg) for leg in legs)),
        _piece("collar", "dark", collar),
    )


def _rabbit(look: Look) -> Pieces:
    rounded = look.shape == "round"
    side = 0.21 if rounded else 0.28
    foot = _egg(0.23, 0.11, 0.11)
    if look.state == "standing":
        hx, hy, tail = 0.06, 0.62, (-0.36, 0.24)
        body = (
            ellipsoid(0.25, 0.28, 0.23).moved(-0.02, 0.28) if rounded else box(0.44, 0.42, 0.52).moved(-0.04)
        )
        legs = [foot.moved(0.12, 0.11, side - 0.04)]
        scarf = _band(0.27, 0.17, 0.12).moved(0.01, 0.475)
    else:
        hx, hy, tail = 0.34, 0.5, (-0.44, 0.3)
        body = (
            ellipsoid(0.32, 0.26, 0.25).moved(-0.06, 0.26) if rounded else box(0.5, 0.44, 0.62).moved(-0.07)
        )
        legs = [_egg(0.17, 0.14, 0.1).moved(-0.14, 0.14, side), foot.moved(0.18, 0.11, side - 0.05)]
        scarf = _band(0.27, 0.22, 0.12).turned("z", -38).moved(0.16, 0.39)
    ears = [
        ellipsoid(0.12, 0.3, 0.08).moved(hx + x, hy + 0.185, z) for x, z in ((-0.03, 0.12), (-0.16, -0.12))
    ]
    return (
        _piece("body", "main", body),
        _piece("head", "main", ellipsoid(0.25, 0.195, 0.19).moved(hx, hy)),
        _piece(
            "head",
            "dark",
            _both_sides(_dot(0.055).moved(hx + 0.13, hy + 0.05, 0.145)),
            _dot(0.05).moved(hx + 0.23, hy),
        ),
        _piece("ear", "accent", *ears),
        _piece("leg", "main", *(_both_sides(leg) for leg in legs)),
        _piece("tail", "light", _bead(0.2).moved(*tail)),
        _piece("scarf", "dark", scarf),
    )


def _flower(look: Look) -> Pieces:
    if look.state == "fresh":
        turns, stem = (0, 72, 144, 216, 288), cylinder(0.16, 0.28)
    else:
        turns, stem = (75, 127, 180, 233, 285), cylinder(0.16, 0.28).leaned(-0.6).moved(0.18)
    x, y = DISC
    around = np.radians(np.arange(0, 360, 30))
    lobe: Points = [(0.2 * math.cos(a), 0.27 + 0.2 * math.sin(a)) for a in around]
    ray: Points = ((-0.19, 0.2), (0, 0), (0.19, 0.2), (0, 0.47))
    pot = join([frustum(0.2, 0.26, 0.1), cylinder(0.31, 0.06).moved(y=0.09)])
    petal = prism(lobe if look.shape == "round" else ray, 0.1)
    return (
        _piece("pot", "wood", pot.moved(x)),
        _piece("stem", "leaf", stem.moved(x, 0.12)),
        _piece("leaf", "leaf", ellipsoid(0.12, 0.25, 0.08).moved(0.28, 0.36)),
        _piece("petal", "main", *(petal.turned("z", turn).moved(x, y) for turn in turns), hoop()),
        _piece("center", "accent", shared_disc().moved(x, y)),
    )


_BODY = Choice(part="body", words=("round", "square"))

CREATURES: tuple[Kind, ...] = (
    Kind(
        name="snowman",
        parts=("body", "head", "hat", "scarf", "arm"),
        optional=("hat", "scarf"),
        state=Choice(part="arm", words=("raised", "lowered")),
        shape=_BODY,
        has_front=False,
        build=_snowman,
    ),
    Kind(
        name="mushroom",
        parts=("cap", "stem", "spot", "grass"),
        optional=("spot", "grass"),
        state=Choice(part="cap", words=("whole", "cut")),
        shape=Choice(part="cap", words=("round", "pointed")),
        has_front=False,
        build=_mushroom,
    ),
    Kind(
        name="snail",
        parts=("body", "shell", "head", "horn"),
        optional=("horn",),
        state=Choice(part="head", words=("raised", "lowered")),
        shape=Choice(part="body", words=("round", "flat")),
        has_front=True,
        build=_snail,
    ),
    Kind(
        name="fish",
        parts=("body", "tail", "fin", "stripe", "stand"),
        optional=("stripe",),
        state=Choice(part="body", words=("puffed", "slim")),
        shape=_BODY,
        has_front=True,
        build=_fish,
    ),
    Kind(
        name="cat",
        parts=("body", "head", "ear", "tail", "leg", "collar"),
        optional=("collar",),
        state=Choice(part=None, words=("sitting", "standing")),
        shape=Choice(part="head", words=("round", "square")),
        has_front=True,
        build=_cat,
    ),
    Kind(
        name="rabbit",
        parts=("body", "head", "ear", "leg", "tail", "scarf"),
        optional=("scarf",),
        state=Choice(part=None, words=("sitting", "standing")),
        shape=_BODY,
        has_front=True,
        build=_rabbit,
    ),
    Kind(
        name="flower",
        parts=("pot", "stem", "leaf", "petal", "center"),
        optional=("leaf",),
        state=Choice(part=None, words=("fresh", "wilted")),
        shape=Choice(part="petal", words=("round", "pointed")),
        has_front=False,
        build=_flower,
    ),
)
"""Seven kinds of object, in the order in which their parts are numbered."""
