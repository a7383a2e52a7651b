"""The command line: data on stdout, talk on stderr, one voice for errors, and it grows only on purpose."""

import errno
import json
import os
import shlex
import sys

import pytest

from eyechart import __version__
from eyechart.cli import app, main
from eyechart.core.errors import UserError
from small_world import small_world

FROZEN = {
    "exam": {
        "adapter", "ask", "attn", "base_url", "batch_size", "device", "device_map", "dry_run", "dtype", "fresh", "json", "limit", "locate",
        "max_new_tokens", "models", "on", "out", "pairs", "percentile", "quiet", "reference", "reference_pooling",
        "revision", "scene_seed", "seed", "size", "template", "trust_remote_code",
    },
    "compare": {"common", "every", "fresh", "json", "out", "quiet", "runs", "seed", "task"},
    "locate": {
        "adapter", "attn", "batch_size", "controls", "device", "device_map", "dry_run", "dtype", "fresh", "json", "label",
        "language_edges", "language_layers", "limit", "model", "on", "only", "out", "pairs", "parts", "parts_categories",
        "part_probe", "parts_images", "parts_labels", "parts_layout", "parts_object", "parts_words", "pictures", "probe", "quiet",
        "regions", "revision", "scale", "scene_seed", "seed", "sink", "size", "special_is_rest", "threshold", "ties",
        "trust_remote_code", "vision_edges", "vision_layers",
    },
    "mine": {
        "batch_size", "budget", "centred", "classes", "device", "dry_run", "dtype", "engine", "fresh", "image_column",
        "json", "label_column", "limit", "max_reference", "min_alike", "min_semantic", "most_bits", "out", "pairs",
        "per_burst", "per_image", "pictured", "quiet", "ray_address", "reference", "reference_pooling", "scene_seed",
        "seed", "semantic", "semantic_pooling", "size", "source", "workers",
    },
    "score": {
        "adapter", "also", "ask", "attn", "base_url", "batch_size", "concurrency", "device", "device_map", "dry_run",
        "dtype", "engine", "fresh", "json", "judge", "judge_for", "judge_model", "kind", "labels", "limit", "max_new_tokens", "model", "on", "order", "out",
        "pairs", "quiet", "retries", "revision", "scene_seed", "seed", "show", "side", "size", "tasks", "template",
        "timeout", "trust_remote_code",
    },
    "report": {"json", "runs"},
    "train": {
        "alpha", "batch_size", "clip", "dry_run", "json", "max_steps", "mixture", "out", "questions", "quiet", "rates", "recipe", "scenes",
        "second", "seed", "work", "world",
    },
    "bench list": {"json"},
    "bench check": {"json", "kind", "limit", "pairs", "scene_seed", "size", "source"},
    "bench export": {
        "json", "kind", "licence", "limit", "out", "pairs", "quiet", "scene_seed", "size", "source", "task", "to",
    },
    "zoo list": {"json"},
    "zoo card": {"json", "name"},
    "zoo path": {"name"},
    "world show": {"json", "kind", "out", "pairs", "pattern", "scene_seed", "size", "split"},
    "world render": {
        "folder", "fresh", "json", "kind", "maps", "members", "pairs", "pattern", "quiet", "scene_seed", "scenes",
        "size", "split", "workers",
    },
    "doctor": {"json"},
    "list models": {"json"},
    "list benchmarks": {"json"},
    "list recipes": {"json"},
}  # fmt: skip


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(list(words))
    said = capsys.readouterr()
    assert isinstance(done.value.code, int)
    return done.value.code, said.out, said.err


def commands() -> dict[str, object]:
    import typer

    group = typer.main.get_command(app)
    found = dict(group.commands)
    groups = {
        name: found.pop(name).commands
        for name in [name for name in found if hasattr(found[name], "commands")]
    }
    inner = {f"{group} {name}": one for group, commands in groups.items() for name, one in commands.items()}
    return found | inner


def test_the_command_line_grows_only_on_purpose():
    there = {name: {option.name for option in command.params} for name, command in commands().items()}
    assert there == FROZEN, "tell the changelog, then edit FROZEN"


@pytest.mark.parametrize("name", FROZEN)
def test_every_help_text_holds_an_example(name):
    assert "Example:" in commands()[name].help


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"eyechart {__version__}\n", "")


def test_a_persons_mistake_has_no_traceback_and_ends_with_2(capsys):
    code, out, err = run(capsys, "exam", "./no-such-model", "--on", "./nowhere")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "nowhere" in err
    assert "Traceback" not in err


def test_a_wrong_choice_names_the_nearest(capsys):
    code, _, err = run(capsys, "exam", "--ask", "generat")
    assert code == 2
    assert "Did you mean 'generate'?" in err


