"""What an encoder gives of a set's pictures: patches of a layer, in memory that is bounded, and every pooled vector."""

from collections.abc import Sequence

import torch
from numpy import ndarray
from torch import Tensor

from eyechart.core.errors import UserError
from eyechart.core.images import open_image
from eyechart.core.records import Item
from eyechart.models.encoders.encoder import Encoder
from eyechart.train.pair_reading import ROOM, coarser


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
                coarse = coarser(states.features, states.grid, items=len(items), room=ROOM)
                parts.setdefault("patches", []).append(coarse)
        for pooling in encoder.poolings:
            vectors = encoder.embed(pictures, pooling=pooling, batch_size=batch)
            parts.setdefault(pooling, []).append(vectors)
    return {name: torch.cat(rows).numpy() for name, rows in parts.items()}
