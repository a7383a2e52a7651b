"""The rules of scoring against slow references, planted truths, official scripts replayed, and scikit-learn."""

import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from eyechart.core.errors import UserError
from eyechart.core.records import Graded, Item, Outcome
from eyechart.core.stats import cluster_rate, wilson
from eyechart.score import RULES, measure
from eyechart.score.resampling import Drawing, rate, weighted_mean


def item(name, *, pair="", options=("Yes", "No"), answer=0, image=None, pattern=None, **facets):
    return Item(
        id=name,
        pair_id=pair,
        question="?",
        options=options,
        answer=answer,
        image=Path("x.png"),
        image_sha256=image or name,
        pattern=pattern,
        facets=tuple(facets.items()),
    )


def graded(one, choice):
    """A reply that names an option, or none."""
    outcome = Outcome.UNREAD if choice is None else Outcome.RIGHT if choice == one.answer else Outcome.WRONG
    return Graded(item_id=one.id, reply="", choice=choice, outcome=outcome)


def outcomes(items, right):
    """Replies that are right or wrong as told."""
    return [graded(one, one.answer if hit else 1 - one.answer) for one, hit in zip(items, right, strict=True)]


def named(measures):
    return {(one.name, one.of): one for one in measures}


# ---- what holds for every rule


def some_items(rule, rng):
    """A small set of the shape of each rule."""
    if rule == "pairs":
        return [item(f"{p}{s}", pair=f"p{p}", answer=s) for p in range(6) for s in range(2)]
    if rule == "items":
        return [
            item(str(n), image=str(n // 2), pattern="ab"[n % 2], answer=rng.randrange(2)) for n in range(12)
        ]
    if rule == "cv-bench":
        kinds = [("2D", "ADE20K"), ("2D", "COCO"), ("3D", "Omni3D")]
        return [
            item(f"{n}", image=str(n // 2), pattern=kind[0], type=kind[0], source=kind[1])
            for n, kind in enumerate(kinds[k] for k in (0, 0, 0, 1, 1, 1, 2, 2, 2))
        ]
    if rule == "pope":
        return [
            item(f"{c}{n}", image=str(n // 3), answer=n % 2, pattern=c, category=c)
            for c in ("popular", "random")
            for n in range(9)
        ]
    return [natural(g, q, i) for g, q, i in product(range(4), range(2), range(2))]


def natural(group, question, image, kind="yes_no"):
    return Item(
        id=f"{group}-q{question}-i{image}",
        pair_id="",
        question="?",
        options=("Yes", "No"),
        answer=(question + image) % 2,
        image=Path("x.png"),
        image_sha256=f"{group}-{image}",
        pattern=kind,
        facets=(("group", str(group)), ("question", str(question)), ("image", str(image))),
    )


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_every_measure_is_a_share_within_its_interval_whatever_the_order(rule, data):
    items = some_items(rule, random.Random(0))
    choices = data.draw(st.lists(st.sampled_from([0, 1, None]), min_size=len(items), max_size=len(items)))
    replies = [graded(one, choice) for one, choice in zip(items, choices, strict=True)]
    found = measure(rule, items, replies, resamples=100)
    assert found[0].name == RULES[rule].primary
    assert len(named(found)) == len(found)  # no two measures of one name
    for one in found:
        if one.value is None:
            assert (one.low, one.high) == (None, None)
            continue
        assert 0 <= one.low <= one.value + 1e-12
        assert one.value - 1e-12 <= one.high <= 1
        assert one.high > one.low  # an interval of no width says that nothing is uncertain
        assert one.n > 0
    shuffled = data.draw(st.permutations(list(zip(items, replies, strict=True))))
    again = measure(rule, [one for one, _ in shuffled], [reply for _, reply in shuffled][::-1], resamples=100)
    assert {key: (one.value, one.n) for key, one in named(again).items()} == {
        key: (one.value, one.n) for key, one in named(found).items()
    }
    unread = named(found)[("unread", None)]
    assert unread.hits == sum(choice is None for choice in choices)


@pytest.mark.parametrize("rule", RULES)
def test_all_right_is_1_all_wrong_and_all_unread_are_0(rule):
    items = some_items(rule, random.Random(0))
    assert measure(rule, items, outcomes(items, [True] * len(items)))[0].value == 1
    assert measure(rule, items, outcomes(items, [False] * len(items)))[0].value == 0
    assert measure(rule, items, [graded(one, None) for one in items])[0].value == 0


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_what_answers_drawn_evenly_score_is_the_chance_stated(rule):
    rng = np.random.default_rng(5)
    items = some_items(rule, random.Random(0))
    drawn = [
        named(measure(rule, items, [graded(one, int(rng.integers(2))) for one in items], resamples=100))
        for _ in range(60)
    ]
    checked = 0
    for key, first in drawn[0].items():
        values = [each[key].value for each in drawn]
        if first.chance is None or None in values:
            continue
        spread = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - first.chance) < 4.5 * spread, key
        checked += 1
    assert checked >= 2


def test_an_unknown_rule_and_replies_that_do_not_fit():
    items = some_items("items", random.Random(0))
    with pytest.raises(UserError, match=r"no rule named 'pair'\. Did you mean 'pairs'"):
        measure("pair", items, [])
    with pytest.raises(ValueError, match="items without a graded reply"):
        measure("items", items, [])


# ---- pairs


def test_a_constant_answer_has_no_pair_and_half_of_the_images():
    items = [item(f"{n}", pair=str(n // 2), answer=n % 2) for n in range(300)]
    found = named(measure("pairs", items, [graded(one, 0) for one in items]))
    pair, image = found[("pair_accuracy", None)], found[("image_accuracy", None)]
    assert (pair.value, pair.n, pair.unit, pair.chance) == (0, 150, "pairs", 0.25)
    assert (image.value, image.n, image.chance) == (0.5, 300, 0.5)
    assert (pair.low, pair.high) == (wilson(0, 150).low, wilson(0, 150).high)


def test_pairs_are_by_id_and_not_by_the_order_of_rows():
    """One harness pairs adjacent rows; with rows shuffled its score is another."""
    items = [item(f"{n}", pair=str(n // 2), answer=n % 2) for n in range(40)]
    right = [n // 2 < 5 for n in range(40)]
    rows = list(zip(items, outcomes(items, right), strict=True))
    random.Random(2).shuffle(rows)
    assert measure("pairs", [one for one, _ in rows], [reply for _, reply in rows])[0].hits == 5


# ---- items


def test_items_on_one_image_are_a_cluster_and_others_are_not():
    alone = [item(str(n), pattern="ab"[n % 2]) for n in range(20)]
    right = [n % 3 > 0 for n in range(20)]
    found = named(measure("items", alone, outcomes(alone, right)))[("accuracy", None)]
    assert (found.low, found.high) == (wilson(13, 20).low, wilson(13, 20).high)
    shared = [item(str(n), image=str(n // 2)) for n in range(20)]
    found = named(measure("items", shared, outcomes(shared, right), seed=3))[("accuracy", None)]
    expected = cluster_rate(right, [n // 2 for n in range(20)], seed=3)
    assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)


def test_the_mean_over_patterns_is_not_the_pooled_accuracy():
    items = [item(f"a{n}", pattern="a") for n in range(30)] + [item(f"b{n}", pattern="b") for n in range(10)]
    found = named(measure("items", items, outcomes(items, [n < 30 for n in range(40)])))
    assert found[("accuracy", None)].value == 0.75
    assert found[("macro_accuracy", None)].value == 0.5
    assert (found[("accuracy", "a")].value, found[("accuracy", "b")].value) == (1, 0)


def test_one_image_says_nothing_of_others():
    items = [item(str(n), image="same") for n in range(4)]
    found = measure("items", items, outcomes(items, [True, True, True, False]))[0]
    assert (found.value, found.low, found.high) == (0.75, 0, 1)


# ---- CV-Bench


def cv_items(counts):
    """So many items of each (type, source)."""
    return [
        item(f"{source}-{n}", image=f"{source}-{n // 2}", pattern=task, type=kind, source=source)
        for (kind, source, task), number in counts.items()
        for n in range(number)
    ]


CV = {("2D", "ADE20K", "Count"): 100, ("2D", "COCO", "Relation"): 50, ("3D", "Omni3D", "Depth"): 20}


def test_the_official_formula_of_cv_bench_weighs_sources_and_not_items():
    items = cv_items(CV)
    right = [
        int(one.id.split("-")[1]) < {"ADE20K": 90, "COCO": 20, "Omni3D": 20}[one.facet("source")]
        for one in items
    ]
    found = named(measure("cv-bench", items, outcomes(items, right)))
    assert found[("2d", None)].value == pytest.approx((0.9 + 0.4) / 2)
    assert found[("3d", None)].value == 1
    assert found[("combined", None)].value == pytest.approx(((0.9 + 0.4) / 2 + 1) / 2)
    assert found[("accuracy", None)].value == pytest.approx(
        130 / 170
    )  # pooled, which is not the official score
    assert found[("accuracy", "COCO")].value == pytest.approx(0.4)
    assert found[("accuracy", "Depth")].n == 20
    assert found[("3d", None)].low < 1  # nothing varied, and yet 20 items say little


def test_without_one_of_its_sources_the_formula_is_undefined():
    items = [one for one in cv_items(CV) if one.facet("source") != "COCO"]
    found = measure("cv-bench", items, outcomes(items, [True] * len(items)))
    assert (found[0].name, found[0].value) == ("3d", 1)
    assert named(found)[("combined", None)].value is None
    assert named(found)[("2d", None)].value is None
    assert named(found)[("accuracy", None)].value == 1


def test_one_dimension_alone_stands_first():
    items = [one for one in cv_items(CV) if one.facet("type") == "2D"]
    assert measure("cv-bench", items, outcomes(items, [True] * len(items)))[0].name == "2d"


def test_sources_of_the_world_are_averaged_likewise_and_an_image_in_both_dimensions_is_drawn_once():
    items = [
        item(f"{task}{n}", image=str(n), pattern=task, type=kind, source="eyechart")
        for n in range(30)
        for task, kind in (("Count", "2D"), ("Depth", "3D"))
    ]
    together = [int(one.image_sha256) < 15 for one in items]
    apart = [(int(one.image_sha256) < 15) == (one.pattern == "Count") for one in items]
    wide, narrow = (measure("cv-bench", items, outcomes(items, right))[0] for right in (together, apart))
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > 0.3
    assert narrow.high - narrow.low < 0.15  # what an image gains in one dimension it loses in the other


# ---- POPE


def pope_items():
    rng = random.Random(3)
    return [
        item(
            f"{category}-{n}", image=str(n // 6), answer=rng.randrange(2), pattern=category, category=category
        )
        for category in ("adversarial", "popular", "random")
        for n in range(60)
    ]


def test_popes_measures_are_those_of_scikit_learn():
    items, rng = pope_items(), random.Random(8)
    choices = [one.answer if rng.random() < 0.7 else rng.choice([0, 1, None]) for one in items]
    found = named(measure("pope", items, [graded(one, c) for one, c in zip(items, choices, strict=True)]))
    for category in (None, "adversarial", "popular", "random"):
        own = [
            (one.answer == 0, c)
            for one, c in zip(items, choices, strict=True)
            if category in (None, one.pattern)
        ]
        truth, yes = [t for t, _ in own], [c == 0 for _, c in own]
        assert found[("precision", category)].value == pytest.approx(precision_score(truth, yes))
        assert found[("recall", category)].value == pytest.approx(recall_score(truth, yes))
        assert found[("f1", category)].value == pytest.approx(f1_score(truth, yes))
        assert found[("yes_ratio", category)].value == pytest.approx(np.mean(yes))
        said = [{0: "yes", 1: "no", None: "unread"}[c] for _, c in own]
        expected = accuracy_score(["yes" if t else "no" for t in truth], said)
        assert found[("accuracy", category)].value == pytest.approx(expected)
    by_category = [found[("f1", name)].value for name in ("adversarial", "popular", "random")]
    assert found[("macro_f1", None)].value == pytest.approx(np.mean(by_category))


def test_an_unread_reply_is_no_yes():
    """POPE's own script takes whatever has no "no" in it for a yes."""
    items = [item(str(n), answer=0, category="random") for n in range(10)]
    found = named(measure("pope", items, [graded(one, None) for one in items]))
    assert found[("yes_ratio", None)].value == 0
    assert found[("recall", None)].value == 0
    assert found[("precision", None)].value is None
    assert found[("precision", None)].n == 0
    assert found[("unread", None)].value == 1


def test_the_share_of_yes_is_of_the_replies_and_not_of_the_labels():
    """One harness counts the labels, which gives a half whatever the model says."""
    items = pope_items()
    found = named(measure("pope", items, [graded(one, 0) for one in items]))
    assert found[("yes_ratio", None)].value == 1
    assert found[("recall", None)].value == 1
    assert found[("precision", None)].value == pytest.approx(np.mean([one.answer == 0 for one in items]))


def test_yes_may_be_either_option_and_others_are_refused():
    items = [item("a", options=("no", "YES"), answer=1), item("b", answer=1)]
    found = named(measure("pope", items, [graded(items[0], 1), graded(items[1], 0)]))
    assert found[("yes_ratio", None)].value == 1
    assert found[("precision", None)].value == 0.5
    with pytest.raises(ValueError, match=r"item 'c' has the options \('A', 'B'\)"):
        measure("pope", [item("c", options=("A", "B"))], [graded(item("c"), 0)])


def test_f1_has_an_interval_from_whole_images():
    """The trick of counting true positives twice is the ordinary bootstrap of F1 over images."""
    items, rng = pope_items(), random.Random(1)
    choices = [one.answer if rng.random() < 0.8 else 1 - one.answer for one in items]
    found = named(measure("pope", items, [graded(one, c) for one, c in zip(items, choices, strict=True)]))
    images = sorted({one.image_sha256 for one in items})
    per_image = np.array(
        [
            [
                sum(
                    one.answer == 0 and c == 0
                    for one, c in zip(items, choices, strict=True)
                    if one.image_sha256 == image
                ),
                sum(
                    (one.answer == 0) != (c == 0)
                    for one, c in zip(items, choices, strict=True)
                    if one.image_sha256 == image
                ),
            ]
            for image in images
        ]
    )
    draws = np.random.default_rng(0).integers(len(images), size=(4000, len(images)))
    hits, misses = per_image[draws].sum(axis=1).T
    low, high = np.quantile(2 * hits / (2 * hits + misses), [0.025, 0.975])
    assert found[("f1", None)].low == pytest.approx(low, abs=0.02)
    assert found[("f1", None)].high == pytest.approx(high, abs=0.02)


# ---- NaturalBench


def official_scores(right):
    """The four scores of NaturalBench as published: a group's items as q0i0, q0i1, q1i0, q1i1."""
    groups = len(right)
    return {
        "accuracy": sum(map(sum, right)) / (4 * groups),
        "question_accuracy": sum((g[0] and g[1]) + (g[2] and g[3]) for g in right) / (2 * groups),
        "image_accuracy": sum((g[0] and g[2]) + (g[1] and g[3]) for g in right) / (2 * groups),
        "group_accuracy": sum(all(g) for g in right) / groups,
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(*[st.booleans()] * 4), min_size=2, max_size=12))
def test_naturalbench_is_scored_as_published(right):
    items = [natural(g, q, i) for g in range(len(right)) for q, i in product(range(2), range(2))]
    found = named(
        measure(
            "naturalbench", items, outcomes(items, [hit for group in right for hit in group]), resamples=100
        )
    )
    for name, value in official_scores(right).items():
        assert found[(name, None)].value == pytest.approx(value)
    chances = {name: found[(name, None)].chance for name in official_scores(right)}
    assert chances == {
        "accuracy": 0.5,
        "question_accuracy": 0.25,
        "image_accuracy": 0.25,
        "group_accuracy": 0.0625,
    }
    assert found[("group_accuracy", None)].n == len(right)
    assert found[("question_accuracy", None)].unit == "questions"


def test_naturalbench_by_question_type_and_with_a_group_that_is_not_whole():
    items = [
        natural(g, q, i, ("yes_no", "multiple_choice")[g % 2])
        for g, q, i in product(range(6), range(2), range(2))
    ]
    found = named(measure("naturalbench", items, outcomes(items, [int(one.id[0]) % 2 == 0 for one in items])))
    assert (
        found[("group_accuracy", "yes_no")].value,
        found[("group_accuracy", "multiple_choice")].value,
    ) == (1, 0)
    with pytest.raises(
        ValueError, match=r"a group is two questions on two images; '5' has \['00', '01', '10'\]"
    ):
        measure("naturalbench", items[:-1], outcomes(items[:-1], [True] * 23))


# ---- weighted means


def drawn_by_hand(rows, strata, weights, resamples, seed):
    """So plain that it can be checked by reading; `strata` are lists of clusters, `rows` are (hit, cell, cluster)."""
    rng = random.Random(seed)
    of_cluster = {}
    for hit, cell, cluster in rows:
        of_cluster.setdefault(cluster, []).append((cell, hit))
    values = []
    for _ in range(resamples):
        drawn = [row for own in strata for c in rng.choices(own, k=len(own)) for row in of_cluster[c]]
        values.append(
            sum(w * np.mean([hit for cell, hit in drawn if cell == name]) for name, w in weights.items())
        )
    return np.quantile(values, [0.025, 0.975])


@pytest.mark.parametrize("shared", [True, False])
def test_a_weighted_mean_is_drawn_as_by_hand(shared):
    """Clusters with items in both cells are drawn together, clusters of one cell apart from those of the other."""
    rng = random.Random(4)
    cells = [rng.choice("aab") for _ in range(120)]
    clusters = [(rng.randrange(40), "" if shared else cell) for cell in cells]
    hits = [rng.random() < (0.8 if cell == "a" else 0.3) for cell in cells]
    weights = {"a": 0.7, "b": 0.3}
    mean = weighted_mean(hits, cells, clusters, weights, Drawing(resamples=4000, seed=1))
    plain = {c: np.mean([h for h, cell in zip(hits, cells, strict=True) if cell == c]) for c in "ab"}
    assert mean.value == pytest.approx(0.7 * plain["a"] + 0.3 * plain["b"])
    strata = [sorted({c for c in set(clusters) if c[1] == name}) for name in ([""] if shared else "ab")]
    low, high = drawn_by_hand(list(zip(hits, cells, clusters, strict=True)), strata, weights, 3000, seed=9)
    assert mean.low == pytest.approx(low, abs=0.012)
    assert mean.high == pytest.approx(high, abs=0.012)


@pytest.mark.slow
def test_the_interval_of_a_weighted_mean_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = 0.5 * 0.85 + 0.25 * 0.6 + 0.25 * 0.4
    held = 0
    for _ in range(200):
        hits, cells, clusters = [], [], []
        for cell, chance, images in (("omni", 0.85, 60), ("ade", 0.6, 40), ("coco", 0.4, 30)):
            for image in range(images):
                own = np.clip(chance + rng.choice([-0.12, 0.12]), 0, 1)  # images differ in how hard they are
                for _ in range(2):
                    hits.append(bool(rng.random() < own))
                    cells.append(cell)
                    clusters.append((cell, image))
        mean = weighted_mean(
            hits, cells, clusters, {"omni": 0.5, "ade": 0.25, "coco": 0.25}, Drawing(resamples=300)
        )
        held += mean.low <= truth <= mean.high
    assert 0.90 <= held / 200 <= 0.99


def test_a_cell_that_does_not_vary_keeps_the_bound_of_what_was_not_seen():
    clusters = list(range(30))
    all_right = weighted_mean([True] * 30, ["a"] * 30, clusters, {"a": 1.0}, Drawing())
    assert (all_right.value, all_right.high) == (1, 1)
    assert all_right.low == pytest.approx(wilson(30, 30).low)
    cells = ["a"] * 15 + ["b"] * 15
    half = weighted_mean([True] * 15 + [False] * 15, cells, clusters, {"a": 0.5, "b": 0.5}, Drawing())
    hidden = wilson(0, 15).high
    assert (half.value, half.low, half.high) == pytest.approx((0.5, 0.5 - hidden / 2, 0.5 + hidden / 2))


def test_a_cell_of_its_own_has_as_many_clusters_in_every_resample():
    """Two clusters, one right: their rate drawn again is 0, a half or 1, however many others there are beside them."""
    hits, cells = [True, False] + [n % 2 == 0 for n in range(60)], ["a"] * 2 + ["b"] * 60
    for level in (0.2, 0.3, 0.4, 0.45):
        mean = weighted_mean(hits, cells, list(range(62)), {"a": 1.0, "b": 0.0}, Drawing(level=level))
        assert {mean.low, mean.high} <= {0.0, 0.5, 1.0}


def test_many_small_cells_that_share_clusters_still_have_an_interval():
    """Of 40 cells with three items each hardly a resample holds them all."""
    cells = [f"c{n % 40}" for n in range(120)]
    hits = [n // 40 < 2 for n in range(120)]
    mean = weighted_mean(hits, cells, [n // 3 for n in range(120)], dict.fromkeys(cells, 1 / 40), Drawing())
    assert mean.value == pytest.approx(2 / 3)
    assert 0.5 < mean.low < 0.66
    assert 0.67 < mean.high < 0.85


def test_weights_and_lengths_that_cannot_be():
    with pytest.raises(ValueError, match=r"weights must sum to 1, got 0\.5"):
        weighted_mean([True], ["a"], [1], {"a": 0.5}, Drawing())
    with pytest.raises(ValueError, match="no item in 'b', which has a weight"):
        weighted_mean([True], ["a"], [1], {"a": 0.5, "b": 0.5}, Drawing())
    with pytest.raises(ValueError, match="2 hits, 1 cells and 1 clusters"):
        weighted_mean([True, False], ["a"], [1], {"a": 1.0}, Drawing())
    assert rate([], [], Drawing()) is None
