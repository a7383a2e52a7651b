"""Polygons and run lengths become masks as a slow, obvious reader would have them."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from matplotlib.path import Path as Outline

from eyechart.locate.part_records import BadMarks
from eyechart.locate.part_shapes import decoded_runs, polygons_mask, runs_mask

quarter = st.integers(-12, 48).map(lambda number: number / 4)
corner = st.tuples(quarter, quarter)
polygon = st.lists(corner, min_size=3, max_size=7).map(
    lambda corners: [value for one in corners for value in one]
)


def slow_mask(polygons, height, width):
    """Every pixel's middle by a ray to the left, in whole eighths of a pixel."""
    mask = np.zeros((height, width), bool)
    for flat in polygons:
        points = [(round(8 * x), round(8 * y)) for x, y in zip(flat[::2], flat[1::2], strict=True)]
        for row in range(height):
            for column in range(width):
                x, y = 8 * column + 4, 8 * row + 4
                crossed = 0
                for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
                    if y0 > y1:
                        x0, y0, x1, y1 = x1, y1, x0, y0
                    if y0 <= y < y1 and (y - y0) * (x1 - x0) <= (x - x0) * (y1 - y0):
                        crossed += 1
                mask[row, column] |= crossed % 2 == 1
    return mask


@settings(max_examples=40, deadline=None)
@given(st.lists(polygon, min_size=1, max_size=3))
def test_polygons_are_as_the_slow_reader_has_them(polygons):
    np.testing.assert_array_equal(polygons_mask(polygons, 7, 9), slow_mask(polygons, 7, 9))


def distances(points, corners):
    """How far points are from a closed outline."""
    least = np.full(len(points), np.inf)
    for start, end in zip(np.array(corners), np.roll(np.array(corners), -1, axis=0), strict=True):
        along = end - start
        share = np.clip((points - start) @ along / max(along @ along, 1e-300), 0, 1)
        least = np.minimum(least, np.linalg.norm(points - start - share[:, None] * along, axis=1))
    return least


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 14, width=16), st.floats(-3, 14, width=16)), min_size=3, max_size=8))
def test_one_polygon_is_as_matplotlib_has_it(corners):
    """Matplotlib's rule is even-odd too; only middles that lie on the outline may differ."""
    rows, columns = np.mgrid[:9, :11]
    middles = np.stack([columns + 0.5, rows + 0.5], axis=-1).reshape(-1, 2)
    inside = Outline([*corners, corners[0]], closed=True).contains_points(middles)
    found = polygons_mask([[value for one in corners for value in one]], 9, 11).ravel()
    off = distances(middles, corners) > 1e-6
    np.testing.assert_array_equal(found[off], inside[off])


def test_a_rectangle_covers_the_pixels_whose_middle_it_holds():
    mask = polygons_mask([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 6)
    wanted = np.zeros((5, 6), bool)
    wanted[1:3, 1:4] = True
    np.testing.assert_array_equal(mask, wanted)


def test_polygons_that_share_an_edge_share_no_pixel_and_leave_none_out():
    left, right = [0, 0, 2.5, 0, 2.5, 4, 0, 4], [2.5, 0, 6, 0, 6, 4, 2.5, 4]
    first, second = polygons_mask([left], 4, 6), polygons_mask([right], 4, 6)
    assert not (first & second).any()
    assert (first | second).all()
    assert second[:, 2].all()


def test_overlapping_polygons_are_united_and_a_crossing_outline_has_a_hole():
    square = [0, 0, 4, 0, 4, 4, 0, 4]
    assert polygons_mask([square, square], 4, 4).all()
    twice = [0, 0, 4, 0, 4, 4, 0, 4, 0, 0, 1, 1, 3, 1, 3, 3, 1, 3, 1, 1]
    hole = polygons_mask([twice], 4, 4)
    assert not hole[1:3, 1:3].any()
    assert hole.sum() == 12


def test_what_is_outside_the_picture_is_cut():
    assert polygons_mask([[-5, -5, 20, -5, 20, 20, -5, 20]], 3, 4).all()
    assert not polygons_mask([[5, 5, 8, 5, 8, 8, 5, 8]], 3, 4).any()
    assert polygons_mask([[-50, 1, 2, 1, 2, 2, -50, 2]], 3, 4)[1].tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("polygons", "says"),
    [
        ([[0, 0, 1, 1]], "three points"),
        ([[0, 0, 1, 1, 2]], "three points"),
        ([[0, 0, 1, 1, 2, float("nan")]], "no number"),
        ([[0, 0, 1, 1, 2, "x"]], "expected x, y"),
        ([0, 0, 1, 1, 2, 2], "three points"),
        (5, "expected lists"),
        ("0,0", "expected lists"),
        ([[[0, 0], [1, 1], [2, 0]]], "three points"),
        ([None], "expected"),
    ],
)
def test_what_is_no_polygon_is_said_so(polygons, says):
    with pytest.raises(BadMarks, match=says) as caught:
        polygons_mask(polygons, 4, 4)
    assert caught.value.reason == "bad_annotation"


