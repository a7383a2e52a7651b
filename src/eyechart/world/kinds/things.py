"""The kinds that people make or plant: car, house, rocket, boat, mug, lamp and tree.

What is seen from the side is built on both sides (+z and -z), because a thing that faces left shows its other side.
"""

import math

from eyechart.world.kinds.kind import Choice, Kind, Look, Piece, Slot
from eyechart.world.kinds.places import BALL, CURL, CURL_ENDS, FIN, ROOF, brim, knob, mound
from eyechart.world.shapes import (
    Mesh,
    Number,
    Points,
    ball,
    box,
    capsule,
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
    shared_cone,
    shared_curl,
    shared_fin,
    shared_post,
)


def _piece(part: str, slot: Slot, *meshes: Mesh) -> Piece:
    return Piece(part=part, mesh=join(meshes), slot=slot)


def _both_sides(mesh: Mesh) -> Mesh:
    """A mesh and its mirror image behind the xy plane."""
    return join([mesh, mesh.scaled(1, 1, -1)])


def _oval(rx: Number, ry: Number, *, start: Number = 0, end: Number = 360, count: int = 14) -> Points:
    """Points of an ellipse about the origin from one angle to another, in degrees, anticlockwise."""
    last = count if end - start < 360 else count + 1
    angles = [math.radians(start + (end - start) * index / (last - 1)) for index in range(count)]
    return [(rx * math.cos(angle), ry * math.sin(angle)) for angle in angles]


def _car(look: Look) -> tuple[Piece, ...]:
    """Wheels under mudguards at the corners, glass all round, doors hinged at their front edge."""
    if look.shape == "round":
        lower = [(x, y + 0.28) for x, y in _oval(0.58, 0.26, start=-25, end=205)]
        upper = [(x - 0.06, y + 0.48) for x, y in _oval(0.4, 0.36, start=0, end=180)]
        glass = [(x - 0.06, y + 0.56) for x, y in _oval(0.31, 0.22, start=0, end=180)]
        guard = [(x, y + 0.34) for x, y in _oval(0.22, 0.2, start=0, end=180)]
    else:
        lower = [(-0.58, 0.17), (0.58, 0.17), (0.58, 0.55), (-0.58, 0.55)]
        upper = [(-0.48, 0.54), (0.34, 0.54), (0.22, 0.84), (-0.42, 0.84)]
        glass = [(-0.38, 0.59), (0.22, 0.59), (0.14, 0.78), (-0.34, 0.78)]
        guard = [(-0.22, 0.34), (0.22, 0.34), (0.22, 0.52), (-0.22, 0.52)]
    ends = [((x + 0.1) * 1.04 - 0.1, max(0.6, min(y, 0.78))) for x, y in upper]
    guards = [prism(guard, 0.78).moved(x) for x in (-0.36, 0.36)]
    wheels = [_wheel().moved(x, 0.21, z) for x in (-0.36, 0.36) for z in (-0.34, 0.34)]
    leaf = box(0.26, 0.36, 0.04).moved(-0.13).turned("y", 62 if look.state == "open" else 0)
    return (
        _piece("body", "main", prism(lower, 0.5), prism(upper, 0.48), *guards),
        _piece("body", "dark", _both_sides(box(0.3, 0.39, 0.02).moved(0, 0.17, 0.25))),
        _piece("window", "glass", prism(glass, 0.51), prism(ends, 0.38)),
        _piece("door", "main", _both_sides(leaf.moved(0.13, 0.18, 0.27))),
        *(_piece("wheel", "accent", wheel) for wheel in wheels),
        _piece("siren", "accent", dome(0.22, 0.22).moved(-0.1, 0.81)),
    )


def _wheel() -> Mesh:
    """0.42 across and 0.18 thick, hollowed round a hub, centred, axis along z."""
    half = [(0.21, 0.07), (0.18, 0.09), (0.1, 0.05), (0, 0.09)]
    return revolve([*((r, -y) for r, y in reversed(half)), *half]).turned("x", 90)


