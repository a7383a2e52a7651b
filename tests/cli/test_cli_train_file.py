"""`eyechart train RECIPE.yaml`: what it refuses, what a dry run says, and a model from a recipe file."""

import json

import pytest
import yaml
from transformers import AutoModelForImageTextToText

from eyechart.cli import main
from llava_parts import plan_of, save_small_llava, write_rows


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main([*words])
    said = capsys.readouterr()
    assert isinstance(done.value.code, int)
    return done.value.code, said.out, said.err


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "data")
    plan = plan_of("llava", "data/llava.json", "out")
    (tmp_path / "llava.yaml").write_text(yaml.safe_dump(plan))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.yaml"], "none.yaml cannot be read"),
        (["llava.yaml", "--rates", "biased"], "--rates biased is not for a recipe file: leave it out"),
        (["llava.yaml", "--max-steps", "x"], "Invalid value for '--max-steps'"),
    ],
)
def test_what_cannot_be_done_is_said(capsys, place, words, said):
    code, out, err = run(capsys, "train", *words)
    assert (code, out) == (2, "")
    assert said in err


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(capsys, place):
    before = sorted(place.rglob("*"))
    code, out, _ = run(capsys, "train", "llava.yaml", "--dry-run", "--max-steps", "7", "--batch-size", "3")
    assert code == 0
    told = json.loads(out)
    assert told["stages"]["stage2"] == {
        "trains": "adapters and language model",
        "data": {"rows": 12, "text_only": 4, "one_image": 7, "more_images": 1, "images": 9},
        "steps_on_one_process": 7,
        "rows_a_step": 3,
        "learning_rate": 0.01,
    }
    assert sorted(place.rglob("*")) == before


def test_a_dry_run_of_a_zoo_recipe_says_where_it_would_be(capsys, place):
    code, out, _ = run(capsys, "train", "clip", "--dry-run", "--out", "zoo")
    assert code == 0
    assert (json.loads(out)["name"], json.loads(out)["folder"]) == ("clip", "zoo")
    assert not (place / "zoo").exists()


@pytest.mark.slow
def test_a_model_from_a_recipe_file(capsys, place):
    save_small_llava(place)
    code, out, err = run(capsys, "train", "llava.yaml", "--out", "mine", "--max-steps", "2")
    assert (code, out) == (0, "")
    assert "examine it: eyechart exam mine/model" in err
    assert "training (2)" in err
    assert AutoModelForImageTextToText.from_pretrained("mine/model").config.model_type == "llava"
    code, out, err = run(capsys, "train", "llava.yaml", "--out", "mine", "--max-steps", "2", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["folder"] == "mine/model"
    code, _, err = run(capsys, "train", "llava.yaml", "--out", "mine", "--max-steps", "3", "--quiet")
    assert code == 2
    assert "holds a run with other settings (max_steps was 2, now 3" in err
