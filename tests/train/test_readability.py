"""Probes: planted facts are found, absent ones are not, and groups, options and controls are what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from eyechart.train.readability import (
    AttentiveProbe,
    Task,
    _logistic,
    _rotated,
    deal_labels,
    grouped_folds,
    read_attentively,
    read_linearly,
)
from eyechart.train.untrained import gradient_histograms, raw_pixels

PAIRS = 60


def pairs_task(seed=0):
    """Pairs of scenes of opposite labels."""
    first = np.random.default_rng(seed).integers(2, size=PAIRS)
    bits = np.stack([first, 1 - first], axis=1).reshape(-1)
    labels = tuple("left" if bit else "right" for bit in bits)
    return bits, Task(labels=labels, groups=tuple(np.arange(PAIRS).repeat(2).tolist()))


def test_a_planted_direction_is_read_and_dealt_labels_are_not():
    bits, task = pairs_task()
    rng = np.random.default_rng(1)
    features = rng.normal(size=(2 * PAIRS, 20)) * rng.uniform(0.01, 100, 20) + 5
    features[:, 3] += features[:, 3].std() * 4 * bits
    found = read_linearly(features, task)
    assert found.accuracy.value > 0.9
    assert found.accuracy.n == 2 * PAIRS
    assert found.accuracy.clusters == PAIRS
    assert found.accuracy.low > 0.8 > found.shuffled.high
    assert found.shuffled.low < 0.5 < found.shuffled.high
    assert found.right.mean() == pytest.approx(found.accuracy.value)
    assert (found.chance, found.probe) == (0.5, "linear")


@pytest.mark.slow
def test_noise_is_not_read():
    _, task = pairs_task()
    patches = np.random.default_rng(2).normal(size=(2 * PAIRS, 6, 8)).astype(np.float32)
    assert read_linearly(patches.reshape(len(patches), -1), task).accuracy.high < 0.7
    attentive, again = (read_attentively(patches, task, seeds=(0,), folds=2) for _ in range(2))
    assert attentive.accuracy.high < 0.7
    assert np.array_equal(attentive.right, again.right)


def test_what_a_pair_shares_does_not_help():
    """Scenes of a pair nearly coincide and have opposite labels: a probe tested on a pair it knows half of would be
    worse than chance, and with labels alike in a pair better than chance."""
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(PAIRS, 40)).repeat(2, axis=0) + rng.normal(size=(2 * PAIRS, 40)) * 0.01
    alike = np.random.default_rng(0).integers(2, size=PAIRS).repeat(2)
    task = Task(labels=tuple(map(str, alike)), groups=tuple(np.arange(PAIRS).repeat(2).tolist()))
    assert read_linearly(shared, task).accuracy.value < 0.65
    loose = replace(task, groups=tuple(range(2 * PAIRS)))
    assert read_linearly(shared, loose).accuracy.value > 0.65


@pytest.mark.slow
def test_the_attentive_probe_finds_a_fact_that_moves():
    """A mark somewhere among the patches, told by no fixed place: attention reads it, the mean hardly does."""
    rng = np.random.default_rng(4)
    count, patches, dim = 300, 8, 6
    bits = rng.integers(2, size=count)
    values = rng.normal(size=(count, patches, dim)).astype(np.float32)
    values[..., 1] *= 3
    where = rng.integers(patches, size=count)
    values[np.arange(count), where, 0] = 6.0
    values[np.arange(count), where, 1] = np.where(bits, 4.0, -4.0)
    task = Task(labels=tuple(map(str, bits)), groups=tuple(range(count)))
    attentive = read_attentively(values, task, seeds=(0, 1), folds=2)
    linear = read_linearly(values.reshape(count, -1), task, folds=2)
    assert attentive.accuracy.value > 0.9
    assert attentive.accuracy.low > linear.accuracy.high
    assert attentive.shuffled.low < 0.5 < attentive.shuffled.high + 0.05
    assert set(np.unique(attentive.right)) <= {0.0, 0.5, 1.0}


def test_options_close_what_a_scene_could_not_be():
    rng = np.random.default_rng(5)
    bits = rng.integers(2, size=120)
    doors = np.arange(120) % 2 == 0
    words = {True: ("open", "closed"), False: ("lit", "dark")}
    options = tuple(words[bool(door)] for door in doors)
    labels = tuple(option[bit] for option, bit in zip(options, bits, strict=True))
    features = np.stack([bits * 2.0 - 1, rng.normal(size=120)], axis=1)
    task = Task(labels=labels, groups=tuple(range(120)), options=options)
    found = read_linearly(features, task)
    assert task.words == ("closed", "dark", "lit", "open")
    assert found.chance == 0.5
    assert found.accuracy.value == 1.0
    free = replace(task, options=None)
    assert free.chance() == 0.25
    assert read_linearly(features, free).accuracy.value < 0.8, "nothing here says what is a door"


def test_every_scene_is_tested_once_and_groups_stay_whole():
    groups = [f"pair {number // 3}" for number in range(60)]
    tested = []
    for train, test in grouped_folds(groups, 5, seed=7):
        assert not {groups[place] for place in train} & {groups[place] for place in test}
        assert len(test) == 12
        tested += test.tolist()
    assert sorted(tested) == list(range(60))


def test_dealing_keeps_groups_as_they_are_and_options_open():
    options = (("a", "b"), ("c", "d"), ("a", "b")) * 40
    rng = np.random.default_rng(12)
    labels = tuple(option[int(rng.integers(2))] for option in options)
    task = Task(labels=labels, groups=tuple(np.arange(40).repeat(3).tolist()), options=options)
    dealt = [task.words[number] for number in deal_labels(task, seed=1)]
    assert all(label in option for label, option in zip(dealt, options, strict=True))
    assert sorted(dealt) == sorted(labels)
    assert 20 < sum(new != old for new, old in zip(dealt, labels, strict=True)) < 100
    _, pairs = pairs_task()
    flips = deal_labels(pairs, seed=1).reshape(PAIRS, 2)
    assert (flips.sum(axis=1) == 1).all(), "the scenes of a pair still have opposite labels"
    assert 15 < (flips != pairs.targets().reshape(PAIRS, 2)).any(axis=1).sum() < 45


def test_the_logistic_probe_is_scikit_learns():
    """Where every word is open, the masked softmax is multinomial regression with C = 1 / strength."""
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(90, 5)).astype(np.float32)
    targets = rng.integers(3, size=90)
    rows[:, 0] += targets
    scores = _logistic(rows, np.arange(60), targets, torch.zeros(90, 3, dtype=torch.bool), 10.0)
    theirs = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(rows[:60], targets[:60])
    given = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(given, theirs.predict_proba(rows), atol=2e-3)


def test_rotated_features_make_the_same_probe():
    rng = np.random.default_rng(7)
    features = rng.normal(size=(50, 200))
    targets = rng.integers(2, size=50)
    train = np.arange(35)
    turned = _rotated(features, train)
    assert turned.shape[1] <= 35
    plain = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
    by_turned = (
        LogisticRegression(C=0.01, tol=1e-8).fit(turned[train], targets[train]).decision_function(turned)
    )
    by_plain = LogisticRegression(C=0.01, tol=1e-8).fit(plain[train], targets[train]).decision_function(plain)
    np.testing.assert_allclose(by_turned, by_plain, atol=1e-3)


def test_one_query_folds_into_directions():
    """The probe equals attention with key and value projections of its own, whose products it learns."""
    torch.manual_seed(0)
    probe = AttentiveProbe(5, 8, 3, 2)
    patches = torch.randn(4, 5, 8)
    logits = []
    for scene in patches:
        brought = []
        for head in range(2):
            scores = torch.stack([patch @ probe.query[:, head] for patch in scene]).softmax(0)
            brought.append(sum(weight * patch for weight, patch in zip(scores, scene, strict=True)))
        logits.append(torch.cat(brought) @ probe.read.weight.T + probe.read.bias)
    torch.testing.assert_close(probe(patches), torch.stack(logits), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_probed_is_refused():
    with pytest.raises(ValueError, match="2 labels for 1 groups"):
        Task(labels=("a", "b"), groups=(1,))
    with pytest.raises(ValueError, match=r"labels \['a'\]: there is nothing to tell apart"):
        Task(labels=("a", "a"), groups=(1, 2))
    with pytest.raises(ValueError, match="label 'b' is not among its options"):
        Task(labels=("a", "b"), groups=(1, 2), options=(("a", "b"), ("a", "c")))
    with pytest.raises(ValueError, match="1 sets of options for 2 labels"):
        Task(labels=("a", "b"), groups=(1, 2), options=(("a", "b"),))
    _, task = pairs_task()
    with pytest.raises(ValueError, match=f"features of 3 scenes, labels of {2 * PAIRS}"):
        read_linearly(np.zeros((3, 2)), task)
    with pytest.raises(ValueError, match=f"{PAIRS} groups cannot be split into 99 folds"):
        read_linearly(np.zeros((2 * PAIRS, 2)), task, folds=99)


def test_raw_pixels_are_means_of_blocks():
    pictures = np.random.default_rng(8).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    given = raw_pixels(pictures, side=4).reshape(2, 4, 4, 3)
    assert given[1, 2, 3, 0] == pytest.approx(pictures[1, 4:6, 6:8, 0].mean() / 255, abs=1e-6)
    with pytest.raises(ValueError, match="pictures of 8 pixels cannot be averaged down to 3"):
        raw_pixels(pictures, side=3)


def _slow_histogram(picture, row, column, cell, bins):
    """One cell of one picture, pixel by pixel."""
    values, histogram = picture.astype(float) / 255, np.zeros(bins)
    side = len(picture)
    for y in range(row * cell, (row + 1) * cell):
        for x in range(column * cell, (column + 1) * cell):
            best = (0.0, 0.0)
            for channel in range(3):
                down = values[y + 1, x, channel] - values[y - 1, x, channel] if 0 < y < side - 1 else 0.0
                right = values[y, x + 1, channel] - values[y, x - 1, channel] if 0 < x < side - 1 else 0.0
                best = max(
                    best, (np.hypot(down, right), np.arctan2(down, right) % np.pi), key=lambda pair: pair[0]
                )
            place = best[1] / np.pi * bins - 0.5
            low = int(np.floor(place))
            histogram[low % bins] += best[0] * (1 - (place - low))
            histogram[(low + 1) % bins] += best[0] * (place - low)
    return histogram


def test_gradient_histograms_are_those_of_a_slow_count():
    picture = np.random.default_rng(9).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    bins, grid = 9, 4
    cells = np.stack(
        [[_slow_histogram(picture, row, column, 6, bins) for column in range(grid)] for row in range(grid)]
    )
    row, column = 1, 2
    parts = []
    for dy, dx in ((-1, -1), (-1, 0), (0, -1), (0, 0)):
        block = cells[row + dy : row + dy + 2, column + dx : column + dx + 2]
        parts.append(np.minimum(cells[row, column] / np.sqrt(np.square(block).sum() + 1e-4), 0.2))
    wanted = np.concatenate(parts)
    wanted = wanted / np.sqrt(np.square(wanted).sum() + 1e-4)
    given = gradient_histograms(picture[None], cell=6, bins=bins)[0].reshape(grid, grid, -1)
    np.testing.assert_allclose(given[row, column], wanted, atol=1e-4)


def test_gradient_histograms_tell_bars_by_their_direction():
    upright = np.zeros((1, 24, 24, 3), np.uint8)
    upright[:, :, ::4] = 255
    upright[:, :, 1::4] = 255
    flat = upright.transpose(0, 2, 1, 3)
    per_bin = [gradient_histograms(bars, cell=6).reshape(-1, 9).sum(axis=0) for bars in (upright, flat)]
    assert {int(per_bin[0].argmax()), int((per_bin[0] + 1e-3 * np.arange(9)).argmax())} <= {0, 8}
    assert int(per_bin[1].argmax()) == 4
    with pytest.raises(ValueError, match="pictures of 24 pixels cannot be cut into cells of 7"):
        gradient_histograms(flat, cell=7)
