"""Do a VLM's patterns follow its encoder's? Correlations over patterns, with all that makes them uncertain.

With nine patterns of a dozen pairs each, three things are uncertain: which patterns there are (Fisher's and the
permutation test take patterns as drawn), how many pairs of each came out right (pairs are drawn again within patterns),
and how far the second has pulled the correlation towards zero (attenuation: Spearman, The proof and measurement of
association between two things, American Journal of Psychology 15 (1904) 72-101). Where both were asked on the same pairs,
single pairs are compared, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.core.stats import Correlation, Rate, pearson, spearman
from eyechart.score.pairwise import SamePairs, drawn_table, same_pairs
from eyechart.score.series import Series, series_of_counts

LEAST = 4
"""Patterns that both must have: with fewer there is no interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One pattern in both series."""

    pattern: str
    encoder: Rate
    model: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What drawing pairs again within patterns does to a correlation."""

    low: float
    high: float
    median: float
    defined: float
    """The share of draws that have a correlation."""

    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attenuation:
    """How much of the spread between patterns is only noise of the pairs, and Pearson's correlation without it."""

    reliability_encoder: float | None
    """1 less the mean sampling variance within patterns over the variance between them; None if that is not above 0."""

    reliability_model: float | None
    corrected: float | None
    """None where a reliability is None. A value beyond 1 or -1 says that the correction is itself uncertain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlated:
    """Two series over the patterns that both have."""

    encoder: str
    model: str
    points: tuple[Point, ...]
    """In the order of the encoder's patterns."""

    left_out: tuple[str, ...]
    """Patterns of one series only."""

    pearson: Correlation
    spearman: Correlation
    pearson_noise: Noise
    """Pearson's, pairs drawn again, the patterns as they are."""

    spearman_noise: Noise
    pearson_both: Noise
    """Pearson's, patterns drawn again and then their pairs."""

    attenuation: Attenuation
    same_pairs: SamePairs | None
    """None where the two were not asked on the same pairs."""

    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        plain = asdict(self) | {"pearson": self.pearson.to_dict(), "spearman": self.spearman.to_dict()}
        plain["points"] = [asdict(point) for point in self.points]
        return plain | {"left_out": list(self.left_out), "notes": list(self.notes)}


