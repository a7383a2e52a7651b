"""The study of compensation: folders by model and cut, what is summed up, and tables that say so."""

import json

import pytest

from eyechart.recipes.compensation import folder_of, study, summed, tables


def estimate(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def block(recovered):
    def arm(layer):
        return {
            "layer": layer,
            "means": {
                "vision cut": estimate(1.0),
                "language cut": estimate(2.0),
                "both cut": estimate(0.5),
            },
            "recovered": recovered,
        }

    return {
        "n": 7,
        "images": 3,
        "left_out": 1,
        "main": "main",
        "intact": [estimate(2.0), estimate(2.5)],
        "arms": {"main": [arm(0), arm(1)], "random": [arm(0), arm(1)]},
    }


def test_tables_hold_both_ends_and_undefined_ratios():
    results = {
        "proofs": [{}, {}],
        "knockout": {
            "lens": block({"value": 0.5, "low": 0.25, "high": 0.75}),
            "lens_rival": block({"value": None, "low": None, "high": None}),
            "probe": {"refit": {"why": "too few"}},
        },
    }
    run = {"model": "zoo:llava-biased", "cut": "part<-rest", **summed(results)}
    assert run["readouts"]["refit"] == {"why": "too few"}
    assert run["readouts"]["lens"]["controls"]["random"]["layer"] == 1
    said = tables({"runs": [run]})
    row = "| `llava-biased`, `part<-rest` | 1 | 2.50 [2.40, 2.60] | 1.00 [0.90, 1.10] | 2.00 [1.90, 2.10] | 0.50 [0.40, 0.60]"
    assert f"{row} | 50 % [25, 75] | 7 in 3 |" in said
    assert f"{row} | undefined | 7 in 3 |" in said


def test_every_run_has_a_folder_of_its_own():
    names = {
        folder_of(f"zoo:llava-{kind}", cut)
        for kind in ("biased", "told-all", "permuted")
        for cut in ("part<-rest", "patches<-patches")
    }
    assert len(names) == 6


@pytest.mark.slow
def test_the_study_runs_and_is_kept(tmp_path):
    first = study(tmp_path, models=["zoo:llava-biased"], cuts={"patches<-patches": ()}, pictures=3)
    assert first["runs"][0]["proofs"] == 2
    assert json.loads((tmp_path / "compensation.json").read_text()) == first
    assert "patches<-patches" in tables(first)
