"""A localisation from beginning to end on a small random model and on the zoo: what is written, resumed and refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from eyechart.core.errors import NeverFired, UserError
from eyechart.locate import run_parts
from eyechart.locate.config import STAGES, LocateConfig, command_of, given
from eyechart.locate.labels import LabelRule
from eyechart.locate.lines import lines_of
from eyechart.locate.run import locate, plan
from part_makers import box, index_folder


def config(model="zoo:llava-biased", **more):
    chosen = {"pictures": 3, "only": ("lens", "knockout"), "regions": 2, **more}
    return LocateConfig(model=model, **chosen)


def files_of(folder: Path) -> dict[str, bytes]:
    """What must not depend on interruptions: everything but the manifest's times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "results.json", ".lock")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One unbroken run."""
    out = tmp_path_factory.mktemp("located") / "whole"
    return locate(config(only=("lens", "knockout", "dose")), out=out)


@pytest.mark.slow
def test_a_run_holds_ranks_proofs_the_2x2_and_doses(whole):
    block = whole.results["eyechart"]
    assert block["lens"]["parts"] >= 5
    assert len(block["lens"]["by_layer"]) == 9
    assert {proof["arm"] for proof in block["proofs"]} == {"main", "both ways", "random"}
    assert all(
        tower["weight_after"] == tower["leak"] == 0 for proof in block["proofs"] for tower in proof["towers"]
    )
    assert set(block["knockout"]["lens"]["arms"]) == {"main", "both ways", "random"}
    assert "blocks 5 left out" in block["knockout"]["notes"][0]
    assert len(block["dose"]) == 4
    assert block["dose"][0]["points"][-1]["share"] == 1.0


@pytest.mark.slow
def test_the_full_dose_is_the_main_arm(whole):
    knocked = [json.loads(line) for line in (whole.folder / "knockouts.jsonl").read_text().splitlines()]
    dosed = [json.loads(line) for line in (whole.folder / "doses.jsonl").read_text().splitlines()]
    compared = 0
    for one, other in zip(knocked, dosed, strict=True):
        for part, dose in zip(one["parts"], other["parts"], strict=True):
            for cell in ("vision cut", "language cut"):
                for key in [key for key in dose["read"] if key.endswith(f"1.000|{cell}")]:
                    assert dose["read"][key]["rank"] == part["read"][f"main|{cell}"]["rank"]
                    compared += 1
    assert compared > 0


