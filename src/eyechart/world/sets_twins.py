"""Twins for probes: pairs of scenes that differ in one fact, chosen so that few labels are each in many pairs.

A probe learns what `house open` looks like from the other pairs that show it. Drawn freely, pairs of a pattern are of so many
kinds that no label is in more than a few, and nothing can be learned. So a larger number of pairs is drawn, and of each pattern
the commonest contrasts (`house open` and `house closed`) are kept, as few as have the pairs wanted, in equal shares. What is
found holds for these contrasts; their labels are told.

The folder is a benchmark like that of `sets_pairs`, with `labels.json` (a label for each item) in place of captions.
"""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eyechart.core.errors import UserError
from eyechart.core.runs import RunFolder
from eyechart.world.facts import PATTERNS
from eyechart.world.labels import PairedFacts, label_of
from eyechart.world.sets import Progress, check_size
from eyechart.world.sets_pairs import (
    FACTS,
    QUESTIONS,
    fact_lines,
    items_of,
    pairs_hash,
    questions_csv,
    render_missing,
)
from eyechart.world.sets_plan import PairPlan, ScenePair, draw_pairs
from eyechart.world.sets_version import fingerprint, fingerprint_of_words

LABELS = "labels.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinPlan:
    """So many twins of each pattern, chosen from ten times as many."""

    split: str = "test"
    pairs: int = 40
    seed: int = 0
    patterns: tuple[str, ...] = PATTERNS
    pool: int = 10
    """How many times as many pairs are drawn."""

    def __post_init__(self) -> None:
        if self.pool < 1:
            raise UserError(f"pool must be 1 or more, got {self.pool}")
        _ = self.drawn

    @property
    def drawn(self) -> PairPlan:
        """The pairs that are chosen from."""
        return PairPlan(
            split=self.split,
            pairs=self.pairs * self.pool,
            seed=self.seed,
            patterns=self.patterns,
            relation="twins",
        )


def choose_twins(plan: TwinPlan) -> tuple[tuple[ScenePair, ...], dict[str, str]]:
    """The pairs of a plan, and a label for each item."""
    pairs: dict[str, list[tuple[ScenePair, tuple[str, str]]]] = {name: [] for name in plan.patterns}
    for pair in draw_pairs(plan.drawn):
        labels = _labels(pair)
        if labels is not None:
            pairs[pair.pattern].append((pair, labels))
    chosen = [one for some in pairs.values() for one in _commonest(some, plan.pairs)]
    known = {
        item: label for pair, labels in chosen for item, label in zip(items_of(pair), labels, strict=True)
    }
    return tuple(pair for pair, _ in chosen), known


def render_twins(
    folder: Path | str,
    plan: TwinPlan,
    *,
    size: int = 96,
    workers: int = 1,
    progress: Progress = lambda stage, done, total: None,
    command: Sequence[str] = (),
) -> Path:
    """Render a plan's twins as a benchmark, or what is missing of it.

    Raises:
        UserError: the size is none of the world's, the folder holds another set or is in use, or the world has
            changed since it was begun.
    """
    check_size(size)
    root = Path(folder)
    world = {"scenes": fingerprint(), "words": fingerprint_of_words()}
    config: dict[str, Any] = {"what": "twins", **asdict(plan), "size": size, "world": world}
    with RunFolder.open(root, config=config, command=command) as run:
        if not run.finished:
            pairs, labels = choose_twins(plan)
            render_missing(run, pairs, size=size, cv=False, workers=workers, progress=progress)
            run.write_bytes(FACTS, b"".join(fact_lines(pairs)))
            run.write_json(LABELS, labels)
            run.write_bytes(QUESTIONS, questions_csv(pairs))
            run.update_manifest(seed=plan.seed, split=plan.split, world=world, sha256=pairs_hash(run, pairs))
            run.finish()
    return root


def twin_labels(folder: Path | str) -> Mapping[str, str]:
    """The label of each item of a rendered set."""
    found: dict[str, str] = json.loads((Path(folder) / LABELS).read_text("utf8"))
    return found


def _labels(pair: ScenePair) -> tuple[str, str] | None:
    """The labels of a pair's two scenes; None where they have none that differ."""
    rng = random.Random(f"twins {pair.id}")
    first, second = (
        label_of(
            pair.pattern,
            PairedFacts(pair=pair.id, pattern=pair.pattern, facts=pair.facts[k], rival=pair.facts[1 - k]),
            rng,
        )
        for k in (0, 1)
    )
    return (first[0], second[0]) if first and second and first[0] != second[0] else None


def _commonest(
    pairs: Sequence[tuple[ScenePair, tuple[str, str]]], wanted: int
) -> list[tuple[ScenePair, tuple[str, str]]]:
    """The first pairs of the commonest contrasts, as few contrasts as have the pairs wanted, evenly."""
    times = Counter(frozenset(labels) for _, labels in pairs)
    ranked = sorted(times, key=lambda contrast: (-times[contrast], sorted(contrast)))
    many = next((k for k in range(1, len(ranked)) if k * times[ranked[k - 1]] >= wanted), len(ranked))
    left = {contrast: -(-wanted // many) for contrast in ranked[:many]}
    kept: list[tuple[ScenePair, tuple[str, str]]] = []
    for one in pairs:
        contrast = frozenset(one[1])
        if left.get(contrast, 0) and len(kept) < wanted:
            left[contrast] -= 1
            kept.append(one)
    return kept
