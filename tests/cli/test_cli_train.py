"""`eyechart train`: what it refuses, what it renders, what it writes, and that it goes on where it was stopped."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from eyechart import zoo
from eyechart.cli import main, train
from eyechart.cli.train import Job, _vlm_name
from eyechart.recipes import RECIPES
from eyechart.recipes.clip import RATES
from eyechart.world.sets import load_set, render_set
from eyechart.world.sets_plan import SetPlan


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main([*words])
    said = capsys.readouterr()
    assert isinstance(done.value.code, int)
    return done.value.code, said.out, said.err


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_list_of_recipes_is_what_train_can_run(capsys):
    code, out, _ = run(capsys, "list", "recipes", "--json")
    assert (code, json.loads(out)["recipes"]) == (
        0,
        [asdict(recipe) | {"needs": list(recipe.needs)} for recipe in RECIPES.values()],
    )
    assert list(train.TAKES) == list(train._RUN) == list(RECIPES)
    assert set(train.CLIPS.values()) == set(RATES)
    code, out, _ = run(capsys, "list", "recipes")
    assert f"  masked  {RECIPES['masked'].about} Needs: scenes. About" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clips"], "no recipe named 'clips'. Did you mean 'clip'?"),
        (["clip", "--rates", "told_al"], "Did you mean 'told-all'?"),
        (
            ["vlm", "--clip", "clip-biasd"],
            "no CLIP of the zoo named 'clip-biasd'. Did you mean 'clip-biased'?",
        ),
        (["masked", "--rates", "biased"], "--rates biased is not for masked, but for clip: leave it out"),
        (["clip", "--clip", "clip-biased"], "--clip clip-biased is not for clip, but for vlm"),
        (["tokenizer", "--max-steps", "3"], "--max-steps 3 is not for tokenizer, but for clip, masked"),
        (["zoo", "--seed", "1"], "--seed 1 is not for zoo, but for tokenizer, clip, masked"),
        (["vlm", "--second", "maee"], "no vision-only encoder of the zoo named 'maee'. Did you mean 'mae'?"),
        (["vlm", "--second", "mae", "--mixture", "aditive"], "Did you mean 'additive'?"),
        (["vlm", "--mixture", "additive"], "say how a second encoder is joined: give --second, too"),
        (
            ["vlm", "--second", "mae", "--alpha", ".5"],
            "--alpha 0.5 is the CLIP's share in --mixture additive",
        ),
        (
            ["vlm", "--second", "mae", "--mixture", "additive", "--alpha", "2"],
            "--alpha 2.0 is the CLIP's share in --mixture additive: give both, and a share from 0 to 1",
        ),
        (["clip", "--second", "mae"], "--second mae is not for clip, but for vlm"),
        (["masked", "--questions", "3"], "--questions 3 is not for masked, but for vlm: leave it out"),
        (["vlm", "--questions", "0"], "--questions 0 teach nothing: give 1 or more of each pattern"),
        (["masked", "--scenes", "0"], "0 scenes in families of 1: give 1 scene or more"),
        (["masked", "--scenes", "4", "--max-steps", "0"], "max_steps is 0; it must be at least 1"),
        (
            ["vlm", "--out", "zoo"],
            "zoo/clip-biased is not there yet; first: eyechart train clip --rates biased --out",
        ),
        (["vlm", "--clip", "clip-told-all"], "first: eyechart train clip --rates told-all --out build/zoo"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_made(capsys, place, monkeypatch, words, said):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("rendered before the mistake was seen")

    monkeypatch.setattr("eyechart.world.sets._render_missing", never)
    code, out, err = run(capsys, "train", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_a_vision_only_encoder_from_scenes_that_are_there(capsys, caplog, place):
    render_set(place / "scenes/train", SetPlan(split="train", scenes=8), workers=1, size=96)
    words = ["train", "masked", "--world", "scenes", "--out", "zoo", "--work", "work", "--max-steps", "2"]
    words += ["--batch-size", "4"]
    code, out, err = run(capsys, *words, "--seed", "3")
    assert (code, out) == (0, "")
    assert "training" in err
    assert 'load it: transformers.AutoModel.from_pretrained("zoo/mae")' in err
    assert AutoModel.from_pretrained("zoo/mae").config.num_hidden_layers == 6
    told = json.loads((place / "work/mae/settings.json").read_text())["settings"]
    assert (told["max_steps"], told["per_device_train_batch_size"], told["seed"]) == (2, 4, 3)
    first = (place / "zoo/mae/model.safetensors").read_bytes()
    code, out, err = run(capsys, *words, "--seed", "3", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["folder"] == "zoo/mae"
    assert (place / "zoo/mae/model.safetensors").read_bytes() == first
    config = place / "scenes/train/config.yaml"
    config.write_text(config.read_text().replace("world: ", "world: older-"))
    assert run(capsys, *words, "--seed", "3", "--quiet")[0] == 0
    assert "scenes/train was rendered by another version of the world; it is used as it is" in caplog.text
    code, _, err = run(capsys, *words, "--seed", "4", "--quiet")
    assert code == 2
    assert "work/mae holds a run with other settings (seed was 3, now 4). Name another folder" in err
    for name in ("clip-biased", "lm"):
        (place / "zoo" / name).mkdir()
        (place / "zoo" / name / "config.json").write_text("{}")
    code, _, err = run(
        capsys, "train", "vlm", "--world", "scenes", "--out", "zoo", "--batch-size", "9", "--quiet"
    )
    assert code == 2
    assert (
        "batches of 9 examples out of 8 scenes cannot be made: give a --batch-size of at most 8, or more"
        in err
    )
    code, _, err = run(capsys, *words, "--scenes", "9", "--quiet")
    assert code == 2
    assert "scenes/train holds 8 scenes, not 9: leave --scenes out, or name another --world" in err


def test_a_stage_that_begins_again_gets_its_own_bar():
    drawn = []
    report = train.stages(lambda *told: drawn.append(told))
    for told in [("rendering", 0, 4), ("rendering", 4, 4), ("rendering", 0, 4), ("rendering", 4, 4)]:
        report(*told)
    for told in [("train", 2, 2), ("train", 2, 9), ("train", 3, 9)]:
        report(*told)
    assert drawn == [
        ("rendering", 0, 4), ("rendering", 4, 4), ("rendering (2)", 0, 4), ("rendering (2)", 4, 4),
        ("training", 2, 2), ("training (2)", 2, 9), ("training (2)", 3, 9),
    ]  # fmt: skip


def test_zoo_and_cards_get_the_folders_of_the_command(capsys, place, monkeypatch):
    from eyechart.recipes import cards, zoo

    asked = {}
    monkeypatch.setattr(zoo, "make_zoo", lambda steps: asked.update(steps))
    monkeypatch.setattr(zoo, "steps", lambda **how: [(name, how[name]) for name in ("world", "work", "zoo")])
    words = ["--out", "z", "--work", "k", "--world", "w"]
    code, _, err = run(capsys, "train", "zoo", *words)
    assert (code, err) == (0, "done: z\n")
    assert {name: str(path) for name, path in asked.items()} == {"world": "w", "work": "k", "zoo": "z"}
    monkeypatch.setattr(cards, "recompute_cards", lambda **how: asked.update(how) or how["zoo"] / "gate.json")
    code, out, _ = run(capsys, "train", "cards", *words, "--json")
    assert (code, json.loads(out)) == (0, {"recipe": "cards", "folder": "z/gate.json", "load": None})
    assert (str(asked["world"]), str(asked["work"])) == ("w/cards", "k/cards")


@pytest.mark.slow
def test_from_an_empty_folder_to_a_vlm_with_an_interruption(capsys, place, monkeypatch):
    whole = train.stages

    def stopped(bars):
        report = whole(bars)

        def told(stage: str, done: int, total: int) -> None:
            report(stage, done, total)
            if stage == "rendering" and done:
                raise KeyboardInterrupt

        return told

    words = [
        "train",
        "clip",
        "--rates",
        "told-all",
        "--scenes",
        "128",
        "--max-steps",
        "2",
        "--batch-size",
        "16",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(train, "stages", stopped)
        code, _, err = run(capsys, *words)
    assert code == 130
    assert "error: interrupted; the same command continues where this one stopped" in err
    assert len((place / "build/world/train/shards.jsonl").read_text().splitlines()) == 1
    code, _, err = run(capsys, *words)
    assert code == 0
    assert "rendering" in err
    assert "training" in err
    assert len(load_set(place / "build/world/train").images) == 128
    assert AutoModel.from_pretrained("build/zoo/clip-told-all").config.model_type == "clip"
    assert AutoProcessor.from_pretrained("build/zoo/clip-told-all") is not None

    assert run(capsys, "train", "language-model", "--max-steps", "1", "--batch-size", "2", "--quiet")[0] == 0
    assert AutoModelForCausalLM.from_pretrained("build/zoo/lm").config.num_hidden_layers >= 8
    words = ["train", "vlm", "--clip", "clip-told-all", "--max-steps", "1", "--batch-size", "4"]
    code, _, err = run(capsys, *words)
    assert code == 0
    assert "examine it: eyechart exam build/zoo/llava-told-all" in err
    assert "Loading weights" not in err
    found = AutoModelForImageTextToText.from_pretrained("build/zoo/llava-told-all")
    assert found.config.model_type == "llava"

    assert run(capsys, *words, "--questions", "2", "--quiet")[0] == 0
    record = json.loads((place / "build/zoo/llava-told-all-2/training.json").read_text())
    assert set(record["questions"].values()) == {2}
    assert (place / "build" / "work" / "llava-told-all-2" / "options").is_dir()

    code, _, err = run(capsys, "train", "two-view")
    assert code == 2
    assert "first: eyechart train masked" in err
    shutil.copytree(zoo.path("mae"), place / "build" / "zoo" / "mae")
    words = ["train", "two-view", "--scenes", "16", "--max-steps", "2", "--batch-size", "8"]
    code, _, err = run(capsys, *words)
    assert code == 0
    assert "rendering (2)" in err
    assert AutoModel.from_pretrained("build/zoo/two-view").config.image_size == 96


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({}, "llava-told-all"),
        ({"questions": 9}, "llava-told-all-9"),
        ({"second": "two-view"}, "imof-told-all"),
        ({"second": "two-view", "mixture": "concatenated", "questions": 9}, "concatenated-told-all-9"),
        ({"second": "mae", "mixture": "additive"}, "amof-0.5-told-all-mae"),
        ({"second": "mae", "mixture": "additive", "alpha": 0.25}, "amof-0.25-told-all-mae"),
    ],
)
def test_a_vlm_is_named_after_what_it_sees_through(asked, name):
    nothing = dict.fromkeys(
        field for field in Job.__dataclass_fields__ if field not in ("world", "out", "work")
    )
    folders = {"world": Path("world"), "out": Path("out"), "work": Path("work")}
    job = Job(**{**nothing, "recipe": "vlm", **folders, **asked})
    assert _vlm_name(job, "clip-told-all") == name
