"""Index pictures and their tables: numbers become parts, and numbers nobody named are listed."""

import json

import numpy as np
import pytest
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.locate.part_images import open_parts
from eyechart.locate.parts_index import read_labels
from part_makers import box, index_folder, photo, same, seen

FIRST, SECOND, THIRD = box(0, 0, 2, 2), box(4, 4, 6, 6), box(7, 0, 9, 12)
VALUES = FIRST * 1 + SECOND * 2 + THIRD * 9

JSON = json.dumps({"0": None, "1": "cat:tail", "2": ["dog", "left ear"], "3": {"object": "cat", "part": "head"}, "4": "shoes",
                   "5": "void", "6": ["cat", None], "7": "Background"})  # fmt: skip
YAML = """
0: null
1: "cat:tail"
2: [dog, left ear]
3: {object: cat, part: head}
4: shoes
5: void
6: [cat, null]
7: Background
"""
CSV_ONE = "number,label\n0,\n1,cat:tail\n2,dog/left ear\n3,cat:head\n4,shoes\n5,void\n6,null\n7,Background\n"
CSV_TWO = "number, object, part\n0,,\n1,cat,tail\n2,dog,left ear\n3,cat,head\n4,shoes,shoes\n5,,void\n6,cat,\n7,,Background\n"
WANTED = {0: None, 1: ("cat", "tail"), 2: ("dog", "left ear"), 3: ("cat", "head"), 4: ("shoes", "shoes"), 5: None, 6: None,
          7: None}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", JSON), ("a.yaml", YAML), ("a.yml", YAML), ("a.csv", CSV_ONE), ("b.csv", CSV_TWO)],
)
def test_tables_of_every_kind_say_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_labels(tmp_path / name) == WANTED


def test_plain_words_are_parts_of_an_object_that_is_named(tmp_path):
    (tmp_path / "a.json").write_text(JSON)
    assert read_labels(tmp_path / "a.json", "person") == {**WANTED, 4: ("person", "shoes")}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", "{", "no table of labels"),
        ("a.json", '["cat:tail"]', "not a mapping"),
        ("a.json", '{"one": "cat:tail"}', "no table of labels"),
        ("a.json", '{"1": "cat:tail", "1": "dog:tail"}', "the number 1 stands there twice"),
        ("a.json", "{}", "has no labels"),
        ("a.json", '{"1": ["a", "b", "c"]}', "no table of labels"),
        ("a.json", '{"1": {"part": "tail"}}', "no table of labels"),
        ("a.yaml", "1: cat:tail\n01: dog:tail\n", "the number 1 stands there twice"),
        ("a.yaml", "- x\n", "not a mapping"),
        ("a.yaml", "", "not a mapping"),
        ("a.yaml", "a: [", "no table of labels"),
        ("a.csv", "id,name\n1,x\n", "columns id, name"),
        ("a.csv", "number,label\nx,y\n", "no table of labels"),
        ("a.txt", "1 x", "end in .json, .yaml, .yml, .csv"),
        ("a.json", b"\xff\xfe", "no table of labels"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, text, says):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=says):
        read_labels(tmp_path / name)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no table of labels"):
        read_labels(tmp_path / "none.json")


def test_numbers_become_parts_and_unnamed_ones_are_listed(tmp_path):
    root = index_folder(tmp_path, {"i": VALUES}, {"1": "cat:tail", "2": "dog:ear"})
    found = open_parts(root)
    same(seen(found.images[0]), {("cat", 1, "tail"): FIRST, ("dog", 1, "ear"): SECOND})
    assert [(one.reason, one.detail) for one in found.quarantined] == [
        ("unknown_code", "the number 9 is not in the table")
    ]


def test_zero_is_a_part_where_the_table_says_so(tmp_path):
    root = index_folder(tmp_path, {"i": VALUES}, {"0": "world:sky", "1": "none", "2": "none", "9": "none"})
    same(seen(open_parts(root).images[0]), {("world", 1, "sky"): VALUES == 0})


def test_two_numbers_of_one_name_are_one_part(tmp_path):
    root = index_folder(tmp_path, {"i": VALUES}, {"1": "cat:ear", "2": "cat:ear", "9": "void"})
    same(seen(open_parts(root).images[0]), {("cat", 1, "ear"): FIRST | SECOND})


def test_a_second_picture_numbers_the_objects(tmp_path):
    root = index_folder(tmp_path, {"i": (FIRST | SECOND) * 1}, {"1": "cat:tail"})
    (root / "instances").mkdir()
    Image.fromarray((FIRST * 4 + SECOND * 6).astype(np.uint8)).save(root / "instances/i.png")
    same(seen(open_parts(root).images[0]), {("cat", 4, "tail"): FIRST, ("cat", 6, "tail"): SECOND})
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / "instances/i.png")
    with pytest.raises(UserError, match="picture and mask are not of one size"):
        open_parts(root)


def test_a_table_elsewhere_is_named(tmp_path):
    root = index_folder(tmp_path / "set", {"i": VALUES}, {})
    (root / "labels.json").unlink()
    (tmp_path / "names.csv").write_text("number,object,part\n1,cat,tail\n2,,void\n9,,void\n")
    found = open_parts(root, layout="index", labels=tmp_path / "names.csv")
    same(seen(found.images[0]), {("cat", 1, "tail"): FIRST})


def test_masks_in_colour_or_of_another_size_are_listed(tmp_path):
    root = index_folder(
        tmp_path, {"i": VALUES, "j": VALUES, "k": VALUES}, {"1": "cat:tail", "2": "void", "9": "void"}
    )
    Image.fromarray(VALUES.astype(np.uint8)).convert("RGB").save(root / "masks/j.png")
    photo(root / "images/k.jpg", 13, 9)
    found = open_parts(root)
    assert found.images.ids == ("i",)
    assert [one.reason for one in found.quarantined] == ["unsupported", "size_mismatch"]


@pytest.mark.slow
def test_clothes_on_photographs(shared_data):
    """Real masks: every labelled pixel comes out under its label, counted from the raw files."""
    root = shared_data / "clothing-co-parsing"
    names = json.loads((root / "labels.json").read_text("utf8"))
    found = open_parts(root, object_name="person", limit=5)
    assert found.quarantined == ()
    assert len(found.images) == 5
    for image in found.images:
        raw = np.asarray(Image.open(root / "masks" / f"{image.id}.png"))
        wanted = {("person", 1, names[str(value)]): raw == value for value in np.unique(raw) if value}
        same(seen(image), wanted)
        assert image.image.name == f"{image.id}.jpg"
