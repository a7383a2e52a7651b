"""What frozen encoders see of each image, computed once: keyed by the image's bytes, the encoders and their settings.

A store is a folder for each combination of encoders, preprocessing and number format. Processes write parts of their
own; all are read. A batch of images counts when its line in `index.jsonl` is on the disk: a killed run loses the batch
in flight, and the same images are computed in the same batches when it goes on.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor

from eyechart.core.errors import UserError
from eyechart.core.files import JsonLines, write_json
from eyechart.core.lock import FolderLock
from eyechart.models.vlms.feeding import Feeding
from eyechart.train.loop import Report
from eyechart.train.samples import Picture, open_picture
from eyechart.train.weights import weights_sha256

Read = Callable[[Sequence[str]], list[dict[str, Tensor]]]
"""Gets images by the SHA-256 of their files; gives what each encoder sees of them, (patch, dim), in float32."""

See = Callable[[Sequence[Image.Image]], list[dict[str, Tensor]]]
"""Gets pictures; gives of each what every encoder sees, by the encoder's name: `Feeding.features`."""

Format = Literal["float32", "float16"]

INDEX, IDENTITY = "index.jsonl", "identity.json"

NEAR = 1e-2
"""How far, as a share of the largest value, features of one picture may be from stored ones and be the same features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where an image's features of one encoder lie."""

    part: str
    start: int
    """In rows."""

    patches: int


def identity_of(feeding: Feeding, model: Any, processor: Any, dtype: Format) -> dict[str, Any]:
    """What a store's features depend on: encoders bit for bit, how they are read, preprocessing, number format."""
    settings = {
        key: value
        for key, value in model.config.to_dict().items()
        if not isinstance(value, dict)
        and any(word in key for word in ("vision", "feature", "second", "image"))
    }
    readers = [name for name in processor.get_attributes() if "image_processor" in name]
    found = {
        "encoders": {name: weights_sha256(one) for name, one in sorted(feeding.encoders.items())},
        "settings": settings,
        "preprocessing": {name: getattr(processor, name).to_dict() for name in sorted(readers)},
        "dtype": dtype,
    }
    known: dict[str, Any] = json.loads(json.dumps(found, default=str, sort_keys=True))
    return known


