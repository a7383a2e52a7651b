"""What the language model learns before any text: to say again what stood there, and what stood with what.

Which object has which colour cannot be learnt from questions alone in the time there is: a model that guesses among the
colours that were named gets half of them right, and stays there (docs/studies/zoo.md). It takes heads that look at
what stood beside an earlier mention of the same word, and these form on repeated words, where every word asks for them
(Olsson et al., "In-context Learning and Induction Heads", 2022). So rows of words come first, and then pairs of words
whose partners move apart, until a pair is like "a red mug" and asked for like "the mug is".
"""

import random
from collections.abc import Sequence

import torch

from eyechart.train.loop import Batch
from eyechart.train.tokens import ZooTokenizer
from eyechart.world.facts import COLORS, LETTERS
from eyechart.world.kinds import KINDS

LENGTH = 72
"""Tokens of a row."""

FARTHEST = 3
"""Other words at most between the two of a pair."""

_BETWEEN = "is a the there of has with we see from facing an are picture shows it no camera".split()

Row = tuple[list[int], list[bool]]
"""Tokens, and which of them can be known from those before."""


def content_words(tokenizer: ZooTokenizer) -> list[int]:
    """The tokens that things are made of: colours, kinds, parts that can be missing, letters; each with its leading space."""
    parts = [part for kind in KINDS.values() for part in kind.optional]
    return _single(tokenizer, sorted({*COLORS, *KINDS, *LETTERS, *parts}))


def words_between(tokenizer: ZooTokenizer) -> list[int]:
    """The tokens that stand between such words in a told scene, the full stop as often as some of them together."""
    stop: list[int] = tokenizer(".", add_special_tokens=False)["input_ids"]
    return [*_single(tokenizer, _BETWEEN), *stop * 6]


def _single(tokenizer: ZooTokenizer, words: Sequence[str]) -> list[int]:
    ids: list[list[int]] = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    return [each[0] for each in ids if len(each) == 1]


def repeated(rng: random.Random, content: Sequence[int], *, length: int = LENGTH) -> Row:
    """4 to 20 words, and the same again and again: from the second time on, each follows from the one before."""
    unit = rng.sample(content, rng.randint(4, 20))
    ids = (unit * (length // len(unit) + 1))[:length]
    return ids, [place > len(unit) for place in range(length)]


def paired(
    rng: random.Random, content: Sequence[int], between: Sequence[int], *, gap: int, length: int = LENGTH
) -> Row:
    """2 to 6 pairs of a word and what belongs to it, in either order, and then each word again, with what belongs to it.

    Args:
        gap: up to so many other words come between the two and before them; `FARTHEST` is as in told scenes.
    """
    named = rng.sample(content, rng.randint(2, 6))
    rest = [word for word in content if word not in named]
    pairs = [(word, rng.choice(rest)) for word in named]

    def others(most: int) -> list[int]:
        return [rng.choice(between) for _ in range(rng.randint(0, most))]

    ids: list[int] = []
    for word, own in pairs:
        before = rng.random() < 0.6
        ids += (
            [*others(gap), own, *others(min(1, gap)), word]
            if before
            else [*others(gap), word, *others(gap), own]
        )
    known = [False] * len(ids)
    while len(ids) < length:
        rng.shuffle(pairs)
        for word, own in pairs:
            more = [*others(gap), word, *others(gap), own]
            ids, known = ids + more, known + [False] * (len(more) - 1) + [True]
    return ids[:length], known[:length]


def as_batch(rows: Sequence[Row]) -> Batch:
    """Rows of one length as `language_objective` takes them: what can be known counts as an answer."""
    ids, known = zip(*rows, strict=True)
    return {"input_ids": torch.tensor(ids), "answers": torch.tensor(known, dtype=torch.float32)}
