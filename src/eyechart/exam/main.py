"""One exam from beginning to end, resumable at every item.

What is written is one run folder (`core.runs`). The same call again continues where it stopped; a batch is always
made of the same items, so an interrupted exam ends with the same results as an unbroken one.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL.Image import Image

from eyechart.core.config import build, to_dict
from eyechart.core.devices import pick_batch_size, pick_device
from eyechart.core.embeddings import EmbeddingStore
from eyechart.core.errors import UserError
from eyechart.core.images import open_image, thumbnail_jpeg
from eyechart.core.records import Capability, Graded, Item
from eyechart.core.runs import RunFolder
from eyechart.exam.benchmark import open_benchmark, world_plan
from eyechart.exam.config import IN_MEMORY, ExamConfig, given, rerun_command
from eyechart.exam.defaults import UNTRAINED
from eyechart.exam.locating import locate
from eyechart.exam.results import PAIRS_SCHEMA, pair_rows, results_json
from eyechart.exam.stage import Stage
from eyechart.find import Comparison, compare_pairs
from eyechart.models.servers import Server
from eyechart.models.vlms import VLM
from eyechart.report import summary_sentences, write_report
from eyechart.score import summarise
from eyechart.score.answers import answers_of, ask_here, ask_server
from eyechart.score.opening import WORLD, Progress
from eyechart.score.variants import Asked, Variant, put

TASK = "exam"
"""The name samples and results are filed under."""

BATCH = {"cpu": 8, "cuda": 32, "mps": 8}
"""Items at a time where nobody asked; on CUDA halved until one batch fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamResult:
    """Where an exam was written and what it found."""

    folder: Path
    page: Path
    results: dict[str, Any]
    summary: tuple[str, ...]
    """The plain-words summary, a sentence each."""

    again: bool
    """Whether the run was finished before and was only shown again."""


def examine(
    model: Any = None,
    processor: Any = None,
    *,
    config: ExamConfig | None = None,
    out: Path | str | None = None,
    fresh: bool = False,
    progress: Progress = lambda stage, done, total: None,
    command: Sequence[str] | None = None,
    **options: Any,
) -> ExamResult:
    """Examine a VLM: ask it every question, grade, score by pair, and find the pairs its own encoder confuses.

    Args:
        model: a Hugging Face id, a folder, `zoo:NAME`, `untrained`, a server's URL, or a model in memory (then with its `processor`);
            None is the first of `defaults.default_models`.
        processor: the processor of a model in memory.
        config: all choices at once; or give them one by one as `options` (the fields of `ExamConfig`).
        out: the run folder (default `runs/<slug>`); the same call again continues there.
        fresh: start over.
        progress: told how far each stage is.
        command: what a person would type to run this again; made from the choices when not given.

    Raises:
        UserError: something the caller can mend; the text says what was given, what was expected and what to do.
    """
    named = isinstance(model, str) or model is None
    name = model if named else f"{IN_MEMORY}{type(model).__name__}"
    if config is None:
        config = build(ExamConfig, {**({"model": name} if name is not None else {}), **options})
    elif name is not None or options:
        twice = ", ".join([*(["model"] if name is not None else []), *options])
        raise UserError(f"give either a config or single choices, not both; beside the config came: {twice}")
    folder = Path(out) if out is not None else Path("runs") / config.slug
    in_memory = None if named else VLM.from_objects(model, processor)
    stage = Stage(config, folder, in_memory=in_memory, progress=progress)
    words = command or rerun_command(config, folder)
    with (
        closing(stage),
        RunFolder.open(
            folder, config=stage.identity(), command=words, fresh=fresh, given=given(config)
        ) as run,
    ):
        again = run.finished
        if not again:
            _hold(stage, run, progress)
        page = write_report(folder)
    results = json.loads((folder / "results.json").read_text("utf8"))
    return ExamResult(
        folder=folder, page=page, results=results, summary=summary_sentences(folder), again=again
    )


def plan(config: ExamConfig, *, out: Path | None = None) -> dict[str, Any]:
    """What an exam would do, for `--dry-run`: a benchmark is read and checked, nothing is rendered, no weights are loaded."""
    folder = out or Path("runs") / config.slug
    asked = _asked_of_world(config) if config.on == WORLD else _asked_of_benchmark(config)
    return {
        **to_dict(config),
        "model": "a small random-weight LLaVA" if config.model == UNTRAINED else config.model,
        "ask": config.asking,
        "device": str(pick_device(config.device).device),
        "folder": str(folder),
        "exists": folder.exists(),
        **asked,
        "disk_bytes": asked["images"] * 20_000 + asked["items"] * 1_500,
    }


def _asked_of_world(config: ExamConfig) -> dict[str, Any]:
    drawn = world_plan(config)
    there = drawn.pairs * len(drawn.patterns)
    pairs = there if config.limit is None else min(there, config.limit)
    return {"items": 2 * pairs, "pairs": pairs, "images": 2 * pairs, "quarantined": 0, "notes": []}


