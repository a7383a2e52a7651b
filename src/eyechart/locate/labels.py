"""Which tokens of a vocabulary stand for a word: the first choice that a logit lens has to make.

No public source says which token of a label Takishita et al. (arXiv 2506.05439) rank, so the rule is an option, and
`LabelRule.WHOLE` is the default: it alone measures the word and nothing else. Scoring the first piece of a word of
several measures a generic piece (Llama-2 splits `paw` into `p` and `aw`), and `headlight` and `head` then share one;
taking the best of all surface variants favours words that have many (`head` has six in Llama-2, `wheel` one).

A token stands in the middle of a text, so a word's pieces are read off behind other text and not off the word alone:
byte-level tokenizers put the space into the token, Llama's puts one before every text by itself, CLIP's knows none.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from eyechart.core.errors import UserError

logger = logging.getLogger(__name__)

BEFORE = "a"
"""What stands before a word when its pieces are read; a tokenizer's unknown token does as well."""

IRREGULAR = {
    "calf": "calves",
    "child": "children",
    "foot": "feet",
    "half": "halves",
    "hoof": "hooves",
    "knife": "knives",
    "leaf": "leaves",
    "man": "men",
    "mouse": "mice",
    "person": "people",
    "scarf": "scarves",
    "shelf": "shelves",
    "tooth": "teeth",
    "wolf": "wolves",
    "woman": "women",
}
"""Plurals of names of parts and objects that no rule gives."""


