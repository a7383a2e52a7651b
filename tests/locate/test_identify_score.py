"""Aggregates of ranks: right on ranks whose answer is known, intervals from pictures and not from parts."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.stats import cluster_bootstrap
from eyechart.locate.identify import PartRanks
from eyechart.locate.identify_score import (
    best_layer,
    cluster_median,
    ratios_by_layer,
    row_bin,
    size_bin,
    size_bins,
    summarise,
)
from eyechart.locate.regions import RegionRule


def part(image, mask, random, wrong=None, *, name="head", cells=3, row=0.5, layers=(0, 1)):
    def array(value):
        return None if value is None else np.array(value, dtype=np.float64)

    return PartRanks(
        image=image, object="cat", part=name, instance=0, cells=cells, row=row, share=0.1, visible=1.0, layers=layers,
        mask=array(mask), random=array(random), wrong=array(wrong), control=RegionRule.OUTLINE,
        regions=0 if random is None else 8, others=(),
    )  # fmt: skip


FOUND = [
    part("a", [8, 1], [8, 10], [8, 4], cells=1, row=0.1),
    part("a", [8, 2], [4, 10], [8, 4], name="tail", cells=30, row=0.9),
    part("b", [8, 4], [2, 10], None, cells=5, row=0.4),
    part("c", [8, 200], [8, 100], [8, 100], name="tail", cells=5, row=0.5),
    part("d", [8, 5], None, [8, 5], cells=9, row=0.5),
]


def group(by, name, groups):
    return next(one for one in groups if (one.by, one.name) == (by, name))


def test_all_parts_at_one_layer():
    whole = summarise(FOUND, 1, ks=(1, 10), seed=0)[0]
    assert (whole.n, whole.images) == (5, 4)
    assert whole.ratio.value == pytest.approx(np.median([10, 5, 2.5, 0.5]))
    assert (whole.ratio.n, whole.ratio.images) == (4, 3), "one has no room for a region"
    assert whole.wrong_ratio.value == pytest.approx(np.median([4, 2, 0.5, 1]))
    reciprocal = dict(whole.reciprocal)
    assert reciprocal["mask"].value == pytest.approx(np.mean([1, 1 / 2, 1 / 4, 1 / 200, 1 / 5]))
    assert reciprocal["random"].value == pytest.approx(np.mean([0.1, 0.1, 0.1, 0.01]))
    assert reciprocal["wrong"].value == pytest.approx(np.mean([1 / 4, 1 / 4, 1 / 100, 1 / 5]))
    hits = {(k, arm): one for k, arm, one in whole.hits}
    assert hits[1, "mask"].value == pytest.approx(1 / 5)
    assert hits[10, "mask"].value == pytest.approx(4 / 5)
    assert hits[10, "random"].value == pytest.approx(3 / 4)
    assert hits[1, "random"].note == "", "all misses have Wilson's bound"
    assert 0 < hits[1, "random"].high < 1
    assert whole.ratio.low <= whole.ratio.value <= whole.ratio.high


def test_means_have_the_interval_of_the_cluster_bootstrap():
    whole = summarise(FOUND, 1, seed=3, level=0.9, resamples=500)[0]
    values, images = [1, 1 / 2, 1 / 4, 1 / 200, 1 / 5], list("aabcd")
    want = cluster_bootstrap(values, images, level=0.9, resamples=500, seed=3)
    got = dict(whole.reciprocal)["mask"]
    assert (got.value, got.low, got.high, got.images) == (want.value, want.low, want.high, 4)


def test_groups_by_part_size_and_row_hold_every_part_once():
    groups = summarise(FOUND, 1, seed=0)
    for by in ("part", "size", "row"):
        assert sum(one.n for one in groups if one.by == by) == len(FOUND)
    assert [one.name for one in groups if one.by == "size"] == ["1", "2-4", "5-9", "10-25", "26+"]
    assert {one.name: one.n for one in groups if one.by == "size"} == {
        "1": 1,
        "2-4": 0,
        "5-9": 3,
        "10-25": 0,
        "26+": 1,
    }
    assert {one.name: one.n for one in groups if one.by == "row"} == {"top": 1, "middle": 3, "bottom": 1}
    assert group("part", "tail", groups).ratio.value == pytest.approx(np.median([5, 0.5]))


def test_nothing_measured_and_one_picture_are_said():
    groups = summarise(FOUND, 1, seed=0)
    empty = group("size", "2-4", groups)
    assert (empty.n, empty.ratio.value, empty.ratio.low) == (0, None, None)
    assert empty.ratio.note == "nothing measured"
    single = group("size", "1", groups).ratio
    assert (single.value, single.low, single.high) == (10, None, None)
    assert "one cluster" in single.note
    none = summarise([], 0, seed=0)
    assert none[0].ratio.note == "nothing measured"
    assert ratios_by_layer([], seed=0) == ()


def test_layers():
    with pytest.raises(ValueError, match=r"a, head: read at the layers \(0, 1\), so not at 2"):
        summarise(FOUND, 2, seed=0)
    later = [part(str(n), [5, 5], [1, 1 + n], layers=(4, 7)) for n in range(3)]
    assert best_layer(later) == 7
    assert best_layer(FOUND) == 1
    by = dict(ratios_by_layer(FOUND, seed=0))
    assert by[1].value == summarise(FOUND, 1, seed=0)[0].ratio.value
    assert by[0].value == pytest.approx(np.median([1, 0.5, 0.25, 1]))
    wrong = dict(ratios_by_layer(FOUND, control="wrong", seed=0))
    assert wrong[1].value == pytest.approx(1.5)
    with pytest.raises(ValueError, match="no part was ranked beside a random region"):
        best_layer(FOUND[-1:])
    with pytest.raises(ValueError, match="read at different layers"):
        best_layer([*FOUND, *later])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=2, max_size=30).filter(
        lambda items: len({cluster for cluster, _ in items}) > 1
    ),
    st.integers(0, 99),
)
def test_the_median_of_each_resample_is_numpys(items, seed):
    clusters, values = zip(*items, strict=True)
    array = np.array(values, dtype=np.float64)
    found = cluster_median(array, clusters, resamples=120, seed=seed)
    names = list(dict.fromkeys(clusters))
    rng = np.random.default_rng(seed)
    slow = []
    for _ in range(120):
        drawn = [names[place] for place in rng.integers(len(names), size=len(names))]
        slow.append(np.median(np.concatenate([array[np.array(clusters) == name] for name in drawn])))
    assert found.value == np.median(array)
    assert [found.low, found.high] == np.percentile(slow, [2.5, 97.5]).tolist()
    assert (found.n, found.clusters) == (len(items), len(names))


@pytest.mark.slow
def test_the_interval_covers_the_truth_and_parts_of_a_picture_count_together():
    rng, hits, naive = np.random.default_rng(0), 0, 0
    for trial in range(200):
        values = (rng.normal(size=(40, 1)) + 0.3 * rng.normal(size=(40, 10))).ravel()
        found = cluster_median(values, np.repeat(np.arange(40), 10).tolist(), resamples=200, seed=trial)
        alone = scipy.stats.bootstrap(
            (values,), np.median, n_resamples=200, random_state=trial, method="percentile"
        )
        hits += found.low <= 0 <= found.high
        naive += alone.confidence_interval.low <= 0 <= alone.confidence_interval.high
    assert 0.85 < hits / 200 <= 1
    assert naive / 200 < 0.7


def test_the_draws_come_in_pieces_alike(monkeypatch):
    values, clusters = np.arange(30.0), [n // 3 for n in range(30)]
    whole = cluster_median(values, clusters, seed=1)
    monkeypatch.setattr("eyechart.locate.identify_score._DRAWN", 90)
    assert cluster_median(values, clusters, seed=1) == whole


@pytest.mark.parametrize(
    ("values", "clusters", "match"),
    [
        ([], [], "got 0 and 0"),
        ([1.0, np.nan], [0, 1], "a median needs finite values"),
        ([1.0, 2.0], [0], "got 2 and 1"),
        ([1.0, 2.0], ["a", "a"], "all 2 values are in one cluster"),
    ],
)
def test_medians_that_cannot_be_taken(values, clusters, match):
    with pytest.raises(ValueError, match=match):
        cluster_median(np.array(values, dtype=np.float64), clusters, seed=0)


@given(st.integers(1, 400))
def test_every_size_has_one_bin(cells):
    name = size_bin(cells)
    low, _, high = name.rstrip("+").partition("-")
    assert int(low) <= cells
    assert name.endswith("+") or cells <= int(high or low)
    assert name in size_bins()


def test_rows():
    assert [row_bin(row) for row in (0.0, 0.33, 0.34, 0.66, 0.67, 1.0)] == [
        "top",
        "top",
        "middle",
        "middle",
        "bottom",
        "bottom",
    ]
