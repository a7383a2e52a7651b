"""Hits by pattern of one model, alone or with what became of each pair, as correlations and comparisons take them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyechart.core.errors import UserError
from eyechart.core.records import NO_PATTERN
from eyechart.core.stats import Rate, wilson

PairKey = tuple[str, ...]
"""The hashes of a pair's images, sorted; the same pictures are the same pair, in whatever order and under whatever id."""

NINE: Mapping[str, str] = {
    "camera perspective": "viewpoint",
    "viewpoint & perspective": "viewpoint",
    "viewpoint and perspective": "viewpoint",
    "color & appearance": "color",
    "color and appearance": "color",
    "orientation & direction": "orientation",
    "orientation and direction": "orientation",
    "presence of features": "presence",
    "presence of specific features": "presence",
    "quantity & count": "quantity",
    "quantity and count": "quantity",
    "spatial": "position",
    "positional & relational": "position",
    "positional and relational context": "position",
    "state & condition": "state",
    "state and condition": "state",
    "structural character": "structure",
    "structural & physical": "structure",
    "structural and physical characteristics": "structure",
}
"""The names of MMVP-VLM's folders and of the paper's figures, as the nine patterns are called here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairHit:
    """What became of one pair."""

    pattern: str
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A model's pairs right by pattern."""

    name: str
    patterns: Mapping[str, tuple[int, int]]
    """Hits and n of each."""

    pairs: Mapping[PairKey, PairHit] = field(default_factory=dict)
    """Where it is known what became of each; a subset of what `patterns` counts where pictures are in several pairs."""

    def __post_init__(self) -> None:
        for pattern, (hits, n) in self.patterns.items():
            if not 0 <= hits <= n or n == 0:
                raise ValueError(f"{self.name}: pattern {pattern!r} has {hits} hits of {n}")

    def rate(self, pattern: str) -> Rate:
        """The share of a pattern's pairs that are right, with Wilson's interval."""
        return wilson(*self.patterns[pattern])


def pattern_name(given: str | None) -> str:
    """A pattern under the name it has here; names that are not known stay, in lower case.

    >>> pattern_name("Camera Perspective")
    'viewpoint'
    """
    plain = " ".join((given or NO_PATTERN).replace("_", " ").lower().split())
    return NINE.get(plain, plain)


def series_of_counts(name: str, counts: Mapping[str, tuple[int, int]]) -> Series:
    """Published or own counts, `{pattern: (hits, n)}`.

    Raises:
        UserError: two names are of one pattern.
    """
    patterns: dict[str, tuple[int, int]] = {}
    for given, (hits, n) in counts.items():
        if (pattern := pattern_name(given)) in patterns:
            raise UserError(f"{name}: two of the patterns {', '.join(counts)} are {pattern!r}")
        patterns[pattern] = (int(hits), int(n))
    return Series(name=name, patterns=patterns)


def series_of_matches(name: str, rows: Iterable[Mapping[str, Any]], *, way: str = "text_to_image") -> Series:
    """An encoder's log: a line for each match of captions and images.

    Raises:
        UserError: a line has no such way of scoring.
    """
    hits = []
    for row in rows:
        if row.get(way) is None:
            raise UserError(f"{name}: match {row['doc_id']!r} has no score {way!r}")
        key = tuple(sorted(row["doc"]["images_sha256"]))
        hits.append((key, PairHit(pattern=pattern_name(row["doc"]["pattern"]), right=bool(row[way]))))
    return _series(name, hits)


def series_of_answers(name: str, rows: Iterable[Mapping[str, Any]]) -> Series:
    """A VLM's log: a line for each item; a pair is right where both its items are.

    Raises:
        UserError: items are not in pairs, or a pair has not two.
    """
    pairs: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if not row["doc"]["pair_id"]:
            raise UserError(f"{name}: item {row['doc_id']!r} is in no pair; a correlation here is over pairs")
        pairs.setdefault(str(row["doc"]["pair_id"]), []).append(row)
    hits = []
    for pair_id, two in pairs.items():
        if len(two) != 2:
            raise UserError(
                f"{name}: pair {pair_id!r} has {len(two)} answers, expected 2; is the run finished?"
            )
        key = tuple(sorted(row["doc"]["image_sha256"] for row in two))
        right = all(row["outcome"] == "right" for row in two)
        hits.append((key, PairHit(pattern=pattern_name(two[0]["doc"]["pattern"]), right=right)))
    return _series(name, hits)


def read_series(folder: Path, *, variant: str | None = None, way: str = "text_to_image") -> Series:
    """The series of a finished run folder of a score.

    Args:
        folder: an encoder's run on captions and images, or a VLM's run on questions in pairs.
        variant: which way of asking, where there are several; None for the first.
        way: how an encoder's matches count.

    Raises:
        UserError: there is no finished run, or it has no such variant, or no pairs.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no finished score (no results.json); run eyechart score first")
    block = json.loads(path.read_text("utf8")).get("eyechart", {})
    if block.get("kind") not in ("encoder", "vlm"):
        raise UserError(f"{folder} is no run of eyechart score (its kind is {block.get('kind')!r})")
    name = str(block["model"]["id"])
    if block["kind"] == "encoder":
        return series_of_matches(
            name, _lines(folder / f"samples_{block['benchmark']['name']}.jsonl"), way=way
        )
    tasks = [each["task"] for each in block["variants"]]
    chosen = [task for task in tasks if variant is None or task.partition("@")[2] == variant]
    if not chosen:
        raise UserError(f"{folder} has no variant {variant!r}; there are: {', '.join(tasks)}")
    return series_of_answers(name, _lines(folder / f"samples_{chosen[0]}.jsonl"))


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"there is no {path}, so nothing is known of single pairs")
    with path.open(encoding="utf8") as lines:
        yield from map(json.loads, lines)


def _series(name: str, hits: list[tuple[PairKey, PairHit]]) -> Series:
    if not hits:
        raise UserError(f"{name}: nothing was scored (0 pairs)")
    patterns: dict[str, tuple[int, int]] = {}
    for _, hit in hits:
        right, n = patterns.get(hit.pattern, (0, 0))
        patterns[hit.pattern] = (right + hit.right, n + 1)
    times = Counter(key for key, _ in hits)
    return Series(name=name, patterns=patterns, pairs={key: hit for key, hit in hits if times[key] == 1})