@pytest.mark.slow
def test_language_cuts_change_nothing_at_layer_0_and_vision_cuts_do(whole):
    lines = [json.loads(line) for line in (whole.folder / "knockouts.jsonl").read_text().splitlines()]
    parts = [part["read"] for line in lines for part in line["parts"] if "main|both cut" in part["read"]]
    assert all(one["main|language cut"]["rank"][0] == one["|intact"]["rank"][0] for one in parts)
    assert all(one["main|both cut"]["rank"][0] == one["main|vision cut"]["rank"][0] for one in parts)
    assert any(one["main|vision cut"]["rank"][0] != one["|intact"]["rank"][0] for one in parts)


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_unbroken_one(whole, tmp_path, monkeypatch):
    out = tmp_path / "resumed"
    shutil.copytree(whole.folder.parent / "bundled", tmp_path / "bundled")
    line_of, calls = run_parts.line_of, []

    def stopped(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return line_of(*args)

    chosen = config(only=("lens", "knockout", "dose"))
    monkeypatch.setattr(run_parts, "line_of", stopped)
    with pytest.raises(KeyboardInterrupt):
        locate(chosen, out=out)
    monkeypatch.setattr(run_parts, "line_of", line_of)
    again = locate(chosen, out=out)
    assert files_of(out) == files_of(whole.folder)
    assert again.results["eyechart"]["knockout"] == whole.results["eyechart"]["knockout"]
    assert locate(chosen, out=out).again


@pytest.mark.slow
def test_a_knockout_that_does_not_fire_stops_the_run(tmp_path, monkeypatch):
    from eyechart.models.attention.calls import Call

    monkeypatch.setattr(Call, "without", lambda self, cut: self)
    with pytest.raises(NeverFired):
        locate(config(only=("knockout",)), out=tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "run" / "knockouts.jsonl").exists()


@pytest.mark.slow
def test_the_run_is_told_in_lines_with_intervals(whole):
    lines = lines_of(whole.results)
    assert lines[0] == "zoo:llava-biased"
    assert any(line.startswith("knockouts: 5 proved to fire") for line in lines)
    assert any("times better [" in line for line in lines)
    assert any(line.startswith("dose, vision layers") for line in lines)
    assert "A knockout shows what the model can do" in "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_other_models_and_masks(checkpoint_dir, tmp_path, name):
    """Random weights and index masks: everything runs, and nothing is found."""
    masks = {
        str(number): box(10, 10, 60, 60, 96, 96) * 1 + box(60, 60, 90, 90, 96, 96) * 2 for number in range(2)
    }
    labels = {"1": ["cat", "head"], "2": ["cat", "tail"]}
    folder = index_folder(tmp_path / "marked", masks, labels)
    chosen = LocateConfig(
        model=str(checkpoint_dir(name)),
        parts=str(folder),
        only=("lens", "knockout"),
        label=LabelRule.FIRST,
        threshold=0.0,
        regions=2,
        controls=(),
    )
    found = locate(chosen, out=tmp_path / "run").results["eyechart"]
    assert found["lens"]["parts"] + len(found["lens"]["not_ranked"]) > 0
    assert all(one["towers"] for one in found["proofs"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava_next", "internvl", "gemma3"])
def test_real_part_masks_on_architectures_with_tiles(checkpoint_dir, shared_data, tmp_path, name):
    """Photographs with pixel masks of clothes: every part is read or listed, and no cut is counted unproved."""
    chosen = LocateConfig(
        model=str(checkpoint_dir(name)),
        parts=str(shared_data / "clothing-co-parsing"),
        parts_object="person",
        pictures=2,
        only=("lens", "knockout"),
        label=LabelRule.FIRST,
        threshold=0.0,
        regions=2,
        controls=("both ways",),
    )
    run = locate(chosen, out=tmp_path / "run")
    found = run.results["eyechart"]
    lines = [json.loads(line) for line in (run.folder / "knockouts.jsonl").read_text().splitlines()]
    assert found["parts"]["images"] == len(lines) == 2
    read = [part for line in lines for part in line["parts"]]
    assert len(read) >= 4
    assert found["lens"]["parts"] == len(read)
    assert all(tower["weight_after"] == 0 for proof in found["proofs"] for tower in proof["towers"])


def test_the_command_says_every_choice_that_is_no_default():
    chosen = config(sink=True, special_is_rest=False, controls=("random",), seed=3)
    words = command_of(chosen, Path("out"))
    assert words[:3] == ["eyechart", "locate", "zoo:llava-biased"]
    assert "--sink" in words
    assert "--no-special-is-rest" in words
    assert words[words.index("--controls") + 1] == "random"
    assert set(given(chosen)) == {
        "pictures", "only", "regions", "sink", "special_is_rest", "controls", "seed",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"only": ("lense",)}, "Did you mean 'lens'"),
        ({"controls": ("randon",)}, "Did you mean 'random'"),
        ({"pictures": 0}, "pictures must be 1 or more"),
        ({"threshold": 1.0}, "threshold is a share"),
        ({"seed": -1}, "seeds must be 0 or more"),
    ],
)
def test_wrong_choices_are_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        LocateConfig(model="zoo:llava-biased", **wrong)


def test_stages_are_all_run_but_those_that_must_be_asked_for():
    assert LocateConfig(model="m").only == tuple(name for name in STAGES if name != "dose")


def test_a_plan_loads_nothing(tmp_path):
    said = plan(config(), out=tmp_path / "run")
    assert said["pictures"] == 3
    assert said["exists"] is False
    assert not np.any([path.exists() for path in tmp_path.iterdir()])
