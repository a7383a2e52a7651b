"""Captions are read back by a reader of their own: nothing false, every fact at its rate, told and dense complete."""

import random
from collections import Counter
from dataclasses import fields, replace

import pytest
from scipy.stats import binomtest

from eyechart.world.captions import BIASED, PERMUTED, TOLD_ALL, Rates, caption, dense, told
from eyechart.world.draw import FAMILIES, can_change, change, draw_facts
from eyechart.world.facts import PATTERNS, Facts
from eyechart.world.kinds import KINDS
from eyechart.world.questions import questions
from world_reader import answer, claims, false_claims, read

EVERYTHING = Rates(**{field.name: 1.0 for field in fields(Rates)})
SILENCE = Rates(**{field.name: float(field.name == "object") for field in fields(Rates)})


def _facts(seed: int, count: int) -> list[Facts]:
    rng = random.Random(seed)
    return [draw_facts(rng, family=FAMILIES[index % 4]) for index in range(count)]


def _crowd(seed: int) -> Facts:
    """All that a scene can hold at once."""
    rng = random.Random(seed)
    duo, items, letter = (draw_facts(rng, family=family) for family in ("duo", "items", "letter"))
    return replace(duo, items=items.items, letter=letter.letter)


@pytest.mark.parametrize("rates", [BIASED, TOLD_ALL, PERMUTED, EVERYTHING])
def test_no_caption_says_anything_false(rates):
    rng = random.Random(1)
    for facts in _facts(2, 800):
        said = caption(facts, rates, rng)
        assert false_claims(said, facts) == [], (said, facts)


def test_a_caption_that_says_all_is_false_of_every_changed_scene():
    rng = random.Random(3)
    tried = Counter()
    for facts in _facts(4, 600):
        said = caption(facts, EVERYTHING, rng)
        for pattern in PATTERNS:
            if not can_change(facts, pattern):
                continue
            other = change(facts, pattern, rng)
            if pattern == "presence" and facts.missing is None and f"with {other.missing}" not in said:
                continue  # of several parts that can be missing one is mentioned
            tried[pattern] += bool(false_claims(said, other))
            if pattern != "presence":
                assert false_claims(said, other), (pattern, said, other)
    assert set(tried) == set(PATTERNS)


def _applies(facts: Facts) -> dict[str, bool]:
    kind = KINDS[facts.kind]
    return {
        "color": True,
        "quantity": facts.items is not None,
        "presence": True,
        "state": kind.state is not None and (kind.state.part is None or kind.state.part != facts.missing),
        "structure": facts.facing in ("left", "right")
        and (kind.shape.part is None or kind.shape.part != facts.missing),
        "viewpoint": True,
        "text": facts.letter is not None,
        "position": facts.other is not None,
        "orientation": kind.has_front and facts.facing in ("left", "right"),
        "sign": facts.letter is not None,
        "other": facts.other is not None,
    }


