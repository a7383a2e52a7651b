"""`score` from beginning to end: every variant logged, resumed anywhere, refused where it should be."""

import json
from pathlib import Path

import pytest
import torch

import eyechart
from eyechart.core.errors import UserError
from eyechart.core.images import open_image
from eyechart.core.records import Prompt
from eyechart.score.config import ScoreConfig, command_of
from eyechart.score.lines import lines_of
from eyechart.score.opening import WorldChoice, open_questions
from eyechart.score.run import plan, score
from eyechart.score.variants import Variant, put
from small_world import small_world


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory) -> Path:
    return small_world(tmp_path_factory.mktemp("set") / "pictures", pairs=3)


@pytest.fixture(scope="module")
def llava(checkpoint_dir) -> str:
    return str(checkpoint_dir("llava"))


def config(llava: str, benchmark: Path, **options) -> ScoreConfig:
    return ScoreConfig(model=llava, on=str(benchmark), **{"max_new_tokens": 3, "batch_size": 2, **options})


def samples(folder: Path, variant: str = "") -> list[dict]:
    path = folder / f"samples_pictures{variant}.jsonl"
    return [json.loads(line) for line in path.read_text("utf8").splitlines()]


def without_times(folder: Path) -> dict[str, bytes]:
    results = json.loads((folder / "results.json").read_text("utf8"))
    assert results.pop("date")
    logs = {path.name: path.read_bytes() for path in sorted(folder.glob("samples_*.jsonl"))}
    return {"results.json": json.dumps(results).encode(), **logs}


def test_every_way_of_asking_has_its_log_and_its_measures(llava, benchmark, tmp_path):
    asked = config(llava, benchmark, ask="options", also=("swapped", "blank", "none", "other", "side=20"))
    scored = score(asked, out=tmp_path / "run")
    block = scored.results["eyechart"]
    assert [each["task"] for each in block["variants"]] == [
        "pictures", "pictures@swapped", "pictures@blank", "pictures@none", "pictures@other", "pictures@side=20",
    ]  # fmt: skip
    for each in block["variants"]:
        rows = samples(tmp_path / "run", each["task"].removeprefix("pictures"))
        assert len(rows) == 6
        right = {row["doc_id"]: row["right"] for row in rows}
        pairs = {row["doc"]["pair_id"] for row in rows}
        hits = sum(
            all(right[row["doc_id"]] for row in rows if row["doc"]["pair_id"] == pair) for pair in pairs
        )
        first = each["measures"][0]
        assert (first["name"], first["hits"], first["n"], first["unit"]) == (
            "pair_accuracy",
            hits,
            3,
            "pairs",
        )
        assert sum(row["n"] for row in each["patterns"]) == 3
        assert scored.results["results"][each["task"]]["pair_accuracy,none"] == first["value"]
    swapped = samples(tmp_path / "run", "@swapped")
    assert {tuple(row["order"]) for row in swapped} == {(1, 0)}
    assert all(
        row["answer"] == plain["answer"]
        for row, plain in zip(swapped, samples(tmp_path / "run"), strict=True)
    )


def test_a_plain_script_gets_the_same_answers(llava, benchmark, tmp_path):
    score(config(llava, benchmark, ask="options", batch_size=4), out=tmp_path / "run")
    vlm = eyechart.load_vlm(llava)
    rows = {row["doc_id"]: row for row in samples(tmp_path / "run")}
    for asked in put(open_questions(str(benchmark), bundled=tmp_path), Variant()):
        text = vlm.render(asked.prompt())
        scores = []
        for label in asked.labels:
            batch = vlm.processor(
                text=[text + vlm.join(asked.prompt()) + label],
                images=[open_image(asked.item.image).image],
                return_tensors="pt",
            )
            with torch.no_grad():
                logits = vlm.model(**batch).logits[0].log_softmax(-1)
            scores.append(float(logits[-2, batch["input_ids"][0, -1]]))
        assert rows[asked.item.id]["option_scores"] == pytest.approx(scores, abs=1e-4)
        assert rows[asked.item.id]["choice"] == scores.index(max(scores))


@pytest.mark.slow
def test_ways_in_one_batch_give_the_answers_of_each_way_alone(llava, benchmark, tmp_path):
    several = config(llava, benchmark, ask="options", also=("swapped", "numbers"), batch_size=6)
    score(several, out=tmp_path / "several")
    alone = {"": {}, "@swapped": {"order": "swapped"}, "@numbers": {"template": "number"}}
    for variant, options in alone.items():
        score(config(llava, benchmark, ask="options", **options), out=tmp_path / f"alone{variant}")
        both = zip(samples(tmp_path / "several", variant), samples(tmp_path / f"alone{variant}"), strict=True)
        for one, other in both:
            assert one["doc_id"] == other["doc_id"]
            assert one["prompt"] == other["prompt"]
            assert one["option_scores"] == pytest.approx(other["option_scores"], abs=1e-4)


class Stop(Exception):
    """Raised from the progress callback, as a Ctrl-C would be."""


@pytest.mark.parametrize(("stage", "at"), [("asking", 2), ("asking (swapped)", 4)])
def test_interrupted_anywhere_it_ends_with_the_same_results(stage, at, llava, benchmark, tmp_path):
    asked = config(llava, benchmark, also=("swapped",))
    score(asked, out=tmp_path / "unbroken")

    def stop(name: str, done: int, total: int) -> None:
        if (name, done) == (stage, at):
            raise Stop

    with pytest.raises(Stop):
        score(asked, out=tmp_path / "run", progress=stop)
    assert not (tmp_path / "run/results.json").exists()
    score(asked, out=tmp_path / "run")
    assert without_times(tmp_path / "run") == without_times(tmp_path / "unbroken")


