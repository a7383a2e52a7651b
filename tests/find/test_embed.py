"""The embedding pass: everything once, in order, resumed after a stop, damage listed, memory that runs out halved."""

import hashlib

import numpy as np
import pytest

from broken_images import encoded, scene
from embed_parts import Counted, mean_colour, run_pass, six_a_portion
from eyechart.core.embeddings import EmbeddingStore
from eyechart.core.errors import UserError
from eyechart.find.embed import HASHES, store_of, unit_matrix


@pytest.fixture
def photos(tmp_path, monkeypatch):
    return six_a_portion(tmp_path / "photos", monkeypatch)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_content_is_embedded_once_and_damage_is_listed(photos, tmp_path, workers):
    first, second = Counted("colour"), Counted("again")
    seen, told = run_pass(photos, [first.view, second.view], tmp_path, workers=workers)
    assert first.seen == second.seen == 20
    assert [one.bad.reason for one in seen if one.bad] == ["empty", "not_an_image", "truncated"]
    assert told[0] == (0, 24)
    assert told[-1] == (24, 24)
    rows = store_of(tmp_path / "cache", "colour").rows([one.sha256 for one in seen if one.sha256])
    wanted = [mean_colour(scene(seed=place)) for place in [*range(20), 3]]
    np.testing.assert_array_equal(rows, np.stack(wanted))
    assert seen[3].sha256 == seen[20].sha256 == hashlib.sha256(encoded(scene(seed=3), "PNG")).hexdigest()
    assert len(store_of(tmp_path / "cache", HASHES)) == 20


def test_a_second_run_embeds_nothing(photos, tmp_path):
    run_pass(photos, [Counted().view], tmp_path)
    again, other = Counted(), Counted("other")
    run_pass(photos, [again.view], tmp_path, out="second")
    assert again.seen == 0
    run_pass(photos, [again.view, other.view], tmp_path, out="third")
    assert (again.seen, other.seen) == (0, 20)  # only what is new is computed


@pytest.mark.parametrize("after", [1, 7, 13, 19])
def test_a_stopped_pass_goes_on_and_ends_alike(photos, tmp_path, after):
    with pytest.raises(KeyboardInterrupt):
        run_pass(photos, [Counted(stop_after=after).view], tmp_path, batch_size=1)
    rest = Counted()
    seen, told = run_pass(photos, [rest.view], tmp_path, batch_size=1)
    whole, _ = run_pass(photos, [Counted("whole").view], tmp_path, out="unbroken")
    assert seen == whole
    assert rest.seen <= 20 - after // 6 * 6
    assert told[0][0] == after // 6 * 6
    for key in ("colour", "whole"):
        assert len(store_of(tmp_path / "cache", key)) == 20


def test_batches_are_halved_until_they_fit(photos, tmp_path):
    view = Counted(room=3)
    run_pass(photos, [view.view], tmp_path, batch_size=12)
    assert set(view.sizes) == {3}
    with pytest.raises(UserError, match="not even one picture fits into the device's memory under tiny"):
        run_pass(photos, [Counted("tiny", room=0).view], tmp_path, out="tiny")


def test_the_matrix_has_length_1_and_is_centred_if_asked(photos, tmp_path):
    seen, _ = run_pass(photos, [Counted().view], tmp_path)
    images = list(dict.fromkeys(one.sha256 for one in seen if one.sha256))
    store = store_of(tmp_path / "cache", "colour")
    plain = unit_matrix(store, images, tmp_path / "a.npy", names=images)
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1, atol=1e-6)
    raw = store.rows(images).astype(float)
    np.testing.assert_allclose(plain, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-7)
    centred = unit_matrix(store, images, tmp_path / "b.npy", names=images, centred=True)
    around = plain - plain.astype(float).mean(axis=0)
    np.testing.assert_allclose(centred, around / np.linalg.norm(around, axis=1, keepdims=True), atol=1e-5)


def test_a_vector_without_direction_is_refused_by_name(tmp_path):
    store = EmbeddingStore(tmp_path / "store", "k")
    store.add(["x", "y"], np.array([[1.0, 0.0], [0.0, 0.0]], np.float32))
    with pytest.raises(UserError, match=r"the vector of photo-y has no direction \(1 of 2\)"):
        unit_matrix(store, ["x", "y"], tmp_path / "m.npy", names=["photo-x", "photo-y"])
    store.add(["z"], np.array([[1.0, 0.0]], np.float32))
    with pytest.raises(UserError, match="equals the mean of all"):
        unit_matrix(store, ["x", "z"], tmp_path / "m.npy", names=["photo-x", "photo-z"], centred=True)
