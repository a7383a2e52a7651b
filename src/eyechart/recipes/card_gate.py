"""The gate of the zoo: four conditions, set before anything was measured, and what the cards say about each."""

from collections.abc import Mapping, Sequence
from typing import Any

CHANCE_PAIRS = 0.25
"""Pair accuracy of two answers drawn at random from two options each."""

LEAST_PAIRS = 200
"""Pairs that a pattern needs for a verdict."""

SEEN, UNSEEN, MORE_READABLE, CAPTIONED, LENS = 5, 2, 3, 2, 5.0

GATED = "patches linear"
"""The reading that the second condition is about: of the fed layer's patches, by the linear probe."""

Card = Mapping[str, Any]


def gate(cards: Mapping[str, Card], reference: str | None) -> dict[str, Any]:
    """The verdicts; `met` is None where something was not measured, or on fewer pairs than it takes.

    Args:
        cards: by the models' names; what is absent is not measured.
        reference: the name of the reference encoder that was chosen on selection scenes.
    """
    conditions = [
        _contrast(cards.get("llava-biased")),
        _readable(cards.get(reference) if reference is not None else None, reference),
        _captions(cards.get("llava-biased"), cards.get("llava-told-all")),
        _lens(cards.get("llava-biased")),
    ]
    known = [condition["met"] for condition in conditions]
    met = None if None in known else all(known)
    return {"schema": 1, "reference": reference, "met": met, "conditions": conditions}


def seen_patterns(card: Card | None) -> tuple[list[str], list[str]] | None:
    """The patterns a VLM answers above chance and those it does not; None if there is no telling."""
    if card is None or "vlm" not in card:
        return None
    patterns = card["vlm"]["picture"]["patterns"]
    if any(each["pairs"]["n"] < LEAST_PAIRS for each in patterns):
        return None
    seen = [each["pattern"] for each in patterns if each["pairs"]["low"] > CHANCE_PAIRS]
    return seen, [each["pattern"] for each in patterns if each["pattern"] not in seen]


def _contrast(biased: Card | None) -> dict[str, Any]:
    found = seen_patterns(biased)
    asked = (
        f"the biased VLM's pair accuracy has a Wilson lower bound above 25 % on at least {SEEN} patterns, and not on "
        f"at least {UNSEEN}"
    )
    if found is None:
        return _condition(asked, None, "not measured")
    seen, unseen = found
    return _condition(
        asked,
        len(seen) >= SEEN and len(unseen) >= UNSEEN,
        f"above on {len(seen)} ({_listed(seen)}), not on {len(unseen)} ({_listed(unseen)})",
        seen=seen,
        unseen=unseen,
    )


def _readable(card: Card | None, name: str | None) -> dict[str, Any]:
    asked = (
        "the reference encoder is more readable than the biased CLIP at the fed layer, the paired interval above 0, on "
        f"at least {MORE_READABLE} patterns"
    )
    rows = (card or {}).get("minus_biased", {})
    if not rows or any(row[GATED]["n"] < 2 * LEAST_PAIRS for row in rows.values()):
        return _condition(asked, None, "not measured")
    more = [pattern for pattern, row in rows.items() if row[GATED]["low"] > 0]
    less = [pattern for pattern, row in rows.items() if row[GATED]["high"] < 0]
    said = f"{name}: more on {len(more)} ({_listed(more)}), less on {len(less)} ({_listed(less)})"
    return _condition(asked, len(more) >= MORE_READABLE, said, more=more, less=less)


def _captions(biased: Card | None, told_all: Card | None) -> dict[str, Any]:
    asked = f"the told-all VLM sees at least {CAPTIONED} patterns that the biased one does not"
    first, second = seen_patterns(biased), seen_patterns(told_all)
    if first is None or second is None:
        return _condition(asked, None, "not measured")
    caused = [pattern for pattern in second[0] if pattern in first[1]]
    return _condition(asked, len(caused) >= CAPTIONED, f"{len(caused)} ({_listed(caused)})", patterns=caused)


def _lens(biased: Card | None) -> dict[str, Any]:
    asked = f"the logit lens ranks part names at least {LENS:g} times better over their masks than over regions elsewhere"
    found = (biased or {}).get("lens")
    if found is None:
        return _condition(asked, None, "not measured")
    ratio = found["ratio"]
    said = f"{ratio['value']:.1f} times [{ratio['low']:.1f}, {ratio['high']:.1f}], n={ratio['n']}, layer {found['layer']}"
    return _condition(asked, ratio["value"] >= LENS, said, ratio=ratio)


def _condition(asked: str, met: bool | None, said: str, **evidence: Any) -> dict[str, Any]:  # noqa: FBT001
    return {"condition": asked, "met": met, "found": said, **evidence}


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"
