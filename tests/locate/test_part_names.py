"""The tables of part codes: complete, without a guess, and as the data sets number them."""

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from eyechart.locate.part_names import CLASSES, CODES, COUNTED, PART_IDS, WORDS, object_word, part_word

# Counts of the parts of each object, as PASCAL Panoptic Parts publishes them.
PUBLISHED = {
    "person": 24, "horse": 21, "cow": 19, "sheep": 19, "dog": 18, "cat": 17, "bird": 13, "bus": 13, "car": 13, "train": 13,
    "aeroplane": 7, "bicycle": 6, "motorbike": 5, "bottle": 2, "pottedplant": 2, "tvmonitor": 2,
}  # fmt: skip

# Ids of repeated parts, as the data set's specification lists them: (object, code): (first id, last id).
REPEATED = {
    ("aeroplane", "engine"): (6, 15), ("aeroplane", "wheel"): (16, 25),
    ("bus", "door"): (10, 19), ("bus", "wheel"): (20, 29), ("bus", "headlight"): (30, 39), ("bus", "window"): (40, 59),
    ("car", "door"): (10, 19), ("car", "wheel"): (20, 29), ("car", "headlight"): (30, 39), ("car", "window"): (40, 59),
    ("motorbike", "headlight"): (5, 14),
    ("train", "headlight"): (7, 16), ("train", "coach"): (17, 26), ("train", "cfrontside"): (27, 36),
    ("train", "cleftside"): (37, 46), ("train", "crightside"): (47, 56), ("train", "cbackside"): (57, 66),
    ("train", "croofside"): (67, 76),
}  # fmt: skip

EVERY = [(name, code) for name, codes in CODES.items() for code in codes]


def test_there_are_194_parts_of_90_codes():
    assert {name: len(codes) for name, codes in CODES.items()} == PUBLISHED
    assert len(EVERY) == 194
    assert len({code for _, code in EVERY}) == 90
    assert len(CLASSES) == 20
    assert set(CODES) <= set(CLASSES)


def test_the_words_are_those_of_the_codes_and_no_more():
    assert set(WORDS) == {code for _, code in EVERY}


def test_repeated_parts_have_the_published_ids():
    seen = {}
    for name, codes in PART_IDS.items():
        for code in set(codes):
            ids = [number for number, one in enumerate(codes, start=1) if one == code]
            if len(ids) > 1:
                assert ids == list(range(ids[0], ids[-1] + 1))
                seen[name, code] = ids[0], ids[-1]
    assert seen == REPEATED


@pytest.mark.parametrize(
    ("name", "number", "code"),
    [("cat", 17, "tail"), ("dog", 18, "muzzle"), ("horse", 10, "rbho"), ("person", 24, "rfoot"), ("car", 8, "fliplate"),
     ("bird", 9, "lleg"), ("cow", 11, "lfuleg"), ("train", 1, "head"), ("tvmonitor", 2, "frame")],
)  # fmt: skip
def test_single_ids(name, number, code):
    assert PART_IDS[name][number - 1] == code


@pytest.mark.parametrize(
    ("name", "code", "full", "folded"),
    [
        ("cat", "rear", "right ear", "ear"),
        ("cat", "lear", "left ear", "ear"),
        ("bird", "lleg", "left leg", "leg"),
        ("person", "llleg", "left lower leg", "leg"),
        ("person", "luleg", "left upper leg", "leg"),
        ("person", "llarm", "left lower arm", "arm"),
        ("dog", "lfleg", "left front leg", "leg"),
        ("dog", "rbpa", "right back paw", "paw"),
        ("horse", "lfho", "left front hoof", "hoof"),
        ("cow", "rblleg", "right back lower leg", "leg"),
        ("person", "lebrow", "left eyebrow", "eyebrow"),
        ("bus", "fliplate", "front license plate", "plate"),
        ("train", "head", "head car", "head"),
        ("cat", "head", "head", "head"),
        ("train", "hleftside", "left side of the head car", "side"),
        ("train", "cleftside_3", "left side of a coach", "side"),
        ("car", "wheel_2", "wheel", "wheel"),
        ("aeroplane", "stern", "stern", "stern"),
        ("bicycle", "headlight_1", "headlight", "headlight"),
    ],
)
def test_what_codes_mean(name, code, full, folded):
    assert part_word(name, code, "full") == full
    assert part_word(name, code, "folded") == folded


@pytest.mark.parametrize(
    ("name", "code"),
    [("person", "lleg"), ("bird", "llleg"), ("boat", "stern"), ("dragon", "tail"), ("cat", "wing"), ("cat", "tail_1"),
     ("car", "wheel_"), ("car", "wheel_x"), ("car", "wheel_٣"), ("car", "_2"), ("cat", ""), ("", "")],
)  # fmt: skip
def test_what_the_tables_do_not_have_is_never_guessed(name, code):
    assert part_word(name, code, "folded") is None


@pytest.mark.parametrize(("name", "code"), EVERY)
def test_sides_are_said_in_full_and_left_out_when_folded(name, code):
    full, folded = part_word(name, code, "full"), part_word(name, code, "folded")
    assert folded is not None
    assert folded.split() == [folded]
    assert not {"left", "right"} & {folded}
    sided = code[0] in "lr" and code not in ("legs", "roofside") and WORDS[code].full != code
    if sided:
        assert full.split()[0] == {"l": "left", "r": "right"}[code[0]]


def test_no_two_codes_of_one_object_have_the_same_full_words():
    for name, codes in CODES.items():
        said = [part_word(name, code, "full") for code in codes]
        assert len(set(said)) == len(said), name


def test_objects_are_called_by_words():
    assert object_word("tvmonitor", "folded") == "tv monitor"
    assert object_word("pottedplant", "full") == "potted plant"
    assert object_word("tvmonitor", "code") == "tvmonitor"
    assert object_word("cat", "folded") == "cat"


@given(st.sampled_from(EVERY), st.integers(1, 99))
def test_a_number_behind_a_counted_code_changes_nothing(pair, number):
    name, code = pair
    numbered = part_word(name, f"{code}_{number}", "code")
    assert numbered == (code if code in COUNTED else None)


def test_the_docs_show_the_tables():
    page = (Path(__file__).parents[2] / "docs" / "parts.md").read_text("utf8")
    shown = set()
    for line in page.partition("## Codes")[2].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`") and cells[0] != "`full`":
            shown |= {(name, cells[0].strip("`"), cells[1], cells[2]) for name in cells[3].split(", ")}
    assert shown == {
        (name, code, part_word(name, code, "full"), part_word(name, code, "folded")) for name, code in EVERY
    }
