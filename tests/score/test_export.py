"""Sets written for other tools are read back as the same exam, and their scorers give Eyechart's own numbers."""

import ast
import base64
import csv
import importlib.util
import io
import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from benchmark_files import in_table, mmvp_rows, paired_rows, png, write_parquet
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_grading import READ, UNREAD

from eyechart.core.errors import UserError
from eyechart.core.records import Benchmark
from eyechart.score import build_prompt, grade_reply, load_benchmark, measure, read_choice
from eyechart.score.cells import LETTERS
from eyechart.score.config import ScoreConfig
from eyechart.score.engine import run_lmms_eval
from eyechart.score.export import FORMATS, export, task_name
from eyechart.score.export.parquet import write_shards
from eyechart.score.export.reader import reader_source
from eyechart.score.export.rows import rows_of
from eyechart.score.logs import read_logs
from eyechart.score.run import score
from small_world import small_world


def run_reader() -> ModuleType:
    made = ModuleType("reader")
    exec(compile(reader_source(), "reader", "exec"), made.__dict__)
    return made


READER = run_reader()


def load_file(path: Path) -> ModuleType:
    """As lmms-eval loads a task's functions: from the file, under a name that is not registered."""
    spec = importlib.util.spec_from_file_location("utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def docs_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "data").to_pylist()
    return rows


@pytest.fixture
def pairs(tmp_path: Path, drawn: Any) -> Benchmark:
    """Six pairs of two patterns whose ids, sorted, do not stand pair by pair."""
    rows = paired_rows(drawn(12), patterns=("color", "state"))
    for number, row in enumerate(rows):
        row["id"] = f"{'ab'[number % 2]}{number // 2}"
    path = tmp_path / "set.json"
    path.write_text(json.dumps(rows))
    return load_benchmark(path)


# ---------------------------------------------------------------------------------------------- the reader


@pytest.mark.parametrize(("reply", "options", "choice"), READ)
def test_the_reader_that_is_handed_on_reads_what_ours_reads(reply, options, choice):
    labels = LETTERS[: len(options)]
    assert READER.read_choice(reply, options, labels) == choice == read_choice(reply, options, labels)


@pytest.mark.parametrize(("reply", "options"), UNREAD)
def test_the_reader_that_is_handed_on_guesses_nothing(reply, options):
    assert READER.read_choice(reply, options, LETTERS[: len(options)]) is None


WORDS = (
    "A",
    "B",
    "(b)",
    "Open",
    "closed",
    "the",
    "answer is",
    "not",
    "final answer:",
    "Yes",
    ",",
    ".",
    "\n",
    "?",
)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(WORDS), max_size=8), st.sampled_from([("Open", "Closed"), ("Yes", "No")]))
def test_both_readers_agree_on_any_reply(said, options):
    reply = " ".join(said)
    assert READER.read_choice(reply, options, "AB") == read_choice(reply, options, "AB")


def test_the_reader_that_is_handed_on_needs_nothing_of_ours_and_no_name_stands_twice():
    tree = ast.parse(reader_source())
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
    named = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    named += [target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
              if isinstance(target, ast.Name)]  # fmt: skip
    assert len(named) == len(set(named))
    assert not {"grade_reply", "Graded"} & set(named)


# ---------------------------------------------------------------------------------------------- the hub


@pytest.mark.slow
def test_a_dataset_of_the_hub_is_read_back_as_the_same_exam(tmp_path, all_of_mmvp):
    ours = load_benchmark(all_of_mmvp)
    made = export(ours, "hf", tmp_path / "out", licence="mit")
    again = load_benchmark(made.folder, images=tmp_path / "images")
    assert again.sha256 == ours.sha256
    assert again.rows_sha256 == ours.rows_sha256
    assert again.corrections == ours.corrections
    assert again.rule == "pairs"
    assert any("corrections stand beside" in note for note in made.notes)


