"""Pictures made on the spot."""

import numpy as np
from PIL import Image


def picture(width: int, height: int, seed: int = 0, *, cells: int = 5) -> Image.Image:
    """A picture of coloured cells, in RGB: smooth enough to survive resizing, and never twice the same."""
    colours = np.random.default_rng(seed).integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
