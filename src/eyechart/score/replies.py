"""A reply as plain words: typographic disguises undone, words with their places, the options it may name.

`mentions` is generous on purpose: it serves to notice a second option, never to find the first.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?s>|<(?:eos|bos|pad|end_of_utterance|end_of_turn)>")
_INNER = re.compile(r"\\(?:text|textbf|mathrm|mathbf|rm|bf)\s*\{([^{}]{0,200})\}")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]{0,200})\}")
_TAGGED = re.compile(r"<answer>([^<]{0,200})</answer>", re.I)
_HEADING = re.compile(r"(?m)^[ \t]*#{1,6}[ \t]+")
_MARKS = str.maketrans(
    {
        **dict.fromkeys("*`$"),
        **dict.fromkeys("\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}", '"'),
        **dict.fromkeys("\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}", "'"),
        **dict.fromkeys("\N{EN DASH}\N{MINUS SIGN}", "-"),
        "\N{EM DASH}": " - ",
    }
)
_WORD = re.compile(r"(?<!\w)-?\d+(?:[.,:/]\d+)*(?!\w)|[^\W_]+(?:'[^\W_]+)*")
_NUMBERS = dict(
    zip(
        "zero one two three four five six seven eight nine ten eleven twelve".split(),
        map(str, range(13)),
        strict=True,
    )
)
ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text in lower case (number words as digits), and where it stands there."""

    text: str
    start: int
    end: int


def plain(reply: str) -> str:
    """The reply without dress: full-width and mathematical letters, Markdown, LaTeX, reasoning in `<think>`.

    What a model boxed (`\\boxed{B}`, `<answer>B</answer>`) becomes the line `final answer: B`. Reasoning that
    never ends leaves nothing.
    """
    text = unicodedata.normalize("NFKC", reply)
    text = "".join(sign for sign in text if sign.isascii() or unicodedata.category(sign) != "Cf")
    text = _CONTROL.sub(" ", text)
    _, end, after = text.rpartition("</think>")
    text = after if end else text.partition("<think>")[0]
    text = _TAGGED.sub(r"\nfinal answer: \1\n", _SPECIAL.sub("", text))
    text = _BOXED.sub(r"\nfinal answer: \1\n", _INNER.sub(r"\1", text))
    text = re.sub(r"\\[()\[\]]|__", "", text).translate(_MARKS)
    return _HEADING.sub("", text).strip()


def words(text: str) -> list[Word]:
    """The words of a text; 1.5, 11:54 and 1/2 are one word, OK/SELECT and T-shirt are two."""
    found = []
    for match in _WORD.finditer(text):
        word = match[0].casefold()
        found.append(Word(_NUMBERS.get(word, word), match.start(), match.end()))
    return found


def without_article(key: tuple[str, ...]) -> tuple[str, ...]:
    """The words but for an article in front; an article alone stays."""
    return key[1:] if len(key) > 1 and key[0] in ARTICLES else key


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The options of a question by the words they are known by, and the labels they bear in the prompt."""

    keys: tuple[tuple[str, ...], ...]
    """For each option its words without an article in front; () for one of signs only."""

    articles: tuple[str, ...]
    """For each option the article in front of it, or nothing."""

    labels: tuple[str, ...]

    @property
    def numbered(self) -> bool:
        """Whether the labels are numbers."""
        return self.labels[0].isdigit()

    @property
    def letters(self) -> str:
        """The labels in both cases, for a set in a regular expression."""
        return "".join(label.upper() + label.lower() for label in self.labels)

    def place(self, label: str) -> int:
        """The option a label names."""
        return [known.casefold() for known in self.labels].index(label.casefold())

    def at(self, spoken: Sequence[Word], first: int) -> tuple[set[int], int]:
        """The options with the longest key that stands at word `first`, and how many words that is."""
        found: set[int] = set()
        longest = 0
        for place, key in enumerate(self.keys):
            if not key or len(key) < longest or first + len(key) > len(spoken):
                continue
            if all(spoken[first + step].text == part for step, part in enumerate(key)):
                found = found | {place} if len(key) == longest else {place}
                longest = len(key)
        return found, longest


@lru_cache(maxsize=4096)
def choices(options: tuple[str, ...], labels: tuple[str, ...]) -> Choices:
    """The options as they can be named.

    Raises:
        ValueError: labels and options differ in number, or labels are not single letters or numbers.
    """
    if len(options) != len(labels):
        raise ValueError(f"{len(options)} options and {len(labels)} labels: {options!r}, {labels!r}")
    kinds = {label.isdigit() for label in labels}
    if len(kinds) != 1 or not all(re.fullmatch(r"[A-Za-z]|\d{1,2}", label) for label in labels):
        raise ValueError(f"labels must be single letters, or numbers, got {labels!r}")
    spoken = [tuple(word.text for word in words(plain(option))) for option in options]
    keys = tuple(without_article(key) for key in spoken)
    articles = tuple(full[0] if full != key else "" for full, key in zip(spoken, keys, strict=True))
    return Choices(keys=keys, articles=articles, labels=labels)


def mentions(text: str, known: Choices) -> list[set[int]]:
    """The options that the text may name, by label or by words, mention by mention.

    `not open` does not mention `open` too. Options known by the same words ("Happy" and "Happy!") are one
    mention of both.
    """
    return _by_words(words(text), known) + _by_label(text, known)


def _by_words(spoken: Sequence[Word], known: Choices) -> list[set[int]]:
    """Options whose words occur, unless inside those of a longer option."""
    found = []
    covered = 0
    starts = {key[0] for key in known.keys if key}
    for first in (place for place, word in enumerate(spoken) if word.text in starts):
        there, length = known.at(spoken, first)
        if there and first + length > covered:
            found.append(there)
            covered = first + length
    return found


def _by_label(text: str, known: Choices) -> list[set[int]]:
    if known.numbered:
        spoken = re.findall(r"(?<![\w.,:/])\d{1,2}(?!\w|[.,:/]\d)", text)
        return [{known.place(word)} for word in spoken if word in known.labels]
    return [
        {known.place(match[0])}
        for match in re.finditer(rf"(?<![\w'])[{known.letters}](?!\w|'\w|-\w)", text)
        if match[0] not in "AaIi" or _stands_as_label(text, match)
    ]


_AFTER = re.compile(
    r"\s*(?:[])}([{.:,;!?/|&=\"]|$)|[ \t]*\n|\s+(?:or|and|nor|vs|but|is|because|since|instead)\b"
)
_NAMING = re.compile(r"\b(?:option|answer|choice|letter)[\s:]+$", re.I)


def _stands_as_label(text: str, match: re.Match[str]) -> bool:
    """Whether A or I may be more than the article or the pronoun where it stands."""
    before = text[max(0, match.start() - 12) : match.start()]
    return _AFTER.match(text, match.end()) is not None or _NAMING.search(before) is not None
