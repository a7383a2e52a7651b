"""A small Llama that has read the world's text and answers questions about a scene that is told in words.

It has never seen a picture. What it answers about a scene told in words is the control of the VLM built on it: where
it answers from words and the VLM does not from the picture, the sight is at fault.
"""

import random
from pathlib import Path

from eyechart.core.devices import seeded
from eyechart.core.images import sha256_of
from eyechart.recipes.forms import SHARES, ask
from eyechart.recipes.tokenizer import make_tokenizer
from eyechart.train.language import (
    DialogueReader,
    LanguageShape,
    Turn,
    export_language_model,
    language_objective,
    make_language_model,
)
from eyechart.train.loop import Batches, Report, Settings, fit
from eyechart.train.prompts import DESCRIBE
from eyechart.train.prompts import told as asked_of
from eyechart.train.tokens import ZooTokenizer, load_tokenizer
from eyechart.world.captions import dense, told
from eyechart.world.draw import draw_facts
from eyechart.world.questions import questions

SHAPE = LanguageShape()
SETTINGS = Settings(
    max_steps=1600,
    per_device_train_batch_size=8,
    learning_rate=2e-3,
    weight_decay=0.1,
    warmup_steps=100,
    logging_steps=20,
    save_steps=200,
)
LENGTH = 256
"""Tokens of a row: a scene and the questions on it, as many as fit."""

TOLD_SHARE = 0.6
"""How often the scene is told in the plain sentences of the control; else in a dense caption."""

DESCRIBED_SHARE = 0.3
"""How often a description is asked for among the questions."""

ANSWER_WEIGHT = 8.0
"""A token of an answer counts so much, since there are some thirty others to each."""


def train_language_model(
    *,
    tokenizer: Path = Path("build/zoo/tokenizer"),
    work: Path = Path("build/work"),
    out: Path = Path("build/zoo"),
    settings: Settings = SETTINGS,
    report: Report | None = None,
) -> Path:
    """Train the language model and write it to `out/lm`.

    Args:
        tokenizer: the zoo's tokenizer, which is made where there is none.
        work: checkpoints go to `work/lm`; the same command goes on there.
        settings: how long and how fast to train.
        report: told the steps that are done.

    Raises:
        UserError: another run in `work`.
    """
    words = load_tokenizer(make_tokenizer(tokenizer))
    with seeded(settings.seed):
        model = make_language_model(words, SHAPE)
    fit(
        model,
        language_objective(pad_id=words.pad_token_id, answer_weight=ANSWER_WEIGHT),
        dialogues(words, rows=settings.per_device_train_batch_size, seed=settings.seed),
        settings,
        work / "lm",
        identity={
            "shape": str(SHAPE),
            "tokenizer": sha256_of(tokenizer / "tokenizer.json"),
            "length": LENGTH,
            "answers": ANSWER_WEIGHT,
        },
        report=report,
    )
    return export_language_model(model, words, out / "lm")


def dialogues(tokenizer: ZooTokenizer, *, rows: int, seed: int, split: str = "train") -> Batches:
    """Batches of dialogues about scenes that were never drawn before; no text is read twice."""
    read = DialogueReader(tokenizer, length=LENGTH)
    return lambda step: read(
        [dialogue(random.Random(f"text {split} {seed} {step} {row}")) for row in range(rows)]
    )


def dialogue(rng: random.Random) -> list[Turn]:
    """A scene in words with the first question on it, then more questions on the same scene, in the exam's forms."""
    facts = draw_facts(rng)
    scene = told(facts) if rng.random() < TOLD_SHARE else dense(facts, rng)
    turns: list[Turn] = []
    for question in questions(facts, rng):
        text, answers = ask(question.text, question.options, rng.choices([*SHARES], [*SHARES.values()])[0])
        turns.append((text, answers[question.answer]))
    if rng.random() < DESCRIBED_SHARE:
        turns.append((DESCRIBE, dense(facts, rng)))
    rng.shuffle(turns)
    (first, answer), *others = turns
    return [(asked_of(scene, first), answer), *others]
