"""A folder of embeddings: append-only safetensors shards, one row an image, found by content hash.

What a row depends on besides the image (encoder, revision, pooling, preprocessing, dtype) is the store's key; a folder
written under one key refuses another. Rows are float32. Shards appear by an atomic rename, so a killed run loses at most
the shard in flight; what it leaves of that one is for `files.remove_unfinished`, by who holds the folder's lock.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from eyechart.core.errors import UserError
from eyechart.core.files import write_bytes


class EmbeddingStore:
    """Rows of one encoder under one setting, keyed by image content hash (sha256 of the file's bytes)."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self._rows: dict[str, tuple[Path, int]] = {}
        self._shards = sorted(folder.glob("shard-*.safetensors"))
        for shard in self._shards:
            self._read_index(shard)

    def _read_index(self, shard: Path) -> None:
        try:
            with safe_open(shard, framework="numpy") as file:
                meta = file.metadata() or {}
        except SafetensorError as error:
            raise UserError(
                f"{shard} is no readable safetensors file ({error}); delete it to compute it again"
            ) from None
        if meta.get("key") != self.key:
            raise UserError(
                f"{shard} holds embeddings of {meta.get('key')!r}, expected {self.key!r}; use another folder or --fresh"
            )
        for row, name in enumerate(json.loads(meta["images"])):
            self._rows.setdefault(name, (shard, row))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        """The hashes of all images that have a row."""
        return iter(self._rows)

    def __contains__(self, image: object) -> bool:
        return image in self._rows

    def missing(self, images: Iterable[str]) -> list[str]:
        """The hashes not stored yet, each once, in the order given."""
        return [name for name in dict.fromkeys(images) if name not in self._rows]

    def add(
        self, images: Sequence[str], rows: Float[np.ndarray, "image dim"], *, shard: str | None = None
    ) -> None:
        """Write one shard. Rows that are not finite are refused, by image.

        Args:
            shard: what to call it, besides a hash of the images it is of, so that processes that write to the folder at
                the same time overwrite nothing but the same images' rows; by itself it gets the next number.

        Raises:
            OSError: the disk would not take it; the folder is as it was before.
        """
        bad = [name for name, row in zip(images, rows, strict=True) if not np.isfinite(row).all()]
        if bad:
            raise UserError(f"the encoder gave NaN or infinity for {len(bad)} image(s): {', '.join(bad[:5])}")
        path = self.folder / f"shard-{self._next() if shard is None else _named(shard, images)}.safetensors"
        meta = {"key": self.key, "images": json.dumps(list(images))}
        write_bytes(path, save({"rows": np.ascontiguousarray(rows, dtype=np.float32)}, metadata=meta))
        self._shards.append(path)
        for row, name in enumerate(images):
            self._rows.setdefault(name, (path, row))

    def _next(self) -> str:
        numbers = [shard.stem.removeprefix("shard-") for shard in self._shards]
        return f"{max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1:05d}"

    def rows(self, images: Sequence[str]) -> Float[np.ndarray, "image dim"]:
        """The rows of these images, in their order.

        Raises:
            KeyError: an image was never added.
        """
        parts = list(self.parts(images))
        if not parts:
            return np.zeros((0, 0), dtype=np.float32)
        found = np.empty((len(images), parts[0][1].shape[1]), np.float32)
        for places, rows in parts:
            found[places] = rows
        return found

    def parts(self, images: Sequence[str]) -> Iterator[tuple[list[int], Float[np.ndarray, "part dim"]]]:
        """The rows of these images a shard at a time, with their places in the order given; little is held at once.

        Raises:
            KeyError: an image was never added.
        """
        absent = self.missing(images)
        if absent:
            raise KeyError(
                f"no embedding stored for {absent[0]} (and {len(absent) - 1} more) in {self.folder}"
            )
        places: dict[Path, list[int]] = {}
        for place, name in enumerate(images):
            places.setdefault(self._rows[name][0], []).append(place)
        for shard, wanted in places.items():
            rows = self._load(shard)
            yield wanted, rows[[self._rows[images[place]][1] for place in wanted]]

    @staticmethod
    def _load(shard: Path) -> Float[np.ndarray, "image dim"]:
        with safe_open(shard, framework="numpy") as file:
            return np.asarray(file.get_tensor("rows"))


def _named(shard: str, images: Sequence[str]) -> str:
    return f"{shard}-{hashlib.sha256(json.dumps(list(images)).encode()).hexdigest()[:12]}"
