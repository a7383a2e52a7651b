"""Pearson's and Spearman's correlation with interval, permutation test and leave-one-out values."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from eyechart.core.stats._arrays import FloatArray, Values, chunks, count, numbers, one_of, same, share
from eyechart.core.stats.rates import level_note, z_of

Kind: TypeAlias = Literal["pearson", "spearman"]

_MOST_ENUMERATED = 9  # 9! = 362,880 orders
_MOST_LEFT_OUT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """A correlation over `n` points with its interval and its permutation p-value."""

    value: float
    low: float
    high: float
    p_value: float
    n: int
    level: float
    kind: Kind
    interval: str
    """How the interval was made."""

    test: str
    """How the p-value was made."""

    leave_one_out: tuple[float | None, ...]
    """The correlation without each point in turn, in the order given (for up to 100 points, else empty).

    None where the points left are constant, so that there is no correlation.
    """

    seed: int | None
    """None where nothing was drawn."""

    def __str__(self) -> str:
        sign = "r" if self.kind == "pearson" else "rho"
        return (
            f"{sign}={self.value:.2f} [{self.low:.2f}, {self.high:.2f}], n={self.n}, p={self.p_value:.2g}"
        ) + level_note(self.level)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self) | {"leave_one_out": list(self.leave_one_out)}


def pearson(
    x: Values,
    y: Values,
    *,
    level: float = 0.95,
    interval: Literal["fisher", "bootstrap"] = "fisher",
    resamples: int = 10_000,
    seed: int | None = None,
) -> Correlation:
    """Pearson's correlation of two lists of numbers about the same points (patterns, models).

    The interval is Fisher's: atanh(r) is close to normal with standard error 1 / sqrt(n - 3), which is
    exact enough for bivariate normal points; at r = 1 or -1 it has no width. `bootstrap` draws points again
    (percentile) and is too narrow for few points. The p-value is two-sided, from permuting y: the share of
    orders whose |r| is at least the one seen. Up to 9 points all orders are gone through; above that
    `resamples` orders are drawn and p = (k + 1) / (m + 1).

    Sources: R. A. Fisher, On the "probable error" of a coefficient of correlation, Metron 1 (1921) 3-32;
    E. J. G. Pitman, Significance tests which may be applied to samples from any populations II, Suppl. J.
    R. Stat. Soc. 4 (1937) 225-232; B. Phipson and G. K. Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39.

    Args:
        x: one number for each point.
        y: one number for each point, in the same order.
        level: confidence of the interval.
        interval: `fisher` or `bootstrap`.
        resamples: orders (above 9 points) and bootstrap resamples drawn.
        seed: of the random generator, needed where anything is drawn.

    Raises:
        ValueError: the lengths differ, there are fewer than four points, x or y is constant, or a needed
            seed is missing.
    """
    one_of(interval, "interval", ("fisher", "bootstrap"))
    return _correlate(x, y, "pearson", interval, level=level, resamples=resamples, seed=seed)


def spearman(
    x: Values,
    y: Values,
    *,
    level: float = 0.95,
    interval: Literal["bonett-wright", "bootstrap"] = "bonett-wright",
    resamples: int = 10_000,
    seed: int | None = None,
) -> Correlation:
    """Spearman's rank correlation: Pearson's over mid-ranks, with the test of `pearson` on the ranks.

    The interval is Fisher's transformation with the standard error sqrt((1 + rho^2 / 2) / (n - 3)). As the
    ranks of few points often agree in full when the true correlation is below 1, an estimate within half
    a step of 1 (a step between untied values is 12 / (n^3 - n)) is moved to half a step from it before
    transforming; the limit on that side is then 1 where the estimate is. That half step is this
    package's own choice, of the kind of a continuity correction.

    Source: D. G. Bonett and T. A. Wright, Sample size requirements for estimating Pearson, Kendall and
    Spearman correlations, Psychometrika 65 (2000) 23-28.

    Args:
        x: one number for each point.
        y: one number for each point, in the same order.
        level: confidence of the interval.
        interval: `bonett-wright` or `bootstrap`.
        resamples: orders (above 9 points) and bootstrap resamples drawn.
        seed: of the random generator, needed where anything is drawn.

    Raises:
        ValueError: as `pearson`.
    """
    one_of(interval, "interval", ("bonett-wright", "bootstrap"))
    return _correlate(x, y, "spearman", interval, level=level, resamples=resamples, seed=seed)


def _correlate(
    x: Values, y: Values, kind: Kind, interval: str, *, level: float, resamples: int, seed: int | None
) -> Correlation:
    points = _Points.of(x, y)
    level, resamples = share(level, "level"), count(resamples, "resamples", least=100)
    value = float(points.correlations(np.ones((1, points.n)), kind)[0])
    drawn = interval == "bootstrap" or points.n > _MOST_ENUMERATED
    if drawn and seed is None:
        raise ValueError(f"a {interval} interval and a test over {points.n} points need draws: give seed=...")
    rng = np.random.default_rng(seed)
    low, high = (
        _bootstrap(points, kind, level, resamples, rng)
        if interval == "bootstrap"
        else _by_fisher(value, points.n, kind, level)
    )
    p_value, test = _permutation_test(points, kind, resamples, rng)
    return Correlation(
        value=value, low=low, high=high, p_value=p_value, n=points.n, level=level, kind=kind,
        interval=interval, test=test, leave_one_out=_leave_one_out(points, kind), seed=seed if drawn else None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Ordered:
    """One list of numbers with its order and its ties, so that resamples are ranked without sorting."""

    values: FloatArray
    order: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    """Where each run of equal values starts in that order."""

    group: npt.NDArray[np.intp]
    """The run that each value belongs to."""

    @classmethod
    def of(cls, values: FloatArray) -> "_Ordered":
        distinct, group = np.unique(values, return_inverse=True)
        order = np.argsort(values, kind="stable")
        return cls(values, order, np.searchsorted(values[order], distinct), group)

    def in_groups(self, times: FloatArray) -> FloatArray:
        """How many draws each run of equal values got: resamples x distinct values."""
        return np.asarray(np.add.reduceat(times[:, self.order], self.starts, axis=1), dtype=np.float64)

    def constant(self, times: FloatArray) -> npt.NDArray[np.bool]:
        return np.asarray((self.in_groups(times) > 0).sum(axis=1) < 2)

    def ranks(self, times: FloatArray) -> FloatArray:
        """The mid-rank of each value in each resample: resamples x values."""
        drawn = self.in_groups(times)
        middle = drawn.cumsum(axis=1) - (drawn - 1) / 2
        return np.asarray(middle[:, self.group], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Points:
    x: _Ordered
    y: _Ordered
    n: int

    @classmethod
    def of(cls, x: Values, y: Values) -> "_Points":
        first, second = numbers(x, "x"), numbers(y, "y")
        if len(first) != len(second):
            raise ValueError(f"x and y must be about the same points, got {len(first)} and {len(second)}")
        if len(first) < 4:
            raise ValueError(f"a correlation with an interval needs at least 4 points, got {len(first)}")
        for name, array in (("x", first), ("y", second)):
            if same(array):
                raise ValueError(
                    f"{name} is {array[0]:.6g} at all {len(array)} points: no correlation exists"
                )
        return cls(_Ordered.of(first), _Ordered.of(second), len(first))

    def correlations(self, times: FloatArray, kind: Kind) -> FloatArray:
        """The correlation of each resample (NaN where x or y is constant); `times` counts its draws."""
        x, y = (
            (self.x.ranks(times), self.y.ranks(times))
            if kind == "spearman"
            else (self.x.values[None], self.y.values[None])
        )
        total = times.sum(axis=1, keepdims=True)
        dx = x - (times * x).sum(axis=1, keepdims=True) / total
        dy = y - (times * y).sum(axis=1, keepdims=True) / total
        together = (times * dx * dy).sum(axis=1)
        apart = np.sqrt((times * dx**2).sum(axis=1)) * np.sqrt((times * dy**2).sum(axis=1))
        none = self.x.constant(times) | self.y.constant(times) | (apart == 0)
        found = together / np.where(none, 1.0, apart)
        found = np.where(np.abs(found) > 1 - 1e-14, np.sign(found), found)  # 0.9999999999999998 is 1
        return np.where(none, np.nan, found)


def _by_fisher(value: float, n: int, kind: Kind, level: float) -> tuple[float, float]:
    """The limits on Fisher's scale, with the standard error that belongs to the kind."""
    most = 1.0 if kind == "pearson" else 1 - 6 / (n**3 - n)
    moved = min(max(value, -most), most)
    if abs(moved) == 1:
        return value, value
    room = 1 + (moved**2 / 2 if kind == "spearman" else 0)
    half = z_of(level) * math.sqrt(room / (n - 3))
    low, high = math.tanh(math.atanh(moved) - half), math.tanh(math.atanh(moved) + half)
    return (-1.0 if value == -1 else min(low, value)), (1.0 if value == 1 else max(high, value))


