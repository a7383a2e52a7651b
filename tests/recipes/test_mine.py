"""`eyechart mine` from end to end: planted pairs, damage, shards, and the world's known truth."""

from itertools import combinations

import numpy as np
import pytest

from broken_images import encoded, scene
from eyechart.core.errors import UserError
from eyechart.core.files import read_table
from eyechart.find import embed
from eyechart.find.config import MineConfig
from eyechart.models import load_encoder
from eyechart.recipes.mine import mine, plan
from photo_sources import as_parquet, as_tars

ENCODERS = {"semantic": "zoo:clip-biased", "reference": "zoo:two-view"}
LOOSE = {"min_semantic": "p80", "max_reference": "p60", "workers": 0}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Thirty pictures in two folders, one of them a compressed copy of another, one damaged."""
    folder = tmp_path_factory.mktemp("photos")
    for place in range(30):
        below = folder / f"kind-{place % 2}"
        below.mkdir(exist_ok=True)
        (below / f"{place:02d}.png").write_bytes(encoded(scene(96, 96, seed=place), "PNG"))
    (folder / "kind-0" / "copy.jpg").write_bytes(encoded(scene(96, 96, seed=0), "JPEG", quality=90))
    (folder / "kind-1" / "cut.jpg").write_bytes(encoded(scene(96, 96, seed=1), "JPEG")[:500])
    return folder


def held(source, out, **options):
    return mine(MineConfig(source=str(source), **(ENCODERS | LOOSE | options)), out=out)


def pairs_of(folder, name="pairs.parquet"):
    return {(row["image_a"], row["image_b"]) for row in read_table(folder / name)}


@pytest.mark.slow
def test_what_is_found_is_what_the_vectors_say(photos, tmp_path):
    """Against all pairs one by one, from vectors computed here."""
    result = held(photos, tmp_path / "run", per_image=100, per_burst=100)
    files = sorted(path for path in photos.rglob("*.*") if path.name != "cut.jpg")
    names = [str(path.relative_to(photos)) for path in files]
    images = [embed.Image.open(path).convert("RGB") for path in files]
    rows = [load_encoder(name).embed(images).double().numpy() for name in ENCODERS.values()]
    near, far = (r / np.linalg.norm(r, axis=1, keepdims=True) for r in rows)
    every = list(combinations(range(len(names)), 2))
    cosines = [(near[i] @ near[j], far[i] @ far[j]) for i, j in every]
    low, high = np.percentile([c[0] for c in cosines], 80), np.percentile([c[1] for c in cosines], 60)
    assert result.results["semantic"]["threshold"] == pytest.approx(low, abs=1e-6)
    assert result.results["reference"]["threshold"] == pytest.approx(high, abs=1e-6)
    wanted = {
        (names[i], names[j])
        for (i, j), (a, b) in zip(every, cosines, strict=True)
        if a > result.results["semantic"]["threshold"] and b < result.results["reference"]["threshold"]
    }
    assert len(wanted) > 10
    assert pairs_of(tmp_path / "run") == wanted
    gaps = [row["semantic"] - row["reference"] for row in read_table(tmp_path / "run" / "pairs.parquet")]
    assert gaps == sorted(gaps, reverse=True)


def test_damage_is_listed_and_copies_are_set_apart(photos, tmp_path):
    result = held(photos, tmp_path / "run", min_alike=0.8)
    assert [(row["path"], row["reason"]) for row in read_table(tmp_path / "run" / "quarantine.parquet")] == [
        ("kind-1/cut.jpg", "truncated")
    ]
    assert ("kind-0/00.png", "kind-0/copy.jpg") in pairs_of(tmp_path / "run", "alike.parquet")
    assert result.results["quarantined"] == 1
    assert result.results["images"] == 32
    assert result.page.is_file()


@pytest.mark.slow
def test_labels_choose_pairs(photos, tmp_path):
    held(photos, tmp_path / "run", classes="different")
    rows = read_table(tmp_path / "run" / "pairs.parquet")
    assert rows
    assert all(row["label_a"] != row["label_b"] for row in rows)


@pytest.mark.slow
def test_the_same_command_shows_it_again_and_other_thresholds_embed_nothing(photos, tmp_path, monkeypatch):
    first = held(photos, tmp_path / "a")
    assert held(photos, tmp_path / "a").again

    def none(*_):
        raise AssertionError("a picture was embedded again")

    monkeypatch.setattr(embed.Taker, "_fitting", none)
    other = held(photos, tmp_path / "b", min_semantic="p90")
    assert other.results["semantic"]["threshold"] > first.results["semantic"]["threshold"]
    with pytest.raises(UserError, match="holds a run with another config"):
        held(photos, tmp_path / "a", min_semantic="p90")


@pytest.mark.slow
def test_shards_and_tables_give_the_pairs_of_the_folder(tmp_path):
    data = {
        f"{place:02d}": (encoded(scene(96, 96, seed=place), "PNG"), "ab"[place % 2]) for place in range(24)
    }
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, (content, _) in data.items():
        (folder / f"{name}.png").write_bytes(content)
    sources = {
        "folder": folder,
        "tars": as_tars(tmp_path / "tars", data, label_in="cls"),
        "parquet": as_parquet(tmp_path / "parquet", data, struct=True),
    }
    found = {}
    for name, source in sources.items():
        held(source, tmp_path / "runs" / name)
        rows = read_table(tmp_path / "runs" / name / "pairs.parquet")
        found[name] = [(row["sha256_a"], row["sha256_b"], row["semantic"], row["reference"]) for row in rows]
    assert found["folder"]
    assert found["folder"] == found["tars"] == found["parquet"]


@pytest.mark.slow
def test_the_world_knows_which_pairs_were_made_as_such(tmp_path):
    result = mine(MineConfig(source="world:", pairs=2, **LOOSE), out=tmp_path / "run")
    truth = result.results["truth"]
    assert truth["recall"]["n"] == 18
    made = [row for row in read_table(tmp_path / "run" / "pairs.parquet") if row["pattern"] is not None]
    assert truth["recall"]["hits"] == len(made)
    assert sum(row["recall"]["hits"] for row in truth["patterns"]) == len(made)
    assert [row["recall"]["n"] for row in truth["patterns"]] == [2] * 9
    assert all(row["image_a"][:-5] == row["image_b"][:-5] for row in made)


def test_a_plan_reads_no_picture(photos, tmp_path):
    told = plan(MineConfig(source=str(photos)), out=tmp_path / "run")
    assert (told["images"], told["compared"]) == (32, 32 * 31 // 2)
    assert told["semantic"] == "openai/clip-vit-large-patch14"
    assert not (tmp_path / "run").exists()
    assert plan(MineConfig(source="world:", pairs=3))["images"] == 54
