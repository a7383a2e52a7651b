"""The exam: end to end on real classes, interrupted anywhere, refused where it should be."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import peft
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

import eyechart
from checkpoints import VLMS
from eyechart import zoo
from eyechart.cli import main
from eyechart.core.errors import UserError
from eyechart.core.images import open_image
from eyechart.exam import ExamConfig, default_models, examine, plan
from eyechart.exam.benchmark import world_plan
from eyechart.exam.config import rerun_command
from eyechart.exam.defaults import zoo_reference
from eyechart.exam.stage import Stage
from eyechart.models.sources import fingerprint, parse_source
from eyechart.world.sets_plan import draw_pairs
from server_parts import fake_server
from small_world import small_world


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory) -> Path:
    return small_world(tmp_path_factory.mktemp("benchmark") / "pictures", pairs=4)


@pytest.fixture(scope="module")
def options(checkpoint_dir, benchmark) -> dict[str, object]:
    return {"on": str(benchmark), "reference": str(checkpoint_dir("dinov2")), "max_new_tokens": 4}


def without_times(folder: Path) -> dict[str, bytes]:
    """Every file that must be the same in a resumed run, the start time taken out of the one that holds it."""
    results = json.loads((folder / "results.json").read_text("utf8"))
    assert results.pop("date")
    kept = {"results.json": json.dumps(results).encode()}
    for name in ("config.yaml", "samples_exam.jsonl", "pairs.parquet", "quarantine.parquet"):
        kept[name] = (folder / name).read_bytes()
    return kept


@pytest.mark.slow
def test_the_untrained_exam_says_that_it_means_nothing(tmp_path):
    result = examine("untrained", out=tmp_path / "run", limit=3, max_new_tokens=2, reference="none")
    block = result.results["eyechart"]
    assert block["model"]["trained"] is False
    assert "learnt nothing" in result.summary[0]
    assert block["score"]["pairs"]["n"] == 3
    page = result.page.read_text("utf8")
    assert "learnt nothing" in page
    assert "eyechart exam" in page


def test_a_checkpoint_is_examined_and_every_record_is_there(checkpoint_dir, options, tmp_path):
    result = examine(str(checkpoint_dir("llava")), out=tmp_path / "run", **options)
    block = result.results["eyechart"]
    samples = [
        json.loads(line) for line in (tmp_path / "run/samples_exam.jsonl").read_text("utf8").splitlines()
    ]
    pairs = pq.read_table(tmp_path / "run/pairs.parquet").to_pylist()
    assert len(samples) == 8
    assert len(pairs) == block["benchmark"]["pairs"] == 4
    assert block["model"]["fed"]["layer"] is not None
    assert block["find"]["compared"] == 8 * 7 // 2
    right = {sample["doc_id"]: sample["outcome"] == "right" for sample in samples}
    for pair in pairs:
        assert pair["pair_right"] == (right[pair["item_a"]] and right[pair["item_b"]])
    assert block["score"]["pairs"]["hits"] == sum(pair["pair_right"] for pair in pairs)
    assert result.results["results"]["exam"]["pair_accuracy,none"] == block["score"]["pairs"]["value"]
    manifest = json.loads((tmp_path / "run/manifest.json").read_text("utf8"))
    assert manifest["model"]["sha256"] == fingerprint(parse_source(str(checkpoint_dir("llava")))).sha256
    assert manifest["finished"]


def test_a_server_is_examined_and_what_cannot_be_seen_from_outside_is_left_out(options, tmp_path):
    with fake_server(reply=lambda question: "A") as fake:
        result = examine(fake.base_url, out=tmp_path / "run", **options)
        block = result.results["eyechart"]
        assert block["score"]["pairs"]["n"] == 4
        assert block["score"]["images"]["hits"] == 4
        assert block["score"]["favourite_option"]["share"]["value"] == 1
        assert block["find"] is None
        assert "a server" in block["model"]["cannot"]["fed_features"]
        asked = sum(fake.asked.values())
        assert asked == 8
        again = examine(fake.base_url, out=tmp_path / "run", **options)
        assert (again.again, sum(fake.asked.values())) == (True, asked)
    assert "fake-vlm at http://127.0.0.1" in result.page.read_text("utf8")
    with pytest.raises(UserError, match="is a server, which gives replies"):
        ExamConfig(model="http://host/v1", ask="options")
    named = ExamConfig(model="http://host/v1", served_model="m")
    assert rerun_command(named, tmp_path)[:5] == ["eyechart", "exam", "m", "--base-url", "http://host/v1"]


def test_scenes_of_the_world_are_part_of_an_exam(checkpoint_dir, tmp_path):
    arguments = {"reference": "none", "max_new_tokens": 2, "limit": 3, "out": tmp_path / "run"}
    model = str(checkpoint_dir("llava"))
    first = examine(model, scene_seed=7, size=100, **arguments)
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text("utf8"))
    assert (config["on"], config["scene_seed"], config["size"], config["pairs"]) == ("world", 7, 100, 20)
    shown = [open_image(path).image.size for path in (tmp_path / "bundled").rglob("*.png")]
    assert set(shown) == {(100, 100)}
    block = first.results["eyechart"]["benchmark"]
    assert (block["name"], block["pairs"]) == ("world", 3)
    assert "scene seed 7, 100 pixels" in block["notes"][0]
    with pytest.raises(UserError, match="pairs: 20 → 19"):
        examine(model, scene_seed=7, size=100, pairs=19, **arguments)
    assert (
        "--scene-seed 7 --size 100" in json.loads((tmp_path / "run/manifest.json").read_text("utf8"))["rerun"]
    )


def test_a_limit_draws_no_more_than_is_asked_and_the_same():
    def drawn(**options):
        pairs = draw_pairs(world_plan(ExamConfig(model="untrained", scene_seed=3, **options)))
        return {pair.id: pair for pair in pairs}

    few, whole, other = drawn(limit=10), drawn(), drawn(limit=10, pairs=1)
    assert (len(few), len(whole), len(other)) == (18, 180, 9)
    assert all(whole[name] == pair for name, pair in few.items())


def test_the_zoo_is_examined_by_default_where_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_MODELS", tmp_path)
    assert default_models() == ("untrained",)
    assert ExamConfig().model == "untrained"
    for name in ("llava-told-all", "llava-biased", "llava-permuted", "two-view"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert default_models() == ("zoo:llava-biased", "zoo:llava-told-all")
    assert ExamConfig().model == "zoo:llava-biased"
    assert zoo_reference() == "zoo:two-view"


def test_the_zoos_reference_serves_on_the_world(checkpoint_dir, options, tmp_path, monkeypatch):
    (tmp_path / "cage").mkdir()
    (tmp_path / "cage/mae").symlink_to(checkpoint_dir("vit_mae"))
    monkeypatch.setattr(zoo, "_MODELS", tmp_path / "cage")
    model = str(checkpoint_dir("llava"))
    world = Stage(ExamConfig(model=model, limit=1), tmp_path / "a")
    assert world.reference is not None
    assert world.reference.id == "zoo:mae"
    elsewhere = Stage(ExamConfig(model=model, on=options["on"]), tmp_path / "b")
    assert "facebook/dinov2-base" in elsewhere.reference_missing


class Stop(Exception):
    """Raised from the progress callback, as a Ctrl-C would be."""


@pytest.mark.parametrize(("stage", "at"), [("asking", 2), ("looking (model)", 4), ("looking (reference)", 6)])
def test_interrupted_in_any_stage_it_ends_with_the_same_results(
    stage, at, checkpoint_dir, options, tmp_path, unbroken
):
    def stop(name: str, done: int, total: int) -> None:
        if name == stage and done >= at:
            raise Stop

    arguments = {**options, "batch_size": 2, "out": tmp_path / "run"}
    with pytest.raises(Stop):
        examine(str(checkpoint_dir("llava")), progress=stop, **arguments)
    assert not (tmp_path / "run/results.json").exists()
    examine(str(checkpoint_dir("llava")), **arguments)
    assert without_times(tmp_path / "run") == unbroken
    assert json.loads((tmp_path / "run/manifest.json").read_text("utf8"))["resumes"] == 1


@pytest.fixture(scope="module")
def unbroken(checkpoint_dir, options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    examine(str(checkpoint_dir("llava")), out=folder, batch_size=2, **options)
    return without_times(folder)


def test_a_finished_run_is_shown_again_without_the_model(checkpoint_dir, options, tmp_path, monkeypatch):
    first = examine(str(checkpoint_dir("llava")), out=tmp_path / "run", **options)
    page = first.page.read_bytes()
    first.page.unlink()
    monkeypatch.setattr("eyechart.exam.stage.load_chosen", None)
    again = examine(str(checkpoint_dir("llava")), out=tmp_path / "run", **options)
    assert again.page.read_bytes() == page
    assert again.results == first.results


def test_another_choice_in_the_same_folder_is_refused(checkpoint_dir, options, tmp_path):
    examine(str(checkpoint_dir("llava")), out=tmp_path / "run", **options)
    with pytest.raises(UserError, match=r"percentile: 95\.0 → 80\.0"):
        examine(str(checkpoint_dir("llava")), out=tmp_path / "run", **options, percentile=80.0)
    fresh = examine(
        str(checkpoint_dir("llava")), out=tmp_path / "run", **options, percentile=80.0, fresh=True
    )
    assert fresh.results["eyechart"]["find"]["percentile"] == 80.0


def test_option_likelihoods_leave_nothing_unread(checkpoint_dir, options, tmp_path):
    result = examine(str(checkpoint_dir("llava")), out=tmp_path / "run", ask="options", **options)
    assert result.results["eyechart"]["score"]["unread"]["hits"] == 0


def test_a_model_in_memory_is_left_as_it_was(checkpoint_dir, options, tmp_path):
    vlm = eyechart.load_vlm(str(checkpoint_dir("llava")))
    model, processor = vlm.model.train(), vlm.processor
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    memory = examine(model, processor, out=tmp_path / "memory", **options)
    disk = examine(str(checkpoint_dir("llava")), out=tmp_path / "disk", **options)
    assert model.training
    assert all((before[name] == tensor).all() for name, tensor in model.state_dict().items())
    assert memory.results["eyechart"]["score"] == disk.results["eyechart"]["score"]
    assert (tmp_path / "memory/pairs.parquet").read_bytes() == (tmp_path / "disk/pairs.parquet").read_bytes()


def test_a_broken_picture_takes_its_pair_out_and_is_listed(checkpoint_dir, options, benchmark, tmp_path):
    copy = small_world(tmp_path / "copy", pairs=4)
    victim = sorted(copy.rglob("*.png"))[2]
    victim.write_bytes(victim.read_bytes()[:200])
    result = examine(str(checkpoint_dir("llava")), out=tmp_path / "run", **{**options, "on": str(copy)})
    rows = pq.read_table(tmp_path / "run/quarantine.parquet").to_pylist()
    assert victim.name in {Path(row["path"]).name for row in rows}
    assert result.results["eyechart"]["benchmark"]["pairs"] == 3
    assert victim.name in result.page.read_text("utf8")


def test_the_default_reference_may_be_missing_a_named_one_may_not(checkpoint_dir, options, tmp_path):
    result = examine(str(checkpoint_dir("llava")), out=tmp_path / "run", **{**options, "reference": "auto"})
    assert result.results["eyechart"]["find"] is None
    assert "facebook/dinov2-base, cannot be had" in result.results["eyechart"]["reference_missing"]
    with pytest.raises(UserError, match="no-such-encoder"):
        examine(
            str(checkpoint_dir("llava")),
            out=tmp_path / "other",
            **{**options, "reference": "./no-such-encoder"},
        )


def test_ids_and_patterns_are_part_of_an_exam(checkpoint_dir, options, tmp_path):
    copy = small_world(tmp_path / "copy", pairs=4)
    arguments = {**options, "on": str(copy), "out": tmp_path / "run"}
    examine(str(checkpoint_dir("llava")), **arguments)
    [table] = copy.glob("*.csv")
    table.write_text(table.read_text("utf8").replace(",orientation,", ",viewpoint,"), "utf8")
    with pytest.raises(UserError, match=r"resolved\.benchmark\.rows_sha256"):
        examine(str(checkpoint_dir("llava")), **arguments)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_an_adapter_is_part_of_an_exam(checkpoint_dir, options, tmp_path):
    vlm = eyechart.load_vlm(str(checkpoint_dir("llava")))
    targets = [site.name + ".q_proj" for site in vlm.self_attentions("language")]
    wrapped = peft.get_peft_model(
        vlm.model, peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    )
    wrapped.save_pretrained(tmp_path / "lora")
    arguments = {**options, "adapter": str(tmp_path / "lora"), "limit": 1, "out": tmp_path / "run"}
    first = examine(str(checkpoint_dir("llava")), **arguments)
    assert first.results["eyechart"]["model"]["adapter"]["sha256"]
    torch.manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter)
    wrapped.save_pretrained(tmp_path / "lora")
    with pytest.raises(UserError, match=r"resolved\.model\.adapter"):
        examine(str(checkpoint_dir("llava")), **arguments)


def test_another_processor_is_another_model_in_memory(checkpoint_dir, options, tmp_path):
    vlm = eyechart.load_vlm(str(checkpoint_dir("llava")))
    other = eyechart.load_vlm(str(checkpoint_dir("llava_no_chat"))).processor
    examine(vlm.model, vlm.processor, out=tmp_path / "run", **options)
    with pytest.raises(UserError, match=r"resolved\.model\.sha256"):
        examine(vlm.model, other, out=tmp_path / "run", **options)


def test_a_config_and_single_choices_are_not_mixed(checkpoint_dir, options, tmp_path):
    with pytest.raises(UserError, match="not both; beside the config came: model, lmit"):
        examine(str(checkpoint_dir("llava")), config=ExamConfig(), out=tmp_path / "run", lmit=5)


def test_wrong_choices_are_named(checkpoint_dir, options, tmp_path):
    with pytest.raises(UserError, match=r"percentile must lie between 0 and 100, got 100\.0"):
        ExamConfig(percentile=100.0)
    with pytest.raises(UserError, match="limit must be 1 or more, got 0"):
        ExamConfig(limit=0)
    with pytest.raises(UserError, match="seed must be 0 or more, got -1"):
        ExamConfig(seed=-1)
    with pytest.raises(UserError, match="scene_seed must be 0 or more, got -2"):
        ExamConfig(scene_seed=-2)
    with pytest.raises(UserError, match="size 95: pictures of the world are 96 to 672 pixels wide"):
        ExamConfig(size=95)
    with pytest.raises(UserError, match="pairs must be 1 or more, got 0"):
        ExamConfig(pairs=0)
    with pytest.raises(UserError, match=r"scene_seed 7 draws scenes of the world and '\./mmvp' was named"):
        ExamConfig(on="./mmvp", scene_seed=7)
    with pytest.raises(UserError, match="no prompt template named 'leter'"):
        ExamConfig(template="leter")
    with pytest.raises(
        UserError, match=r"no ExamConfig option named 'percentil'\. Did you mean 'percentile'"
    ):
        examine(str(checkpoint_dir("llava")), out=tmp_path / "run", percentil=3, **options)


def test_a_plan_loads_no_weights_and_leaves_nothing(checkpoint_dir, options, tmp_path, monkeypatch):
    monkeypatch.setattr("eyechart.exam.stage.load_chosen", None)
    said = plan(ExamConfig(model=str(checkpoint_dir("llava")), on=options["on"]), out=tmp_path / "run")
    assert (said["items"], said["pairs"], said["exists"]) == (8, 4, False)
    assert not (tmp_path / "run").exists()


def test_a_plan_renders_nothing(tmp_path):
    said = plan(ExamConfig(model="untrained", limit=10), out=tmp_path / "run")
    assert (said["items"], said["pairs"], said["model"]) == (20, 10, "a small random-weight LLaVA")
    assert plan(ExamConfig(model="untrained", pairs=3))["pairs"] == 27
    assert list(tmp_path.iterdir()) == []


def test_the_command_on_the_page_runs_the_same_exam(checkpoint_dir, options, tmp_path, capsys):
    result = examine(str(checkpoint_dir("llava")), out=tmp_path / "run", **options)
    manifest = json.loads((tmp_path / "run/manifest.json").read_text("utf8"))
    with pytest.raises(SystemExit) as done:
        main([*manifest["command"][1:], "--json"])
    assert done.value.code == 0
    assert json.loads(capsys.readouterr().out) == result.results


@pytest.mark.slow
@pytest.mark.parametrize("name", VLMS)
def test_every_architecture_is_examined(name, checkpoint_dir, options, tmp_path):
    result = examine(str(checkpoint_dir(name)), out=tmp_path / "run", **options, limit=2)
    block = result.results["eyechart"]
    assert block["score"]["pairs"]["n"] == 2
    assert set(block["model"]["capabilities"]) | set(block["model"]["cannot"]) >= {"generate", "spatial_map"}
    assert all(block["model"]["cannot"].values())


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_results(checkpoint_dir, options, tmp_path, unbroken):
    command = [
        sys.executable, "-m", "eyechart", "exam", str(checkpoint_dir("llava")), "--on", str(options["on"]),
        "--reference", str(options["reference"]), "--max-new-tokens", "4", "--batch-size", "2", "--quiet",
        "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    kills = 0
    for wait in (5.0, 7.0, 9.0, 11.0):
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            process.communicate(timeout=wait)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        time.sleep(0.1)
    assert kills > 0
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert without_times(tmp_path / "run") == unbroken


def test_an_image_changed_after_the_start_is_another_exam(checkpoint_dir, options, tmp_path):
    copy = small_world(tmp_path / "copy", pairs=4)
    arguments = {**options, "on": str(copy), "out": tmp_path / "run"}
    examine(str(checkpoint_dir("llava")), **arguments)
    victim = sorted(copy.rglob("*.png"))[0]
    Image.new("RGB", (50, 50), "red").save(victim)
    with pytest.raises(UserError, match=r"resolved\.benchmark\.sha256"):
        examine(str(checkpoint_dir("llava")), **arguments)
