"""Correlation of encoder and model over patterns: the published figures, planted truths, and what noise does."""

import json
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eyechart.core.errors import UserError
from eyechart.score.correlate import _Cells, correlate, correlations
from eyechart.score.pairwise import drawn_table, phi, same_pairs
from eyechart.score.series import (
    PairHit,
    Series,
    pattern_name,
    read_series,
    series_of_answers,
    series_of_counts,
    series_of_matches,
)

# Figure 6 of "Eyes Wide Shut?" (arXiv 2401.06209), read from its markers and snapped to fractions; the series "CLIP" is the
# mean of three rows of Table 1, so its steps are of 45.
PATTERNS = (
    "Color & Appearance",
    "State & Condition",
    "Structural & Physical",
    "Viewpoint & Perspective",
    "Presence of Features",
    "Quantity & Count",
    "Positional & Relational",
    "Text",
    "Orientation & Direction",
)
CLIP = (21, 15, 10, 10, 9, 7, 5, 4, 3)
MODELS = {
    "LLaVA-1.5": ((9, 13), (4, 15), (4, 17), (2, 12), (14, 42), (2, 11), (6, 23), (0, 4), (0, 12)),
    "Gemini": ((9, 13), (8, 15), (6, 18), (3, 11), (19, 43), (3, 11), (9, 23), (2, 4), (2, 12)),
    "GPT-4V": ((9, 13), (5, 15), (7, 17), (2, 12), (21, 42), (3, 11), (10, 23), (3, 4), (1, 12)),
    "InstructBLIP": ((3, 13), (6, 15), (6, 17), (0, 12), (8, 42), (2, 11), (3, 23), (0, 4), (0, 12)),
}


def published(model, **more):
    clip = {pattern: (hits, 45) for pattern, hits in zip(PATTERNS, CLIP, strict=True)}
    return correlate(clip, dict(zip(PATTERNS, MODELS[model], strict=True)), names=("CLIP", model), **more)


@pytest.mark.parametrize(
    ("model", "expected"),
    [("LLaVA-1.5", 0.870), ("Gemini", 0.721), ("GPT-4V", 0.308), ("InstructBLIP", 0.605)],
)
def test_the_published_correlations_come_back_but_for_instructblip(model, expected):
    found = published(model, resamples=200)
    assert found.pearson.value == pytest.approx(expected, abs=0.001)  # published from shares of one decimal
    assert found.pearson.n == 9
    assert found.same_pairs is None
    assert len(found.pearson.leave_one_out) == 9
    assert found.pearson.test.startswith("exact permutation test, 362880 orders")


def test_instructblip_is_not_what_the_paper_says():
    assert abs(published("InstructBLIP", resamples=200).pearson.value - 0.71) > 0.1


def test_color_drives_much_of_the_published_correlation():
    found = published("LLaVA-1.5", resamples=200)
    without = dict(zip([point.pattern for point in found.points], found.pearson.leave_one_out, strict=True))
    assert without["color"] == min(without.values())
    assert without["color"] < found.pearson.value - 0.2


def test_the_published_figures_carry_their_noise_and_notes():
    found = published("LLaVA-1.5")
    assert found.pearson_noise.low < found.pearson.value < 1
    assert found.pearson_noise.median < found.pearson.value  # drawn again, it leans towards 0
    assert (
        found.pearson_both.high - found.pearson_both.low > found.pearson_noise.high - found.pearson_noise.low
    )
    assert found.notes == (
        "the two were not scored on the same pairs, so nothing is said of single pairs",
        "fewer than 10 pairs of a series in: text",
    )
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_the_interval_of_a_pattern_is_wilsons():
    (text,) = (point for point in published("GPT-4V", resamples=200).points if point.pattern == "text")
    assert (text.model.hits, text.model.n) == (3, 4)
    assert (round(text.model.low, 3), round(text.model.high, 3)) == (0.301, 0.954)


def test_names_of_the_sets_and_of_the_paper_are_the_nine_patterns():
    nine = {
        "orientation",
        "presence",
        "state",
        "quantity",
        "position",
        "color",
        "structure",
        "text",
        "viewpoint",
    }
    folders = "Camera Perspective,Color,Orientation,Presence,Quantity,Spatial,State,Structural Character,Text".split(
        ","
    )
    assert {pattern_name(name) for name in folders} == nine
    assert {pattern_name(name) for name in PATTERNS} == nine
    assert pattern_name("My_own  Pattern") == "my own pattern"