def test_datasets_reads_it_with_pictures_pair_by_pair(tmp_path, pairs):
    export(pairs, "hf", tmp_path / "out")
    read = datasets.load_dataset(str(tmp_path / "out"), split="test", cache_dir=str(tmp_path / "cache"))
    assert isinstance(read.features["image"], datasets.Image)
    assert len(read) == 12
    rows = list(read)
    by_id = {item.id: item for item in pairs.items}
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert (first["pair_id"], first["side"], second["side"]) == (second["pair_id"], "a", "b")
        assert first["answer"] != second["answer"]
    for row in rows:
        item = by_id[row["id"]]
        assert (row["question"], tuple(row["options"])) == (item.question, item.options)
        assert "AB".index(row["answer"]) == item.answer
        with Image.open(item.image) as image:
            assert row["image"].tobytes() == image.convert("RGB").tobytes()


def test_the_card_says_what_it_is_and_how_it_is_scored(tmp_path, all_of_mmvp):
    ours = load_benchmark(all_of_mmvp)
    export(ours, "hf", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["license"] == "unknown"
    assert told["dataset_info"]["splits"] == [{"name": "test", "num_examples": 300}]
    columns = pq.read_schema(next((tmp_path / "out" / "data").iterdir())).names
    assert [each["name"] for each in told["dataset_info"]["features"]] == columns
    for words in (
        "A pair counts only if both its items are right", "50.0% of the items and 25.0% of the pairs", ours.sha256,
        ours.rows_sha256, "tsb0601/MMVP#30", "| 99 | A | B |", "never by their place",
    ):  # fmt: skip
        assert words in body, words
    assert str(all_of_mmvp.parent) not in text  # a card is published: no path of this machine


def test_shards_hold_whole_pairs_and_are_read_as_one_table(tmp_path, pairs):
    names = write_shards(tmp_path / "data", rows_of(pairs), split="test", shard=1)
    assert names == [f"test-{number:05d}-of-00006.parquet" for number in range(6)]
    for name in names:
        rows = pq.read_table(tmp_path / "data" / name).to_pylist()
        assert len(rows) == 2
        assert rows[0]["pair_id"] == rows[1]["pair_id"]
    (tmp_path / "img").rename(tmp_path / "elsewhere")
    (tmp_path / "set.json").unlink()
    assert load_benchmark(tmp_path, images=tmp_path / "images").sha256 == pairs.sha256


def test_items_alone_and_several_pictures_come_back_too(tmp_path):
    rows = [
        {
            "id": f"q{number}",
            "question": "Which picture is brighter?",
            "options": ["the first", "the second", "neither"],
            "answer": "ABC"[number],
            "image_1": in_table(png(number)),
            "image_2": in_table(png(100 + number)) if number else None,
        }
        for number in range(3)
    ]
    ours = load_benchmark(write_parquet(tmp_path / "set.parquet", rows), kind="items", images=tmp_path / "i")
    assert [len(item.images) for item in ours.items] == [1, 2, 2]
    export(ours, "hf", tmp_path / "out")
    again = load_benchmark(tmp_path / "out", kind="items", images=tmp_path / "images")
    assert (again.sha256, again.rows_sha256) == (ours.sha256, ours.rows_sha256)


# ---------------------------------------------------------------------------------------------- what is refused


def test_a_letter_that_is_another_options_text_is_put_in_brackets(pairs):
    swapped = [replace(item, options=("B", "A")) for item in pairs.items]
    assert {row.answer for row in rows_of(replace(pairs, items=tuple(swapped)))} == {"(A)", "(B)"}
    hopeless = [replace(item, options=("B", "(A)", "A"), answer=0) for item in pairs.items]
    with pytest.raises(UserError, match="cannot be named by its letter"):
        rows_of(replace(pairs, items=tuple(hopeless)))


def test_a_picture_that_changed_is_noticed_and_nothing_is_left_behind(tmp_path, pairs):
    pairs.items[3].image.write_bytes(png(999))
    for to in FORMATS:
        with pytest.raises(UserError, match="has changed since the set was loaded"):
            export(pairs, to, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["img", "set.json"]


def test_a_folder_in_use_and_unknown_formats_and_names_are_refused(tmp_path, pairs):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        export(pairs, "hf", tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    with pytest.raises(UserError, match="Did you mean 'lmms-eval'"):
        export(pairs, "lmms_eval", tmp_path / "new")
    with pytest.raises(UserError, match="a name of Python"):
        export(pairs, "inspect", tmp_path / "new", task="my task")
    with pytest.raises(UserError, match="a pair has two items, this one has 1"):
        export(replace(pairs, items=pairs.items[:1]), "hf", tmp_path / "new")


# ---------------------------------------------------------------------------------------------- lmms-eval


@pytest.fixture
def task(tmp_path: Path, pairs: Benchmark) -> Path:
    made = export(pairs, "lmms-eval", tmp_path / "tasks")
    assert made.task == task_name(pairs) == "eyechart_set"
    return made.folder / made.task


def test_the_task_asks_as_we_ask(task, pairs):
    utils = load_file(task / "utils.py")
    prompts = {item.id: build_prompt(item, "letter").text for item in pairs.items}
    around = yaml.load((task / "eyechart_set.yaml").read_text(), with_functions(task))
    given = around["lmms_eval_specific_kwargs"]["default"]
    for doc in docs_of(task):
        assert utils.doc_to_text(doc, given) == utils.doc_to_text(doc) == prompts[doc["id"]]


def with_functions(folder: Path) -> type[yaml.SafeLoader]:
    """A reader of YAML that does with `!function` what lmms-eval does."""

    class Loader(yaml.SafeLoader):
        pass

    def find(loader: yaml.SafeLoader, node: Any) -> Any:
        module, _, name = str(loader.construct_scalar(node)).partition(".")
        return getattr(load_file(folder / f"{module}.py"), name)

    Loader.add_constructor("!function", find)
    return Loader


def test_the_task_names_functions_that_are_there_and_finds_its_data_wherever_it_lies(task, tmp_path):
    moved = task.rename(tmp_path / "moved")
    told = yaml.load((moved / "eyechart_set.yaml").read_text(), with_functions(moved))
    assert told["cluster_key"] == "pair_id"
    assert told["generation_kwargs"]["max_new_tokens"] == 16
    assert all(callable(one["aggregation"]) for one in told["metric_list"])
    (file,) = told["dataset_kwargs"]["data_files"]["test"]
    assert Path(file).parent == moved / "data"
    assert Path(file).is_file()
    results = told["process_results"](docs_of(moved)[0], ["A"])
    assert {one["metric"] for one in told["metric_list"]} <= set(results)


@pytest.mark.parametrize("seed", range(5))
def test_the_tasks_metrics_are_our_measures(task, pairs, seed):
    utils = load_file(task / "utils.py")
    rng = random.Random(seed)
    replies = {item.id: rng.choice(["A", "B", "(b)", "Yes", "no", "both", ""]) for item in pairs.items}
    docs = docs_of(task)
    rng.shuffle(docs)
    logged = [utils.process_results(doc, [replies[doc["id"]]]) for doc in docs]
    graded = [grade_reply(item, replies[item.id], "AB") for item in pairs.items]
    ours = {one.name: one for one in measure("pairs", pairs.items, graded)}
    pair, image = ours["pair_accuracy"], ours["image_accuracy"]
    assert utils.pair_accuracy([one["pair_accuracy"] for one in logged]) == pytest.approx(pair.value)
    assert utils.pair_accuracy_low([one["pair_accuracy_low"] for one in logged]) == pytest.approx(pair.low)
    assert utils.pair_accuracy_high([one["pair_accuracy_high"] for one in logged]) == pytest.approx(pair.high)
    assert utils.mean([one["image_accuracy"] for one in logged]) == pytest.approx(image.value)
    assert utils.mean([one["unread"] for one in logged]) == pytest.approx(ours["unread"].value)
    assert all(type(one["score"]) is float for one in logged)
    assert all("score" not in one["pair_accuracy"] for one in logged)  # its mean is not the pair accuracy


def test_half_a_pair_is_no_pair(task):
    utils = load_file(task / "utils.py")
    records = [utils.process_results(doc, [doc["answer"]])["pair_accuracy"] for doc in docs_of(task)]
    assert utils.pair_accuracy(records[:3]) == 1.0
    assert math.isnan(utils.pair_accuracy(records[:1]))
    assert math.isnan(utils.pair_accuracy_low([]))


def test_a_transparent_picture_is_laid_on_white(task):
    utils = load_file(task / "utils.py")
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    (shown,) = utils.doc_to_visual({"image": clear})
    assert shown.mode == "RGB"
    assert shown.getpixel((0, 0)) == (255, 255, 255)


def test_items_that_are_in_no_pairs_are_counted_one_by_one(tmp_path, pairs):
    single = replace(pairs, rule="items", items=tuple(replace(item, pair_id="") for item in pairs.items))
    made = export(single, "lmms-eval", tmp_path / "tasks", task="single")
    utils = load_file(made.folder / "single" / "utils.py")
    assert not hasattr(utils, "pair_accuracy")
    docs = docs_of(made.folder / "single")
    logged = [utils.process_results(doc, ["A"]) for doc in docs]
    assert utils.mean([one["accuracy"] for one in logged]) == 0.5
    told = yaml.load(
        (made.folder / "single" / "single.yaml").read_text(), with_functions(made.folder / "single")
    )
    assert [one["metric"] for one in told["metric_list"]] == ["accuracy", "unread"]
    other = export(replace(single, rule="pope"), "lmms-eval", tmp_path / "other")
    assert any("does not travel" in note for note in other.notes)
    assert "do not quote" in (other.folder / other.task / "README.md").read_text()


@pytest.mark.slow
def test_lmms_eval_gives_our_score_item_by_item(tmp_path):
    """The task run by lmms-eval itself on a model of the zoo, and by us: prompts, replies, verdicts and pair score."""
    if not os.environ.get("EYECHART_LMMS_EVAL"):
        pytest.skip("EYECHART_LMMS_EVAL does not name the python of an environment with lmms-eval")
    ours = load_benchmark(small_world(tmp_path / "world", pairs=9))
    made = export(ours, "lmms-eval", tmp_path / "tasks")
    logs = run_lmms_eval("zoo:llava-biased", [str(made.folder / made.task)], tmp_path / "theirs")
    here = score(
        ScoreConfig(model="zoo:llava-biased", on=str(tmp_path / "world"), batch_size=1), out=tmp_path / "ours"
    )
    mine = {row["doc_id"]: row for row in lines(next((tmp_path / "ours").glob("samples_*.jsonl")))}
    theirs = lines(next(logs.rglob("*_samples_*.jsonl")))
    assert {row["image_accuracy"]["id"] for row in theirs} == set(mine)
    for row in theirs:
        own = mine[row["image_accuracy"]["id"]]
        assert row["input"] == own["prompt"]
        assert row.get("resps", row["filtered_resps"]).strip() == own["resps"][0][0].strip()
        assert row["image_accuracy"]["read"] == own["filtered_resps"][0]
        assert row["score"] == own["right"]
    (results,) = json.loads(next(logs.rglob("*_results.json")).read_text())["results"].values()
    (expected,) = here.results["results"].values()
    for name in ("pair_accuracy,none", "image_accuracy,none", "unread,none"):
        assert results[name] == pytest.approx(expected[name]), name
    (log,) = read_logs(logs)
    assert {one.id: one.right for one in log.answers} == {
        name: bool(row["right"]) for name, row in mine.items()
    }


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---------------------------------------------------------------------------------------------- VLMEvalKit


def rows_of_tsv(path: Path) -> list[dict[str, str]]:
    before = csv.field_size_limit(2**31 - 1)
    try:
        return list(csv.DictReader(io.StringIO(path.read_text()), delimiter="\t"))
    finally:
        csv.field_size_limit(before)


def test_the_table_of_vlmevalkit_holds_every_item_and_its_picture(tmp_path, mmvp):
    ours = load_benchmark(mmvp(mmvp_rows(3)))
    made = export(ours, "vlmevalkit", tmp_path / "out")
    rows = rows_of_tsv(made.folder / f"{made.task}.tsv")
    assert [row["index"] for row in rows] == [item.id for item in ours.items] == list("123456")
    for row, item in zip(rows, ours.items, strict=True):
        assert base64.b64decode(row["image"]) == item.image.read_bytes()
        assert (row["question"], row["A"], row["B"]) == (item.question, *item.options)
        assert row["answer"] == "AB"[item.answer]
    assert [row["pair_id"] for row in rows] == list("112233")
    assert any("counts items" in note for note in made.notes)


def test_results_of_vlmevalkit_on_that_table_are_read_back_pair_by_pair(tmp_path, pairs):
    made = export(pairs, "vlmevalkit", tmp_path / "out")
    rows = rows_of_tsv(made.folder / f"{made.task}.tsv")
    assert [row["index"] for row in rows] == [str(number) for number in range(1, 13)]
    assert [row["original_id"] for row in rows][:2] == ["a0", "b0"]
    kept = [
        {**row, "prediction": row["answer"] if number != 1 else "both"} for number, row in enumerate(rows)
    ]
    path = tmp_path / "model_set.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in kept[0] if name != "image"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
    (log,) = read_logs(path)
    assert [one.right for one in log.answers] == [True, False, *[True] * 10]
    assert [one.unread for one in log.answers] == [False, True, *[False] * 10]
    assert len({one.pair_id for one in log.answers}) == 6


# ---------------------------------------------------------------------------------------------- inspect


def test_the_task_of_inspect_has_its_samples_beside_it(tmp_path, pairs):
    made = export(pairs, "inspect", tmp_path / "out", task="doors")
    samples = lines(made.folder / "samples.jsonl")
    assert len(samples) == 12
    by_id = {item.id: item for item in pairs.items}
    for sample in samples:
        item = by_id[sample["id"]]
        (name,) = sample["images"]
        assert (made.folder / name).read_bytes() == item.image.read_bytes()
        assert sample["prompt"] == build_prompt(item, "letter").text
        assert sample["target"] == "AB"[item.answer]
    tree = ast.parse((made.folder / "doors.py").read_text())
    tasks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "doors"]
    assert [ast.unparse(each) for each in tasks[0].decorator_list] == ["task"]
    assert "eyechart" not in re.sub(r'"""(.|\n)*?"""', "", ast.unparse(tree)).lower()


DRIVER = """
import base64, hashlib, json, sys
from inspect_ai import eval as run
from inspect_ai.model import ModelOutput, ModelUsage, get_model

replies = json.load(open(sys.argv[2]))

def reply(messages, tools, choice, config):
    picture, = [part for part in messages[-1].content if part.type == "image"]
    shown = base64.b64decode(picture.image.partition("base64,")[2])
    out = ModelOutput.from_content("mockllm", replies[hashlib.sha256(shown).hexdigest()])
    out.usage = ModelUsage()  # else its tokens would be counted with a table from the network
    return out

log, = run(sys.argv[1], model=get_model("mockllm/model", custom_outputs=reply), log_dir=sys.argv[3], display="none")
assert log.status == "success", log.error
print(json.dumps({name: one.value for score in log.results.scores for name, one in score.metrics.items()}))
"""


@pytest.mark.slow
def test_inspect_gives_our_score(tmp_path, pairs):
    python = os.environ.get("EYECHART_INSPECT")
    if not python:
        pytest.skip("EYECHART_INSPECT does not name the python of an environment with inspect-ai")
    made = export(pairs, "inspect", tmp_path / "out")
    rng = random.Random(1)
    replies = {item.id: rng.choice(["A", "B", "Yes", "No.", "both"]) for item in pairs.items}
    shown = {item.image_sha256: replies[item.id] for item in pairs.items}
    (tmp_path / "replies.json").write_text(json.dumps(shown))
    words = [f"{made.task}.py", str(tmp_path / "replies.json"), str(tmp_path / "logs")]
    done = subprocess.run(
        [python, "-c", DRIVER, *words], cwd=made.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    ours = {one.name: one for one in measure("pairs", pairs.items, graded_of(pairs, replies))}
    assert 0 < ours["pair_accuracy"].value < 1
    assert theirs["pair_accuracy"] == pytest.approx(ours["pair_accuracy"].value)
    assert theirs["pair_accuracy_low"] == pytest.approx(ours["pair_accuracy"].low)
    assert theirs["accuracy"] == pytest.approx(ours["image_accuracy"].value)
    assert theirs["unread"] == pytest.approx(ours["unread"].value)


def graded_of(benchmark: Benchmark, replies: dict[str, str]) -> Sequence[Any]:
    return [grade_reply(item, replies[item.id], "AB") for item in benchmark.items]
