"""`eyechart compare` from the command line: lines for people, JSON for programs, the same folder again."""

import json

import pyarrow.parquet as pq
import pytest

from eyechart.cli import main
from logs_made import choices, eyechart_run, kit_rows, kit_table, letters, made_items

ITEMS = made_items(20)


@pytest.fixture
def runs(tmp_path) -> list[str]:
    a = eyechart_run(tmp_path / "a", ITEMS, {"": choices(ITEMS, wrong=range(1, 21, 2))})
    replies = letters(ITEMS, choices(ITEMS))
    b = kit_table(tmp_path / "other_MMVP.tsv", kit_rows(ITEMS, replies, index_from=0))
    return [str(a), str(b)]


def told(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(["compare", *words])
    said = capsys.readouterr()
    assert isinstance(done.value.code, int)
    return done.value.code, said.out, said.err


def test_lines_for_people_and_a_folder(capsys, tmp_path, runs):
    out = tmp_path / "out"
    code, data, err = told(capsys, *runs, "--out", str(out))
    assert (code, data) == (0, "")
    assert "other against org/model: better, +50.0 points [" in err
    assert "10 pairs right only in other, 0 only in org/model, n=20 pairs, p=0.002" in err
    assert f"page: {out / 'compare.html'}" in err
    assert pq.read_table(out / "pairs.parquet").num_rows == 2 * 20
    assert pq.read_table(out / "items.parquet").num_rows == 2 * 40
    before = (out / "compare.json").read_bytes()
    code, _, err = told(capsys, *runs, "--out", str(out))
    assert code == 0
    assert "were compared before" in err
    assert (out / "compare.json").read_bytes() == before


def test_json_and_quiet(capsys, tmp_path, runs):
    code, data, err = told(capsys, *runs, "--out", str(tmp_path / "out"), "--json")
    assert (code, err) == (0, "")
    assert json.loads(data)["comparisons"][0]["overall"]["fixes"] == 10
    code, data, err = told(capsys, *runs, "--out", str(tmp_path / "out"), "--quiet")
    assert (code, data, err) == (0, "", "")


@pytest.mark.slow
def test_a_log_that_changed_since_is_another_comparison(capsys, tmp_path, runs):
    out = str(tmp_path / "out")
    assert told(capsys, *runs, "--out", out)[0] == 0
    kit_table(
        tmp_path / "other_MMVP.tsv", kit_rows(ITEMS, letters(ITEMS, choices(ITEMS, wrong=[1])), index_from=0)
    )
    code, _, err = told(capsys, *runs, "--out", out)
    assert code == 2
    assert "holds a run with another config" in err
    assert told(capsys, *runs, "--out", out, "--fresh")[0] == 0


def test_other_items_are_refused_and_common_compares_what_there_is(capsys, tmp_path, runs):
    rows = kit_rows(ITEMS[:30], letters(ITEMS, choices(ITEMS)))
    part = str(kit_table(tmp_path / "part_MMVP.csv", rows))
    code, _, err = told(capsys, runs[0], part, "--out", str(tmp_path / "out"))
    assert code == 2
    assert "--common compares on the 30 items that both have" in err
    assert not (tmp_path / "out").exists()
    code, _, err = told(capsys, runs[0], part, "--out", str(tmp_path / "out"), "--common")
    assert code == 0
    assert "n=15 pairs" in err


def test_fresh_removes_what_was_made(capsys, tmp_path, runs):
    out = tmp_path / "out"
    told(capsys, *runs, "--out", str(out))
    (out / "mine.txt").write_text("kept")
    code, _, _ = told(capsys, *runs, "--out", str(out), "--fresh", "--seed", "3")
    assert code == 0
    assert (out / "mine.txt").read_text() == "kept"
    assert json.loads((out / "compare.json").read_text())["seed"] == 3
