"""What is made of answers: measures under every label set and by pattern, and `results.json` around them."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from eyechart.core.config import to_dict
from eyechart.core.records import NO_PATTERN, Benchmark, Graded, Item, MatchSet, Outcome
from eyechart.core.runs import RunFolder
from eyechart.score.config import ScoreConfig
from eyechart.score.rules import measure

SCHEMA = 1
"""Of the `eyechart` block of results.json."""


def measured(benchmark: Benchmark, graded: Sequence[Graded], *, seed: int = 0) -> dict[str, Any]:
    """The measures of graded replies under every label set, and by pattern, as plain values."""
    plain = measure(benchmark.rule, benchmark.items, graded, seed=seed)
    corrected = None
    if benchmark.corrections:
        items = benchmark.corrected()
        again = [_regraded(one, item) for one, item in zip(graded, items, strict=True)]
        corrected = [one.to_dict() for one in measure(benchmark.rule, items, again, seed=seed)]
    return {
        "measures": [one.to_dict() for one in plain],
        "measures_corrected": corrected,
        "patterns": _by_pattern(benchmark, graded, seed),
        "unread": sum(one.choice is None for one in graded),
    }


def _regraded(graded: Graded, item: Item) -> Graded:
    """The same reply against another label."""
    if graded.choice is None:
        return graded
    outcome = Outcome.RIGHT if graded.choice == item.answer else Outcome.WRONG
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
        first = measure(benchmark.rule, *own, seed=seed)[0]
        rows.append({"pattern": pattern, **first.to_dict()})
    return rows


def flat(measures: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Measures as lm-eval and lmms-eval name them."""
    return {
        "_".join(part for part in (one["name"], one["of"]) if part) + ",none": one["value"]
        for one in measures
    }


def results_json(
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
        "eyechart": {"schema": SCHEMA, "model": dict(described), "benchmark": about(found), **block},
    }


def about(found: Benchmark | MatchSet) -> dict[str, Any]:
    """What was asked, in plain values."""
    said: dict[str, Any] = {**identity_of(found), "source": found.source, "notes": list(found.notes)}
    said["quarantined"] = len(found.quarantined)
    if isinstance(found, MatchSet):
        return said | {"matches": len(found.matches), "prefix": found.prefix}
    pairs = {item.pair_id for item in found.items if item.pair_id}
    return said | {
        "rule": found.rule,
        "items": len(found.items),
        "pairs": len(pairs),
        "images": len({item.image_sha256 for item in found.items}),
        "corrections": [asdict(one) for one in found.corrections],
    }


def identity_of(found: Benchmark | MatchSet) -> dict[str, Any]:
    """Which set exactly."""
    rows = {"rows_sha256": found.rows_sha256} if isinstance(found, Benchmark) else {}
    return {"name": found.name, "sha256": found.sha256, **rows}
