"""Going on with an embedding pass: what a kill leaves is removed, what is damaged is done again, a full disk loses nothing."""

import errno

import numpy as np
import pytest

from broken_images import encoded, scene
from embed_parts import Counted, run_pass, six_a_portion
from eyechart.core import files
from eyechart.core.embeddings import EmbeddingStore
from eyechart.core.errors import UserError
from eyechart.core.lock import FolderLock
from eyechart.find.embed import HASHES, all_seen, locked, store_of, unit_matrix
from eyechart.find.sources import list_pictures

TABLES = [f"images/{number:06d}.parquet" for number in range(4)]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    return six_a_portion(tmp_path / "photos", monkeypatch)


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def left_over(store):
    """What a process that was killed while it wrote a shard leaves."""
    store.mkdir(parents=True, exist_ok=True)
    part = store / f".shard-00000.safetensors.0123456789ab{files.TEMPORARY}"
    part.write_bytes(b"half a shard")
    return part


def test_what_a_killed_process_was_writing_is_removed_from_every_store(photos, tmp_path):
    parts = [left_over(tmp_path / "cache" / key) for key in ("colour", HASHES)]
    other = left_over(tmp_path / "cache" / "other")
    run_pass(photos, [Counted().view], tmp_path)
    assert not any(part.exists() for part in parts)
    assert other.exists()  # no store of this pass: it may be being written


def test_a_shard_that_a_kill_interrupted_leaves_what_the_next_start_removes(photos, tmp_path, monkeypatch):
    """The name that a store writes under is one that is removed."""
    replace, unlink = files.Path.replace, files.Path.unlink

    def killed(path, target):
        if target.suffix == ".safetensors":
            monkeypatch.setattr(files.Path, "unlink", lambda *_, **__: None)  # the dead tidy nothing up
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(files.Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run_pass(photos, [Counted().view], tmp_path)
    monkeypatch.setattr(files.Path, "replace", replace)
    monkeypatch.setattr(files.Path, "unlink", unlink)
    assert [path for path in (tmp_path / "cache").rglob(".shard*")]
    run_pass(photos, [Counted().view], tmp_path)
    assert not [path for path in (tmp_path / "cache").rglob(".*")]


def test_what_another_process_is_writing_stays(photos, tmp_path):
    part = left_over(tmp_path / "cache" / "colour")
    held = FolderLock(tmp_path / "cache" / "colour")
    with pytest.raises(UserError, match="is in use by another process"):
        run_pass(photos, [Counted().view], tmp_path)
    len(store_of(tmp_path / "cache", "colour"))  # a reader removes nothing either
    assert part.exists()
    held.release()
    with locked(tmp_path / "cache", ["colour"]):
        assert not part.exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "another's"])
def test_a_damaged_table_of_a_portion_is_done_again(photos, tmp_path, damage, caplog):
    whole, _ = run_pass(photos, [Counted().view], tmp_path)
    table, kept = tmp_path / "run" / TABLES[1], (tmp_path / "run" / TABLES[1]).read_bytes()
    others = [(tmp_path / "run" / name).stat().st_mtime_ns for name in TABLES if name != TABLES[1]]
    content = {"cut": kept[:100], "empty": b"", "another's": (tmp_path / "run" / TABLES[0]).read_bytes()}
    table.write_bytes(content[damage])
    again = Counted()
    seen, told = run_pass(photos, [again.view], tmp_path)
    assert seen == whole
    assert again.seen == 0
    assert told[0] == (18, 24)
    assert table.read_bytes() == kept
    assert others == [(tmp_path / "run" / name).stat().st_mtime_ns for name in TABLES if name != TABLES[1]]
    assert "done again" in caplog.text


def test_a_shard_that_was_cut_is_refused_and_once_deleted_computed_again(photos, tmp_path):
    whole, _ = run_pass(photos, [Counted().view], tmp_path)
    store = store_of(tmp_path / "cache", "colour")
    images = list(dict.fromkeys(one.sha256 for one in whole if one.sha256))
    rows = store.rows(images)
    shard = tmp_path / "cache" / "colour" / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"shard-00001.*; delete it to compute it again"):
        run_pass(photos, [Counted().view], tmp_path)
    shard.unlink()
    again = Counted()
    seen, told = run_pass(photos, [again.view], tmp_path)
    assert (seen, again.seen, told[0]) == (whole, 6, (18, 24))
    np.testing.assert_array_equal(store_of(tmp_path / "cache", "colour").rows(images), rows)


def test_a_full_disk_is_an_error_that_loses_no_portion(photos, tmp_path, monkeypatch):
    add, calls = EmbeddingStore.add, []

    def filling(store, *given, **named):
        calls.append(store.key)
        if len(calls) == 4:  # two shards of each portion: the second one's perceptual hashes
            monkeypatch.setattr(files.os, "fsync", full)
        add(store, *given, **named)

    monkeypatch.setattr(EmbeddingStore, "add", filling)
    first, rest = Counted(), Counted()
    with pytest.raises(OSError, match="No space left on device"):
        run_pass(photos, [first.view], tmp_path)
    monkeypatch.undo()
    six_a_portion(tmp_path / "same", monkeypatch)
    assert [path.name for path in (tmp_path / "run" / "images").iterdir()] == ["000000.parquet"]
    assert {path.suffix for path in (tmp_path / "cache").glob("*/*")} == {".safetensors"}
    seen, told = run_pass(photos, [rest.view], tmp_path)
    assert told[0] == (6, 24)
    assert (first.seen, rest.seen) == (12, 8)  # the vectors that were written are not computed again
    assert seen == all_seen(photos, tmp_path / "run")


def test_no_room_for_the_matrix_is_an_error_before_it_is_mapped(tmp_path, monkeypatch):
    store = EmbeddingStore(tmp_path / "store", "k")
    store.add(["x", "y"], np.eye(2, dtype=np.float32))
    monkeypatch.setattr(files.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left on device"):
        unit_matrix(store, ["x", "y"], tmp_path / "vectors" / "0.npy", names=["x", "y"])
    assert not list((tmp_path / "vectors").iterdir())
    monkeypatch.undo()
    rows = unit_matrix(store, ["x", "y"], tmp_path / "vectors" / "0.npy", names=["x", "y"])
    np.testing.assert_array_equal(rows, np.eye(2))


@pytest.mark.parametrize("after", [6, 12, 18])
def test_after_a_stop_the_batches_are_of_the_same_pictures(tmp_path, monkeypatch, after):
    """With copies of pictures of earlier portions among them; where a sum's rounding depends on the batch, it must."""
    six_a_portion(tmp_path / "more", monkeypatch)
    folder = tmp_path / "photos"
    folder.mkdir()
    for place in range(24):
        seed = place // 2 if place % 5 == 4 else place
        (folder / f"{place:02d}.png").write_bytes(encoded(scene(seed=seed), "PNG"))
    photos = list_pictures(str(folder)).pictures
    whole, broken, rest = Counted("whole"), Counted(stop_after=after), Counted()
    run_pass(photos, [whole.view], tmp_path, out="unbroken", batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        run_pass(photos, [broken.view], tmp_path, batch_size=3)
    run_pass(photos, [rest.view], tmp_path, batch_size=3)
    again = len(broken.batches) + len(rest.batches) - len(whole.batches)
    assert again >= 0
    assert broken.batches[: len(broken.batches) - again] + rest.batches == whole.batches