# Compressed by COCO's own tools (pycocotools 2.0.11), with the number of pixels that are set.
COMPRESSED = [
    ([3, 4], "<", 0),
    ([3, 4], "0<", 12),
    ([5, 7], ";320009", 9),
    ([6, 5], "211011O01O10N000011OO", 13),
    (
        [200, 130],
        "kV3c0a58I6K4L4L4L4M2N2M4M2N2N2N2N2N2N2O0O2N2N2O0O2O0O2OYNbLd0]3\\OeLd0Z3ZOjLd0U3]OkLd0T3[OnLd0R3[OPMd"
        "0o2]OQMd0n2\\ORMd0n2\\ORMd0n2\\ORMd0m2]OSMd0l2\\OTMd0l2\\OTMd0l2\\OTMd0l2]ORMd0n2]OPMd0P3\\OPMd0P3^OlLd0T3]"
        "OjLd0V3W10000000000000000001N1000001N10001N101N101N101N101N2N2N101N2N2N2N2N2N2N3L3N2N3L4L4L4L5J7Hai4",
        6044,
    ),
]


@pytest.mark.parametrize(("size", "counts", "area"), COMPRESSED)
def test_compressed_runs_are_read_as_cocos_tools_wrote_them(size, counts, area):
    mask = runs_mask({"size": size, "counts": counts}, *size)
    assert mask.shape == tuple(size)
    assert mask.sum() == area
    again = runs_mask({"size": size, "counts": decoded_runs(counts)}, *size)
    np.testing.assert_array_equal(mask, again)


def test_compressed_shapes_lie_where_they_were_drawn():
    box = np.zeros((5, 7), bool)
    box[1:4, 2:5] = True
    np.testing.assert_array_equal(runs_mask({"size": [5, 7], "counts": ";320009"}, 5, 7), box)
    rows, columns = np.mgrid[:200, :130]
    ring = (rows - 100) ** 2 + (columns - 60) ** 2 < 45**2
    ring &= ~((rows - 90) ** 2 + (columns - 50) ** 2 < 10**2)
    np.testing.assert_array_equal(
        runs_mask({"size": [200, 130], "counts": COMPRESSED[-1][1]}, 200, 130), ring
    )


def slow_runs(mask):
    """Down the columns, first outside."""
    runs, value = [0], False
    for one in mask.T.ravel():
        if one != value:
            runs.append(0)
            value = one
        runs[-1] += 1
    return runs


def slow_text(runs):
    """COCO's compression, character by character."""
    text = ""
    for place, run in enumerate(runs):
        value = run - (runs[place - 2] if place > 2 else 0)
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if done else 32))
            if done:
                break
    return text


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32), st.floats(0, 1))
def test_runs_come_back_as_the_mask_they_were_made_of(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs = slow_runs(mask)
    record = {"size": [height, width], "counts": runs}
    np.testing.assert_array_equal(runs_mask(record, height, width), mask)
    assert decoded_runs(slow_text(runs)) == runs
    np.testing.assert_array_equal(runs_mask({**record, "counts": slow_text(runs)}, height, width), mask)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
def test_large_runs_are_decoded(runs):
    assert decoded_runs(slow_text(runs)) == runs
    assert decoded_runs(slow_text(runs).encode()) == runs


@pytest.mark.parametrize(
    ("runs", "reason", "says"),
    [
        ({"size": [3, 4], "counts": [5, 5]}, "bad_annotation", "fill 10 of 12"),
        ({"size": [4, 3], "counts": [12]}, "size_mismatch", "run lengths of"),
        ({"size": [3, 4], "counts": [13, -1]}, "bad_annotation", "whole numbers"),
        ({"size": [3, 4], "counts": [6.0, 6.0]}, "bad_annotation", "whole numbers"),
        ({"size": [3, 4], "counts": None}, "bad_annotation", "whole numbers"),
        ({"size": [3, 4]}, "bad_annotation", "size and counts"),
        ({"size": 3, "counts": [12]}, "size_mismatch", "run lengths of"),
        ({"size": [3, 4], "counts": "~"}, "bad_annotation", "byte 126"),
        ({"size": [3, 4], "counts": "\x00"}, "bad_annotation", "byte 0"),
        ({"size": [3, 4], "counts": "l"}, "bad_annotation", "middle of a number"),
        ("0<", "bad_annotation", "size and counts"),
    ],
)
def test_what_are_no_runs_is_said_so(runs, reason, says):
    with pytest.raises(BadMarks, match=says) as caught:
        runs_mask(runs, 3, 4)
    assert caught.value.reason == reason
