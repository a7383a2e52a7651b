"""What the study of mining measures without a threshold: how far true pairs stand out, and what moves their vectors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from eyechart.core.stats import Correlation, Estimate, cluster_bootstrap, percentile_of, spearman, wilson
from eyechart.find.exact import double_dots
from eyechart.find.thresholds import Wish
from eyechart.recipes.mining_pictures import Collection
from eyechart.world.captions import Rates
from eyechart.world.facts import PATTERNS

Cosines = Float[ndarray, " pair"]

BELOW = "p60"
"""Below this reference cosine, where only such pairs are scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllPairs:
    """Every pair of a collection's pictures under two encoders."""

    semantic: Cosines
    reference: Cosines
    made: Int[ndarray, " made"]
    """The places of pairs that were made as such ..."""

    patterns: tuple[str, ...]
    """... and in what each of these differs."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, known: Collection, semantic: str, reference: str, *, centred: bool) -> "AllPairs":
        """Both cosines of all pairs; of some thousand pictures at most, since all are held."""
        first, second = np.triu_indices(len(known.pictures), k=1)
        made = np.flatnonzero(known.partners[first] == second)
        rows = first[made].tolist()
        return cls(
            semantic=double_dots(known.vectors[semantic, centred], first, second),
            reference=double_dots(known.vectors[reference, centred], first, second),
            made=made,
            patterns=tuple(known.patterns[row] for row in rows),
            names=tuple(str(known.pictures[row].pair) for row in rows),
        )

    def scores(self) -> dict[str, Cosines]:
        """What pairs can be put in order by, the most suspicious largest.

        *gap* is the difference of the cosines, by which a list is ordered; *ranked gap* that of their percentiles.
        """
        ranks = [percentile_of(each, each) for each in (self.semantic, self.reference)]
        return {
            "semantic": self.semantic,
            "reference": self.reference,
            "gap": self.semantic - self.reference,
            "ranked gap": ranks[0] - ranks[1],
        }

    def others(self) -> Bool[ndarray, " pair"]:
        """Which pairs were not made as such."""
        found = np.ones(len(self.semantic), np.bool_)
        found[self.made] = False
        return found

    def in_patterns(self, patterns: Sequence[str]) -> Int[ndarray, " some"]:
        """Which of the made pairs differ in one of these."""
        return np.flatnonzero([pattern in patterns for pattern in self.patterns])


def standing_out(pairs: AllPairs, silent: Sequence[str]) -> dict[str, Any]:
    """The area under the ROC curve of each score: true pairs against all that were not made as pairs.

    It is the mean over true pairs of the share of other pairs that score less, half of those that score the same
    counted; chance is 1/2. The interval is from drawing the true pairs anew; the other pairs stay as they are.
    """
    others = pairs.others()
    found: dict[str, Any] = {}
    for name, scores in pairs.scores().items():
        share = percentile_of(scores[others], scores[pairs.made]) / 100
        found[name] = {
            "silent": _mean(share, pairs, pairs.in_patterns(silent)).to_dict(),
            **{each: _mean(share, pairs, pairs.in_patterns([each])).to_dict() for each in PATTERNS},
        }
    return {**found, "semantic below": _below(pairs, others, silent)}


def _below(pairs: AllPairs, others: Bool[ndarray, " pair"], silent: Sequence[str]) -> dict[str, Any]:
    """The semantic score among the pairs that the reference tells apart, and how many of the true pairs are such."""
    far = pairs.reference < Wish.parse(BELOW, name="below").among(pairs.reference)
    true = pairs.in_patterns(silent)
    left = true[far[pairs.made[true]]]
    found: dict[str, Any] = {"left": wilson(len(left), len(true)).to_dict(), "area": None}
    if len(left) > 1:
        share = percentile_of(pairs.semantic[others & far], pairs.semantic[pairs.made]) / 100
        found["area"] = _mean(share, pairs, left).to_dict()
    return found


def _mean(values: Cosines, pairs: AllPairs, places: Int[ndarray, " some"]) -> Estimate:
    return cluster_bootstrap(values[places], [pairs.names[place] for place in places.tolist()], seed=0)


def partner_ranks(known: Collection, encoder: str, silent: Sequence[str]) -> dict[str, Any]:
    """How near a picture's partner is among all other pictures: how often the nearest, and the median place from 1."""
    rows = np.asarray(known.vectors[encoder, False], np.float64)
    places = np.flatnonzero([pattern in silent for pattern in known.patterns])
    cosines = rows[places] @ rows.T
    cosines[np.arange(len(places)), places] = -np.inf
    own = cosines[np.arange(len(places)), known.partners[places]]
    ranks = 1 + (cosines > own[:, None]).sum(axis=1)
    names = [str(known.pictures[place].pair) for place in places.tolist()]
    return {
        "nearest": cluster_bootstrap((ranks == 1).astype(float), names, seed=0).to_dict(),
        "median": float(np.median(ranks)),
        "pictures": len(known.pictures),
    }


