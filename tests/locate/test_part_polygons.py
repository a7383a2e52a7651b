"""COCO-style files: names of parts, objects that belong together, polygons and run lengths, and what is wrong with them."""

import json

import numpy as np
import pytest

from eyechart.core.errors import UserError
from eyechart.locate.part_images import open_parts
from part_makers import box, coco_file, photo, same, seen

PICTURE = {"id": 7, "file_name": "c.jpg", "width": 12, "height": 9}


def outline(top, left, bottom, right):
    return [left, top, right, top, right, bottom, left, bottom]


def mark(number, category, *boxes, **more):
    return {
        "id": number,
        "image_id": 7,
        "category_id": category,
        "segmentation": [outline(*one) for one in boxes],
        **more,
    }


def folder(tmp_path, categories, annotations, *, images=(PICTURE,)):
    coco_file(tmp_path / "parts.json", images=list(images), categories=categories, annotations=annotations)
    photo(tmp_path / "images/c.jpg")
    return tmp_path


def named(*names):
    return [{"id": number, "name": name} for number, name in enumerate(names, start=1)]


@pytest.mark.parametrize("mark_between", [":", "/"])
def test_object_and_part_stand_in_the_categorys_name(tmp_path, mark_between):
    root = folder(tmp_path, named(f"cat{mark_between}tail", f"cat{mark_between}inner ear"), [
        mark(1, 1, (0, 0, 2, 3)), mark(2, 2, (4, 4, 6, 6), (6, 8, 9, 9)),
    ])  # fmt: skip
    found = open_parts(root)
    same(
        seen(found.images[0]),
        {("cat", 1, "tail"): box(0, 0, 2, 3), ("cat", 2, "inner ear"): box(4, 4, 6, 6) | box(6, 8, 9, 9)},
    )
    assert found.images[0].id == "7"
    assert found.notes == ("objects and parts are read from each category's name",)


def test_the_supercategory_is_the_object(tmp_path):
    categories = [
        {"id": 1, "name": "tail", "supercategory": "cat"},
        {"id": 2, "name": "head", "supercategory": ""},
    ]
    root = folder(tmp_path, categories, [mark(1, 1, (0, 0, 2, 3)), mark(2, 2, (0, 0, 2, 3))])
    found = open_parts(root)
    same(seen(found.images[0]), {("cat", 1, "tail"): box(0, 0, 2, 3)})
    assert found.notes == ("objects and parts are read from each category's supercategory",)
    assert [(one.reason, one.detail) for one in found.quarantined] == [
        ("unknown_code", "picture 7, annotation 2: category 2 has no object and part")
    ]


def test_whole_objects_can_be_parts_of_themselves(tmp_path):
    root = folder(tmp_path, [{"id": 1, "name": "cat", "supercategory": "animal"}], [mark(1, 1, (0, 0, 2, 3))])
    same(seen(open_parts(root, categories="whole").images[0]), {("cat", 1, "cat"): box(0, 0, 2, 3)})
    with pytest.raises(UserError, match=r"no way to read categories named 'names'. Did you mean 'name'"):
        open_parts(root, categories="names")
    with pytest.raises(UserError, match="no category names a part with categories='name': cat"):
        open_parts(root, categories="name")


def test_pacos_parts_are_put_together_by_their_object(tmp_path):
    categories = [
        {"id": 1, "name": "mug", "supercategory": "OBJECT"},
        {"id": 2, "name": "mug:handle", "supercategory": "PART"},
        {"id": 3, "name": "mug:rim", "supercategory": "PART"},
    ]
    marks = [
        mark(10, 1, (0, 0, 9, 12), obj_ann_id=10),
        mark(11, 2, (0, 0, 2, 2), obj_ann_id=10),
        mark(12, 3, (2, 2, 4, 4), obj_ann_id=10),
        mark(13, 2, (4, 0, 6, 2), obj_ann_id=10),
        mark(20, 1, (0, 0, 9, 12), obj_ann_id=20),
        mark(21, 2, (6, 6, 9, 9), obj_ann_id=20),
    ]
    found = open_parts(folder(tmp_path, categories, marks))
    same(
        seen(found.images[0]),
        {
            ("mug", 1, "handle"): box(0, 0, 2, 2) | box(4, 0, 6, 2),
            ("mug", 1, "rim"): box(2, 2, 4, 4),
            ("mug", 2, "handle"): box(6, 6, 9, 9),
        },
    )
    assert found.notes[-1] == "2 annotations of whole objects are no parts and are not in the set"
    assert found.quarantined == ()


