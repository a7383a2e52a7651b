"""The grid of formats and contents: forms are told apart, some cells are never taught, questions are true of their scenes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyechart.fix.instructions import CONTENTS, FORMATS, cells, held_out, instructed, plain
from eyechart.world.draw import draw_facts
from eyechart.world.facts import COLORS, LETTERS
from eyechart.world.kinds import KINDS
from eyechart.world.questions import Question, topics

WORDS = st.sampled_from(["red", "snowman", "three", "T-shirt", "above", "yes"])
NAMES = st.sampled_from(sorted(FORMATS))


def a_question(x, y, answer=0):
    options = (x, y) if answer == 0 else (y, x)
    return Question(pattern="color", family="color", text="What?", options=options, answer=answer)


@pytest.fixture(scope="module")
def scenes():
    return [draw_facts(random.Random(f"scene {place}")) for place in range(300)]


@given(NAMES, WORDS, WORDS, st.sampled_from([0, 1]))
def test_the_right_reply_is_right_and_has_its_form(name, x, y, answer):
    form, question = FORMATS[name], a_question(x, "other", answer)
    reply = form.reply(question)
    assert form.right(reply, question)
    assert form.right(f"  {reply.upper()} ", question)
    assert form.obeyed(reply)
    wrong = form.reply(a_question("other", x))
    assert form.obeyed(wrong)
    assert not form.right(wrong, question)


@given(
    NAMES, NAMES, WORDS.filter(lambda word: word != "yes")
)  # "yes yes" is both said twice and followed by a yes
def test_a_reply_in_another_form_is_neither(asked, other, x):
    question = a_question(x, "other")
    reply = FORMATS[other].reply(question)
    assert FORMATS[asked].right(reply, question) == (asked == other)
    assert FORMATS[asked].obeyed(reply) == (asked == other)


@pytest.mark.parametrize("reply", ["", "red", "it is red", "(red", "red red red", "so"])
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_has_no_form_obeys_none(name, reply):
    assert not FORMATS[name].obeyed(reply)


def test_every_format_keeps_one_content_back_and_every_content_is_kept_back():
    kept = held_out()
    assert sorted(name for name, _ in kept) == sorted(FORMATS)
    assert {content for _, content in kept} == set(CONTENTS)
    assert len(cells()) == len(set(cells())) == len(FORMATS) * len(CONTENTS)
    assert kept < set(cells())


def test_questions_are_true_of_their_scenes(scenes):
    found = instructed(scenes, cells(), 20, seed=0)
    assert len(found) == 20 * len(cells())
    for one in found:
        facts, truth = scenes[one.scene], one.question.truth
        if one.cell[1] == "kind":
            assert truth == facts.kind
            assert set(one.question.options) & {facts.other.kind if facts.other else ""} == set()
            assert set(one.question.options) <= set(KINDS)
        else:
            assert truth in topics(facts).values()
        assert one.text.endswith(FORMATS[one.cell[0]].told)
    assert {one.question.truth for one in found if one.cell[1] == "letter"} <= set(LETTERS)
    assert {one.question.truth for one in found if one.cell[1] == "color"} <= set(COLORS)


def test_no_scene_comes_twice_in_a_cell_and_the_seed_decides(scenes):
    found = instructed(scenes, cells(), 20, seed=0)
    for cell in cells():
        places = [one.scene for one in found if one.cell == cell]
        assert len(set(places)) == len(places) == 20
    assert found == instructed(scenes, cells(), 20, seed=0)
    assert found != instructed(scenes, cells(), 20, seed=1)


def test_the_right_option_stands_first_in_half_of_the_questions(scenes):
    found = instructed(scenes, [("twice", "kind")], 250, seed=0)
    first = sum(one.question.answer == 0 for one in found)
    assert 100 <= first <= 150


def test_too_few_scenes_are_an_error(scenes):
    with pytest.raises(ValueError, match=r"of 2 scenes allow a question on .*; 5 are needed"):
        instructed(scenes[:2], cells(), 5, seed=0)


def test_plain_takes_away_case_and_spaces():
    assert plain(" So\n RED ") == "so red"