def test_an_unknown_command_or_option_ends_with_2(capsys):
    code, _, err = run(capsys, "exams")
    assert code == 2
    assert "exams" in err
    code, _, err = run(capsys, "exam", "--percentil", "3")
    assert code == 2
    assert "--percentil" in err


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(**_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("eyechart.exam.examine", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["exam", "--out", "somewhere"])


def test_an_interrupt_says_how_to_go_on(capsys, monkeypatch):
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("eyechart.exam.examine", interrupted)
    code, _, err = run(capsys, "exam")
    assert code == 130
    assert "the same command continues" in err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_to_go_on(capsys, monkeypatch, number):
    def filling(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("eyechart.exam.examine", filling)
    code, _, err = run(capsys, "exam")
    assert code == 2
    assert f"the disk is full ([Errno {number}] {os.strerror(number)})" in err
    assert "make room and give the same command" in err


def test_exam_prints_results_on_stdout_and_talk_on_stderr(capsys, tmp_path, checkpoint_dir):
    on = small_world(tmp_path / "pictures", pairs=2)
    words = [
        "exam",
        str(checkpoint_dir("llava")),
        "--on",
        str(on),
        "--reference",
        "none",
        "--max-new-tokens",
        "2",
    ]
    words += ["--out", str(tmp_path / "run")]
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["eyechart"]["benchmark"]["pairs"] == 2
    code, out, err = run(capsys, *words)
    assert (code, out) == (0, "")
    assert "report:" in err
    assert str(tmp_path / "run") in err
    code, out, err = run(capsys, *words, "--quiet")
    assert (code, out, err) == (0, "", "")
    code, out, _ = run(capsys, "report", str(tmp_path / "run"), "--json")
    assert code == 0
    assert json.loads(out) == {"pages": [str(tmp_path / "run/report.html")]}


@pytest.mark.slow
def test_several_models_get_a_folder_each(capsys, tmp_path, checkpoint_dir):
    on = small_world(tmp_path / "pictures", pairs=2)
    models = [str(checkpoint_dir("llava")), str(checkpoint_dir("paligemma"))]
    words = ["--on", str(on), "--reference", "none", "--max-new-tokens", "2", "--out", str(tmp_path / "runs")]
    code, out, _ = run(capsys, "exam", *models, *words, "--json")
    assert code == 0
    entries = json.loads(out)
    assert [entry["config"]["model"] for entry in entries] == models
    assert [other["id"] for other in entries[0]["eyechart"]["beside"]["others"]] == [models[1]]
    assert "beside" not in entries[1]["eyechart"]
    code, out, _ = run(capsys, *shlex.split(entries[0]["eyechart"]["beside"]["command"])[1:], "--json")
    assert code == 0
    assert json.loads(out) == entries
    code, _, err = run(capsys, "exam", *models, *words)
    assert "side by side: " in err
    assert err.count("Beside it") == 1
    assert len([path for path in (tmp_path / "runs").glob("exam-*/results.json")]) == 2


def test_a_dry_run_writes_nothing(capsys, tmp_path, checkpoint_dir):
    code, out, _ = run(
        capsys, "exam", str(checkpoint_dir("llava")), "--dry-run", "--out", str(tmp_path / "run")
    )
    assert code == 0
    assert json.loads(out)["pairs"] == 180
    assert not (tmp_path / "run").exists()


def test_doctor_and_lists_speak_json(capsys):
    code, out, _ = run(capsys, "doctor", "--json")
    found = json.loads(out)
    assert code == (1 if found["problems"] else 0)
    assert found["packages"]["torch"]
    for what, key in (("models", "naming"), ("benchmarks", "layouts"), ("recipes", "recipes")):
        code, out, _ = run(capsys, "list", what, "--json")
        assert code == 0
        assert key in json.loads(out)
        code, out, _ = run(capsys, "list", what)
        assert code == 0
        assert out.startswith(f"{key}:")


def test_doctor_names_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr("eyechart.cli.doctor.REQUIRED", ("torch", "no-such-package"))
    code, _, err = run(capsys, "doctor")
    assert code == 1
    assert "problem: no-such-package is not installed" in err


def test_a_missing_torch_is_a_finding_not_a_crash(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, _ = run(capsys, "doctor", "--json")
    assert code == 1
    assert "torch is installed but cannot be imported" in json.loads(out)["problems"][0]


def test_user_errors_of_commands_reach_the_person(capsys, monkeypatch):
    def refuse(_: object) -> None:
        raise UserError("runs/x is no run folder")

    monkeypatch.setattr("eyechart.report.write_report", refuse)
    assert run(capsys, "report", "runs/x") == (2, "", "error: runs/x is no run folder\n")


def test_one_model_that_cannot_be_examined_does_not_end_the_others(capsys, tmp_path, checkpoint_dir):
    on = small_world(tmp_path / "pictures", pairs=2)
    models = [str(checkpoint_dir("dinov2")), str(checkpoint_dir("llava"))]
    words = ["--on", str(on), "--reference", "none", "--max-new-tokens", "2", "--out", str(tmp_path / "runs")]
    code, _, err = run(capsys, "exam", *models, *words)
    assert code == 2
    assert "error: 1 of 2 exams were not held" in err
    assert models[0] in err
    assert len(list((tmp_path / "runs").glob("exam-*/report.html"))) == 1