class LabelRule(StrEnum):
    """Which tokens are scored for a word, and how their scores become one."""

    WHOLE = "whole"
    """The word with a space before it, which must be one token."""

    FIRST = "first"
    """The first piece of the word with a space before it."""

    MEAN = "mean"
    """All pieces of the word with a space before it, read from one distribution; the mean of their log-probabilities."""

    VARIANTS = "variants"
    """The likeliest of the word's surface variants that are one token: with and without a space, Capitalised, UPPER, plural."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speller:
    """What is needed of a tokenizer."""

    encode: Callable[[str], Sequence[int]]
    """A text to its tokens, with no special ones added."""

    spell: Callable[[int], str]
    """A token as the vocabulary writes it."""

    unknown: int | None = None
    """The token for what the vocabulary cannot write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A word and the tokens that are scored for it."""

    word: str
    rule: LabelRule
    tokens: tuple[int, ...]
    """One, but for `MEAN` (the pieces in order; a piece that comes twice counts twice) and `VARIANTS` (each once)."""

    spelled: tuple[str, ...]
    """The tokens as the vocabulary writes them."""

    surfaces: tuple[str, ...] = ()
    """For `VARIANTS`: the texts that are single tokens, in the order tried; two of them may be one token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collision:
    """One token that is scored for several words: what is measured of the one is measured of the other."""

    token: int
    spelled: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedWord:
    """A word that the rule has no tokens for, and why."""

    word: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """The labels of several words under one rule, with what is to be said about them."""

    rule: LabelRule
    labels: tuple[Label, ...]
    refused: tuple[RefusedWord, ...] = ()
    collisions: tuple[Collision, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The words that have a label, in order."""
        return tuple(label.word for label in self.labels)


def speller_of(tokenizer: Any) -> Speller:
    """What labels need of a tokenizer of transformers."""
    return Speller(
        encode=lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        spell=lambda token: str(tokenizer.convert_ids_to_tokens(token)),
        unknown=getattr(tokenizer, "unk_token_id", None),
    )


def label_of(
    word: str,
    speller: Speller,
    *,
    rule: LabelRule = LabelRule.WHOLE,
    plural: Callable[[str], str] | None = None,
) -> Label:
    """The tokens that stand for one word, or name of several words such as `license plate`.

    Args:
        word: as it is written in the middle of a sentence.
        speller: the tokenizer.
        rule: which tokens.
        plural: for `VARIANTS`, what several of them are called; None for `plural_of`.

    Raises:
        UserError: the word is empty or has white space round it, a piece of it is the unknown token, or the rule
            wants single tokens and there are none. The text names the word and its pieces.
    """
    if not word or word != word.strip():
        raise UserError(f"a label is a word without white space round it, got {word!r}")
    if rule is LabelRule.VARIANTS:
        return _variants(word, speller, plural or plural_of)
    pieces = _pieces(f" {word}", BEFORE, speller)
    spelled = tuple(speller.spell(token) for token in pieces)
    if speller.unknown in pieces:
        raise UserError(f"{word!r} cannot be written in this vocabulary: its pieces are {_listed(spelled)}")
    if rule is LabelRule.WHOLE and len(pieces) != 1:
        others = ", ".join(repr(str(one)) for one in LabelRule if one is not LabelRule.WHOLE)
        raise UserError(
            f"{word!r} is {len(pieces)} tokens, {_listed(spelled)}, and the rule 'whole' reads single ones; "
            f"leave the word out, or take the rule {others}"
        )
    count = len(pieces) if rule is LabelRule.MEAN else 1
    return Label(word=word, rule=rule, tokens=pieces[:count], spelled=spelled[:count])


def labels_of(
    words: Iterable[str],
    speller: Speller,
    *,
    rule: LabelRule = LabelRule.WHOLE,
    plural: Callable[[str], str] | None = None,
) -> LabelSet:
    """The labels of many words; those without one are listed, and words that share a token are named in the log too.

    Words are taken once each, in the order in which they come first.
    """
    labels, refused = [], []
    for word in dict.fromkeys(words):
        try:
            labels.append(label_of(word, speller, rule=rule, plural=plural))
        except UserError as error:
            refused.append(RefusedWord(word=word, why=str(error)))
    shared = collisions(labels)
    for one in shared:
        logger.warning("%s share the token %r (%d)", _listed(one.words), one.spelled, one.token)
    return LabelSet(rule=rule, labels=tuple(labels), refused=tuple(refused), collisions=shared)


def collisions(labels: Sequence[Label]) -> tuple[Collision, ...]:
    """The tokens that are scored for more than one word, in ascending order."""
    words: defaultdict[int, list[str]] = defaultdict(list)
    spelled: dict[int, str] = {}
    for label in labels:
        for token, text in dict(zip(label.tokens, label.spelled, strict=True)).items():
            words[token].append(label.word)
            spelled[token] = text
    return tuple(
        Collision(token=token, spelled=spelled[token], words=tuple(words[token]))
        for token in sorted(words)
        if len(words[token]) > 1
    )


def plural_of(word: str) -> str:
    """Several of them, by the rules of English spelling and `IRREGULAR`; the last word of a name is changed.

    >>> [plural_of(word) for word in ("wheel", "torch", "body", "left foot", "key")]
    ['wheels', 'torches', 'bodies', 'left feet', 'keys']
    """
    head, space, last = word.rpartition(" ")
    if last in IRREGULAR:
        said = IRREGULAR[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        said = f"{last}es"
    elif last.endswith("y") and last[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        said = f"{last[:-1]}ies"
    else:
        said = f"{last}s"
    return f"{head}{space}{said}"


def _variants(word: str, speller: Speller, plural: Callable[[str], str]) -> Label:
    forms = dict.fromkeys((word, word[:1].upper() + word[1:], word.upper(), plural(word)))
    found: dict[str, int] = {}
    for form in forms:
        for before, text in ((BEFORE, f" {form}"), (f"{BEFORE}\n", form)):
            pieces = _pieces(text, before, speller)
            if len(pieces) == 1 and pieces[0] != speller.unknown:
                found[text] = pieces[0]
    if not found:
        spelled = tuple(speller.spell(token) for token in _pieces(f" {word}", BEFORE, speller))
        raise UserError(
            f"{word!r} ({_listed(spelled)}) and its variants {_listed(tuple(forms))} are several tokens each; "
            "leave the word out, or take the rule 'first' or 'mean'"
        )
    tokens = tuple(dict.fromkeys(found.values()))
    return Label(
        word=word,
        rule=LabelRule.VARIANTS,
        tokens=tokens,
        spelled=tuple(speller.spell(token) for token in tokens),
        surfaces=tuple(found),
    )


def _pieces(text: str, before: str, speller: Speller) -> tuple[int, ...]:
    """The tokens of a text behind another."""
    head, whole = list(speller.encode(before)), list(speller.encode(before + text))
    if whole[: len(head)] != head or len(whole) == len(head):
        raise UserError(
            f"the tokens of {before + text!r}, {_listed([speller.spell(token) for token in whole])}, do not begin "
            f"with those of {before!r}: this tokenizer joins words, and no token stands for one alone"
        )
    return tuple(whole[len(head) :])


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(repr(text) for text in texts)
