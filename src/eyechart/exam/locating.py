"""Where a pattern is lost: the exam's layer probes and its verdicts, from twins of the world or from a benchmark's own pairs.

On the world, twins (two scenes that differ in one fact and in nothing else) are rendered for the purpose, since the exam's own
siblings are of too many kinds for a probe to learn from (`world.sets_twins`); the model is asked about them as about the exam's
pairs. On a benchmark its own pairs are read, those with a label that enough others share, and its own answers count.

What was read is in `located/readings.jsonl`, a line a pattern, and `located/answers.jsonl`, a line an item: a run that was killed
goes on at the pattern or batch in flight.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eyechart.core.records import Capability, Graded, Item, Outcome, Prompt
from eyechart.core.runs import RunFolder
from eyechart.exam.locating_items import Material, Wanted, own, twins
from eyechart.exam.locating_records import LOCATED, LOCATED_SCHEMA, block_of, line_of, read_back, rows_of
from eyechart.exam.stage import Stage
from eyechart.locate.config import LocateConfig
from eyechart.locate.probes import PatternStages, read_pattern
from eyechart.locate.stages import StageLayers, StageReader
from eyechart.locate.verdict import Answers, Rule, decide
from eyechart.models.servers import Server
from eyechart.models.vlms import VLM
from eyechart.score import PairOutcome, summarise
from eyechart.score.answers import ask_here
from eyechart.score.benchmarks import load_benchmark
from eyechart.score.opening import WORLD, Progress
from eyechart.score.variants import Asked, Variant, put
from eyechart.train.pair_reading import MOST, sample
from eyechart.world.facts import PATTERNS

TWINS = 32
"""Pairs of twins of each pattern: few, for a probe's time grows with the square of this, and an exam is to take minutes. `eyechart
locate` takes more."""

REPEATS = 1
"""Seeds of splits and of controls that are averaged."""

DEFAULT = Variant()
"""How pairs are put where nobody chose."""

READ, ANSWERED = "located/readings.jsonl", "located/answers.jsonl"


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
    made = twins(wanted, progress) if wanted.benchmark is None else own(wanted, wanted.benchmark)
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
    run.write_table(LOCATED, rows_of(read, answers), LOCATED_SCHEMA)
    return block_of(read, verdicts, rule, made, notes)


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


def _read(
    vlm: VLM, wanted: Wanted, made: Material, run: RunFolder, notes: list[str], progress: Progress
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
                line_of(read_pattern(one, held, reading=wanted.reading, repeats=REPEATS, seed=seed), notes)
            )
    progress("reading stages", len(chosen), len(chosen))
    return read_back(log, chosen, notes, seed)


def _ask(
    vlm: VLM,
    wanted: Wanted,
    made: Material,
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
