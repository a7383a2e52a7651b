"""Mine a photo collection for pairs that one encoder takes for nearly the same and another tells apart.

    eyechart mine photos/

List the pictures, embed each once under both encoders, join exactly, choose what a person should see, write tables and a
page. Every step keeps what an earlier start has done.
"""

import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eyechart.core.config import to_dict
from eyechart.core.devices import pick_device
from eyechart.core.images import BadImage, open_bytes, thumbnail_jpeg
from eyechart.core.runs import RunFolder
from eyechart.find.config import MineConfig
from eyechart.find.embed import (
    HASHES,
    Progress,
    Seen,
    Vectors,
    View,
    embed_pictures,
    quarantined,
    store_of,
    unit_matrix,
)
from eyechart.find.join import Mined, Where, mine_pairs
from eyechart.find.listing import Listing, Picture
from eyechart.find.mined import PAIRS_SCHEMA, Outcome, pair_rows, record
from eyechart.find.ray_cluster import cluster
from eyechart.find.ray_embed import embed_on_ray
from eyechart.find.ray_join import mine_pairs_on_ray
from eyechart.find.select import AHEAD, Selected, select
from eyechart.find.sources import list_pictures, read_picture
from eyechart.find.thresholds import Drawn, Wish, draw
from eyechart.find.world_pictures import list_world
from eyechart.models import load_encoder
from eyechart.models.encoders import Encoder
from eyechart.models.quiet import quiet
from eyechart.report import write_gallery
from eyechart.world.facts import PATTERNS


@dataclass(frozen=True, slots=True, kw_only=True)
class MineResult:
    """Where a mine was written and what it found."""

    folder: Path
    page: Path
    results: dict[str, Any]
    again: bool
    """Whether the run was finished before and was only shown again."""


def mine(
    config: MineConfig,
    *,
    out: Path | None = None,
    fresh: bool = False,
    progress: Progress = lambda stage, done, total: None,
    command: Sequence[str] = (),
) -> MineResult:
    """Find the pairs of a source, or go on where an earlier start was stopped.

    Args:
        config: every choice.
        out: the run folder (default `runs/<slug>`); embeddings lie beside it, in `embeddings/`.
        fresh: start over; embeddings are kept.
        progress: told how far each stage is.
        command: the words of the command line, for the manifest.

    Raises:
        UserError: something the caller can mend; the text says what was given, what was expected and what to do.
    """
    folder = out or Path("runs") / config.slug
    listing = listed(config, folder.parent / "bundled", progress)
    encoders = [_encoder(config, name) for name in config.encoders]
    identity = {**config.identity(), "resolved": _resolved(config, listing, encoders)}
    with RunFolder.open(folder, config=identity, command=command, fresh=fresh) as run:
        again = run.finished
        if not again:
            with _engine(config):
                _mine(config, listing, encoders, run, progress)
            run.own("gallery.html")  # so that --fresh removes it
            run.finish()
        page = write_gallery(folder)
    results = json.loads((folder / "results.json").read_text("utf8"))
    return MineResult(folder=folder, page=page, results=results, again=again)


def plan(config: MineConfig, *, out: Path | None = None) -> dict[str, Any]:
    """What a mine would do: pictures are listed, none is read and no weights are loaded."""
    folder = out or Path("runs") / config.slug
    semantic, reference = config.encoders
    told: dict[str, Any] = {**to_dict(config), "semantic": semantic, "reference": reference}
    if config.on_world:
        images = 2 * config.pairs * len(PATTERNS)
    else:
        images = len(listed(config, folder.parent / "bundled", lambda stage, done, total: None).pictures)
    images = images if config.limit is None else min(images, config.limit)
    return {
        **told,
        "images": images,
        "compared": images * (images - 1) // 2,
        "folder": str(folder),
        "exists": folder.exists(),
    }


