"""Scores against counts made by hand, a slow reference, and models whose score is known beforehand."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.records import Graded, Item, Outcome
from eyechart.core.stats import cluster_rate, wilson
from eyechart.score import NO_PATTERN, summarise

RIGHT, WRONG, UNREAD = Outcome.RIGHT, Outcome.WRONG, Outcome.UNREAD


def exam(pairs, *, options=2, patterns=("color",)):
    """Pairs of items; the first has answer 0, the second answer 1."""
    return [
        Item(
            id=f"{pair}{side}",
            pair_id=f"p{pair}",
            question="?",
            options=tuple(map(str, range(options))),
            answer=answer,
            image=Path("x"),
            image_sha256="0",
            pattern=patterns[pair % len(patterns)],
        )
        for pair in range(pairs)
        for answer, side in enumerate("ab")
    ]


def said(items, choices):
    return [
        Graded(
            item_id=item.id,
            reply="",
            choice=choice,
            outcome=UNREAD if choice is None else RIGHT if choice == item.answer else WRONG,
        )
        for item, choice in zip(items, choices, strict=True)
    ]


def test_a_pair_counts_only_if_both_items_are_right():
    items = exam(4)
    summary = summarise(items, said(items, [0, 1, 0, 0, None, 1, 1, 0]))
    score = summary.score
    assert [pair.right for pair in summary.pairs] == [True, False, False, False]
    assert (score.pairs.hits, score.pairs.n) == (1, 4)
    assert (score.images.hits, score.images.n) == (4, 8)
    assert (score.unread.hits, score.unread.n) == (1, 8)
    assert score.pairs == wilson(1, 4)
    clusters = [item.pair_id for item in items]
    assert score.images == cluster_rate([1, 1, 1, 0, 0, 1, 0, 0], clusters, seed=0)
    assert score.unread == cluster_rate([0, 0, 0, 0, 1, 0, 0, 0], clusters, seed=0)


def test_models_whose_score_is_known():
    items = exam(150)
    always_a = summarise(items, said(items, [0] * 300)).score
    assert (always_a.pairs.value, always_a.images.value) == (0.0, 0.5)
    assert always_a.above_chance == "below"
    assert always_a.favourite_option.label == "A"
    assert always_a.favourite_option.share.value == 1.0
    perfect = summarise(items, said(items, [item.answer for item in items])).score
    assert (perfect.pairs.value, perfect.images.value, perfect.above_chance) == (1.0, 1.0, "above")
    assert perfect.favourite_option.share.value == 0.5
    silent = summarise(items, said(items, [None] * 300)).score
    assert (silent.pairs.value, silent.unread.value, silent.favourite_option) == (0.0, 1.0, None)


def test_a_coin_is_at_chance():
    items = exam(400)
    coin = np.random.default_rng(3).integers(0, 2, len(items)).tolist()
    score = summarise(items, said(items, coin)).score
    assert score.above_chance == "at"
    assert score.pairs.low < 0.25 < score.pairs.high


def test_published_counts_get_their_intervals():
    """LLaVA-1.5 on MMVP: 37 of 150 pairs (24.7 %), Wilson 18.5 to 32.1."""
    items = exam(150)
    choices = [item.answer if place < 74 else 0 for place, item in enumerate(items)]
    score = summarise(items, said(items, choices)).score
    assert score.pairs.hits == 37
    assert (round(100 * score.pairs.low, 1), round(100 * score.pairs.high, 1)) == (18.5, 32.1)
    assert score.above_chance == "at"


def test_chance_follows_the_number_of_options():
    mixed = exam(2) + [
        Item(
            id=f"m{side}",
            pair_id="m",
            question="?",
            options=tuple("wxyz"),
            answer=side,
            image=Path("x"),
            image_sha256="0",
        )
        for side in (0, 1)
    ]
    score = summarise(mixed, said(mixed, [0] * 6)).score
    assert score.chance_pairs == pytest.approx((1 / 4 + 1 / 4 + 1 / 16) / 3)
    assert score.chance_images == pytest.approx((0.5 + 0.5 + 0.25) / 3)


def test_patterns_are_sorted_and_pairs_without_one_have_their_place():
    items = exam(6, patterns=("text", None, "color"))
    summary = summarise(
        items, said(items, [0, 1] * 3 + [None, 1] * 3), suspects={"p0": True, "p3": False, "p1": None}
    )
    assert [entry.pattern for entry in summary.patterns] == [NO_PATTERN, "color", "text"]
    text = summary.patterns[2]
    assert (text.pairs.hits, text.pairs.n, text.images.hits, text.unread, text.suspects) == (1, 2, 3, 1, 1)
    assert summary.patterns[0].suspects is None  # unknown for one of its pairs
    assert summary.patterns[1].suspects is None
    assert all(entry.suspects is None for entry in summarise(items, said(items, [0] * 12)).patterns)
    assert sum(entry.pairs.n for entry in summary.patterns) == 6


def test_one_pair_says_nothing_of_how_pairs_differ():
    items = exam(1)
    score = summarise(items, said(items, [0, 0])).score
    assert (score.images.value, score.images.low, score.images.high) == (0.5, 0.0, 1.0)


def test_the_blocks_are_plain_json():
    items = exam(4, patterns=("color", "text"))
    blocks = json.loads(json.dumps(summarise(items, said(items, [0] * 8)).to_dict()))
    assert set(blocks) == {"score", "patterns"}
    rate = {"value", "low", "high", "hits", "n", "level"}
    assert set(blocks["score"]) == {
        "pairs", "images", "unread", "chance_pairs", "chance_images", "above_chance", "favourite_option",
    }  # fmt: skip
    assert set(blocks["score"]["pairs"]) == set(blocks["score"]["images"]) == rate
    assert set(blocks["score"]["favourite_option"]["share"]) == rate
    assert set(blocks["patterns"][0]) == {"pattern", "pairs", "images", "unread", "chance_pairs", "suspects"}
    none_read = summarise(items, said(items, [None] * 8)).to_dict()
    assert none_read["score"]["favourite_option"] is None


@settings(max_examples=40, deadline=None)
@given(data=st.data(), pairs=st.integers(2, 12), seed=st.integers(0, 5))
def test_counts_agree_with_plain_counting_in_any_order(data, pairs, seed):
    items = exam(pairs, patterns=("color", "text", None))
    choices = data.draw(st.lists(st.sampled_from([0, 1, None]), min_size=2 * pairs, max_size=2 * pairs))
    graded = said(items, choices)
    summary = summarise(items, data.draw(st.permutations(graded)), seed=seed, resamples=100)
    right = {reply.item_id: reply.outcome is RIGHT for reply in graded}
    both = sum(right[f"{pair}a"] and right[f"{pair}b"] for pair in range(pairs))
    assert summary.score.pairs.hits == both == sum(entry.pairs.hits for entry in summary.patterns)
    assert (
        summary.score.images.hits
        == sum(right.values())
        == sum(entry.images.hits for entry in summary.patterns)
    )
    assert summary.score.unread.hits == choices.count(None) == sum(entry.unread for entry in summary.patterns)
    read = [choice for choice in choices if choice is not None]
    if read:
        most = max(read.count(0), read.count(1))
        assert summary.score.favourite_option.share.hits == most
        assert summary.score.favourite_option.share.n == len(read)
    assert summary.score.images.low <= summary.score.images.value <= summary.score.images.high


def test_items_and_replies_must_match_one_to_one():
    items = exam(2)
    graded = said(items, [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"items without a graded reply: 0b, 1a \(2\)"):
        summarise(items, [graded[0], graded[3]])
    with pytest.raises(ValueError, match=r"graded replies to no item: 1a, 1b \(2\)"):
        summarise(items[:2], graded)
    with pytest.raises(ValueError, match=r"items graded twice: 0a \(1\)"):
        summarise(items, [*graded, graded[0]])
    with pytest.raises(ValueError, match=r"items asked twice: 0a \(1\)"):
        summarise([*items, items[0]], graded)
    with pytest.raises(ValueError, match="nothing was asked \\(0 items\\)"):
        summarise([], [])
    with pytest.raises(ValueError, match="a pair has two items; pair 'p1' has 1"):
        summarise(items[:3], graded[:3])
