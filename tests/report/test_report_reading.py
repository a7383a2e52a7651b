"""A folder that is no finished run of a known schema is refused, and the refusal names file, key and remedy."""

import json
import subprocess
import sys

import pytest

from eyechart.core.errors import UserError
from eyechart.report import write_report
from eyechart.report.reading import read_run, read_thumb

REMEDY = "eyechart exam MODEL --on BENCHMARK"


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_no_folder_is_told_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match=rf"no run folder at '.*nowhere'.*{REMEDY}"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["results.json", "manifest.json", "pairs.parquet", "quarantine.parquet"])
def test_a_missing_file_is_named(folder, tmp_path, name):
    run = folder.write(tmp_path / "run")
    (run / name).unlink()
    with pytest.raises(UserError, match=rf"holds no {name}(?s:.*){REMEDY}(?s:.*)same command again"):
        read_run(run)


def test_missing_samples_are_named(folder, tmp_path):
    run = folder.write(tmp_path / "run")
    (run / "samples_toy.jsonl").unlink()
    with pytest.raises(UserError, match=r"holds no samples_<task>\.jsonl"):
        read_run(run)


def test_an_empty_quarantine_needs_no_file_and_settings_need_none_either(folder, tmp_path):
    folder.quarantine = []
    run = folder.score().write(tmp_path / "run")
    (run / "quarantine.parquet").unlink()
    (run / "config.yaml").unlink()
    found = read_run(run)
    assert (found.quarantine, found.config) == ((), None)


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_schema_is_refused(folder, tmp_path, schema):
    folder.block["schema"] = schema
    run = folder.write(tmp_path / "run")
    with pytest.raises(UserError, match=rf"schema is {schema!r}, and this version of Eyechart reads 1"):
        read_run(run)


def test_results_of_another_tool_are_refused(folder, tmp_path):
    run = folder.write(tmp_path / "run")
    edit(run / "results.json", lambda value: value.pop("eyechart"))
    with pytest.raises(UserError, match="key 'eyechart' is missing"):
        read_run(run)


@pytest.mark.parametrize("key", ["model", "score", "patterns", "find", "warnings", "reference_missing"])
def test_a_missing_key_of_the_results_is_named(folder, tmp_path, key):
    del folder.block[key]
    with pytest.raises(UserError, match=rf"results\.json: eyechart: the key '{key}' is missing"):
        read_run(folder.write(tmp_path / "run"))


def test_a_missing_key_deep_down_is_named_with_its_path(folder, tmp_path):
    del folder.block["score"]["pairs"]["low"]
    with pytest.raises(UserError, match=r"the key 'score\.pairs\.low' is missing"):
        read_run(folder.write(tmp_path / "run"))


def test_a_value_of_the_wrong_kind_is_shown(folder, tmp_path):
    folder.block["score"]["above_chance"] = "beside"
    with pytest.raises(UserError, match=r"'score\.above_chance' is 'beside'"):
        read_run(folder.write(tmp_path / "run"))


@pytest.mark.parametrize("key", ["eyechart", "rerun", "model", "packages"])
def test_a_missing_key_of_the_manifest_is_named(folder, tmp_path, key):
    del folder.manifest[key]
    with pytest.raises(UserError, match=rf"manifest\.json: the key '{key}' is missing"):
        read_run(folder.write(tmp_path / "run"))


@pytest.mark.parametrize(
    ("text", "match"), [("{", "no valid JSON"), ("[1]", "holds a list, expected an object")]
)
def test_a_damaged_manifest_is_refused(folder, tmp_path, text, match):
    run = folder.write(tmp_path / "run")
    (run / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=rf"manifest\.json.*{match}"):
        read_run(run)


def test_a_torn_line_of_samples_is_named_by_its_number(folder, tmp_path):
    run = folder.write(tmp_path / "run")
    with (run / "samples_toy.jsonl").open("a") as handle:
        handle.write('{"doc_id": "torn')
    with pytest.raises(UserError, match=r"samples_toy\.jsonl, line 25 is no valid JSON"):
        read_run(run)


def test_a_sample_without_a_reply_is_named_by_line_and_key(folder, tmp_path):
    del folder.samples[3]["resps"]
    with pytest.raises(UserError, match=r"line 4: the key 'resps' is missing"):
        read_run(folder.write(tmp_path / "run"))


def test_a_pair_of_unknown_items_is_refused(folder, tmp_path):
    folder.pairs[2]["item_b"] = "item-of-yesterday"
    with pytest.raises(UserError, match=r"pair 'pair-2' names the item 'item-of-yesterday'"):
        read_run(folder.write(tmp_path / "run"))


def test_a_damaged_table_is_refused(folder, tmp_path):
    run = folder.write(tmp_path / "run")
    (run / "pairs.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(UserError, match=r"pairs\.parquet cannot be read"):
        read_run(run)


def test_nan_in_a_table_is_the_same_as_unknown(folder, tmp_path):
    folder.pairs[0]["similarity_model"] = float("nan")
    assert read_run(folder.write(tmp_path / "run")).pairs[0].similarity_model is None


def test_line_separators_inside_a_reply_do_not_split_a_line(folder, tmp_path):
    folder.samples[0]["resps"] = [["one\u2028two\x85three"]]
    run = folder.write(tmp_path / "run")
    lines = [json.dumps(sample, ensure_ascii=False) for sample in folder.samples]
    (run / "samples_toy.jsonl").write_text("\n".join(lines), encoding="utf-8", newline="\n")
    assert read_run(run).samples["item-0-0"].resps == (("one\u2028two\x85three",),)


def test_numbers_may_stand_for_item_ids(folder, tmp_path):
    folder.samples[0]["doc_id"] = 7
    folder.pairs[0]["item_a"] = "7"
    assert "7" in read_run(folder.write(tmp_path / "run")).samples


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a.b", "ü"])
def test_a_thumb_is_looked_up_by_hash_alone(tmp_path, name):
    (tmp_path / "thumbs").mkdir()
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff")
    assert read_thumb(tmp_path, name) is None


def test_the_report_loads_no_torch():
    code = "import sys, eyechart.report; print(sorted({'torch', 'transformers', 'matplotlib', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
