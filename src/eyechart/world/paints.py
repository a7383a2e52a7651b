"""The paints of the world: one sRGB colour for each word that is spoken and for each part that is always painted alike."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

COLOR_RGB: Mapping[str, tuple[int, int, int]] = {
    "red": (208, 28, 32),
    "orange": (246, 128, 14),
    "yellow": (250, 214, 30),
    "green": (38, 150, 58),
    "blue": (34, 84, 206),
    "purple": (124, 52, 168),
    "pink": (246, 136, 186),
    "white": (242, 242, 240),
}
"""The spoken colours (sRGB, 0..255): far apart in hue or, as red and pink, in lightness."""

SLOT_RGB: Mapping[str, tuple[int, int, int]] = {
    "glass": (150, 196, 214),
    "dark": (44, 44, 48),
    "light": (226, 218, 200),
    "glow": (255, 236, 150),
    "water": (72, 160, 196),
    "wood": (140, 92, 54),
    "leaf": (92, 128, 52),
}
"""The paints that never change (sRGB, 0..255)."""

SHINE: Mapping[str, float] = {"glass": 0.5, "water": 0.5}
"""How strong the highlight of a fixed paint is; the others have none."""

SHINY = 0.55
"""How strong the highlight of the material `shiny` is."""


def linear(srgb: Sequence[float] | Float[ndarray, "*shape"]) -> Float32[ndarray, "*shape"]:
    """sRGB values in 0..1 as linear light (IEC 61966-2-1)."""
    value = np.asarray(srgb, dtype=np.float64)
    bent = ((value + 0.055) / 1.055) ** 2.4
    light: Float32[ndarray, "*shape"] = np.where(value <= 0.04045, value / 12.92, bent).astype(np.float32)
    return light


def encoded(light: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """Linear light as sRGB values in 0..1, the inverse of `linear`; what is outside 0..1 is clipped."""
    value = np.clip(light.astype(np.float64), 0.0, 1.0)
    return np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)


def paint(name: str) -> Float32[ndarray, " 3"]:
    """The linear colour of a spoken colour or a fixed paint."""
    table = COLOR_RGB if name in COLOR_RGB else SLOT_RGB
    return linear([channel / 255 for channel in table[name]])
