"""Stored features: each image encoded once, a killed fill goes on, another encoder or another setting gets its own."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.train import feature_store
from eyechart.train.feature_store import FeatureStore, direct, probe_picture
from eyechart.train.samples import open_picture
from llava_parts import write_pictures

IDENTITY = {"encoders": {"a": "1"}, "dtype": "float32"}


class Feeding:
    """Two encoders of another number of patches and another width; it counts what it is shown."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain, self.seen = gain, 0

    def features(self, images: list[Image.Image]) -> list[dict[str, torch.Tensor]]:
        self.seen += len(images)
        found = []
        for image in images:
            rows = torch.from_numpy(np.array(image.resize((4, 6)), np.float32)) * self.gain
            found.append({"first": rows[:, :, 0], "second": rows.reshape(8, 9)})
        return found


@pytest.fixture
def pictures(tmp_path):
    names = write_pictures(tmp_path / "pictures", 7)
    paths = [tmp_path / "pictures" / name for name in names]
    return {open_picture(path).sha256: path for path in paths}


def filled(folder, pictures, feeding, *, identity=IDENTITY, **options):
    store = FeatureStore(folder, feeding.features, identity)
    store.fill(pictures, batch=2, **options)
    store.reload()
    return store


def test_what_is_stored_is_what_the_encoders_give(tmp_path, pictures):
    feeding = Feeding()
    store = filled(tmp_path / "store", pictures, feeding)
    wanted = direct(feeding.features, pictures)(list(pictures))
    found = store(list(pictures))
    assert len(store) == 7
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys() == {"first", "second"}
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert found[0]["first"].shape == (6, 4)
    assert found[0]["second"].shape == (8, 9)


def test_an_image_is_encoded_once(tmp_path, pictures):
    feeding = Feeding()
    filled(tmp_path / "store", pictures, feeding)
    assert feeding.seen == 7 + 1  # and the probe
    again = Feeding()
    filled(tmp_path / "store", pictures, again)
    assert again.seen == 1


def test_a_killed_fill_goes_on_and_ends_with_the_same_bytes(tmp_path, pictures, monkeypatch):
    whole = filled(tmp_path / "whole", pictures, Feeding())
    told = []

    def killed(stage, done, total):
        told.append((stage, done, total))
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "broken", pictures, Feeding(), report=killed)
    assert told == [("features", 2, 7), ("features", 4, 7)]
    [part] = (tmp_path / "broken").glob("*/part-0")
    with (part / "first.bin").open("ab") as out:
        out.write(b"torn")  # rows whose line was never written
    with (part / "index.jsonl").open("ab") as out:
        out.write(b'{"first": 4, "ima')
    feeding = Feeding()
    again = filled(tmp_path / "broken", pictures, feeding)
    assert feeding.seen == 3 + 1
    [other] = (tmp_path / "whole").glob("*/part-0")
    assert {p.name: p.read_bytes() for p in part.iterdir()} == {
        p.name: p.read_bytes() for p in other.iterdir()
    }
    for one, two in zip(whole(list(pictures)), again(list(pictures)), strict=True):
        assert torch.equal(one["second"], two["second"])


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_work_and_read_each_others(tmp_path, pictures, processes):
    feedings = [Feeding() for _ in range(processes)]
    stores = [
        FeatureStore(tmp_path / "store", feeding.features, IDENTITY, process=number)
        for number, feeding in enumerate(feedings)
    ]
    for store in stores:  # one after another, and each sees what those before it have written
        store.fill(pictures, processes=processes, batch=2)
    for store in stores:
        store.reload()
        assert set(pictures) == {sha256 for sha256 in pictures if sha256 in store}
    assert sum(feeding.seen for feeding in feedings) == 7 + processes


def test_another_identity_has_another_folder(tmp_path, pictures):
    filled(tmp_path / "store", pictures, Feeding())
    other = Feeding(gain=2.0)
    store = filled(tmp_path / "store", pictures, other, identity=IDENTITY | {"encoders": {"a": "2"}})
    assert other.seen == 8
    assert torch.equal(
        store(list(pictures))[0]["first"],
        other.features([open_picture(next(iter(pictures.values()))).image])[0]["first"],
    )


def test_features_that_changed_though_no_setting_did_are_refused(tmp_path, pictures):
    filled(tmp_path / "store", pictures, Feeding())
    with pytest.raises(UserError, match="holds features of first that are not what it sees now"):
        FeatureStore(tmp_path / "store", Feeding(gain=1.1).features, IDENTITY)
    FeatureStore(tmp_path / "store", Feeding(gain=1 + 1e-4).features, IDENTITY)  # another machine's rounding


def test_float16_rounds_and_refuses_what_it_cannot_hold(tmp_path, pictures):
    half = IDENTITY | {"dtype": "float16"}
    feeding = Feeding(gain=1 / 3)
    store = filled(tmp_path / "store", pictures, feeding, identity=half)
    found, wanted = store(list(pictures)), direct(feeding.features, pictures)(list(pictures))
    assert torch.allclose(found[0]["first"], wanted[0]["first"], rtol=1e-3)
    assert not torch.equal(found[0]["first"], wanted[0]["first"])
    with pytest.raises(UserError, match="values that float16 cannot hold; set features_dtype to float32"):
        filled(tmp_path / "large", pictures, Feeding(gain=1e4), identity=half)


def test_two_runs_do_not_write_one_part(tmp_path, pictures):
    def another(stage, done, total):
        if done < total:
            refused.append(done)
            with pytest.raises(UserError, match="is in use by another process"):
                FeatureStore(tmp_path / "store", Feeding().features, IDENTITY).fill(pictures)

    refused: list[int] = []
    filled(tmp_path / "store", pictures, Feeding(), report=another)
    assert refused == [2, 4, 6]


def test_the_probe_is_fixed():
    assert probe_picture().tobytes() == probe_picture().tobytes()
    assert probe_picture().size == (160, 120)
    assert feature_store.NEAR < 0.1


def test_the_identity_is_beside_the_features(tmp_path, pictures):
    store = filled(tmp_path / "store", pictures, Feeding())
    assert json.loads((store.folder / "identity.json").read_text()) == IDENTITY
