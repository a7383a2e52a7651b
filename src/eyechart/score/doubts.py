"""Questions of published benchmarks whose labels are publicly doubted, known by their words alone.

Where the item's id fits as well, `mmvp.label_sets` knows both labels and both are reported; where it does not, as in a
set that took the question over under another id, the doubt is noted and nothing is changed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from eyechart.core.records import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A question of a benchmark whose answers are reported to be wrong; it is known by its words."""

    question: str
    options: tuple[str, ...]
    claim: str
    sources: tuple[str, ...]


DOUBTS: tuple[Doubt, ...] = (
    Doubt(
        question="Does the elephant have long or short tusks?",
        options=("Long", "Short"),
        claim="labels reported as swapped, or only the second one as wrong (MMVP ids 99/100)",
        sources=("tsb0601/MMVP#30", "EvolvingLMMs-Lab/lmms-eval#1018"),
    ),
    Doubt(
        question="Is the elderly person standing or sitting in the picture?",
        options=("Standing", "Sitting"),
        claim="labels reported as swapped (MMVP ids 279/280)",
        sources=("tsb0601/MMVP#14", "tsb0601/MMVP#30"),
    ),
)


def doubtful(items: Iterable[Item]) -> list[str]:
    """A note for each doubted question among the items: which items, what is claimed, and by whom."""
    given = list(items)
    notes = []
    for doubt in DOUBTS:
        ids = [item.id for item in given if (item.question, item.options) == (doubt.question, doubt.options)]
        if ids:
            where = ", ".join(doubt.sources)
            notes.append(f"items {', '.join(ids)}: {doubt.claim}; answers as given ({where})")
    return notes