def test_patterns_of_one_side_are_left_out_and_listed():
    x = {name: (k, 10) for k, name in enumerate("abcde")}
    y = {name: (k, 10) for k, name in enumerate("bcdef")}
    found = correlate(x, y, resamples=200)
    assert [point.pattern for point in found.points] == list("bcde")
    assert found.left_out == ("a", "f")


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ({"a": (1, 2)}, {"b": (1, 2)}, r"0 patterns in common \(none\), and a correlation needs 4"),
        (
            {k: (k in "ab", 2) for k in "abcd"},
            dict.fromkeys("abcd", (1, 2)),
            "model has 50.0% in all 4 patterns",
        ),
        ({"State": (1, 2), "state & condition": (1, 2)}, {}, "two of the patterns"),
    ],
)
def test_what_cannot_be_correlated_is_refused(x, y, message):
    with pytest.raises(UserError, match=message):
        correlate(x, y)


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="has 3 hits of 2"):
        series_of_counts("x", {"a": (3, 2)})


rows = st.lists(st.lists(st.integers(0, 6).map(float), min_size=6, max_size=6), min_size=1, max_size=5)


@pytest.mark.slow
@given(rows, rows)
def test_correlations_of_draws_agree_with_scipy(xs, ys):
    count = min(len(xs), len(ys))
    x, y = np.array(xs[:count]), np.array(ys[:count])
    for kind, oracle in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        for value, a, b in zip(correlations(x, y, kind), x, y, strict=True):
            if np.ptp(a) == 0 or np.ptp(b) == 0:
                assert np.isnan(value)
            else:
                assert value == pytest.approx(oracle(a, b).statistic, abs=1e-9)


def independent(p, q, n):
    """Cells of series that share no pairs."""
    nothing = np.zeros(0, dtype=bool)
    return _Cells(
        joint=[(nothing, nothing)] * len(p),
        alone=[((int(a), n), (int(b), n)) for a, b in zip(p, q, strict=True)],
    )


def test_a_planted_correlation_is_pulled_to_zero_by_few_pairs_and_put_back_by_the_correction():
    rng = np.random.default_rng(5)
    truth, n = 0.8, 15
    seen, corrected = [], []
    for _ in range(
        150
    ):  # 60 patterns each: the correction is a ratio and needs many to be judged by its mean
        both = rng.multivariate_normal([0.5, 0.5], 0.03 * np.array([[1, truth], [truth, 1]]), size=60)
        hits = rng.binomial(n, np.clip(both, 0.02, 0.98))
        cells = independent(hits[:, 0], hits[:, 1], n)
        seen.append(np.corrcoef(hits.T)[0, 1])
        corrected.append(cells.attenuation().corrected)
    assert np.mean(seen) < 0.6
    assert np.mean(corrected) == pytest.approx(truth, abs=0.03)


@pytest.mark.slow
def test_noise_that_both_share_is_taken_off_where_pairs_are_the_same():
    rng = np.random.default_rng(6)
    seen, corrected = [], []
    for _ in range(150):  # the two have nothing in common but that hard pairs are hard for both
        joint = []
        for p in rng.uniform(0.3, 0.7, size=(60, 2)):
            hard = rng.random(15)
            joint.append(tuple(np.where(rng.random(15) < 0.8, hard, rng.random(15)) < each for each in p))
        cells = _Cells(joint=joint, alone=[((0, 0), (0, 0))] * 60)
        values = np.array([[a.mean(), b.mean()] for a, b in joint])
        seen.append(np.corrcoef(values.T)[0, 1])
        corrected.append(cells.attenuation().corrected)
    assert np.mean(seen) > 0.15
    assert abs(np.nanmean(np.array(corrected, dtype=float))) < 0.05


def test_a_spread_that_noise_alone_would_make_gives_no_correction():
    found = independent([7, 8, 7, 8, 7], [2, 8, 1, 9, 5], 15).attenuation()
    assert (found.reliability_encoder, found.corrected) == (None, None)
    assert found.reliability_model > 0.5


def test_draws_within_patterns_are_the_bootstrap_of_pairs():
    cells = independent([3, 12, 9], [1, 7, 14], 15)
    x, y = cells.draws(20_000, np.random.default_rng(0))
    p = np.array([3, 12, 9]) / 15
    assert x.mean(axis=0) == pytest.approx(p, abs=0.01)
    assert x.std(axis=0) == pytest.approx(np.sqrt(p * (1 - p) / 15), abs=0.005)
    assert y.mean(axis=0) == pytest.approx(np.array([1, 7, 14]) / 15, abs=0.01)
    x, _ = cells.draws(20_000, np.random.default_rng(0), patterns=True)
    assert x.mean(axis=0) == pytest.approx([p.mean()] * 3, abs=0.01)


