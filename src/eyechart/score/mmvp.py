"""What is known of MMVP (Tong et al., 2024, "Eyes Wide Shut?"): its shape, and the labels held to be wrong.

A label is recognised by the item's id and by the words of its question and options, never by its place in a file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from eyechart.core.records import Correction, Item
from eyechart.score.pairing import Draft, Group, Pair

ITEMS = 300
SIDE = 224
"""Of MMVP's and MMVP-VLM's pictures, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtedLabel:
    """One item whose published answer is publicly held to be wrong; answers are options' texts."""

    item_id: str
    question: str
    original: str
    corrected: str
    reason: str
    source: str


_TUSKS = (
    "The labels of 99 and 100 are reported as swapped, and both are changed in the re-hosted set. Another report finds"
    " long tusks in both pictures, so that only the label of 100 is wrong: the two readings contradict each other, and"
    " only a look at the pictures can decide."
)
_ELDERLY = "The labels of 279 and 280 are reported as swapped, and both are changed in the re-hosted set."
_TUSK_SOURCES = "tsb0601/MMVP#30, EvolvingLMMs-Lab/lmms-eval#1018"
_ELDERLY_SOURCES = "tsb0601/MMVP#14, tsb0601/MMVP#30"


def _swapped(
    first: str, question: str, options: tuple[str, str], reason: str, source: str
) -> list[DoubtedLabel]:
    ids = (first, str(int(first) + 1))
    return [
        DoubtedLabel(
            item_id=item_id, question=question, original=old, corrected=new, reason=reason, source=source
        )
        for item_id, old, new in zip(ids, options, reversed(options), strict=True)
    ]


DOUBTED: tuple[DoubtedLabel, ...] = (
    *_swapped("99", "Does the elephant have long or short tusks?", ("Long", "Short"), _TUSKS, _TUSK_SOURCES),
    *_swapped(
        "279",
        "Is the elderly person standing or sitting in the picture?",
        ("Standing", "Sitting"),
        _ELDERLY,
        _ELDERLY_SOURCES,
    ),
)
"""The four labels that the re-hosted set (`lmms-lab-eval/MMVP`) changes, with what the original set says."""


def label_sets(items: Sequence[Item]) -> tuple[tuple[Item, ...], tuple[Correction, ...], tuple[str, ...]]:
    """The items with the labels as first published, the corrections of them, and notes on what the source holds.

    Whichever of the two label sets a source holds, `items` come out with the original one and the corrections lead
    to the other, so both are always reported under the right name, and both sources are the same exam.
    """
    known = {doubted.item_id: doubted for doubted in DOUBTED}
    out, corrections = [], []
    held: dict[str, list[str]] = {"original": [], "corrected": []}
    for item in items:
        doubted = known.get(item.id)
        if doubted is None or not _is(doubted, item):
            out.append(item)
            continue
        old, new = _place(item, doubted.original), _place(item, doubted.corrected)
        held["original" if item.answer == old else "corrected"].append(item.id)
        out.append(replace(item, answer=old))
        corrections.append(
            Correction(item_id=item.id, old=old, new=new, reason=doubted.reason, source=doubted.source)
        )
    return tuple(out), tuple(corrections), tuple(_notes(held))


def _notes(held: dict[str, list[str]]) -> Iterator[str]:
    if held["corrected"]:
        yield (
            f"items {', '.join(held['corrected'])}: the source holds the corrected labels; the items here hold the"
            " original ones, and results are reported with both"
        )
    if held["original"]:
        yield (
            f"items {', '.join(held['original'])}: labels publicly held to be wrong; results are reported with the"
            " original labels and with the corrected ones"
        )


def _is(doubted: DoubtedLabel, item: Item) -> bool:
    options = {_words(option) for option in item.options}
    return _words(item.question) == _words(doubted.question) and options == {
        _words(doubted.original),
        _words(doubted.corrected),
    }


def _place(item: Item, option: str) -> int:
    return [_words(each) for each in item.options].index(_words(option))


def _words(text: str) -> str:
    return " ".join(text.casefold().split())


def is_whole(groups: Sequence[Group]) -> bool:
    """Whether the ids are exactly 1 to 300, as MMVP's."""
    return {draft.id for group in groups for draft in group} == {
        str(number) for number in range(1, ITEMS + 1)
    }


def faults(pairs: Sequence[Pair]) -> list[str]:
    """Everything in which a set is not MMVP, in words; nothing where it is.

    MMVP has 300 items; 2k-1 and 2k are a pair with one question, two options in one order and opposite answers, so
    that each option is right 150 times.
    """
    drafts = [draft for pair in pairs for draft in pair]
    wanted, there = [str(number) for number in range(1, ITEMS + 1)], {draft.id for draft in drafts}
    found = []
    missing, odd = [i for i in wanted if i not in there], sorted(there - set(wanted))
    if missing:
        found.append(f"MMVP has the ids 1 to {ITEMS}; missing: {_some(missing)}")
    if odd:
        found.append(f"MMVP has the ids 1 to {ITEMS}; not among them: {_some(odd)}")
    for first, second in pairs:
        found += _pair_faults(first, second)
    firsts = sum(draft.answer == 0 for draft in drafts)
    if 2 * firsts != len(drafts):
        found.append(
            f"the answers are not balanced: the first option is right for {firsts} of {len(drafts)} items, not for half"
        )
    return found


def _pair_faults(first: Draft, second: Draft) -> Iterator[str]:
    where = f"pair {first.pair_id!r} ({first}, {second})"
    if first.id.isdigit() and second.id.isdigit():
        a, b = sorted((int(first.id), int(second.id)))
        if b != a + 1 or a % 2 != 1:
            yield f"{where}: in MMVP a pair has the ids 2k-1 and 2k"
    if first.options != second.options:
        yield f"{where}: the options stand in another order ({first.options!r} and {second.options!r})"
    if len(first.options) != 2:
        yield f"{where}: {len(first.options)} options; every question of MMVP has two"


def note_on_sizes(sizes: dict[str, tuple[int, int]]) -> list[str]:
    """A note where pictures are not 224 x 224, as all of MMVP and MMVP-VLM are; by item id."""
    other = [item_id for item_id, size in sizes.items() if size != (SIDE, SIDE)]
    if not other:
        return []
    return [
        f"{len(other)} of {len(sizes)} pictures are not {SIDE} x {SIDE} pixels, as the published ones are:"
        f" {_some(other)}; were they resized?"
    ]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
