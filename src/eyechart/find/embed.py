"""The embedding pass: every picture of a source under every encoder, once; resumable, and what cannot be read is listed.

Vectors are kept by the hash of a picture's bytes in a cache beside the run folders (`core.embeddings`), so that another
run on the same pictures computes nothing again. What became of each picture is written to the run folder in portions; a
killed run loses the portion in flight.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from eyechart.core.embeddings import EmbeddingStore
from eyechart.core.errors import UserError
from eyechart.core.files import read_table, remove_unfinished, reserve
from eyechart.core.lock import FolderLock
from eyechart.core.records import Quarantined
from eyechart.core.runs import RunFolder
from eyechart.find.decode import Decoded, decoded
from eyechart.find.listing import Picture

log = logging.getLogger(__name__)

PORTION = 512
"""Pictures to a portion."""

HASHES = "difference-hash-8x8"
"""The perceptual hashes' place in the cache."""

Progress = Callable[[str, int, int], None]

Vectors = Float[ndarray, "_ _"]
"""A row for each picture."""

_Known = dict[str, Float[ndarray, " _"]]
"""A row by the hash of a picture's bytes."""

IMAGES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        *(pa.field(name, pa.string()) for name in ("sha256", "label", "pair", "pattern", "reason", "detail")),
    ]
)
"""What became of each picture: the hash of its bytes, or why it cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What an encoder gives of pictures, and a name for everything that it depends on."""

    name: str
    key: str
    embed: Callable[[Sequence[Image.Image], int], Vectors]
    """Called with pictures and how many to compute at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A picture and the hash of its bytes, or why it cannot be used."""

    picture: Picture
    sha256: str | None
    bad: Quarantined | None = None


def embed_pictures(
    pictures: Sequence[Picture],
    views: Sequence[View],
    *,
    cache: Path,
    run: RunFolder,
    batch_size: int,
    workers: int,
    progress: Progress,
) -> list[Seen]:
    """Embed what is not in the cache yet, and say what became of each picture.

    Args:
        cache: a folder with a store for each view; locked while it is written.
        batch_size: pictures at a time; halved when the device runs out of memory.
        workers: processes that decode.
        progress: told pictures that are done.

    Raises:
        UserError: not even one picture fits on the device, an encoder gives values that are not finite, or another
            process writes to the cache.
    """
    remove_undone(pictures, run.path, cache, [view.key for view in views])
    missing = {name: some for name, some in portions(pictures).items() if not (run.path / name).exists()}
    wanted = [picture for some in missing.values() for picture in some]
    done = len(pictures) - len(wanted)
    progress("embedding", done, len(pictures))
    if missing:
        with locked(cache, [view.key for view in views]):
            taker = Taker(views, cache, batch_size)
            stream = decoded(wanted, known=taker.known, workers=workers)
            for name, some in missing.items():
                rows = []
                for one in taker.taken(stream, len(some)):
                    rows.append(row_of(one))
                    done += 1
                    progress("embedding", done, len(pictures))
                run.write_table(name, rows, IMAGES_SCHEMA)
    return all_seen(pictures, run.path)