def _asked_of_benchmark(config: ExamConfig) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        benchmark = open_benchmark(config, Path(scratch), lambda stage, done, total: None)
    return {
        "items": len(benchmark.items),
        "pairs": len({item.pair_id for item in benchmark.items}),
        "images": len({item.image_sha256 for item in benchmark.items}),
        "quarantined": len(benchmark.quarantined),
        "notes": list(benchmark.notes),
    }


def _hold(stage: Stage, run: RunFolder, progress: Progress) -> None:
    """Ask, look, score, write; each step keeps what an earlier start has done."""
    items = stage.benchmark.items
    batch = 1 if isinstance(stage.vlm, Server) else _batch_size(stage, stage.vlm, run)
    reference = stage.reference
    run.update_manifest(
        model=stage.vlm.describe(),
        reference=reference.describe() if reference else None,
        device_reason=stage.device.reason,
        seed=stage.config.seed,
    )
    run.write_quarantine(stage.benchmark.quarantined)
    _thumbnails(items, run)
    graded = _ask(stage, run, batch, progress)
    comparison = _look(stage, run, batch, progress)
    suspects = {row.pair_id: row.suspect for row in comparison.pairs} if comparison else None
    summary = summarise(items, graded, suspects=suspects, seed=stage.config.seed)
    run.write_table("pairs.parquet", pair_rows(summary, comparison), PAIRS_SCHEMA)
    located = locate(stage, run, summary.pairs, batch=batch, progress=progress)
    results = results_json(stage, run, summary, comparison, located, task=TASK)
    run.write_json("results.json", results)
    run.finish()


def _batch_size(stage: Stage, vlm: VLM, run: RunFolder) -> int:
    """Chosen once and kept in the manifest, so that a resumed run makes the same batches."""
    kept = run.manifest.get("batch_size")
    if kept is None:
        wish = None if stage.config.batch_size == "auto" else stage.config.batch_size
        device = stage.device.device

        def fits(size: int) -> None:
            answers_of(
                vlm,
                _asked(stage)[:size],
                ask=stage.config.asking,
                max_new_tokens=stage.config.max_new_tokens,
            )

        chosen = pick_batch_size(wish, device=device, default=BATCH[device.type], fits=fits)
        kept = {"value": chosen.value, "reason": chosen.reason}
        run.update_manifest(batch_size=kept)
    return int(kept["value"])


def _thumbnails(items: Sequence[Item], run: RunFolder) -> None:
    """Every picture small, so that the page can be made again from the folder alone."""
    for item in items:
        name = f"thumbs/{item.image_sha256}.jpg"
        if not (run.path / name).exists():
            run.write_bytes(name, thumbnail_jpeg(open_image(item.image).image))


def _ask(stage: Stage, run: RunFolder, batch: int, progress: Progress) -> list[Graded]:
    """Put every question not yet answered; one line in the log an item, on the disk before the next batch."""
    log = run.jsonl(f"samples_{TASK}.jsonl", key="doc_id")
    asked, config = _asked(stage), stage.config
    if isinstance(stage.vlm, Server):
        return ask_server(stage.vlm, asked, log, max_new_tokens=config.max_new_tokens, progress=progress)
    return ask_here(
        stage.vlm,
        asked,
        log,
        ask=config.asking,
        max_new_tokens=config.max_new_tokens,
        batch=batch,
        progress=progress,
    )


def _asked(stage: Stage) -> list[Asked]:
    return put(stage.benchmark, Variant(template=stage.config.template))


def _look(stage: Stage, run: RunFolder, batch: int, progress: Progress) -> Comparison | None:
    """How alike the pictures of each pair are to the model's own encoder, and to the reference."""
    items = stage.benchmark.items
    if Capability.FED_FEATURES not in stage.vlm.capabilities:
        return None
    images = {item.image_sha256: item.image for item in items}
    own = _embedded(run, "model", stage.fed_key, images, stage.fed_vectors, batch, progress)
    other = None
    if stage.reference is not None:
        key = stage.reference.cache_key(stage.config.reference_pooling)
        other = _embedded(run, "reference", key, images, stage.reference_vectors, batch, progress)
    config = stage.config
    return compare_pairs(items, list(images), own, other, percentile=config.percentile, seed=config.seed)


def _embedded(
    run: RunFolder,
    name: str,
    key: str,
    images: Mapping[str, Path],
    embed: Callable[[Sequence[Image]], Float[np.ndarray, "image dim"]],
    batch: int,
    progress: Progress,
) -> Float[np.ndarray, "image dim"]:
    """The vectors of all images in their order; those not stored yet are computed, a shard a batch."""
    store = EmbeddingStore(run.own(f"embeddings/{name}/shard-00000.safetensors").parent, key)
    missing = store.missing(images)
    for start in range(0, len(missing), batch):
        progress(f"looking ({name})", len(images) - len(missing) + start, len(images))
        names = missing[start : start + batch]
        store.add(names, embed([open_image(images[name]).image for name in names]))
    progress(f"looking ({name})", len(images), len(images))
    return store.rows(list(images))