def listed(config: MineConfig, bundled: Path, progress: Progress) -> Listing:
    """The source's pictures; the world's are rendered first."""
    if config.on_world:
        return list_world(
            bundled,
            pairs=config.pairs,
            seed=config.scene_seed,
            size=config.size,
            limit=config.limit,
            progress=progress,
        )
    return list_pictures(
        config.source,
        image_column=config.image_column,
        label_column=config.label_column,
        limit=config.limit,
    )


def _engine(config: MineConfig) -> AbstractContextManager[Any]:
    """A connection to the Ray cluster where one is asked for."""
    return cluster(config.ray_address) if config.engine == "ray" else nullcontext()


def _encoder(config: MineConfig, name: str) -> Encoder:
    with quiet():
        return load_encoder(name, device=str(pick_device(config.device).device), dtype=config.dtype)


def _poolings(config: MineConfig) -> tuple[str | None, str | None]:
    return config.semantic_pooling, config.reference_pooling


def _resolved(config: MineConfig, listing: Listing, encoders: Sequence[Encoder]) -> dict[str, Any]:
    keys = [encoder.cache_key(pooling) for encoder, pooling in zip(encoders, _poolings(config), strict=True)]
    return {"listing": listing.sha256, "semantic": keys[0], "reference": keys[1]}


def _views(config: MineConfig, encoders: Sequence[Encoder]) -> list[View]:
    return [view_of(*both) for both in zip(encoders, _poolings(config), strict=True)]


def view_of(encoder: Encoder, pooling: str | None = None) -> View:
    """An encoder as the embedding pass takes it; by itself with its default pooling."""
    return View(
        name=encoder.id,
        key=encoder.cache_key(pooling),
        embed=lambda images, size: encoder.embed(images, pooling=pooling, batch_size=size).numpy(),
    )


def _mine(
    config: MineConfig, listing: Listing, encoders: Sequence[Encoder], run: RunFolder, progress: Progress
) -> None:
    run.update_manifest(encoders=[encoder.describe() for encoder in encoders], seed=config.seed)
    cache, views = run.path.parent / "embeddings", _views(config, encoders)
    seen = _embedded(config, listing, views, cache, run, progress)
    bad = [*listing.quarantined, *quarantined(seen)]
    run.write_quarantine(bad)
    pictures = unique(seen)
    files = [run.own(f"vectors/{number}.npy") for number in range(len(views))]
    ids = [picture.id for picture in pictures.values()]
    rows = [
        unit_matrix(store_of(cache, view.key), list(pictures), file, names=ids, centred=config.centred)
        for view, file in zip(views, files, strict=True)
    ]
    hashes = store_of(cache, HASHES).rows(list(pictures))
    drawn = draw(rows[0], rows[1], seed=config.seed)
    cuts = _cuts(config, drawn)
    mined = _joined(config, files, rows, cuts, list(pictures.values()), run, progress)
    outcome = Outcome(
        listing=listing,
        pictures=pictures,
        listed=len(seen),
        unreadable=len(quarantined(seen)),
        drawn=drawn,
        cuts=cuts,
        mined=mined,
        chosen=_chosen(config, mined, hashes),
    )
    _write(config, outcome, encoders, run, progress)
    for name in ("vectors", "sketches", "tiles"):
        shutil.rmtree(run.path / name, ignore_errors=True)


def _cuts(config: MineConfig, drawn: Drawn) -> tuple[float, float]:
    """Both thresholds as cosines."""
    return (
        Wish.parse(config.min_semantic, name="min_semantic").among(drawn.semantic),
        Wish.parse(config.max_reference, name="max_reference").among(drawn.reference),
    )


def _embedded(
    config: MineConfig,
    listing: Listing,
    views: Sequence[View],
    cache: Path,
    run: RunFolder,
    progress: Progress,
) -> list[Seen]:
    options: dict[str, Any] = {
        "cache": cache,
        "run": run,
        "batch_size": config.batch_size,
        "workers": config.workers,
        "progress": progress,
    }
    if config.engine == "local":
        return embed_pictures(listing.pictures, views, **options)
    keys, make_views = [view.key for view in views], partial(_loaded_views, config)
    return embed_on_ray(listing.pictures, keys, make_views, device=config.device, **options)


