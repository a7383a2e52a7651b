"""What is read along a model and asked about, to say where a pattern is lost: twins of the world, or a benchmark's own pairs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from eyechart.core.records import Benchmark
from eyechart.locate.probes import ReadingKind
from eyechart.locate.verdict import Rule
from eyechart.score.benchmarks import load_benchmark
from eyechart.score.opening import Progress
from eyechart.score.variants import Asked, Variant, put
from eyechart.train.pair_labels import LEAST, Covered, covered
from eyechart.world.facts import PATTERNS
from eyechart.world.sets_twins import TwinPlan, render_twins, twin_labels
from eyechart.world.sets_version import fingerprint, fingerprint_of_words

LEAST_TWINS = 5
"""Pairs that a label of the world's twins must be in; `choose_twins` sees to more."""


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
class Material:
    """What is read and asked."""

    patterns: tuple[Covered, ...]
    asked: Mapping[str, Asked]
    """By item id."""

    words: str
    """Which items these are."""

    chance: Mapping[str, float]
    """Of a pair answered by guessing, by pattern."""


def twins(wanted: Wanted, progress: Progress) -> Material:
    """Twins of the test split, and none where they are too few to read."""
    each = wanted.each
    if each < Rule().least:
        none = tuple(
            Covered(pattern=name, in_set=each, items=(), words=(), groups=()) for name in sorted(PATTERNS)
        )
        return Material(
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


def own(wanted: Wanted, benchmark: Benchmark) -> Material:
    words = f"the benchmark's own pairs, those with a label that at least {LEAST} pairs share"
    return _material(wanted, benchmark, covered(benchmark.items), words)


def _material(wanted: Wanted, benchmark: Benchmark, found: Sequence[Covered], words: str) -> Material:
    asked = {one.item.id: one for one in put(benchmark, Variant(template=wanted.template))}
    chance: dict[str, float] = {}
    for one in found:
        two_by_two = zip(one.items[::2], one.items[1::2], strict=True)
        each = [1 / (len(a.options) * len(b.options)) for a, b in two_by_two]
        chance[one.pattern] = float(np.mean(each)) if each else 0.25
    return Material(patterns=tuple(found), asked=asked, words=words, chance=chance)