def _bootstrap(
    points: _Points, kind: Kind, level: float, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Percentile limits over points drawn again; resamples without a correlation are left out."""
    shares = np.full(points.n, 1 / points.n)
    draws = np.concatenate(
        [
            points.correlations(rng.multinomial(points.n, shares, size=rows).astype(np.float64), kind)
            for rows in chunks(resamples, points.n)
        ]
    )
    defined = draws[~np.isnan(draws)]
    if 2 * len(defined) < resamples:
        raise ValueError(
            f"only {len(defined)} of {resamples} resamples of {points.n} points have a correlation"
        )
    if same(defined):
        raise ValueError(
            f"every resample has correlation {defined[0]:.6g}: a bootstrap gives no interval here"
        )
    low, high = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _permutation_test(
    points: _Points, kind: Kind, resamples: int, rng: np.random.Generator
) -> tuple[float, str]:
    """The two-sided p-value and how it was made.

    Permuting leaves means and spreads as they are, so |r| is compared through the sum of products.
    """
    every = np.ones((1, points.n))
    x, y = ((side.ranks(every)[0] if kind == "spearman" else side.values) for side in (points.x, points.y))
    x, y = (x - x.mean()) / np.abs(x - x.mean()).max(), (y - y.mean()) / np.abs(y - y.mean()).max()
    seen = abs(float(x @ y)) - 1e-12 * points.n
    exact = points.n <= _MOST_ENUMERATED
    orders = iter([_all_orders(points.n)]) if exact else _some_orders(points.n, resamples, rng)
    reached = tried = 0
    for block in orders:
        products = sum(x[place] * y[block[:, place]] for place in range(points.n))
        reached, tried = reached + int(np.sum(np.abs(products) >= seen)), tried + len(block)
    if exact:
        return reached / tried, f"exact permutation test, {tried} orders"
    return (reached + 1) / (tried + 1), f"permutation test, {tried} orders drawn"


def _all_orders(n: int) -> npt.NDArray[np.intp]:
    """All orders of 0 .. n - 1: n! x n, built by putting each new number in every place."""
    orders = np.zeros((1, 1), dtype=np.intp)
    for new in range(1, n):
        orders = np.concatenate([np.insert(orders, place, new, axis=1) for place in range(new + 1)])
    return orders


def _some_orders(n: int, orders: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.intp]]:
    for rows in chunks(orders, n):
        yield rng.permuted(np.tile(np.arange(n, dtype=np.intp), (rows, 1)), axis=1)


def _leave_one_out(points: _Points, kind: Kind) -> tuple[float | None, ...]:
    if points.n > _MOST_LEFT_OUT:
        return ()
    values = points.correlations(1.0 - np.eye(points.n), kind)
    return tuple(None if math.isnan(value) else value for value in values.tolist())
