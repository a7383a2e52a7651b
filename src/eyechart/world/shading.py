"""How light falls: one distant light, light from all round, a little from the viewer, and highlights."""

import math

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from eyechart.world.scene import Light

SPREAD = 0.024
"""How far the light's rays to one point differ (tangent of the angle): what makes the edges of shadows soft."""

FILL = 0.22
"""Strength of the light that comes from the viewer, so that shapes are seen when the light is behind them."""

Vectors = Float32[ndarray, "3 n"]
Values = Float32[ndarray, " n"]

# In a ring round the middle one: the light that each ray of a pixel sees, in the order of the rays.
_RING = ((0.0, 0.0), (0.9, 0.3), (-0.3, 0.9), (-0.9, -0.3), (0.3, -0.9))


def light_directions(light: Light, rays: int) -> Float32[ndarray, "ray 3"]:
    """Unit vectors towards the light for each ray of a pixel, the first one exact.

    Azimuth 0 is light from the viewer's side (+z), 90 from the right (+x).
    """
    azimuth, elevation = math.radians(light.azimuth), math.radians(light.elevation)
    sine, cosine = math.sin(azimuth), math.cos(azimuth)
    flat, high = math.cos(elevation), math.sin(elevation)
    towards = np.array([flat * sine, high, flat * cosine])
    across = np.array([cosine, 0.0, -sine])
    above = np.cross(towards, across)
    spread = [towards + SPREAD * (a * across + b * above) for a, b in _RING[:rays]]
    return np.array([one / np.linalg.norm(one) for one in spread], dtype=np.float32)


def light_color(light: Light) -> Float32[ndarray, "3 1"]:
    """Linear colour of the direct light: its strength, a little yellowish or bluish."""
    tint = 0.07 * light.warmth
    return np.array([[1 + tint], [1.0], [1 - tint]], dtype=np.float32) * np.float32(light.strength)


def dot(first: Float32[ndarray, "3 #n"], second: Float32[ndarray, "3 #n"]) -> Values:
    """Scalar products, column by column."""
    products: Values = first[0] * second[0] + first[1] * second[1] + first[2] * second[2]
    return products


def unit(vectors: Vectors) -> Vectors:
    """Vectors brought to length one."""
    scaled: Vectors = vectors / np.sqrt(dot(vectors, vectors))
    return scaled


def lit(
    albedo: Vectors,
    *,
    light: Light,
    facing: Values,
    upward: Values,
    towards_eye: Values,
    open_sky: Values,
) -> Vectors:
    """Light that a matte surface sends back (Lambert).

    Args:
        albedo: its linear colour.
        light: the scene's light.
        facing: cosine of normal and light, 0 where the light does not reach.
        upward: the normal's y; what faces down gets less of the light from all round.
        towards_eye: cosine of normal and the way to the eye.
        open_sky: share of the light from all round that is not blocked by what stands near.
    """
    ambient = np.float32(light.ambient) * (np.float32(0.78) + np.float32(0.22) * upward) * open_sky
    ambient += np.float32(FILL) * np.maximum(towards_eye, 0)
    sent: Vectors = albedo * (ambient + light_color(light) * facing)
    return sent


def highlight(normals: Vectors, towards_light: Vectors, to_eye: Vectors) -> Values:
    """Blinn-Phong's highlight with exponent 64, by squaring, so that it is the same on every machine."""
    cosine: Values = np.maximum(dot(normals, unit(towards_light + to_eye)), 0)
    for _ in range(6):
        cosine = cosine * cosine
    return cosine
