"""How the zoo's models are asked: the exam's own prompt templates, and the bare question answered in a word."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from eyechart.core.errors import unknown
from eyechart.core.records import Item
from eyechart.score import TEMPLATES, build_prompt

WORD = "word"
"""The form without labels: the bare question, and the option itself as the answer."""

FORMS = (*TEMPLATES, WORD)
"""`letter`, `number` and `mmvp` as in `eyechart.score.TEMPLATES`, and `word`."""

SHARES: Mapping[str, float] = {"letter": 0.55, "word": 0.25, "number": 0.1, "mmvp": 0.1}
"""How often the language model is trained on each form."""

LABEL_SHARES: Mapping[str, float] = {form: share for form, share in SHARES.items() if form != WORD}
"""The same of the forms in which an option's label is the answer."""


def draw_form(rng: random.Random, shares: Mapping[str, float] = SHARES) -> str:
    """A form by how often each is wanted."""
    return rng.choices([*shares], [*shares.values()])[0]


def ask(text: str, options: Sequence[str], form: str) -> tuple[str, tuple[str, ...]]:
    """A question in one of the forms, as a message's text, and how each option is answered in it.

    >>> ask("Is the mug full or empty?", ("full", "empty"), "mmvp")
    ('Is the mug full or empty? (a) full (b) empty', ('(a)', '(b)'))

    Raises:
        UserError: no such form.
    """
    if form not in FORMS:
        raise unknown("form of a question", form, FORMS)
    if form == WORD:
        return text, tuple(options)
    item = Item(
        id="", pair_id="", question=text, options=tuple(options), answer=0, image=Path(), image_sha256=""
    )
    asked = build_prompt(item, form)
    answers = tuple(f"({label})" for label in asked.labels) if form == "mmvp" else asked.labels
    return asked.text, answers