def _mentioned(said: str, facts: Facts) -> set[str]:
    kind = KINDS[facts.kind]
    found = set()
    for claim in claims(said, facts.kind):
        match claim:
            case ("color", name, _):
                found |= {"color"} if name == facts.kind else {"other color"}
            case ("word", _, word):
                found.add("state" if kind.state is not None and word in kind.state.words else "structure")
            case ("with" | "without", _):
                found.add("presence")
            case ("place", *_):
                found.add("position")
            case ("text", _):
                found |= {"text", "sign"}
            case (name, *_):
                found.add(name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rates", [BIASED, TOLD_ALL, PERMUTED])
def test_every_fact_is_mentioned_at_its_rate(rates):
    rng = random.Random(5)
    said, could = Counter(), Counter()
    for facts in _facts(6, 4000):
        found = _mentioned(caption(facts, rates, rng), facts)
        assert "object" in found
        for name, applies in _applies(facts).items():
            could[name] += applies
            said[name] += applies and name in found
    expected = {name: getattr(rates, name) for name in PATTERNS}
    expected["other"] = 1 - (1 - rates.other) * (1 - rates.position)
    expected["sign"] = 1 - (1 - rates.other) * (1 - rates.text)
    for name, rate in expected.items():
        assert could[name] > 600, name
        assert binomtest(said[name], could[name], rate).pvalue > 0.001, (name, said[name], could[name], rate)


def test_facts_are_mentioned_independently_of_one_another():
    rng = random.Random(7)
    both = Counter()
    for facts in _facts(8, 3000):
        found = _mentioned(caption(facts, TOLD_ALL, rng), facts)
        both["viewpoint" in found, "presence" in found] += 1
    assert binomtest(both[True, True], 3000, 0.64).pvalue > 0.001


def test_permuted_is_biased_in_reverse_order():
    order = "orientation position text viewpoint structure state presence quantity color".split()
    assert [getattr(BIASED, name) for name in order] == sorted(getattr(BIASED, name) for name in PATTERNS)
    assert [getattr(PERMUTED, name) for name in order] == [getattr(BIASED, name) for name in reversed(order)]
    assert (PERMUTED.object, PERMUTED.other) == (BIASED.object, BIASED.other)


def test_biased_holds_the_rates_that_are_documented():
    assert {name: getattr(BIASED, name) for name in PATTERNS} == {
        "color": 0.6,
        "quantity": 0.25,
        "presence": 0.12,
        "state": 0.12,
        "structure": 0.06,
        "viewpoint": 0.06,
        "text": 0.04,
        "position": 0.03,
        "orientation": 0.03,
    }


def test_a_caption_that_mentions_nothing_names_the_object_alone():
    for facts in _facts(9, 200):
        said = caption(facts, SILENCE, random.Random(0))
        assert [claim[0] for claim in claims(said, facts.kind)] == ["object"], said


def test_captions_vary_in_words_and_order():
    facts = _facts(10, 4)[1]
    assert len({caption(facts, EVERYTHING, random.Random(seed)) for seed in range(60)}) > 50


def test_the_same_seed_says_the_same():
    for facts in _facts(11, 20):
        assert caption(facts, TOLD_ALL, random.Random(3)) == caption(facts, TOLD_ALL, random.Random(3))
        assert dense(facts, random.Random(3)) == dense(facts, random.Random(3))


@pytest.mark.parametrize("writer", ["told", "dense"])
def test_whoever_reads_the_whole_text_answers_every_question(writer):
    rng = random.Random(12)
    asked = Counter()
    for facts in [*_facts(13, 240), *map(_crowd, range(40))]:
        known = read(told(facts) if writer == "told" else dense(facts, rng))
        for question in questions(facts, rng):
            assert answer(known, question.text, question.options) == question.truth, (question, known)
            asked[question.pattern] += 1
    assert set(asked) == set(PATTERNS)


@pytest.mark.parametrize("writer", ["told", "dense"])
def test_a_text_of_the_changed_scene_answers_otherwise(writer):
    """The reader does not get its answers from elsewhere."""
    rng = random.Random(14)
    wrong = Counter()
    for facts in _facts(15, 160):
        for question in questions(facts, rng):
            if not can_change(facts, question.pattern):
                continue
            other = change(facts, question.pattern, rng)
            known = read(told(other) if writer == "told" else dense(other, rng))
            try:
                wrong[question.pattern] += answer(known, question.text, question.options) != question.truth
            except LookupError:
                wrong[question.pattern] += 1  # no option fits: the text told something else
    assert all(wrong[pattern] > 9 for pattern in PATTERNS), wrong


def test_dense_captions_name_every_part_that_is_there_in_60_words():
    rng = random.Random(16)
    for facts in [*_facts(17, 400), *map(_crowd, range(100))]:
        said = dense(facts, rng)
        assert len(said.split()) <= 60, said
        named = set(said.replace(",", "").replace(".", "").split())
        assert {part for part in KINDS[facts.kind].parts if part != facts.missing} <= named, said


def test_told_is_the_same_for_the_same_facts_and_differs_for_others():
    drawn = _facts(18, 300)
    assert [told(facts) for facts in drawn] == [told(facts) for facts in drawn]
    assert len({told(facts) for facts in drawn}) == len(set(drawn))


@pytest.mark.parametrize(("name", "rate"), [("color", 1.2), ("text", -0.1)])
def test_a_rate_outside_0_to_1_is_refused(name, rate):
    with pytest.raises(ValueError, match=f"{name} at a rate of {rate}"):
        replace(BIASED, **{name: rate})


def test_a_caption_always_names_its_object():
    with pytest.raises(ValueError, match=r"rate of object is 1, not 0\.5"):
        replace(BIASED, object=0.5)