def test_run_lengths_of_both_forms(tmp_path):
    """The compressed string is that of COCO's own tools for the same box in a picture of 5 x 7."""
    wanted = box(1, 2, 4, 5, 5, 7)
    runs = [11, 3, 2, 3, 2, 3, 11]
    picture = {"id": 7, "file_name": "c.jpg", "width": 7, "height": 5}
    marks = [
        {"id": 1, "image_id": 7, "category_id": 1, "segmentation": {"size": [5, 7], "counts": runs}},
        {"id": 2, "image_id": 7, "category_id": 1, "segmentation": {"size": [5, 7], "counts": ";320009"}},
    ]
    root = folder(tmp_path, named("cat:tail"), marks, images=[picture])
    photo(root / "images/c.jpg", 7, 5)
    same(seen(open_parts(root).images[0]), {("cat", 1, "tail"): wanted, ("cat", 2, "tail"): wanted})


def test_annotations_that_cannot_be_used_are_listed_one_by_one(tmp_path):
    bad = [
        mark(1, 9, (0, 0, 2, 2)),
        mark(2, 1),
        mark(3, 1, (0, 0, 2, 2), iscrowd=1),
        {**mark(4, 1), "segmentation": [[0, 0, 1]]},
        {**mark(5, 1), "segmentation": {"size": [9, 12], "counts": [3]}},
        {**mark(6, 1), "segmentation": {"size": [12, 9], "counts": [108]}},
        mark(7, 1, (20, 20, 22, 22)),
        {**mark(8, 1), "image_id": 99},
        mark(9, 2, (0, 0, 2, 2)),
        {"image_id": 7, "segmentation": [outline(0, 0, 2, 2)]},
        {**mark(11, 1, (0, 0, 2, 2)), "category_id": [1]},
    ]
    root = folder(tmp_path, named("cat:tail", "cat:"), [*bad, mark(12, 1, (0, 0, 2, 3))])
    found = open_parts(root)
    assert [one.instance for one in found.images[0].parts] == [11]
    assert sorted(one.reason for one in found.quarantined) == sorted(
        ["unknown_code", "empty_mask", "crowd", "bad_annotation", "bad_annotation", "size_mismatch", "empty_mask",
         "bad_annotation", "unknown_code", "unknown_code", "unknown_code"]
    )  # fmt: skip
    assert found.quarantined[0].detail == "annotations[7] is of picture 99, which the file does not list"


def test_pictures_whose_size_is_wrong_or_missing_are_listed(tmp_path):
    pictures = [
        PICTURE,
        {"id": 8, "file_name": "c.jpg", "width": 11, "height": 9},
        {"id": 9, "file_name": "c.jpg"},
    ]
    marks = [{**mark(number, 1, (0, 0, 2, 2)), "image_id": number} for number in (7, 8, 9)]
    found = open_parts(folder(tmp_path, named("cat:tail"), marks, images=pictures))
    assert found.images.ids == ("7",)
    assert [one.reason for one in found.quarantined] == ["size_mismatch", "bad_annotation"]


def test_a_number_that_two_pictures_have_belongs_to_neither(tmp_path):
    pictures = [PICTURE, {**PICTURE, "file_name": "d.jpg"}, {**PICTURE, "id": 8}]
    marks = [mark(1, 1, (0, 0, 2, 2)), {**mark(2, 1, (0, 0, 2, 2)), "image_id": 8}]
    found = open_parts(folder(tmp_path, named("cat:tail"), marks, images=pictures))
    assert found.images.ids == ("8",)
    assert [one.reason for one in found.quarantined] == ["duplicate_id", "duplicate_id"]


