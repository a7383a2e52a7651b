"""Features that nobody trained, to stand beside those of every encoder: raw pixels, and histograms of gradients."""

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray


def raw_pixels(
    pictures: UInt8[ndarray, "image side side 3"], *, side: int = 24
) -> Float[ndarray, "image dim"]:
    """The picture itself, averaged down to `side` pixels.

    Raises:
        ValueError: the pictures' side is no multiple of `side`.
    """
    full = pictures.shape[1]
    if full % side:
        raise ValueError(f"pictures of {full} pixels cannot be averaged down to {side}: no whole blocks")
    block = full // side
    split = pictures.reshape(len(pictures), side, block, side, block, 3).astype(np.float32)
    return np.asarray(split.mean(axis=(2, 4)).reshape(len(pictures), -1) / 255)


def gradient_histograms(
    pictures: UInt8[ndarray, "image side side 3"], *, cell: int = 12, bins: int = 9
) -> Float[ndarray, "image cell dim"]:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), one vector for each cell, row by row.

    Central differences without smoothing, of the colour channel with the largest gradient; directions without sign,
    each gradient shared between the two nearest bins and counted in the cell it lies in; each cell is normalised
    in the four blocks of 2 x 2 cells that hold it, cut off at 0.2 and normalised again, as there. Cells at the
    border have their outer neighbours repeated. With a cell as large as a patch they stand beside patch features.

    Returns:
        dim is 4 * `bins`.

    Raises:
        ValueError: the pictures' side is no multiple of `cell`.
    """
    side = pictures.shape[1]
    if side % cell:
        raise ValueError(f"pictures of {side} pixels cannot be cut into cells of {cell}")
    grid = side // cell
    strength, angle = _gradients(pictures)
    place = angle / np.pi * bins - 0.5
    low = np.floor(place).astype(int)
    cells = np.zeros((len(pictures), grid, grid, bins), dtype=np.float32)
    for bin_, share in ((low, 1 - (place - low)), (low + 1, place - low)):
        for number in range(bins):
            votes = np.where(bin_ % bins == number, strength * share, 0.0)
            cells[..., number] += votes.reshape(len(pictures), grid, cell, grid, cell).sum(axis=(2, 4))
    return _normalised(cells).reshape(len(pictures), grid * grid, 4 * bins)


def _gradients(
    pictures: UInt8[ndarray, "image side side 3"],
) -> tuple[Float[ndarray, "image side side"], Float[ndarray, "image side side"]]:
    """Strength, and direction in [0, pi), of the strongest channel at each pixel."""
    values = pictures.astype(np.float32) / 255
    down, right = np.zeros_like(values), np.zeros_like(values)
    down[:, 1:-1] = values[:, 2:] - values[:, :-2]
    right[:, :, 1:-1] = values[:, :, 2:] - values[:, :, :-2]
    strength = np.hypot(down, right)
    best = strength.argmax(axis=-1)[..., None]
    y, x, most = (np.take_along_axis(array, best, axis=-1)[..., 0] for array in (down, right, strength))
    return most, np.arctan2(y, x) % np.float32(np.pi)


def _normalised(cells: Float[ndarray, "image row column bin"]) -> Float[ndarray, "image row column four"]:
    around = np.pad(cells, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    energy = np.square(around).sum(axis=-1)
    blocks = energy[:, 1:, 1:] + energy[:, :-1, 1:] + energy[:, 1:, :-1] + energy[:, :-1, :-1]
    corners = (blocks[:, :-1, :-1], blocks[:, :-1, 1:], blocks[:, 1:, :-1], blocks[:, 1:, 1:])
    parts = [np.minimum(cells / np.sqrt(block + 1e-4)[..., None], 0.2) for block in corners]
    joined = np.concatenate(parts, axis=-1)
    return np.asarray(joined / np.sqrt(np.square(joined).sum(axis=-1, keepdims=True) + 1e-4))
