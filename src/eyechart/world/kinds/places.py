"""Where the shared parts stand: at one place in the frames of both kinds that use them, and seen equally far in both.

All else of either kind lies below the part's lower end or beside it, or on top of it no wider than its upper end, so
that from a camera above that end nothing hides what the other kind would show. What does stand before a part (the brim
over a post, the mound at its foot, the knobs at the ends of a curl) is one mesh in both kinds, in their own paints.
"""

from eyechart.world.shapes import Mesh, Number, ball, cylinder, frustum, join

ROOF = 0.62
"""Height of the lower end of the shared cone."""

BALL = 0.8
"""Height of the shared ball's centre: it is cut flat 0.16 below and 0.12 above it, 0.219 in radius there."""

DISC = (-0.15, 0.65)
"""Centre of the shared disc."""

FIN = (-0.12, 0.58)
"""Lower end of the shared fin's upright edge."""

CURL = (-0.35, 0.38)
"""Centre of the shared curl, whose ends lie 0.21 above and below."""

CURL_ENDS = (CURL[1] - 0.21, CURL[1] + 0.21)
"""Heights of the ends of the curl."""


def mound() -> Mesh:
    """A lamp's base and the turf of a mushroom's grass, round the foot of the shared post."""
    return frustum(0.35, 0.29, 0.1)


def brim() -> Mesh:
    """The plate on top of the shared post, under a lamp's glass and a mushroom's cap."""
    return cylinder(0.4, 0.03).moved(y=0.55)


def hoop() -> Mesh:
    """What joins the two faces of the shared disc round the edge, at its place."""
    return cylinder(0.219, 0.14).moved(y=-0.07).turned("x", 90).moved(*DISC)


def knob(y: Number, *, reach: Number = 0) -> Mesh:
    """The end of the shared curl at a height, with a rod from it so far towards +x."""
    end = ball(0.106, segments=8).moved(CURL[0], y)
    if not reach:
        return end
    return join([end, cylinder(0.07, reach, segments=8).turned("z", -90).moved(CURL[0], y)])