def test_pairs_that_are_shared_are_drawn_together():
    a = np.array([True] * 8 + [False] * 7)
    cells = _Cells(joint=[(a, a)], alone=[((0, 0), (0, 0))])
    x, y = cells.draws(500, np.random.default_rng(0))
    assert (x == y).all()
    both = np.ones(15, dtype=bool), np.zeros(15, dtype=bool)
    x, y = _Cells(joint=[both], alone=[((0, 0), (0, 0))]).draws(50, np.random.default_rng(0))
    assert (x == 1).all()
    assert (y == 0).all()
    table = drawn_table(a, ~a, 400, np.random.default_rng(1))
    assert (table.sum(axis=1) == 15).all()
    assert (table[:, [0, 3]] == 0).all()


# single pairs


def series(name, hits):
    """A series from `{pattern: "0110"}`; the key is pattern and place."""
    return Series(
        name=name,
        patterns={pattern: (bits.count("1"), len(bits)) for pattern, bits in hits.items()},
        pairs={
            (f"{pattern}{place}", "b"): PairHit(pattern=pattern, right=bit == "1")
            for pattern, bits in hits.items()
            for place, bit in enumerate(bits)
        },
    )


def test_the_same_pairs_are_put_in_a_table():
    x = series("x", {"a": "1100", "b": "1110", "c": "0000", "d": "1111"})
    y = series("y", {"a": "1010", "b": "1100", "c": "0001", "d": "1110"})
    found = correlate(x, y, resamples=200).same_pairs
    assert (found.n, found.both, found.first_only, found.second_only, found.neither) == (16, 6, 3, 2, 5)
    assert (found.test.fixes, found.test.regressions) == (2, 3)
    assert found.phi.value == pytest.approx(stats.pearsonr([*x_bits(x)], [*x_bits(y)]).statistic)


def x_bits(one):
    return [hit.right for _, hit in sorted(one.pairs.items())]


bits = st.lists(st.booleans(), min_size=2, max_size=30)


