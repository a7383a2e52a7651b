"""Outlines and run lengths to masks: polygons by the pixel's middle, and COCO's two forms of run lengths.

A pixel belongs to a polygon when its middle is inside by the even-odd rule; a middle on a left or upper edge is
inside, on a right or lower edge outside, so that polygons that share an edge share no pixel. A part of several
polygons is their union. COCO's own tools instead count a pixel by a five-fold upsampled outline, which differs by some
pixels along the edge.

Run lengths go down the columns, first the pixels outside. The compressed form is COCO's (`maskApi.c`): five bits a
character from `0`, the sixth says that more follow, the sign is that of the last, and from the fourth run on a number
is the difference from the run two before it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from eyechart.locate.part_records import BadMarks

_FIRST, _MORE, _SIGN = 48, 0x20, 0x10


def polygons_mask(polygons: Any, height: int, width: int) -> Bool[ndarray, "height width"]:
    """The union of polygons, each a flat list x0, y0, x1, y1, ... in pixels; the first pixel covers [0, 1) x [0, 1).

    Raises:
        BadMarks: one of them is no list of three points or more, or holds what is no finite number.
    """
    mask = np.zeros((height, width), bool)
    if not isinstance(polygons, Sequence) or isinstance(polygons, str):
        raise BadMarks(
            "bad_annotation", f"polygons are {_short(polygons)}; expected lists of x, y, x, y, ..."
        )
    for flat in polygons:
        mask |= _even_odd(_corners(flat), height, width)
    return mask


def _corners(flat: Any) -> Float[ndarray, "corner 2"]:
    try:
        values = np.asarray(flat, np.float64)
    except (TypeError, ValueError):
        raise BadMarks("bad_annotation", f"a polygon is {_short(flat)}; expected x, y, x, y, ...") from None
    if values.ndim != 1 or values.size < 6 or values.size % 2:
        raise BadMarks("bad_annotation", f"a polygon is {_short(flat)}; expected three points or more")
    if not np.isfinite(values).all():
        raise BadMarks("bad_annotation", "a polygon has a corner that is no number")
    return values.reshape(-1, 2)


def _even_odd(corners: Float[ndarray, "corner 2"], height: int, width: int) -> Bool[ndarray, "height width"]:
    """Each edge flips all pixels to its right, row by row; what was flipped an odd number of times is inside."""
    x0, y0 = corners.T
    x1, y1 = np.roll(corners, -1, axis=0).T
    first, last = (
        np.clip(np.ceil(end - 0.5), 0, height).astype(np.int64)
        for end in (np.minimum(y0, y1), np.maximum(y0, y1))
    )
    edges = np.repeat(np.arange(len(corners)), last - first)
    rows = np.arange(len(edges)) - np.repeat(np.cumsum(last - first) - last, last - first)
    x0, y0, x1, y1 = (end[edges] for end in (x0, y0, x1, y1))
    crossings = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)
    top, bottom = (int(rows.min()), int(rows.max()) + 1) if rows.size else (0, 0)
    flips = np.zeros((bottom - top, width + 1), np.uint8)  # modulo 256: only the parity matters
    np.add.at(flips, (rows - top, columns), 1)
    inside = np.zeros((height, width), bool)
    inside[top:bottom] = np.cumsum(flips, axis=1, dtype=np.uint8)[:, :width] & 1
    return inside


def runs_mask(runs: Any, height: int, width: int) -> Bool[ndarray, "height width"]:
    """The mask of a run-length record, `{"size": [height, width], "counts": [...] or "..."}`.

    Raises:
        BadMarks: it is no such record, its size is another one than the picture's, or the runs do not fill it.
    """
    if not isinstance(runs, dict) or not {"size", "counts"} <= runs.keys():
        raise BadMarks("bad_annotation", f"run lengths are {_short(runs)}; expected size and counts")
    if runs["size"] not in ([height, width], (height, width)):
        raise BadMarks(
            "size_mismatch", f"run lengths of {runs['size']} (height, width), picture {[height, width]}"
        )
    counts = runs["counts"]
    lengths = decoded_runs(counts) if isinstance(counts, str | bytes) else counts
    if not isinstance(lengths, list) or not all(type(one) is int and one >= 0 for one in lengths):
        raise BadMarks("bad_annotation", f"counts are {_short(lengths)}; expected whole numbers from 0")
    if sum(lengths) != height * width:
        raise BadMarks(
            "bad_annotation", f"the runs fill {sum(lengths)} of {height * width} pixels ({height} x {width})"
        )
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T.copy()


def decoded_runs(text: str | bytes) -> list[int]:
    """The run lengths in a compressed string.

    Raises:
        BadMarks: a character is outside `0` to `o`, or the string ends in the middle of a number.
    """
    codes = list(text.encode("utf8") if isinstance(text, str) else text)
    runs: list[int] = []
    value = shift = 0
    for place, code in enumerate(codes):
        bits = code - _FIRST
        if not 0 <= bits < 64:
            raise BadMarks("bad_annotation", f"compressed counts have the byte {code} at place {place}")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise BadMarks("bad_annotation", "compressed counts end in the middle of a number")
    return runs


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
