"""The flat drawings themselves: shapes on a canvas of 0..100 by 0..100, each with one thing that can be two ways."""

import colorsys
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Number = int | float
Point = tuple[Number, Number]

SIDE = 896
"""Pixels of the canvas: four times the largest drawing, which is then averaged down."""

RED, BLUE, YELLOW, PURPLE = (214, 40, 40), (38, 84, 200), (246, 196, 28), (128, 48, 160)
GREEN, BROWN, DARK, WHITE, GLASS = (
    (56, 142, 60),
    (121, 85, 60),
    (48, 48, 56),
    (252, 252, 252),
    (150, 196, 228),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is the same on both drawings of a pair: the paper, a main colour, a shift and a scale."""

    paper: Colour
    main: Colour
    shift: Point
    scale: float


def draw_look(rng: random.Random) -> Look:
    """A look at random: pale paper, a strong colour, things a little off the middle."""
    return Look(
        paper=_hsv(rng.random(), 0.10, 0.97),
        main=_hsv(rng.choice([0.0, 0.08, 0.33, 0.47, 0.6, 0.75, 0.9]), 0.70, 0.72),
        shift=(rng.uniform(-6, 6), rng.uniform(-5, 5)),
        scale=rng.uniform(0.85, 1.0),
    )


def _hsv(hue: Number, saturation: Number, value: Number) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


class Canvas:
    """A square sheet on which points run from (0, 0) at the top left to (100, 100)."""

    def __init__(self, paper: Colour) -> None:
        self.image = Image.new("RGB", (SIDE, SIDE), paper)
        self._pen = ImageDraw.Draw(self.image)
        self._shift: Point = (0.0, 0.0)
        self._scale = 1.0

    def place(self, look: Look) -> None:
        """From here on, draw shifted and scaled around the middle as the look says."""
        self._shift, self._scale = look.shift, look.scale

    def polygon(self, points: Sequence[Point], fill: Colour, *, line: Number = 1.0) -> None:
        """A filled polygon with a dark outline of so many units (0: none)."""
        places = [self._at(point) for point in points]
        self._pen.polygon(places, fill=fill)
        if line:
            self._pen.line([*places, places[0], places[1]], fill=DARK, width=self._wide(line), joint="curve")

    def box(
        self, left: Number, top: Number, right: Number, bottom: Number, fill: Colour, *, line: Number = 1.0
    ) -> None:
        """A filled rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill, line=line)

    def disc(self, middle: Point, radius: Number, fill: Colour, *, line: Number = 1.0) -> None:
        """A filled circle."""
        self.oval(middle, radius, radius, fill, line=line)

    def oval(self, middle: Point, wide: Number, high: Number, fill: Colour, *, line: Number = 1.0) -> None:
        """A filled ellipse with half axes `wide` and `high`."""
        (left, top), (right, bottom) = (
            self._at((middle[0] - wide, middle[1] - high)),
            self._at((middle[0] + wide, middle[1] + high)),
        )
        self._pen.ellipse(
            (left, top, right, bottom), fill=fill, outline=DARK if line else None, width=self._wide(line)
        )

    def ring(self, middle: Point, radius: Number, colour: Colour, *, line: Number) -> None:
        """A circle that is not filled."""
        (left, top), (right, bottom) = (
            self._at((middle[0] - radius, middle[1] - radius)),
            self._at((middle[0] + radius, middle[1] + radius)),
        )
        self._pen.ellipse((left, top, right, bottom), outline=colour, width=self._wide(line))

    def arc(
        self, middle: Point, wide: Number, high: Number, start: Number, end: Number, *, line: Number
    ) -> None:
        """A dark arc from `start` to `end` degrees, clockwise from three o'clock."""
        (left, top), (right, bottom) = (
            self._at((middle[0] - wide, middle[1] - high)),
            self._at((middle[0] + wide, middle[1] + high)),
        )
        self._pen.arc((left, top, right, bottom), start, end, fill=DARK, width=self._wide(line))

    def stroke(self, points: Sequence[Point], colour: Colour, *, line: Number) -> None:
        """A line through the points, with round ends."""
        places = [self._at(point) for point in points]
        self._pen.line(places, fill=colour, width=self._wide(line), joint="curve")
        radius = self._wide(line) / 2
        for x, y in (places[0], places[-1]):
            self._pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def _at(self, point: Point) -> tuple[float, float]:
        x, y = (
            50 + (part - 50) * self._scale + shift for part, shift in zip(point, self._shift, strict=True)
        )
        return x * SIDE / 100, y * SIDE / 100

    def _wide(self, line: Number) -> int:
        return max(1, round(line * self._scale * SIDE / 100))