def _house(look: Look) -> tuple[Piece, ...]:
    """One big door and one big window on either long side, a chimney on the roof, or a little spire."""
    if look.shape == "round":
        wall, reach, spread, swing = cylinder(0.34, ROOF, segments=20), 0.33, 28.0, -28
    else:
        wall, reach, spread, swing = box(0.64, ROOF, 0.6), 0.3, 0.0, -48

    def on_wall(mesh: Mesh, side: int) -> Mesh:
        placed = mesh.moved(0 if spread else 0.15 * side, 0, reach).turned("y", spread * side)
        return join([placed, placed.turned("y", 180)])

    leaf = box(0.27, 0.43, 0.04).moved(0.135)
    leaf = leaf.turned("y", swing if look.state == "open" else 0).moved(-0.135, 0, 0.02)
    panes = [box(0.1, 0.12, 0.05).moved(x, y) for x in (-0.06, 0.06) for y in (0.19, 0.33)]
    return (
        _piece("wall", "main", wall, cone(0.15, 0.16).moved(y=ROOF + 0.26)),
        _piece("wall", "dark", on_wall(box(0.27, 0.43, 0.02), -1)),
        _piece("roof", "accent", shared_cone().moved(y=ROOF)),
        _piece("door", "wood", on_wall(leaf, -1)),
        _piece("window", "light", on_wall(box(0.26, 0.32, 0.04).moved(y=0.16), 1)),
        _piece("window", "dark", on_wall(join(panes), 1)),
        _piece("chimney", "main", cylinder(0.15, 0.24).moved(y=ROOF + 0.26)),
    )


def _rocket(look: Look) -> tuple[Piece, ...]:
    """It stands on two wings with its fire between them; portholes on both sides."""
    if look.shape == "round":
        profile = [(0, 0), (0.16, 0), (0.31, 0.06), (0.39, 0.16), (0.39, 0.24), (0.35, 0.34), (0, 0.34)]
        width, bulge = 0.3, 0.39
    else:
        profile = [(0, 0), (0.28, 0), (0.28, 0.34), (0, 0.34)]
        width, bulge = 0.24, 0.28
    blade = prism([(width - 0.04, 0.3), (0.52, 0), (0.6, 0), (0.6, 0.18), (width, 0.52)], 0.1)
    port = cylinder(0.155, 0.06).turned("x", 90).moved(0, 0.42, bulge - 0.03)
    ring = cylinder(0.18, 0.04).turned("x", 90).moved(0, 0.42, bulge - 0.03)
    tongues = [cone(r, h).scaled(1, -1, 1).moved(x, 0.29, z) for x, z, r, h in _TONGUES]
    return (
        _piece("body", "main", revolve(profile).moved(y=ROOF - 0.34), cone(0.15, 0.22).moved(y=ROOF + 0.26)),
        _piece("body", "light", _both_sides(ring)),
        _piece("nose", "accent", shared_cone().moved(y=ROOF)),
        _piece("window", "glow" if look.state == "lit" else "dark", _both_sides(port)),
        _piece("wing", "main", blade, blade.turned("y", 180)),
        _piece("flame", "glow", frustum(0.24, 0.31, 0.13).moved(y=0.16), *tongues),
    )


_TONGUES = (
    (0.0, 0.0, 0.2, 0.29),
    (-0.18, 0.06, 0.2, 0.29),
    (0.18, 0.06, 0.2, 0.29),
    (-0.18, -0.06, 0.2, 0.29),
    (0.18, -0.06, 0.2, 0.29),
)
"""The tongues of a rocket's flame: x, z, radius, length."""


