"""What an encoder gives of a set's pictures: patches of a layer, in memory that is bounded, and every pooled vector."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from eyechart.core.errors import UserError
from eyechart.core.images import open_image
from eyechart.core.records import Item
from eyechart.models.encoders.encoder import Encoder

ROOM = 1 << 26
"""Numbers of patch features held at once; where a pattern has more, neighbouring patches are averaged."""


def features_of(
    encoder: Encoder, items: Sequence[Item], *, layer: int, batch: int, notes: list[str]
) -> dict[str, ndarray]:
    """The patches of one layer, item x patch x dim, and every pooled vector, item x dim; pictures opened a batch at a time."""
    parts: dict[str, list[Tensor]] = {}
    patches = encoder.layers > 0
    for start in range(0, len(items), batch):
        pictures = [open_image(item.image).image for item in items[start : start + batch]]
        if patches:
            try:
                states = encoder.patches(pictures, layer=layer, batch_size=batch)
            except UserError as error:
                notes.append(f"patches were not read: {error}")
                patches = False
                parts.pop("patches", None)
            else:
                coarse = _coarser(states.features, states.grid, len(items))
                parts.setdefault("patches", []).append(coarse)
        for pooling in encoder.poolings:
            vectors = encoder.embed(pictures, pooling=pooling, batch_size=batch)
            parts.setdefault(pooling, []).append(vectors)
    return {name: torch.cat(rows).numpy() for name, rows in parts.items()}


def _coarser(
    patches: Float[Tensor, "image patch dim"], grid: tuple[int, int], items: int
) -> Float[Tensor, "image cell dim"]:
    """Patches averaged in square blocks, as small as the room for so many items allows."""
    height, width = grid
    block = 1
    while items * -(-height // block) * -(-width // block) * patches.shape[2] > ROOM and block < max(grid):
        block += 1
    if block == 1:
        return patches
    laid = patches.reshape(len(patches), height, width, -1).permute(0, 3, 1, 2)
    pooled = torch.nn.functional.avg_pool2d(laid, block, ceil_mode=True, count_include_pad=False)
    return pooled.flatten(2).transpose(1, 2)
