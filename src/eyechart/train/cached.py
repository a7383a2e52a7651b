"""What frozen encoders see of a set of pictures, computed once and memory-mapped."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, Shaped, UInt8
from numpy import ndarray
from torch import Tensor

from eyechart.core.files import write_json
from eyechart.train.loop import Report

Features = Float16[ndarray, "picture patch dim"] | Float32[ndarray, "picture patch dim"]

Images = UInt8[ndarray, "image side side 3"]


class SideBySide:
    """Features of several encoders on one grid, joined along the channels when a picture's are read."""

    def __init__(self, parts: Sequence[Features]) -> None:
        """Take each encoder's features of the same pictures.

        Raises:
            ValueError: they differ in pictures or patches.
        """
        if len({part.shape[:2] for part in parts}) != 1:
            raise ValueError(
                f"features of shapes {[part.shape for part in parts]} cannot stand side by side; expected as many pictures"
                " and patches"
            )
        self.parts = tuple(parts)
        self.shape: tuple[int, int, int] = (*parts[0].shape[:2], sum(part.shape[2] for part in parts))
        self.dtype: Any = np.result_type(*parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, picture: int | np.integer[Any] | slice) -> Shaped[ndarray, "*any"]:
        return np.concatenate([part[picture] for part in self.parts], axis=-1)


def cached(
    see: Callable[[Images], Tensor],
    images: Images,
    folder: Path,
    *,
    shape: tuple[int, int],
    identity: Mapping[str, Any],
    dtype: str = "float16",
    batch: int = 128,
    report: Report | None = None,
) -> Features:
    """The features of all images as a memory map on disk, computed where they are not there yet.

    Args:
        see: gives a batch's features, (image, patch, dim).
        folder: holds `features.npy` and `features.json`, which says whose features they are and how many are done.
        shape: patches and channels of one image.
        identity: what the features depend on; a folder with another one is computed anew.
        report: called with "features", images done, images in all.
    """
    wanted = {**identity, "shape": [len(images), *shape], "dtype": dtype}
    wanted = json.loads(json.dumps(wanted, default=str))
    folder.mkdir(parents=True, exist_ok=True)
    record, path = folder / "features.json", folder / "features.npy"
    there = json.loads(record.read_text()) if record.exists() and path.exists() else {}
    done = there.get("done", 0) if there.get("identity") == wanted else 0
    mapped = np.lib.format.open_memmap(
        path, mode="r+" if done else "w+", dtype=dtype, shape=tuple(wanted["shape"])
    )
    while done < len(images):
        part = images[done : done + batch]
        mapped[done : done + len(part)] = see(part).numpy()
        done += len(part)
        if done == len(images) or done % (16 * batch) == 0:
            mapped.flush()
            write_json(record, {"identity": wanted, "done": done})
        if report is not None:
            report("features", done, len(images))
    found: Features = np.load(path, mmap_mode="r")
    return found
