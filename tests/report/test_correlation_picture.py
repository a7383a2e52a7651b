"""The picture of correlations: dots where the numbers say, every name once, none on another."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.report.correlation import LEFT, SIDE, Dot, Panel, correlation_picture

SVG = "{http://www.w3.org/2000/svg}"
NINE = ("orientation", "presence", "state", "quantity", "position", "color", "structure", "text", "viewpoint")


def dot(name, x, y, reach=0.1):
    return Dot(
        name=name,
        x=x,
        x_low=max(0.0, x - reach),
        x_high=min(1.0, x + reach),
        y=y,
        y_low=max(0.0, y - reach),
        y_high=min(1.0, y + reach),
    )


def panel(dots, title="llava over clip"):
    return Panel(
        title=title, lines=("r=0.87", "rho=0.8"), x_name="clip, %", y_name="llava, %", dots=tuple(dots)
    )


def read(panels):
    return ElementTree.fromstring(correlation_picture(panels))


def test_dots_stand_where_the_numbers_say_and_tell_them():
    (circle,) = read([panel([dot("color", 0.25, 0.75)])]).iter(f"{SVG}circle")
    assert (float(circle.get("cx")), float(circle.get("cy"))) == (0.25 * SIDE, 0.25 * SIDE)
    assert (
        circle.find(f"{SVG}title").text
        == "color: clip, % 25.0% [15.0%, 35.0%], llava, % 75.0% [65.0%, 85.0%]"
    )


def test_intervals_are_drawn_both_ways():
    root = read([panel([dot("color", 0.5, 0.5, reach=0.2)])])
    (path,) = (each for each in root.iter(f"{SVG}path") if each.get("class") == "range")
    middle = f"{SIDE / 2:.1f}"
    assert (
        path.get("d")
        == f"M{0.3 * SIDE:.1f} {middle}H{0.7 * SIDE:.1f}M{middle} {0.7 * SIDE:.1f}V{0.3 * SIDE:.1f}"
    )


def test_panels_stand_side_by_side_and_words_cannot_break_the_file():
    root = read([panel([dot("a", 0.0, 1.0)], title="a < b & c"), panel([dot("b", 1.0, 0.0)])])
    assert len(root.findall(f"{SVG}g")) == 2
    titles = [each.text for each in root.iter(f"{SVG}text") if each.get("class") == "title"]
    assert titles == ["a < b & c", "llava over clip"]
    assert "a < b & c: r=0.87, rho=0.8" in root.get("aria-label")


def names_of(root):
    return [each for each in root.iter(f"{SVG}text") if each.get("class") == "name"]


def boxes(root):
    found = {}
    for each in names_of(root):
        x, y = float(each.get("x")), float(each.get("y"))
        found[each.text] = (x, y - 9.5, x + 0.56 * 11.5 * len(each.text), y + 2)
    return found


@given(st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_names_of_nine_patterns_stand_inside_and_on_no_other(seed):
    places = np.random.default_rng(seed).random((9, 2))
    found = boxes(
        read([panel([dot(name, *place) for name, place in zip(NINE, places.tolist(), strict=True)])])
    )
    assert set(found) == set(NINE)
    for name, (left, top, right, bottom) in found.items():
        assert left >= -LEFT
        assert right <= SIDE + 1
        assert top >= -1
        assert bottom <= SIDE + 1
        for other, (a, b, c, d) in found.items():
            assert other == name or not (left < c and a < right and top + 1 < d and b < bottom - 1)


def test_no_panels_are_no_picture():
    with pytest.raises(ValueError, match="0 panels make no picture"):
        correlation_picture([])
