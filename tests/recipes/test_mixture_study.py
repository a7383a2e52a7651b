"""The study of mixtures: runs are kept and not run again, tables show planted differences, and those in the docs are the data's."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eyechart.core.stats import crossed_mean
from eyechart.fix.instructions import CONTENTS, FORMATS, cells, held_out
from eyechart.recipes import mixture_results as results
from eyechart.recipes.mixture import run
from eyechart.recipes.mixture_arms import ARMS, STAGE_ONE, STAGE_TWO, Amounts
from eyechart.recipes.mixture_raw import Raw, keep, merge
from eyechart.recipes.mixture_reading import FOLLOWING, PAIRS, PRESENCE, Exam
from eyechart.recipes.mixture_results import FOLLOWED, GROUNDING, Measure
from eyechart.world.facts import PATTERNS
from eyechart.world.sets import render_set
from eyechart.world.sets_plan import SetPlan

DOCS = Path(__file__).parents[2] / "docs" / "studies"
PER_GROUP = 40


def planted(arm, seed, rates):
    """Answers of one run: of each group's questions the share of `rates` is right, the same questions for a seed."""
    rng = np.random.default_rng(seed)
    rows = []
    groups = [(PAIRS, name) for name in PATTERNS]
    groups += [(FOLLOWING, f"{name}/{content}") for name in FORMATS for content in CONTENTS]
    groups += [
        (PRESENCE, f"{category}/{truth}") for category in ("random", "adversarial") for truth in ("yes", "no")
    ]
    for task, group in groups:
        luck = rng.random(PER_GROUP)
        for place in range(PER_GROUP):
            cluster = f"{group} {place}" if task == PAIRS else f"scene {place}"
            right = bool(luck[place] < rates[task])
            row = {
                "task": task,
                "group": group,
                "item": f"{group} {place}",
                "cluster": cluster,
                "right": right,
            }
            rows.append(row | {"form": True} | ({"items": 1 + right} if task == PAIRS else {}))
    return rows


@pytest.fixture
def table(tmp_path):
    known = {
        "clip": (0.3, 0.7, 0.8),
        "imof": (0.5, 0.7, 0.8),
        "amof-0.5": (0.3, 0.4, 0.8),
        "amof-0.25": (0.3, 0.6, 0.8),
    }
    for arm, rates in known.items():
        for seed in range(3 if arm == "amof-0.25" else 6):
            keep(
                tmp_path / "answers",
                (arm, seed),
                planted(arm, seed, dict(zip((PAIRS, FOLLOWING, PRESENCE), rates, strict=True))),
            )
    merge(tmp_path / "answers", tmp_path / "mixture.parquet")
    return tmp_path / "mixture.parquet"


def test_planted_differences_are_found_and_nothing_else(table):
    raw = Raw(table)
    gain = GROUNDING.gain(raw, "imof")
    assert gain.difference.low < 0.2 < gain.difference.high
    assert gain.difference.low > 0.1
    assert all(value > 0 for value in gain.by_seed)
    assert "6 of 6, p=0.031" in str(gain)
    assert FOLLOWED.gain(raw, "imof").difference.value == 0
    loss = FOLLOWED.gain(raw, "amof-0.5").difference
    assert loss.low < -0.3 < loss.high < -0.2
    assert GROUNDING.gain(raw, "amof-0.5").difference.value == 0


def test_an_arm_is_set_beside_the_baseline_on_the_seeds_of_both(table):
    gain = FOLLOWED.gain(Raw(table), "amof-0.25")
    assert len(gain.by_seed) == gain.difference.runs == 3


def test_a_mean_is_that_of_all_answers_and_its_interval_the_crossed_one_over_scenes(table):
    raw = Raw(table)
    measure = Measure(task=FOLLOWING)
    found = raw.answers("clip", FOLLOWING)
    sums = np.zeros((6, PER_GROUP))
    for place, cluster in enumerate(found.clusters):
        sums[:, int(cluster.split()[1])] += found.right[:, place]
    wanted = crossed_mean(sums, np.full(PER_GROUP, len(cells())), seed=0)
    assert measure.mean(raw, "clip").value == pytest.approx(found.right.mean())
    assert measure.mean(raw, "clip").value == pytest.approx(wanted.value)
    assert measure.mean(raw, "clip").high - measure.mean(raw, "clip").low == pytest.approx(
        wanted.high - wanted.low, rel=0.1
    )


def test_the_headline_leaves_out_the_cells_that_are_never_taught(table):
    found = FOLLOWED.of(Raw(table), "clip")
    assert len(found.groups) == PER_GROUP * (len(cells()) - len(held_out()))
    assert not set(found.groups) & {"/".join(cell) for cell in held_out()}


