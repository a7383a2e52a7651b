"""The same pictures as a folder, as tar shards, as Parquet and as a dataset: the same bytes and labels; damage is listed."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from broken_images import encoded, scene
from eyechart.core.errors import UserError
from eyechart.core.images import BadImage
from eyechart.find.sources import list_pictures, read_picture
from photo_sources import as_folder, as_parquet, as_tars


@pytest.fixture(scope="module")
def data():
    """Bytes and label of a dozen pictures by name."""
    return {
        f"{'ab'[place % 2]}-{place:02d}": (
            encoded(scene(seed=place), ("JPEG", "PNG")[place % 2]),
            "ab"[place % 2],
        )
        for place in range(12)
    }


def contents(listing):
    return [(read_picture(picture), picture.label) for picture in listing.pictures]


def test_a_folder_is_read_to_its_bottom(tmp_path, data):
    listing = list_pictures(str(as_folder(tmp_path / "photos", data)))
    assert contents(listing) == sorted(data.values(), key=lambda pair: pair[1])
    assert listing.passed_over == 1
    assert listing.pictures[0].id == "a/a-00.jpg"


def test_what_is_no_file_is_listed(tmp_path, data):
    root = as_folder(tmp_path / "photos", data)
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "round.jpg").symlink_to(root / "round.jpg")
    os.mkfifo(root / "pipe.png")
    (root / "folder.jpg").mkdir()
    listing = list_pictures(str(root))
    assert len(listing.pictures) == len(data)
    assert [(row.path, row.reason) for row in listing.quarantined] == [
        ("gone.jpg", "missing"),
        ("pipe.png", "not_a_file"),
        ("round.jpg", "missing"),
    ]


@pytest.mark.parametrize("label_in", ["cls", "json"])
def test_tar_shards_give_the_same(tmp_path, data, label_in):
    listing = list_pictures(str(as_tars(tmp_path / "shards", data, label_in=label_in)))
    assert contents(listing) == list(data.values())
    assert listing.pictures[0].id == "shard-0.tar/a-00.jpg"
    assert listing.passed_over == len(data)
    one = list_pictures(str(tmp_path / "shards" / "shard-1.tar"))
    assert contents(one) == list(data.values())[7:]


@pytest.mark.parametrize("struct", [True, False])
def test_parquet_gives_the_same(tmp_path, data, struct):
    listing = list_pictures(str(as_parquet(tmp_path / "table", data, struct=struct)))
    assert contents(listing) == list(data.values())
    assert len({picture.id for picture in listing.pictures}) == len(data)


def test_a_saved_dataset_gives_the_same(tmp_path, data):
    import datasets

    made = datasets.Dataset.from_dict(
        {
            "photo": [content for content, _ in data.values()],
            "label": ["ab".index(label) for _, label in data.values()],
        }
    )
    features = datasets.Features({"photo": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    made.cast(features).save_to_disk(str(tmp_path / "saved"))
    assert contents(list_pictures(str(tmp_path / "saved"))) == list(data.values())


def test_the_hash_tells_added_and_changed_pictures(tmp_path, data):
    root = as_folder(tmp_path / "photos", data)
    before = list_pictures(str(root)).sha256
    (root / "notes.txt").write_text("more words, still no picture")
    assert list_pictures(str(root)).sha256 == before
    with (root / "a" / "a-00.jpg").open("ab") as handle:
        handle.write(b"x")
    assert list_pictures(str(root)).sha256 != before


def test_a_tar_that_ends_too_soon_gives_what_comes_before(tmp_path, data):
    root = as_tars(tmp_path / "shards", data, label_in="cls")
    whole = (root / "shard-0.tar").read_bytes()
    (root / "shard-0.tar").write_bytes(whole[: len(whole) // 2])
    listing = list_pictures(str(root))
    assert 0 < len(listing.pictures) < len(data)
    assert [(row.path, row.reason) for row in listing.quarantined] == [("shard-0.tar", "damaged")]


def test_a_table_that_is_none_is_listed_and_the_others_are_read(tmp_path, data):
    root = as_parquet(tmp_path / "table", data, struct=True)
    (root / "part-1.parquet").write_bytes(b"no table")
    listing = list_pictures(str(root))
    assert len(listing.pictures) == len(data)
    assert [row.path for row in listing.quarantined] == ["part-1.parquet"]


def test_mistakes_are_told_with_what_to_do(tmp_path, data):
    with pytest.raises(UserError, match=r"there is no .*nowhere; give a folder"):
        list_pictures(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("a")
    with pytest.raises(UserError, match=r"holds no picture \(1 other files\); there can be: folder"):
        list_pictures(str(tmp_path / "empty"))
    root = as_parquet(tmp_path / "table", data, struct=True)
    with pytest.raises(UserError, match="Did you mean 'image'"):
        list_pictures(str(root), image_column="imaeg")
    with pytest.raises(UserError, match=r"no column of .* named 'kind'"):
        list_pictures(str(root), label_column="kind")
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(UserError, match=r"has no column of pictures .*; it has x"):
        list_pictures(str(tmp_path / "numbers.parquet"))


def test_a_picture_that_is_gone_or_has_no_bytes_is_a_bad_image(tmp_path, data):
    root = as_folder(tmp_path / "photos", data)
    picture = list_pictures(str(root)).pictures[0]
    (root / "a" / "a-00.jpg").unlink()
    with pytest.raises(BadImage, match="no such file"):
        read_picture(picture)
    pq.write_table(pa.table({"image": [b"x", None]}), tmp_path / "t.parquet")
    with pytest.raises(BadImage, match="holds NoneType, not bytes"):
        read_picture(list_pictures(str(tmp_path / "t.parquet")).pictures[1])


def test_a_limit_takes_the_first(tmp_path, data):
    root = as_folder(tmp_path / "photos", data)
    assert [p.id for p in list_pictures(str(root), limit=2).pictures] == ["a/a-00.jpg", "a/a-02.jpg"]
