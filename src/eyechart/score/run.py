"""One score from beginning to end, in one run folder, resumable at every item.

A VLM, here or behind a server, is put all items of a set in one way or in several; an encoder matches captions with
images, or is read by probes. The same call again asks only what has no answer yet.
"""

import importlib.metadata
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
from eyechart.core.records import Benchmark, Graded, Item, MatchSet
from eyechart.core.runs import RunFolder
from eyechart.models import load_encoder, load_vlm
from eyechart.models.kinds import kind_of
from eyechart.models.quiet import quiet
from eyechart.models.servers import Server
from eyechart.models.sources import fingerprint, parse_source
from eyechart.models.vlms import VLM
from eyechart.score.answers import Progress, answers_of, ask_here, ask_server
from eyechart.score.config import ScoreConfig, command_of, given
from eyechart.score.encoder_run import score_encoder
from eyechart.score.measures import Measure
from eyechart.score.opening import is_world, open_for_encoder, open_questions
from eyechart.score.rules import measure
from eyechart.score.scoring import NO_PATTERN
from eyechart.score.variants import Asked, put

SCHEMA = 1
"""Of the `eyechart` block of results.json."""

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
        model = _Model(config, kind, stack)
        identity = {**to_dict(config), "resolved": {"model": model.identity, "set": _set_identity(found)}}
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
        about: dict[str, Any] = {"pairs": drawn.pairs * len(drawn.patterns)}
    else:
        opener = open_for_encoder if kind == "encoder" else open_questions
        with tempfile.TemporaryDirectory() as scratch:
            about = _about(opener(config.on, limit=config.limit, bundled=Path(scratch), kind=config.kind))
    ways = [name or "base" for name in config.variants]
    return {**to_dict(config), "model_kind": kind, "ways": ways, "folder": str(folder), "set": about}


class _Model:
    """What is examined; weights are loaded at first use, so that a finished run is shown again without them."""

    def __init__(self, config: ScoreConfig, kind: str, stack: ExitStack) -> None:
        self.config, self.kind = config, kind
        self._stack = stack
        self._loaded: Any = None
        self.identity = self._identity()

    @property
    def loaded(self) -> Any:
        """The VLM, the encoder or the server."""
        if self._loaded is None:
            with quiet():
                self._loaded = self._load()
        return self._loaded

    def _load(self) -> Any:
        config = self.config
        if self.kind == "server":
            server = Server(
                config.model,
                model=config.served_model,
                concurrency=config.concurrency,
                retries=config.retries,
                timeout=config.timeout,
            )
            self._stack.callback(server.close)
            return server
        options: dict[str, Any] = {
            "revision": config.revision,
            "attn": config.attn,
            "trust_remote_code": config.trust_remote_code,
        }
        if self.kind == "encoder":
            dtype = "float32" if config.dtype == "auto" else config.dtype
            return load_encoder(config.model, device=config.device, dtype=dtype, **options)
        device = None if config.device_map else config.device
        return load_vlm(
            config.model,
            device=device,
            device_map=config.device_map,
            dtype=config.dtype,
            adapter=config.adapter,
            **options,
        )

    def _identity(self) -> dict[str, Any]:
        """Which model exactly, known before loading where it can be."""
        if self.kind == "server":
            return {"id": self.loaded.describe()["id"], "revision": None, "sha256": None}
        known = fingerprint(parse_source(self.config.model, revision=self.config.revision))
        if not (known.sha256 or known.revision):
            known = replace(known, revision=self.loaded.revision, sha256=self.loaded.sha256)
        return to_dict(known)


def _set_identity(found: Benchmark | MatchSet) -> dict[str, Any]:
    rows = {"rows_sha256": found.rows_sha256} if isinstance(found, Benchmark) else {}
    return {"name": found.name, "sha256": found.sha256, **rows}


def _hold(
    config: ScoreConfig,
    kind: str,
    model: _Model,
    found: Benchmark | MatchSet,
    run: RunFolder,
    progress: Progress,
) -> None:
    if kind == "encoder":
        encoder = model.loaded
        block = score_encoder(
            encoder, found, run, seed=config.seed, batch=_whole(config.batch_size, 32), progress=progress
        )
        described, tasks = encoder.describe(), {found.name: _flat(block["measures"])}
    else:
        assert isinstance(found, Benchmark)
        block = _score_answers(config, model, found, run, progress)
        described = model.loaded.describe()
        tasks = {each["task"]: _flat(each["measures"]) for each in block["variants"]}
    run.update_manifest(model=described, seed=config.seed)
    run.write_json("results.json", _results(config, run, found, described, tasks, block))
    run.finish()


def _whole(given: int | str, default: int) -> int:
    return given if isinstance(given, int) else default


