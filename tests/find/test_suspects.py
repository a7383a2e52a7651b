"""Suspect pairs: a planted one is found, a slow reference agrees, and odd vectors are refused by name."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.errors import UserError
from eyechart.core.records import Item
from eyechart.find import compare_pairs


def exam(*pairs):
    """Items on pictures named by pairs of names."""
    return [
        Item(
            id=f"{number}{side}",
            pair_id=f"p{number}",
            question="?",
            options=("Yes", "No"),
            answer=place,
            image=Path(image),
            image_sha256=image,
            pattern="color",
        )
        for number, pair in enumerate(pairs)
        for place, (side, image) in enumerate(zip("ab", pair, strict=True))
    ]


def names(count):
    return [f"i{number}" for number in range(count)]


def noise(images, dim, seed=0):
    return np.random.default_rng(seed).normal(size=(images, dim)).astype(np.float32)


def by_hand(first, second):
    """A cosine, so plain that it can be checked by reading."""
    a, b = [float(x) for x in first], [float(x) for x in second]
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (sum(x * x for x in a) ** 0.5 * sum(y * y for y in b) ** 0.5)


def all_by_hand(vectors):
    return [by_hand(vectors[i], vectors[j]) for i in range(len(vectors)) for j in range(i + 1, len(vectors))]


def test_a_planted_blind_pair_is_the_only_suspect():
    """The model's encoder sees pictures 4 and 5 alike, and 8 and 9; the reference sees only 8 and 9 alike."""
    reference = noise(40, 64)
    reference[9] = reference[8] + 0.01 * noise(1, 64, seed=5)[0]
    model = noise(40, 32, seed=1)
    model[5], model[9] = model[4] * 3, model[8] + 0.01
    images = names(40)
    found = compare_pairs(
        exam(*zip(images[::2], images[1::2], strict=True)), images, model, reference, percentile=99.0
    )
    assert {pair.pair_id for pair in found.pairs if pair.suspect} == {"p2"}
    planted, both = found.pairs[2], found.pairs[4]
    assert planted.similarity_model == pytest.approx(1.0)
    assert planted.percentile_model > 99.8
    assert planted.similarity_reference < 0.5
    assert both.percentile_model > 99
    assert both.percentile_reference > 99
    assert (found.compared, found.exhaustive, found.notes) == (780, True, ())


def test_where_nothing_was_planted_nothing_is_found():
    images = names(30)
    same = noise(30, 16)
    found = compare_pairs(exam(*zip(images[::2], images[1::2], strict=True)), images, same, same)
    assert not any(pair.suspect for pair in found.pairs)


@settings(max_examples=30, deadline=None)
@given(
    images=st.integers(2, 9),
    dim=st.integers(1, 5),
    seed=st.integers(0, 10_000),
    percentile=st.sampled_from([5.0, 50.0, 90.0, 99.0]),
    swap=st.booleans(),
)
def test_fast_agrees_with_plain(images, dim, seed, percentile, swap):
    model, reference = noise(images, dim, seed), noise(images, dim + 2, seed + 1)
    if swap:
        model, reference = reference, model
    pairs = [(i, j) for i in range(images) for j in range(images) if i < j][:6]
    items = exam(*((f"i{i}", f"i{j}") for i, j in pairs))
    found = compare_pairs(items, names(images), model, reference, percentile=percentile)
    for vectors, encoder in ((model, "model"), (reference, "reference")):
        everyone = all_by_hand(vectors)
        cut = float(np.percentile(everyone, percentile))
        assert getattr(found, f"threshold_{encoder}") == pytest.approx(cut, abs=1e-8)
        for (i, j), row in zip(pairs, found.pairs, strict=True):
            own = by_hand(vectors[i], vectors[j])
            assert getattr(row, f"similarity_{encoder}") == pytest.approx(own, abs=1e-8)
            below = sum(other < own - 1e-9 for other in everyone)
            level = sum(abs(other - own) <= 1e-9 for other in everyone)
            rank = 100 * (below + level / 2) / len(everyone)
            assert getattr(row, f"percentile_{encoder}") == pytest.approx(rank)
    for row in found.pairs:
        assert row.suspect == (
            row.similarity_model >= found.threshold_model
            and row.similarity_reference < found.threshold_reference
        )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_neither_length_nor_rotation_nor_order_of_pictures_matters(seed, data):
    images, model, reference = names(12), noise(12, 6, seed), noise(12, 4, seed + 1)
    items = exam(*zip(images[::2], images[1::2], strict=True))
    before = compare_pairs(items, images, model, reference, percentile=80.0)
    turn, _ = np.linalg.qr(noise(6, 6, seed + 2).astype(np.float64))
    lengths = np.random.default_rng(seed).uniform(0.1, 50, size=(12, 1))
    order = data.draw(st.permutations(range(12)))
    after = compare_pairs(
        items,
        [images[place] for place in order],
        (model.astype(np.float64) * lengths @ turn)[order],
        reference[order],
        percentile=80.0,
    )
    for one, other in zip(before.pairs, after.pairs, strict=True):
        assert one.similarity_model == pytest.approx(other.similarity_model, abs=1e-6)
        assert one.similarity_reference == other.similarity_reference
        assert (one.pair_id, one.suspect) == (other.pair_id, other.suspect)


