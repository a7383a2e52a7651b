"""A linear probe trained on features of one kind and read on those of others, scene by scene.

The probe, its penalty, its folds and its control are those of `readability`; only what it is tested on differs. A
probe that is no longer right on other features has met less information, or the same in another format: the two
cannot be told apart by transfer alone, so read the other features by a probe trained on them as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from eyechart.train.readability import Task, deal_labels, grouped_folds, linear_scores


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transferred:
    """Whether each scene was read rightly on features that the probe was not trained on."""

    right: Float[ndarray, " scene"]
    control: Float[ndarray, " scene"]
    """The same with a probe trained on labels that were dealt out anew."""


def read_transferred(
    trained: Float[ndarray, "scene dim"],
    others: Mapping[str, Float[ndarray, "scene dim"]],
    task: Task,
    *,
    folds: int = 5,
    seed: int = 0,
) -> dict[str, Transferred]:
    """Cross-validate a linear probe: trained on one kind of features, tested on other kinds of held-out scenes.

    Args:
        trained: what the probe is trained on.
        others: by name, features of the same scenes and of the same width.
        task: labels and groups; groups are never on both sides of a split.
        folds: of the cross-validation.
        seed: of folds, penalty and control.

    Raises:
        ValueError: features differ in shape, or there are fewer groups than folds.
    """
    wrong = {name: rows.shape for name, rows in others.items() if rows.shape != trained.shape}
    if wrong or len(trained) != len(task.labels):
        raise ValueError(f"{len(task.labels)} labels, features of shape {trained.shape}, and others {wrong}")
    if (count := len(set(task.groups))) < folds:
        raise ValueError(f"{count} groups cannot be split into {folds} folds")
    kinds = 1 + len(others)
    stacked = np.concatenate([trained, *others.values()])
    whole = Task(
        labels=task.labels * kinds,
        groups=task.groups * kinds,
        options=None if task.options is None else task.options * kinds,
    )
    right = _right(stacked, whole, task, task.targets(), folds, seed)
    control = _right(stacked, whole, task, deal_labels(task, seed), folds, seed)
    return {
        name: Transferred(right=right[place], control=control[place])
        for place, name in enumerate(others, start=1)
    }


def _right(
    stacked: Float[ndarray, "row dim"],
    whole: Task,
    task: Task,
    targets: Int[ndarray, " scene"],
    folds: int,
    seed: int,
) -> Float[ndarray, "kind scene"]:
    """For each kind of features, the first being those trained on, whether each scene was read rightly."""
    scenes = len(targets)
    right, every = np.zeros((len(stacked) // scenes, scenes)), np.tile(targets, len(stacked) // scenes)
    for train, test in grouped_folds(task.groups, folds, seed):
        likely = np.where(whole.allowed(), linear_scores(stacked, train, every, whole, seed), -np.inf)
        read = (likely.argmax(axis=1) == every).reshape(-1, scenes)
        right[:, test] = read[:, test]
    return right
