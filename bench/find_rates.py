"""What mining on a Ray cluster takes for a picture, a pair and a tile, measured with the code itself; find_plan.py reckons with it.

Seconds are CPU seconds of one core, the less of two runs, with all rows in memory. Rows are made (`made` in
bench/find.py): two collections of the same classes, one a block, without a group of nearly equal pictures in common.
"""

import io
import os
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from made import made
from PIL import Image

from eyechart.core.runs import RunFolder
from eyechart.find import block_join, blocks, compiled, ray_join
from eyechart.find.block_join import Job, counts, solve
from eyechart.find.blocks import Sketch
from eyechart.find.config import MineConfig
from eyechart.find.embed import HASHES, Taker, View, all_seen, embed_pictures, portions, store_of, unit_matrix
from eyechart.find.ray_embed import packed
from eyechart.find.select import AHEAD
from eyechart.find.sources import list_pictures
from find import HIGH, LOW

MINE = MineConfig(source="")
PER_IMAGE = AHEAD * MINE.per_image
"""Pairs of a picture that the command has the join keep."""

SIZE = (500, 375)
"""Of the pictures that are decoded."""

FEW = 12
"""Tasks of a tile that the portable engine is timed on; a whole tile would take it ten seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """What a tile, or a part of one, compared, left and found, and the seconds it took."""

    compared: int
    left: int
    found: int
    whole: float
    codes: float
    """With rows of one column, which cost next to nothing to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What was measured on rows of one spectrum."""

    tiles: dict[str, tuple[Tile, Tile]]
    """By engine, the fastest last: a block with itself, and two blocks."""

    block: int
    sketching: float
    """Seconds of a picture, both encoders' rows checked."""

    sketch: float
    """Bytes of a picture."""

    pair: float
    """Bytes of a pair in a tile's file."""

    merging: float
    """Seconds of a pair."""

    cold: int | None
    """Bytes that the disk gave for the tile of two blocks with none of their rows in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Of one picture: bytes on the disk, files, bytes of memory, and seconds."""

    vectors: float
    tables: float
    hashes: float
    portions: float
    files: float
    driver: float
    actor: float
    """Of an actor that begins when the picture was taken in."""

    taking: float
    """Read, decoded, hashed and kept, without the encoders."""

    serial: float
    """In the driver: its vectors found again and written to two tables."""


def cpu_seconds(work: Callable[[], object]) -> float:
    """The less of two runs."""
    took = []
    for _ in range(2):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return min(took)


class Few(block_join.Blocks):
    """A part of a tile."""

    def tasks(self) -> Iterator[slice]:
        """The first ones."""
        yield from islice(super().tasks(), FEW)


@contextmanager
def portable() -> Iterator[None]:
    """As without eyechart-kernels, and only a part of each tile."""
    with patch.object(compiled, "installed", lambda: None), patch.object(block_join, "Blocks", Few):
        yield


def engines() -> dict[str, Callable[[], AbstractContextManager[None]]]:
    """Those there are, and how to have them used; the fastest last."""
    kernels = compiled.installed()
    return {"portable": portable} | ({f"native {kernels.isa()}": nullcontext} if kernels else {})


def joined(folder: Path, spectrum: str, block: int) -> Joined:
    """Sketch two collections and join them, with all engines there are."""
    files = folder / "semantic.npy", folder / "reference.npy"
    halves = [made(block, spectrum, seed) for seed in range(2)]
    for file, rows in zip(files, zip(*halves, strict=True), strict=True):
        np.save(file, np.concatenate(rows))
    with RunFolder.open(folder / "run", config={}, command=[]) as run:
        plan = ray_join._plan(*files, run, block)
    sketching = sum(cpu_seconds(partial(ray_join._sketch, plan, number)) for number in range(2))
    sketches = [kept for number in range(2) if (kept := blocks.read_sketch(plan.path(number), plan.name))]
    job = _job(plan, folder / "tiles", block)
    every, tiles = list(blocks.pairs_of_blocks(2)), {}
    for name, engine in engines().items():
        with engine():
            tiles[name] = solved(job, (0, 0), sketches), solved(job, (0, 1), sketches)
            cold = read_cold(files, lambda: afresh(job, (0, 1), sketches))
            afresh(job, (1, 1), sketches)
    pairs = sum(told["found"] for tile in every if (told := counts(job, tile)))
    merging = cpu_seconds(lambda: ray_join._merged(job, sketches, plan.scale.columns))
    return Joined(
        tiles=tiles,
        block=block,
        sketching=sketching / (2 * block),
        sketch=plan.path(0).stat().st_size / block,
        pair=sum(job.path(tile).stat().st_size for tile in every) / max(1, pairs),
        merging=merging / max(1, pairs),
        cold=cold,
    )