def _boat(look: Look) -> tuple[Piece, ...]:
    """Bow at +x, its sail before the mast and its flag behind; a flat wooden stern."""
    height = 0.36 if look.shape == "deep" else 0.15
    foot = [(-0.42, -0.16), (0.2, -0.16), (0.34, 0), (0.2, 0.16), (-0.42, 0.16)]
    rim = [(-0.52, -0.27), (0.22, -0.27), (0.62, 0), (0.22, 0.27), (-0.52, 0.27)]
    deck = [(0.88 * x, 0.84 * z) for x, z in rim]
    stern = loft(_plank(-0.42, 0.14), _plank(-0.52, 0.25), height)
    cloth = box(0.36, 0.26, 0.05).moved(-0.18)
    flag = join([cloth.turned("y", angle) for angle in (-32, 32)])  # forked: never seen on edge
    boom = box(0.63, 0.06, 0.1).moved(0.065, FIN[1] - 0.06)
    oar = join([capsule(0.05, 0.44).moved(y=-0.22), ellipsoid(0.13, 0.17, 0.05).moved(y=-0.24)])
    oar = oar.turned("x", -35).turned("z", -35)
    oar = oar.moved(0.0, -float(oar.vertices[:, 1].min()), 0.24)
    return (
        _piece("hull", "main", loft(foot, rim, height)),
        _piece("hull", "wood", stern, loft(deck, deck, 0.012).moved(y=height)),
        _piece("mast", "wood", cylinder(0.075, 1.06 - height).moved(-0.25, height), boom),
        _piece("sail", "accent", shared_fin().moved(*FIN)),
        _piece("flag", "main", flag.moved(-0.23, 0.78 if look.state == "raised" else 0.42)),
        _piece("oar", "wood", _both_sides(oar)),
    )


def _plank(x: Number, half: Number) -> Points:
    """The outline in the xz plane of a board across a boat, its outer face at x - 0.02."""
    return [(x - 0.02, -half), (x + 0.02, -half), (x + 0.02, half), (x - 0.02, half)]


def _mug(look: Look) -> tuple[Piece, ...]:
    """A saucer below, a spoon in it; full to above the brim or empty."""
    radius, height = (0.27, 0.78) if look.shape == "tall" else (0.36, 0.64)
    middle = radius - 0.24
    outside = [(0, 0), (0.9 * radius, 0), (radius, 0.08), (radius, height), (radius - 0.05, height)]
    cup = [_piece("cup", "main", revolve([*outside, (radius - 0.05, 0.06), (0, 0.06)]).moved(middle))]
    if look.state == "full":
        cup.append(_piece("cup", "light", dome(radius - 0.04, 0.22).moved(middle, height - 0.03)))
    spoon = join([capsule(0.05, 0.5), ellipsoid(0.17, 0.2, 0.06).moved(y=0.5)]).turned("z", -20)
    plate = revolve([(0, 0), (0.3, 0), (0.48, 0.06), (0.46, 0.08), (0.3, 0.04), (0, 0.04)])
    ends = [knob(y, reach=0.15) for y in CURL_ENDS]
    return (
        *cup,
        _piece("cup", "main", *ends),
        _piece("handle", "accent", shared_curl().moved(*CURL)),
        _piece("spoon", "glass", spoon.moved(middle, min(height - 0.28, 0.45))),
        _piece("plate", "accent", plate.moved(0.1)),
    )


def _lamp(look: Look) -> tuple[Piece, ...]:
    """A lantern on a thick pole: glass that glows or not under a shade."""
    if look.shape == "round":
        glass, shade = cylinder(0.3, 0.27), frustum(0.36, 0.2, 0.24)
    else:
        glass, shade = box(0.5, 0.27, 0.44), box(0.64, 0.2, 0.54)
    return (
        _piece("base", "main", mound()),
        _piece("pole", "accent", shared_post()),
        _piece("glass", "glow" if look.state == "on" else "dark", glass.moved(y=0.58)),
        _piece("glass", "main", brim()),
        _piece("shade", "main", shade.moved(y=0.85)),
    )


