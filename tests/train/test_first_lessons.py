"""The first lessons: what is marked as known can be found by a slow reader, and nothing else is marked."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eyechart.recipes import first_lessons as lessons
from eyechart.recipes import language_model as recipe
from eyechart.train.tokens import ZooTokenizer, train_tokenizer
from eyechart.world.words import vocabulary

CONTENT = tuple(range(100, 150))
BETWEEN = tuple(range(20, 30))


@pytest.fixture(scope="module")
def tokenizer() -> ZooTokenizer:
    return train_tokenizer(["USER: a red car. ASSISTANT: red"], vocabulary())


@given(seed=st.integers(0, 10_000))
def test_repeated_words_follow_from_the_round_before(seed: int) -> None:
    ids, known = lessons.repeated(random.Random(seed), CONTENT)
    assert len(ids) == len(known) == lessons.LENGTH
    period = ids.index(ids[0], 1)
    assert 4 <= period <= 20
    assert len(set(ids[:period])) == period
    assert known == [place > period for place in range(len(ids))]
    assert all(ids[place] == ids[place - period] for place, told in enumerate(known) if told)


@given(seed=st.integers(0, 10_000), gap=st.integers(0, lessons.FARTHEST))
def test_what_belongs_to_a_word_is_told_before_it_is_asked_for(seed: int, gap: int) -> None:
    ids, known = lessons.paired(random.Random(seed), CONTENT, BETWEEN, gap=gap)
    assert len(ids) == len(known) == lessons.LENGTH
    things = [(place, word) for place, word in enumerate(ids) if word in CONTENT]
    first = next(number for number, (place, _) in enumerate(things) if known[place])
    assert first % 2 == 1
    told = [{word for _, word in things[at : at + 2]} for at in range(0, first - 1, 2)]
    asked = [place for place, told_here in enumerate(known) if told_here]
    assert 2 <= len(told) <= 6
    assert len(asked) >= 2
    for number in range(first - 1, len(things) - 1, 2):
        (_, word), (place, own) = things[number : number + 2]
        assert known[place]
        assert {word, own} in told
        assert place - things[number][0] <= gap + 1
    if gap == 0:
        assert set(ids) <= set(CONTENT)


def test_which_of_several_colours_cannot_be_guessed() -> None:
    shares = []
    for seed in range(400):
        ids, known = lessons.paired(random.Random(seed), CONTENT, BETWEEN, gap=3)
        first = known.index(True)
        named = {word for word in ids[:first] if word in CONTENT}
        shares.append(1 / (len(named) - 1))
    assert sum(shares) / len(shares) < 0.25


def test_the_words_are_single_tokens_of_the_world(tokenizer: ZooTokenizer) -> None:
    content, between = lessons.content_words(tokenizer), lessons.words_between(tokenizer)
    assert len(content) > 40
    assert len(set(content)) == len(content)
    assert not set(content) & set(between)
    assert " red" in {tokenizer.decode([word]) for word in content}
    assert "." in {tokenizer.decode([word]) for word in between}


def test_lessons_go_from_words_to_pairs_to_dialogues(tokenizer: ZooTokenizer) -> None:
    batches = recipe.lessons(tokenizer, rows=4, seed=0)
    talk = recipe.dialogues(tokenizer, rows=4, seed=0, growing=recipe.GROWING)
    pairs, text = recipe.REPEATING, recipe.REPEATING + recipe.PAIRING
    assert batches(0)["input_ids"].shape == batches(pairs)["input_ids"].shape == (8, lessons.LENGTH)
    assert batches(0)["answers"].sum() > 1.5 * batches(pairs)["answers"].sum()
    between = set(lessons.words_between(tokenizer))
    apart = [
        sum(word in between for word in batches(step)["input_ids"].flatten().tolist())
        for step in (pairs, text - 1)
    ]
    assert apart[0] == 0 < apart[1]
    assert torch.equal(batches(text)["input_ids"], talk(0)["input_ids"])
    assert torch.equal(batches(pairs + 3)["input_ids"], batches(pairs + 3)["input_ids"])
