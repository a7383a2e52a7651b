"""PASCAL Panoptic Parts: every number means what its specification says."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from eyechart.locate.part_images import open_parts
from eyechart.locate.part_names import CLASSES, CODES, PART_IDS
from eyechart.locate.parts_ppp import decoded
from part_makers import box, photo, ppp_folder, same, seen, uid_map


@pytest.mark.parametrize(
    ("uid", "wanted"),
    [
        (0, (0, None, None)),
        (1, (1, None, None)),
        (12, (12, None, None)),
        (1234, (1, 234, None)),
        (12345, (12, 345, None)),
        (123456, (1, 234, 56)),
        (1234567, (12, 345, 67)),
        (2401002, (24, 10, 2)),
        (100000, (1, 0, 0)),
        (9999999, (99, 999, 99)),
        (123, None),
        (999, None),
        (-1, None),
        (10000000, None),
    ],
)
def test_numbers_are_taken_apart_as_the_format_says(uid, wanted):
    """The examples of the format's own text and code among them."""
    assert decoded(uid) == wanted


@given(st.integers(1, 99), st.integers(0, 999), st.integers(0, 99))
def test_what_is_put_together_comes_apart(semantic, instance, part):
    """By digits, not by arithmetic."""
    assert decoded(int(f"{semantic}{instance:03d}{part:02d}")) == (semantic, instance, part)
    assert decoded(int(f"{semantic}{instance:03d}")) == (semantic, instance, None)


def test_parts_come_out_folded_by_object(tmp_path):
    ear, other, tail = box(0, 0, 2, 2), box(0, 4, 2, 6), box(5, 5, 9, 12)
    # cat is class 8: left ear 4, right ear 5, tail 17; instance 3 and instance 12.
    values = uid_map((800304, ear), (800305, other), (801217, tail))
    root = ppp_folder(tmp_path, {"a": values})
    same(seen(open_parts(root).images[0]), {("cat", 3, "ear"): ear | other, ("cat", 12, "tail"): tail})
    same(
        seen(open_parts(root, words="full").images[0]),
        {("cat", 3, "left ear"): ear, ("cat", 3, "right ear"): other, ("cat", 12, "tail"): tail},
    )
    same(
        seen(open_parts(root, words="code").images[0]),
        {("cat", 3, "lear"): ear, ("cat", 3, "rear"): other, ("cat", 12, "tail"): tail},
    )


def test_repeated_parts_are_one_part(tmp_path):
    first, second = box(0, 0, 2, 2), box(4, 4, 6, 6)
    root = ppp_folder(tmp_path, {"a": uid_map((700120, first), (700129, second), (700130, box(8, 8, 9, 9)))})
    same(
        seen(open_parts(root, words="full").images[0]),
        {("car", 1, "wheel"): first | second, ("car", 1, "headlight"): box(8, 8, 9, 9)},
    )


def test_objects_without_part_stuff_and_void_are_no_parts(tmp_path):
    # whole cat, cat instance, cat void part, boat instance, grass
    marks = [
        (8, box(0, 0, 1, 1)),
        (8001, box(1, 0, 2, 1)),
        (800100, box(2, 0, 3, 1)),
        (4001, box(3, 0, 4, 1)),
    ]
    values = uid_map(*marks, (53, box(4, 0, 5, 1)), (800117, box(5, 0, 6, 1)))
    found = open_parts(ppp_folder(tmp_path, {"a": values}))
    same(seen(found.images[0]), {("cat", 1, "tail"): box(5, 0, 6, 1)})
    assert found.quarantined == ()


def test_numbers_that_mean_nothing_are_listed_with_what_they_say(tmp_path):
    marks = [(800118, 0), (400101, 1), (5300101, 2), (200107, 3), (123, 4), (800117, 5)]
    found = open_parts(
        ppp_folder(tmp_path, {"a": uid_map(*((uid, box(row, 0, row + 1, 2)) for uid, row in marks))})
    )
    assert [one.part for one in found.images[0].parts] == ["tail"]
    assert {one.reason for one in found.quarantined} == {"unknown_code"}
    said = " | ".join(one.detail for one in found.quarantined)
    assert "800118 is part 18 of cat, which has 17" in said
    assert "400101 is part 1 of boat, which has 0" in said
    assert "5300101 is part 1 of class 53" in said
    assert "200107 is part 7 of bicycle, which has 6" in said
    assert "123 is none of the format" in said


def test_every_part_there_is_comes_out_under_its_code(tmp_path):
    """All 345 part ids in one picture, a pixel each."""
    listed = [
        (semantic, name, number, code)
        for semantic, name in enumerate(CLASSES, start=1)
        for number, code in enumerate(PART_IDS.get(name, ()), start=1)
    ]
    values = np.array([[int(f"{semantic}001{number:02d}") for semantic, _, number, _ in listed]], np.int32)
    found = open_parts(ppp_folder(tmp_path, {"a": values}), words="code").images[0]
    wanted = {}
    for place, (_, name, _, code) in enumerate(listed):
        wanted.setdefault((name, 1, code), np.zeros(values.shape, bool))[0, place] = True
    same(seen(found), wanted)
    assert len(wanted) == sum(map(len, CODES.values())) == 194


def test_tiffs_may_lie_in_the_folder_itself_and_pngs_be_coloured(tmp_path):
    values = uid_map((1500203, box(0, 0, 4, 4)))
    (tmp_path / "flat").mkdir()
    Image.fromarray(values).save(tmp_path / "flat/a.tif")
    photo(tmp_path / "flat/images/a.jpg")
    (tmp_path / "png/labels").mkdir(parents=True)
    rgb = np.stack([values % 256, values // 256 % 256, values // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "png/labels/a.png")
    photo(tmp_path / "png/images/a.jpg")
    for found in (open_parts(tmp_path / "flat"), open_parts(tmp_path / "png", layout="panoptic-parts")):
        same(seen(found.images[0]), {("person", 2, "eye"): box(0, 0, 4, 4)})


def test_masks_of_another_size_and_broken_ones_are_listed(tmp_path):
    root = ppp_folder(tmp_path, {name: uid_map((800117, box(0, 0, 4, 4))) for name in "abc"})
    photo(root / "JPEGImages/b.jpg", 9, 12)
    (root / "labels/validation/c.tif").write_bytes(b"II*\0 cut")
    found = open_parts(root)
    assert found.images.ids == ("a",)
    assert [one.reason for one in found.quarantined] == ["size_mismatch", "damaged"]
