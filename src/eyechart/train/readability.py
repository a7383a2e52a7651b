"""Readability: how well a fact of a scene can be read off features by a small probe trained for it.

Two probes. The linear one is a logistic regression on standardised features, its penalty chosen inside each training
fold (Alain and Bengio, arXiv 1610.01644). The attentive one pools patches by one learned query with several heads
and reads the result linearly (as in Bardes et al., V-JEPA, arXiv 2404.08471, section 4, without its MLP). Both are cross-validated with
the scenes of a pair, or of any other group, kept together; labels dealt out anew are the control that must end at
chance.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from numpy import ndarray
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn
from torch.nn import functional

from eyechart.core.stats import Estimate, cluster_bootstrap

_STRENGTHS = (1e4, 1e2, 1.0)
"""Penalties to choose from (1/C of scikit-learn); for standardised features they run from heavy to light."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be read: a label of each scene, and the labels it could have had."""

    labels: tuple[str, ...]
    groups: tuple[Hashable, ...]
    """Scenes of one group (a pair) are never on both sides of a split."""

    options: tuple[tuple[str, ...], ...] | None = None
    """The labels among which each scene's is to be picked; None for all there are. A probe for `open` or `closed`
    of doors and `lit` or `dark` of lamps is one probe with four labels and two options a scene."""

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.groups):
            raise ValueError(f"{len(self.labels)} labels for {len(self.groups)} groups")
        if len(set(self.labels)) < 2:
            raise ValueError(f"labels {sorted(set(self.labels))}: there is nothing to tell apart")
        if self.options is not None:
            if len(self.options) != len(self.labels):
                raise ValueError(f"{len(self.options)} sets of options for {len(self.labels)} labels")
            for label, options in zip(self.labels, self.options, strict=True):
                if label not in options:
                    raise ValueError(f"label {label!r} is not among its options {options}")

    @property
    def words(self) -> tuple[str, ...]:
        """Every label once, sorted."""
        return tuple(sorted(set(self.labels)))

    def targets(self) -> Int[ndarray, " scene"]:
        """Labels as places in `words`."""
        place = {word: number for number, word in enumerate(self.words)}
        return np.array([place[label] for label in self.labels])

    def allowed(self) -> Bool[ndarray, "scene word"]:
        """Which words each scene's label is picked from."""
        options = self.options or (self.words,) * len(self.labels)
        return np.array([[word in choice for word in self.words] for choice in options])

    def chance(self) -> float:
        """Expected share right of a guess at random among the options."""
        return float((1 / self.allowed().sum(axis=1)).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Readability:
    """How often a probe was right on scenes it was not trained on."""

    accuracy: Estimate
    """Of all seeds together, with an interval from drawing groups anew."""

    shuffled: Estimate
    """The same after labels were dealt out anew among scenes of the same options: what no signal looks like."""

    chance: float
    probe: Literal["linear", "attentive"]
    right: Float[ndarray, " scene"]
    """Share of the seeds in which each scene was read rightly, for paired comparisons of encoders."""

    control: Float[ndarray, " scene"]
    """Whether each scene was read rightly after labels were dealt out anew, for the same comparisons."""


_Reader = Callable[[ndarray, ndarray, int], ndarray]
"""Trains on the scenes and targets given, with a seed, and scores each word for all scenes: higher is likelier."""


def read_linearly(
    features: Float[ndarray, "scene dim"], task: Task, *, folds: int = 5, seed: int = 0
) -> Readability:
    """Cross-validate a linear probe. Patches are read by giving them flat: scene x (patch dim).

    Raises:
        ValueError: features and labels differ in number, or there are fewer groups than folds.
    """
    _check(len(features), task, folds)
    turned: dict[bytes, ndarray] = {}  # a fold's features are the same for labels and for their control

    def reader(
        train: Int[ndarray, " train"], targets: Int[ndarray, " scene"], seed: int
    ) -> Float[ndarray, "scene word"]:
        key = train.tobytes()
        if key not in turned:
            turned[key] = _rotated(features, train)
        return _linear(turned[key], train, targets, task, seed)

    return _validate(reader, task, folds=folds, seeds=(seed,), probe="linear")


def read_attentively(
    patches: Float[ndarray, "scene patch dim"],
    task: Task,
    *,
    folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    heads: int = 4,
    device: str = "cpu",
) -> Readability:
    """Cross-validate an attentive probe, with each seed in turn for splits, start and stopping.

    Raises:
        ValueError: patches and labels differ in number, or there are fewer groups than folds.
    """
    _check(len(patches), task, folds)
    everything = torch.from_numpy(np.asarray(patches, dtype=np.float32)).to(device)

    def reader(
        train: Int[ndarray, " train"], targets: Int[ndarray, " scene"], seed: int
    ) -> Float[ndarray, "scene word"]:
        return _attentive(everything, train, targets, task, seed, heads)

    return _validate(reader, task, folds=folds, seeds=tuple(seeds), probe="attentive")


def grouped_folds(
    groups: Sequence[Hashable], folds: int, seed: int
) -> Iterator[tuple[Int[ndarray, " train"], Int[ndarray, " test"]]]:
    """Splits that keep groups whole, in which every scene is tested once."""
    known = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    order = np.random.default_rng(seed).permutation(len(known))
    fold = order[[known[group] for group in groups]] % folds
    for number in range(folds):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _check(scenes: int, task: Task, folds: int) -> None:
    if scenes != len(task.labels):
        raise ValueError(f"features of {scenes} scenes, labels of {len(task.labels)}")
    if (count := len(set(task.groups))) < folds:
        raise ValueError(f"{count} groups cannot be split into {folds} folds")


def _validate(
    reader: _Reader,
    task: Task,
    *,
    folds: int,
    seeds: tuple[int, ...],
    probe: Literal["linear", "attentive"],
) -> Readability:
    targets, dealt = task.targets(), deal_labels(task, seeds[0])
    right = np.stack([_right(reader, task, targets, folds, seed) for seed in seeds])
    control = _right(reader, task, dealt, folds, seeds[0])
    return Readability(
        accuracy=_estimate(right, task, seeds[0]),
        shuffled=_estimate(control[None], task, seeds[0]),
        chance=task.chance(),
        probe=probe,
        right=right.mean(axis=0),
        control=control,
    )


def _estimate(right: Float[ndarray, "seed scene"], task: Task, seed: int) -> Estimate:
    return cluster_bootstrap(right.mean(axis=0), task.groups, seed=seed)


def _right(
    reader: _Reader, task: Task, targets: Int[ndarray, " scene"], folds: int, seed: int
) -> Float[ndarray, " scene"]:
    right, allowed = np.zeros(len(targets)), task.allowed()
    for train, test in grouped_folds(task.groups, folds, seed):
        likely = np.where(allowed, reader(train, targets, seed), -np.inf)
        right[test] = likely[test].argmax(axis=1) == targets[test]
    return right


def deal_labels(task: Task, seed: int) -> Int[ndarray, " scene"]:
    """Labels dealt out anew: those of a group go to another group of the same options, in a new order.

    Groups stay as balanced as they were. Dealt out one by one, labels that are rarer in the training scenes would
    be more frequent in the tested ones, and the control would end below chance.
    """
    targets, rng = task.targets(), np.random.default_rng(seed)
    _, kinds = np.unique(task.allowed(), axis=0, return_inverse=True)
    members: dict[Hashable, list[int]] = {}
    for place in np.lexsort((rng.random(len(kinds)), kinds)):
        members.setdefault(task.groups[place], []).append(int(place))
    alike: dict[tuple[int, ...], list[list[int]]] = {}
    for places in members.values():
        alike.setdefault(tuple(kinds[places].tolist()), []).append(places)
    dealt = targets.copy()
    for groups in alike.values():
        for place, source in enumerate(rng.permutation(len(groups))):
            order = np.lexsort((rng.random(len(groups[source])), kinds[groups[source]]))
            dealt[groups[place]] = targets[groups[source]][order]
    return dealt


def _hold_out(
    task: Task, train: Int[ndarray, " train"], seed: int
) -> tuple[Int[ndarray, " fit"], Int[ndarray, " held"]]:
    """A fifth of the training groups, to choose and to stop by."""
    fit, held = next(grouped_folds([task.groups[place] for place in train], 5, seed + 1))
    return train[fit], train[held]


def linear_scores(
    features: Float[ndarray, "scene dim"],
    train: Int[ndarray, " train"],
    targets: Int[ndarray, " scene"],
    task: Task,
    seed: int,
) -> Float[ndarray, "scene word"]:
    """Train the linear probe on some scenes and score each word for all of them: higher is likelier."""
    return _linear(_rotated(features, train), train, targets, task, seed)


def _linear(
    rows: Float32[ndarray, "scene axis"],
    train: Int[ndarray, " train"],
    targets: Int[ndarray, " scene"],
    task: Task,
    seed: int,
) -> Float[ndarray, "scene word"]:
    closed = torch.from_numpy(~task.allowed())
    fit, held = _hold_out(task, train, seed)
    scores = []
    for strength in _STRENGTHS:
        likely = np.where(closed[held], -np.inf, _logistic(rows, fit, targets, closed, strength)[held])
        scores.append((likely.argmax(axis=1) == targets[held]).mean())
    return _logistic(rows, train, targets, closed, _STRENGTHS[int(np.argmax(scores))])


def _rotated(
    features: Float[ndarray, "scene dim"], train: Int[ndarray, " train"]
) -> Float32[ndarray, "scene axis"]:
    """Features standardised on the training scenes, in the axes that those scenes span.

    A penalised linear probe has its weights in that span, and its penalty does not see a rotation: the probe is the
    same as on all dimensions, and its cost is that of the number of scenes.
    """
    seen = np.asarray(features, dtype=np.float64)
    spread = seen[train].std(axis=0)
    rows = (seen - seen[train].mean(axis=0)) / np.where(spread > 1e-8, spread, np.inf)
    if rows.shape[1] > len(train):
        values, axes = np.linalg.eigh(rows[train] @ rows[train].T)
        there = values > values[-1] * 1e-10
        rows = rows @ (rows[train].T @ (axes[:, there] / np.sqrt(values[there])))
    return np.asarray(rows, dtype=np.float32)


def _logistic(
    rows: Float32[ndarray, "scene axis"],
    fit: Int[ndarray, " fit"],
    targets: Int[ndarray, " scene"],
    closed: Bool[Tensor, "scene word"],
    strength: float,
) -> Float32[ndarray, "scene word"]:
    """Fit a softmax over each scene's own options; the penalty is half the squared weights times `strength`.

    The problem is convex; L-BFGS of scipy with the slope written out takes a fifth of the time of torch's.
    """
    shown, shut = rows[fit].astype(np.float64), np.where(closed[fit].numpy(), -1e9, 0.0)
    wanted = np.eye(closed.shape[1])[targets[fit]]
    shape, decay = (rows.shape[1] + 1, closed.shape[1]), strength / len(fit)

    def loss(flat: Float[ndarray, " weight"]) -> tuple[float, Float[ndarray, " weight"]]:
        weights, bias = flat.reshape(shape)[:-1], flat.reshape(shape)[-1]
        logits = shown @ weights
        logits += bias
        logits += shut
        logits -= logits.max(axis=1, keepdims=True)
        likely = np.exp(logits)
        total = likely.sum(axis=1, keepdims=True)
        missed = (likely / total - wanted) / len(fit)
        slope = np.empty(shape)
        slope[:-1], slope[-1] = shown.T @ missed + decay * weights, missed.sum(axis=0)
        surprise = (np.log(total).sum() - np.vdot(logits, wanted)) / len(fit)
        return float(surprise + decay / 2 * np.vdot(weights, weights)), slope.ravel()

    options = {"maxiter": 500, "gtol": 1e-5, "ftol": 1e-8}
    with _pools().limit(limits=1, user_api="blas"):
        found = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options=options)
    weights, bias = found.x.reshape(shape)[:-1], found.x.reshape(shape)[-1]
    return np.asarray(rows @ weights.astype(np.float32) + bias.astype(np.float32))