def test_pictures_are_found_by_name_below_the_folder(tmp_path):
    root = folder(
        tmp_path,
        named("cat:tail"),
        [mark(1, 1, (0, 0, 2, 2))],
        images=[{**PICTURE, "file_name": "val/c.jpg"}],
    )
    assert open_parts(root).images[0].image == root / "images/c.jpg"
    (root / "images/val").mkdir()
    (root / "images/c.jpg").rename(root / "images/val/c.jpg")
    assert open_parts(root / "parts.json").images[0].image == root / "images/val/c.jpg"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ("[]", "not of COCO's shape"),
        ('{"images": [], "annotations": []}', "not of COCO's shape"),
        ('{"images": [1], "annotations": [], "categories": []}', r"images\[0\] is 1; expected a record with id and file_name"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', r"categories\[0\] is .*expected a record with id and name"),
        ('{"images": [], "annotations": [3], "categories": []}', r"annotations\[0\] is 3"),
        ('{"images": [{"id": 1, "file_name": 3.5}], "annotations": [], "categories": []}', "with id and file_name"),
    ],
)  # fmt: skip
def test_files_of_another_shape_are_refused(tmp_path, text, says):
    (tmp_path / "parts.json").write_text(text)
    with pytest.raises(UserError, match=says):
        open_parts(tmp_path / "parts.json")


def test_of_two_files_one_has_to_be_named(tmp_path):
    root = folder(tmp_path, named("cat:tail"), [mark(1, 1, (0, 0, 2, 2))])
    (root / "again.json").write_bytes((root / "parts.json").read_bytes())
    with pytest.raises(UserError, match=r"again.json, parts.json; name the one to read"):
        open_parts(root)
    assert open_parts(root / "again.json").name == "again"


@pytest.mark.slow
def test_cocos_own_masks_have_the_area_that_coco_states(shared_data):
    """On photographs: COCO states each mask's area; the rule of middles agrees with it as a whole and one by one."""
    folder_of_coco = shared_data / "coco-open-subset"
    read = json.loads((folder_of_coco / "instances.json").read_text("utf8"))
    found = open_parts(folder_of_coco / "instances.json", categories="whole", limit=12)
    assert found.quarantined == () or {one.reason for one in found.quarantined} <= {"crowd", "empty_mask"}
    names = {one["id"]: one["name"] for one in read["categories"]}
    compared = []
    for image in found.images:
        marks = [one for one in read["annotations"] if str(one["image_id"]) == image.id]
        kept = {part.instance: part for part in image.parts}
        for instance, one in enumerate(marks, start=1):
            if instance in kept and not one["iscrowd"]:
                assert kept[instance].object == names[one["category_id"]]
                compared.append((one["area"], int(kept[instance].mask.sum())))
    stated, counted = np.array(compared).T
    assert len(compared) > 50
    large = stated > 500
    np.testing.assert_allclose(counted[large], stated[large], rtol=0.03)
    np.testing.assert_allclose(counted.sum(), stated.sum(), rtol=0.002)


@pytest.mark.slow
def test_cocos_masks_lie_in_the_boxes_that_coco_states(shared_data):
    folder_of_coco = shared_data / "coco-open-subset"
    read = json.loads((folder_of_coco / "instances.json").read_text("utf8"))
    found = open_parts(folder_of_coco / "instances.json", categories="whole", limit=8)
    checked = 0
    for image in found.images:
        marks = [one for one in read["annotations"] if str(one["image_id"]) == image.id]
        for part in image.parts:
            left, top, width, height = marks[part.instance - 1]["bbox"]
            rows, columns = np.nonzero(part.mask)
            assert left - 1 <= columns.min() <= columns.max() + 1 <= left + width + 1
            assert top - 1 <= rows.min() <= rows.max() + 1 <= top + height + 1
            checked += 1
    assert checked > 20
