"""Pascal-Part: MATLAB annotations, later objects over earlier ones."""

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from eyechart.locate.part_images import open_parts
from part_makers import box, mat_file, photo, same, seen

LEFT, RIGHT, TAIL = box(0, 0, 2, 2), box(0, 4, 2, 6), box(5, 5, 9, 12)
WHOLE = LEFT | RIGHT | TAIL


def folder(tmp_path, objects, *, name="a"):
    mat_file(tmp_path / "Annotations_Part" / f"{name}.mat", objects)
    photo(tmp_path / "JPEGImages" / f"{name}.jpg")
    return tmp_path


def test_the_annotations_of_these_tests_have_pascal_parts_shape(tmp_path):
    """Field by field as in the published files."""
    path = mat_file(
        tmp_path / "a.mat", [("cat", WHOLE, [("lear", LEFT), ("tail", TAIL)]), ("boat", TAIL, [])]
    )
    anno = loadmat(path)["anno"][0, 0]
    assert anno["imname"][0] == "a"
    assert anno["objects"].shape == (1, 2)
    first, second = anno["objects"][0]
    assert first["class"][0] == "cat"
    assert first["mask"].dtype == np.uint8
    assert first["parts"].shape == (1, 2)
    assert first["parts"][0, 1]["part_name"][0] == "tail"
    assert second["parts"].size == 0


def test_parts_come_out_under_their_words(tmp_path):
    root = folder(tmp_path, [("cat", WHOLE, [("lear", LEFT), ("rear", RIGHT), ("tail", TAIL)])])
    same(seen(open_parts(root).images[0]), {("cat", 1, "ear"): LEFT | RIGHT, ("cat", 1, "tail"): TAIL})
    same(
        seen(open_parts(root, words="full").images[0]),
        {("cat", 1, "left ear"): LEFT, ("cat", 1, "right ear"): RIGHT, ("cat", 1, "tail"): TAIL},
    )


def test_numbered_parts_are_one_part_and_objects_are_counted(tmp_path):
    objects = [
        ("boat", box(8, 0, 9, 1), []),
        ("car", LEFT | RIGHT, [("wheel_1", LEFT), ("wheel_2", RIGHT)]),
        ("tvmonitor", TAIL, [("screen", TAIL)]),
    ]
    found = open_parts(folder(tmp_path, objects), words="full").images[0]
    same(seen(found), {("car", 2, "wheel"): LEFT | RIGHT, ("tv monitor", 3, "screen"): TAIL})


def test_later_objects_cover_earlier_ones(tmp_path):
    over = box(5, 5, 9, 8)
    objects = [("cat", TAIL, [("tail", TAIL)]), ("person", over, [("lhand", over)])]
    found = open_parts(folder(tmp_path, objects)).images[0]
    same(seen(found), {("cat", 1, "tail"): TAIL & ~over, ("person", 2, "hand"): over})


def test_a_part_that_is_covered_whole_is_listed(tmp_path):
    objects = [("cat", WHOLE, [("tail", TAIL), ("lear", LEFT)]), ("boat", TAIL, [])]
    found = open_parts(folder(tmp_path, objects))
    same(seen(found.images[0]), {("cat", 1, "ear"): LEFT})
    assert [(one.reason, one.detail) for one in found.quarantined] == [
        ("empty_mask", "picture a: cat 1, tail")
    ]


def test_codes_that_are_not_in_the_tables_are_listed_by_name(tmp_path):
    found = open_parts(
        folder(tmp_path, [("cat", WHOLE, [("wing", LEFT), ("tail", TAIL)]), ("yak", LEFT, [("tail", LEFT)])])
    )
    assert [one.part for one in found.images[0].parts] == ["tail"]
    assert [one.reason for one in found.quarantined] == ["unknown_code", "unknown_code"]
    assert "object 1 is a 'cat' and has a part 'wing'" in found.quarantined[0].detail
    assert "object 2 is a 'yak' and has a part 'tail'" in found.quarantined[1].detail


def test_a_mask_of_another_size_is_listed(tmp_path):
    small = np.ones((3, 3), bool)
    found = open_parts(folder(tmp_path, [("cat", WHOLE, [("tail", small), ("lear", LEFT)])]))
    assert [one.reason for one in found.quarantined] == ["size_mismatch"]
    assert [one.part for one in found.images[0].parts] == ["ear"]


def test_an_object_without_parts_may_have_an_empty_matrix_of_them(tmp_path):
    """As MATLAB writes `parts = []`."""
    rows = np.zeros((1, 2), [("class", object), ("mask", object), ("parts", object)])
    marked = np.zeros((1, 1), [("part_name", object), ("mask", object)])
    marked[0, 0] = ("tail", TAIL.astype(np.uint8))
    rows[0, 0], rows[0, 1] = (
        ("boat", LEFT.astype(np.uint8), np.zeros((0, 0))),
        ("cat", TAIL.astype(np.uint8), marked),
    )
    (tmp_path / "Annotations_Part").mkdir()
    savemat(tmp_path / "Annotations_Part/a.mat", {"anno": {"imname": "a", "objects": rows}})
    photo(tmp_path / "JPEGImages/a.jpg")
    same(seen(open_parts(tmp_path).images[0]), {("cat", 2, "tail"): TAIL})


@pytest.mark.parametrize("kind", ["text", "cut", "flipped", "other", "empty", "no mask"])
def test_what_is_no_annotation_is_listed(tmp_path, kind):
    root = folder(tmp_path, [("cat", WHOLE, [("tail", TAIL)])])
    path = folder(tmp_path, [("cat", WHOLE, [("tail", TAIL)])], name="b") / "Annotations_Part/b.mat"
    data = path.read_bytes()
    if kind == "text":
        path.write_text("not MATLAB" * 30)
    elif kind == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "flipped":
        path.write_bytes(data[:160] + bytes(byte ^ 255 for byte in data[160:180]) + data[180:])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "other":
        savemat(path, {"something": np.zeros(3)})
    else:
        savemat(path, {"anno": {"imname": "b", "objects": {"class": "cat", "mask": 3.0, "parts": []}}})
    found = open_parts(root)
    assert found.images.ids == ("a",)
    if kind == "no mask":  # a number is a mask of one pixel for MATLAB, and marks no part
        assert found.notes == ("1 pictures have no part marked and are not in the set",)
    else:
        assert [(one.path, one.reason) for one in found.quarantined] == [(str(path), "bad_annotation")]