def _job(plan: ray_join.Plan, tiles: Path, block: int) -> Job:
    return Job(
        semantic=plan.semantic,
        reference=plan.reference,
        tiles=tiles,
        name="",
        images=2 * block,
        block=block,
        step=plan.scale.step,
        min_semantic=LOW,
        max_reference=HIGH,
        min_alike=MINE.min_alike,
        per_image=PER_IMAGE,
        budget=None,
        where=None,
    )


def afresh(job: Job, tile: tuple[int, int], sketches: Sequence[Sketch]) -> None:
    """A tile, though its file be there."""
    job.path(tile).unlink(missing_ok=True)
    solve(job, tile, *(sketches[block] for block in tile))


def solved(job: Job, tile: tuple[int, int], sketches: Sequence[Sketch]) -> Tile:
    """A tile, and the same with rows of one column."""
    narrow = replace(job, semantic=job.tiles / "narrow.npy", tiles=job.tiles / "narrow")
    whole = cpu_seconds(lambda: afresh(job, tile, sketches))
    np.save(narrow.semantic, np.zeros((job.images, 1), np.float32))
    codes = cpu_seconds(lambda: afresh(narrow, tile, sketches))
    told: dict[str, Any] = counts(job, tile) or {}
    return Tile(
        compared=told["compared"], left=told["bounded"], found=told["found"], whole=whole, codes=codes
    )


def read_cold(files: Sequence[Path], work: Callable[[], object]) -> int | None:
    """Bytes that the disk gives for some work with nothing of these files in memory; None where no system tells."""
    counter = Path("/proc/self/io")
    if not counter.exists():
        return None

    def given() -> int:
        return int(counter.read_text().split("\nread_bytes: ")[1].split()[0])

    for path in files:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = given()
    work()
    return given() - before


def kept(folder: Path, pictures: int, widths: Sequence[int]) -> Kept:
    """Take pictures in as the embedding pass does, with encoders that take no time, and look at what is there."""
    source, cache = _pictures(folder / "pictures.tar", pictures), folder / "embeddings"
    views = [_view(width) for width in widths]
    keys = [view.key for view in views]
    listed = list_pictures(str(source)).pictures
    began = time.process_time()
    with RunFolder.open(folder / "run", config={}, command=[]) as run:
        options: dict[str, Any] = {"cache": cache, "run": run, "progress": lambda stage, done, total: None}
        seen = embed_pictures(listed, views, batch_size=MINE.batch_size, workers=0, **options)
    taking = time.process_time() - began
    hashes, ids = [one.sha256 or "" for one in seen], [one.picture.id for one in seen]
    tables = [folder / "vectors" / f"{view.key}.npy" for view in views]

    def write() -> None:
        for view, table in zip(views, tables, strict=True):
            unit_matrix(store_of(cache, view.key), hashes, table, names=ids)

    serial = cpu_seconds(write)
    places = {
        "vectors": [cache / key for key in keys],
        "tables": [folder / "vectors"],
        "hashes": [cache / HASHES],
        "portions": [folder / "run" / "images"],
    }
    there = {name: [path for place in some for path in place.iterdir()] for name, some in places.items()}
    return Kept(
        **{name: sum(path.stat().st_size for path in some) / pictures for name, some in there.items()},
        files=sum(len(some) for name, some in there.items() if name != "tables") / pictures,
        driver=most_held(partial(_before_the_join, source, folder / "run", cache, keys)) / pictures,
        actor=most_held(partial(Taker, views, cache, MINE.batch_size)) / pictures,
        taking=taking / pictures,
        serial=serial / pictures,
    )


def _view(width: int) -> View:
    """An encoder that takes no time."""
    name = f"{width} columns"
    return View(name=name, key=name, embed=lambda images, size: np.ones((len(images), width), np.float32))


def _pictures(path: Path, count: int) -> Path:
    """An archive of the same picture again and again, each time with other bytes after its end."""
    colours = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(colours).resize(SIZE, Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            content = data.getvalue() + number.to_bytes(4, "big")
            member = tarfile.TarInfo(f"{number:09d}.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def most_held(work: Callable[[], object]) -> int:
    """The most bytes that Python and NumPy hold while something is done."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _before_the_join(source: Path, run: Path, cache: Path, keys: Sequence[str]) -> None:
    """What the driver holds between source and join, as `recipes.mine` does with Ray."""
    listed = list_pictures(str(source)).pictures
    items = [{"name": name, "pictures": packed(some)} for name, some in portions(listed).items()]
    del items  # with the pass that they are for
    seen = all_seen(listed, run)
    pictures = {one.sha256 or "": one.picture for one in seen}
    for key in keys:
        store_of(cache, key)
    hashes = store_of(cache, HASHES).rows(list(pictures))
    assert len(hashes) == len(listed)
