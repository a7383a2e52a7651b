"""What is kept of many pairs: against sorting them all, in whatever order and portions they come."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.find import keep
from eyechart.find.keep import Columns, Keeper


def columns(pairs):
    i, j, near, far = zip(*pairs, strict=True) if pairs else ((), (), (), ())
    return Columns(
        i=np.array(i, np.int32),
        j=np.array(j, np.int32),
        semantic=np.array(near, float),
        reference=np.array(far, float),
    )


def by_hand(pairs, per_image, budget):
    """All pairs sorted, each image's places counted, one by one."""
    ordered = sorted(pairs, key=lambda pair: (pair[3] - pair[2], pair[0], pair[1]))
    places = Counter()
    left = []
    for pair in ordered:
        first, second = places[pair[0]], places[pair[1]]
        places.update(pair[:2])
        if per_image is None or (first < per_image and second < per_image):
            left.append(pair[:2])
    return left if budget is None else left[:budget]


@settings(max_examples=150, deadline=None)
@given(
    drawn=st.dictionaries(
        st.tuples(st.integers(0, 12), st.integers(13, 25)),
        st.tuples(st.sampled_from([0.95, 0.96, 0.99]), st.sampled_from([0.1, 0.2, 0.5])),
        max_size=80,
    ),
    per_image=st.sampled_from([None, 1, 2, 5]),
    budget=st.sampled_from([None, 1, 10, 1000]),
    portion=st.integers(1, 20),
    room=st.integers(0, 30),
    seed=st.integers(0, 100),
)
def test_the_first_are_kept_whatever_the_order(drawn, per_image, budget, portion, room, seed):
    pairs = [(*key, *value) for key, value in drawn.items()]
    had, keep.ROOM = keep.ROOM, room
    try:
        keeper = Keeper(per_image=per_image, budget=budget)
        shuffled = [pairs[place] for place in np.random.default_rng(seed).permutation(len(pairs))]
        for start in range(0, len(shuffled), portion):
            keeper.add(columns(shuffled[start : start + portion]))
        left = keeper.kept()
    finally:
        keep.ROOM = had
    assert list(zip(left.i.tolist(), left.j.tolist(), strict=True)) == by_hand(pairs, per_image, budget)
    assert keeper.found == len(pairs)


@settings(max_examples=150, deadline=None)
@given(
    drawn=st.dictionaries(
        st.tuples(st.integers(0, 12), st.integers(13, 25)),
        st.tuples(st.sampled_from([0.95, 0.96, 0.99]), st.sampled_from([0.1, 0.2, 0.5])),
        max_size=80,
    ),
    per_image=st.sampled_from([None, 1, 2, 5]),
    budget=st.sampled_from([None, 1, 10, 1000]),
    portion=st.integers(1, 20),
)
def test_what_others_have_kept_as_possible_is_enough(drawn, per_image, budget, portion):
    pairs = [(*key, *value) for key, value in drawn.items()]
    last = Keeper(per_image=per_image, budget=budget)
    for start in range(0, len(pairs), portion):
        other = Keeper(per_image=per_image, budget=budget)
        other.add(columns(pairs[start : start + portion]))
        last.add(other.possible(), found=other.found)
    left = last.kept()
    assert last.found == len(pairs)
    assert list(zip(left.i.tolist(), left.j.tolist(), strict=True)) == by_hand(pairs, per_image, budget)


def test_a_clump_under_a_limit_takes_little_memory(monkeypatch):
    monkeypatch.setattr(keep, "ROOM", 100)
    keeper = Keeper(per_image=2)
    for first in range(200):
        second = np.arange(first + 1, 200, dtype=np.int32)
        ones = np.full(len(second), 0.99)
        keeper.add(
            Columns(i=np.full(len(second), first, np.int32), j=second, semantic=ones, reference=second / 1000)
        )
        assert keeper._held <= 3 * 2 * 200 + 300
    assert keeper.found == 200 * 199 // 2
