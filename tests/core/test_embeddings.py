"""The embedding store gives back what was put in, survives a torn shard and refuses what is not its own."""

import errno

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core import files
from eyechart.core.embeddings import EmbeddingStore
from eyechart.core.errors import UserError
from eyechart.core.files import TEMPORARY


def test_rows_come_back_in_the_order_asked(tmp_path):
    store = EmbeddingStore(tmp_path / "e", "clip:mean")
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    store.add(["a", "b"], rows[:2])
    store.add(["c", "d"], rows[2:])
    again = EmbeddingStore(tmp_path / "e", "clip:mean")
    assert np.array_equal(again.rows(["d", "a", "a"]), rows[[3, 0, 0]])
    assert again.missing(["x", "a", "x", "d", "y"]) == ["x", "y"]
    assert len(again) == 4


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=5), st.integers(0, 2**16))
def test_any_sharding_gives_the_same_rows(tmp_path_factory, sizes, seed):
    rows = np.random.default_rng(seed).normal(size=(sum(sizes), 5)).astype(np.float32)
    names = [f"i{k}" for k in range(len(rows))]
    store = EmbeddingStore(tmp_path_factory.mktemp("e"), "k")
    start = 0
    for size in sizes:
        store.add(names[start : start + size], rows[start : start + size])
        start += size
    if names:
        assert np.array_equal(store.rows(names[::-1]), rows[::-1])


def test_a_part_file_of_a_killed_run_is_not_a_shard(tmp_path):
    store = EmbeddingStore(tmp_path, "k")
    (tmp_path / f".shard-00000.safetensors.0123456789ab{TEMPORARY}").write_bytes(b"torn")
    store.add(["a"], np.ones((1, 2), dtype=np.float32))
    again = EmbeddingStore(tmp_path, "k")
    assert len(again) == 1
    assert "a" in again
    assert "b" not in again


def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    store = EmbeddingStore(tmp_path, "k")
    store.add(["a"], np.ones((1, 2), dtype=np.float32))
    before = sorted(tmp_path.iterdir())

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        store.add(["b"], np.ones((1, 2), dtype=np.float32))
    assert sorted(tmp_path.iterdir()) == before
    assert store.missing(["a", "b"]) == ["b"]
    monkeypatch.undo()
    store.add(["b"], np.ones((1, 2), dtype=np.float32))
    assert len(EmbeddingStore(tmp_path, "k")) == 2


def test_refusals_name_what_is_wrong(tmp_path):
    store = EmbeddingStore(tmp_path, "k")
    with pytest.raises(UserError, match=r"NaN or infinity for 1 image.*: b"):
        store.add(["a", "b"], np.array([[1.0], [np.nan]], dtype=np.float32))
    store.add(["a"], np.ones((1, 2), dtype=np.float32))
    with pytest.raises(KeyError, match="no embedding stored for z"):
        store.rows(["z"])
    with pytest.raises(UserError, match="holds embeddings of 'k', expected 'other'"):
        EmbeddingStore(tmp_path, "other")
    (tmp_path / "shard-00000.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(UserError, match=r"shard-00000\.safetensors is no readable safetensors file"):
        EmbeddingStore(tmp_path, "k")


def test_a_shard_that_was_deleted_is_computed_again_and_overwrites_no_other(tmp_path):
    store = EmbeddingStore(tmp_path, "k")
    for number, name in enumerate(["a", "b", "c"]):
        store.add([name], np.full((1, 2), number, dtype=np.float32))
    (tmp_path / "shard-00001.safetensors").unlink()
    again = EmbeddingStore(tmp_path, "k")
    assert again.missing(["a", "b", "c"]) == ["b"]
    again.add(["b"], np.full((1, 2), 1, dtype=np.float32))
    assert EmbeddingStore(tmp_path, "k").rows(["a", "b", "c"])[:, 0].tolist() == [0, 1, 2]


def test_writers_at_the_same_time_overwrite_nothing_but_the_same_images(tmp_path):
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    one, two = EmbeddingStore(tmp_path, "k"), EmbeddingStore(tmp_path, "k")
    one.add(["a", "b"], rows[:2], shard="portion-000000")
    two.add(["a", "b"], rows[:2], shard="portion-000000")
    two.add(["c"], rows[2:3], shard="portion-000000")
    assert len(list(tmp_path.iterdir())) == 2
    EmbeddingStore(tmp_path, "k").add(["d"], rows[3:])
    assert (tmp_path / "shard-00000.safetensors").exists()
    assert np.array_equal(EmbeddingStore(tmp_path, "k").rows(["a", "b", "c", "d"]), rows)
