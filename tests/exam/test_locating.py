"""Locating in the exam: verdicts from twins or from a benchmark's own pairs, resumable, and said why where there are none."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from eyechart.core.errors import UserError
from eyechart.exam import ExamConfig, examine
from eyechart.exam.config import rerun_command
from eyechart.exam.locating import probe_patterns, why_no_probes
from eyechart.exam.stage import Stage
from eyechart.locate.config import LocateConfig
from eyechart.locate.lines import lines_of
from eyechart.locate.run import locate
from server_parts import fake_server
from small_world import small_world


def located(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text("utf8"))["eyechart"]["located"]


@pytest.mark.slow
def test_a_benchmark_whose_pairs_share_no_label_is_undecided_without_a_forward_pass(
    checkpoint_dir, tmp_path, monkeypatch
):
    on = small_world(tmp_path / "pictures", pairs=3)
    monkeypatch.setattr("eyechart.exam.locating.StageReader.__call__", None)
    result = examine(str(checkpoint_dir("llava")), on=str(on), out=tmp_path / "run", reference="none")
    block = located(tmp_path / "run")
    assert block["missing"] is None
    assert [row["verdict"] for row in block["patterns"]] == ["undecided"] * 3
    assert all("too few pairs share a label" in row["reason"] for row in block["patterns"])
    assert pq.read_table(tmp_path / "run/located.parquet").num_rows == 0
    page = result.page.read_text("utf8")
    assert "Where it is lost" in page
    assert "too few pairs share a label" in page


@pytest.mark.slow
def test_a_limit_that_leaves_too_few_twins_renders_none(tmp_path):
    examine("untrained", out=tmp_path / "run", limit=3, max_new_tokens=2, reference="none")
    block = located(tmp_path / "run")
    assert {row["verdict"] for row in block["patterns"]} == {"undecided"}
    assert len(block["patterns"]) == 9
    assert not list((tmp_path / "bundled").glob("twins*"))


def test_locate_reads_every_layer_on_a_benchmarks_own_pairs(checkpoint_dir, tmp_path):
    on = small_world(tmp_path / "pictures", pairs=3)
    config = LocateConfig(model=str(checkpoint_dir("llava")), on=str(on), only=("probes",))
    found = locate(config, probes=probe_patterns, out=tmp_path / "run").results["eyechart"]
    assert [row["verdict"] for row in found["probes"]["patterns"]] == ["undecided"] * 3
    assert "where each pattern is lost" in "\n".join(lines_of({"eyechart": found}))
    assert locate(config, probes=probe_patterns, out=tmp_path / "run").again


@pytest.mark.slow
def test_it_is_left_out_where_nobody_wants_it(checkpoint_dir, tmp_path):
    on = small_world(tmp_path / "pictures", pairs=2)
    config = ExamConfig(
        model=str(checkpoint_dir("llava")), on=str(on), reference="none", max_new_tokens=2, locate=False
    )
    result = examine(config=config, out=tmp_path / "run")
    assert located(tmp_path / "run") is None
    assert not (tmp_path / "run/located.parquet").exists()
    assert "Where it is lost" not in result.page.read_text("utf8")
    assert "--no-locate" in rerun_command(config, tmp_path / "run")
    assert "--no-locate" not in rerun_command(ExamConfig(model="untrained"), tmp_path / "run")


def test_a_server_says_why_there_is_none(tmp_path):
    on = small_world(tmp_path / "pictures", pairs=2)
    with fake_server(reply=lambda question: "A") as fake:
        examine(fake.base_url, on=str(on), out=tmp_path / "run", reference="none")
    assert "is a server, which gives replies and none of the states" in located(tmp_path / "run")["missing"]
    page = (tmp_path / "run/report.html").read_text("utf8")
    assert "Not examined: " in page


def test_a_model_without_states_says_why_there_are_none(checkpoint_dir, tmp_path):
    on = small_world(tmp_path / "pictures", pairs=2)
    stage = Stage(
        ExamConfig(model=str(checkpoint_dir("llava")), on=str(on), reference="none"), tmp_path / "run"
    )
    assert why_no_probes(stage.vlm) is None
    stage.vlm.__dict__["cannot"] = {"hidden_states": "its image stands beside the sequence"}
    assert (
        why_no_probes(stage.vlm)
        == "the model gives no states that probes could read: its image stands beside the sequence"
    )


@pytest.fixture
def two_patterns(monkeypatch):
    monkeypatch.setattr("eyechart.exam.locating.TWINS", 12)
    monkeypatch.setattr("eyechart.exam.locating_items.PATTERNS", ("color", "orientation"))


OPTIONS = {"pairs": 1, "reference": "none", "max_new_tokens": 4}


@pytest.mark.slow
def test_a_model_of_the_zoo_is_located_and_every_number_is_in_the_table(two_patterns, tmp_path):
    result = examine("zoo:llava-biased", out=tmp_path / "run", **OPTIONS)
    block, rows = located(tmp_path / "run"), pq.read_table(tmp_path / "run/located.parquet").to_pylist()
    assert [row["pattern"] for row in block["patterns"]] == ["color", "orientation"]
    color = block["patterns"][0]
    names = [stage["stage"] for stage in color["stages"]]
    assert names[:3] == ["vision 1", "vision 6", "fed"]
    assert "language 0 image" in names
    assert names[-1] == "language 8 last"
    assert color["stages"][2]["pairs"]["value"] > 0.5, (
        "a colour is read from what the projector reads, at twice chance"
    )
    for row in block["patterns"]:
        assert row["pairs"] == 12
        assert sum(row["shares"].values()) == pytest.approx(1)
        for stage in row["stages"]:
            own = [r for r in rows if (r["pattern"], r["stage"]) == (row["pattern"], stage["stage"])]
            assert len(own) == 12
            assert sum(r["read"] for r in own) / 12 == pytest.approx(stage["pairs"]["value"])
            assert sum(r["control"] for r in own) / 12 == pytest.approx(stage["control"]["value"])
        answers = [r for r in rows if (r["pattern"], r["stage"]) == (row["pattern"], "answer")]
        assert sum(r["read"] for r in answers) == row["answered"]["hits"]
    assert "Pairs read along the stages" in result.page.read_text("utf8")


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_like_an_unbroken_one(two_patterns, tmp_path):
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "reading stages" and done == 1:
            raise UserError("stopped")

    with pytest.raises(UserError, match="stopped"):
        examine("zoo:llava-biased", out=tmp_path / "a", progress=stop, **OPTIONS)
    kept = (tmp_path / "a/located/readings.jsonl").read_bytes()
    assert kept.count(b"\n") == 1
    examine("zoo:llava-biased", out=tmp_path / "a", **OPTIONS)
    examine("zoo:llava-biased", out=tmp_path / "b", **OPTIONS)
    assert (tmp_path / "a/located/readings.jsonl").read_bytes().startswith(kept)
    for name in ("located/readings.jsonl", "located/answers.jsonl", "located.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert located(tmp_path / "a") == located(tmp_path / "b")
