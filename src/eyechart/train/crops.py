"""Mild crops and light changes of whole batches. Never a mirror, a hue or a grey picture: those would erase facts."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """Cut a window out of each picture, scale it back, and change its light; all drawn from torch's generator."""

    smallest: float = 0.8
    """Side of the smallest window, as a share of the picture's."""

    brightness: float = 0.15
    """Largest shift of all pixels, where the whole range is 2."""

    contrast: float = 0.2
    """Largest change of the factor by which pixels differ from grey."""

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ValueError(f"smallest must be above 0 and at most 1, got {self.smallest}")

    def __call__(
        self, pixels: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Change each picture in its own way; what leaves the range of pixels is cut off."""
        count = len(pixels)
        side = torch.empty(count).uniform_(self.smallest, 1.0)
        x, y = (torch.empty(count).uniform_(-1.0, 1.0) * (1.0 - side) for _ in range(2))
        matrix = torch.zeros(count, 2, 3)
        matrix[:, 0, 0] = matrix[:, 1, 1] = side
        matrix[:, 0, 2], matrix[:, 1, 2] = x, y
        where = functional.affine_grid(matrix.to(pixels), list(pixels.shape), align_corners=False)
        cut = functional.grid_sample(pixels, where, padding_mode="reflection", align_corners=False)
        factor = torch.empty(count, 1, 1, 1).uniform_(1 - self.contrast, 1 + self.contrast).to(pixels)
        shift = torch.empty(count, 1, 1, 1).uniform_(-self.brightness, self.brightness).to(pixels)
        return (cut * factor + shift).clamp_(-1.0, 1.0)
