"""The arithmetic of mixtures: bring features to one grid, standardise, add, interleave, concatenate."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from eyechart.core.errors import UserError

Features = Float[Tensor, "image patch dim"]
Other = Float[Tensor, "other_image other_patch other_dim"]
"""Features of a second encoder, which may not fit the first's."""

AnyFeatures = Float[Tensor, "_ _ _"]
"""Features in a mapping, each of its own shape."""

Grid = tuple[int, int]


class ChannelStatistics(NamedTuple):
    """Mean and deviation of each channel, in float32."""

    mean: Float[Tensor, " dim"]
    deviation: Float[Tensor, " dim"]
    tokens: int
    """How many patches they were taken from."""


def channel_statistics(features: Features) -> ChannelStatistics:
    """Mean and standard deviation (over n, not n - 1) of each channel over all patches of all images, in float64.

    A channel that never changes gets deviation 1, so that standardising leaves it at 0.

    Raises:
        UserError: there are fewer than two patches, or numbers that are not finite.
    """
    rows = features.reshape(-1, features.shape[-1]).double()
    if len(rows) < 2 or not bool(rows.isfinite().all()):
        raise UserError(
            f"channel statistics of {len(rows)} patches, all finite: {bool(rows.isfinite().all())}; expected two or more "
            "patches of finite numbers"
        )
    mean, deviation = rows.mean(dim=0), rows.std(dim=0, correction=0)
    still = rows.amax(dim=0) == rows.amin(dim=0)
    return ChannelStatistics(mean.float(), torch.where(still, 1.0, deviation).float(), len(rows))


def standardised(
    features: Features, mean: Float[Tensor, " dim"], deviation: Float[Tensor, " dim"]
) -> Features:
    """Each channel minus its mean, over its deviation."""
    return (features - mean) / deviation


def resampled(features: Features, grid: Grid, wanted: Grid, how: str) -> Float[Tensor, "image cell dim"]:
    """Features of one grid at the cells of another, both read row by row; untouched where the grids are equal.

    Cells are areas: corners are not aligned (`align_corners=False`), and `area` averages whole cells when it shrinks.

    Args:
        how: `bilinear`, `bicubic`, `area` or `nearest`, as torch's `interpolate` means them.

    Raises:
        UserError: there are not as many patches as the grid has cells.
    """
    if features.shape[1] != grid[0] * grid[1]:
        raise UserError(f"{features.shape[1]} patches do not fill a grid of {grid[0]} x {grid[1]} cells")
    if grid == wanted:
        return features
    as_map = features.transpose(1, 2).reshape(len(features), -1, *grid)
    smooth = {"align_corners": False} if how in ("bilinear", "bicubic") else {}
    return functional.interpolate(as_map, size=wanted, mode=how, **smooth).flatten(2).transpose(1, 2)


def added(first: Features, second: Other, alpha: float) -> Features:
    """A-MoF: alpha * first + (1 - alpha) * second (arXiv 2401.06209, section 5.1; alpha is CLIP's share).

    Raises:
        UserError: the features differ in shape.
    """
    if first.shape != second.shape:
        raise UserError(
            f"features of {list(first.shape)} and {list(second.shape)} cannot be added; expected one shape"
        )
    return alpha * first + (1 - alpha) * second


def interleaved(first: Features, second: Other) -> Float[Tensor, "image token dim"]:
    """I-MoF: token 2i is patch i of the first, token 2i + 1 patch i of the second (section 5.2).

    Raises:
        UserError: the features differ in shape.
    """
    if first.shape != second.shape:
        raise UserError(
            f"tokens of {list(first.shape)} and {list(second.shape)} cannot take turns; expected one shape"
        )
    return torch.stack([first, second], dim=2).flatten(1, 2)


def concatenated(first: Features, second: Other) -> Float[Tensor, "image patch both"]:
    """Both side by side along the channels.

    Raises:
        UserError: they differ in images or patches.
    """
    if first.shape[:2] != second.shape[:2]:
        raise UserError(
            f"features of {list(first.shape)} and {list(second.shape)} cannot stand side by side; expected as many images "
            "and patches"
        )
    return torch.cat([first, second], dim=-1)


def square(patches: int) -> Grid:
    """The square grid of so many patches.

    Raises:
        UserError: they are no square.
    """
    side = math.isqrt(patches)
    if side * side != patches:
        raise UserError(f"{patches} patches are no square grid; give the rows and columns")
    return side, side
