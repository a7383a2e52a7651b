"""Mining real photos: shop photos and COCO photos, as a folder, as shards and as tables; a thousand damaged files among them."""

import shutil

import numpy as np
import pytest

from broken_images import broken_folder
from eyechart.core.files import read_table
from eyechart.find.config import MineConfig
from eyechart.recipes.mine import mine
from photo_sources import as_parquet, as_tars

pytestmark = pytest.mark.slow

ZOO = {"semantic": "zoo:clip-biased", "reference": "zoo:two-view"}
LOOSE = {"min_semantic": "p90", "max_reference": "p70", "workers": 1, "pictured": 5}


def held(source, out, **options):
    return mine(MineConfig(source=str(source), **(LOOSE | options)), out=out)


def rows_of(folder):
    return [
        (row["sha256_a"], row["sha256_b"], row["semantic"], row["reference"])
        for row in read_table(folder / "pairs.parquet")
    ]


@pytest.fixture(scope="module")
def photos(shared_data, tmp_path_factory):
    """Sixty shop photos and forty of COCO's, in one folder."""
    folder = tmp_path_factory.mktemp("real") / "photos"
    for name, count in (("grocery-store", 60), ("coco-open-subset", 40)):
        found = sorted((shared_data / name).rglob("*.jpg"))
        (folder / name).mkdir(parents=True)
        for place, path in enumerate(found[:: len(found) // count][:count]):
            shutil.copy(path, folder / name / f"{place:02d}.jpg")
    return folder


@pytest.mark.parametrize("encoders", ["zoo", "random weights"])
def test_photos_are_mined_alike_from_folder_shards_and_tables(photos, tmp_path, checkpoint_dir, encoders):
    named = ZOO
    if encoders != "zoo":
        named = {"semantic": str(checkpoint_dir("clip")), "reference": str(checkpoint_dir("dinov2"))}
    data = {
        f"{path.parent.name}-{path.stem}": (path.read_bytes(), path.parent.name)
        for path in sorted(photos.rglob("*.jpg"))
    }
    tars = as_tars(tmp_path / "tars", data, label_in="cls", suffix=lambda name: ".jpg")
    tables = as_parquet(tmp_path / "tables", data, struct=True)
    results = [
        held(source, tmp_path / "runs" / name, **named)
        for name, source in (("folder", photos), ("tars", tars), ("tables", tables))
    ]
    found = [rows_of(result.folder) for result in results]
    assert len(found[0]) > 5
    assert found[0] == found[1] == found[2]
    assert {result.results["unique"] for result in results} == {100}
    near, far = np.array([row[2:] for row in found[0]]).T
    assert (near > results[0].results["semantic"]["threshold"]).all()
    assert (far < results[0].results["reference"]["threshold"]).all()


def test_a_thousand_damaged_files_are_listed_and_change_nothing(photos, tmp_path):
    every = {**ZOO, "min_semantic": "0.8", "max_reference": "0.94"}
    every |= {"per_image": 1000, "per_burst": 1000, "budget": 1_000_000}
    clean = held(photos, tmp_path / "runs" / "clean", **every)
    mixed = tmp_path / "mixed"
    shutil.copytree(photos, mixed)
    (mixed / "damaged").mkdir()
    broken_folder(mixed / "damaged", mutants=1000, seed=0)
    result = held(mixed, tmp_path / "runs" / "mixed", **every)
    bad = read_table(result.folder / "quarantine.parquet")
    assert len(bad) > 300
    assert {row["path"].split("/")[0] for row in bad} == {"damaged"}
    ours = {row["sha256"] for part in (clean.folder / "images").iterdir() for row in read_table(part)}
    listed = [row for row in rows_of(result.folder) if {row[0], row[1]} <= ours]
    assert len(listed) > 5
    assert listed == rows_of(clean.folder)