def test_a_pair_is_the_same_the_other_way_round():
    images, model, reference = names(10), noise(10, 4), noise(10, 4, 1)
    there = compare_pairs(exam(("i1", "i7")), images, model, reference).pairs[0]
    back = compare_pairs(exam(("i7", "i1")), images, model, reference).pairs[0]
    assert (there.similarity_model, there.suspect) == (back.similarity_model, back.suspect)
    assert (there.image_a, there.image_b, there.item_a, there.item_b) == ("i1", "i7", "0a", "0b")
    assert there.pattern == "color"


def test_without_a_reference_no_pair_is_a_suspect_or_cleared():
    found = compare_pairs(exam(("i0", "i1")), names(20), noise(20, 4))
    (row,) = found.pairs
    assert (row.suspect, row.similarity_reference, row.percentile_reference) == (None, None, None)
    assert found.threshold_reference is None
    assert row.similarity_model is not None


def test_a_drawn_sample_stands_for_all_pairs_and_is_seeded():
    images = names(300)
    items = exam(*zip(images[::2], images[1::2], strict=True))
    model, reference = noise(300, 8), noise(300, 8, 1)
    full = compare_pairs(items, images, model, reference)
    some = compare_pairs(items, images, model, reference, most_compared=20_000, seed=4)
    assert (full.compared, full.exhaustive) == (300 * 299 // 2, True)
    assert (some.compared, some.exhaustive) == (20_000, False)
    assert some.threshold_model == pytest.approx(full.threshold_model, abs=0.02)
    assert [pair.similarity_model for pair in some.pairs] == [pair.similarity_model for pair in full.pairs]
    assert any("20000 drawn pairs of pictures (there are 44850)" in note for note in some.notes)
    assert some == compare_pairs(items, images, model, reference, most_compared=20_000, seed=4)
    assert (
        some.threshold_model
        != compare_pairs(items, images, model, most_compared=20_000, seed=5).threshold_model
    )


def test_more_than_one_block_of_pictures_is_compared_once():
    """1100 pictures are three blocks; every unordered pair is there once."""
    model = np.zeros((1100, 2))
    model[:, 0] = 1
    model[[3, 700, 1099], :] = (0, 1)  # 3 pairs of these and C(1097, 2) of the rest have cosine 1, others 0
    found = compare_pairs(exam(("i3", "i1099"), ("i0", "i3")), names(1100), model, percentile=50.0)
    ones = 3 + 1097 * 1096 // 2
    zeros = found.compared - ones
    assert found.compared == 1100 * 1099 // 2
    assert found.pairs[0].percentile_model == pytest.approx(100 * (zeros + ones / 2) / found.compared)
    assert found.pairs[1].percentile_model == pytest.approx(100 * (zeros / 2) / found.compared)


def test_no_square_of_all_pictures_is_kept():
    images, model = names(4000), noise(4000, 4)
    tracemalloc.start()
    compare_pairs(exam(("i0", "i1")), images, model, most_compared=10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000 * 4000  # bytes; a square of float64 takes eight times as many


def test_identical_pictures_are_flagged_and_no_suspects():
    images = names(20)
    found = compare_pairs(exam(("i4", "i4"), ("i0", "i1")), images, noise(20, 8), noise(20, 8, 1))
    assert [pair.identical for pair in found.pairs] == [True, False]
    assert found.pairs[0].suspect is False
    assert found.pairs[0].similarity_model == 1.0
    assert any("identical pictures, which no encoder can tell apart: p0" in note for note in found.notes)


def test_an_encoder_that_sees_nothing_is_noted():
    found = compare_pairs(exam(("i0", "i1")), names(20), np.ones((20, 3)), noise(20, 8))
    assert any("the same features" in note for note in found.notes)
    assert found.pairs[0].suspect == (found.pairs[0].similarity_reference < found.threshold_reference)
    few = compare_pairs(exam(("i0", "i1")), names(5), noise(5, 3))
    assert any("only 10 pairs of pictures" in note for note in few.notes)


def test_taking_the_mean_away_spreads_a_narrow_cone():
    narrow = noise(30, 6) + 100.0
    images = names(30)
    cone = compare_pairs(exam(("i0", "i1")), images, narrow)
    spread = compare_pairs(exam(("i0", "i1")), images, narrow, centre=True)
    assert cone.pairs[0].similarity_model > 0.99
    away = narrow.astype(np.float64) - narrow.astype(np.float64).mean(axis=0)
    assert spread.pairs[0].similarity_model == pytest.approx(by_hand(away[0], away[1]), abs=1e-8)
    assert (cone.centred, spread.centred) == (False, True)


def test_lengths_beyond_float32_and_tiny_ones_are_no_matter():
    model = noise(6, 4).astype(np.float64)
    scaled = model * np.array([[1e-300], [1e200], [1.0], [1e-30], [1e30], [1.0]])
    before = compare_pairs(exam(("i0", "i1")), names(6), model)
    assert compare_pairs(exam(("i0", "i1")), names(6), scaled).pairs[0].similarity_model == pytest.approx(
        before.pairs[0].similarity_model
    )


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (0.0, "the vector of i2 is all zeros"),
        (np.nan, "the vector of i2 holds values that are not finite"),
        (np.inf, "of i2 holds"),
    ],
)
def test_a_vector_without_direction_is_refused_by_name(value, complaint):
    images, good, bad = names(5), noise(5, 3), noise(5, 3)
    bad[2] = value
    with pytest.raises(UserError, match=rf"{complaint}.*\(1 of 5 pictures\)"):
        compare_pairs(exam(("i0", "i1")), images, bad)
    with pytest.raises(UserError, match=complaint):
        compare_pairs(exam(("i0", "i1")), images, good, bad)


