"""The words: phrases, the parts that are painted in the accent colour, and the list of all that can be said."""

import random
import re
from dataclasses import replace

import pytest

from eyechart.world.captions import BIASED, TOLD_ALL, caption, dense, told
from eyechart.world.cv import _TEXTS
from eyechart.world.draw import FAMILIES, draw_contrast, draw_facts
from eyechart.world.facts import COLORS, ITEMS, LETTERS, PATTERNS
from eyechart.world.kinds import KINDS
from eyechart.world.kinds.kind import Look, pieces_of
from eyechart.world.questions import question_for, questions, statements
from eyechart.world.words import (
    NUMBERS,
    a,
    accent_parts,
    counted,
    described,
    end_seen,
    from_where,
    listed,
    number_word,
    plural,
    side_faced,
    vocabulary,
)


@pytest.fixture(scope="module")
def said() -> set[str]:
    """Every word of many texts of every sort; the first word of a question as inside a sentence."""
    rng = random.Random(1)
    texts = [re.sub(r"{\w+}", "", text) for several in _TEXTS.values() for text in several]
    for index in range(600):
        facts = draw_facts(rng, family=FAMILIES[index % 4])
        texts += [caption(facts, rates, rng) for rates in (BIASED, TOLD_ALL)]
        texts += [told(facts), dense(facts, rng)]
        for question in questions(facts, rng):
            texts += [question.text, *question.options]
        pattern = PATTERNS[index % len(PATTERNS)]
        before, after = draw_contrast(pattern, rng)
        texts += [question_for(pattern, before, after, rng).text, *statements(pattern, before, after)]
    words = {word for text in texts for word in re.findall(r"[^\s.,:?]+", text)}
    return {word if word in LETTERS else word.lower() for word in words}


def test_all_that_is_said_is_in_the_vocabulary(said):
    assert said - set(vocabulary()) == set()


def test_the_vocabulary_holds_little_that_is_never_said(said):
    unsaid = set(vocabulary()) - said
    assert unsaid <= {*NUMBERS[4:], *PATTERNS, "rug"}, unsaid


def test_the_vocabulary_is_single_words_few_enough_for_a_small_tokenizer():
    words = vocabulary()
    assert words == sorted(set(words))
    assert len(words) <= 300
    assert all(re.fullmatch(r"[a-z]+", word) or word in LETTERS for word in words)
    assert {*KINDS, *ITEMS, *COLORS, *LETTERS, *PATTERNS, *NUMBERS} <= set(words)


def test_no_name_means_two_things():
    """A part is never called as an object, a thing to count or a colour is: a question would be ambiguous."""
    parts = {part for kind in KINDS.values() for part in kind.parts}
    states = {word for kind in KINDS.values() if kind.state for word in kind.state.words}
    shapes = {word for kind in KINDS.values() for word in kind.shape.words}
    named = [parts, set(KINDS), set(ITEMS), set(COLORS), states, {"sign", "rug"}]
    assert sum(map(len, named)) == len(set().union(*named))
    assert not shapes & (parts | set(KINDS) | set(COLORS) | states)


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("open door", "an open door"),
        ("car", "a car"),
        ("upright tree", "an upright tree"),
        ("round foliage", "round foliage"),
        ("egg", "an egg"),
        ("white egg", "a white egg"),
    ],
)
def test_articles(noun, expected):
    assert a(noun) == expected


def test_numbers_plurals_and_rows():
    assert (counted("egg", 1, "white"), counted("cube", 4)) == ("one white egg", "four cubes")
    assert (plural("cube"), listed(["a"]), listed(["a", "b", "c"])) == ("cubes", "a", "a, b and c")
    assert (described("open", "door"), described("off", "lamp")) == ("open door", "lamp that is off")


@pytest.mark.parametrize("number", [0, 10, -1])
def test_a_number_without_a_word_is_refused(number):
    with pytest.raises(ValueError, match=f"{number} has no word"):
        number_word(number)


def test_facing_is_never_spoken_of_where_there_is_no_front():
    facts = draw_facts(random.Random(0), family="solo")
    for name, kind in KINDS.items():
        for facing in ("left", "right", "front", "back"):
            seen = replace(facts, kind=name, facing=facing, view="side")
            assert (side_faced(seen) is not None) == (kind.has_front and facing in ("left", "right"))
            assert (end_seen(seen) is not None) == (kind.has_front and facing in ("front", "back"))
            assert from_where(seen) in ("the side", "the front and low down", "behind and low down")


def test_accent_parts_are_painted_in_the_accent_alone_in_every_look():
    for name, kind in KINDS.items():
        states = kind.state.words if kind.state else (None,)
        for part in accent_parts(name):
            for state in states:
                for shape in kind.shape.words:
                    pieces = pieces_of(kind, Look(state=state, shape=shape))
                    slots = {piece.slot for piece in pieces if piece.part == part}
                    assert slots == {"accent"}, (name, part, slots)
