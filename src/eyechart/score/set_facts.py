"""What a checked set holds, as plain values: for `eyechart bench check` and whoever wants to know before asking."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from eyechart.core.records import NO_PATTERN, Benchmark, Item, MatchSet, Quarantined
from eyechart.score.cells import LETTERS
from eyechart.score.rules import RULES


def facts(found: Benchmark | MatchSet) -> dict[str, Any]:
    """Counts, patterns, answers, sizes, hashes, doubts and what was left out; of plain values, ready for JSON."""
    if isinstance(found, MatchSet):
        return _of_matches(found)
    items = found.items
    paired = found.rule == "pairs"
    return {
        "name": found.name,
        "source": found.source,
        "what": "questions",
        "rule": found.rule,
        "rule_about": RULES[found.rule].about,
        "items": len(items),
        "pairs": len({item.pair_id for item in items}) if paired else None,
        "in_source": found.in_source,
        "patterns": _counts(item.pattern or NO_PATTERN for item in items),
        "options": {
            str(count): times for count, times in _counts(len(item.options) for item in items).items()
        },
        "answers": _counts(LETTERS[item.answer] for item in items),
        "constant_answer": max(Counter(item.answer for item in items).values()) / len(items),
        "chance_items": sum(1 / len(item.options) for item in items) / len(items),
        "chance_pairs": _by_pair(items) if paired else None,
        "image_sizes": _sizes([path for item in items for path in item.images]),
        "images": len({sha256 for item in items for sha256 in (item.image_sha256, *item.more_sha256)}),
        "sha256": found.sha256,
        "rows_sha256": found.rows_sha256,
        "corrections": [_correction(found, one.item_id) for one in found.corrections],
        "notes": list(found.notes),
        "quarantined": _quarantined(found.quarantined),
    }


def _of_matches(found: MatchSet) -> dict[str, Any]:
    matches = found.matches
    return {
        "name": found.name,
        "source": found.source,
        "what": "captions and images, for encoders",
        "matches": len(matches),
        "in_source": found.in_source,
        "prefix": found.prefix,
        "patterns": _counts(match.pattern or NO_PATTERN for match in matches),
        "shapes": _counts(f"{len(one.captions)} captions, {len(one.images)} images" for one in matches),
        "image_sizes": _sizes([path for match in matches for path in match.images]),
        "images": len({sha256 for match in matches for sha256 in match.images_sha256}),
        "sha256": found.sha256,
        "notes": list(found.notes),
        "quarantined": _quarantined(found.quarantined),
    }


def _counts(values: Iterable[Any]) -> dict[Any, int]:
    return dict(sorted(Counter(values).items()))


def _by_pair(items: Sequence[Item]) -> float:
    """The share of pairs that a coin gets right."""
    by_pair: dict[str, float] = {}
    for item in items:
        by_pair[item.pair_id] = by_pair.get(item.pair_id, 1.0) / len(item.options)
    return sum(by_pair.values()) / len(by_pair)


def _sizes(paths: Sequence[Path]) -> dict[str, int]:
    """Width x height in pixels as stored, the most frequent first; each file once."""
    counts: Counter[str] = Counter()
    for path in dict.fromkeys(paths):
        with Image.open(path) as image:
            counts[f"{image.width} x {image.height}"] += 1
    return dict(counts.most_common())


def _correction(found: Benchmark, item_id: str) -> dict[str, Any]:
    (item,) = (each for each in found.items if each.id == item_id)
    (one,) = (each for each in found.corrections if each.item_id == item_id)
    return {
        "item_id": one.item_id,
        "old": item.options[one.old],
        "new": item.options[one.new],
        "reason": one.reason,
        "source": one.source,
    }


def _quarantined(rows: Sequence[Quarantined]) -> list[dict[str, str]]:
    return [asdict(row) for row in rows]
