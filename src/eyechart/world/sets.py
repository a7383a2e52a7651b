"""Rendered sets of scenes on disk: one array of pictures beside the facts of every scene, resumable and cached.

A set's folder is a run folder: `images.npy` (uint8, scene x size x size x 3), `scenes.jsonl` (a line a scene),
`families.npy` (int32, a scene's family), and with maps `parts.npy`, `objects.npy` (uint8) and `depth.npy` (float16,
world units, infinite where nothing is hit). Scene i is determined by split, seed and i; the pictures are written in
shards, and a killed run goes on at the first shard that is not whole.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.core.files import JsonLines, write_bytes
from eyechart.core.runs import RunFolder
from eyechart.world.facts import Facts
from eyechart.world.layout import lay_out
from eyechart.world.render import SIZES, Rendered, render
from eyechart.world.sets_plan import SceneRecord, SetPlan, draw_set, record_of
from eyechart.world.sets_pool import in_order
from eyechart.world.sets_version import fingerprint

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is."""

IMAGES, SCENES, FAMILIES, SHARDS = "images.npy", "scenes.jsonl", "families.npy", "shards.jsonl"
MAPS = {"parts": np.uint8, "objects": np.uint8, "depth": np.float16}

_SHARD_PIXELS = 64 * 96 * 96


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSet:
    """A rendered set, its arrays memory-mapped and read-only."""

    folder: Path
    images: UInt8[ndarray, "scene size size 3"]
    scenes: tuple[SceneRecord, ...]
    families: Int[ndarray, " scene"]
    parts: UInt8[ndarray, "scene size size"] | None
    """Part ids (`kinds.PARTS`, 0 for none), or None where the set has no maps."""

    objects: UInt8[ndarray, "scene size size"] | None
    depth: Float[ndarray, "scene size size"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """One job of a worker: scenes that follow one another."""

    number: int
    start: int
    scenes: tuple[tuple[Facts, int], ...]
    size: int
    maps: bool


def render_set(
    folder: Path | str,
    plan: SetPlan,
    *,
    size: int = 96,
    workers: int = 2,
    maps: bool = False,
    fresh: bool = False,
    progress: Progress = lambda stage, done, total: None,
    command: Sequence[str] = (),
) -> SceneSet:
    """Render the scenes of a plan into a folder, or what is missing there; a finished set is only opened.

    Args:
        folder: where; the same arguments go on there, others are refused.
        plan: which scenes.
        size: the pictures' side, in pixels.
        workers: processes that render; the result does not depend on them.
        maps: keep the exact part, object and depth maps too.
        fresh: start over.
        progress: told how many scenes are done.
        command: the words of the command line, for the manifest.

    Raises:
        UserError: the size is none of the world's, the folder holds another set or is in use, or the world has
            changed since it was begun.
    """
    check_size(size)
    root = Path(folder)
    config = {"what": "scenes", **asdict(plan), "size": size, "maps": maps, "world": fingerprint()}
    with RunFolder.open(root, config=config, command=command, fresh=fresh) as run:
        if not run.finished:
            _write_scenes(run, plan)
            _render_missing(run, plan, size=size, maps=maps, workers=workers, progress=progress)
            run.update_manifest(sha256=set_hash(root))
            run.finish()
    return load_set(root)


def load_set(folder: Path | str) -> SceneSet:
    """Open a rendered set.

    Raises:
        UserError: there is no finished set in the folder.
    """
    root = Path(folder)
    try:
        finished = json.loads((root / "manifest.json").read_bytes())["finished"]
    except (OSError, ValueError, KeyError):
        finished = None
    if finished is None or not (root / IMAGES).is_file():
        raise UserError(f"{root} holds no finished set of scenes; render one there first")
    with (root / SCENES).open("rb") as lines:
        scenes = tuple(record_of(json.loads(line)) for line in lines)
    maps = {
        name: np.load(path, mmap_mode="r") if (path := root / f"{name}.npy").is_file() else None
        for name in MAPS
    }
    return SceneSet(
        folder=root,
        images=np.load(root / IMAGES, mmap_mode="r"),
        scenes=scenes,
        families=np.load(root / FAMILIES),
        **maps,
    )


def set_hash(folder: Path) -> str:
    """A hash of the scenes and of every picture: two sets with equal hashes are the same."""
    digest = hashlib.sha256((folder / SCENES).read_bytes())
    for line in (folder / SHARDS).read_text("utf8").splitlines():
        shard = json.loads(line)
        digest.update(f"{shard['shard']} {shard['sha256']}\n".encode())
    return digest.hexdigest()


def render_scene(facts: Facts, nonce: int, size: int) -> Rendered:
    """The picture and the maps of one scene."""
    return render(lay_out(facts, nonce), size)


def check_size(size: int) -> None:
    """Refuse a picture size the renderer is not made for.

    Raises:
        UserError: it is outside `render.SIZES`.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"pictures are {SIZES[0]} to {SIZES[1]} pixels a side, got {size}")


def png(image: Any) -> bytes:
    """An array as a PNG: 8 bit in colour or grey, or 16 bit grey."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def shard_length(size: int) -> int:
    """How many scenes of a size are rendered between two times that a run can be resumed at."""
    return max(2, _SHARD_PIXELS // size**2)


def _write_scenes(run: RunFolder, plan: SetPlan) -> None:
    """The facts of all scenes and their families, whole before the first picture."""
    if (run.path / FAMILIES).is_file():
        return
    records = list(draw_set(plan))
    lines = b"".join(json.dumps(record.to_dict()).encode() + b"\n" for record in records)
    run.write_bytes(SCENES, lines)
    families = np.array([record.family for record in records], np.int32)
    run.write_bytes(FAMILIES, _npy_header(families.dtype, families.shape) + families.tobytes())


def _render_missing(
    run: RunFolder, plan: SetPlan, *, size: int, maps: bool, workers: int, progress: Progress
) -> None:
    done = run.jsonl(SHARDS, key="shard")
    arrays = {"images": _Array(run.own(IMAGES), np.uint8, (plan.scenes, size, size, 3))}
    for name, kind in MAPS.items() if maps else ():
        arrays[name] = _Array(run.own(f"{name}.npy"), kind, (plan.scenes, size, size))
    try:
        total = plan.scenes
        shards = _shards(run.path, size=size, maps=maps, done=done)
        finished = min(total, len(done) * shard_length(size))
        progress("rendering", finished, total)
        for shard, made in in_order(_render_shard, shards, workers=workers):
            for name, values in made.items():
                arrays[name].write(shard.start, values)
            done.append({"shard": shard.number, "sha256": _hash(made)})
            finished += len(shard.scenes)
            progress("rendering", finished, total)
    finally:
        for array in arrays.values():
            array.close()


def _shards(folder: Path, *, size: int, maps: bool, done: JsonLines) -> Iterator[_Shard]:
    """The shards that are not done; facts are read as they are needed."""
    with (folder / SCENES).open("rb") as lines:
        step = shard_length(size)
        number, batch = 0, []
        for line in lines:
            batch.append(line)
            if len(batch) == step:
                if number not in done:
                    yield _shard(number, batch, size=size, maps=maps)
                number, batch = number + 1, []
        if batch and number not in done:
            yield _shard(number, batch, size=size, maps=maps)


def _shard(number: int, lines: Sequence[bytes], *, size: int, maps: bool) -> _Shard:
    records = [record_of(json.loads(line)) for line in lines]
    scenes = tuple((record.facts, record.nonce) for record in records)
    return _Shard(number=number, start=records[0].index, scenes=scenes, size=size, maps=maps)


def _render_shard(shard: _Shard) -> tuple[_Shard, dict[str, Any]]:
    """In a worker: the pictures of a shard, and its maps where they are wanted."""
    rendered = [render_scene(facts, nonce, shard.size) for facts, nonce in shard.scenes]
    made = {"images": np.stack([one.image for one in rendered])}
    for name, kind in MAPS.items() if shard.maps else ():
        made[name] = np.stack([getattr(one, name) for one in rendered]).astype(kind)
    return shard, made


def _hash(made: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(made):
        digest.update(made[name].tobytes())
    return digest.hexdigest()


def _npy_header(kind: Any, shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    described = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, described)
    return out.getvalue()


class _Array:
    """A `.npy` file of full length from the start, filled in place row by row.

    It is written as a file, not through a memory map: on a full disk a write is an error and a map is a crash.
    """

    def __init__(self, path: Path, kind: Any, shape: tuple[int, ...]) -> None:
        header = _npy_header(kind, shape)
        self._row = int(np.prod(shape[1:])) * np.dtype(kind).itemsize
        self._data = len(header)
        if not path.is_file():
            write_bytes(path, header)
        self._handle = path.open("r+b")
        self._handle.truncate(self._data + shape[0] * self._row)

    def write(self, start: int, values: Any) -> None:
        """Put rows where they belong; when this returns, the disk has them."""
        self._handle.seek(self._data + start * self._row)
        self._handle.write(values.tobytes())
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def close(self) -> None:
        self._handle.close()
