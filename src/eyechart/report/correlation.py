"""A picture of correlations: a panel for each pair of series, a dot for each pattern, intervals both ways, names beside dots.

It is an SVG of its own, with the colours of the page in light and dark, and needs nothing else to be read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product

SIDE = 330
"""Of a panel's plot, in pixels."""

LEFT, TOP, BOTTOM, GAP = 58, 62, 52, 26
SIZE = 11.5
"""Of names, in pixels."""

STYLE = """
svg { --paper: #ffffff; --line: #dedfda; --ink: #1b1d21; --soft: #5a5f68; --mark: #1a56a8; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #141518; --line: #34373e; --ink: #e7e8ea; --soft: #a3a8b1; --mark: #8ab8f5; }
}
text { font: 11.5px system-ui, sans-serif; fill: var(--soft); }
.title { font-size: 14px; font-weight: 600; fill: var(--ink); }
.name { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
.paper { fill: var(--paper); } .grid { stroke: var(--line); } .even { stroke: var(--line); stroke-dasharray: 4 4; }
.range { stroke: var(--mark); stroke-opacity: .42; stroke-width: 1.5; }
.dot { fill: var(--mark); stroke: var(--paper); stroke-width: 1.5; } .lead { stroke: var(--soft); stroke-width: .7; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A pattern; shares from 0 to 1."""

    name: str
    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One correlation."""

    title: str
    lines: tuple[str, ...]
    """Under the title, two at most: what the correlations are."""

    x_name: str
    y_name: str
    dots: tuple[Dot, ...]


def correlation_picture(panels: Sequence[Panel]) -> str:
    """The SVG: panels side by side, axes from 0 to 100 %.

    Raises:
        ValueError: there are no panels.
    """
    if not panels:
        raise ValueError("0 panels make no picture")
    width, height = len(panels) * (LEFT + SIDE + GAP), TOP + SIDE + BOTTOM
    said = "; ".join(f"{panel.title}: {', '.join(panel.lines)}" for panel in panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="{escape(said)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
    ]
    for place, panel in enumerate(panels):
        parts.append(f'<g transform="translate({place * (LEFT + SIDE + GAP) + LEFT} {TOP})">')
        parts += _panel(panel)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel) -> Iterator[str]:
    yield f'<text class="title" y="{14 - TOP + 6}">{escape(panel.title)}</text>'
    for place, line in enumerate(panel.lines[:2]):
        yield f'<text y="{36 - TOP + 15 * place}">{escape(line)}</text>'
    yield from _axes(panel)
    for dot in panel.dots:
        x, y = _at(dot.x, dot.y)
        (left, low), (right, high) = _at(dot.x_low, dot.y_low), _at(dot.x_high, dot.y_high)
        yield f'<path class="range" d="M{left:.1f} {y:.1f}H{right:.1f}M{x:.1f} {low:.1f}V{high:.1f}"/>'
    for dot in panel.dots:
        x, y = _at(dot.x, dot.y)
        title = (
            f"{dot.name}: {panel.x_name} {_interval(dot.x, dot.x_low, dot.x_high)}, "
            f"{panel.y_name} {_interval(dot.y, dot.y_low, dot.y_high)}"
        )
        yield (
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{escape(title)}</title></circle>'
        )
    yield from _names(panel.dots)


def _axes(panel: Panel) -> Iterator[str]:
    yield f'<path class="even" d="M0 {SIDE}L{SIDE} 0"/>'
    for share in (0, 25, 50, 75, 100):
        x, y = _at(share / 100, share / 100)
        yield f'<path class="grid" fill="none" d="M{x:.1f} 0V{SIDE}M0 {y:.1f}H{SIDE}"/>'
        yield f'<text x="{x:.1f}" y="{SIDE + 16}" text-anchor="middle">{share}</text>'
        yield f'<text x="-7" y="{y + 4:.1f}" text-anchor="end">{share}</text>'
    yield f'<text x="{SIDE / 2}" y="{SIDE + 36}" text-anchor="middle">{escape(panel.x_name)}</text>'
    yield (
        f'<text transform="translate(-38 {SIDE / 2}) rotate(-90)" text-anchor="middle">{escape(panel.y_name)}</text>'
    )


DIRECTIONS = tuple(
    (across, up)
    for across, up in product((1, -1, 0.5, -0.5, 0), (-0.8, 0.8, 0, -0.4, 0.4))
    if abs(across) + abs(up) > 0.8
)
"""Where a name may stand from its dot, those tried first that are read most easily."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def _names(dots: Sequence[Dot]) -> Iterator[str]:
    """Each name where it covers least: dots weigh most, then names, then ranges; a line leads to one that is far."""
    taken: list[Box] = []
    marks = [_at(dot.x, dot.y) for dot in dots]
    for dot, (x, y) in zip(dots, marks, strict=True):
        wide = 0.56 * SIZE * len(dot.name)
        boxes = []
        for step, (across, up) in product((7, 16, 28, 42, 58, 76), DIRECTIONS):
            left = x + across * step - (0 if across > 0 else wide if across < 0 else wide / 2)
            middle = y + up * step
            boxes.append((left, middle - SIZE / 2, left + wide, middle + SIZE / 2, float(step)))
        best = min(boxes, key=lambda box: _cost(box[:4], box[4], dots, marks, taken))
        taken.append(best[:4])
        left, top, right, bottom, far = best
        if far > 16:
            near_x = min(max(x, left), right)
            yield f'<path class="lead" d="M{x:.1f} {y:.1f}L{near_x:.1f} {(top + bottom) / 2:.1f}"/>'
        yield f'<text class="name" x="{left:.1f}" y="{bottom - 2:.1f}">{escape(dot.name)}</text>'


def _cost(
    box: Box, far: float, dots: Sequence[Dot], marks: Sequence[tuple[float, float]], taken: Sequence[Box]
) -> float:
    left, top, right, bottom = box
    cost: float = far / 10 + 100 * sum(edge < 0 for edge in (left, top, SIDE - right, SIDE - bottom))
    cost += sum(40 for x, y in marks if left - 6 < x < right + 6 and top - 6 < y < bottom + 6)
    cost += sum(60 for a, b, c, d in taken if left < c and a < right and top < d and b < bottom)
    for dot, (x, y) in zip(dots, marks, strict=True):
        (x_low, y_low), (x_high, y_high) = _at(dot.x_low, dot.y_low), _at(dot.x_high, dot.y_high)
        cost += 3 * (top < y < bottom and left < x_high and x_low < right)
        cost += 3 * (left < x < right and top < y_low and y_high < bottom)
    return cost


def _at(x: float, y: float) -> tuple[float, float]:
    return SIDE * x, SIDE * (1 - y)


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"
