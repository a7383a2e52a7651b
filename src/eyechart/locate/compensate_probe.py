"""The part probe: which part a state belongs to, read linearly from the mean over the part's positions.

The lens reads only what is already in the form of the vocabulary, and little of that early on; the probe
reads whatever is linearly there. It is trained twice, and both readings are needed:

- *transfer*: trained on the intact model's states and read on those of the cut model. Falls when information
  is gone, and as well when it is there in another format.
- *refit*: trained on the cut model's states themselves. Falls only when what is linearly there has gone.

Transfer low and refit high is a change of format; both low is a loss. Images are never on both sides of a
split; labels dealt out anew are the control. Which part is meant can often be guessed from the object alone,
so `options` should hold the parts of the instance's own object.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from eyechart.core.errors import UserError
from eyechart.locate.readable_scale import readability
from eyechart.train.readability import Task, read_linearly
from eyechart.train.transfer import read_transferred

Training = Literal["transfer", "refit"]

TRAININGS: dict[Training, str] = {
    "transfer": "Trained on the intact model's states, read on those of the cut model.",
    "refit": "Trained and read on the states of the cut model.",
}

INTACT = "intact"

Features = Mapping[str, Float[ndarray, "instance dim"]]
"""By cell (`intact` among them), one row for each part instance."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartsRead:
    """What the probe read in one cell with one training."""

    right: Float[ndarray, "instance layer"]
    control: Float[ndarray, "instance layer"]

    def readability(self) -> Float[ndarray, "instance layer"]:
        """On the scale `accuracy`, for `compensate.Readouts`."""
        return readability(self.right, scale="accuracy", control=self.control)


def part_features(
    states: Float[Tensor, "layer position dim"], regions: Sequence[Sequence[int]]
) -> Float[ndarray, "region layer dim"]:
    """The mean state over each region's positions, at every layer, in float32.

    Raises:
        UserError: a region is empty; leave such parts out and list them.
    """
    empty = [number for number, region in enumerate(regions) if not len(region)]
    if empty:
        raise UserError(f"regions {empty} have no position; leave such parts out and list them")
    means = [
        states[:, torch.as_tensor(list(region), dtype=torch.long)].float().mean(dim=1) for region in regions
    ]
    return np.asarray(torch.stack(means).cpu().numpy())


def probe_parts(
    features_of: Callable[[int], Features],
    layers: Sequence[int],
    parts: Sequence[str],
    images: Sequence[Hashable],
    *,
    options: Sequence[tuple[str, ...]] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> dict[Training, dict[str, PartsRead]]:
    """Read the parts at every layer of every cell, with both trainings.

    Args:
        features_of: the features of a layer, so that one layer's are held at a time.
        layers: to read.
        parts: the name of each instance.
        images: the image of each instance, never on both sides of a split.
        options: the names among which each instance's is picked; None for all there are.
        folds: of the cross-validation.
        seed: of folds, penalty and control.

    Raises:
        UserError: no cell is called `intact`, or cells differ from layer to layer.
        ValueError: numbers do not fit, there is one part name only, or there are fewer images than folds.
    """
    task = Task(
        labels=tuple(parts), groups=tuple(images), options=None if options is None else tuple(options)
    )
    columns: dict[Training, dict[str, list[tuple[ndarray, ndarray]]]] = {"transfer": {}, "refit": {}}
    for layer in layers:
        features = features_of(layer)
        if INTACT not in features:
            raise UserError(f"layer {layer} has the cells {list(features)}; expected one called {INTACT!r}")
        moved = read_transferred(features[INTACT], features, task, folds=folds, seed=seed)
        for cell, rows in features.items():
            own = read_linearly(rows, task, folds=folds, seed=seed)
            columns["transfer"].setdefault(cell, []).append((moved[cell].right, moved[cell].control))
            columns["refit"].setdefault(cell, []).append((own.right, own.control))
    return {
        training: {cell: _joined(cell, read, len(layers)) for cell, read in cells.items()}
        for training, cells in columns.items()
    }


def _joined(cell: str, read: Sequence[tuple[ndarray, ndarray]], layers: int) -> PartsRead:
    if len(read) != layers:
        raise UserError(
            f"the cell {cell!r} was given at {len(read)} of {layers} layers; expected it at all of them"
        )
    right, control = (np.stack(some, axis=1) for some in zip(*read, strict=True))
    return PartsRead(right=right, control=control)
