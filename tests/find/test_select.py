"""The list a person reads: near-duplicates apart, a burst once, each picture a few times; thresholds by percentile."""

import numpy as np
import pytest
from PIL import Image

from broken_images import encoded, scene
from eyechart.core.errors import UserError
from eyechart.core.images import open_bytes
from eyechart.find.decode import difference_hash
from eyechart.find.keep import Columns, most_suspicious_first
from eyechart.find.select import select
from eyechart.find.thresholds import Wish, draw


def columns(*pairs):
    i, j, near, far = zip(*pairs, strict=True)
    return most_suspicious_first(
        Columns(
            i=np.array(i, np.int32), j=np.array(j, np.int32), semantic=np.array(near), reference=np.array(far)
        )
    )


NO_PAIRS = Columns(
    i=np.zeros(0, np.int32), j=np.zeros(0, np.int32), semantic=np.zeros(0), reference=np.zeros(0)
)


def hashes(images, seed=0):
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(images, 64)).astype(np.float32)


def chosen(found, alike=NO_PAIRS, marks=None, **limits):
    known = {"min_alike": 0.9, "most_bits": 10, "per_image": 5, "per_burst": 1, "budget": 100}
    return select(found, alike, hashes(20) if marks is None else marks, **(known | limits))


def listed(selected):
    return list(zip(selected.pairs.i.tolist(), selected.pairs.j.tolist(), strict=True))


def test_a_burst_fills_the_list_once():
    """Pictures 1 to 6 are one burst: each is blind beside picture 0, which also has another partner."""
    marks = hashes(20)
    marks[2:7] = marks[1]
    burst = columns(*[(first, first + 1, 0.99, 0.97) for first in range(1, 6)])
    found = columns(*[(0, place, 0.99, 0.01 * place) for place in range(1, 7)], (0, 9, 0.96, 0.5))
    assert listed(chosen(found, burst, marks)) == [(0, 1), (0, 9)]
    assert listed(chosen(found, burst, marks, per_burst=2)) == [(0, 1), (0, 2), (0, 9)]
    assert len(listed(chosen(found, NO_PAIRS, marks))) == 5  # per_image alone


def test_near_duplicates_need_both_the_hash_and_the_reference():
    marks = hashes(20)
    marks[1] = marks[0]
    found = columns((0, 1, 0.99, 0.95), (2, 3, 0.99, 0.95), (4, 5, 0.99, 0.1))
    marks[5] = marks[4]
    selected = chosen(found, columns((0, 1, 0.99, 0.95), (2, 3, 0.99, 0.95)), marks)
    assert listed(selected) == [(4, 5), (2, 3)]
    assert selected.set_apart == 1
    assert (selected.near_duplicates.i.tolist(), selected.near_duplicates.j.tolist()) == ([0], [1])
    assert selected.bits[0] == 0


def test_limits_hold():
    found = columns(*[(0, place, 0.99, 0.01 * place) for place in range(1, 15)])
    assert len(listed(chosen(found, per_image=3))) == 3
    assert len(listed(chosen(found, budget=2))) == 2
    assert listed(chosen(NO_PAIRS)) == []


def test_a_hash_survives_scaling_and_compression_and_tells_pictures_apart():
    picture = scene(128, 96, seed=1)
    copy = open_bytes(encoded(picture.resize((90, 70)), "JPEG", quality=60), "copy").image
    other = scene(128, 96, seed=2)
    differing = [
        int((difference_hash(picture) != difference_hash(one)).sum()) for one in (picture, copy, other)
    ]
    assert differing[0] == 0
    assert differing[1] <= 6
    assert differing[2] >= 16
    by_hand = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.LANCZOS)).astype(int)
    assert [difference_hash(picture)[8 * row + column] == 1 for row in range(8) for column in range(8)] == [
        by_hand[row, column] > by_hand[row, column + 1] for row in range(8) for column in range(8)
    ]


def unit(images, dim, seed):
    rows = np.random.default_rng(seed).normal(size=(images, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_percentiles_are_those_of_all_pairs_or_of_drawn_ones():
    first, second = unit(60, 8, 0), unit(60, 6, 1)
    every = draw(first, second, seed=0)
    above = np.triu_indices(60, k=1)
    assert every.exhaustive
    np.testing.assert_allclose(
        every.semantic, (first.astype(float) @ first.T.astype(float))[above], atol=1e-12
    )
    assert Wish.parse("p90", name="x").among(every.semantic) == np.percentile(every.semantic, 90)
    assert Wish.parse("0.3", name="x").among(every.semantic) == 0.3
    some = draw(first, second, seed=0, most=1000)
    assert not some.exhaustive
    assert len(some.semantic) == 1000
    assert np.percentile(some.semantic, 50) == pytest.approx(np.percentile(every.semantic, 50), abs=0.06)
    assert (some.semantic < 1 - 1e-9).all()  # never a picture with itself
    joint = every.joint()
    assert sum(map(sum, joint["counts"])) == joint["sampled"] == 1770


@pytest.mark.parametrize("text", ["1.5", "p101", "p", "high", "nan", "-2"])
def test_a_threshold_that_means_nothing_is_refused(text):
    with pytest.raises(UserError, match=f"min_semantic is '{text}': give a cosine between -1 and 1, or p"):
        Wish.parse(text, name="min_semantic")
