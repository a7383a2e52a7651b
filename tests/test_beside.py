"""Several models on one benchmark: what the first one's folder is told of the others, against counts by hand."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from eyechart.core.errors import UserError
from eyechart.core.files import write_table
from eyechart.exam import ExamResult, examine, place_beside
from eyechart.exam.results import PAIRS_SCHEMA
from small_world import small_world


@pytest.fixture(scope="module")
def one(tmp_path_factory, checkpoint_dir) -> ExamResult:
    """A real exam of eight pairs in four patterns."""
    root = tmp_path_factory.mktemp("one")
    on = small_world(root / "benchmark", pairs=4, each=2)
    model = str(checkpoint_dir("llava"))
    return examine(model, on=str(on), reference="none", max_new_tokens=2, out=root / "run")


def copy(one: ExamResult, folder: Path, right: list[bool]) -> ExamResult:
    """The same exam with these pairs right, as another model might have left it."""
    shutil.copytree(one.folder, folder)
    rows = pq.read_table(folder / "pairs.parquet").to_pylist()
    assert len(rows) == len(right)
    write_table(
        folder / "pairs.parquet",
        [{**row, "pair_right": value} for row, value in zip(rows, right, strict=True)],
        PAIRS_SCHEMA,
    )
    return replace(one, folder=folder, page=folder / "report.html")


def test_differences_are_counted_on_the_same_pairs(one, tmp_path):
    before = [True, True, True, False, False, False, False, False]
    after = [True, False, True, True, True, True, True, True]
    first, second = copy(one, tmp_path / "a", before), copy(one, tmp_path / "b", after)
    placed = place_beside([first, second])
    [other] = placed.results["eyechart"]["beside"]["others"]
    against = other["against"]
    assert (against["fixes"], against["regressions"], against["n"]) == (5, 1, 8)
    assert against["difference"] == 0.5
    assert against["p_value"] == pytest.approx(binomtest(1, 6).pvalue)
    assert against["verdict"] == "undecided"
    pattern = {
        row["pair_id"]: row["pattern"] for row in pq.read_table(first.folder / "pairs.parquet").to_pylist()
    }
    raw = {}
    for row in other["patterns"]:
        places = [place for place, name in enumerate(pattern.values()) if name == row["pattern"]]
        assert row["against"]["fixes"] == sum(after[p] and not before[p] for p in places)
        assert row["against"]["regressions"] == sum(before[p] and not after[p] for p in places)
        raw[row["pattern"]] = row["against"]["p_value"]
        assert row["against"]["p_holm"] >= row["against"]["p_value"]
    assert set(raw) == set(pattern.values())
    lowest = min(other["patterns"], key=lambda row: row["against"]["p_value"])["against"]
    assert lowest["p_holm"] == pytest.approx(min(1.0, len(raw) * lowest["p_value"]))


def test_the_folder_of_the_first_alone_is_changed_and_stays_a_run(one, tmp_path):
    first, second = copy(one, tmp_path / "a", [False] * 8), copy(one, tmp_path / "b", [True] * 8)
    kept = {path.name: path.read_bytes() for path in second.folder.iterdir() if path.is_file()}
    before = json.loads((first.folder / "results.json").read_text("utf8"))
    placed = place_beside([first, second])
    assert {path.name: path.read_bytes() for path in second.folder.iterdir() if path.is_file()} == kept
    after = json.loads((first.folder / "results.json").read_text("utf8"))
    beside = after["eyechart"].pop("beside")
    assert after == before
    assert beside["others"][0]["against"]["verdict"] == "better"
    assert beside["others"][0]["page"] == "../b/report.html"
    rows = pq.read_table(first.folder / "beside.parquet").to_pylist()
    assert [row["pair_right"] for row in rows] == [False] * 8 + [True] * 8
    assert 'id="beside"' in placed.page.read_text("utf8")
    assert any("Beside it" in line for line in placed.summary)
    again = place_beside([first, second])
    assert again.results == placed.results


def test_exams_on_other_pairs_are_refused(one, tmp_path):
    first, second = copy(one, tmp_path / "a", [False] * 8), copy(one, tmp_path / "b", [True] * 8)
    block = {
        **second.results["eyechart"],
        "benchmark": {**second.results["eyechart"]["benchmark"], "sha256": "0" * 64},
    }
    other = replace(second, results={**second.results, "eyechart": block})
    with pytest.raises(UserError, match=r"were not examined on the same pairs .* and 000000000000"):
        place_beside([first, other])
    with pytest.raises(UserError, match="1 exams cannot be set beside one another"):
        place_beside([first])