def portions(pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    """The pictures in portions, by the name of the table that says what became of each."""
    starts = range(0, len(pictures), PORTION)
    return {
        f"images/{number:06d}.parquet": list(pictures[start : start + PORTION])
        for number, start in enumerate(starts)
    }


def remove_undone(pictures: Sequence[Picture], folder: Path, cache: Path, keys: Sequence[str]) -> None:
    """Remove the tables of portions that are not done after all: damaged ones, and those whose vectors are gone."""
    tables = {name: some for name, some in portions(pictures).items() if (folder / name).exists()}
    known = in_all(stores_of(cache, keys)) if tables else set()
    for name, some in tables.items():
        try:
            rows = read_table(folder / name)
        except UserError as error:
            log.warning("this portion is done again: %s", error)
        else:
            named = [row["id"] for row in rows] == [picture.id for picture in some]
            if named and known.issuperset(row["sha256"] for row in rows if row["sha256"] is not None):
                continue
            log.warning("%s is done again: not all of its pictures have vectors in %s", folder / name, cache)
        (folder / name).unlink()


def all_seen(pictures: Sequence[Picture], folder: Path) -> list[Seen]:
    """What the tables of all portions say."""
    found = [row for name in portions(pictures) for row in read_table(folder / name)]
    return [_seen(picture, row) for picture, row in zip(pictures, found, strict=True)]


@contextmanager
def locked(cache: Path, keys: Sequence[str]) -> Iterator[None]:
    """The stores of these keys and of the perceptual hashes, closed to other processes.

    What a killed process was writing there is removed; whoever writes now does so on behalf of who holds the lock.
    """
    with ExitStack() as stack:
        for key in [*keys, HASHES]:
            stack.callback(FolderLock(cache / key).release)
            remove_unfinished(cache / key)
        yield


def store_of(cache: Path, key: str) -> EmbeddingStore:
    """The vectors under one key."""
    return EmbeddingStore(cache / key, key)


def stores_of(cache: Path, keys: Sequence[str]) -> dict[str, EmbeddingStore]:
    """The vectors under these keys, and the perceptual hashes."""
    return {key: store_of(cache, key) for key in [*keys, HASHES]}


def in_all(stores: Mapping[str, EmbeddingStore]) -> set[str]:
    """Hashes of pictures that have a row in every store."""
    return set.intersection(*(set(store) for store in stores.values()))


class Taker:
    """Takes decoded pictures in and puts their vectors into the stores, a shard of each for every portion."""

    def __init__(self, views: Sequence[View], cache: Path, batch_size: int) -> None:
        self._views, self._batch = views, batch_size
        self._stores = stores_of(cache, [view.key for view in views])
        self.known = in_all(self._stores)
        """Hashes of pictures that had a vector in every store at the start."""

    def taken(self, stream: Iterator[Decoded], count: int, *, shard: str | None = None) -> Iterator[Decoded]:
        """So many pictures of the stream, each once; when all were given, their vectors are in the stores.

        Args:
            shard: what the portion's shards are called, where other processes write to the stores, too.
        """
        new: dict[str, _Known] = {key: {} for key in self._stores}
        waiting: dict[str, Image.Image] = {}
        for _ in range(count):
            one = next(stream)
            if one.sha256 is not None and one.pixels is not None and self._lacking(one.sha256):
                assert one.bits is not None
                waiting[one.sha256] = one.image
                new[HASHES][one.sha256] = one.bits
            if len(waiting) >= self._batch:
                self._embed(waiting, new)
                waiting = {}
            yield one
        self._embed(waiting, new)
        for key, store in self._stores.items():
            names = store.missing(new[key])
            if names:
                store.add(names, np.stack([new[key][name] for name in names]), shard=shard)

    def _lacking(self, name: str) -> bool:
        """Whether a picture has no vector in some store by now: after a stop, batches are of the same pictures as without."""
        return any(name not in store for store in self._stores.values())

    def _embed(self, images: Mapping[str, Image.Image], new: Mapping[str, _Known]) -> None:
        for view in self._views:
            names = [name for name in self._stores[view.key].missing(images) if name not in new[view.key]]
            if names:
                rows = self._fitting(view, [images[name] for name in names])
                new[view.key].update(zip(names, rows, strict=True))

    def _fitting(self, view: View, images: Sequence[Image.Image]) -> Vectors:
        """The vectors, computed in batches that fit into the device's memory."""
        while True:
            try:
                return view.embed(images, self._batch)
            except torch.OutOfMemoryError:
                if self._batch == 1:
                    raise UserError(
                        f"not even one picture fits into the device's memory under {view.name}; try --device cpu"
                    ) from None
                self._batch //= 2
                torch.cuda.empty_cache()


def row_of(one: Decoded) -> dict[str, str | None]:
    """What became of a picture, as a row of its portion's table."""
    picture, bad = one.picture, one.bad
    return {
        "id": picture.id,
        "sha256": one.sha256,
        "label": picture.label,
        "pair": picture.pair,
        "pattern": picture.pattern,
        "reason": bad.reason if bad else None,
        "detail": bad.detail if bad else None,
    }


def _seen(picture: Picture, row: Mapping[str, str | None]) -> Seen:
    if row["id"] != picture.id:
        raise ValueError(f"{row['id']!r} was embedded where {picture.id!r} is listed")
    bad = None
    if row["reason"] is not None:
        bad = Quarantined(path=picture.id, reason=row["reason"], detail=row["detail"] or "")
    return Seen(picture=picture, sha256=row["sha256"], bad=bad)


def unit_matrix(
    store: EmbeddingStore, images: Sequence[str], path: Path, *, names: Sequence[str], centred: bool = False
) -> Vectors:
    """The vectors of images at length 1 as a memory-mapped float32 table on disk, around their mean if asked.

    Args:
        images: hashes of bytes.
        path: a `.npy` file.
        names: of the images, for messages.

    Raises:
        UserError: a vector is zero or the mean itself; its image is named.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    dim = next((rows.shape[1] for _, rows in store.parts(images[:1])), 0)
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(images), dim))
    reserve(path)
    for places, rows in store.parts(images):
        table[places] = _at_length_1(rows.astype(np.float64), [names[place] for place in places])
    if centred and len(images):
        mean = table.mean(axis=0, dtype=np.float64)
        for start in range(0, len(images), PORTION):
            part = slice(start, start + PORTION)
            table[part] = _at_length_1(table[part] - mean, names[part])
    table.flush()
    found: Vectors = np.load(path, mmap_mode="r") if table.size else np.zeros(table.shape, np.float32)
    return found


def _at_length_1(rows: Float[ndarray, "part dim"], names: Sequence[str]) -> Float[ndarray, "part dim"]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    none = [name for name, length in zip(names, lengths[:, 0], strict=True) if length < 1e-9]
    if none:
        raise UserError(
            f"the vector of {', '.join(none[:5])} has no direction ({len(none)} of {len(names)}): it is zero, or equals"
            " the mean of all"
        )
    scaled: Float[ndarray, "part dim"] = rows / lengths
    return scaled


def quarantined(seen: Iterable[Seen]) -> list[Quarantined]:
    """What cannot be used, in order."""
    return [one.bad for one in seen if one.bad is not None]
