"""Prompts, letter for letter."""

from pathlib import Path

import pytest

from eyechart.core.errors import UserError
from eyechart.core.records import Item
from eyechart.score import LABEL_STYLES, TEMPLATES, build_prompt, read_choice


def item(*options: str) -> Item:
    return Item(
        id="1",
        pair_id="1",
        question="How many cup(s)?",
        options=options,
        answer=0,
        image=Path("1.jpg"),
        image_sha256="0",
    )


def test_the_letter_prompt_is_that_of_llava():
    asked = build_prompt(item("One", "Two"))
    assert asked.text == (
        "How many cup(s)?\nA. One\nB. Two\nAnswer with the option's letter from the given choices directly."
    )
    assert asked.labels == ("A", "B")


def test_the_free_form_is_that_of_mmvps_script():
    asked = build_prompt(item("One", "Two"), "mmvp")
    assert asked.text == "How many cup(s)? (a) One (b) Two"
    assert asked.labels == ("a", "b")


def test_numbers_replace_letters_everywhere():
    asked = build_prompt(item("One", "Two"), "number")
    assert asked.text == (
        "How many cup(s)?\n(1) One\n(2) Two\nAnswer with the option's number from the given choices directly."
    )
    assert (
        build_prompt(item("One", "Two"), "mmvp", labels="numbers").text == "How many cup(s)? (1) One (2) Two"
    )


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("count", [2, 3, 26])
def test_every_template_shows_every_option_once_with_a_label_that_is_read_back(template, count):
    options = [f"thing-{chr(97 + place) * 3}" for place in range(count)]
    asked = build_prompt(item(*options), template)
    assert len(asked.labels) == len(set(asked.labels)) == count
    for place, (label, option) in enumerate(zip(asked.labels, options, strict=True)):
        assert asked.text.count(option) == 1
        assert read_choice(label, options, asked.labels) == place


def test_what_there_is_not_is_named():
    with pytest.raises(UserError, match=r"no prompt template named 'leter'\. Did you mean 'letter'"):
        build_prompt(item("One", "Two"), "leter")
    with pytest.raises(UserError, match=r"no label style named 'uper'\. Did you mean 'upper'"):
        build_prompt(item("One", "Two"), labels="uper")
    with pytest.raises(UserError, match="27 options, but only 26 labels"):
        build_prompt(item(*map(str, range(27))))
    with pytest.raises(UserError, match="template 'letter' asks for the option's letter; labels 'numbers'"):
        build_prompt(item("One", "Two"), "letter", labels="numbers")


def test_label_styles_bear_their_form():
    assert {name: style.form.format(style.symbols[1]) for name, style in LABEL_STYLES.items()} == {
        "upper": "B.",
        "bracketed": "(b)",
        "numbers": "(2)",
    }
