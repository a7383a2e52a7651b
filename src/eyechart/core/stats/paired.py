"""Paired comparisons: exact McNemar on pairs, exact tests on runs' differences, and Holm's correction."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from eyechart.core.stats._arrays import Count, FloatArray, Values, booleans, count, numbers, share
from eyechart.core.stats.rates import level_note, wilson

_MOST_ENUMERATED = 20  # 2 ** 20 sums of signed differences, 8 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """Two models graded on the same units (pairs): what the second gained over the first.

    `difference` is the second's share of hits minus the first's, with its interval.
    """

    n: int
    fixes: int
    """Units the first missed and the second hit."""

    regressions: int
    """Units the first hit and the second missed."""

    difference: float
    low: float
    high: float
    level: float
    p_value: float

    def __str__(self) -> str:
        return (
            f"{100 * self.difference:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}], "
            f"{self.fixes} fixes, {self.regressions} regressions, n={self.n}, p={self.p_value:.2g}"
        ) + level_note(self.level)

    def to_dict(self) -> dict[str, float | int]:
        """The fields as plain numbers, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsTest:
    """A test on one difference for each training run; `value` is the mean difference."""

    value: float
    p_value: float
    n: int
    method: str
    seed: int | None

    def __str__(self) -> str:
        return f"{self.value:+.3g}, n={self.n} runs, p={self.p_value:.2g} ({self.method})"

    def to_dict(self) -> dict[str, float | int | str | None]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)


def mcnemar_exact(first: Values, second: Values, *, level: float = 0.95) -> PairedTest:
    """Whether the second of two fixed models hits other shares of the same units than the first.

    The test is McNemar's in its exact two-sided form: given the units on which the two differ, fixes are
    Binomial(fixes + regressions, 1/2) if neither is better. The interval is Newcombe's square-and-add of
    two Wilson intervals; it is not the test turned round, so near the edge one may leave out 0 while
    the other does not reject. The p-value decides, the interval says how much.

    Sources: Q. McNemar, Psychometrika 12 (1947) 153-157; R. G. Newcombe, Improved confidence intervals
    for the difference between binomial proportions based on paired data, Statistics in Medicine 17 (1998)
    2635-2650, method 10, among those recommended by M. W. Fagerland, S. Lydersen and P. Laake, Statistics
    in Medicine 33 (2014) 2850-2875. The exact test keeps its size always and is conservative for it.

    Args:
        first: hit or not for each unit; true and false, or 1 and 0.
        second: the same units in the same order.
        level: confidence of the interval.

    Raises:
        ValueError: the lengths differ, there is no unit, or a value is neither true nor false.
    """
    before, after = booleans(first, "first"), booleans(second, "second")
    if len(before) != len(after):
        raise ValueError(f"both must hold the same units, got {len(before)} and {len(after)}")
    fixes, regressions = int(np.sum(~before & after)), int(np.sum(before & ~after))
    both, n = int(np.sum(before & after)), len(before)
    low, high = _newcombe(both, fixes, regressions, n, share(level, "level"))
    return PairedTest(
        n=n, fixes=fixes, regressions=regressions, difference=(fixes - regressions) / n, low=low, high=high,
        level=level, p_value=exact_p(fixes, regressions),
    )  # fmt: skip


def exact_p(fixes: Count, regressions: Count) -> float:
    """The two-sided p-value of McNemar's exact test; 1 when nothing differs.

    >>> exact_p(6, 0)
    0.03125

    Raises:
        ValueError: a count is negative.
    """
    fixes, regressions = count(fixes, "fixes"), count(regressions, "regressions")
    fewer, differing = min(fixes, regressions), fixes + regressions
    return min(1.0, 2 * float(bdtr(fewer, differing, 0.5))) if differing else 1.0


def _newcombe(both: int, fixes: int, regressions: int, n: int, level: float) -> tuple[float, float]:
    """Newcombe's method 10 for the second's rate minus the first's."""
    first = wilson(both + regressions, n, level=level)
    second = wilson(both + fixes, n, level=level)
    phi = _phi(both, fixes, regressions, n - both - fixes - regressions)

    def reach(up: float, down: float) -> float:
        return math.sqrt(max(0.0, up**2 + down**2 - 2 * phi * up * down))

    difference = (fixes - regressions) / n
    low = difference - reach(second.value - second.low, first.high - first.value)
    high = difference + reach(second.high - second.value, first.value - first.low)
    return max(-1.0, low), min(1.0, high)


