"""Each layout gives the masks that were put in, under the names they stand for; the layout is told, or asked for."""

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.locate.part_images import LAYOUTS, open_parts
from part_makers import box, coco_file, index_folder, mat_file, photo, ppp_folder, same, seen, uid_map

HEAD, TAIL, EAR, EYE = box(0, 0, 3, 3), box(6, 8, 9, 12), box(4, 4, 6, 6), box(0, 5, 2, 7)


@pytest.fixture
def folders(tmp_path):
    """A folder of each layout of files that needs no rendering."""
    ppp_folder(tmp_path / "panoptic-parts", {"2008_000001": uid_map((800101, HEAD))})
    mat_file(tmp_path / "pascal-part/Annotations_Part/p.mat", [("cat", HEAD, [("head", HEAD)])])
    photo(tmp_path / "pascal-part/JPEGImages/p.jpg")
    coco_file(
        tmp_path / "coco/instances.json",
        images=[{"id": 1, "file_name": "c.jpg", "width": 12, "height": 9}],
        categories=[{"id": 5, "name": "cat:head"}],
        annotations=[{"id": 1, "image_id": 1, "category_id": 5, "segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]]}],
    )
    photo(tmp_path / "coco/images/c.jpg")
    index_folder(tmp_path / "index", {"i": HEAD * 3}, {"3": "cat:head"})
    return tmp_path


@pytest.mark.parametrize("layout", ["panoptic-parts", "pascal-part", "coco", "index"])
def test_a_layout_is_told_from_its_files_or_named(folders, layout):
    for called in ("auto", layout):
        found = open_parts(folders / layout, layout=called)
        assert len(found.images) == 1
        same(seen(found.images[0]), {("cat", 1, "head"): HEAD})
        assert found.name == layout
        assert found.source == str(folders / layout)
        assert found.quarantined == ()


def runs_down_the_columns(mask):
    """COCO's plain run lengths, first outside."""
    values = [False, *mask.T.ravel().tolist()]
    starts = [place for place in range(1, len(values)) if values[place] != values[place - 1]]
    edges = [1, *starts, len(values)]
    return [after - before for before, after in pairwise(edges)]


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.lists(st.integers(0, 3), min_size=49, max_size=49))
def test_any_map_of_parts_is_the_same_in_every_layout(tmp_path_factory, height, width, numbers):
    """A cat's head (1), left eye (2) and tail (3): planted in four layouts, found in four layouts."""
    values = np.array(numbers[: height * width]).reshape(height, width)
    values[0, 0] = 3
    root = tmp_path_factory.mktemp("any")
    names = {
        number: name for number, name in ((1, "head"), (2, "eye"), (3, "tail")) if (values == number).any()
    }
    masks = {name: values == number for number, name in names.items()}
    codes = {"head": (1, "head"), "eye": (2, "leye"), "tail": (17, "tail")}
    ppp_folder(
        root / "p",
        {
            "i": uid_map(
                *((800100 + codes[name][0], mask) for name, mask in masks.items()), height=height, width=width
            )
        },
    )
    mat_file(
        root / "m/i.mat", [("cat", values > 0, [(codes[name][1], mask) for name, mask in masks.items()])]
    )
    photo(root / "m/images/i.jpg", width, height)
    index_folder(root / "i", {"i": values}, {str(number): f"cat:{name}" for number, name in names.items()})
    coco_file(
        root / "c/parts.json",
        images=[{"id": "i", "file_name": "i.jpg", "width": width, "height": height}],
        categories=[{"id": number, "name": f"cat:{name}"} for number, name in names.items()],
        annotations=[
            {"id": number, "image_id": "i", "category_id": number, "obj_ann_id": 9,
             "segmentation": {"size": [height, width], "counts": runs_down_the_columns(values == number)}}
            for number in names
        ],
    )  # fmt: skip
    photo(root / "c/images/i.jpg", width, height)
    for layout in "pmic":
        found = open_parts(root / layout)
        assert found.quarantined == ()
        same(seen(found.images[0]), {("cat", 1, name): mask for name, mask in masks.items()})


def test_the_hash_does_not_ask_for_the_layout(folders):
    """The same photo, id, names and masks give the same set, in whatever files they came."""
    picture_file = (folders / "index/images/i.jpg").read_bytes()
    for place in ("panoptic-parts/JPEGImages/2008_000001.jpg", "pascal-part/JPEGImages/p.jpg"):
        (folders / place).write_bytes(picture_file)
    (folders / "pascal-part/Annotations_Part/p.mat").rename(folders / "pascal-part/Annotations_Part/i.mat")
    (folders / "pascal-part/JPEGImages/p.jpg").rename(folders / "pascal-part/JPEGImages/i.jpg")
    hashes = {
        layout: open_parts(folders / layout).sha256 for layout in ("pascal-part", "index", "panoptic-parts")
    }
    assert hashes["pascal-part"] == hashes["index"] != hashes["panoptic-parts"]


def test_what_is_no_layout_says_what_is_there_and_what_was_expected(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "things").mkdir()
    with pytest.raises(
        UserError, match=r"Found: notes.txt, things/. Expected one of: .*masks/\*\.png"
    ) as caught:
        open_parts(tmp_path)
    assert all(name in str(caught.value) for name in LAYOUTS)
    with pytest.raises(UserError, match="Found: an empty folder"):
        open_parts(tmp_path / "things")
    with pytest.raises(UserError, match=r"Found: a file notes.txt"):
        open_parts(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="no such folder or file"):
        open_parts(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no layout of part masks named 'cocoa'. Did you mean 'coco'"):
        open_parts(tmp_path, layout="cocoa")
    with pytest.raises(UserError, match="no kind of words named 'long'"):
        open_parts(tmp_path, words="long")


def test_two_layouts_in_one_folder_have_to_be_told_apart(folders):
    root = folders / "index"
    mat_file(root / "a.mat", [("cat", HEAD, [("head", HEAD)])])
    with pytest.raises(UserError, match=r"fits several layouts: pascal-part, index. Say which"):
        open_parts(root)
    assert open_parts(root, layout="index").images.ids == ("i",)


@pytest.mark.parametrize("layout", ["panoptic-parts", "pascal-part", "coco", "index"])
def test_a_named_layout_that_is_not_there_is_an_error_of_the_persons(tmp_path, layout):
    with pytest.raises(UserError, match=str(tmp_path)):
        open_parts(tmp_path, layout=layout)


def test_pictures_elsewhere_are_named(folders):
    (folders / "index/images").rename(folders / "elsewhere")
    with pytest.raises(UserError, match=r"no folder of pictures; looked for .*JPEGImages.*images=FOLDER"):
        open_parts(folders / "index")
    assert len(open_parts(folders / "index", images=folders / "elsewhere").images) == 1


def test_a_missing_picture_and_two_of_one_stem_are_listed(folders):
    masks = folders / "index/masks"
    for name in ("gone", "twice"):
        Image.fromarray((HEAD * 3).astype(np.uint8)).save(masks / f"{name}.png")
    photo(folders / "index/images/twice.jpg")
    photo(folders / "index/images/twice.png")
    found = open_parts(folders / "index")
    assert found.images.ids == ("i",)
    assert sorted(one.reason for one in found.quarantined) == ["duplicate_id", "duplicate_id", "missing"]


def test_the_masks_of_a_turned_photo_are_turned(folders):
    root = folders / "index"
    photo(root / "images/i.jpg", orientation=6)
    found = open_parts(root)
    mask = found.images[0].parts[0].mask
    assert mask.shape == (12, 9)
    np.testing.assert_array_equal(mask, np.rot90(HEAD, -1))
    assert "turned by EXIF" in found.notes[-1]
