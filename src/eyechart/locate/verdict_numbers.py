"""The arithmetic behind a verdict: pairs drawn again for all stages at once, and tests of many columns together.

`core.stats` tests one column of numbers at a time. A verdict needs the same draws of pairs for every stage (so that paired
intervals hang together, and more right answers can only raise every draw), and the whole rule again on hundreds of
resamples of the pairs. All functions here take a batch of data sets, of which the data themselves are a batch of one.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.stats import binom

from eyechart.core.stats import Estimate, wilson

RESAMPLES = 2000
FLIPS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resampling:
    """Groups of pairs, and how many times each is in each draw."""

    group: Int[ndarray, " pair"]
    """The number of each pair's group."""

    sizes: Float[ndarray, " group"]
    counts: Float[ndarray, "draw group"]
    seed: int

    @classmethod
    def of(cls, groups: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0) -> "Resampling":
        """Draw groups with replacement, as many as there are.

        Raises:
            ValueError: there are fewer than two groups.
        """
        numbers = {name: place for place, name in enumerate(dict.fromkeys(groups))}
        if len(numbers) < 2:
            raise ValueError(f"{len(numbers)} group(s) of pairs cannot be drawn again; two are needed")
        group = np.array([numbers[name] for name in groups], dtype=np.int64)
        even = np.full(len(numbers), 1 / len(numbers))
        counts = np.random.default_rng(seed).multinomial(len(numbers), even, size=resamples)
        sizes = np.bincount(group).astype(np.float64)
        return cls(group=group, sizes=sizes, counts=counts.astype(np.float64), seed=seed)

    def sums(self, values: Float[ndarray, "pair column"]) -> Float[ndarray, "group column"]:
        """The sum over the pairs of each group."""
        total = np.zeros((len(self.sizes), values.shape[1]))
        np.add.at(total, self.group, values)
        return total

    def estimate(
        self, values: Float[ndarray, " pair"], *, level: float, floor: float = -1.0, ceiling: float = 1.0
    ) -> Estimate:
        """The mean over pairs with its interval; `limits` says which."""
        sums = self.sums(values[:, None])[None]
        low, high = limits(
            sums, self.sizes[None], self.counts, level=level, floors=np.array([floor]), ceiling=ceiling
        )
        return Estimate(
            value=float(values.mean()),
            low=float(low[0, 0]),
            high=float(high[0, 0]),
            n=len(values),
            clusters=len(self.sizes),
            level=level,
            method="cluster bootstrap, percentile, no narrower than the Wilson bound on unseen groups",
            seed=self.seed,
            resamples=len(self.counts),
        )


def limits(
    sums: Float[ndarray, "batch group column"],
    sizes: Float[ndarray, "batch group"],
    counts: Float[ndarray, "draw group"],
    *,
    level: float,
    floors: Float[ndarray, " column"],
    ceiling: float = 1.0,
) -> tuple[Float[ndarray, "batch column"], Float[ndarray, "batch column"]]:
    """The interval of each mean: percentiles of the draws, or the bound on groups that were not seen, whichever is wider.

    The bound is that of `core.stats.cluster_bootstrap` where no draw differs: the share of groups unlike those seen is at
    most Wilson's upper limit for none of as many, and these could lie anywhere between `floors` and `ceiling`. Taking the wider
    of two limits that both rise with the data keeps the limit rising.
    """
    drawn = np.einsum("rg,bgc->brc", counts, sums) / (sizes @ counts.T)[:, :, None]
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(drawn, tails, axis=1)
    value = sums.sum(axis=1) / sizes.sum(axis=1)[:, None]
    unseen = wilson(0, sums.shape[1], level=level).high
    return np.minimum(low, value - unseen * (value - floors)), np.maximum(
        high, value + unseen * (ceiling - value)
    )


def flip_p(
    sums: Float[ndarray, "batch group column"], *, flips: int = FLIPS, seed: int
) -> Float[ndarray, "batch column"]:
    """Two-sided sign-flip p-values of each column's mean, as `core.stats.sign_flip_test` draws them for one.

    Signs are flipped of whole groups, in all columns and data sets alike.
    """
    batch, groups, columns = sums.shape
    signs = np.random.default_rng(seed).integers(0, 2, size=(flips, groups), dtype=np.int8) * 2 - 1
    flat = sums.transpose(1, 0, 2).reshape(groups, batch * columns)
    seen = np.abs(flat.sum(axis=0)) - 1e-9 * np.maximum(1.0, np.abs(flat).sum(axis=0))
    reached = np.zeros(batch * columns, dtype=np.int64)
    for start in range(0, flips, 1000):
        turned = signs[start : start + 1000].astype(np.float64) @ flat
        reached += (np.abs(turned) >= seen).sum(axis=0)
    return ((reached + 1) / (flips + 1)).reshape(batch, columns)


def above_chance_p(
    sums: Float[ndarray, "batch group"], sizes: Float[ndarray, "batch group"], chance: float
) -> Float[ndarray, " batch"]:
    """Exact binomial p-values, two-sided by doubling, of as many right answers where `chance` is all there is.

    Pairs that share a picture stand or fall together: a group counts as one, right where all its pairs are.
    """
    hits = (sums >= sizes - 1e-9).sum(axis=1)
    return np.asarray(np.minimum(1.0, 2 * binom.sf(hits - 1, sums.shape[1], chance)))
