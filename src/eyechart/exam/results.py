"""An exam's records in the shapes they are stored in: the table of pairs, `results.json`."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from scipy.stats import fisher_exact

from eyechart.core.config import to_dict
from eyechart.core.records import Benchmark
from eyechart.core.runs import RunFolder
from eyechart.core.stats import wilson
from eyechart.exam.stage import Stage
from eyechart.find import Comparison, PairSimilarity
from eyechart.score import Summary

SCHEMA = 1
"""Of the `eyechart` block of results.json and of the tables beside it."""

PLAIN_NOTES = ("dtype: ", "template: chat template")
"""How those of a model's notes begin that are no reason for care; all of them stand in the `model` block."""

PAIRS_SCHEMA = pa.schema(
    [
        *(
            pa.field(name, pa.string())
            for name in ("pair_id", "pattern", "item_a", "item_b", "image_a", "image_b")
        ),
        pa.field("similarity_model", pa.float64()),
        pa.field("percentile_model", pa.float64()),
        pa.field("similarity_reference", pa.float64()),
        pa.field("percentile_reference", pa.float64()),
        *(pa.field(name, pa.bool_()) for name in ("suspect", "right_a", "right_b", "pair_right")),
    ]
)


def pair_rows(summary: Summary, comparison: Comparison | None) -> list[dict[str, Any]]:
    """The rows of `pairs.parquet`, in the benchmark's order."""
    similar: Mapping[str, PairSimilarity] = (
        {row.pair_id: row for row in comparison.pairs} if comparison else {}
    )
    rows = []
    for pair in summary.pairs:
        known = similar.get(pair.pair_id)
        rows.append(
            {
                "pair_id": pair.pair_id,
                "pattern": pair.pattern,
                "item_a": pair.a.id,
                "item_b": pair.b.id,
                "image_a": pair.a.image_sha256,
                "image_b": pair.b.image_sha256,
                "similarity_model": known.similarity_model if known else None,
                "percentile_model": known.percentile_model if known else None,
                "similarity_reference": known.similarity_reference if known else None,
                "percentile_reference": known.percentile_reference if known else None,
                "suspect": known.suspect if known else None,
                "right_a": pair.right_a,
                "right_b": pair.right_b,
                "pair_right": pair.right,
            }
        )
    return rows


def results_json(
    stage: Stage,
    run: RunFolder,
    summary: Summary,
    comparison: Comparison | None,
    located: Mapping[str, Any] | None,
    *,
    task: str,
) -> dict[str, Any]:
    """`results.json`: the shape of lm-eval and lmms-eval, and everything else under `eyechart`."""
    score, benchmark, manifest = summary.score, stage.benchmark, run.manifest
    n = len(benchmark.items)
    return {
        "results": {
            task: {
                "alias": benchmark.name,
                "pair_accuracy,none": score.pairs.value,
                "pair_accuracy_stderr,none": _stderr(score.pairs.value, score.pairs.n),
                "image_accuracy,none": score.images.value,
                "unread,none": score.unread.value,
            }
        },
        "configs": {
            task: {"benchmark": benchmark.source, "sha256": benchmark.sha256, **to_dict(stage.config)}
        },
        "versions": {task: SCHEMA},
        "n-shot": {task: 0},
        "n-samples": {task: {"original": benchmark.in_source, "effective": n}},
        "config": {
            "model": stage.vlm.id,
            "model_args": to_dict(stage.config),
            "random_seed": stage.config.seed,
        },
        "git_hash": manifest["git"]["commit"],
        "transformers_version": importlib.metadata.version("transformers"),
        "date": manifest["started"],
        "eyechart": {
            "schema": SCHEMA,
            "model": {**stage.vlm.describe(), "fed": stage.fed_described},
            "reference": _reference(stage),
            "reference_missing": stage.reference_missing,
            "benchmark": _benchmark(benchmark),
            **summary.to_dict(),
            "find": _find(summary, comparison),
            "located": located,
            "asking": {
                "ask": stage.config.asking,
                "max_new_tokens": stage.config.max_new_tokens,
                "template": stage.config.template,
                "layout": stage.vlm.template,
            },
            "warnings": _warnings(stage, comparison),
        },
    }


def _stderr(value: float, n: int) -> float | None:
    """Of a proportion, with n - 1 as lm-eval has it; the interval to read is Wilson's, under `eyechart`."""
    return (value * (1 - value) / (n - 1)) ** 0.5 if n > 1 else None


def _reference(stage: Stage) -> dict[str, Any] | None:
    encoder = stage.reference
    if encoder is None:
        return None
    pooling = stage.config.reference_pooling or encoder.default_pooling
    return {**encoder.describe(), "pooling": pooling}


def _benchmark(benchmark: Benchmark) -> dict[str, Any]:
    counts = [len(item.options) for item in benchmark.items]
    return {
        "name": benchmark.name,
        "source": benchmark.source,
        "sha256": benchmark.sha256,
        "items": len(benchmark.items),
        "pairs": len({item.pair_id for item in benchmark.items}),
        "images": len({item.image_sha256 for item in benchmark.items}),
        "quarantined": len(benchmark.quarantined),
        "options": [min(counts), max(counts)],
        "notes": list(benchmark.notes),
    }


def _find(summary: Summary, comparison: Comparison | None) -> dict[str, Any] | None:
    """Suspects against the other pairs: whether the model fails where its encoder is nearly blind."""
    if comparison is None or comparison.threshold_reference is None:
        return None
    right = {pair.pair_id: pair.right for pair in summary.pairs}
    suspects = [right[row.pair_id] for row in comparison.pairs if row.suspect]
    others = [right[row.pair_id] for row in comparison.pairs if not row.suspect]
    both = bool(suspects and others)
    table = [[sum(group), len(group) - sum(group)] for group in (suspects, others)]
    return {
        "percentile": comparison.percentile,
        "suspects": wilson(len(suspects), len(suspects) + len(others)).to_dict(),
        "compared": comparison.compared,
        "threshold_model": comparison.threshold_model,
        "threshold_reference": comparison.threshold_reference,
        "right_suspects": wilson(sum(suspects), len(suspects)).to_dict() if suspects else None,
        "right_others": wilson(sum(others), len(others)).to_dict() if others else None,
        "p_value": float(fisher_exact(table).pvalue) if both else None,
        "test": "Fisher's exact test, two-sided",
    }


def _warnings(stage: Stage, comparison: Comparison | None) -> list[str]:
    said = [note for note in stage.vlm.notes if not note.startswith(PLAIN_NOTES)]
    if not stage.vlm.trained:
        said.append("the model's weights are random: it has learnt nothing, and its scores mean nothing")
    if comparison is not None:
        said += comparison.notes
    return said
