"""A VLM's pair accuracy by pattern and by family of questions on a rendered benchmark of the world, with controls.

The exam's own functions ask, read and score; this leaves out only its run folder, reference encoder and page. The
controls: `blank`, a grey picture in place of every picture (a pair has one question, so pair accuracy is 0 there and
what counts is the share of items), and `told`, the scene in words and no picture.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from eyechart.core.errors import unknown
from eyechart.core.records import Graded, Item
from eyechart.core.stats import Rate, wilson
from eyechart.models.vlms import VLM
from eyechart.score import Summary, load_benchmark, summarise
from eyechart.score.answers import answers_of
from eyechart.score.variants import Show, Variant, put
from eyechart.train.loop import Report
from eyechart.world.wordings import FAMILIES

SHOWN: Mapping[str, Show] = {"picture": "image", "blank": "blank", "told": "told"}
"""What the model can be given beside the question, and what `score` calls it."""

_SLOT = re.compile(r"\\\{\w+\\\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """How a VLM did."""

    model: str
    shown: str
    summary: Summary
    families: Mapping[tuple[str, str], Rate]
    """Pair accuracy by pattern and family of questions; questions of no known wording are of the family `other`."""

    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        families = [
            {"pattern": pattern, "family": family, "pairs": rate.to_dict()}
            for (pattern, family), rate in sorted(self.families.items())
        ]
        return {
            "model": self.model,
            "shown": self.shown,
            **self.summary.to_dict(),
            "families": families,
            "seconds": self.seconds,
        }


def examine(
    vlm: VLM,
    folder: Path,
    *,
    shown: str = "picture",
    template: str = "letter",
    limit: int | None = None,
    batch: int = 64,
    max_new_tokens: int = 8,
    report: Report | None = None,
) -> Examined:
    """Put every question of a benchmark to a VLM and score the replies.

    Args:
        folder: a benchmark of the world as `world.sets_pairs.render_pairs` writes it.
        shown: the picture, or one of the controls: one of `SHOWN`.
        template: how questions are put, a name in `score.TEMPLATES`.
        limit: so many pairs at most, from every pattern in turn.
        batch: prompts that go through the model together; replies do not depend on it but for rounding.
        report: called with "questions", items done, items in all.

    Raises:
        UserError: no such control or benchmark, or its scenes are not told in words.
    """
    if shown not in SHOWN:
        raise unknown("way to show a scene", shown, SHOWN)
    benchmark = load_benchmark(folder, limit=limit)
    asked = put(benchmark, Variant(template=template, show=SHOWN[shown]))
    order = sorted(range(len(asked)), key=lambda place: len(asked[place].text))
    graded: dict[int, Graded] = {}
    began = time.monotonic()
    for start in range(0, len(asked), batch):
        places = order[start : start + batch]
        some = [asked[place] for place in places]
        found = answers_of(vlm, some, ask="generate", max_new_tokens=max_new_tokens)
        graded |= dict(zip(places, found, strict=True))
        if report is not None:
            report("questions", start + len(places), len(asked))
    items, in_order = benchmark.items, [graded[place] for place in range(len(asked))]
    return scored(vlm.id, shown, items, in_order, time.monotonic() - began)


def scored(
    model: str, shown: str, items: Sequence[Item], graded: Sequence[Graded], seconds: float
) -> Examined:
    """Graded replies as scores by pattern and by family."""
    summary = summarise(items, graded)
    hits: dict[tuple[str, str], list[bool]] = {}
    for pair in summary.pairs:
        pattern = pair.pattern or ""
        hits.setdefault((pattern, family_of(pattern, pair.a.question)), []).append(pair.right)
    return Examined(
        model=model,
        shown=shown,
        summary=summary,
        families={name: wilson(sum(right), len(right)) for name, right in hits.items()},
        seconds=round(seconds, 1),
    )


def family_of(pattern: str, question: str) -> str:
    """The family of questions a text belongs to, by its wording; `other` where it is none of the world's."""
    return next((name for name, wording in _wordings(pattern) if wording.fullmatch(question)), "other")


@lru_cache(maxsize=32)
def _wordings(pattern: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """A slot is a word, with its article, or with words between: `an open door`, `a lamp that is on`."""
    return tuple(
        (name, re.compile(_SLOT.sub(r"(?:an? )?\\w+(?: that is)?(?: \\w+)?", re.escape(text)), re.IGNORECASE))
        for name, wording in FAMILIES.items()
        if wording.pattern == pattern
        for text in sorted(wording.texts, key=len, reverse=True)
    )


def table(results: Mapping[str, Examined]) -> str:
    """Several examinations side by side in Markdown: pair accuracy by pattern with its interval, share of items below.

    Raises:
        ValueError: there are none, or they are not of the same patterns.
    """
    if not results:
        raise ValueError("0 examinations make no table")
    names = [[score.pattern for score in one.summary.patterns] for one in results.values()]
    if any(each != names[0] for each in names):
        raise ValueError(f"the examinations are of different patterns: {names}")
    rows = [["pattern", *results], ["---"] * (len(results) + 1)]
    for place, pattern in enumerate(names[0]):
        rows.append([pattern, *(_cell(one.summary.patterns[place].pairs) for one in results.values())])
    rows.append(["all pairs", *(_cell(one.summary.score.pairs) for one in results.values())])
    rows.append(["all items", *(_cell(one.summary.score.images) for one in results.values())])
    rows.append(["unread", *(str(one.summary.score.unread.hits) for one in results.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(rate: Rate) -> str:
    return f"{rate.value:.0%} [{rate.low:.0%}, {rate.high:.0%}]"