def _phi(both: int, fixes: int, regressions: int, neither: int) -> float:
    """The correlation of the two gradings, drawn towards 0 by n / 2 where it is positive."""
    n = both + fixes + regressions + neither
    margins = (both + fixes) * (both + regressions) * (neither + fixes) * (neither + regressions)
    if margins == 0:
        return 0.0
    product = both * neither - fixes * regressions
    if product > 0:
        return max(0.0, product - n / 2) / math.sqrt(margins)
    return product / math.sqrt(margins)


def sign_test(differences: Values) -> RunsTest:
    """The exact two-sided sign test: whether runs go up and down equally often; zeros are left out.

    Six runs that all go one way give p = 1/32; five cannot go below 1/16.

    Source: W. J. Dixon and A. M. Mood, The statistical sign test, JASA 41 (1946) 557-566.

    Raises:
        ValueError: there is no difference, or one is not finite.
    """
    array = numbers(differences, "differences")
    return RunsTest(
        value=float(array.mean()), p_value=exact_p(int(np.sum(array > 0)), int(np.sum(array < 0))),
        n=len(array), method="exact sign test", seed=None,
    )  # fmt: skip


def sign_flip_test(differences: Values, *, resamples: int = 100_000, seed: int | None = None) -> RunsTest:
    """Whether the mean difference of paired runs is far from 0, by flipping signs.

    If the two ways of training do not differ, each run's difference is as likely with either sign. The
    p-value is the share of sign patterns whose mean lies at least as far from 0 as the one seen. Up to 20
    runs all patterns are gone through; above that `resamples` patterns are drawn and p = (k + 1) / (m + 1).

    Sources: R. A. Fisher, The Design of Experiments (1935), section 21; B. Phipson and G. K. Smyth,
    Permutation p-values should never be zero, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39.

    Args:
        differences: second minus first for each run.
        resamples: patterns drawn when there are too many to go through.
        seed: of the random generator, needed above 20 runs.

    Raises:
        ValueError: there is no difference, one is not finite, or a needed seed is missing.
    """
    array = numbers(differences, "differences")
    exact = len(array) <= _MOST_ENUMERATED
    sums = _all_flips(array) if exact else _some_flips(array, resamples, seed)
    reached = int(np.sum(np.abs(sums) >= abs(array.sum()) - 1e-12 * np.abs(array).sum()))
    p_value = reached / len(sums) if exact else (reached + 1) / (len(sums) + 1)
    method = "exact sign-flip test" if exact else f"sign-flip test, {resamples} patterns"
    return RunsTest(
        value=float(array.mean()), p_value=p_value, n=len(array), method=method, seed=None if exact else seed
    )


def _all_flips(array: FloatArray) -> FloatArray:
    sums = np.zeros(1)
    for value in array:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _some_flips(array: FloatArray, resamples: int, seed: int | None) -> FloatArray:
    if seed is None:
        raise ValueError(
            f"{len(array)} runs have too many sign patterns to go through; give seed=... to draw"
        )
    rng = np.random.default_rng(seed)
    sums = np.zeros(count(resamples, "resamples", least=100))
    for value in array:
        sums += np.where(rng.random(len(sums)) < 0.5, value, -value)
    return sums


def holm(p_values: Sequence[float] | npt.NDArray[np.floating]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given: reject where one is at most the error rate wanted.

    The chance of any false rejection among all tests then stays below that rate, whatever their
    dependence.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979)
    65-70.

    Raises:
        ValueError: there is no p-value, one is NaN, or one lies outside 0..1.
    """
    given = numbers(p_values, "p_values")
    outside = given[(given < 0) | (given > 1)]
    if len(outside):
        raise ValueError(f"a p-value lies between 0 and 1, got {outside[0]}")
    order = np.argsort(given, kind="stable")
    steps = given[order] * np.arange(len(given), 0, -1)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return tuple(adjusted.tolist())