def arrow(canvas: Canvas, look: Look, answer: int) -> None:
    """An arrow to the left (0) or to the right (1)."""
    canvas.place(look)
    points = [(12, 50), (42, 24), (42, 40), (88, 40), (88, 60), (42, 60), (42, 76)]
    canvas.polygon(_mirrored(points, mirror=answer == 1), look.main, line=1.5)


def fish(canvas: Canvas, look: Look, answer: int) -> None:
    """A fish that faces left (0) or right (1)."""
    canvas.place(look)
    turn = answer == 1
    canvas.polygon(_mirrored([(66, 50), (90, 30), (90, 70)], mirror=turn), look.main, line=1.5)
    ((x, y),) = _mirrored([(44, 50)], mirror=turn)
    canvas.oval((x, y), 32, 20, look.main, line=1.5)
    ((x, y),) = _mirrored([(26, 45)], mirror=turn)
    canvas.disc((x, y), 4.5, WHITE)
    canvas.disc((x, y), 2, DARK, line=0)
    canvas.stroke(_mirrored([(14, 56), (22, 58)], mirror=turn), DARK, line=1.2)


def chimney(canvas: Canvas, look: Look, answer: int) -> None:
    """A house with a chimney (0) or without (1)."""
    canvas.place(look)
    if answer == 0:
        canvas.box(62, 16, 73, 46, BROWN, line=1.2)
    _house(canvas, look)


def sun(canvas: Canvas, look: Look, answer: int) -> None:
    """A hill and a tree under a sun (0) or no sun (1)."""
    canvas.place(look)
    canvas.oval((50, 108), 70, 40, GREEN)
    _tree(canvas, 66, 74)
    if answer == 0:
        canvas.disc((28, 31), 13, YELLOW)
        for x, y in ((0, -1), (0, 1), (-1, 0), (1, 0), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7)):
            canvas.stroke([(28 + 16 * x, 31 + 16 * y), (28 + 21 * x, 31 + 21 * y)], YELLOW, line=2.2)


def glass(canvas: Canvas, look: Look, answer: int) -> None:
    """A glass, full (0) or empty (1)."""
    canvas.place(look)
    if answer == 0:
        canvas.polygon([(29.5, 26), (70.5, 26), (63, 82), (37, 82)], look.main, line=0)
    for line in ([(26, 14), (36, 84)], [(36, 84), (64, 84)], [(64, 84), (74, 14)]):
        canvas.stroke(line, DARK, line=2.5)


def eye(canvas: Canvas, look: Look, answer: int) -> None:
    """An eye, open (0) or closed (1)."""
    canvas.place(look)
    if answer == 0:
        canvas.oval((50, 54), 34, 19, WHITE, line=2.2)
        canvas.disc((50, 54), 13, look.main)
        canvas.disc((50, 54), 6, DARK, line=0)
    else:
        canvas.arc((50, 46), 34, 20, 10, 170, line=2.8)
        for x, y in ((24, 60), (36, 66), (50, 68), (64, 66), (76, 60)):
            canvas.stroke([(x, y), (x + (x - 50) * 0.15, y + 8)], DARK, line=2.2)
    canvas.arc((50, 44), 36, 24, 215, 325, line=4)


def balls(canvas: Canvas, look: Look, answer: int) -> None:
    """Two balls (0) or three (1)."""
    canvas.place(look)
    for middle in [(27, 62), (73, 62), (50, 28)][: 2 + answer]:
        canvas.disc(middle, 15, look.main, line=1.5)