def test_a_vector_that_is_the_mean_has_no_direction_around_it():
    model = np.array([[1.0, 0], [0, 1], [0.5, 0.5]])
    with pytest.raises(UserError, match="the vector of i2 equals the mean of all pictures"):
        compare_pairs(exam(("i0", "i1")), names(3), model, centre=True)


def test_what_does_not_fit_together_is_named():
    images, model = names(4), noise(4, 3)
    with pytest.raises(UserError, match=r"between 0 and 100, got 100\.0"):
        compare_pairs(exam(("i0", "i1")), images, model, percentile=100.0)
    with pytest.raises(UserError, match="1 picture cannot be compared"):
        compare_pairs(exam(("i0", "i0")), ["i0"], noise(1, 3))
    with pytest.raises(ValueError, match="4 vectors for 5 pictures"):
        compare_pairs(exam(("i0", "i1")), names(5), model)
    with pytest.raises(ValueError, match="listed more than once: i1"):
        compare_pairs(exam(("i0", "i1")), ["i0", "i1", "i1", "i2"], model)
    with pytest.raises(ValueError, match="item '0b': there is no vector for its picture 'i9'"):
        compare_pairs(exam(("i0", "i9")), images, model)
    with pytest.raises(ValueError, match="a pair has two items; pair 'p0' has 1"):
        compare_pairs(exam(("i0", "i1"))[:1], images, model)
    with pytest.raises(ValueError, match=r"there are no items \(0\)"):
        compare_pairs([], images, model)
