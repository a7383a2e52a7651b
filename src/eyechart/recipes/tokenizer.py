"""The tokenizer of the zoo: every word of the world one token, learnt from what is said in a few thousand scenes."""

import random
from collections.abc import Iterator
from pathlib import Path

from eyechart.core.errors import UserError
from eyechart.recipes.forms import SHARES, ask
from eyechart.train.prompts import DESCRIBE, answered
from eyechart.train.tokens import load_tokenizer, train_tokenizer
from eyechart.world.captions import BIASED, TOLD_ALL, caption, dense, told
from eyechart.world.draw import draw_facts
from eyechart.world.questions import questions
from eyechart.world.words import vocabulary

SCENES = 3000
SIZE = 1024


def make_tokenizer(folder: Path = Path("build/zoo/tokenizer"), *, seed: int = 0) -> Path:
    """Train the tokenizer and save it; one that is already there is kept.

    Raises:
        UserError: the one that is there was made for another world, and splits words of this one.
    """
    if not (folder / "tokenizer.json").exists():
        train_tokenizer(world_texts(seed), vocabulary(), size=SIZE).save_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    split = [word for word in vocabulary() if len(tokenizer.tokenize(f" {word}")) != 1]
    if split:
        raise UserError(
            f"the tokenizer in {folder} splits {', '.join(split)}: remove it, to have it made anew"
        )
    return folder


def world_texts(seed: int) -> Iterator[str]:
    """Everything that is said of a scene, as captions, descriptions and questions in every form."""
    rng = random.Random(f"tokenizer {seed}")
    for _ in range(SCENES):
        facts = draw_facts(rng)
        yield from (told(facts), caption(facts, BIASED, rng), caption(facts, TOLD_ALL, rng))
        yield answered(DESCRIBE, dense(facts, rng), image=False)
        for question in questions(facts, rng):
            for form in SHARES:
                text, answers = ask(question.text, question.options, form)
                yield answered(text, answers[question.answer], image=False)