def _loaded_views(config: MineConfig) -> list[View]:
    """The views, in a process that has no encoders yet."""
    return _views(config, [_encoder(config, name) for name in config.encoders])


def _joined(
    config: MineConfig,
    files: Sequence[Path],
    rows: Sequence[Vectors],
    cuts: tuple[float, float],
    pictures: Sequence[Picture],
    run: RunFolder,
    progress: Progress,
) -> Mined:
    options: dict[str, Any] = {
        "min_semantic": cuts[0],
        "max_reference": cuts[1],
        "per_image": AHEAD * config.per_image,
        "where": _where(config, pictures),
        "min_alike": config.min_alike,
        "progress": progress,
    }
    if config.engine == "ray":
        return mine_pairs_on_ray(files[0], files[1], run, **options)
    return mine_pairs(*rows, ids=[picture.id for picture in pictures], **options)


def _chosen(config: MineConfig, mined: Mined, hashes: Vectors) -> Selected:
    return select(
        mined.pairs,
        mined.alike,
        hashes,
        min_alike=config.min_alike,
        most_bits=config.most_bits,
        per_image=config.per_image,
        per_burst=config.per_burst,
        budget=config.budget,
    )


def unique(seen: Sequence[Seen]) -> dict[str, Picture]:
    """The first picture of each content; exact copies are listed in images.parquet and compared once."""
    found: dict[str, Picture] = {}
    for one in seen:
        if one.sha256 is not None:
            found.setdefault(one.sha256, one.picture)
    return found


def _where(config: MineConfig, pictures: Sequence[Picture]) -> Where | None:
    """Which pairs count by their labels; a picture without one is in no such pair."""
    if config.classes == "any":
        return None
    numbers = {label: number for number, label in enumerate(sorted({p.label for p in pictures if p.label}))}
    kinds = np.array([numbers.get(picture.label or "", -1) for picture in pictures])
    same = config.classes == "same"
    return lambda i, j: ((kinds[i] == kinds[j]) == same) & (kinds[i] >= 0) & (kinds[j] >= 0)


def _write(
    config: MineConfig, outcome: Outcome, encoders: Sequence[Encoder], run: RunFolder, progress: Progress
) -> None:
    """Tables, small pictures and the record; all that the page needs."""
    chosen = outcome.chosen
    pairs = list(pair_rows(chosen.pairs, chosen.bits, outcome.pictures))
    alike = list(pair_rows(chosen.near_duplicates, chosen.near_bits, outcome.pictures))
    run.write_table("pairs.parquet", pairs, PAIRS_SCHEMA)
    run.write_table("alike.parquet", alike, PAIRS_SCHEMA)
    shown = pairs[: config.pictured] + alike[: config.pictured // 10]
    wanted = list(dict.fromkeys(row[f"sha256_{side}"] for row in shown for side in "ab"))
    for number, sha256 in enumerate(wanted):
        _thumbnail(run, outcome.pictures[sha256], sha256)
        progress("small pictures", number + 1, len(wanted))
    poolings = [
        pooling or encoder.default_pooling
        for encoder, pooling in zip(encoders, _poolings(config), strict=True)
    ]
    named = [(encoder.id, pooling) for encoder, pooling in zip(encoders, poolings, strict=True)]
    run.write_json("results.json", record(config, outcome, named))


def _thumbnail(run: RunFolder, picture: Picture, sha256: str) -> None:
    name = f"thumbs/{sha256}.jpg"
    if (run.path / name).exists():
        return
    try:
        run.write_bytes(name, thumbnail_jpeg(open_bytes(read_picture(picture), picture.id).image))
    except BadImage:  # taken away since it was embedded; the page says that it is not drawn
        return