def test_merging_again_changes_nothing_and_a_new_run_takes_the_place_of_the_old(table, tmp_path):
    before = table.read_bytes()
    merge(tmp_path / "answers", table)
    assert table.read_bytes() == before
    assert not list(tmp_path.glob("*.writing"))
    keep(tmp_path / "answers", ("clip", 0), planted("clip", 0, {PAIRS: 1.0, FOLLOWING: 1.0, PRESENCE: 1.0}))
    merge(tmp_path / "answers", table)
    raw = Raw(table)
    assert raw.answers("clip", PAIRS, [0]).right.mean() == 1
    assert raw.answers("clip", PAIRS, [1]).right.mean() < 0.5
    assert len(raw.runs) == 21


def test_runs_that_were_asked_other_things_are_not_put_together(table, tmp_path):
    rows = planted("clip", 5, {PAIRS: 0.5, FOLLOWING: 0.5, PRESENCE: 0.5})
    keep(tmp_path / "answers", ("clip", 5), rows[1:])
    merge(tmp_path / "answers", table)
    with pytest.raises(ValueError, match="were not asked the same in pairs"):
        Raw(table).answers("clip", PAIRS)


def test_tables_and_picture_show_every_arm_that_has_runs(table):
    said = results.tables(Raw(table))
    for arm in ("clip", "imof", "amof-0.5", "amof-0.25"):
        assert f"| `{arm}` |" in said
    assert "| `ssl` |" not in said
    assert said.count("| `amof-0.25` | 2 | 3") == 1  # seed 2 by itself: 30 % of pairs were planted
    assert results.picture(Raw(table)).axes


def test_every_published_ratio_has_an_arm_and_headline_arms_have_six_seeds():
    shares = {arm.share for arm in ARMS if arm.sight.second == "two-view"} - {None}
    assert shares == {0.25, 0.5, 0.625, 0.75, 0.875}
    six = {arm.name for arm in ARMS if len(arm.seeds) == 6}
    assert six == {"clip", "ssl", "amof-0.5", "amof-0.75", "imof", "concatenated"}
    assert all(len(arm.seeds) >= 3 for arm in ARMS)


SMALL = Amounts(
    one=replace(STAGE_ONE, max_steps=1, per_device_train_batch_size=8),
    two=replace(STAGE_TWO, max_steps=2, per_device_train_batch_size=8, save_steps=1),
    scenes=60,
    per_pattern=4,
    named=(30, 10),
    each=2,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    render_set(folder / "train", SetPlan(split="train", scenes=60), workers=1)
    render_set(folder / "maps", SetPlan(split="train", scenes=20), workers=1, maps=True)
    return folder


def small(world, out, raw, *, arms=("clip", "imof"), report=None):
    exam = Exam(folder=world / "test", pairs=2, each=1, scenes=60)
    chosen = [replace(arm, seeds=(0, 1)) for arm in ARMS if arm.name in arms]
    return list(
        run(
            out,
            raw,
            arms=chosen,
            scenes=world / "train",
            maps=world / "maps",
            amounts=SMALL,
            exam=exam,
            report=report,
        )
    )


@pytest.mark.slow
def test_a_small_study_runs_is_resumed_and_never_runs_again_what_is_there(world, tmp_path):
    raw = tmp_path / "mixture.parquet"

    def kill(stage, done, whole):
        if (stage, done) == ("train", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(world, tmp_path / "out", raw, report=kill)
    assert small(world, tmp_path / "out", raw) == [("clip", 0), ("imof", 0), ("clip", 1), ("imof", 1)]
    unbroken = small(world, tmp_path / "again", tmp_path / "again.parquet", arms=("clip",))
    assert unbroken == [("clip", 0), ("clip", 1)]
    assert (tmp_path / "out/zoo/clip-0/model.safetensors").read_bytes() == (
        tmp_path / "again/zoo/clip-0/model.safetensors"
    ).read_bytes()
    assert small(world, tmp_path / "elsewhere", raw) == []
    assert not (tmp_path / "elsewhere").exists()
    found = Raw(raw)
    assert found.answers("imof", PAIRS).right.shape == (2, 2 * len(PATTERNS))
    assert found.answers("imof", FOLLOWING).right.shape == (2, len(cells()))
    assert found.answers("imof", PRESENCE).right.shape == (2, 4 * 30)
    assert "| `imof` | 2 |" in results.tables(found)
    record = json.loads((tmp_path / "out/zoo/imof-0/training.json").read_text())
    assert record["sight"]["second"] == "two-view"


@pytest.mark.skipif(not (DOCS / results.RAW).exists(), reason="no run of the study is in the docs yet")
def test_the_tables_of_the_docs_are_those_of_the_raw_results():
    assert results.tables(Raw(DOCS / results.RAW)) == (DOCS / results.TABLES).read_text("utf8")
