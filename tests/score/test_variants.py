"""The same items put in other ways: what is shown, in which order, and what becomes of the reply."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.core.records import Benchmark, Item, Outcome
from eyechart.score.variants import (
    CHANGES,
    GREY,
    SHOWN,
    Asked,
    Variant,
    changed,
    graded_of,
    put,
    sample_row,
)


def item(name: str, answer: int, image: Path, options=("Yes", "No"), pair: str = "p") -> Item:
    return Item(
        id=name,
        pair_id=pair,
        question="Is it red?",
        options=options,
        answer=answer,
        image=image,
        image_sha256=name,
    )


@pytest.fixture
def benchmark(tmp_path) -> Benchmark:
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{name}.png" for name in "ab"]
    for path, color in zip(paths, ("red", "blue"), strict=True):
        Image.new("RGB", (40, 20), color).save(path)
    items = (item("a", 0, paths[0]), item("b", 1, paths[1]))
    return Benchmark(name="set", source=str(tmp_path), sha256="0", items=items, in_source=2)


def only(benchmark: Benchmark, **variant) -> Asked:
    return put(benchmark, Variant(**variant))[0]


def test_the_base_variant_is_the_plain_prompt(benchmark):
    asked = only(benchmark)
    assert asked.text.startswith("Is it red?\nA. Yes\nB. No\n")
    assert (asked.labels, asked.order, asked.target) == (("A", "B"), (0, 1), "A")
    (picture,) = asked.prompt().images
    assert picture.getpixel((0, 0)) == (255, 0, 0)


def test_swapped_options_are_read_in_their_own_places(benchmark):
    asked = only(benchmark, order="swapped")
    assert asked.text.startswith("Is it red?\nA. No\nB. Yes\n")
    assert asked.target == "B"
    graded = asked.graded("B")
    assert (graded.choice, graded.outcome) == (0, Outcome.RIGHT)
    assert asked.graded("No").choice == 1
    assert asked.graded("who knows").choice is None
    scores = asked.graded_scores([0.25, 0.75])
    assert (scores.choice, scores.option_scores, scores.reply) == (0, (0.75, 0.25), "B")


@given(scores=st.lists(st.floats(-50, 0), min_size=2, max_size=6, unique=True), answer=st.integers(0, 5))
def test_whatever_the_order_the_best_option_is_chosen_and_the_log_gives_the_record_back(scores, answer):
    options = tuple(f"thing {place}" for place in range(len(scores)))
    own = item("a", answer % len(scores), Path("a.png"), options)
    benchmark = Benchmark(name="set", source="", sha256="0", items=(own,), in_source=1)
    for order in ("original", "swapped"):
        asked = only(benchmark, order=order)
        graded = asked.graded_scores([scores[place] for place in asked.order])
        assert graded.choice == int(np.argmax(scores))
        assert graded.option_scores == tuple(scores)
        assert (graded.outcome is Outcome.RIGHT) == (graded.choice == own.answer)
        row = json.loads(json.dumps(sample_row(asked, graded)))
        assert graded_of(row) == graded
        assert row["answer"] == own.answer
        assert row["right"] == int(row["target"] == row["filtered_resps"][0])


def test_controls_show_what_they_say(benchmark):
    assert only(benchmark, show="none").prompt().images == ()
    (blank,) = only(benchmark, show="blank").prompt().images
    assert (blank.size, blank.getcolors()) == ((40, 20), [(800, GREY)])
    (other,) = only(benchmark, show="other").prompt().images
    assert other.getpixel((0, 0)) == (0, 0, 255)
    assert only(benchmark, show="other").target == "A"  # its own answer still
    assert put(benchmark, Variant(show="other"))[1].prompt().images[0].getpixel((0, 0)) == (255, 0, 0)


def test_a_picture_is_brought_to_a_side_and_keeps_its_shape(benchmark):
    (small,) = only(benchmark, side=10).prompt().images
    assert small.size == (10, 5)
    (large,) = only(benchmark, side=80, show="blank").prompt().images
    assert (large.size, large.getpixel((1, 1))) == ((80, 40), GREY)


def test_a_scene_can_be_told_in_words_where_it_is_known(benchmark, tmp_path):
    with pytest.raises(UserError, match=r"set has no facts\.jsonl"):
        put(benchmark, Variant(show="told"))
    facts = tmp_path / "facts.jsonl"
    facts.write_text(json.dumps({"id": "a", "told": "The ball is red."}) + "\n")
    with pytest.raises(UserError, match="tells nothing of items b"):
        put(benchmark, Variant(show="told"))
    with facts.open("a") as handle:
        handle.write(json.dumps({"id": "b", "told": "The ball is blue."}) + "\n")
    asked = only(benchmark, show="told")
    assert asked.prompt().images == ()
    assert asked.text.startswith("The ball is red.\nIs it red?\nA. Yes")


def test_the_other_picture_needs_pairs(benchmark):
    odd = Benchmark(name="set", source="", sha256="0", items=benchmark.items[:1], in_source=1)
    with pytest.raises(UserError, match="set is not in pairs"):
        put(odd, Variant(show="other"))


def test_changes_change_one_thing_each():
    base = Variant()
    for name in CHANGES:
        if name == "letter":
            continue
        made = changed(base, name)
        assert made != base
        assert made.name() != "base"
    assert len({changed(base, name) for name in CHANGES if name != "letter"}) == len(CHANGES) - 1
    assert changed(base, "side=48").side == 48
    assert changed(base, "numbers").template == "number"
    assert changed(Variant(template="mmvp"), "letter") == base
    assert {name for name in SHOWN if name != "image"} <= set(CHANGES)


@pytest.mark.parametrize(
    ("change", "message"),
    [("swaped", "Did you mean 'swapped'"), ("letter", "changes nothing"), ("side=2", "give 8 or more")],
)
def test_what_is_no_change_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        changed(Variant(), change)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"template": "leter"}, "prompt template"),
        ({"labels": "uper"}, "label style"),
    ],
)
def test_what_there_is_not_is_named(field, message):
    with pytest.raises(UserError, match=message):
        Variant(**field)