def what_moves(siblings: Collection, twins: Collection, encoder: str) -> dict[str, Any]:
    """What takes two pictures of a made pair apart: the fact alone, the layout alone (camera, light, clutter), or both.

    The first pictures of a sibling pair and of its twins are one and the same, and the second show the same facts in
    another layout. A cosine's place is the share of all pairs of the siblings' pictures that are less alike.

    Raises:
        ValueError: the two collections are not of the same scenes.
    """
    firsts, seconds, twins_seconds = _the_same(siblings, twins)
    rows, others = siblings.vectors[encoder, False], twins.vectors[encoder, False]
    near, far = np.triu_indices(len(rows), k=1)
    drawn = double_dots(rows, near, far)
    cosines = {
        "fact": _between(rows[firsts], others[twins_seconds]),
        "layout": _between(rows[seconds], others[twins_seconds]),
        "both": _between(rows[firsts], rows[seconds]),
    }
    more = cosines["layout"] < cosines["fact"]
    of = np.array([siblings.patterns[row] for row in firsts.tolist()])
    names = [str(siblings.pictures[row].pair) for row in firsts.tolist()]
    found: dict[str, Any] = {"layout moves more": {"all": wilson(int(more.sum()), len(more)).to_dict()}}
    for pattern in PATTERNS:
        some = more[of == pattern]
        found["layout moves more"][pattern] = wilson(int(some.sum()), len(some)).to_dict()
    below = Wish.parse(BELOW, name="below").among(drawn)
    for name, values in cosines.items():
        found[name] = {
            "cosine": cluster_bootstrap(values, names, seed=0).to_dict(),
            "place": cluster_bootstrap(percentile_of(drawn, values) / 100, names, seed=0).to_dict(),
            "below": wilson(int((values < below).sum()), len(values)).to_dict(),
            "patterns": {
                pattern: {
                    "cosine": float(values[of == pattern].mean()),
                    "below": int((values[of == pattern] < below).sum()),
                }
                for pattern in PATTERNS
            },
        }
    return found


def _the_same(siblings: Collection, twins: Collection) -> Iterator[Int[ndarray, " made"]]:
    """The rows of the pairs' first and second pictures, and of the twins' second ones."""
    row_of = {picture.id: row for row, picture in enumerate(siblings.pictures)}
    twin_of = {picture.id: row for row, picture in enumerate(twins.pictures)}
    if row_of.keys() != twin_of.keys():
        raise ValueError(f"{len(row_of)} siblings and {len(twin_of)} twins are not of the same pairs")
    firsts = [name for name in row_of if name.endswith("a.png")]
    seconds = [name.replace("a.png", "b.png") for name in firsts]
    for name in firsts:
        if siblings.hashes[row_of[name]] != twins.hashes[twin_of[name]]:
            raise ValueError(f"{name} of the siblings and of the twins are two pictures")
    yield np.array([row_of[name] for name in firsts])
    yield np.array([row_of[name] for name in seconds])
    yield np.array([twin_of[name] for name in seconds])


def _between(
    first: Float[ndarray, "made dim"], second: Float[ndarray, "made dim"]
) -> Float[ndarray, " made"]:
    found: Float[ndarray, " made"] = np.einsum(
        "pd,pd->p", first.astype(np.float64), second.astype(np.float64)
    )
    return found


def ordered_as_told(rates: Rates, by_pattern: Mapping[str, float]) -> Correlation | None:
    """Spearman's correlation over patterns of how often captions tell a fact and some number; None where all are one number."""
    numbers = [by_pattern[pattern] for pattern in PATTERNS]
    told = [getattr(rates, pattern) for pattern in PATTERNS]
    if len(set(numbers)) == 1 or len(set(told)) == 1:
        return None
    return spearman(told, numbers)
