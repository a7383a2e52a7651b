"""The camera: from pixels to rays, and from points in space back to pixels."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from eyechart.world.scene import Camera


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A camera with a square picture of so many pixels a side; its axes are unit vectors in world space."""

    eye: Float32[ndarray, " 3"]
    right: Float32[ndarray, " 3"]
    up: Float32[ndarray, " 3"]
    forward: Float32[ndarray, " 3"]
    half: float
    """Half the side of the picture one unit in front of the eye."""

    size: int

    @property
    def pixel(self) -> float:
        """Side of a pixel one unit in front of the eye."""
        return 2 * self.half / self.size

    def rays(self, column: Float32[ndarray, " n"], row: Float32[ndarray, " n"]) -> Float32[ndarray, "3 n"]:
        """Directions through places in the picture, in pixels (0.5 is the middle of the first).

        They are one long along `forward`, so the distance to a hit along a ray, in its lengths, is the hit's depth.
        """
        across = column * np.float32(self.pixel) - np.float32(self.half)
        above = np.float32(self.half) - row * np.float32(self.pixel)
        directions: Float32[ndarray, "3 n"] = (
            self.forward[:, None] + self.right[:, None] * across + self.up[:, None] * above
        )
        return directions

    def project(self, points: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3"]:
        """Column, row (in pixels, fractional) and depth of points in space, in one row each.

        Depth is the distance along `forward`. A point with a depth of 0 or less lies behind the camera; its column
        and row mean nothing.
        """
        x, y, z = (points - self.eye).T

        def along(axis: Float32[ndarray, " 3"]) -> Float[ndarray, " n"]:
            reach: Float[ndarray, " n"] = x * axis[0] + y * axis[1] + z * axis[2]
            return reach

        depth = along(self.forward)
        scale = 1 / (np.where(depth == 0, 1e-9, depth) * self.pixel)
        middle = self.size / 2
        return np.stack([middle + along(self.right) * scale, middle - along(self.up) * scale, depth], axis=1)


def view_of(camera: Camera, size: int) -> View:
    """The view of a camera for a picture of `size` pixels a side."""
    eye, target = np.array(camera.eye), np.array(camera.target)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    return View(
        eye=eye.astype(np.float32),
        right=right.astype(np.float32),
        up=np.cross(right, forward).astype(np.float32),
        forward=forward.astype(np.float32),
        half=math.tan(math.radians(camera.fov) / 2),
        size=size,
    )
