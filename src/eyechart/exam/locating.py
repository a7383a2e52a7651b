"""Where a pattern is lost: the exam's layer probes and its verdicts, from twins of the world or from a benchmark's own pairs.

On the world, twins (two scenes that differ in one fact and in nothing else) are rendered for the purpose, since the exam's own
siblings are of too many kinds for a probe to learn from (`world.sets_twins`); the model is asked about them as about the exam's
pairs. On a benchmark its own pairs are read, those with a label that enough others share, and its own answers count.

What was read is in `located/readings.jsonl`, a line a pattern, and `located/answers.jsonl`, a line an item: a run that was killed
goes on at the pattern or batch in flight.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from eyechart.core.files import JsonLines
from eyechart.core.records import Benchmark, Capability, Graded, Item, Outcome, Prompt
from eyechart.core.runs import RunFolder
from eyechart.exam.stage import Stage
from eyechart.locate.config import LocateConfig
from eyechart.locate.probes import PatternStages, ReadingKind, pattern_stages, read_pattern
from eyechart.locate.stages import StageLayers, StageReader
from eyechart.locate.verdict import Answers, PatternVerdict, Rule, decide
from eyechart.models.servers import Server
from eyechart.models.vlms import VLM
from eyechart.score import PairOutcome, summarise
from eyechart.score.answers import ask_here
from eyechart.score.benchmarks import load_benchmark
from eyechart.score.opening import WORLD, Progress
from eyechart.score.variants import Asked, Variant, put
from eyechart.train.pair_labels import LEAST, Covered, covered
from eyechart.train.pair_reading import MOST, PairsRead, sample
from eyechart.world.facts import PATTERNS
from eyechart.world.sets_twins import TwinPlan, render_twins, twin_labels
from eyechart.world.sets_version import fingerprint, fingerprint_of_words

TWINS = 32
"""Pairs of twins of each pattern: few, for a probe's time grows with the square of this, and an exam is to take minutes. `eyechart
locate` takes more."""

LEAST_TWINS = 5
"""Pairs that a label of the world's twins must be in; `choose_twins` sees to more."""

REPEATS = 1
"""Seeds of splits and of controls that are averaged."""

DEFAULT = Variant()
"""How pairs are put where nobody chose."""

READ, ANSWERED = "located/readings.jsonl", "located/answers.jsonl"

LOCATED, LOCATED_SCHEMA = (
    "located.parquet",
    pa.schema(
        [
            *(pa.field(name, pa.string(), nullable=False) for name in ("pattern", "pair_id", "stage")),
            pa.field("read", pa.float64(), nullable=False),
            pa.field("control", pa.float64()),
        ]
    ),
)
"""Of each pair and stage the share of repeats in which it was read, and in which its control was; the stage `answer` is whether the
model answered the pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is read and asked about, and how."""

    on: str
    benchmark: Benchmark | None
    """None on the world, whose twins are rendered."""

    bundled: Path
    each: int
    """Of the world: pairs of twins of each pattern."""

    scene_seed: int
    size: int
    template: str
    ask: Literal["generate", "options"]
    max_new_tokens: int
    reading: ReadingKind
    every_layer: bool
    """Whether all layers of both towers are read, or a few at even steps."""

    batch: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Material:
    """What is read and asked."""

    patterns: tuple[Covered, ...]
    asked: Mapping[str, Asked]
    """By item id."""

    words: str
    """Which items these are."""

    chance: Mapping[str, float]
    """Of a pair answered by guessing, by pattern."""


def locate(
    stage: Stage,
    run: RunFolder,
    pairs: Sequence[PairOutcome],
    *,
    batch: int,
    progress: Progress,
) -> dict[str, Any] | None:
    """Read the model's stages, ask about what was read, and decide; the table is written here.

    Args:
        stage: the exam.
        run: its folder.
        pairs: how the model did on the exam's own pairs.
        batch: items at a time.
        progress: told how far it is.

    Returns:
        The block `eyechart.located` of `results.json`; None where it was not wanted.
    """
    if not stage.config.locate:
        return None
    if why := why_no_probes(stage.vlm):
        return {"missing": why}
    assert isinstance(stage.vlm, VLM)
    config = stage.config
    wanted = Wanted(
        on=config.on,
        benchmark=None if config.on == WORLD else stage.benchmark,
        bundled=stage.bundled,
        each=TWINS if config.limit is None else min(TWINS, -(-config.limit // len(PATTERNS))),
        scene_seed=config.scene_seed,
        size=config.size,
        template=config.template,
        ask=config.asking,
        max_new_tokens=config.max_new_tokens,
        reading="flat",
        every_layer=False,
        batch=batch,
        seed=config.seed,
    )
    return verdicts_of(stage.vlm, wanted, run, pairs, progress)


def verdicts_of(
    vlm: VLM, wanted: Wanted, run: RunFolder, pairs: Sequence[PairOutcome], progress: Progress
) -> dict[str, Any]:
    """Read a model's stages, ask about what was read, and decide; the table is written here.

    Args:
        vlm: with hidden states, and a language model that reads its prompt and answers itself.
        wanted: what is read.
        run: the folder it is written to.
        pairs: on a benchmark, how the model did on its pairs.
        progress: told how far it is.
    """
    made = _twins(wanted, progress) if wanted.benchmark is None else _own(wanted, wanted.benchmark)
    rule = Rule()
    notes: list[str] = []
    read = _read(vlm, wanted, made, run, notes, progress)
    right = {pair.pair_id: pair.right for pair in pairs}
    if wanted.benchmark is None:
        right = _ask(vlm, wanted, made, read, run, progress)
    answers = {
        one.pattern: Answers(
            right={pair: right[pair] for pair in one.pair_ids}, chance=made.chance[one.pattern]
        )
        for one in read
    }
    verdicts = decide(read, answers, rule=rule, seed=wanted.seed)
    run.write_table(LOCATED, _rows(read, answers), LOCATED_SCHEMA)
    return _block(read, verdicts, rule, made, notes)


def probe_patterns(
    config: LocateConfig, vlm: VLM, run: RunFolder, bundled: Path, progress: Progress
) -> dict[str, Any]:
    """The stage `probes` of `eyechart locate`: as in an exam, with every layer read."""
    if why := why_no_probes(vlm):
        return {"missing": why}
    benchmark = None if config.on == WORLD else load_benchmark(config.on, limit=config.limit, images=bundled)
    wanted = Wanted(
        on=config.on,
        benchmark=benchmark,
        bundled=bundled,
        each=config.pairs,
        scene_seed=config.scene_seed,
        size=config.size,
        template=DEFAULT.template,
        ask="generate" if Capability.GENERATE in vlm.capabilities and vlm.trained else "options",
        max_new_tokens=16,
        reading=config.probe,
        every_layer=True,
        batch=8 if config.batch_size == "auto" else config.batch_size,
        seed=config.seed,
    )
    pairs: Sequence[PairOutcome] = ()
    if benchmark is not None:
        graded = _asked(vlm, wanted, put(benchmark, DEFAULT), run, progress, "asking")
        pairs = summarise(benchmark.items, graded, seed=config.seed).pairs
    return verdicts_of(vlm, wanted, run, pairs, progress)


def why_no_probes(vlm: VLM | Server) -> str | None:
    """Why a model's stages cannot be read; None where they can."""
    if isinstance(vlm, Server):
        return f"{vlm.id} is a server, which gives replies and none of the states that probes read"
    if Capability.HIDDEN_STATES not in vlm.capabilities:
        return f"the model gives no states that probes could read: {vlm.cannot[Capability.HIDDEN_STATES]}"
    if vlm.towers.language_encoder:
        return "the model's answer comes from a decoder, so there is no last position of the prompt at which it is read"
    return None


def _twins(wanted: Wanted, progress: Progress) -> _Material:
    """Twins of the test split, and none where they are too few to read."""
    each = wanted.each
    if each < Rule().least:
        none = tuple(
            Covered(pattern=name, in_set=each, items=(), words=(), groups=()) for name in sorted(PATTERNS)
        )
        return _Material(
            patterns=none, asked={}, words=_twins_words(each), chance=dict.fromkeys(PATTERNS, 0.25)
        )
    plan = TwinPlan(pairs=each, seed=wanted.scene_seed, patterns=PATTERNS)
    known = json.dumps([asdict(plan), wanted.size, fingerprint(), fingerprint_of_words()], sort_keys=True)
    digest = hashlib.sha256(known.encode()).hexdigest()[:6]
    folder = wanted.bundled / f"twins-seed{plan.seed}-{wanted.size}px-{each}each-{digest}"
    render_twins(folder, plan, size=wanted.size, progress=progress)
    benchmark = load_benchmark(folder, name="twins")
    found = covered(benchmark.items, labels=twin_labels(folder), least=LEAST_TWINS)
    return _material(wanted, benchmark, found, _twins_words(each))


def _twins_words(each: int) -> str:
    return (
        f"{each} pairs of twins of each pattern: scenes of the test split that differ in one fact and in nothing else,"
        " rendered for this; of each pattern a few contrasts, so that labels are in enough pairs"
    )


def _own(wanted: Wanted, benchmark: Benchmark) -> _Material:
    words = f"the benchmark's own pairs, those with a label that at least {LEAST} pairs share"
    return _material(wanted, benchmark, covered(benchmark.items), words)


def _material(wanted: Wanted, benchmark: Benchmark, found: Sequence[Covered], words: str) -> _Material:
    asked = {one.item.id: one for one in put(benchmark, Variant(template=wanted.template))}
    chance: dict[str, float] = {}
    for one in found:
        two_by_two = zip(one.items[::2], one.items[1::2], strict=True)
        each = [1 / (len(a.options) * len(b.options)) for a, b in two_by_two]
        chance[one.pattern] = float(np.mean(each)) if each else 0.25
    return _Material(patterns=tuple(found), asked=asked, words=words, chance=chance)


def _read(
    vlm: VLM, wanted: Wanted, made: _Material, run: RunFolder, notes: list[str], progress: Progress
) -> list[PatternStages]:
    """Patterns that are not on the disk are read, each written before the next."""
    log = run.jsonl(READ, key="pattern")
    seed = wanted.seed
    chosen = [sample(one, MOST, seed) for one in made.patterns]

    def prompt(item: Item) -> Prompt:
        return made.asked[item.id].prompt()

    layers = StageLayers.all_of(vlm.towers) if wanted.every_layer else StageLayers.few(vlm.towers, image=1)
    reader = StageReader(vlm=vlm, put=prompt, layers=layers, batch=wanted.batch, notes=notes)
    for number, one in enumerate(chosen):
        progress("reading stages", number, len(chosen))
        if one.pattern not in log:
            held = reader(one.items) if one.items else {}
            log.append(
                _line(read_pattern(one, held, reading=wanted.reading, repeats=REPEATS, seed=seed), notes)
            )
    progress("reading stages", len(chosen), len(chosen))
    return _from_log(log, chosen, notes, seed)


def _line(read: PatternStages, notes: Sequence[str]) -> dict[str, Any]:
    stages = {
        one.stage.name: {"read": one.read.tolist(), "control": one.control.tolist()} for one in read.stages
    }
    return {"pattern": read.pattern, "probe": read.probe, "stages": stages, "notes": list(notes)}


def _from_log(log: JsonLines, chosen: Sequence[Covered], notes: list[str], seed: int) -> list[PatternStages]:
    """As it was written, whether now or by an earlier start."""
    lines = {line["pattern"]: line for line in log}
    notes[:] = dict.fromkeys(note for line in lines.values() for note in line["notes"])
    found = []
    for one in chosen:
        line = lines[one.pattern]
        shares = {
            name: PairsRead(right=np.array(kept["read"]), control=np.array(kept["control"]))
            for name, kept in line["stages"].items()
        }
        found.append(pattern_stages(one, shares, probe=line["probe"], seed=seed))
    return found


def _ask(
    vlm: VLM,
    wanted: Wanted,
    made: _Material,
    read: Sequence[PatternStages],
    run: RunFolder,
    progress: Progress,
) -> dict[str, bool]:
    """Whether the model answers both items of each pair that was read."""
    needed = {pair for one in read for pair in one.pair_ids}
    asked = [one for one in made.asked.values() if one.item.pair_id in needed]
    graded = _asked(vlm, wanted, asked, run, progress, "asking about twins")
    right = dict.fromkeys(sorted(needed), True)
    for one, answer in zip(asked, graded, strict=True):
        right[one.item.pair_id] &= answer.outcome is Outcome.RIGHT
    return right


def _asked(
    vlm: VLM, wanted: Wanted, asked: Sequence[Asked], run: RunFolder, progress: Progress, stage: str
) -> list[Graded]:
    """The replies to all that is asked, those of an earlier start taken from the log."""
    log = run.jsonl(ANSWERED, key="doc_id")
    if not asked:
        return []
    return ask_here(
        vlm, asked, log, ask=wanted.ask, max_new_tokens=wanted.max_new_tokens, batch=wanted.batch,
        progress=progress, stage=stage,
    )  # fmt: skip


def _rows(read: Sequence[PatternStages], answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for one in read:
        for reading in one.stages:
            for pair, value, control in zip(one.pair_ids, reading.read, reading.control, strict=True):
                key = {"pattern": one.pattern, "pair_id": pair, "stage": reading.stage.name}
                rows.append({**key, "read": float(value), "control": float(control)})
        for pair in one.pair_ids:
            key = {"pattern": one.pattern, "pair_id": pair, "stage": "answer"}
            rows.append({**key, "read": float(answers[one.pattern].right[pair]), "control": None})
    return rows


def _block(
    read: Sequence[PatternStages],
    verdicts: Sequence[PatternVerdict],
    rule: Rule,
    made: _Material,
    notes: Sequence[str],
) -> dict[str, Any]:
    return {
        "missing": None,
        "items": made.words,
        "probe": next((one.probe for one in read if one.stages), None),
        "rule": asdict(rule),
        "notes": list(notes),
        "patterns": [
            {
                **verdict.to_dict(),
                "in_set": one.in_set,
                "label_pairs": dict(one.labels),
                "stages": [
                    {
                        "stage": stage.stage.name,
                        "kind": stage.stage.kind,
                        "layer": stage.stage.layer,
                        "pairs": stage.pairs.to_dict(),
                        "control": stage.dealt.to_dict(),
                        "difference": stage.difference.to_dict(),
                    }
                    for stage in one.stages
                ],
            }
            for one, verdict in zip(read, verdicts, strict=True)
        ],
    }
