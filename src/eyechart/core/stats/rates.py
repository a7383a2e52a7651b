"""Shares with their Wilson intervals, and the percentile of a value in a sample."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from scipy.special import ndtri

from eyechart.core.stats._arrays import Count, FloatArray, Values, count, numbers, share


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share of hits with its interval; `n` counts what was scored, `level` is the interval's confidence.

    >>> str(Rate(value=0.2, low=0.144, high=0.271, hits=30, n=150, level=0.95))
    '20.0% [14.4%, 27.1%], n=150'
    """

    value: float
    low: float
    high: float
    hits: int
    n: int
    level: float

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}], n={self.n}" + level_note(self.level)

    def to_dict(self) -> dict[str, float | int]:
        """The fields as plain numbers, ready for JSON."""
        return asdict(self)


def level_note(level: float) -> str:
    """What a printed interval adds when it is not the usual 95 % one."""
    return "" if level == 0.95 else f" ({level:.12g} interval)"


def wilson(hits: Count, n: Count, *, level: float = 0.95) -> Rate:
    """The share of `hits` among `n` independent units with Wilson's score interval.

    The interval holds every rate that a score test of size 1 - `level` does not reject. It never leaves
    0..1 and has a width at 0 of n and n of n, where its outer end is exactly 0 or 1. Units must be
    independent: pairs, not the two items of a pair (for those see `cluster_rate`).

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22
    (1927) 209-212; recommended for small n by L. D. Brown, T. T. Cai and A. DasGupta, Interval estimation
    for a binomial proportion, Statistical Science 16 (2001) 101-133.

    Raises:
        ValueError: n is 0, hits lies outside 0..n, or the level outside 0..1.
    """
    hits, n, level = count(hits, "hits"), count(n, "n"), share(level, "level")
    if n == 0:
        raise ValueError("nothing was scored (n=0), so there is no rate; was every item left out?")
    if hits > n:
        raise ValueError(f"there cannot be more hits than scored: {hits} of {n}")
    z2 = z_of(level) ** 2
    middle = (hits + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (hits * (n - hits) / n + z2 / 4)) / (n + z2)
    low = 0.0 if hits == 0 else middle - half
    high = 1.0 if hits == n else middle + half
    return Rate(value=hits / n, low=low, high=high, hits=hits, n=n, level=level)


def z_of(level: float) -> float:
    """The standard normal quantile that leaves (1 - level) / 2 above it."""
    return float(ndtri(0.5 + level / 2))


def percentile_of(sample: Values, values: Values) -> FloatArray:
    """The mid-rank percentile of each of `values` in `sample`, in 0..100.

    This is the share of `sample` below the value plus half the share equal to it, times 100: a value in
    the middle of the sample is at 50, and a sample of one repeated number puts that number at 50.

    Args:
        sample: the numbers to rank among, one axis.
        values: the numbers to place, one axis; they need not be in the sample.

    Raises:
        ValueError: either is empty or holds a value that is not finite.
    """
    ordered, placed = np.sort(numbers(sample, "sample")), numbers(values, "values")
    below = np.searchsorted(ordered, placed, side="left")
    up_to = np.searchsorted(ordered, placed, side="right")
    return np.asarray(50.0 * (below + up_to) / len(ordered), dtype=np.float64)