def correlate(
    encoder: Series | Mapping[str, tuple[int, int]],
    model: Series | Mapping[str, tuple[int, int]],
    *,
    names: tuple[str, str] = ("encoder", "model"),
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Correlated:
    """Correlate an encoder's pairs right by pattern with a model's.

    Args:
        encoder: a series, or `{pattern: (hits, n)}`.
        model: the same of the VLM.
        names: of the two, where they are given as counts.
        level: confidence of all intervals.
        resamples: how many times pairs are drawn again.
        seed: of all drawing.

    Raises:
        UserError: fewer than four patterns in common, or one of the two has the same share in all of them.
    """
    x, y = _series(names[0], encoder), _series(names[1], model)
    common = [pattern for pattern in x.patterns if pattern in y.patterns]
    _check(x, y, common)
    points = tuple(Point(pattern=name, encoder=x.rate(name), model=y.rate(name)) for name in common)
    shared = [key for key in x.pairs if key in y.pairs and x.pairs[key].pattern in common]
    cells = _tables(x, y, common, shared)
    rng = np.random.default_rng(seed)
    draws = [cells.draws(resamples, rng), cells.draws(resamples, rng, patterns=True)]
    values = [[point.encoder.value for point in points], [point.model.value for point in points]]
    return Correlated(
        encoder=x.name,
        model=y.name,
        points=points,
        left_out=tuple(sorted(x.patterns.keys() ^ y.patterns.keys())),
        pearson=pearson(*values, level=level, seed=seed),
        spearman=spearman(*values, level=level, seed=seed),
        pearson_noise=_noise(*draws[0], "pearson", level, _WITHIN),
        spearman_noise=_noise(*draws[0], "spearman", level, _WITHIN),
        pearson_both=_noise(*draws[1], "pearson", level, f"patterns drawn again, and {_WITHIN}"),
        attenuation=cells.attenuation(),
        same_pairs=_same(x, y, shared, level, seed),
        notes=tuple(_notes(points, shared, cells.n)),
    )


_WITHIN = "pairs drawn again within patterns, percentile; draws are noisier than the data and lean towards 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cells:
    """By pattern: pairs that both were asked on, by what became of them, and pairs that only one was asked on."""

    joint: Sequence[tuple[ndarray, ndarray]]
    """Whether the encoder and the model are right on the shared pairs."""

    alone: Sequence[tuple[tuple[int, int], tuple[int, int]]]
    """Hits and n of the other pairs, of each."""

    @property
    def n(self) -> list[tuple[int, int]]:
        return [
            (len(both[0]) + own[0][1], len(both[0]) + own[1][1])
            for both, own in zip(self.joint, self.alone, strict=True)
        ]

    def draws(
        self, resamples: int, rng: np.random.Generator, *, patterns: bool = False
    ) -> tuple[Float[ndarray, "draw pattern"], Float[ndarray, "draw pattern"]]:
        """The two series with pairs drawn again; with `patterns`, these are drawn again, too."""
        chosen = np.arange(len(self.joint))[None].repeat(resamples, axis=0)
        if patterns:
            chosen = rng.integers(len(self.joint), size=chosen.shape)
        x, y = np.empty(chosen.shape), np.empty(chosen.shape)
        for number, ((a, b), (own_a, own_b)) in enumerate(zip(self.joint, self.alone, strict=True)):
            where = chosen == number
            times = int(where.sum())
            table = drawn_table(a, b, times, rng) if len(a) else np.zeros((times, 4))
            more_a, more_b = (rng.binomial(n, hits / n, times) if n else 0 for hits, n in (own_a, own_b))
            x[where] = (table[:, 0] + table[:, 1] + more_a) / (len(a) + own_a[1])
            y[where] = (table[:, 0] + table[:, 2] + more_b) / (len(b) + own_b[1])
        return x, y

    def attenuation(self) -> Attenuation:
        """Reliabilities from unbiased sampling variances, and the correlation corrected for both.

        Where pairs are shared, what they do to both series is taken off the covariance, too.
        """
        values, noise = [], []
        for (a, b), (own_a, own_b) in zip(self.joint, self.alone, strict=True):
            n = (len(a) + own_a[1], len(b) + own_b[1])
            p = ((int(a.sum()) + own_a[0]) / n[0], (int(b.sum()) + own_b[0]) / n[1])
            shared = 0.0
            if len(a) > 1:
                shared = float(np.cov(a, b)[0, 1]) * len(a) / (n[0] * n[1])
            values.append(p)
            noise.append([*(q * (1 - q) / max(m - 1, 1) for q, m in zip(p, n, strict=True)), shared])
        spread = np.cov(np.array(values).T)
        mean = np.mean(noise, axis=0)
        true = [spread[0, 0] - mean[0], spread[1, 1] - mean[1]]
        reliable = [
            float(one / spread[i, i]) if one > 0 and spread[i, i] > 0 else None for i, one in enumerate(true)
        ]
        corrected = None
        if None not in reliable:
            corrected = float((spread[0, 1] - mean[2]) / np.sqrt(true[0] * true[1]))
        return Attenuation(
            reliability_encoder=reliable[0], reliability_model=reliable[1], corrected=corrected
        )


def _series(name: str, given: Series | Mapping[str, tuple[int, int]]) -> Series:
    return given if isinstance(given, Series) else series_of_counts(name, given)


def _check(x: Series, y: Series, common: Sequence[str]) -> None:
    if len(common) < LEAST:
        raise UserError(
            f"{x.name} and {y.name} have {len(common)} patterns in common ({', '.join(common) or 'none'}), and a"
            f" correlation needs {LEAST}; they have {', '.join(x.patterns)} and {', '.join(y.patterns)}"
        )
    for one in (x, y):
        shares = {one.rate(pattern).value for pattern in common}
        if len(shares) == 1:
            raise UserError(
                f"{one.name} has {shares.pop():.1%} in all {len(common)} patterns, so nothing can go with it: there is"
                " no correlation"
            )


def _tables(x: Series, y: Series, common: Sequence[str], shared: Sequence[tuple[str, ...]]) -> _Cells:
    joint, alone = [], []
    for pattern in common:
        keys = [key for key in shared if x.pairs[key].pattern == pattern and y.pairs[key].pattern == pattern]
        a, b = (np.array([one.pairs[key].right for key in keys], dtype=bool) for one in (x, y))
        joint.append((a, b))
        rest = [
            (one.patterns[pattern][0] - int(hits.sum()), one.patterns[pattern][1] - len(hits))
            for one, hits in ((x, a), (y, b))
        ]
        alone.append((rest[0], rest[1]))
    return _Cells(joint=joint, alone=alone)


def _same(
    x: Series, y: Series, shared: Sequence[tuple[str, ...]], level: float, seed: int
) -> SamePairs | None:
    if not shared:
        return None
    return same_pairs(
        [x.pairs[key].right for key in shared],
        [y.pairs[key].right for key in shared],
        [x.pairs[key].pattern for key in shared],
        level=level,
        seed=seed,
    )


def correlations(
    x: Float[ndarray, "draw point"], y: Float[ndarray, "draw point"], kind: Literal["pearson", "spearman"]
) -> Float[ndarray, " draw"]:
    """The correlation of each row, NaN where one side is constant."""
    if kind == "spearman":
        x, y = _ranks(x), _ranks(y)
    dx, dy = (one - one.mean(axis=1, keepdims=True) for one in (x, y))
    apart = np.sqrt((dx**2).sum(axis=1) * (dy**2).sum(axis=1))
    there = apart > 1e-12
    return np.where(there, (dx * dy).sum(axis=1) / np.where(there, apart, 1.0), np.nan)


def _ranks(rows: Float[ndarray, "draw point"]) -> Float[ndarray, "draw point"]:
    """Mid-ranks: how many are below, and half of those that are level."""
    below = (rows[:, :, None] > rows[:, None]).sum(axis=2)
    level = (rows[:, :, None] == rows[:, None]).sum(axis=2)
    return np.asarray(below + (level - 1) / 2, dtype=float)


def _noise(
    x: Float[ndarray, "draw pattern"],
    y: Float[ndarray, "draw pattern"],
    kind: Literal["pearson", "spearman"],
    level: float,
    method: str,
) -> Noise:
    found = correlations(x, y, kind)
    known = found[~np.isnan(found)]
    low, median, high = np.quantile(known, [(1 - level) / 2, 0.5, (1 + level) / 2])
    return Noise(
        low=float(low), high=float(high), median=float(median), defined=len(known) / len(found), method=method
    )


def _notes(
    points: Sequence[Point], shared: Sequence[tuple[str, ...]], n: Sequence[tuple[int, int]]
) -> Sequence[str]:
    notes = []
    encoder, model = (sum(each[side] for each in n) for side in (0, 1))
    if not shared:
        notes.append("the two were not scored on the same pairs, so nothing is said of single pairs")
    elif len(shared) < max(encoder, model):
        notes.append(f"{len(shared)} pairs are in both, of {encoder} and {model}")
    few = [p.pattern for p, each in zip(points, n, strict=True) if min(each) < 10]
    if few:
        notes.append(f"fewer than 10 pairs of a series in: {', '.join(few)}")
    return notes
