"""One score from beginning to end, in one run folder, resumable at every item.

A VLM, here or behind a server, is put all items of a set in one way or in several; an encoder matches captions with
images, or is read by probes. The same call again asks only what has no answer yet.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from eyechart.core.config import to_dict
from eyechart.core.devices import pick_batch_size, pick_device
from eyechart.core.errors import UserError
from eyechart.core.files import JsonLines
from eyechart.core.records import Benchmark, MatchSet
from eyechart.core.runs import RunFolder
from eyechart.models.kinds import kind_of
from eyechart.models.servers import Server
from eyechart.models.vlms import VLM
from eyechart.score.answers import Progress, answers_of, ask_server, ask_ways, in_order
from eyechart.score.config import ScoreConfig, command_of, given
from eyechart.score.encoder_run import score_encoder
from eyechart.score.held import Held
from eyechart.score.judge import Judge, judge_by
from eyechart.score.judge_run import read_again
from eyechart.score.opening import is_world, open_for_encoder, open_questions
from eyechart.score.results import about, flat, identity_of, measured, results_json
from eyechart.score.variants import Asked, put

BATCH = {"cpu": 8, "cuda": 32, "mps": 8}
"""Items at a time where nobody asked; on CUDA halved until one batch fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Where a score was written and what it is."""

    folder: Path
    results: dict[str, Any]
    again: bool
    """Whether the run was finished before and was only shown again."""


def score(
    config: ScoreConfig,
    *,
    out: Path | str | None = None,
    fresh: bool = False,
    progress: Progress = lambda stage, done, total: None,
    command: Sequence[str] | None = None,
) -> Scored:
    """Score a model on a set.

    Args:
        config: every choice.
        out: the run folder (default `runs/<slug>`); the same call again continues there.
        fresh: start over.
        progress: told how far each stage is.
        command: what a person would type to run this again; made from the choices when not given.

    Raises:
        UserError: something the caller can mend; the text says what was given, what was expected and what to do.
    """
    folder = Path(out) if out is not None else Path("runs") / config.slug
    kind = kind_of(config.model, revision=config.revision, trust_remote_code=config.trust_remote_code)
    options: dict[str, Any] = {
        "world": config.world,
        "limit": config.limit,
        "bundled": folder.parent / "bundled",
        "kind": config.kind,
        "progress": progress,
    }
    found = (open_for_encoder if kind == "encoder" else open_questions)(config.on, **options)
    with ExitStack() as stack:
        model = Held(config, kind, stack)
        identity = {**to_dict(config), "resolved": {"model": model.identity, "set": identity_of(found)}}
        run = stack.enter_context(
            RunFolder.open(
                folder,
                config=identity,
                command=command or command_of(config, folder),
                fresh=fresh,
                given=given(config),
            )
        )
        again = run.finished
        if not again:
            run.write_quarantine(found.quarantined)
            _hold(config, kind, model, found, run, progress)
    results = json.loads((folder / "results.json").read_text("utf8"))
    return Scored(folder=folder, results=results, again=again)


def plan(config: ScoreConfig, *, out: Path | None = None) -> dict[str, Any]:
    """What a score would ask, for `--dry-run`: a set is read and checked, nothing is rendered, no weights are loaded."""
    folder = out or Path("runs") / config.slug
    kind = kind_of(config.model, revision=config.revision, trust_remote_code=config.trust_remote_code)
    if is_world(config.on):
        drawn = config.world.plan(config.limit)
        asked: dict[str, Any] = {"pairs": drawn.pairs * len(drawn.patterns)}
    else:
        opener = open_for_encoder if kind == "encoder" else open_questions
        with tempfile.TemporaryDirectory() as scratch:
            asked = about(opener(config.on, limit=config.limit, bundled=Path(scratch), kind=config.kind))
    ways = [name or "base" for name in config.variants]
    return {**to_dict(config), "model_kind": kind, "ways": ways, "folder": str(folder), "set": asked}


def _hold(
    config: ScoreConfig,
    kind: str,
    model: Held,
    found: Benchmark | MatchSet,
    run: RunFolder,
    progress: Progress,
) -> None:
    if kind == "encoder":
        encoder = model.loaded
        block = score_encoder(
            encoder, found, run, seed=config.seed, batch=_whole(config.batch_size, 32), progress=progress
        )
        described, tasks = encoder.describe(), {found.name: flat(block["measures"])}
    else:
        assert isinstance(found, Benchmark)
        block = _score_answers(config, model, found, run, progress)
        described = model.loaded.describe()
        tasks = {each["task"]: flat(each["measures"]) for each in block["variants"]}
    run.update_manifest(model=described, seed=config.seed)
    run.write_json("results.json", results_json(config, run, found, described, tasks, block))
    run.finish()


def _whole(given: int | str, default: int) -> int:
    return given if isinstance(given, int) else default


def _score_answers(
    config: ScoreConfig, model: Held, benchmark: Benchmark, run: RunFolder, progress: Progress
) -> dict[str, Any]:
    """Every variant asked and measured; the answers are in the run's logs."""
    asked = {name: put(benchmark, variant) for name, variant in config.variants.items()}
    here = model.kind != "server"
    if not here and config.ask != "generate":
        raise UserError(f"a server gives replies, so it cannot be asked by {config.ask!r}; use 'generate'")
    batch = _batch_size(config, model.loaded, next(iter(asked.values())), run) if here else 0
    judge = _judge(config, model)
    tasks = {name: benchmark.name + (f"@{name}" if name else "") for name in asked}
    logs = {name: run.jsonl(f"samples_{tasks[name]}.jsonl", key="doc_id") for name in asked}
    for names in _groups(config):
        _ask(config, model.loaded, {name: (asked[name], logs[name]) for name in names}, batch, progress)
    blocks = []
    for name, variant in config.variants.items():
        task, graded = tasks[name], in_order(asked[name], logs[name])
        block = {"variant": asdict(variant), "task": task, **measured(benchmark, graded, seed=config.seed)}
        if judge is not None:
            read = read_again(judge, config.judge_for, asked[name], graded, run, task, progress)
            again = measured(benchmark, read.graded, seed=config.seed)
            block["judged"] = {**again, "decided_on": read.decided, "differs_on": read.differs}
        blocks.append(block)
    return {
        "kind": "vlm",
        "asking": {"ask": config.ask, "max_new_tokens": config.max_new_tokens, "batch_size": batch or None},
        "judge": None if judge is None else judge.describe() | {"for": config.judge_for},
        "variants": blocks,
    }


