"""The card of an exported set: what it holds, how it is scored, where it comes from, what is doubtful."""

import math
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml

from eyechart import __version__
from eyechart.core.records import Benchmark
from eyechart.score.cells import LETTERS
from eyechart.score.export.rows import Row, chance, in_pairs
from eyechart.score.rules import RULES

SIZES = (("n<1K", 1_000), ("1K<n<10K", 10_000), ("10K<n<100K", 100_000), ("100K<n<1M", 1_000_000))
"""The hub's names for sizes."""

COLUMNS = {
    "id": "the item's id; every log of answers names it",
    "pair_id": "the two items with one `pair_id` are a pair",
    "side": "`a` or `b`: which of the pair",
    "question": "the same on both sides of a pair",
    "options": "the options' texts",
    "answer": "the letter of the right option (A is the first)",
    "corrected_answer": "the same under the corrected labels; equal to `answer` where nothing is corrected",
    "pattern": "what kind of visual difference is asked about",
    "facets": "what else the set's own rule reads, as JSON",
    "image_sha256": "of the picture's bytes",
    "image": "the picture, with the bytes of the source",
}


def render(template: str, **values: Any) -> str:
    """A template of this package filled in; a value that it lacks is an error."""
    source = resources.files("eyechart.score.export").joinpath(f"templates/{template}.j2").read_text("utf8")
    made = jinja2.Environment(  # what is made is Markdown, YAML and Python, not HTML
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        autoescape=False,
    )  # fmt: skip
    return made.from_string(source).render(**values)


def card(
    benchmark: Benchmark,
    rows: Sequence[Row],
    *,
    kinds: Sequence[tuple[str, str]],
    split: str,
    licence: str,
    megabytes: float,
) -> str:
    """The README.md of a dataset, with the YAML that the hub reads at its head."""
    return render(
        "card.md",
        head=yaml.safe_dump(
            _head(benchmark, rows, kinds, split=split, licence=licence), sort_keys=False, allow_unicode=True
        ),
        split=split,
        licence=licence,
        megabytes=f"{megabytes:.1f}",
        several=sum(kind == "image" for _, kind in kinds) > 1,
        columns=[(name, COLUMNS.get(name, "a further picture of the question")) for name, _ in kinds],
        **about(benchmark, rows),
    )


def about(benchmark: Benchmark, rows: Sequence[Row]) -> dict[str, Any]:
    """What a card says of any export, as values."""
    by_item, by_pair = chance(benchmark)
    paired = in_pairs(benchmark)
    pairs = len(rows) // 2 if paired else None
    counts = Counter(row.item.pattern or "none" for row in rows)
    return {
        "name": benchmark.name,
        "source": Path(benchmark.source).name or benchmark.source,
        "version": __version__,
        "rule": benchmark.rule,
        "rule_about": RULES[benchmark.rule].about,
        "paired": paired,
        "items": len(rows),
        "pairs": pairs,
        "chance_items": f"{by_item:.1%}",
        "chance_pairs": f"{by_pair:.1%}" if paired else None,
        "half_width": f"{100 * 1.96 * math.sqrt(0.25 / pairs):.1f}" if pairs else None,
        "sha256": benchmark.sha256,
        "rows_sha256": benchmark.rows_sha256,
        "patterns": [(_cell(name), count, count // 2) for name, count in sorted(counts.items())],
        "answers": sorted(Counter(row.target for row in rows).items()),
        "corrections": [
            (_cell(one.item_id), LETTERS[one.old], LETTERS[one.new], _cell(one.reason), _cell(one.source))
            for one in benchmark.corrections
        ],
        "quarantined": len(benchmark.quarantined),
        "in_source": benchmark.in_source,
        "notes": benchmark.notes,
    }


def _cell(text: str) -> str:
    """Text that stays in its cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _head(
    benchmark: Benchmark, rows: Sequence[Row], kinds: Sequence[tuple[str, str]], *, split: str, licence: str
) -> dict[str, Any]:
    shapes: dict[str, dict[str, str]] = {
        "string": {"dtype": "string"},
        "strings": {"sequence": "string"},
        "image": {"dtype": "image"},
    }
    return {
        "license": licence,
        "pretty_name": benchmark.name,
        "task_categories": ["visual-question-answering", "multiple-choice"],
        "size_categories": [
            next((name for name, below in SIZES if len(rows) < below), "n>1M"),
        ],
        "tags": ["eyechart", *(["paired", "mmvp"] if in_pairs(benchmark) else [])],
        "configs": [{"config_name": "default", "data_files": [{"split": split, "path": f"data/{split}-*"}]}],
        "dataset_info": {
            "features": [{"name": name, **shapes[kind]} for name, kind in kinds],
            "splits": [{"name": split, "num_examples": len(rows)}],
        },
    }
