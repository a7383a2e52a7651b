"""Numbers, ids and replies as the page writes them: text in, text out."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from eyechart.report.reading import Against, Rate

ID_SHOWN = 12
"""Characters of a hash that the page shows; the whole stands in the title."""

REPLY_SHOWN = 140
"""Characters of a reply on its card; the rest opens on request."""

TEXT_KEPT = 2_000
"""Characters of any one reply or question kept in the page at all."""

_HASH = re.compile(r"[0-9a-f]{20,}", re.IGNORECASE)
_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def rate_text(rate: Rate) -> str:
    """A rate with its interval and n, in the words of `core.stats.Rate`, whose package loads scipy.

    >>> rate_text(Rate(value=0.2, low=0.144, high=0.271, hits=30, n=150, level=0.95))
    '20.0% [14.4%, 27.1%], n=150'
    """
    note = "" if rate.level == 0.95 else f" ({rate.level:.12g} interval)"
    return f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}], n={rate.n}{note}"


def percent(share: float) -> str:
    """A known share (a chance level, a confidence level): no interval belongs to it.

    >>> percent(0.25), percent(0.0625)
    ('25%', '6.2%')
    """
    return f"{share:.0%}" if math.isclose(share * 100, round(share * 100)) else f"{share:.1%}"


def p_text(p_value: float) -> str:
    """A p-value as journals print it: `p = 0.031`, `p < 0.001`."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def p_value_text(p_value: float | None) -> str:
    """A p-value in a column of them, or a dash.

    >>> p_value_text(0.00004), p_value_text(0.0312)
    ('< 0.001', '0.031')
    """
    return "\u2013" if p_value is None else p_text(p_value).removeprefix("p ").removeprefix("= ")


def points_text(against: Against) -> str:
    """A difference of two shares in percentage points, with its interval and n: `+20.0 points [8.1, 31.0], n=60`."""
    values = (f"{100 * value:+.1f}" for value in (against.difference, against.low, against.high))
    difference, low, high = (value.replace("-", "\u2212") for value in values)
    return f"{difference} points [{low}, {high}], n={against.n}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["color"]), listed(["color", "state", "text"])
    ('color', 'color, state and text')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def similarity_text(value: float | None) -> str:
    """A cosine to four places; models under examination often differ only in the last."""
    return "unknown" if value is None else f"{value:.4f}"


def percentile_text(value: float | None) -> str:
    """A percentile to one place, or a dash."""
    return "\u2013" if value is None else f"{value:.1f}"


def short_name(text: str) -> str:
    """The last part of a path; a hub id `ORG/NAME` stays whole.

    >>> short_name("/data/checkpoints/tiny"), short_name("org/name")
    ('tiny', 'org/name')
    """
    is_path = text.startswith(("/", ".", "~")) or "\\" in text or text.count("/") > 1
    return (PurePath(text.replace("\\", "/")).name or text) if is_path else text


def is_hash(text: str) -> bool:
    """Whether a text is a long hexadecimal id that the page may shorten."""
    return _HASH.fullmatch(text) is not None


def labels_like(target: str, options: int) -> list[str]:
    """The labels of so many options in the manner of one of them: A, B, ... or a, b, ... or 1, 2, ...

    >>> labels_like("B", 2), labels_like("1", 3)
    (['A', 'B'], ['1', '2', '3'])
    """
    if target.isdigit():
        return [str(place + 1) for place in range(options)]
    first = ord("a" if target.islower() else "A")
    return [chr(first + place) if place < 26 else str(place + 1) for place in range(options)]


def count(n: int, noun: str) -> str:
    """A number with its noun, in the plural where it belongs.

    >>> count(1, "reply"), count(3, "reply"), count(0, "pair")
    ('1 reply', '3 replies', '0 pairs')
    """
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{n} {noun if n == 1 else plural}"


def sentence(text: str) -> str:
    """A text of someone else's with a full stop at its end, unless it has an end of its own."""
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else text + "."


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipped:
    """A text cut twice: to what a card shows, and to what the page keeps."""

    shown: str
    whole: str
    left_out: int
    """Characters that are not in the page at all."""

    @property
    def is_cut(self) -> bool:
        """Whether `whole` says more than `shown`."""
        return self.shown != self.whole


def clipped(text: str, *, shown: int = REPLY_SHOWN, kept: int = TEXT_KEPT) -> Clipped:
    """Cut a text of any size; the cut is marked by an ellipsis."""
    whole = text if len(text) <= kept else text[:kept] + "…"
    head = text if len(text) <= shown else text[:shown].rstrip() + "…"
    return Clipped(shown=head, whole=whole, left_out=max(0, len(text) - kept))


def printable(page: str) -> str:
    """The page without control characters and lone surrogates, which no HTML file may hold."""
    return page.encode("utf-8", errors="replace").decode("utf-8").translate(_CONTROLS)


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested record as lines of name and text, for a table of two columns; None is left out."""
    if isinstance(value, dict):
        return [row for key, each in value.items() for row in flat(each, f"{prefix} {key}".strip())]
    if value is None:
        return []
    if isinstance(value, list):
        return [(prefix, " ".join(str(each) for each in value))]
    return [(prefix, {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value))]
