"""The embedding pass on a Ray cluster: portions of pictures go to actors, each of which has loaded the encoders once.

The same tables and the same vectors as `embed.embed_pictures` gives. A portion is done when its table is in the run
folder; its vectors are then in the cache, in shards of their own.
"""

import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from eyechart.core.errors import UserError
from eyechart.core.files import write_table
from eyechart.core.runs import RunFolder
from eyechart.find.decode import decoded
from eyechart.find.embed import (
    IMAGES_SCHEMA,
    Progress,
    Seen,
    Taker,
    View,
    all_seen,
    locked,
    portions,
    remove_undone,
    row_of,
)
from eyechart.find.listing import Picture
from eyechart.find.ray_cluster import cluster, enter, passed, processors, refusal, until_there


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What every actor needs to know."""

    make_views: Callable[[], Sequence[View]]
    """Loads the encoders, on whatever device is there."""

    here: Path
    run: Path
    cache: Path
    batch_size: int
    workers: int


def embed_on_ray(
    pictures: Sequence[Picture],
    keys: Sequence[str],
    make_views: Callable[[], Sequence[View]],
    *,
    cache: Path,
    run: RunFolder,
    batch_size: int,
    workers: int,
    device: str = "auto",
    address: str | None = None,
    progress: Progress,
) -> list[Seen]:
    """Embed what is not in the cache yet, and say what became of each picture.

    Args:
        keys: of the views.
        make_views: gives the views; called once in each actor, and shipped to it.
        cache: a folder with a store for each view; locked while it is written.
        batch_size: pictures at a time; halved when a device runs out of memory.
        workers: processes that decode, for each actor.
        device: an actor gets a GPU of its own where this is `cuda`, or `auto` and the cluster has any.
        address: see `ray_cluster.cluster`.
        progress: told pictures that are done.

    Raises:
        UserError: as `embed.embed_pictures`; a machine does not see the folders; portions were lost too often.
    """
    listed = portions(pictures)
    job = Pass(
        make_views=make_views,
        here=Path.cwd(),
        run=run.path.absolute(),
        cache=cache.absolute(),
        batch_size=batch_size,
        workers=workers,
    )

    def missing() -> list[str]:
        left = [name for name in listed if not (run.path / name).exists()]
        progress("embedding", len(pictures) - sum(len(listed[name]) for name in left), len(pictures))
        return left

    def work(names: Sequence[str]) -> None:
        items = [{"name": name, "pictures": packed(listed[name])} for name in names]
        done = len(pictures) - sum(len(listed[name]) for name in names)
        for row in passed(items, Embedder, fn_constructor_args=(job,), **_actors(ray, workers, device)):
            done += len(listed[row["name"]])
            progress("embedding", done, len(pictures))

    remove_undone(pictures, run.path, cache, keys)
    if missing():
        run.own(next(iter(listed)))
        with locked(cache, keys), cluster(address) as ray:
            until_there("portions", missing, work)
    return all_seen(pictures, run.path)


class Embedder:
    """An actor: embeds portions, and writes what became of their pictures."""

    def __init__(self, job: Pass) -> None:
        self._job = job
        self._refused = refusal(self._begin)

    def _begin(self) -> None:
        enter(self._job.here)
        if not self._job.run.is_dir():
            raise UserError(
                f"there is no {self._job.run} here; --engine ray needs folders that all machines share"
            )
        self._taker = Taker(self._job.make_views(), self._job.cache, self._job.batch_size)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Embed the portions of a batch, unless they are there."""
        items = list(zip(batch["name"].tolist(), batch["pictures"].tolist(), strict=True))
        refused = [self._refused or refusal(self._embed, *item) for item in items]
        return {"name": [name for name, _ in items], "refused": refused}

    def _embed(self, name: str, text: str) -> None:
        path, pictures = self._job.run / name, _unpacked(text)
        if path.exists():
            return
        stream = decoded(pictures, known=self._taker.known, workers=self._job.workers)
        shard = f"portion-{path.stem}"
        rows = [row_of(one) for one in self._taker.taken(stream, len(pictures), shard=shard)]
        if all(row["reason"] == "missing" for row in rows):
            raise UserError(
                f"none of the {len(rows)} pictures of {name} can be found from {socket.gethostname()}"
            )
        write_table(path, rows, IMAGES_SCHEMA)


def packed(pictures: Sequence[Picture]) -> str:
    """Pictures as a text that goes into a table."""
    return json.dumps([asdict(picture) for picture in pictures])


def _unpacked(text: str) -> list[Picture]:
    return [Picture(**one | {"place": tuple(one["place"])}) for one in json.loads(text)]


def _actors(ray: ModuleType, workers: int, device: str) -> dict[str, Any]:
    """How many actors, and what each takes: a processor to compute and one to decode with each worker, or a GPU."""
    data = ray.data
    gpus = int(ray.cluster_resources().get("GPU", 0))
    on_gpu = device.startswith("cuda") or (device == "auto" and gpus > 0)
    largest = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
    wanted = min(1 + workers, max(1, largest))
    most = gpus if on_gpu else processors(ray) // wanted
    return {
        "num_cpus": wanted,
        "num_gpus": 1 if on_gpu else 0,
        "compute": data.ActorPoolStrategy(min_size=1, max_size=max(1, most)),
    }
