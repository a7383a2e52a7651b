"""The verdict: planted truths give each of the five, more right answers never count against a model, and nothing is made of nothing."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_items import items_of

from eyechart.core.errors import UserError
from eyechart.core.stats import cluster_bootstrap, sign_flip_test, wilson
from eyechart.locate.probes import PatternStages, pattern_stages
from eyechart.locate.verdict import (
    VERDICTS,
    Answers,
    Evidence,
    Rule,
    decide,
    judge,
    late_stages,
)
from eyechart.locate.verdict_numbers import Resampling, above_chance_p, flip_p, limits
from eyechart.train.pair_labels import Covered
from eyechart.train.pair_reading import PairsRead

STAGES = ("vision 2", "fed", "language 0 image", "language 1 last", "language 2 last", "language 4 last")


def chosen(pairs: int, pattern: str = "orientation", groups=None) -> Covered:
    return Covered(
        pattern=pattern,
        in_set=pairs,
        items=tuple(items_of(pairs, pattern)),
        words=(("left", ("left", "right")), ("right", ("left", "right"))) * pairs,
        groups=tuple(groups or (f"{pattern} {number}" for number in range(pairs))),
    )


def stages(rates, *, pairs=40, seed=0, control=0.2, pattern="orientation") -> PatternStages:
    """Pairs read with the rate given for each stage, independently; controls with their own."""
    rng = np.random.default_rng(seed)
    shares = {
        name: PairsRead(
            right=(rng.random(pairs) < rate).astype(float),
            control=(rng.random(pairs) < control).astype(float),
        )
        for name, rate in zip(STAGES, rates, strict=True)
    }
    return pattern_stages(chosen(pairs, pattern), shares, probe="linear", seed=seed)


def answers(one: PatternStages, rate: float, seed: int = 0) -> dict[str, Answers]:
    drawn = np.random.default_rng(100 + seed).random(len(one.pair_ids)) < rate
    return {one.pattern: Answers(right=dict(zip(one.pair_ids, drawn.tolist(), strict=True)))}


PLANTED = {
    "answered": ((0.95, 0.95, 0.95, 0.9, 0.9, 0.9), 0.95),
    "present but unused": ((0.95, 0.95, 0.95, 0.9, 0.9, 0.2), 0.2),
    "readable but dropped": ((0.95, 0.95, 0.95, 0.2, 0.2, 0.2), 0.2),
    "not readable": ((0.2, 0.2, 0.2, 0.2, 0.2, 0.2), 0.2),
    "undecided": ((0.95, 0.95, 0.95, 0.2, 0.2, 0.2), 0.6),
}


@pytest.mark.parametrize("wanted", PLANTED)
def test_a_planted_truth_gives_its_verdict(wanted):
    rates, right = PLANTED[wanted]
    one = stages(rates, pairs=100)
    (found,) = decide([one], answers(one, right), again=60)
    assert found.verdict == wanted
    assert sum(found.shares.values()) == pytest.approx(1)
    assert set(found.shares) == set(VERDICTS)
    if wanted != "undecided":
        assert found.shares[wanted] > 0.6
    assert f"with 2 labels on {100} pairs" in found.reason
    assert found.answered.n == 100


def test_where_it_is_present_and_where_it_was_last_seen_are_named():
    one = stages((0.9, 0.95, 0.95, 0.2, 0.95, 0.2), pairs=60)
    (unused,) = decide([one], answers(one, 0.1), again=10)
    assert (unused.verdict, unused.where) == ("present but unused", "language 2 last")
    one = stages((0.9, 0.95, 0.95, 0.2, 0.2, 0.2), pairs=100)
    (dropped,) = decide([one], answers(one, 0.2), again=10)
    assert (dropped.verdict, dropped.where) == ("readable but dropped", "language 0 image")
    assert "The last stage that shows it is language 0 image." in dropped.reason


def test_early_layers_at_the_last_position_do_not_count_as_late():
    one = stages((0.9,) * 6)
    assert [stage.stage.name for stage in late_stages(one)] == ["language 2 last", "language 4 last"]
    assert [stage.stage.name for stage in late_stages(one, Rule(late=0.9))] == ["language 4 last"]
    only_early = stages((0.9, 0.95, 0.95, 0.95, 0.2, 0.2), pairs=100)
    (found,) = decide([only_early], answers(only_early, 0.2), again=0)
    assert found.verdict == "readable but dropped"
    assert found.shares == {}


def test_too_few_pairs_are_undecided_and_missing_answers_refused():
    few = stages((0.95,) * 6, pairs=9)
    (found,) = decide([few], answers(few, 0.9))
    assert found.verdict == "undecided"
    assert "9 groups of them without a common picture can be read, where 10 are needed" in found.reason
    none = replace_stages(stages((0.95,) * 6), keep=("fed",))
    (found,) = decide([none], answers(none, 0.9))
    assert (found.verdict, found.evidence) == ("undecided", None)
    assert "no states at the stages" in found.reason
    with pytest.raises(UserError, match="there are no answers for the pattern 'orientation'"):
        decide([few], {})
    with pytest.raises(UserError, match="was read and has no answer"):
        decide([few], {"orientation": Answers(right={})})


def replace_stages(one: PatternStages, keep) -> PatternStages:
    return replace(one, stages=tuple(stage for stage in one.stages if stage.stage.name in keep))


def test_without_fed_features_the_projectors_output_is_taken():
    one = replace_stages(stages((0.95,) * 6), keep=[name for name in STAGES if name != "fed"])
    (found,) = decide([one], answers(one, 0.95), again=0)
    assert (found.verdict, found.fed) == ("answered", "language 0 image")


def test_holm_counts_every_test_of_every_pattern():
    """The smallest of all p-values is multiplied by the number of tests: four a pattern here."""
    alone = stages((0.2, 0.5, 0.5, 0.2, 0.2, 0.2), seed=4)
    (by_itself,) = decide([alone], answers(alone, 0.2), again=0)
    assert by_itself.evidence.fed_p < 0.05
    others = [stages((0.2,) * 6, seed=50 + k, pattern=f"other {k}") for k in range(6)]
    given_ = answers(alone, 0.2) | {k: v for one in others for k, v in answers(one, 0.2).items()}
    among, *_ = decide([alone, *others], given_, again=0)
    assert among.evidence.fed_p == pytest.approx(7 * by_itself.evidence.fed_p)


rates_of = st.floats(0, 1)
heights = st.floats(-1, 1)


def several(values):
    return st.tuples(values, values, values)


evidence = st.fixed_dictionaries(
    {name: rates_of | st.just(0.001) for name in ("answered_p", "fed_p")}
    | {name: heights for name in ("fed_more", "fed_high", "late_high", "late_fall_high", "answers_fed_high")}
    | {"late_p": several(rates_of | st.just(0.001))}
    | {name: several(heights) for name in ("late_more", "answers_late_high")}
)


@given(evidence, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=400, deadline=None)
def test_better_answers_never_leave_answered(made, surer, more):
    """Whatever the evidence: a smaller p-value and higher answers keep `answered`, and never make `unused`."""
    seen = Evidence(**made)
    better = replace(
        seen,
        answered_p=seen.answered_p * surer,
        answers_fed_high=seen.answers_fed_high + more,
        answers_late_high=tuple(one + more for one in seen.answers_late_high),
    )
    before, after = judge(seen)[0], judge(better)[0]
    if before == "answered":
        assert after == "answered"
    if before != "present but unused":
        assert after != "present but unused"


@pytest.mark.slow
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.3, 0.6, 0.9]), st.sampled_from([0.2, 0.6, 0.95]))
@settings(max_examples=15, deadline=None)
def test_one_more_pair_answered_never_counts_against_the_model(seed, right, read):
    """The same from pairs to verdict: intervals and p-values of the data move the right way, too."""
    one = stages((read, read, read, read, read, 0.2), pairs=24, seed=seed)
    given_ = answers(one, right, seed)
    wrong = [pair for pair, hit in given_["orientation"].right.items() if not hit]
    before = decide([one], given_, again=0)[0].verdict
    for pair in wrong[:6]:
        given_ = {"orientation": Answers(right={**given_["orientation"].right, pair: True})}
        after = decide([one], given_, again=0)[0].verdict
        if before == "answered":
            assert after == "answered"
        if before != "present but unused":
            assert after != "present but unused"
        before = after


def test_flips_are_those_of_the_sign_flip_test():
    rng = np.random.default_rng(3)
    sums = rng.integers(-2, 3, size=(1, 12, 4)) + np.array([0.0, 0.3, 0.8, 1.5])
    given_ = flip_p(sums, flips=60_000, seed=1)[0]
    exact = [sign_flip_test(sums[0, :, column]).p_value for column in range(4)]
    np.testing.assert_allclose(given_, exact, atol=0.008)
    assert (given_ > 0).all()


def test_limits_are_those_of_the_cluster_bootstrap_and_never_narrower_than_the_bound_on_unseen_groups():
    rng = np.random.default_rng(5)
    groups = np.arange(40).repeat(rng.integers(1, 4, 40)).tolist()
    values = rng.random(len(groups))
    drawn = Resampling.of(groups, resamples=20_000, seed=1)
    found = drawn.estimate(values, level=0.95, floor=0.0)
    theirs = cluster_bootstrap(values, groups, resamples=20_000, seed=2)
    unseen = wilson(0, 40).high
    mean = values.mean()
    assert found.low == pytest.approx(min(theirs.low, mean - unseen * mean), abs=0.004)
    assert found.high == pytest.approx(max(theirs.high, mean + unseen * (1 - mean)), abs=0.004)
    assert (found.value, found.n, found.clusters) == (mean, len(groups), 40)
    same = drawn.estimate(np.ones(len(groups)), level=0.95, floor=0.0)
    assert (same.value, same.high) == (1.0, 1.0)
    assert same.low == pytest.approx(wilson(40, 40).low)


def test_limits_by_hand():
    sums, sizes = np.array([[[1.0], [-1.0], [3.0]]]), np.array([[1.0, 1.0, 3.0]])
    counts = np.array([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    low, high = limits(sums, sizes, counts, level=0.5, floors=np.array([-1.0]))
    means = [3 / 5, 1.0, -1.0]
    unseen = wilson(0, 3, level=0.5).high
    assert low[0, 0] == pytest.approx(min(np.quantile(means, 0.25), 0.6 - unseen * 1.6))
    assert high[0, 0] == pytest.approx(max(np.quantile(means, 0.75), 0.6 + unseen * 0.4))


def test_above_chance_is_the_exact_binomial_tail_of_whole_groups():
    right = np.array([[2.0, 1.0, 1.0, 0.0, 1.0, 1.0]])
    sizes = np.array([[2.0, 2.0, 1.0, 1.0, 1.0, 1.0]])
    tail = sum(comb(6, k) * 0.25**k * 0.75 ** (6 - k) for k in range(4, 7))
    assert above_chance_p(right, sizes, 0.25)[0] == pytest.approx(2 * tail)
    assert above_chance_p(np.zeros((1, 6)), sizes, 0.25)[0] == 1.0


def test_a_group_stands_or_falls_together():
    """Forty pairs that share ten pictures are ten groups: the interval is that of ten."""
    groups = np.arange(10).repeat(4).tolist()
    values = np.random.default_rng(1).integers(0, 2, 10).repeat(4).astype(float)
    wide = Resampling.of(groups, seed=0).estimate(values, level=0.95)
    narrow = Resampling.of(list(range(40)), seed=0).estimate(values, level=0.95)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    ("given_", "said"),
    [({"below": 0.0}, "below must lie between 0 and 1, got 0.0"), ({"least": 1}, "least must be 2 groups")],
)
def test_a_rule_without_sense_is_refused(given_, said):
    with pytest.raises(UserError, match=said):
        Rule(**given_)


def test_a_verdict_is_plain_for_json():
    import json

    one = stages((0.95,) * 6)
    (found,) = decide([one], answers(one, 0.9), again=5)
    plain = found.to_dict()
    assert json.loads(json.dumps(plain))["evidence"]["late_p"] == list(found.evidence.late_p)


def test_one_late_stage_that_may_still_hold_it_forbids_dropped():
    """Down to the control means every late stage: the mean of several would hide the one that matters."""

    def some(hits, start):
        return np.roll(np.arange(60) < hits, start).astype(float)

    hits = (57, 57, 57, 12, 12, 21)
    shares = {
        name: PairsRead(right=some(n, 0), control=some(12, 30)) for name, n in zip(STAGES, hits, strict=True)
    }
    one = pattern_stages(chosen(60), shares, probe="linear")
    (found,) = decide([one], answers(one, 0.2), again=0)
    last = one.stage("language 4 last")
    assert last.difference.value == pytest.approx(0.15)
    assert found.evidence.late_high == pytest.approx(last.difference.high, abs=0.02)
    assert found.evidence.late_p[1] > 0.05
    assert last.difference.high > Rule().slight > one.stage("language 2 last").difference.high
    assert found.verdict == "undecided"


DROPPED = {
    "answered_p": 0.5, "fed_p": 0.001, "fed_more": 0.7, "fed_high": 0.9, "late_p": (1.0, 0.5), "late_more": (0.0, 0.1),
    "late_high": 0.2, "late_fall_high": -0.4, "answers_fed_high": -0.5, "answers_late_high": (0.3, 0.3),
}  # fmt: skip
"""Evidence of a fact that is dropped; the cases change single numbers of it."""

UNUSED = {"late_p": (0.001, 0.001), "late_more": (0.3, 0.6), "answers_late_high": (0.0, -0.2)}


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({}, ("readable but dropped", None)),
        ({"late_high": 0.25}, ("undecided", None)),
        ({"late_fall_high": 0.0}, ("undecided", None)),
        ({"answered_p": 0.04}, ("undecided", None)),
        ({"answered_p": 0.04, "answers_fed_high": -0.1}, ("answered", None)),
        ({"answered_p": 0.06, "answers_fed_high": 0.3}, ("readable but dropped", None)),
        (UNUSED, ("present but unused", 1)),
        (UNUSED | {"answers_late_high": (-0.2, -0.1)}, ("undecided", 1)),
        (UNUSED | {"late_p": (0.001, 0.06)}, ("undecided", 0)),
        (UNUSED | {"late_more": (-0.3, -0.6)}, ("readable but dropped", None)),
        (UNUSED | {"answered_p": 0.001}, ("present but unused", 1)),
        ({"fed_p": 0.06, "fed_high": 0.24}, ("not readable", None)),
        ({"fed_p": 0.06, "fed_high": 0.25}, ("undecided", None)),
        ({"fed_more": -0.7, "fed_high": 0.0}, ("not readable", None)),
        (UNUSED | {"fed_p": 0.06, "fed_high": 0.24}, ("present but unused", 1)),
        ({"fed_p": 0.06, "fed_high": 0.24, "answered_p": 0.04}, ("undecided", None)),
    ],
)
def test_the_rule_turns_where_it_says(changed, wanted):
    assert judge(Evidence(**(DROPPED | changed))) == wanted