@cache
def _pools() -> ThreadpoolController:
    """The thread pools of BLAS: on problems as small as these a second thread takes more time than it saves."""
    return ThreadpoolController()


class AttentiveProbe(nn.Module):
    """One learned query over patches, several heads, and a linear layer on what they bring.

    With one query, keys and values need no projections of their own: a head's key projection and the query fold
    into one direction, and its value projection into the linear layer.
    """

    def __init__(self, patches: int, dim: int, words: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(dim, heads) / dim)
        self.places = nn.Parameter(torch.zeros(patches, heads))
        self.read = nn.Linear(heads * dim, words)

    def forward(self, patches: Float[Tensor, "scene patch dim"]) -> Float[Tensor, "scene word"]:
        """The logits of each word."""
        weights = (patches @ self.query + self.places).softmax(dim=1)
        pooled = torch.einsum("npd,nph->nhd", patches, weights)
        read: Tensor = self.read(pooled.flatten(1))
        return read


def _attentive(
    patches: Float32[Tensor, "scene patch dim"],
    train: Int[ndarray, " train"],
    targets: Int[ndarray, " scene"],
    task: Task,
    seed: int,
    heads: int,
) -> Float[ndarray, "scene word"]:
    fit, held = _hold_out(task, train, seed)
    spread, mean = torch.std_mean(patches[fit], dim=(0, 1))
    rows = (patches - mean) / spread.clamp_min(1e-6)
    wanted = torch.from_numpy(targets).to(rows.device)
    closed = torch.from_numpy(~task.allowed()).to(rows.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = AttentiveProbe(rows.shape[1], rows.shape[2], len(task.words), heads).to(rows.device)
    _train_attentive(probe, rows, wanted, closed, fit, held, seed)
    with torch.no_grad():
        return np.asarray(probe(rows).double().cpu().numpy())


def _train_attentive(
    probe: AttentiveProbe,
    rows: Float[Tensor, "scene patch dim"],
    wanted: Int[Tensor, " scene"],
    closed: Bool[Tensor, "scene word"],
    fit: Int[ndarray, " fit"],
    held: Int[ndarray, " held"],
    seed: int,
    *,
    looks: int = 40,
    steps: int = 20,
    patience: int = 10,
    batch_size: int = 128,
) -> None:
    """Train until the held-out loss has not fallen for some looks at it, and go back to where it was lowest.

    There are so many steps between two looks whatever the number of scenes, so that few scenes are no short training.
    """
    optimizer = torch.optim.AdamW(probe.parameters(), lr=5e-3, weight_decay=0.05)
    rng, best, since = np.random.default_rng(seed), float("inf"), 0
    kept = {name: tensor.clone() for name, tensor in probe.state_dict().items()}

    def loss(places: Int[ndarray, " some"]) -> Tensor:
        where = torch.from_numpy(places).to(rows.device)
        logits = probe(rows[where]).masked_fill(closed[where], -1e9)
        return functional.cross_entropy(logits, wanted[where])

    for _ in range(looks):
        for _ in range(steps):
            optimizer.zero_grad()
            loss(rng.choice(fit, min(batch_size, len(fit)), replace=False)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            now = loss(held).item()
        since += 1
        if now < best:
            best, since = now, 0
            kept = {name: tensor.clone() for name, tensor in probe.state_dict().items()}
        if since >= patience:
            break
    probe.load_state_dict(kept)
