"""The part probe: planted information, lost or turned, is told apart by its two trainings."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eyechart.core.errors import UserError
from eyechart.locate.compensate_probe import part_features, probe_parts
from eyechart.train.readability import Task, grouped_folds, read_linearly
from eyechart.train.transfer import read_transferred

PARTS, IMAGES, DIM = ("head", "tail", "leg"), 60, 12


def instances(seed: int = 0):
    """Each image shows all parts; the part stands in three directions, the image in the others."""
    rng = np.random.default_rng(seed)
    parts = [part for _ in range(IMAGES) for part in PARTS]
    images = [image for image in range(IMAGES) for _ in PARTS]
    shown = np.eye(DIM)[[PARTS.index(part) for part in parts]] * 3
    rest = rng.normal(size=(IMAGES, DIM))[images] + 0.3 * rng.normal(size=(len(parts), DIM))
    return shown + rest, rest, parts, images


def turned(rows: np.ndarray) -> np.ndarray:
    """The same information in another format: directions in another order and of other sign."""
    return -np.roll(rows, 5, axis=1)


@pytest.mark.slow
def test_lost_and_turned_information_are_told_apart() -> None:
    intact, rest, parts, images = instances()
    cells = {"intact": intact, "lost": rest, "turned": turned(intact)}
    found = probe_parts(lambda layer: cells, [0], parts, images)
    score = {
        (training, cell): read.right.mean() for training, row in found.items() for cell, read in row.items()
    }
    assert score["transfer", "intact"] > 0.9
    assert score["refit", "turned"] > 0.9
    assert score["transfer", "turned"] < 0.6
    assert score["transfer", "lost"] < 0.5
    assert score["refit", "lost"] < 0.5
    for row in found.values():
        for read in row.values():
            assert abs(read.control.mean() - 1 / 3) < 0.15
    above = found["refit"]["turned"].readability()
    assert np.array_equal(above, found["refit"]["turned"].right - found["refit"]["turned"].control)


@pytest.mark.slow
def test_on_what_it_was_trained_on_transfer_is_the_plain_probe() -> None:
    intact, _, parts, images = instances(1)
    task = Task(labels=tuple(parts), groups=tuple(images))
    moved = read_transferred(intact, {"same": intact}, task, seed=3)["same"]
    plain = read_linearly(intact, task, seed=3)
    assert np.array_equal(moved.right, plain.right)
    assert np.array_equal(moved.control, plain.control)


@pytest.mark.slow
def test_transfer_agrees_with_scikit_learn() -> None:
    """Another implementation, with one penalty: what is clear is read alike."""
    intact, rest, parts, images = instances(2)
    half = rest + 0.6 * (intact - rest)
    task = Task(labels=tuple(parts), groups=tuple(images))
    mine = read_transferred(intact, {"half": half}, task)["half"].right
    theirs = np.zeros(len(parts))
    for train, test in grouped_folds(task.groups, 5, 0):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(
            intact[train], np.array(parts)[train]
        )
        theirs[test] = probe.predict(half[test]) == np.array(parts)[test]
    assert abs(mine.mean() - theirs.mean()) < 0.08


@pytest.mark.slow
def test_no_image_is_on_both_sides_of_a_split() -> None:
    """Each image carries its own part's label in a direction of its own: readable only if the image was trained on."""
    rng = np.random.default_rng(0)
    images = list(np.repeat(np.arange(20), 6))
    label = rng.integers(0, 3, 20)
    parts = [PARTS[label[image]] for image in images]
    rows = np.eye(20)[images] * 5
    found = probe_parts(lambda layer: {"intact": rows}, [0], parts, images)
    assert found["transfer"]["intact"].right.mean() < 0.6
    assert found["refit"]["intact"].right.mean() < 0.6


@pytest.mark.slow
def test_options_keep_the_answer_within_the_object() -> None:
    _, rest, parts, images = instances(3)
    options = [(part, PARTS[(PARTS.index(part) + 1) % 3]) for part in parts]
    found = probe_parts(lambda layer: {"intact": rest}, [0], parts, images, options=options)
    assert abs(found["refit"]["intact"].right.mean() - 0.5) < 0.15


@pytest.mark.slow
def test_layers_are_columns_and_cells_must_be_at_all_of_them() -> None:
    intact, rest, parts, images = instances(4)
    found = probe_parts(lambda layer: {"intact": (rest, intact)[layer]}, [0, 1], parts, images)
    right = found["refit"]["intact"].right
    assert right.shape == (len(parts), 2)
    assert right[:, 1].mean() > 0.9 > 0.5 > right[:, 0].mean()
    with pytest.raises(UserError, match="'cut' was given at 1 of 2 layers"):
        probe_parts(
            lambda layer: {"intact": intact} | ({"cut": rest} if layer else {}), [0, 1], parts, images
        )
    with pytest.raises(UserError, match="expected one called 'intact'"):
        probe_parts(lambda layer: {"cut": rest}, [0], parts, images)


def test_features_of_other_shapes_and_too_few_images_are_refused() -> None:
    intact, _, parts, images = instances(5)
    task = Task(labels=tuple(parts), groups=tuple(images))
    with pytest.raises(ValueError, match="and others"):
        read_transferred(intact[:-1], {"short": intact[:-1]}, task)
    few = Task(labels=tuple(parts), groups=tuple(image % 3 for image in images))
    with pytest.raises(ValueError, match="3 groups cannot be split"):
        read_transferred(intact, {"same": intact}, few)


def test_part_features_are_means_over_cells() -> None:
    states = torch.arange(24, dtype=torch.float16).reshape(2, 4, 3)
    found = part_features(states, [(0, 2), (3,)])
    assert found.dtype == np.float32
    assert found.shape == (2, 2, 3)
    assert found[0, 0].tolist() == [3, 4, 5]
    assert np.array_equal(found[1, 1], states[1, 3].float().numpy())
    with pytest.raises(UserError, match=r"regions \[1\] have no position"):
        part_features(states, [(0,), ()])


def test_a_few_instances_are_read_quickly() -> None:
    """The default run's own look at both trainings: the part alone decides the state."""
    parts, images = list(PARTS) * 10, [image for image in range(10) for _ in PARTS]
    rows = np.eye(3)[[PARTS.index(part) for part in parts]]
    found = probe_parts(lambda layer: {"intact": rows, "turned": -rows}, [0], parts, images)
    assert found["transfer"]["intact"].right.mean() == 1.0
    assert found["refit"]["turned"].right.mean() == 1.0
    assert found["transfer"]["turned"].right.mean() == 0.0
