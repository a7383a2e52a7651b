"""Thresholds as cosines or as percentiles of the cosines of drawn pairs, and the joint distribution of both cosines."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.find.exact import Rows, double_dots

DRAWN = 500_000
"""Pairs of pictures that are drawn, where there are more."""

_CELLS = 60  # of the joint distribution, on a side


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A threshold as it was asked for."""

    text: str
    value: float
    percentile: bool

    @classmethod
    def parse(cls, text: str, *, name: str) -> "Wish":
        """`0.95`, or `p99.9`.

        Raises:
            UserError: it is neither a cosine nor a percentile.
        """
        percentile = text.startswith("p")
        try:
            value = float(text.removeprefix("p"))
        except ValueError:
            value = float("nan")
        low, high = (0.0, 100.0) if percentile else (-1.0, 1.0)
        if not low <= value <= high:
            raise UserError(
                f"{name} is {text!r}: give a cosine between -1 and 1, or p and a percentile between 0 and 100, as p99.9"
            )
        return cls(text=text, value=value, percentile=percentile)

    def among(self, cosines: Float[ndarray, " pair"]) -> float:
        """The cosine it means."""
        if not self.percentile:
            return self.value
        return float(np.percentile(cosines, self.value)) if len(cosines) else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The cosines of the same pairs of pictures under both encoders."""

    semantic: Float[ndarray, " pair"]
    reference: Float[ndarray, " pair"]
    exhaustive: bool
    """Whether these are all pairs there are."""

    def joint(self) -> dict[str, Any]:
        """How many pairs fall into each cell of both cosines, with the cells' edges."""
        counts, first, second = np.histogram2d(
            self.semantic, self.reference, bins=(_edges(self.semantic), _edges(self.reference))
        )
        return {
            "semantic_edges": first.tolist(),
            "reference_edges": second.tolist(),
            "counts": counts.astype(int).tolist(),
            "sampled": len(self.semantic),
            "exhaustive": self.exhaustive,
        }


def draw(semantic: Rows, reference: Rows, *, seed: int, most: int = DRAWN) -> Drawn:
    """All pairs of different pictures, or `most` drawn ones, evenly and with repetition."""
    images = len(semantic)
    if images * (images - 1) // 2 <= most:
        first, second = np.triu_indices(images, k=1)
    else:
        rng = np.random.default_rng(seed)
        first, second = rng.integers(0, images, most), rng.integers(0, images - 1, most)
        second = second + (second >= first)
        order = np.lexsort((second, first))
        first, second = first[order], second[order]
    return Drawn(
        semantic=double_dots(semantic, first, second),
        reference=double_dots(reference, first, second),
        exhaustive=images * (images - 1) // 2 <= most,
    )


def _edges(cosines: Float[ndarray, " pair"]) -> Float[ndarray, " edge"]:
    """Even cells that hold all values."""
    low, high = (float(cosines.min()), float(cosines.max())) if len(cosines) else (-1.0, 1.0)
    return np.linspace(low, high if high > low else low + 1e-6, _CELLS + 1)
