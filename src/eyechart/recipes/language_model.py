"""A small Llama that has read the world's text and answers questions about a scene that is told in words.

It begins with rows of words (`first_lessons`), goes on with scenes, and ends with inventories. It has never seen a picture.
What it answers about a scene told in words is the control of the VLM built on it: where it answers from words and the VLM
does not from the picture, the sight is at fault.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from eyechart.core.devices import seeded
from eyechart.core.images import sha256_of
from eyechart.recipes.first_lessons import FARTHEST, as_batch, content_words, paired, repeated, words_between
from eyechart.recipes.forms import LABEL_SHARES, SHARES, WORD, ask, draw_form
from eyechart.recipes.inventories import inventory
from eyechart.recipes.tokenizer import make_tokenizer
from eyechart.train.language import (
    DialogueReader,
    LanguageShape,
    Turn,
    export_language_model,
    language_objective,
    make_language_model,
)
from eyechart.train.loop import Batch, Batches, Report, Settings, fit
from eyechart.train.prompts import DESCRIBE
from eyechart.train.prompts import told as asked_of
from eyechart.train.tokens import ZooTokenizer, load_tokenizer
from eyechart.train.weights import weights_sha256
from eyechart.world.captions import dense, told
from eyechart.world.draw import draw_facts
from eyechart.world.facts import PATTERNS, Facts
from eyechart.world.questions import Question, questions

SHAPE = LanguageShape()
_ONE = Settings(
    max_steps=2000,
    per_device_train_batch_size=32,
    learning_rate=1.5e-3,
    muon_rate=2.0,
    weight_decay=0.1,
    warmup_steps=50,
    logging_steps=20,
    save_steps=200,
)

STAGES: Mapping[str, Settings] = {
    "scenes": _ONE,
    "inventories": replace(
        _ONE, max_steps=500, per_device_train_batch_size=40, learning_rate=1e-3, save_steps=50
    ),
}
"""The stages in order: `lessons`, and `with_inventories`."""

LENGTH = 256
"""Tokens of a row at most: a scene and the questions on it, as many as fit."""

REPEATING, PAIRING = 400, 240
"""So many of the first steps are rows of repeated words, and then of words that belong together (`first_lessons`)."""

GROWING = 1100
"""So many steps after these are lessons, on a few sentences at first and then on more and more; the rest are dialogues."""

QUESTIONS = 3
"""Asked on a scene at most in a dialogue."""

INQUIRED = 8
"""Asked on a scene at most in an inquiry."""

TOLD_SHARE = 0.6
"""How often the scene is told in the plain sentences of the control; else in a dense caption."""

WORD_FIRST_SHARE = 0.4
"""How often a question whose answer is an option's label is first answered in a word: a step on the way to the label."""

DESCRIBED_SHARE = 0.15
"""How often a description is asked for among the questions."""

ANSWER_WEIGHT = 100.0
"""A token of an answer counts so much: there are some thirty others to each, most of which nothing foretells."""


def train_language_model(
    *,
    tokenizer: Path = Path("build/zoo/tokenizer"),
    work: Path = Path("build/work"),
    out: Path = Path("build/zoo"),
    stages: Mapping[str, Settings] = STAGES,
    report: Report | None = None,
) -> Path:
    """Train the language model and write it to `out/lm`.

    Args:
        tokenizer: the zoo's tokenizer, which is made where there is none.
        work: checkpoints go to `work/lm`; the same command goes on there.
        stages: how long and how fast to train in each.
        report: told the steps that are done.

    Raises:
        UserError: another run in `work`.
    """
    words = load_tokenizer(make_tokenizer(tokenizer))
    with seeded(stages["scenes"].seed):
        model = make_language_model(words, SHAPE)
    read = {"scenes": lessons, "inventories": with_inventories}
    for stage, settings in stages.items():
        fit(
            model,
            language_objective(pad_id=words.pad_token_id, answer_weight=ANSWER_WEIGHT),
            read[stage](words, rows=settings.per_device_train_batch_size, seed=settings.seed),
            settings,
            work / "lm" / stage,
            identity={
                "shape": str(SHAPE),
                "tokenizer": sha256_of(tokenizer / "tokenizer.json"),
                "length": LENGTH,
                "answers": ANSWER_WEIGHT,
                "steps": [REPEATING, PAIRING, GROWING],
                "from": weights_sha256(model),
            },
            report=report,
        )
    return export_language_model(model, words, out / "lm")