class FeatureStore:
    """Features on the disk, memory-mapped."""

    def __init__(self, folder: Path, see: See, identity: Mapping[str, Any], *, process: int = 0) -> None:
        """Open the store of this identity in `folder`, or begin it.

        Args:
            process: the part this process writes.

        Raises:
            UserError: stored features are not what these encoders see (something that no setting tells has changed).
        """
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self.folder, self._see = folder / key, see
        self._dtype, self._process = np.dtype(identity["dtype"]), process
        self._places: dict[str, dict[str, _Place]] = {}
        self._maps: dict[tuple[str, str], ndarray] = {}
        self._widths: dict[str, int] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / IDENTITY).exists():
            write_json(self.folder / IDENTITY, dict(identity))
        self._check_probe()
        self.reload()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._places

    def __call__(self, images: Sequence[str]) -> list[dict[str, Tensor]]:
        """The features of images that are stored, in float32; see `Read`."""
        return [
            {name: self._rows(name, place) for name, place in self._places[sha256].items()}
            for sha256 in images
        ]

    def fill(
        self,
        pictures: Mapping[str, Picture],
        *,
        processes: int = 1,
        batch: int = 16,
        report: Report | None = None,
    ) -> None:
        """Compute what is not stored yet; of several processes each does its share. `reload` afterwards, when all are done.

        Args:
            pictures: by the SHA-256 of their files.
            report: called with "features", images done, images in all.

        Raises:
            UserError: another run writes the same part, or a value is too large for float16.
        """
        own = [sha256 for sha256 in pictures if int(sha256, 16) % processes == self._process]
        asked = [sha256 for sha256 in own if sha256 not in self._places]
        if not asked:
            return
        part = self.folder / f"part-{self._process}"
        lock = FolderLock(part)
        index = JsonLines(part / INDEX, key="first")
        try:
            done = self._healed(part, index)
            for start in range(0, len(asked), batch):
                names = asked[start : start + batch]
                shown = [open_picture(pictures[name]).image for name in names]
                done += self._append(part, index, names, self._see(shown), done)
                if report is not None:
                    report("features", start + len(names), len(asked))
        finally:
            index.close()
            lock.release()

    def reload(self) -> None:
        """Take in what all processes have written."""
        self._places, self._maps = {}, {}
        for index in sorted(self.folder.glob(f"part-*/{INDEX}")):
            starts: dict[str, int] = {}
            for line in _whole_lines(index):
                self._widths |= line["widths"]
                for name, counts in line["patches"].items():
                    for sha256, patches in zip(line["images"], counts, strict=True):
                        at = starts.setdefault(name, 0)
                        place = _Place(part=index.parent.name, start=at, patches=patches)
                        self._places.setdefault(sha256, {})[name] = place
                        starts[name] = at + patches

    def _append(
        self,
        part: Path,
        index: JsonLines,
        names: Sequence[str],
        seen: Sequence[Mapping[str, Tensor]],
        done: int,
    ) -> int:
        patches: dict[str, list[int]] = {}
        for name in seen[0]:
            whole = torch.cat([one[name] for one in seen]).float().cpu().numpy()
            with np.errstate(over="ignore"):  # it is looked for in the next line
                rows = whole.astype(self._dtype)
            if not np.isfinite(rows).all():
                raise UserError(
                    f"{name} gives values that {self._dtype} cannot hold; set features_dtype to float32"
                )
            with (part / f"{name}.bin").open("ab") as out:
                out.write(rows.tobytes())
                out.flush()
                os.fsync(out.fileno())
            patches[name] = [len(one[name]) for one in seen]
        widths = {name: int(one.shape[1]) for name, one in seen[0].items()}
        index.append({"first": done, "images": list(names), "patches": patches, "widths": widths})
        return len(names)

    def _healed(self, part: Path, index: JsonLines) -> int:
        """Cut off features whose line was never written; how many images are whole."""
        sizes: dict[str, int] = {}
        count = 0
        for line in index:
            count += len(line["images"])
            for name, patches in line["patches"].items():
                sizes[name] = sizes.get(name, 0) + sum(patches) * line["widths"][name] * self._dtype.itemsize
        for path in part.glob("*.bin"):
            os.truncate(path, sizes.get(path.stem, 0))
        return count

    def _rows(self, name: str, place: _Place) -> Tensor:
        where = (place.part, name)
        if where not in self._maps:
            flat = np.memmap(self.folder / place.part / f"{name}.bin", dtype=self._dtype, mode="r")
            width = self._widths[name]
            self._maps[where] = flat[: len(flat) // width * width].reshape(-1, width)
        rows = self._maps[where][place.start : place.start + place.patches]
        return torch.from_numpy(np.array(rows, np.float32))

    def _check_probe(self) -> None:
        """The features of one fixed picture must be those that were stored with the first."""
        for name, seen in self._see([probe_picture()])[0].items():
            path, rows = self.folder / f"probe-{name}.json", seen.float().cpu().numpy()
            if not path.exists():
                write_json(path, rows.astype(float).round(6).tolist(), indent=None)
                continue
            there = np.array(json.loads(path.read_text()))
            if there.shape != rows.shape or np.abs(there - rows).max() > NEAR * np.abs(there).max():
                raise UserError(
                    f"{self.folder} holds features of {name} that are not what it sees now, though all settings are the "
                    "same; another version of a library? Remove the folder, or name another features_dir"
                )


def direct(see: See, pictures: Mapping[str, Picture]) -> Read:
    """Features computed anew each time they are read, for sets too large to store."""

    def read(images: Sequence[str]) -> list[dict[str, Tensor]]:
        if not images:
            return []
        shown = [open_picture(pictures[sha256]).image for sha256 in images]
        return [{name: rows.float().cpu() for name, rows in one.items()} for one in see(shown)]

    return read


def probe_picture() -> Image.Image:
    """A fixed picture of noise and slopes, 160 x 120."""
    slopes = np.add.outer(np.arange(120), np.arange(160))[..., None] * np.array([1, 2, 3])
    noise = np.random.default_rng(0).integers(0, 64, (120, 160, 3))
    return Image.fromarray(((slopes + noise) % 256).astype(np.uint8))


def _whole_lines(index: Path) -> list[dict[str, Any]]:
    """The lines that were written to their end; a last torn one does not count."""
    lines = index.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]
