"""The scale study: a run from scenes to results, and what is made of results that are known."""

import json
import random
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.core.stats import wilson
from eyechart.recipes.clip import SETTINGS, shown
from eyechart.recipes.scale import ARMS, STEPS, Arm, study
from eyechart.recipes.scale_results import (
    WAY,
    WIDTHS,
    changes,
    foretold,
    gathered,
    hits_of,
    main,
    picture,
    slopes,
    tables,
)
from eyechart.world.facts import PATTERNS
from eyechart.world.sets import load_set, render_set
from eyechart.world.sets_plan import SetPlan

PAIRS = 60
RISES = "color"
FALLS = "text"


def made(arm: Arm, rng: random.Random) -> dict[str, object]:
    """Results in which one pattern rises with width and data, one falls, and the others are luck."""
    width = np.log2(arm.width / WIDTHS[0])
    data = np.log(arm.scenes / 1_500) / np.log(4)
    likely = dict.fromkeys(PATTERNS, 0.3)
    likely[RISES] = 0.2 + 0.2 * width + 0.1 * data
    likely[FALLS] = 0.8 - 0.2 * width
    hits = {}
    for pattern in PATTERNS:
        bits = ["01"[place < round(likely[pattern] * PAIRS)] for place in range(PAIRS)]
        rng.shuffle(bits)
        hits[pattern] = {WAY: "".join(bits)}
    zero_shot = wilson(round(100 * (0.3 + 0.1 * width + 0.05 * data)), 100).to_dict()
    return {
        "name": arm.name,
        "arm": asdict(arm),
        "parameters": 1000,
        "zero_shot": {"kind": zero_shot, "color": zero_shot},
        "hits": hits,
    }


@pytest.fixture(scope="module")
def results():
    rng = random.Random("scale")
    return {arm.name: made(arm, rng) for arm in ARMS}


def test_planted_slopes_are_recovered_and_their_intervals_hold_them(results):
    rising, falling = slopes(results, RISES), slopes(results, FALLS)
    assert rising.per_width[0] == pytest.approx(0.2, abs=0.01)
    assert rising.per_data[0] == pytest.approx(0.1, abs=0.01)
    assert rising.per_width[1] > 0.1
    assert falling.per_width[0] == pytest.approx(-0.2, abs=0.01)
    assert falling.per_data[1] < 0 < falling.per_data[2]


def test_slopes_are_those_of_ordinary_least_squares(results):
    sklearn = pytest.importorskip("sklearn.linear_model")
    grid = [result for result in results.values() if result["arm"]["side"] == 96]
    x = [[np.log2(r["arm"]["width"]), np.log(r["arm"]["scenes"]) / np.log(4)] for r in grid]
    fitted = sklearn.LinearRegression().fit(x, [hits_of(r, "state").mean() for r in grid])
    found = slopes(results, "state")
    assert (found.per_width[0], found.per_data[0]) == pytest.approx(tuple(fitted.coef_))


def test_only_what_rises_is_better_in_the_largest(results):
    small, large = Arm(width=32, scenes=1_500), Arm(width=128, scenes=24_000)
    tests = changes(results, small, large)
    assert tests[RISES][0].difference == pytest.approx(0.6)
    assert tests[FALLS][0].difference == pytest.approx(-0.4)
    significant = {pattern for pattern, (_, p) in tests.items() if p < 0.05}
    assert {RISES, FALLS} <= significant
    assert all(p >= test.p_value for test, p in tests.values())


def test_zero_shot_foretells_what_it_was_made_to(results):
    grid = {name: result for name, result in results.items() if result["arm"]["side"] == 96}
    assert foretold(grid, RISES, "kind")["pearson"].value > 0.95
    assert foretold(grid, FALLS, "kind")["spearman"].value < -0.8
    flat = {name: {**one, "hits": {"state": {WAY: "01"}}} for name, one in grid.items()}
    assert foretold(flat, "state", "kind")["pearson"] is None


def test_tables_name_every_clip_and_every_pattern(results):
    text = tables(results)
    assert text.count("| width ") == len(ARMS)
    assert "width 128, 24,000 scenes, 48 px" in text
    for pattern in PATTERNS:
        assert text.count(f"| {pattern} |") >= 3


def test_results_are_gathered_in_order_and_written_with_a_picture(results, tmp_path):
    for result in reversed(results.values()):
        (tmp_path / f"result-{result['name']}.jsonl").write_text(json.dumps(result) + "\n")
    assert list(gathered(tmp_path)) == [arm.name for arm in ARMS]
    main(tmp_path, tmp_path)
    assert json.loads((tmp_path / "scale.json").read_bytes()) == results
    with Image.open(tmp_path / "scale.png") as drawn:
        assert drawn.size[0] > 800
    assert len(picture(results).axes) == 9


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    render_set(folder / "train", SetPlan(split="train", scenes=12), size=96, workers=1)
    return folder


def test_fewer_and_smaller_pictures(scenes):
    whole = load_set(scenes / "train")
    some = shown(whole, side=48, first=5)
    assert some.images.shape == (5, 48, 48, 3)
    assert len(some.scenes) == len(some.families) == 5
    by_pil = Image.fromarray(whole.images[3]).resize((48, 48), Image.Resampling.BICUBIC)
    assert np.array_equal(some.images[3], np.asarray(by_pil))
    assert shown(whole, side=96).images is not None
    with pytest.raises(UserError, match="holds 12 scenes, so the first 13 cannot be taken"):
        shown(whole, side=96, first=13)
    with pytest.raises(UserError, match="a side of 192 would add nothing"):
        shown(whole, side=192)


@pytest.mark.slow
def test_a_run_trains_measures_and_goes_on(scenes, tmp_path):
    arms = [Arm(width=32, scenes=8, side=48), Arm(width=32, scenes=12)]
    few = replace(SETTINGS, max_steps=1, per_device_train_batch_size=4, warmup_steps=1, save_steps=1)
    done = study(tmp_path, arms=arms[:1], world=scenes, settings=few, pairs=1)
    assert list(done) == ["w32-n8-48px"]
    result = done["w32-n8-48px"]
    assert set(result["hits"]) == set(PATTERNS)
    assert len(result["hits"]["color"][WAY]) == 1
    assert result["parameters"] > 10_000
    before = (tmp_path / "result-w32-n8-48px.jsonl").read_bytes()
    assert list(study(tmp_path, arms=arms, world=scenes, settings=few, pairs=1)) == [arm.name for arm in arms]
    assert (tmp_path / "result-w32-n8-48px.jsonl").read_bytes() == before


def test_every_arm_has_a_name_of_its_own_and_heads_of_32_channels():
    assert len({arm.name for arm in ARMS}) == len(ARMS)
    assert {arm.shape.hidden_size // arm.shape.num_attention_heads for arm in ARMS} == {32}
    assert STEPS.max_steps < SETTINGS.max_steps
