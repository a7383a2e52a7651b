"""Numbers and texts as the page writes them."""

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.stats import Rate as Computed
from eyechart.report import words
from eyechart.report.reading import Rate


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(words).failed == 0


@settings(max_examples=50)
@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 10**7),
    st.sampled_from([0.95, 0.9, 0.999]),
)
def test_a_rate_reads_as_the_statistics_write_it(value, low, high, n, level):
    fields = {"value": value, "low": low, "high": high, "hits": 0, "n": n, "level": level}
    assert words.rate_text(Rate(**fields)) == str(Computed(**fields))


@pytest.mark.parametrize(
    ("share", "text"), [(0.25, "25%"), (1 / 3, "33.3%"), (0.0, "0%"), (1.0, "100%"), (0.07, "7%")]
)
def test_a_chance_level_has_no_needless_decimals(share, text):
    assert words.percent(share) == text


@pytest.mark.parametrize(("p", "text"), [(0.0412, "p = 0.041"), (0.00099, "p < 0.001"), (1.0, "p = 1.000")])
def test_p_values_never_read_as_nought(p, text):
    assert words.p_text(p) == text


@settings(max_examples=100)
@given(st.text(max_size=60), st.integers(1, 20), st.integers(20, 40))
def test_a_cut_text_begins_as_the_text_does_and_counts_what_it_left_out(text, shown, kept):
    cut = words.clipped(text, shown=shown, kept=kept)
    assert text.startswith(cut.whole.removesuffix("…") if cut.left_out else cut.whole)
    assert cut.left_out == max(0, len(text) - kept)
    assert len(cut.shown) <= shown + 1
    assert cut.is_cut == (cut.shown != cut.whole)
    if len(text) <= shown:
        assert cut.shown == cut.whole == text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("org/name", "org/name"),
        ("/a/b/tiny-llava", "tiny-llava"),
        ("./tiny", "tiny"),
        ("C:\\models\\tiny", "tiny"),
        ("a/b/c", "c"),
        ("/", "/"),
        ("zoo:llava", "zoo:llava"),
    ],
)
def test_a_path_is_shown_by_its_last_part_and_a_hub_id_whole(given, shown):
    assert words.short_name(given) == shown


@pytest.mark.parametrize(
    ("text", "yes"), [("ab" * 20, True), ("AB" * 32, True), ("abc", False), ("x" * 40, False)]
)
def test_long_hexadecimal_texts_are_hashes(text, yes):
    assert words.is_hash(text) is yes


@pytest.mark.parametrize(
    ("text", "ended"), [("no", "no."), ("no.", "no."), ("why? ", "why?"), ("so…", "so…")]
)
def test_a_sentence_ends_once(text, ended):
    assert words.sentence(text) == ended


def test_labels_run_on_after_the_alphabet():
    assert words.labels_like("a", 28)[-3:] == ["z", "27", "28"]


def test_a_nested_record_becomes_lines():
    record = {"git": {"commit": "abc", "dirty": False}, "seed": 0, "gone": None, "command": ["a", 1]}
    assert words.flat(record) == [
        ("git commit", "abc"),
        ("git dirty", "no"),
        ("seed", "0"),
        ("command", "a 1"),
    ]


def test_control_characters_and_half_characters_are_made_visible():
    assert words.printable("a\x00b\x7f\x9f\ud800\n\tz🍵") == "a\ufffdb\ufffd\ufffd?\n\tz🍵"