def windows(canvas: Canvas, look: Look, answer: int) -> None:
    """A house with one window (0) or two (1)."""
    canvas.place(look)
    _house(canvas, look, window=False)
    for left in (30, 58)[: 1 + answer]:
        _window(canvas, left)


def table_ball(canvas: Canvas, look: Look, answer: int) -> None:
    """A ball on a table (0) or under it (1)."""
    canvas.place(look)
    _table(canvas)
    canvas.disc((50, 31 if answer == 0 else 75), 11, look.main, line=1.5)


def tree_ball(canvas: Canvas, look: Look, answer: int) -> None:
    """A ball to the left (0) or to the right (1) of a tree."""
    canvas.place(look)
    canvas.box(-30, 82, 130, 140, GREEN, line=0)
    _tree(canvas, 50, 84)
    canvas.disc((16 if answer == 0 else 84, 73), 10, look.main, line=1.5)


def car(canvas: Canvas, look: Look, answer: int) -> None:
    """A red car (0) or a blue one (1)."""
    canvas.place(look)
    _car(canvas, RED if answer == 0 else BLUE)


def flower(canvas: Canvas, look: Look, answer: int) -> None:
    """A yellow flower (0) or a purple one (1)."""
    canvas.place(look)
    canvas.stroke([(50, 46), (50, 92)], GREEN, line=4)
    canvas.oval((62, 74), 12, 5, GREEN)
    for x, y in ((0, -17), (16, -5), (10, 14), (-10, 14), (-16, -5)):
        canvas.disc((50 + x, 38 + y), 11.5, YELLOW if answer == 0 else PURPLE)
    canvas.disc((50, 38), 9, BROWN)


def roof(canvas: Canvas, look: Look, answer: int) -> None:
    """A house with a pointed roof (0) or a flat one (1)."""
    canvas.place(look)
    _house(canvas, look, pointed=answer == 0)


def table_top(canvas: Canvas, look: Look, answer: int) -> None:
    """A table with four chairs from above; its top is round (0) or square (1)."""
    canvas.place(look)
    for x, y in ((50, 14), (50, 86), (14, 50), (86, 50)):
        canvas.box(x - 8, y - 8, x + 8, y + 8, BROWN)
    if answer == 0:
        canvas.disc((50, 50), 27, look.main, line=1.5)
    else:
        canvas.box(25, 25, 75, 75, look.main, line=1.5)


def sign(canvas: Canvas, look: Look, answer: int) -> None:
    """A sign that says STOP (0) or GO (1)."""
    canvas.place(look)
    canvas.box(47, 60, 53, 96, BROWN)
    canvas.box(10, 22, 90, 62, look.main, line=1.8)
    _write(canvas, ("STOP", "GO")[answer], (50, 42), 22, WHITE)


def letter(canvas: Canvas, look: Look, answer: int) -> None:
    """A cube that bears an R (0) or a K (1)."""
    canvas.place(look)
    canvas.polygon([(18, 34), (34, 18), (84, 18), (68, 34)], WHITE, line=1.8)
    canvas.polygon([(68, 34), (84, 18), (84, 68), (68, 84)], look.main, line=1.8)
    canvas.box(18, 34, 68, 84, WHITE, line=1.8)
    _write(canvas, "RK"[answer], (43, 59), 34, look.main)


def cup(canvas: Canvas, look: Look, answer: int) -> None:
    """A cup with a handle, from the side (0) or from above (1)."""
    canvas.place(look)
    if answer == 0:
        canvas.ring((72, 50), 15, DARK, line=4)
        canvas.polygon([(20, 22), (72, 22), (67, 80), (25, 80)], look.main, line=1.8)
    else:
        canvas.box(70, 45, 92, 55, look.main, line=1.8)
        canvas.disc((46, 50), 31, look.main, line=1.8)
        canvas.disc((46, 50), 26, WHITE, line=1.2)
        canvas.disc((46, 50), 22, BROWN, line=0)