@given(bits, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_phi_is_pearsons_correlation_of_zeros_and_ones(first, random):
    second = [random.random() < 0.5 for _ in first]
    value = phi(np.array(first), np.array(second))
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert value is None
    else:
        assert value == pytest.approx(
            stats.pearsonr(np.array(first, float), np.array(second, float)).statistic
        )


def test_phi_within_groups_is_of_what_is_left_of_each_when_group_means_are_taken_off():
    rng = np.random.default_rng(4)
    first, second, group = rng.random(60) < 0.4, rng.random(60) < 0.6, np.repeat([0, 1, 2], 20)
    first[:20] = rng.random(20) < 0.9
    left = [each - np.array([each[group == g].mean() for g in group]) for each in (first * 1.0, second * 1.0)]
    value = phi(first, second, [np.flatnonzero(group == g) for g in range(3)])
    assert value == pytest.approx(stats.pearsonr(*left).statistic)


def test_what_patterns_do_to_both_is_no_association_within_them():
    rng = np.random.default_rng(2)
    patterns = ["easy"] * 200 + ["hard"] * 200
    p = np.array([0.9] * 200 + [0.1] * 200)
    found = same_pairs(
        (rng.random(400) < p).tolist(), (rng.random(400) < p).tolist(), patterns, resamples=400
    )
    assert found.phi.low > 0.4
    assert found.phi.p_value < 0.01
    assert found.phi_within.low < 0 < found.phi_within.high
    assert found.phi_within.p_value > 0.05


def test_a_planted_association_within_patterns_is_found():
    rng = np.random.default_rng(3)
    first = rng.random(300) < 0.5
    second = np.where(rng.random(300) < 0.5, first, rng.random(300) < 0.5)
    found = same_pairs(first.tolist(), second.tolist(), ["a", "b", "c"] * 100, resamples=400)
    assert found.phi_within.low < 0.5 < found.phi_within.high
    assert found.phi_within.p_value < 0.01


def test_the_p_value_within_patterns_is_that_of_all_shuffles_within_them():
    first, second = "11010010", "10110001"
    a, b = ([bit == "1" for bit in bits] for bits in (first, second))
    found = same_pairs(a, b, ["x"] * 4 + ["y"] * 4, resamples=20_000)
    groups = [np.arange(4), np.arange(4, 8)]
    every = []
    for order in product(permutations(range(4)), permutations(range(4, 8))):
        shuffled = np.array(b)[[*order[0], *order[1]]]
        every.append(abs(phi(np.array(a), shuffled, groups)) >= abs(found.phi_within.value) - 1e-9)
    assert found.phi_within.p_value == pytest.approx(np.mean(every), abs=0.015)


def test_a_model_that_is_right_on_all_pairs_has_no_phi():
    found = same_pairs([True] * 5, [True, False, True, False, True], ["a"] * 5, resamples=100)
    assert (found.phi.value, found.phi_within.p_value) == (None, None)
    with pytest.raises(ValueError, match="5, 4 and 5 values are not of the same pairs"):
        same_pairs([True] * 5, [True] * 4, ["a"] * 5)


# reading logs


def match_line(number, pattern, right, images=None):
    hashes = images or [f"h{number}a", f"h{number}b"]
    doc = {"captions": ["x", "y"], "images": ["a", "b"], "images_sha256": hashes, "pattern": pattern}
    return {"doc_id": str(number), "doc": doc, "text_to_image": int(right), "group": 0}


def answer_lines(number, pattern, right, images=None):
    hashes = images or [f"h{number}b", f"h{number}a"]  # the other way round
    return [
        {
            "doc_id": f"{number}{side}",
            "doc": {"pair_id": f"p{number}", "pattern": pattern, "image_sha256": digest},
            "outcome": "right" if right or side == "a" else "wrong",
        }
        for side, digest in zip("ab", hashes, strict=True)
    ]


def test_logs_of_both_meet_by_their_pictures():
    x = series_of_matches("x", [match_line(k, "Spatial", k % 2) for k in range(6)])
    y = series_of_answers("y", [row for k in range(2, 8) for row in answer_lines(k, "position", k < 5)])
    assert x.patterns == {"position": (3, 6)}
    assert y.patterns == {"position": (3, 6)}
    assert len(x.pairs.keys() & y.pairs.keys()) == 4


def test_pictures_of_several_pairs_are_counted_and_not_compared():
    same = ["h", "i"]
    x = series_of_matches("x", [match_line(0, "a", True, same), match_line(1, "a", False, same)])
    assert (x.patterns, x.pairs) == ({"a": (1, 2)}, {})


def test_logs_that_are_not_whole_are_refused():
    (first, _) = answer_lines(0, "a", True)
    with pytest.raises(UserError, match="pair 'p0' has 1 answers, expected 2"):
        series_of_answers("y", [first])
    first["doc"]["pair_id"] = ""
    with pytest.raises(UserError, match="item '0a' is in no pair"):
        series_of_answers("y", [first])
    with pytest.raises(UserError, match="match '0' has no score 'image_to_text'"):
        series_of_matches("x", [match_line(0, "a", True)], way="image_to_text")
    with pytest.raises(UserError, match=r"nothing was scored \(0 pairs\)"):
        series_of_matches("x", [])


def write_run(folder, kind, rows, *, tasks=("set",)):
    folder.mkdir()
    block = {"kind": kind, "model": {"id": kind}, "benchmark": {"name": "set"}}
    if kind == "vlm":
        block["variants"] = [{"task": task} for task in tasks]
    (folder / "results.json").write_text(json.dumps({"eyechart": block}))
    for task in tasks:
        (folder / f"samples_{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_two_run_folders_are_correlated(tmp_path):
    names = ("Color", "State", "Text", "Spatial", "Quantity")
    lines, answers = [], []
    for place, name in enumerate(names):
        for k in range(8):
            lines.append(match_line(f"{name}{k}", name, k <= place))
            answers += answer_lines(f"{name}{k}", name, k <= place + 1)
    encoder = write_run(tmp_path / "clip", "encoder", lines)
    model = write_run(tmp_path / "llava", "vlm", answers, tasks=("set", "set@swapped"))
    found = correlate(read_series(encoder), read_series(model, variant="swapped"), resamples=200)
    assert found.pearson.value == 1
    assert (found.encoder, found.model) == ("encoder", "vlm")
    assert found.same_pairs.n == 40
    assert found.same_pairs.first_only == 0
    with pytest.raises(UserError, match="has no variant 'numbers'; there are: set, set@swapped"):
        read_series(model, variant="numbers")
    with pytest.raises(UserError, match=r"holds no finished score \(no results.json\)"):
        read_series(tmp_path)
