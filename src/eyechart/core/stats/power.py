"""What a benchmark of a given size can show: smallest significant gains and detectable differences."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import bdtr, bdtrc, gammaln, xlog1py, xlogy

from eyechart.core.stats._arrays import Count, FloatArray, count, share
from eyechart.core.stats.paired import exact_p


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallestGain:
    """The fewest fixes that are significant beside a number of regressions; `difference` is of rates."""

    n: int
    fixes: int
    regressions: int
    difference: float
    p_value: float
    alpha: float

    def __str__(self) -> str:
        return (
            f"{self.fixes} fixes against {self.regressions} regressions, {100 * self.difference:+.1f} points, "
            f"n={self.n}, p={self.p_value:.2g}"
        )

    def to_dict(self) -> dict[str, float | int]:
        """The fields as plain numbers, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectable:
    """The smallest true difference of two rates that exact McNemar finds with the power asked for."""

    difference: float
    n: int
    discordant: float
    power: float
    alpha: float

    def __str__(self) -> str:
        return (
            f"{100 * self.difference:.1f} points, n={self.n}, {self.discordant:.1%} of pairs discordant, "
            f"power {self.power:.2g} at alpha {self.alpha:.2g}"
        )

    def to_dict(self) -> dict[str, float | int]:
        """The fields as plain numbers, ready for JSON."""
        return asdict(self)


def smallest_significant_gain(
    n: Count, *, regressions: Count = 0, alpha: float = 0.05
) -> SmallestGain | None:
    """The fewest fixes for which exact McNemar gives p <= alpha, or None if n pairs cannot hold them.

    >>> print(smallest_significant_gain(150))
    6 fixes against 0 regressions, +4.0 points, n=150, p=0.031

    Args:
        n: pairs both models answered.
        regressions: pairs the first model had right and the second has wrong.
        alpha: size of the two-sided test.

    Raises:
        ValueError: n is 0, there are more regressions than pairs, or alpha lies outside 0..1.
    """
    n, regressions, alpha = count(n, "n", least=1), count(regressions, "regressions"), share(alpha, "alpha")
    if regressions > n:
        raise ValueError(f"there cannot be more regressions than pairs: {regressions} of {n}")
    for fixes in range(regressions + 1, n - regressions + 1):
        p_value = exact_p(fixes, regressions)
        if p_value <= alpha:
            return SmallestGain(
                n=n, fixes=fixes, regressions=regressions, difference=(fixes - regressions) / n,
                p_value=p_value, alpha=alpha,
            )  # fmt: skip
    return None


def minimal_detectable_difference(
    n: Count, *, discordant: float, power: float = 0.8, alpha: float = 0.05
) -> Detectable | None:
    """The smallest true difference of two models' rates that exact McNemar finds with this power.

    The power is computed exactly, over the binomial number of discordant pairs and of fixes among
    them; it grows with the difference, so the smallest one is found as a root. The share of discordant
    pairs has no default: it is the assumption everything hangs on. It is at most the sum of both error
    rates, and in comparisons of like models often 0.1 to 0.3. None when even a difference as large as
    that share (all discordant pairs are fixes) is found too rarely.

    Source: the power of the conditional test, O. S. Miettinen, The matched pairs design in the case of
    all-or-none responses, Biometrics 24 (1968) 339-352, here without his normal approximation.

    Args:
        n: pairs both models answer.
        discordant: expected share of pairs that one has right and the other wrong.
        power: chance of p <= alpha that is asked for.
        alpha: size of the two-sided test.

    Raises:
        ValueError: n is 0 or a share lies outside 0..1.
    """
    n, power = count(n, "n", least=1), share(power, "power")
    discordant, alpha = share(discordant, "discordant"), share(alpha, "alpha")

    def gap(difference: float) -> float:
        return mcnemar_power(n, discordant=discordant, difference=difference, alpha=alpha) - power

    if gap(discordant) < 0:
        return None
    found = 0.0 if gap(0.0) >= 0 else float(brentq(gap, 0.0, discordant, xtol=1e-12))
    return Detectable(difference=found, n=n, discordant=discordant, power=power, alpha=alpha)


def mcnemar_power(n: Count, *, discordant: float, difference: float, alpha: float = 0.05) -> float:
    """The chance that exact McNemar gives p <= alpha on n pairs, whichever model it favours.

    Args:
        n: pairs both models answer.
        discordant: true share of pairs that one has right and the other wrong.
        difference: true rate of the second model minus that of the first.
        alpha: size of the two-sided test.

    Raises:
        ValueError: n is 0, a share lies outside 0..1, or the difference is larger than the discordant share.
    """
    n, discordant, alpha = count(n, "n", least=1), share(discordant, "discordant"), share(alpha, "alpha")
    if abs(difference) > discordant:
        raise ValueError(
            f"a difference of {difference} needs at least as many discordant pairs, got {discordant}"
        )
    differing = np.arange(n + 1)
    fix = (1 + difference / discordant) / 2
    most = _largest_rejected(n, alpha)
    some = most >= 0
    low, all_of = most[some], differing[some]
    rejected = bdtr(low, all_of, fix) + bdtrc(all_of - low - 1, all_of, fix)
    return float(_binomial(n, discordant)[some] @ rejected)


def fewest_hits_above_chance(n: Count, *, chance: float, alpha: float = 0.025) -> int | None:
    """The fewest hits of n that an exact one-sided binomial test of size alpha calls better than chance.

    The default size is that of one side of a two-sided test at 0.05. None if even n hits do not reach it.
    Units must be independent, so count pairs, not the two items of a pair.

    Args:
        n: units scored.
        chance: rate of a guess: 0.25 for a pair of two-option questions.
        alpha: size of the test.

    Raises:
        ValueError: n is 0 or a share lies outside 0..1.
    """
    n, chance, alpha = count(n, "n", least=1), share(chance, "chance"), share(alpha, "alpha")
    hits = np.arange(1, n + 1)
    enough = hits[bdtrc(hits - 1, n, chance) <= alpha]
    return int(enough[0]) if len(enough) else None


def _largest_rejected(n: int, alpha: float) -> npt.NDArray[np.int64]:
    """For 0 .. n discordant pairs, the most of the rarer kind at which McNemar rejects (-1: never)."""
    most = np.full(n + 1, -1, dtype=np.int64)
    for differing in range(1, n + 1):
        fewer = most[differing - 1]  # it never falls as pairs are added, and grows by at most one
        most[differing] = fewer + int(2 * bdtr(fewer + 1, differing, 0.5) <= alpha)
    return most


def _binomial(n: int, chance: float) -> FloatArray:
    hits = np.arange(n + 1)
    ways = gammaln(n + 1) - gammaln(hits + 1) - gammaln(n - hits + 1)
    return np.asarray(np.exp(ways + xlogy(hits, chance) + xlog1py(n - hits, -chance)), dtype=np.float64)