def car_view(canvas: Canvas, look: Look, answer: int) -> None:
    """A car from the front (0) or from the side (1)."""
    canvas.place(look)
    if answer == 1:
        _car(canvas, look.main)
        return
    for left in (22, 66):
        canvas.box(left, 68, left + 12, 86, DARK)
    canvas.polygon([(30, 24), (70, 24), (79, 48), (21, 48)], GLASS, line=1.8)
    canvas.box(16, 47, 84, 74, look.main, line=1.8)
    for x in (26, 74):
        canvas.disc((x, 58), 6, YELLOW)
    canvas.box(40, 55, 60, 66, DARK, line=0)


def _mirrored(points: Sequence[Point], *, mirror: bool) -> list[Point]:
    return [(100 - x, y) if mirror else (x, y) for x, y in points]


def _house(canvas: Canvas, look: Look, *, pointed: bool = True, window: bool = True) -> None:
    canvas.box(24, 46, 76, 88, look.main, line=1.5)
    if pointed:
        canvas.polygon([(16, 47), (50, 14), (84, 47)], BROWN, line=1.5)
    else:
        canvas.box(17, 37, 83, 47, BROWN, line=1.5)
    canvas.box(44, 64, 56, 88, WHITE, line=1.2)
    if window:
        _window(canvas, 30)


def _window(canvas: Canvas, left: Number) -> None:
    canvas.box(left, 52, left + 12, 62, GLASS, line=1.2)
    canvas.stroke([(left + 6, 52), (left + 6, 62)], DARK, line=0.8)


def _tree(canvas: Canvas, x: Number, foot: Number) -> None:
    canvas.box(x - 3.5, foot - 26, x + 3.5, foot, BROWN)
    canvas.oval((x, foot - 40), 18, 21, GREEN)


def _table(canvas: Canvas) -> None:
    canvas.box(14, 42, 86, 50, BROWN)
    for left in (18, 76):
        canvas.box(left, 50, left + 6, 86, BROWN)


def _car(canvas: Canvas, colour: Colour) -> None:
    canvas.polygon([(26, 48), (36, 28), (66, 28), (78, 48)], GLASS, line=1.8)
    canvas.polygon([(8, 48), (92, 48), (92, 68), (8, 68)], colour, line=1.8)
    for x in (28, 72):
        canvas.disc((x, 69), 10, DARK)
        canvas.disc((x, 69), 4, WHITE, line=0)


_STROKES: dict[str, tuple[tuple[Point, ...], ...]] = {
    "S": (((1, 0.12), (0.8, 0), (0.2, 0), (0, 0.15), (0, 0.35), (0.2, 0.5), (0.8, 0.5), (1, 0.65), (1, 0.85),
           (0.8, 1), (0.2, 1), (0, 0.88)),),
    "T": (((0, 0), (1, 0)), ((0.5, 0), (0.5, 1))),
    "O": (((0.2, 0), (0.8, 0), (1, 0.15), (1, 0.85), (0.8, 1), (0.2, 1), (0, 0.85), (0, 0.15), (0.2, 0)),),
    "P": (((0, 1), (0, 0), (0.8, 0), (1, 0.12), (1, 0.4), (0.8, 0.52), (0, 0.52)),),
    "G": (((1, 0.12), (0.8, 0), (0.2, 0), (0, 0.15), (0, 0.85), (0.2, 1), (0.8, 1), (1, 0.85), (1, 0.55), (0.55, 0.55)),),
    "R": (((0, 1), (0, 0), (0.8, 0), (1, 0.12), (1, 0.4), (0.8, 0.52), (0, 0.52)), ((0.5, 0.52), (1, 1))),
    "K": (((0, 0), (0, 1)), ((1, 0), (0, 0.55)), ((0.3, 0.4), (1, 1))),
}  # fmt: skip
"""Capitals as lines in a square of 0..1: no font file, so the same everywhere."""


def _write(canvas: Canvas, word: str, middle: Point, high: Number, colour: Colour) -> None:
    wide, gap = 0.55 * high, 0.28 * high
    left = middle[0] - (len(word) * wide + (len(word) - 1) * gap) / 2
    for place, sign_ in enumerate(word):
        start = left + place * (wide + gap)
        for stroke in _STROKES[sign_]:
            points = [(start + x * wide, middle[1] + (y - 0.5) * high) for x, y in stroke]
            canvas.stroke(points, colour, line=0.15 * high)