def _tree(look: Look) -> tuple[Piece, ...]:
    """A round or pointed tier of foliage, the crown above it, and a tuft on top; upright or leaning to the front."""
    lean = 0.5 if look.state == "leaning" else 0.0
    if look.shape == "round":
        clump = ellipsoid(0.25, 0.18, 0.24, segments=10).moved(y=BALL - 0.34)
        around = [math.radians(60 * index) for index in range(6)]
        foliage = join([clump.moved(0.29 * math.cos(turn), 0, 0.26 * math.sin(turn)) for turn in around])
        tuft = dome(0.219, 0.18)
    else:
        foliage, tuft = frustum(0.44, 0.14, 0.34).moved(y=BALL - 0.5), cone(0.219, 0.22)
    fruit = [ball(0.095, segments=8).moved(x, y, z) for x, y, z in _FRUIT[look.shape]]
    below = (BALL - 0.16) * lean  # what is under the crown leans towards it; the crown stays where it is
    return (
        _piece("trunk", "wood", frustum(0.21, 0.17, 0.4).leaned(lean).moved(-below)),
        _piece(
            "foliage",
            "main",
            foliage.leaned(lean).moved(-below),
            tuft.leaned(lean / 2).moved(y=BALL + 0.12),
        ),
        _piece("crown", "accent", shared_ball().moved(y=BALL)),
        _piece("apple", "accent", *(_both_sides(one.moved(0.43 * lean - below)) for one in fruit)),
    )


_FRUIT = {
    "round": ((-0.27, 0.44, 0.41), (0.0, 0.5, 0.37), (0.27, 0.44, 0.41)),
    "pointed": ((-0.26, 0.4, 0.31), (0.0, 0.46, 0.34), (0.26, 0.4, 0.31)),
}
"""Where a tree's apples hang on the side of +z."""


CAR = Kind(
    name="car",
    parts=("body", "window", "door", "wheel", "siren"),
    optional=("siren",),
    state=Choice(part="door", words=("closed", "open")),
    shape=Choice(part=None, words=("round", "square")),
    has_front=False,
    build=_car,
)
HOUSE = Kind(
    name="house",
    parts=("wall", "roof", "door", "window", "chimney"),
    optional=("chimney", "window"),
    state=Choice(part="door", words=("closed", "open")),
    shape=Choice(part="wall", words=("round", "square")),
    has_front=False,
    build=_house,
)
ROCKET = Kind(
    name="rocket",
    parts=("body", "nose", "window", "wing", "flame"),
    optional=("wing",),
    state=Choice(part="window", words=("lit", "dark")),
    shape=Choice(part="body", words=("round", "straight")),
    has_front=False,
    build=_rocket,
)
BOAT = Kind(
    name="boat",
    parts=("hull", "mast", "sail", "flag", "oar"),
    optional=("oar",),
    state=Choice(part="flag", words=("raised", "lowered")),
    shape=Choice(part="hull", words=("deep", "flat")),
    has_front=True,
    build=_boat,
)
MUG = Kind(
    name="mug",
    parts=("cup", "handle", "plate", "spoon"),
    optional=("plate", "spoon"),
    state=Choice(part=None, words=("full", "empty")),
    shape=Choice(part=None, words=("tall", "short")),
    has_front=False,
    build=_mug,
)
LAMP = Kind(
    name="lamp",
    parts=("base", "pole", "glass", "shade"),
    optional=("base", "shade"),
    state=Choice(part=None, words=("on", "off")),
    shape=Choice(part="shade", words=("round", "square")),
    has_front=False,
    build=_lamp,
)
TREE = Kind(
    name="tree",
    parts=("trunk", "foliage", "crown", "apple"),
    optional=("apple",),
    state=Choice(part=None, words=("upright", "leaning")),
    shape=Choice(part="foliage", words=("round", "pointed")),
    has_front=False,
    build=_tree,
)

THINGS: tuple[Kind, ...] = (CAR, HOUSE, ROCKET, BOAT, MUG, LAMP, TREE)
