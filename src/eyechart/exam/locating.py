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
from typing import Any

import numpy as np
import pyarrow as pa

from eyechart.core.files import JsonLines
from eyechart.core.records import Benchmark, Capability, Graded, Item, Outcome, Prompt
from eyechart.core.runs import RunFolder
from eyechart.exam.stage import Stage
from eyechart.locate.probes import PatternStages, pattern_stages, read_pattern
from eyechart.locate.stages import StageLayers, StageReader
from eyechart.locate.verdict import Answers, PatternVerdict, Rule, decide
from eyechart.models.servers import Server
from eyechart.models.vlms import VLM
from eyechart.score import PairOutcome
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
"""Pairs of twins of each pattern. With 32, what is read of six pairs in ten stands clear of its control after Holm over all tests
(twins' controls lie near one in ten); a probe's time grows with the square of this."""

LEAST_TWINS = 5
"""Pairs that a label of the world's twins must be in; `choose_twins` sees to more."""

REPEATS = 1
"""Seeds of splits and of controls that are averaged."""

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
    if why := _why_not(stage):
        return {"missing": why}
    assert isinstance(stage.vlm, VLM)
    made = _twins(stage, progress) if stage.config.on == WORLD else _own(stage)
    rule = Rule()
    notes: list[str] = []
    read = _read(stage.vlm, made, run, notes, batch=batch, seed=stage.config.seed, progress=progress)
    right = {pair.pair_id: pair.right for pair in pairs}
    if stage.config.on == WORLD:
        right = _ask(stage, stage.vlm, made, read, run, batch, progress)
    answers = {
        one.pattern: Answers(
            right={pair: right[pair] for pair in one.pair_ids}, chance=made.chance[one.pattern]
        )
        for one in read
    }
    verdicts = decide(read, answers, rule=rule, seed=stage.config.seed)
    run.write_table(LOCATED, _rows(read, answers), LOCATED_SCHEMA)
    return _block(read, verdicts, rule, made, notes)


def _why_not(stage: Stage) -> str | None:
    vlm = stage.vlm
    if isinstance(vlm, Server):
        return f"{vlm.id} is a server, which gives replies and none of the states that probes read"
    if Capability.HIDDEN_STATES not in vlm.capabilities:
        return f"the model gives no states that probes could read: {vlm.cannot[Capability.HIDDEN_STATES]}"
    if vlm.towers.language_encoder:
        return "the model's answer comes from a decoder, so there is no last position of the prompt at which it is read"
    return None


def _twins(stage: Stage, progress: Progress) -> _Material:
    """Twins of the test split; with a limit no more than its share, and none where that is too few to read."""
    config = stage.config
    each = TWINS if config.limit is None else min(TWINS, -(-config.limit // len(PATTERNS)))
    if each < Rule().least:
        none = tuple(
            Covered(pattern=name, in_set=each, items=(), words=(), groups=()) for name in sorted(PATTERNS)
        )
        return _Material(
            patterns=none, asked={}, words=_twins_words(each), chance=dict.fromkeys(PATTERNS, 0.25)
        )
    plan = TwinPlan(pairs=each, seed=config.scene_seed, patterns=PATTERNS)
    known = json.dumps([asdict(plan), config.size, fingerprint(), fingerprint_of_words()], sort_keys=True)
    digest = hashlib.sha256(known.encode()).hexdigest()[:6]
    folder = stage.bundled / f"twins-seed{plan.seed}-{config.size}px-{each}each-{digest}"
    render_twins(folder, plan, size=config.size, progress=progress)
    benchmark = load_benchmark(folder, name="twins")
    found = covered(benchmark.items, labels=twin_labels(folder), least=LEAST_TWINS)
    return _material(stage, benchmark, found, _twins_words(each))


def _twins_words(each: int) -> str:
    return (
        f"{each} pairs of twins of each pattern: scenes of the test split that differ in one fact and in nothing else,"
        " rendered for this; of each pattern a few contrasts, so that labels are in enough pairs"
    )


def _own(stage: Stage) -> _Material:
    benchmark = stage.benchmark
    words = f"the benchmark's own pairs, those with a label that at least {LEAST} pairs share"
    return _material(stage, benchmark, covered(benchmark.items), words)


def _material(stage: Stage, benchmark: Benchmark, found: Sequence[Covered], words: str) -> _Material:
    asked = {one.item.id: one for one in put(benchmark, Variant(template=stage.config.template))}
    chance: dict[str, float] = {}
    for one in found:
        two_by_two = zip(one.items[::2], one.items[1::2], strict=True)
        each = [1 / (len(a.options) * len(b.options)) for a, b in two_by_two]
        chance[one.pattern] = float(np.mean(each)) if each else 0.25
    return _Material(patterns=tuple(found), asked=asked, words=words, chance=chance)


def _read(
    vlm: VLM,
    made: _Material,
    run: RunFolder,
    notes: list[str],
    *,
    batch: int,
    seed: int,
    progress: Progress,
) -> list[PatternStages]:
    """Patterns that are not on the disk are read, each written before the next."""
    log = run.jsonl(READ, key="pattern")
    chosen = [sample(one, MOST, seed) for one in made.patterns]

    def prompt(item: Item) -> Prompt:
        return made.asked[item.id].prompt()

    layers = StageLayers.few(vlm.towers, image=1)
    reader = StageReader(vlm=vlm, put=prompt, layers=layers, batch=batch, notes=notes)
    for number, one in enumerate(chosen):
        progress("reading stages", number, len(chosen))
        if one.pattern not in log:
            held = reader(one.items) if one.items else {}
            log.append(_line(read_pattern(one, held, repeats=REPEATS, seed=seed), notes))
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
    stage: Stage,
    vlm: VLM,
    made: _Material,
    read: Sequence[PatternStages],
    run: RunFolder,
    batch: int,
    progress: Progress,
) -> dict[str, bool]:
    """Whether the model answers both items of each pair that was read."""
    wanted = {pair for one in read for pair in one.pair_ids}
    asked = [one for one in made.asked.values() if one.item.pair_id in wanted]
    log = run.jsonl(ANSWERED, key="doc_id")
    config = stage.config
    graded: list[Graded] = []
    if asked:
        graded = ask_here(
            vlm, asked, log, ask=config.asking, max_new_tokens=config.max_new_tokens, batch=batch,
            progress=progress, stage="asking about twins",
        )  # fmt: skip
    right = dict.fromkeys(sorted(wanted), True)
    for one, answer in zip(asked, graded, strict=True):
        right[one.item.pair_id] &= answer.outcome is Outcome.RIGHT
    return right


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