def lessons(tokenizer: ZooTokenizer, *, rows: int, seed: int) -> Batches:
    """All that the language model learns, one thing after another: repeated words, pairs, and `dialogues`.

    The rows of words are short, so there are twice as many.
    """
    content, between = content_words(tokenizer), words_between(tokenizer)
    talk = dialogues(tokenizer, rows=rows, seed=seed, growing=GROWING)

    def batch(step: int) -> Batch:
        rngs = [random.Random(f"words {seed} {step} {row}") for row in range(2 * rows)]
        if step < REPEATING:
            return as_batch([repeated(rng, content) for rng in rngs])
        if step < REPEATING + PAIRING:
            gap = min(FARTHEST, (FARTHEST + 2) * (step - REPEATING) // PAIRING)
            return as_batch([paired(rng, content, between, gap=gap) for rng in rngs])
        return talk(step - REPEATING - PAIRING)

    return batch


def with_inventories(tokenizer: ZooTokenizer, *, rows: int, seed: int) -> Batches:
    """What belongs to what, on inventories in every other batch; in turn with inquiries and dialogues, lest the rest be forgotten."""
    read = DialogueReader(tokenizer, length=LENGTH)
    turns = (inventory, inquiry, inventory, dialogue)

    def batch(step: int) -> Batch:
        one = turns[step % len(turns)]
        return read([one(random.Random(f"inventory {seed} {step} {row}")) for row in range(rows)])

    return batch


def dialogues(
    tokenizer: ZooTokenizer, *, rows: int, seed: int, split: str = "train", growing: int = 0
) -> Batches:
    """Batches of dialogues about scenes that were never drawn before; no text is read twice.

    The first `growing` steps teach one thing after another, in turns of three: drills in options; single questions,
    answered in words at first, on a few sentences at first and on whole scenes in the end; and many questions on one
    scene, all answered in words, from when the single ones begin to have more sentences than they need.
    """
    read = DialogueReader(tokenizer, length=LENGTH)

    def batch(step: int) -> Batch:
        rngs = [random.Random(f"text {split} {seed} {step} {row}") for row in range(rows)]
        if step >= growing:
            return read([dialogue(rng) for rng in rngs])
        labels, others = min(1.0, 3 * step / growing), 3 * step / growing - 1
        if step % 3 == 0:
            return read([drill(rng) for rng in rngs])
        if step % 3 == 1 and others > 0:
            return read([inquiry(rng) for rng in rngs])
        return read([short_dialogue(rng, labels=labels, others=others) for rng in rngs])

    return batch


def dialogue(rng: random.Random) -> list[Turn]:
    """A scene in words with a question on it, then a few more on the same scene, in the exam's forms."""
    facts, first = asked_scene(rng)
    scene = _in_words(facts, rng)
    groups = [_turns(question, rng, SHARES) for question in _and_others(first, facts, QUESTIONS, rng)]
    if rng.random() < DESCRIBED_SHARE:
        groups.append([(DESCRIBE, dense(facts, rng))])
    rng.shuffle(groups)
    return _opened(scene, [turn for group in groups for turn in group])


def inquiry(rng: random.Random) -> list[Turn]:
    """A whole scene in words and many questions on it, each answered in a word: more answers for as much reading."""
    facts, first = asked_scene(rng)
    asked = _and_others(first, facts, INQUIRED, rng)
    rng.shuffle(asked)
    return _opened(_in_words(facts, rng), [(question.text, question.truth) for question in asked])


def _in_words(facts: Facts, rng: random.Random) -> str:
    return told(facts) if rng.random() < TOLD_SHARE else dense(facts, rng)


def _and_others(first: Question, facts: Facts, most: int, rng: random.Random) -> list[Question]:
    """The question and others on the same scene, so many at most in all."""
    others = [question for question in questions(facts, rng) if question.family != first.family]
    return [first, *rng.sample(others, min(len(others), most - 1))]


def short_dialogue(rng: random.Random, *, labels: float, others: float) -> list[Turn]:
    """One question on those sentences of a scene that it is about, and some others.

    To find one fact among many, and then the option that says it, is what takes a small model longest to learn; among
    few it learns either soon, and then goes on doing it as scenes grow.

    Args:
        labels: how often the forms are those of `SHARES`; else the answer is a word.
        others: the larger, the more of the other sentences; 0 is none, 1 on average a half, 2 on average three quarters.
    """
    facts, question = asked_scene(rng)
    sentences = told(facts).removesuffix(".").split(". ")
    about = telling(sentences, f"{question.text} {' '.join(question.options)}")
    share = others * rng.random()
    kept = [sentence for sentence in sentences if sentence in about or rng.random() < share]
    shares = SHARES if rng.random() < labels else {WORD: 1.0}
    return _opened(". ".join(kept) + ".", _turns(question, rng, shares))


def drill(rng: random.Random) -> list[Turn]:
    """A question with its answer told: all that is left to find is which option that is, and its label."""
    _, question = asked_scene(rng)
    form = draw_form(rng, LABEL_SHARES)
    text, answers = ask(question.text, question.options, form)
    return [(asked_of(question.truth, text), answers[question.answer])]


def asked_scene(rng: random.Random) -> tuple[Facts, Question]:
    """A scene and a question on it, every pattern as often; asked of scenes drawn freely, some would come seldom."""
    pattern = rng.choice(PATTERNS)
    while True:
        facts = draw_facts(rng)
        fitting = [question for question in questions(facts, rng) if question.pattern == pattern]
        if fitting:
            return facts, rng.choice(fitting)


def telling(sentences: Sequence[str], asked: str) -> list[str]:
    """The sentences that share a word with a question, other than short ones and words that most sentences have; all if none does."""
    words = [set(re.findall(r"\w{3,}", sentence)) for sentence in sentences]
    had = Counter(word for each in words for word in each)
    told_apart = {word for word in re.findall(r"\w{3,}", asked) if 0 < 2 * had[word] <= len(sentences)}
    return [sentence for sentence, own in zip(sentences, words, strict=True) if own & told_apart] or [
        *sentences
    ]


def _turns(question: Question, rng: random.Random, shares: Mapping[str, float]) -> list[Turn]:
    """A question in one of the forms; often answered in a word first where an option's label is asked for."""
    form = draw_form(rng, shares)
    forms = [WORD, form] if form != WORD and rng.random() < WORD_FIRST_SHARE else [form]
    asked = [ask(question.text, question.options, each) for each in forms]
    return [(text, answers[question.answer]) for text, answers in asked]


def _opened(scene: str, turns: Sequence[Turn]) -> list[Turn]:
    """The turns, the scene told in the first."""
    (first, answer), *others = turns
    return [(asked_of(scene, first), answer), *others]
