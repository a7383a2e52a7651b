"""Comparisons against outside oracles and planted differences; sensitivity, controls, label sets, disagreements."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, pearsonr
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from eyechart.core.errors import UserError
from eyechart.core.stats import minimal_detectable_difference
from eyechart.score.board import lay_out
from eyechart.score.compare import by_pattern, compare_two, paired_test
from eyechart.score.compare_lines import comparison_lines
from eyechart.score.comparison import compare_runs
from eyechart.score.logs import read_logs
from eyechart.score.sensitivity import flips
from logs_made import (
    choices,
    encoder_run,
    eyechart_run,
    kit_rows,
    kit_table,
    letters,
    lmms_samples,
    made_items,
    relabelled,
)

ITEMS = made_items(40)


def run(folder, wrong=(), unread=(), items=ITEMS, **options):
    return eyechart_run(folder, items, {"": choices(items, wrong=wrong, unread=unread)}, **options)


def pairs_right(items, wrong) -> dict[str, bool]:
    """The slow way: both items of a pair."""
    return {one.pair: not {n for n in wrong if (n + 1) // 2 == int(one.pair)} for one in items}


# --- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_overall_and_patterns_against_statsmodels_and_scipy(seed):
    rng = random.Random(seed)
    units = [f"u{n}" for n in range(rng.randint(4, 80))]
    before, after = ({u: rng.random() < 0.5 for u in units} for _ in range(2))
    of = {u: rng.choice("abc") for u in units}
    test, p_value = paired_test(before, after)
    table = Counter((before[u], after[u]) for u in units)
    square = [[table[1, 1], table[1, 0]], [table[0, 1], table[0, 0]]]
    assert p_value == pytest.approx(mcnemar(square, exact=True).pvalue)
    assert (test.fixes, test.regressions) == (table[0, 1], table[1, 0])
    told = by_pattern(before, after, of)
    single = []
    for name in told:
        own = [u for u in units if of[u] == name]
        fixes, drops = (sum(after[u] > before[u] for u in own), sum(after[u] < before[u] for u in own))
        single.append(binomtest(fixes, fixes + drops).pvalue if fixes + drops else 1.0)
    assert [one["p_value"] for one in told.values()] == pytest.approx(single)
    adjusted = multipletests(single, method="holm")[1]
    assert [one["p_holm"] for one in told.values()] == pytest.approx(adjusted)
    for one in told.values():
        called = one["p_holm"] <= 0.05 and one["difference"] != 0
        assert (one["verdict"] != "undecided") == called


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_copies_of_an_item_on_one_picture_add_no_evidence(seed):
    rng = random.Random(seed)
    units = [f"u{n}" for n in range(12)]
    before, after = ({u: rng.random() < 0.5 for u in units} for _ in range(2))
    copies = [(u, k) for u in units for k in range(5)]
    many = ({f"{u}.{k}": each[u] for u, k in copies} for each in (before, after))
    clusters = {f"{u}.{k}": u for u, k in copies}
    test, p_value = paired_test(*many, clusters)
    alone, p_alone = paired_test(before, after)
    assert p_value == pytest.approx(p_alone)  # the sign test of single items is McNemar's
    assert test.difference == pytest.approx(alone.difference)
    assert test.p_value <= p_value + 1e-12  # what McNemar would make of the copies


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(0)
    shift = rng.choice([0, 1], size=(40, 1), p=[0.5, 0.5]).repeat(6, axis=1).ravel()
    names = [f"i{n}" for n in range(240)]
    before = dict.fromkeys(names, False)
    after = {name: bool(value) for name, value in zip(names, shift, strict=True)}
    clusters = {name: f"c{n // 6}" for n, name in enumerate(names)}
    wide, _ = paired_test(before, after, clusters)
    narrow, _ = paired_test(before, after)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


# --- whole comparisons ------------------------------------------------------------------------------------------------


def test_a_planted_difference_is_found_and_none_where_none_was_planted(tmp_path):
    wrong = range(1, 41, 2)  # one item of each of pairs 1 to 20
    a, b = run(tmp_path / "a", wrong), run(tmp_path / "b", wrong[10:], model="org/b", sha256="b" * 64)
    same = run(tmp_path / "c", [n + 1 for n in wrong], model="org/c", sha256="c" * 64)
    found = compare_runs([a, b, same])
    better, equal = found.record["comparisons"]
    assert better["overall"]["verdict"] == "better"
    assert (better["overall"]["fixes"], better["overall"]["regressions"], better["overall"]["n"]) == (
        10,
        0,
        40,
    )
    assert better["overall"]["p_value"] == pytest.approx(binomtest(10, 10).pvalue)
    assert [row["against"]["fixes"] for row in better["patterns"]] == [5, 5]
    assert better["smallest_gain"]["fixes"] == 6  # six fixes and no regression, as for MMVP's 150 pairs
    expected = minimal_detectable_difference(40, discordant=0.25)
    assert better["detectable"]["difference"] == pytest.approx(expected.difference)
    assert (equal["overall"]["difference"], equal["overall"]["verdict"]) == (0.0, "undecided")
    assert found.record["changed"] == 10
    assert [change["id"] for change in found.changes] == [str(n) for n in range(1, 11)]
    rows = {(row["run"], row["pair_id"]): row["right"] for row in found.pairs}
    assert {pair: right for (name, pair), right in rows.items() if name == "org/model"} == pairs_right(
        ITEMS, wrong
    )
    assert comparison_lines(found.record)


def test_a_difference_turns_round_with_the_order_of_the_runs(tmp_path):
    a = run(tmp_path / "a", [1, 5, 7, 9])
    b = run(tmp_path / "b", [2, 30], model="org/b", sha256="b" * 64)
    (one,) = compare_runs([a, b]).record["comparisons"]
    (two,) = compare_runs([b, a]).record["comparisons"]
    assert one["overall"]["difference"] == -two["overall"]["difference"]
    assert one["overall"]["low"] == pytest.approx(-two["overall"]["high"])
    assert one["overall"]["p_value"] == two["overall"]["p_value"]
    assert (one["overall"]["fixes"], one["overall"]["regressions"]) == (3, 1)  # both have pair 1 wrong


def test_each_two_of_several_runs(tmp_path):
    runs = [
        run(tmp_path / name, [n], model=name, sha256=name * 64) for n, name in ((1, "a"), (3, "b"), (5, "c"))
    ]
    record = compare_runs(runs, every=True).record
    assert [(one["first"], one["second"]) for one in record["comparisons"]] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]


def test_runs_on_other_items_are_refused_unless_common(tmp_path):
    a = run(tmp_path / "a", [1])
    b = run(tmp_path / "b", [2], items=ITEMS[3:60], model="b", sha256="b" * 64)
    with pytest.raises(UserError) as refused:
        compare_runs([a, b])
    assert "not on the same items: the sets have the hashes" in str(refused.value)
    assert "has 23 items (1, 2, 3, 61, 62, ...)" in str(refused.value)
    assert "--common compares on the 57 items that both have" in str(refused.value)
    record = compare_runs([a, b], common=True).record
    assert record["runs"][0]["units"]["n"] == 28  # pairs 3 to 30; item 4 is half of pair 2
    why = Counter(row["why"] for row in record["unmatched"])
    assert why == {"not in b": 23, "the pair is not whole": 1}


def test_nothing_to_compare_is_said(tmp_path):
    a = run(tmp_path / "a")
    with pytest.raises(UserError, match="one run asked in one way"):
        compare_runs([a])
    with pytest.raises(UserError, match="there is no run at"):
        compare_runs([a, tmp_path / "nowhere"])


@pytest.mark.slow
def test_three_harnesses_on_the_same_items_agree(tmp_path):
    wrong = [3, 10, 11, 55]
    replies = letters(ITEMS, choices(ITEMS, wrong=wrong))
    runs = [
        run(tmp_path / "ours", wrong),
        lmms_samples(tmp_path / "lmms", ITEMS, replies),
        kit_table(tmp_path / "kit_MMVP.tsv", kit_rows(ITEMS, replies, index_from=0)),
    ]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        record = compare_runs([runs[place] for place in order]).record
        assert {row["units"]["hits"] for row in record["runs"]} == {sum(pairs_right(ITEMS, wrong).values())}
        assert all(row["unit"] == "pairs" for row in record["runs"])
        assert all(one["overall"]["difference"] == 0 for one in record["comparisons"])
        assert all(len(one["patterns"]) == 2 for one in record["comparisons"])
        assert record["changed"] == 0


def test_runs_without_pairs_are_compared_by_item_and_by_picture(tmp_path):
    a = run(tmp_path / "a", [1, 2, 3], pair_ids=False, rule="items")
    b = run(tmp_path / "b", [9], pair_ids=False, rule="items", model="b", sha256="b" * 64)
    (one,) = compare_runs([a, b]).record["comparisons"]
    assert (one["unit"], one["overall"]["n"], one["overall"]["fixes"]) == ("items", 80, 3)
    grouped = run(tmp_path / "c", [1, 2, 3], rule="groups")
    other = run(tmp_path / "d", [9], rule="groups", model="d", sha256="d" * 64)
    (two,) = compare_runs([grouped, other]).record["comparisons"]
    assert two["unit"] == "items"
    assert "sign-flip test over the pictures (or groups)" in two["test"]
    # groups moved by 2, 1 and -1: 6 of the 8 patterns of signs reach a sum of 2
    assert two["overall"]["p_value"] == pytest.approx(6 / 8)
    assert two["overall"]["p_mcnemar"] == pytest.approx(binomtest(3, 4).pvalue)


# --- labels -----------------------------------------------------------------------------------------------------------


def test_corrections_and_other_labels_are_told_beside_the_first_runs(tmp_path):
    swap = [{"item_id": "1", "old": 0, "new": 1, "reason": "r", "source": "s"},
            {"item_id": "2", "old": 1, "new": 0, "reason": "r", "source": "s"}]  # fmt: skip
    a = run(tmp_path / "a", [1, 2], corrections=swap)
    replies = letters(ITEMS, choices(ITEMS))
    theirs = relabelled(ITEMS, [5, 6])
    log = lmms_samples(tmp_path / "l", theirs, replies)
    record = compare_runs([a, log]).record
    (one,) = record["comparisons"]
    assert one["overall"]["fixes"] == 1  # by the labels of the first run: pair 1
    sets = {each["labels"]: each for each in one["label_sets"]}
    corrected = sets["with the corrected labels"]
    assert corrected["items"] == ["1", "2"]
    assert (corrected["against"]["fixes"], corrected["against"]["regressions"]) == (0, 1)
    (name,) = sets.keys() - {"with the corrected labels"}
    assert sets[name]["items"] == ["5", "6"]
    assert sets[name]["first"]["hits"] == 38  # pairs 1 and 3 are wrong then
    assert "another right answer than in" in " ".join(record["runs"][1]["notes"])
    assert record["runs"][1]["units"]["hits"] == 40  # graded by the first run's labels, not by its own


# --- one model, several ways ------------------------------------------------------------------------------------------


def test_flips_consistency_and_controls_of_one_run(tmp_path):
    ways = {
        "": choices(ITEMS, wrong=[1]),
        "swapped": choices(ITEMS, wrong=[1, 3, 4], unread=[5]),
        "blank": dict.fromkeys([one.number for one in ITEMS], 0),  # always the first option
    }
    variants = {"swapped": {"order": "swapped"}, "blank": {"show": "blank"}}
    record = compare_runs([eyechart_run(tmp_path / "run", ITEMS, ways, variants=variants)]).record
    assert record["comparisons"] == []
    (model,) = record["sensitivity"]
    (way,) = model["ways"]
    assert way["differs"] == "swapped"
    assert (way["flips"]["hits"], way["flips"]["n"]) == (
        3,
        80,
    )  # items 3, 4 and 5; the swap itself flips nothing
    assert model["consistent"]["hits"] == 40 - 3  # pairs 1, 2 and 3
    assert (way["against"]["fixes"], way["against"]["regressions"]) == (0, 2)
    (control,) = record["controls"]
    assert (control["control"], control["above_chance"]) == ("blank", "at")
    assert (control["items"]["value"], control["units"]["value"]) == (0.5, 0.0)
    assert (control["chance_items"], control["chance_units"]) == (0.5, 0.25)


def test_from_one_wrong_option_to_another_is_a_change_too(tmp_path):
    (log,) = read_logs(run(tmp_path / "a"))
    three = [replace(one, options=(*one.options, "Ajar"), choice=2, right=False) for one in log.answers[:4]]
    other = [replace(one, choice=1 - (one.answer or 0)) for one in three[:2]] + [
        replace(three[2], choice=None, unread=True),
        three[3],
    ]
    board = lay_out([replace(log, answers=tuple(each)) for each in (three, other)], ["a", "b"])
    assert list(flips(board).values()) == [True, True, True, False]


def test_a_control_above_chance_is_called_so(tmp_path):
    ways = {"": choices(ITEMS), "none": choices(ITEMS, wrong=range(1, 80, 9))}
    folder = eyechart_run(tmp_path / "run", ITEMS, ways, variants={"none": {"show": "none"}})
    (control,) = compare_runs([folder]).record["controls"]
    assert control["above_chance"] == "above"


def test_two_runs_of_one_model_are_two_ways_of_it(tmp_path):
    a = run(tmp_path / "a", [1])
    b = eyechart_run(
        tmp_path / "b", ITEMS, {"": choices(ITEMS, wrong=[2])}, variants={"": {"template": "mmvp"}}
    )
    record = compare_runs([a, b]).record
    (model,) = record["sensitivity"]
    assert model["ways"][0]["differs"] == "template=mmvp"
    assert model["ways"][0]["flips"]["hits"] == 2
    assert [row["name"] for row in record["runs"]] == ["org/model (a)", "org/model (b)"]


# --- readers, encoders ------------------------------------------------------------------------------------------------


def test_disagreements_of_the_readers_are_counted_and_listed(tmp_path):
    replies = letters(ITEMS, choices(ITEMS)) | {1: "A person is there.", 2: "Closed", 4: "Closed."}
    record = compare_runs([run(tmp_path / "a"), lmms_samples(tmp_path / "l", ITEMS, replies)]).record
    ours, theirs = record["runs"]
    assert (ours["disagreements"], ours["theirs"]) == (0, None)
    assert (theirs["disagreements"], theirs["theirs"]["hits"], theirs["unread"]) == (3, 78, 1)
    listed = {row["item"]: (row["held_by_reader"], row["held_by_harness"]) for row in record["disagreements"]}
    assert listed == {"1": ("unread", "right"), "2": ("right", "wrong"), "4": ("right", "wrong")}


def test_an_encoder_is_set_against_a_model_over_patterns(tmp_path):
    names = ("color", "state", "text", "position", "quantity")
    items = [replace(one, pattern=names[(int(one.pair) - 1) % 5]) for one in ITEMS]
    wrong = [
        one.number for one in items if one.number % 2 and int(one.pair) > 5 * (7 - names.index(one.pattern))
    ]
    model = run(tmp_path / "vlm", wrong, items=items)
    hits = {name: [1] * (9 - place) + [0] * (place + 1) for place, name in enumerate(names)}
    record = compare_runs([model, encoder_run(tmp_path / "enc", hits)]).record
    (told,) = record["encoder_against_model"]
    x = [sum(hits[name]) / 10 for name in names]
    rates = [
        sum(pairs_right(items, wrong)[one.pair] for one in items if one.pattern == name) / 16
        for name in names
    ]
    assert told["correlated"]["pearson"]["value"] == pytest.approx(pearsonr(x, rates).statistic)
    assert [row["unit"] for row in record["runs"]] == ["pairs", "matches"]
    assert record["runs"][1]["chance_units"] == 0.25
    assert record["comparisons"] == []


def test_two_encoders_are_compared_on_the_same_matches(tmp_path):
    a = encoder_run(tmp_path / "a", {"color": [1, 0, 0, 0], "state": [1, 1, 0, 0]})
    b = encoder_run(tmp_path / "b", {"color": [1, 1, 1, 0], "state": [0, 1, 0, 0]}, model="org/b")
    (one,) = compare_runs([a, b]).record["comparisons"]
    assert (one["unit"], one["overall"]["fixes"], one["overall"]["regressions"]) == ("matches", 2, 1)


def test_the_other_order_of_options_in_a_log_is_no_other_answer(tmp_path):
    a = run(tmp_path / "a", [1])
    turned = [replace(one, options=one.options[::-1], answer=1 - one.answer) for one in ITEMS]
    b = kit_table(tmp_path / "b_MMVP.tsv", kit_rows(turned, letters(turned, choices(turned, wrong=[1]))))
    board = lay_out([read_logs(a)[0], read_logs(b)[0]], ["a", "b"])
    assert compare_two(board, 0, 1)["overall"]["fixes"] == 0
    assert [one.choice for one in board.answers[1].values()] == [
        one.choice for one in board.answers[0].values()
    ]
