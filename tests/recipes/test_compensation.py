"""The study of compensation: its raw results beside a slow count, planted differences, its words, and a small run of all of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from eyechart.recipes import compensation_seeds as seeds_recipe
from eyechart.recipes.compensation import controls_of
from eyechart.recipes.compensation_raw import BUNDLED, Raw, gather
from eyechart.recipes.compensation_results import (
    RAW,
    TABLES,
    contrasts,
    main,
    picture,
    recovered,
    tables,
)
from eyechart.recipes.compensation_seeds import ARMS, STAGE_ONE, STAGE_TWO, run
from eyechart.world.sets import render_set
from eyechart.world.sets_plan import SetPlan

KEYS = ("|intact", "main|vision cut", "main|language cut", "main|both cut")
LOGS = {"|intact": 2.0, "main|vision cut": 1.1, "main|language cut": 1.5, "main|both cut": 0.5}
"""Planted readability of look-alikes at the last of three layers, in nats; at the others half of it."""


def reading(folder, *, shift=0.0, seed=0, both_ways=False):
    """A run folder with 20 pictures of one or two parts, of which the first has a rival."""
    rng, lines = np.random.default_rng(seed), []
    for place in range(20):
        parts = []
        for number in range(1 + place % 2):
            keys = [*KEYS, *(("both ways|vision cut", "both ways|both cut") if both_ways else ())]
            noise = rng.normal(0, 0.2)
            read = {}
            for key in keys:
                nats = LOGS[key.replace("both ways", "main")] + noise + shift + rng.normal(0, 0.02)
                rival = [float(np.exp(3 + share * nats)) for share in (0.5, 0.5, 1.0)]
                read[key] = {
                    "rank": [float(np.exp(3))] * 3,
                    "control": [float(np.exp(4))] * 3,
                    "rival": rival,
                }
                read[key]["rival"] = rival if number == 0 else None
            parts.append({"part": "handle", "object": "mug", "read": read})
        lines.append(json.dumps({"image": f"{place:03}", "parts": parts}))
    folder.mkdir(parents=True)
    (folder / "knockouts.jsonl").write_text("\n".join(lines) + "\n", "utf8")
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("read")
    readings = [
        (vlm, seed, cut, reading(out / f"{vlm}-{seed}-{len(cut)}", shift=shift, seed=seed, both_ways=ways))
        for vlm, cut, shift, ways in (
            ("biased", "part<-rest", 0.0, True),
            ("biased", "patches<-patches", 0.0, False),
            ("biased-alone", "patches<-patches", 0.7, False),
            ("biased-floor", "part<-rest", -2.0, True),
        )
        for seed in range(6)
    ]
    readings.append(("llava-biased", BUNDLED, "part<-rest", reading(out / "bundled", seed=9)))
    return Raw(gather(readings))


def test_what_is_gathered_is_what_a_slow_count_gives(tmp_path):
    folder = reading(tmp_path / "one", seed=4)
    table = gather([("biased", 3, "part<-rest", folder)])
    pq.write_table(table, tmp_path / RAW)
    block = Raw.load(tmp_path / RAW).block("biased", "part<-rest", "all parts", 2)
    assert block.seeds == (3,)
    for line in (folder / "knockouts.jsonl").read_text().splitlines():
        known = json.loads(line)
        place = block.images.index(known["image"])
        assert block.sizes[place] == len(known["parts"])
        wanted = sum(
            np.log(part["read"]["main|vision cut"]["control"][2])
            - np.log(part["read"]["main|vision cut"]["rank"][2])
            for part in known["parts"]
        )
        assert block.cells["vision cut"][0, place] == pytest.approx(wanted, abs=1e-6)
    rivals = Raw.load(tmp_path / RAW).block("biased", "part<-rest", "look-alikes", 2)
    assert rivals.sizes.tolist() == [1.0] * 20  # the second part of a picture has no rival


def test_planted_shares_and_differences_are_found(raw):
    block = raw.block("biased", "part<-rest", "look-alikes", 2)
    assert recovered(block).value == pytest.approx((1.1 - 0.5) / (2.0 - 0.5), abs=0.02)
    assert recovered(block, both_ways=True).value == pytest.approx(0.4, abs=0.02)
    assert recovered(raw.block("llava-biased", "part<-rest", "look-alikes", 2)).value == pytest.approx(
        0.4, abs=0.02
    )
    by_name = {one.said: one for one in contrasts(raw)}
    gain = by_name["`biased`, `part<-rest`: vision cut minus both cut"]
    assert gain.difference.value == pytest.approx(0.6, abs=0.02)
    assert gain.test.p_value == pytest.approx(1 / 32)
    ceiling = by_name["ceiling minus `biased`, both under the vision cut"]
    assert ceiling.difference.value == pytest.approx(0.7, abs=0.02)
    floor = by_name["`biased` minus floor, both intact"]
    assert floor.difference.value == pytest.approx(2.0, abs=0.02)


def test_a_seed_that_lacks_a_picture_is_refused(tmp_path):
    whole, short = reading(tmp_path / "whole"), reading(tmp_path / "short")
    lines = (short / "knockouts.jsonl").read_text().splitlines()
    (short / "knockouts.jsonl").write_text("\n".join(lines[1:]) + "\n")
    found = Raw(gather([("biased", 0, "part<-rest", whole), ("biased", 1, "part<-rest", short)]))
    with pytest.raises(ValueError, match="not every seed has every picture"):
        found.block("biased", "part<-rest", "all parts", 0)


def test_tables_and_picture_show_every_arm(raw):
    said = tables(raw)
    assert "| `biased`, `part<-rest` | 2.0" in said
    assert "| 40 % [" in said
    assert "20 in 20, 6 seeds |" in said
    assert "20 in 20, 1 seed |" in said
    drawn = picture(raw)
    titles = [axes.get_title() for axes in drawn.axes if axes.get_title()]
    assert titles == [
        "biased\npart<-rest, 6 seeds",
        "biased\npatches<-patches, 6 seeds",
        "ceiling: trained on cut features\npatches<-patches, 6 seeds",
        "floor: random blocks\npart<-rest, 6 seeds",
    ]


@pytest.mark.slow
def test_a_small_study_trains_reads_and_is_summed_up(tmp_path, monkeypatch):
    monkeypatch.setattr("eyechart.recipes.vlm.NAMED", 200)
    monkeypatch.setattr("eyechart.recipes.vlm.NAMED_LATER", 60)
    scenes, maps = tmp_path / "scenes", tmp_path / "maps"
    render_set(scenes, SetPlan(split="train", scenes=40), size=96, workers=1)
    render_set(maps, SetPlan(split="train", scenes=20), size=96, workers=1, maps=True)
    short = replace(STAGE_TWO, max_steps=2, per_device_train_batch_size=8, warmup_steps=0)
    stages = {"projector": replace(STAGE_ONE["projector"], max_steps=1, per_device_train_batch_size=8)}
    options = {"scenes": scenes, "maps": maps, "stages": (stages, short), "per_pattern": 4, "pictures": 2}
    arms = [arm for arm in ARMS if arm.rates == "biased"]
    done = list(run(tmp_path / "out", arms=arms, seeds=(0, 1), **options))
    assert [(arm.name, seed, cut) for arm, seed, cut, _ in done if seed == 1] == [
        ("biased", 1, "part<-rest"), ("biased", 1, "patches<-patches"), ("biased-alone", 1, "patches<-patches"),
        ("biased-floor", 1, "part<-rest"), ("biased-floor", 1, "patches<-patches"),
    ]  # fmt: skip
    trained, floor, other = (
        load_file(tmp_path / "out" / "zoo" / name / "model.safetensors")
        for name in ("biased-0", "biased-floor-0", "biased-1")
    )
    same = {name for name, value in trained.items() if (value == floor[name]).all()}
    assert {name for name in trained if name not in same and "norm" not in name} == {
        name for name in trained if ".layers." in name and "language_model" in name and "norm" not in name
    }
    projector = next(name for name in trained if "projector" in name and name.endswith("weight"))
    assert (trained[projector] != other[projector]).any()  # from one stage 1, but by other seeds
    times = {folder: (folder / "results.json").stat().st_mtime_ns for *_, folder in done}
    again = list(run(tmp_path / "out", arms=arms, seeds=(0, 1), **options))
    assert {folder: (folder / "results.json").stat().st_mtime_ns for *_, folder in again} == times
    pq.write_table(gather([(arm.name, seed, cut, at) for arm, seed, cut, at in done]), tmp_path / RAW)
    main(tmp_path)
    assert "`biased-floor`, `part<-rest`" in (tmp_path / "compensation-tables.md").read_text()
    assert (tmp_path / "compensation.svg").stat().st_size > 10_000


@pytest.mark.slow
def test_bundled_models_are_read_with_every_control(tmp_path):
    folder = seeds_recipe.read(
        "zoo:llava-biased",
        "part<-rest",
        ("both ways", "random"),
        tmp_path,
        4,
        lambda *_: None,
        part_probe=True,
    )
    assert folder.name == "llava-biased-partrest"
    [found] = controls_of([("llava-biased", BUNDLED, "part<-rest", folder)])
    assert found["proofs"] >= 4
    assert set(found["random"]) == {"all parts", "look-alikes"} or set(found["random"]) == {"all parts"}
    assert set(found["probe"]) == {"transfer", "refit"}


@pytest.mark.slow
def test_the_tables_of_the_docs_are_those_of_the_raw_results():
    docs = Path(__file__).parents[2] / "docs" / "studies"
    assert tables(Raw.load(docs / RAW)) == (docs / TABLES).read_text("utf8")
