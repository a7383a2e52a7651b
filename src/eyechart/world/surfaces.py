"""What is drawn on flat ground and boards: floor patterns, rugs and the letter of a sign, each a function of place."""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from eyechart.world.paints import linear, paint
from eyechart.world.scene import Floor, Rug

GLYPH = 192
"""Height in texels of a rasterised letter: more than a letter ever gets in a picture of 672 pixels."""

RING = 0.55
"""Inner radius of a ring, as a share of its outer one."""

Lengths = Float32[ndarray, " n"]


def floor_color(floor: Floor, x: Lengths, z: Lengths, footprint: Lengths) -> Float32[ndarray, "3 n"]:
    """Linear colour of the floor at (x, z), smoothed over a footprint (world units) so that it does not alias."""
    angle = math.radians(floor.angle)
    cos, sin = np.float32(math.cos(angle) / floor.scale), np.float32(math.sin(angle) / floor.scale)
    share = _PATTERNS[floor.pattern](
        x * cos - z * sin, x * sin + z * cos, footprint / np.float32(floor.scale)
    )
    first, second = linear(floor.first)[:, None], linear(floor.second)[:, None]
    color: Float32[ndarray, "3 n"] = first + (second - first) * share
    return color


def _plain(u: Lengths, v: Lengths, width: Lengths) -> Lengths:
    return np.zeros_like(u)


def _checks(u: Lengths, v: Lengths, width: Lengths) -> Lengths:
    share: Lengths = 0.5 + 2 * _square_wave(u, width) * _square_wave(v, width)
    return share


def _tiles(u: Lengths, v: Lengths, width: Lengths) -> Lengths:
    tone = 0.35 * _faded(_noise(np.floor(u), np.floor(v)), width)
    share: Lengths = np.maximum(np.maximum(_lines(u, 0.05, width), _lines(v, 0.05, width)), tone)
    return share


def _planks(u: Lengths, v: Lengths, width: Lengths) -> Lengths:
    row = np.floor(2 * v)
    along = 0.4 * u + _noise(row, row)
    tone = 0.7 * _faded(_noise(np.floor(along), row), 2 * width)
    joints = np.maximum(_lines(2 * v, 0.05, 2 * width), _lines(along, 0.012, 0.4 * width))
    share: Lengths = np.maximum(tone, joints)
    return share


def _speckles(u: Lengths, v: Lengths, width: Lengths) -> Lengths:
    """Round spots, one in each cell at a place and of a size of its own."""
    u, v = 5 * u, 5 * v
    column, row = np.floor(u), np.floor(v)
    size = 0.12 + 0.16 * _noise(column, row)
    dx = u - column - 0.3 - 0.4 * _noise(row, column + 7)
    dy = v - row - 0.3 - 0.4 * _noise(row + 11, column)
    wide = 5 * width
    share: Lengths = _smooth((size - np.sqrt(dx * dx + dy * dy)) / wide) / np.maximum(1, wide * wide)
    return share


_PATTERNS: Mapping[str, Callable[[Lengths, Lengths, Lengths], Lengths]] = {
    "plain": _plain,
    "checks": _checks,
    "tiles": _tiles,
    "planks": _planks,
    "speckles": _speckles,
}


def _smooth(distance: Lengths) -> Lengths:
    """0 below -1/2, 1 above 1/2, straight between: an edge seen through a box one unit wide."""
    return np.clip(distance + np.float32(0.5), 0, 1)


def _square_wave(u: Lengths, width: Lengths) -> Lengths:
    """-1/2 and 1/2 in turn over unit steps; it fades away as the footprint outgrows the step."""
    wave: Lengths = np.clip((np.abs(u % 2 - 1) - np.float32(0.5)) / width, -0.5, 0.5)
    return wave


def _lines(u: Lengths, half: float, width: Lengths) -> Lengths:
    """1 on lines along the whole numbers, 0 off them, for lines of a given half width."""
    distance = np.float32(0.5) - np.abs(u % 1 - np.float32(0.5))
    return _smooth((half - distance) / width) * np.minimum(1, 2 * half / width)


def _faded(tone: Lengths, width: Lengths) -> Lengths:
    """A tone for each cell one unit wide, drawn to the mean of all as the footprint outgrows the cell."""
    return np.float32(0.5) + (tone - np.float32(0.5)) * np.clip(1.5 - width, 0, 1)


@lru_cache(maxsize=1)
def _table() -> Float32[ndarray, " 1024"]:
    return np.random.default_rng(3).random(1024, dtype=np.float32)


def _noise(column: Lengths, row: Lengths) -> Lengths:
    """A value in 0..1 for each cell of a grid, the same on every run."""
    mixed = column.astype(np.int32) * 73 + row.astype(np.int32) * 311
    values: Lengths = _table()[mixed & 1023]
    return values


def on_rug(rug: Rug, x: Lengths, z: Lengths) -> Bool[ndarray, " n"]:
    """Whether (x, z) lies on the rug."""
    dx, dz = x - np.float32(rug.x), z - np.float32(rug.z)
    if rug.shape == "square":
        angle = math.radians(rug.angle)
        cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        reach = np.maximum(np.abs(dx * cos - dz * sin), np.abs(dx * sin + dz * cos))
        return reach <= np.float32(rug.size)
    square = dx * dx + dz * dz
    inside = square <= np.float32(rug.size**2)
    return inside & (square >= np.float32((RING * rug.size) ** 2)) if rug.shape == "ring" else inside


def rug_color(rug: Rug) -> Float32[ndarray, "3 1"]:
    """Its linear colour."""
    return paint(rug.color)[:, None]


@lru_cache(maxsize=64)
def glyph(letter: str) -> UInt8[ndarray, "row column"]:
    """The letter as a tight bitmap (0 or 1), `GLYPH` texels high, in the sans-serif that comes with Pillow, bold."""
    canvas = Image.new("L", (4 * GLYPH, 4 * GLYPH))
    font = ImageFont.load_default(size=2 * GLYPH)
    ImageDraw.Draw(canvas).text((GLYPH, GLYPH), letter, font=font, fill=255, stroke_width=GLYPH // 16)
    inked = canvas.point(lambda value: 255 * (value > 127))
    drawn = inked.crop(inked.getbbox())
    wide = round(drawn.width * GLYPH / drawn.height)
    return np.asarray(drawn.resize((wide, GLYPH), Image.Resampling.NEAREST)) // np.uint8(255)


def on_letter(letter: str, across: Lengths, up: Lengths) -> Bool[ndarray, " n"]:
    """Whether a place on the board, in letter heights from its middle, lies on the letter."""
    texels = glyph(letter)
    rows, columns = texels.shape
    column = np.floor(across * GLYPH + np.float32(columns / 2)).astype(np.int32)
    row = np.floor(np.float32(rows / 2) - up * GLYPH).astype(np.int32)
    within = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    inked: Bool[ndarray, " n"] = within & (
        texels[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)] > 0
    )
    return inked