def _judge(config: ScoreConfig, model: Held) -> Judge | None:
    """The judge that was asked for, pinned; a model that judges itself is loaded once."""
    if config.judge is None:
        return None
    wish = replace(config, model=config.judge, served_model=config.judge_model, adapter=None, judge=None)
    same = (wish.model, wish.served_model) == (config.model, config.served_model) and not config.adapter
    held = model if same else model.beside(wish)
    known = held.identity
    revision = known["sha256"] or known["revision"] or getattr(held.loaded, "model", "")
    return Judge(model=known["id"], revision=str(revision), answering=judge_by(held.loaded))


def _groups(config: ScoreConfig) -> list[list[str]]:
    """The ways of asking that are put in the same batches: where options are scored, those that show the same pictures."""
    if config.ask == "generate":
        return [[name] for name in config.variants]
    groups: dict[tuple[str, int | None], list[str]] = {}
    for name, variant in config.variants.items():
        groups.setdefault((variant.show, variant.side), []).append(name)
    return list(groups.values())


def _ask(
    config: ScoreConfig,
    model: VLM | Server,
    ways: Mapping[str, tuple[Sequence[Asked], JsonLines]],
    batch: int,
    progress: Progress,
) -> None:
    named = ", ".join(name for name in ways if name)
    options: dict[str, Any] = {
        "max_new_tokens": config.max_new_tokens,
        "progress": progress,
        "stage": f"asking ({named})" if named else "asking",
    }
    if isinstance(model, Server):
        for asked, log in ways.values():
            ask_server(model, asked, log, **options)
    else:
        ask_ways(model, [*ways.values()], ask=config.ask, batch=batch, **options)


def _batch_size(config: ScoreConfig, vlm: VLM, asked: Sequence[Asked], run: RunFolder) -> int:
    """Chosen once and kept in the manifest, so that a resumed run makes the same batches."""
    kept = run.manifest.get("batch_size")
    if kept is None:
        wish = None if config.batch_size == "auto" else config.batch_size
        device = pick_device(config.device).device

        def fits(size: int) -> None:
            answers_of(vlm, asked[:size], ask=config.ask, max_new_tokens=config.max_new_tokens)

        chosen = pick_batch_size(wish, device=device, default=BATCH[device.type], fits=fits)
        kept = {"value": chosen.value, "reason": chosen.reason}
        run.update_manifest(batch_size=kept)
    return int(kept["value"])