def _score_answers(
    config: ScoreConfig, model: _Model, benchmark: Benchmark, run: RunFolder, progress: Progress
) -> dict[str, Any]:
    """Every variant asked and measured; the answers are in the run's logs."""
    asked = {name: put(benchmark, variant) for name, variant in config.variants.items()}
    here = model.kind != "server"
    if not here and config.ask != "generate":
        raise UserError(f"a server gives replies, so it cannot be asked by {config.ask!r}; use 'generate'")
    batch = _batch_size(config, model.loaded, next(iter(asked.values())), run) if here else 0
    blocks = []
    for name, variant in config.variants.items():
        task = benchmark.name + (f"@{name}" if name else "")
        log = run.jsonl(f"samples_{task}.jsonl", key="doc_id")
        stage = f"asking ({name})" if name else "asking"
        graded = _ask(config, model.loaded, asked[name], log, batch, progress, stage)
        blocks.append(
            {"variant": asdict(variant), "task": task, **measured(benchmark, graded, seed=config.seed)}
        )
    return {
        "kind": "vlm",
        "asking": {"ask": config.ask, "max_new_tokens": config.max_new_tokens, "batch_size": batch or None},
        "variants": blocks,
    }


def _ask(
    config: ScoreConfig,
    model: VLM | Server,
    asked: Sequence[Asked],
    log: JsonLines,
    batch: int,
    progress: Progress,
    stage: str,
) -> list[Graded]:
    if isinstance(model, Server):
        return ask_server(
            model, asked, log, max_new_tokens=config.max_new_tokens, progress=progress, stage=stage
        )
    return ask_here(
        model,
        asked,
        log,
        ask=config.ask,
        max_new_tokens=config.max_new_tokens,
        batch=batch,
        progress=progress,
        stage=stage,
    )


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


def measured(benchmark: Benchmark, graded: Sequence[Graded], *, seed: int = 0) -> dict[str, Any]:
    """The measures of graded replies under every label set, and by pattern, as plain values."""
    plain = _measured(benchmark.rule, benchmark.items, graded, seed)
    corrected = None
    if benchmark.corrections:
        items = benchmark.corrected()
        again = [_regraded(one, item) for one, item in zip(graded, items, strict=True)]
        corrected = [one.to_dict() for one in _measured(benchmark.rule, items, again, seed)]
    return {
        "measures": [one.to_dict() for one in plain],
        "measures_corrected": corrected,
        "patterns": _by_pattern(benchmark, graded, seed),
        "unread": sum(one.choice is None for one in graded),
    }


def _measured(rule: str, items: Sequence[Item], graded: Sequence[Graded], seed: int) -> tuple[Measure, ...]:
    return measure(rule, items, graded, seed=seed)


def _regraded(graded: Graded, item: Item) -> Graded:
    """The same reply against another label."""
    if graded.choice is None:
        return graded
    outcome = type(graded.outcome)("right" if graded.choice == item.answer else "wrong")
    return replace(graded, outcome=outcome)


def _by_pattern(benchmark: Benchmark, graded: Sequence[Graded], seed: int) -> list[dict[str, Any]]:
    """The first measure of the rule on each pattern; nothing where the set names none."""
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(benchmark.items):
        groups.setdefault(item.pattern or NO_PATTERN, []).append(place)
    if list(groups) == [NO_PATTERN] or benchmark.rule not in ("pairs", "items"):
        return []
    rows = []
    for pattern, places in sorted(groups.items()):
        own = [benchmark.items[place] for place in places], [graded[place] for place in places]
        first = _measured(benchmark.rule, *own, seed)[0]
        rows.append({"pattern": pattern, **first.to_dict()})
    return rows


def _flat(measures: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Measures as lm-eval and lmms-eval name them."""
    return {
        "_".join(part for part in (one["name"], one["of"]) if part) + ",none": one["value"]
        for one in measures
    }


def _results(
    config: ScoreConfig,
    run: RunFolder,
    found: Benchmark | MatchSet,
    described: Mapping[str, Any],
    tasks: Mapping[str, Mapping[str, Any]],
    block: Mapping[str, Any],
) -> dict[str, Any]:
    """`results.json`: the shape of lm-eval and lmms-eval, and everything else under `eyechart`."""
    count = len(found.items) if isinstance(found, Benchmark) else len(found.matches)
    manifest = run.manifest
    return {
        "results": {task: {"alias": found.name, **measures} for task, measures in tasks.items()},
        "configs": {task: {"set": found.source, "sha256": found.sha256} for task in tasks},
        "versions": dict.fromkeys(tasks, SCHEMA),
        "n-shot": dict.fromkeys(tasks, 0),
        "n-samples": {task: {"original": found.in_source, "effective": count} for task in tasks},
        "config": {"model": described["id"], "model_args": to_dict(config), "random_seed": config.seed},
        "git_hash": manifest["git"]["commit"],
        "transformers_version": importlib.metadata.version("transformers"),
        "date": manifest["started"],
        "eyechart": {"schema": SCHEMA, "model": dict(described), "benchmark": _about(found), **block},
    }


def _about(found: Benchmark | MatchSet) -> dict[str, Any]:
    about: dict[str, Any] = {**_set_identity(found), "source": found.source, "notes": list(found.notes)}
    about["quarantined"] = len(found.quarantined)
    if isinstance(found, MatchSet):
        return about | {"matches": len(found.matches), "prefix": found.prefix}
    pairs = {item.pair_id for item in found.items if item.pair_id}
    return about | {
        "rule": found.rule,
        "items": len(found.items),
        "pairs": len(pairs),
        "images": len({item.image_sha256 for item in found.items}),
        "corrections": [asdict(one) for one in found.corrections],
    }
