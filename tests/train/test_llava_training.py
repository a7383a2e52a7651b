"""Two stages from end to end: what moves and what does not, a killed run resumed, steps cut otherwise, processes together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from eyechart.core.config import build
from eyechart.core.errors import UserError
from eyechart.recipes.llava import described, train_from_file, world_table
from eyechart.train.curves import draw_curves, read_losses
from eyechart.train.plan import StagePlan, TrainPlan, read_plan
from eyechart.train.samples import Sample, open_picture, read_samples
from eyechart.world.sets import load_set, render_set
from eyechart.world.sets_plan import SetPlan
from llava_parts import plan_of, rows, save_small_llava, write_rows

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("training")
    save_small_llava(made)
    write_rows(made / "data")
    return made


def recipe(folder: Path, out: Path, **options) -> Path:
    plan = plan_of(folder / "llava", folder / "data" / "llava.json", out, **options)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "llava.yaml"
    file.write_text(yaml.safe_dump(plan))
    return file


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def losses(out: Path) -> dict[str, list[float]]:
    return {
        stage: [line["loss"] for line in read_losses(out / stage / "loss.jsonl")]
        for stage in ("stage1", "stage2")
    }


@pytest.fixture(scope="module")
def unbroken(folder):
    out = folder / "unbroken"
    train_from_file(recipe(folder, out))
    return out


def test_the_trained_model_is_a_checkpoint_as_any_other(folder, unbroken):
    model = AutoModelForImageTextToText.from_pretrained(unbroken / "model")
    processor = AutoProcessor.from_pretrained(unbroken / "model")
    inputs = processor(
        text="USER: <image>\nIs it? ASSISTANT:", images=[Image.new("RGB", (24, 24))], return_tensors="pt"
    )
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[1] > inputs["input_ids"].shape[1]
    before, after = load_file(folder / "llava" / "model.safetensors"), weights(unbroken)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value) == ("vision_tower" in name or "v_bias" in name), name


def test_stage_one_leaves_the_language_model_and_hands_its_adapters_on(folder, unbroken):
    first = load_file(unbroken / "stage1" / "adapters.safetensors")
    assert set(first) == {
        f"multi_modal_projector.linear_{number}.{kind}" for number in (1, 2) for kind in ("weight", "bias")
    }
    kept = load_file(unbroken / "stage1" / "checkpoint-4" / "model.safetensors")
    assert set(kept) == {f"adapters.{name}" for name in first}
    before = load_file(folder / "llava" / "model.safetensors")
    last = load_file(unbroken / "stage2" / "adapters.safetensors")
    for name, value in first.items():
        [there] = [other for key, other in before.items() if key.endswith(name)]
        assert not torch.equal(value, there)
        assert not torch.equal(value, last[name])


def test_losses_are_written_and_drawn(unbroken):
    assert {stage: len(found) for stage, found in losses(unbroken).items()} == {"stage1": 4, "stage2": 4}
    with Image.open(unbroken / "loss.png") as drawn:
        assert drawn.size[0] > drawn.size[1] > 200
    draw_curves({"stage1": unbroken / "stage1" / "loss.jsonl"}, unbroken / "one.svg")
    assert (
        "loss on answers" in (unbroken / "one.svg").read_text()
        or (unbroken / "one.svg").stat().st_size > 5000
    )
    with pytest.raises(UserError, match="there is no loss log"):
        draw_curves({"stage1": unbroken / "none.jsonl"}, unbroken / "none.png")


class Killed(Exception):
    """Raised in the middle of a run."""


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "step"), [(1, 1), (1, 3), (2, 2), (2, 3)])
def test_a_run_that_was_stopped_ends_with_the_weights_of_the_unbroken_one(
    folder, unbroken, tmp_path, stage, step
):
    turns = []

    def stop(name: str, done: int, total: int) -> None:
        if name == "train":
            turns.append(done)
            if turns.count(0) == stage and done == step:
                raise Killed

    file = recipe(folder, tmp_path)
    with pytest.raises(Killed):
        train_from_file(file, report=stop)
    train_from_file(file)
    for name, value in weights(unbroken).items():
        assert torch.equal(weights(tmp_path)[name], value), name
    assert losses(tmp_path) == losses(unbroken)


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_bits(folder, tmp_path):
    """SIGKILL once the first checkpoint of stage 2 is whole; the same command then ends as one that was never killed."""
    code = "import sys, pathlib; from eyechart.recipes.llava import train_from_file; train_from_file(pathlib.Path(sys.argv[1]))"
    more = {"stage2": {"max_steps": 30, "save_steps": 2, "lora": {"r": 2, "lora_dropout": 0.1}}}
    command = [sys.executable, "-c", code]
    whole = recipe(folder, tmp_path / "whole", **more)
    subprocess.run([*command, str(whole)], check=True, env=environment())
    broken = recipe(folder, tmp_path / "broken", **more)
    process = subprocess.Popen([*command, str(broken)], env=environment())
    while not list((tmp_path / "broken" / "stage2").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "broken" / "model").exists()
    subprocess.run([*command, str(broken)], check=True, env=environment())
    assert (tmp_path / "broken/model/model.safetensors").read_bytes() == (
        tmp_path / "whole/model/model.safetensors"
    ).read_bytes()


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **more}


SPLIT = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "save_steps": 10}


@pytest.mark.slow
def test_a_step_of_two_times_four_is_one_of_one_times_eight(folder, tmp_path):
    """Losses are weighted by tokens over the whole step, so answers of other lengths in other batches change nothing."""
    found = {}
    for name, options in (
        ("split", SPLIT),
        ("whole", SPLIT | {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}),
    ):
        stage = options | {"max_steps": 1, "warmup_steps": 0}
        train_from_file(recipe(folder, tmp_path / name, stage1=stage, stage2=stage))
        found[name] = losses(tmp_path / name)
    for stage in ("stage1", "stage2"):
        assert found["split"][stage] == pytest.approx(found["whole"][stage], rel=1e-5)
    one, other = weights(tmp_path / "split"), weights(tmp_path / "whole")
    # AdamW's first step is the rate times a sign: where a gradient is nearly zero, rounding decides
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 5e-5


LAUNCH = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
    str(TESTS / "fsdp_on_cpu.py"),
]


def launched(file: Path, **environ: str) -> None:
    subprocess.run(
        [*LAUNCH, str(file)],
        check=True,
        timeout=600,
        env=environment(**environ),
    )


@pytest.fixture(scope="module")
def one_process(folder):
    """Two batches a step, on one process; among them steps in which one of the two has no image."""
    out = folder / "one"
    train_from_file(
        recipe(
            folder,
            out,
            stage1=SPLIT | {"gradient_accumulation_steps": 2},
            stage2=SPLIT | {"gradient_accumulation_steps": 2},
        )
    )
    return out


FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


@pytest.mark.slow
@pytest.mark.parametrize("environ", [{}, FSDP], ids=["ddp", "fsdp2"])
def test_two_processes_train_as_one_does(folder, one_process, tmp_path, environ):
    stage = SPLIT | {"gradient_accumulation_steps": 1}
    launched(recipe(folder, tmp_path, stage1=stage, stage2=stage), **environ)
    for name, found in losses(one_process).items():
        assert losses(tmp_path)[name] == pytest.approx(found, rel=1e-5)
    one, two = weights(one_process), weights(tmp_path)
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["whole", "lora"])
def test_sharded_training_that_was_killed_ends_as_one_that_was_not(folder, tmp_path, lora):
    """SIGKILL to all processes once a checkpoint of stage 2 is whole; the same command then ends with the same weights."""
    stage = SPLIT | {"gradient_accumulation_steps": 1}
    more = {"stage1": stage, "stage2": stage | {"max_steps": 12, "save_steps": 3, "lora": lora}}
    whole, broken = (recipe(folder, tmp_path / name, **more) for name in ("whole", "broken"))
    launched(whole, **FSDP)
    process = psutil.Popen([*LAUNCH, str(broken)], env=environment(**FSDP), stderr=subprocess.DEVNULL)
    while not list((tmp_path / "broken" / "stage2").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    for one in [process, *process.children(recursive=True)]:  # each worker has a session of its own
        one.kill()
    psutil.wait_procs([process], timeout=60)
    assert not (tmp_path / "broken" / "model").exists()
    launched(broken, **FSDP)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert one.keys() == other.keys()
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-6
    began = load_file(folder / "llava" / "model.safetensors")
    assert any("language_model" in name and not torch.equal(one[name], began[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("save", ["merged", "adapter"])
def test_lora_in_stage_two(folder, tmp_path, save):
    lora = {"lora": {"r": 2, "save": save}, "gradient_checkpointing": True}
    out = train_from_file(recipe(folder, tmp_path, stage2=lora))
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert not any("lora" in name for name, _ in model.named_parameters())
    before = AutoModelForImageTextToText.from_pretrained(folder / "llava").state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    language = {name for name in changed if "language_model" in name}
    assert changed - language == {name for name in before if "multi_modal_projector" in name}
    assert (len(language) == 21) == (save == "merged")
    assert (tmp_path / "lora" / "adapter_config.json").is_file() == (save == "adapter")


@pytest.mark.slow
def test_bad_rows_are_listed_and_the_rest_is_learnt(folder, tmp_path, caplog):
    data = tmp_path / "data"
    write_rows(data)
    (data / "0.png").write_bytes(b"no picture")
    told = rows(12)
    told[2]["conversations"] = []
    (data / "llava.json").write_text(json.dumps(told))
    plan = plan_of(folder / "llava", data / "llava.json", tmp_path / "out")
    file = tmp_path / "llava.yaml"
    file.write_text(yaml.safe_dump(plan))
    train_from_file(file)
    listed = [
        json.loads(line) for line in (tmp_path / "out/stage1/quarantined.jsonl").read_text().splitlines()
    ]
    bad = [number for number, row in enumerate(told) if "0.png" in str(row.get("image"))]
    assert {(one["row"], one["reason"]) for one in listed} == {(2, "no_turns")} | {
        (n, "bad_image") for n in bad
    }
    counts = json.loads((tmp_path / "out/stage1/data.json").read_text())
    assert (counts["rows"], counts["rejected"]) == (12 - len(listed), len(listed))
    assert f"{len(listed)} set aside" in caplog.text


def test_stage_one_without_an_image_is_refused(folder, tmp_path):
    text = tmp_path / "text.json"
    text.write_text(json.dumps(rows(6, text_only=1)))
    turns = [row for row in json.loads(text.read_text()) if "image" not in row]
    text.write_text(json.dumps(turns))
    plan = plan_of(folder / "llava", text, tmp_path / "out")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(plan))
    with pytest.raises(UserError, match="stage1 trains what stands between images and language"):
        train_from_file(tmp_path / "a.yaml")


def test_what_was_frozen_and_changed_is_an_error(folder, tmp_path, monkeypatch):
    from eyechart.train import stages

    fitted = stages.fit

    def meddling(parts, *args, **kwargs):
        last = fitted(parts, *args, **kwargs)
        with torch.no_grad():
            next(parts.whole.model.vision_tower.parameters()).add_(1e-3)
        return last

    monkeypatch.setattr(stages, "fit", meddling)
    with pytest.raises(RuntimeError, match="stage1: frozen weights have changed"):
        train_from_file(recipe(folder, tmp_path))


def test_steps_come_from_epochs_and_warm_up_from_a_share():
    def plan(**options):
        return build(
            StagePlan,
            {
                "data": [{"file": "a.json"}],
                "learning_rate": 1e-3,
                "per_device_train_batch_size": 4,
                **options,
            },
        )

    def steps(**options):
        return plan(**options).settings(103, processes=2, bf16=False, seed=0)

    assert steps().max_steps == 13  # 25 whole batches, on two processes
    assert steps(num_train_epochs=3, gradient_accumulation_steps=4).max_steps == 10
    assert steps(max_steps=7).max_steps == 7
    assert steps(num_train_epochs=10).warmup_steps == 4  # 3 % of 125, rounded up
    assert steps(warmup_steps=5).warmup_steps == 5
    with pytest.raises(UserError, match="per_device_train_batch_size is 200, and there are 103 rows"):
        steps(per_device_train_batch_size=200)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stage1": {"learning_rat": 1}}, "no .* option named 'stage1.learning_rat'. Did you mean 'stage1.learning_rate'?"),
        ({"stage1": {"lora": {}}}, "stage1 has lora, but it trains the adapters alone"),
        ({"stage2": {"data": [{"file": "a", "world": "b"}]}}, "give one of the two"),
        ({"stage2": {"data": []}}, "data is empty"),
        ({"features_dtype": "float8"}, "option 'features_dtype' is 'float8'"),
        ({"stage2": {"lora": {"r": 0}}}, "lora: r 0"),
        ({"stage2": {"gradient_accumulation_steps": 0, "max_steps": 3}}, "gradient_accumulation_steps is 0"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_says_what_is_wrong(tmp_path, change, said):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(plan_of(Path("m"), Path("d.json"), Path("o"), **change)))
    (tmp_path / "d.json").write_text(json.dumps(rows(6)))
    with pytest.raises(UserError, match=said):
        read_plan(tmp_path / "a.yaml").stages["stage2"].settings(9, processes=1, bf16=False, seed=0)


def test_the_example_recipe_is_one():
    import eyechart.recipes.llava as module

    plan = read_plan(Path(module.__file__).with_suffix(".yaml"))
    assert list(plan.stages) == ["stage1", "stage2"]
    assert (plan.stages["stage1"].learning_rate, plan.stages["stage2"].learning_rate) == (1e-3, 2e-5)
    with pytest.raises(UserError, match="neither stage1 nor stage2"):
        build(TrainPlan, {"model": "m", "output_dir": "o"})


def test_a_dry_run_counts_and_writes_nothing(folder, tmp_path):
    file = recipe(folder, tmp_path / "a", stage2={"max_steps": -1, "num_train_epochs": 2})
    told = described(file, {"output_dir": str(tmp_path / "out")})
    assert told["stages"]["stage1"]["data"] == {
        "rows": 12, "text_only": 4, "one_image": 7, "more_images": 1, "images": 9,
    }  # fmt: skip
    assert (
        told["stages"]["stage1"]["steps_on_one_process"],
        told["stages"]["stage2"]["steps_on_one_process"],
    ) == (4, 12)
    assert told["output_dir"] == str(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_world_is_data_like_any_other(folder, tmp_path):
    render_set(tmp_path / "scenes", SetPlan(split="train", scenes=8), workers=1, size=96)
    table = world_table(tmp_path / "scenes", tmp_path / "made")
    samples = list(read_samples(table))
    assert all(isinstance(one, Sample) and len(one.images) == 1 for one in samples)
    images = load_set(tmp_path / "scenes").images
    opened = {open_picture(one.images[0]).image.tobytes() for one in samples if isinstance(one, Sample)}
    assert opened == {image.tobytes() for image in images}
    before = table.stat().st_mtime_ns
    assert world_table(tmp_path / "scenes", tmp_path / "made") == table
    assert table.stat().st_mtime_ns == before
    data = [{"world": str(tmp_path / "scenes"), "teach": "captions"}]
    stage = {"data": data, "max_steps": 2}
    out = train_from_file(recipe(folder, tmp_path / "out", stage1=stage, stage2=stage, max_length=200))
    assert (out / "model.safetensors").is_file()
    assert described(tmp_path / "out" / "llava.yaml")["stages"]["stage1"]["data"] == {"scenes": 8}