def test_a_finished_run_is_shown_again_without_the_model(llava, benchmark, tmp_path, monkeypatch):
    first = score(config(llava, benchmark), out=tmp_path / "run")
    monkeypatch.setattr("eyechart.score.held.load_chosen", None)
    again = score(config(llava, benchmark), out=tmp_path / "run")
    assert (again.again, again.results) == (True, first.results)
    with pytest.raises(UserError, match='template: "letter" → "mmvp"'):
        score(config(llava, benchmark, template="mmvp"), out=tmp_path / "run")


def test_a_judge_reads_what_the_rules_left_and_is_told_beside(llava, benchmark, tmp_path):
    asked = config(llava, benchmark, judge=llava, judge_for="all")
    (each,) = score(asked, out=tmp_path / "run").results["eyechart"]["variants"]
    lines = (tmp_path / "run/judged_pictures.jsonl").read_text("utf8").splitlines()
    rows = {row["doc_id"]: row for row in map(json.loads, lines)}
    assert len(rows) == each["judged"]["decided_on"] == 6
    assert {row["reply"] for row in rows.values()} == {
        row["resps"][0][0] for row in samples(tmp_path / "run")
    }
    assert each["judged"]["measures"][0]["n"] == each["measures"][0]["n"] == 3
    assert all(row["clear"] or row["judge"] is None for row in rows.values())
    with pytest.raises(UserError, match="a judge reads replies"):
        config(llava, benchmark, judge=llava, ask="options")


def test_option_texts_are_compared_by_token(llava, benchmark, tmp_path):
    score(config(llava, benchmark, ask="texts", template="mmvp"), out=tmp_path / "run")
    vlm = eyechart.load_vlm(llava)
    row = samples(tmp_path / "run")[0]
    prompt = Prompt(text=row["prompt"], images=(open_image(Path(row["doc"]["image"])).image,))
    texts = [vlm.join(prompt) + option for option in row["doc"]["options"]]
    assert row["option_scores"] == pytest.approx(vlm.option_scores(prompt, texts, per_token=True), abs=1e-4)


@pytest.mark.slow
def test_sets_of_the_world_are_rendered_for_the_occasion(llava, tmp_path):
    asked = ScoreConfig(model=llava, on="world:cv", pairs=1, ask="options", limit=6)
    scored = score(asked, out=tmp_path / "run")
    block = scored.results["eyechart"]
    assert block["benchmark"]["rule"] == "cv-bench"
    assert block["variants"][0]["measures"][0]["name"] == "combined"
    told = ScoreConfig(model=llava, on="world", pairs=1, ask="options", limit=3, show="told")
    rows = score(told, out=tmp_path / "told")
    assert rows.results["eyechart"]["variants"][0]["measures"][0]["n"] == 3


def test_a_plan_loads_no_weights(llava, benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr("eyechart.score.held.load_chosen", None)
    said = plan(config(llava, benchmark, also=("blank",)), out=tmp_path / "run")
    assert (said["model_kind"], said["ways"], said["set"]["pairs"]) == ("vlm", ["base", "blank"], 3)
    assert plan(ScoreConfig(model=llava, limit=10))["set"] == {"pairs": 18}
    assert list(tmp_path.iterdir()) == []


def test_lines_for_people_hold_every_interval(llava, benchmark, tmp_path):
    lines = lines_of(score(config(llava, benchmark, ask="options"), out=tmp_path / "run").results)
    assert any("pair accuracy" in line and "n=3 pairs (chance 25.0%)" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"also": ("swaped",)}, "Did you mean 'swapped'"),
        ({"also": ("blank", "blank")}, "'blank' was asked for twice"),
        ({"also": ("letter",)}, "changes nothing"),
        ({"limit": 0}, "limit must be 1 or more"),
        ({"retries": -1}, "must be 0 or more"),
        ({"scene_seed": 3, "on": "./mmvp"}, "draw scenes of the world and './mmvp' was named"),
        ({"size": 95}, "96 to 672 pixels"),
        ({"template": "leter"}, "Did you mean 'letter'"),
    ],
)
def test_wrong_choices_are_named(options, message):
    with pytest.raises(UserError, match=message):
        ScoreConfig(**{"model": "zoo:llava-biased", **options})


def test_the_command_that_runs_it_again_names_every_choice():
    asked = ScoreConfig(model="a/b", also=("blank", "side=48"), template="mmvp", trust_remote_code=True)
    words = command_of(asked, Path("run"))
    assert words[:3] == ["eyechart", "score", "a/b"]
    assert words.count("--also") == 2
    assert "--trust-remote-code" in words
    assert words[-2:] == ["--out", "run"]
    served = command_of(ScoreConfig(model="http://host/v1", served_model="m"), Path("run"))
    assert served[:5] == ["eyechart", "score", "m", "--base-url", "http://host/v1"]
    assert "--served-model" not in served
    assert len({asked.slug, ScoreConfig(model="a/b").slug, ScoreConfig(model="a/b", limit=3).slug}) == 3


def test_world_choices_draw_no_more_than_is_asked():
    assert WorldChoice().plan(10).pairs == 2
    assert WorldChoice(pairs=3).plan(None).pairs == 3
