"""From matched captions and images to the score: hits by pattern and in all, their mean over patterns, and margins."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyechart.core.records import NO_PATTERN
from eyechart.core.stats import Rate, cluster_bootstrap, cluster_rate, wilson
from eyechart.score.measures import Measure

WAYS = ("text_to_image", "image_to_text", "group")
"""The official way of MMVP-VLM first."""

MATCHES = "matches"


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchPattern:
    """How an encoder did on one pattern: a measure for each way that its matches have."""

    pattern: str
    measures: tuple[Measure, ...]

    def to_dict(self) -> dict[str, Any]:
        """The first way's measure, and all of them under `ways`."""
        ways = {one.name: one.to_dict() for one in self.measures}
        return {"pattern": self.pattern, **self.measures[0].to_dict(), "ways": ways}


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchScore:
    """How an encoder did on a set of matches."""

    measures: tuple[Measure, ...]
    """Matches right in each way, then the mean over patterns of each, then single captions and images; `text_to_image`
    is the first, or `image_to_text` where every match has one image."""

    patterns: tuple[MatchPattern, ...]
    """Sorted by name; empty where the set names none."""

    margins: tuple[Measure, ...]
    """Mean margins in cosine, of captions and of images."""

    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        return {
            "measures": [one.to_dict() for one in self.measures],
            "patterns": [one.to_dict() for one in self.patterns],
            "margins": [one.to_dict() for one in self.margins],
            "notes": list(self.notes),
        }


def score_rows(
    rows: Iterable[Mapping[str, Any]], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> MatchScore:
    """Score the lines of a log, as `encoders.match_row` makes them.

    Intervals are Wilson's for matches, which are taken as independent; from drawing whole matches again for captions and
    images; for means over patterns see `mean_of_rates`.

    Args:
        rows: one line for each match.
        level: confidence of the intervals.
        resamples: how often matches are drawn again.
        seed: of that drawing.

    Raises:
        ValueError: there is no line, or a match has two.
    """
    lines = list(rows)
    if not lines:
        raise ValueError("nothing was matched (0 lines), so there is no score")
    if len({line["doc_id"] for line in lines}) < len(lines):
        raise ValueError("a match has two lines, so the score would count it twice")
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault(line["doc"]["pattern"] or NO_PATTERN, []).append(line)
    named = list(groups) != [NO_PATTERN]
    patterns = tuple(
        MatchPattern(pattern=name, measures=tuple(_ways(groups[name], level)))
        for name in sorted(groups)
        if named
    )
    options: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    return MatchScore(
        measures=(*_ways(lines, level), *_means(patterns, level), *_singles(lines, **options)),
        patterns=patterns,
        margins=tuple(_margins(lines, **options)),
        notes=tuple(_notes(lines)),
    )


def mean_of_rates(rates: Sequence[Rate], *, level: float = 0.95) -> tuple[float, float, float]:
    """The mean of independent shares, every one weighing the same, with its interval: value, low, high.

    The limits are put together from the distances of the single Wilson limits (MOVER), so they have a width also where all
    or none were hits. Source: G. Y. Zou, W. Huang and X. Zhang, A note on confidence interval estimation for a linear
    function of binomial proportions, Computational Statistics and Data Analysis 53 (2009) 1080-1085.

    Raises:
        ValueError: there are no rates.
    """
    if not rates:
        raise ValueError("there are 0 rates, and so no mean of them")
    known = [wilson(rate.hits, rate.n, level=level) for rate in rates]
    value = sum(rate.value for rate in known) / len(known)
    below = math.sqrt(sum((rate.value - rate.low) ** 2 for rate in known)) / len(known)
    above = math.sqrt(sum((rate.high - rate.value) ** 2 for rate in known)) / len(known)
    return value, max(0.0, value - below), min(1.0, value + above)


def chance_of(way: str, captions: int, images: int) -> float | None:
    """How often similarities that are independent and alike would be right; None where that is not known in closed form.

    A model whose preference for an image, or for a text, does not depend on the other side has 0 instead.
    """
    if images == 1:
        return 1 / captions if way == "image_to_text" else None
    if way == "group":
        return 1 / 6 if captions == 2 else None
    return float(captions**-captions)


def _ways(lines: Sequence[Mapping[str, Any]], level: float) -> Iterable[Measure]:
    for way in WAYS:
        known = [line for line in lines if line[way] is not None]
        if known:
            rate = wilson(sum(line[way] for line in known), len(known), level=level)
            yield Measure.of_rate(way, rate, MATCHES, chance=_chance(way, known))


def _chance(way: str, lines: Sequence[Mapping[str, Any]]) -> float | None:
    shapes = [(len(line["similarity"]), len(line["similarity"][0])) for line in lines]
    known = [one for shape in shapes if (one := chance_of(way, *shape)) is not None]
    return math.fsum(known) / len(known) if len(known) == len(shapes) else None


def _means(patterns: Sequence[MatchPattern], level: float) -> Iterable[Measure]:
    """The mean over patterns of each way that all of them have; nothing for fewer than two patterns."""
    for way in WAYS:
        own = [one for pattern in patterns for one in pattern.measures if one.name == way]
        if len(own) < 2 or len(own) < len(patterns):
            continue
        rates = [wilson(one.hits or 0, one.n, level=level) for one in own]
        value, low, high = mean_of_rates(rates, level=level)
        chances = [one.chance for one in own if one.chance is not None]
        yield Measure(
            name=f"{way}_mean_of_patterns",
            value=value,
            low=low,
            high=high,
            n=len(own),
            unit="patterns",
            chance=math.fsum(chances) / len(chances) if len(chances) == len(own) else None,
            level=level,
        )


_SINGLE = (("captions", "margin_text_to_image"), ("images", "margin_image_to_text"))


def _singles(
    lines: Sequence[Mapping[str, Any]], *, level: float, resamples: int, seed: int
) -> Iterable[Measure]:
    """The share of captions that pick their image, and of images that pick their caption."""
    for unit, margin in _SINGLE:
        hits, clusters, chances = [], [], []
        for line in lines:
            options = len(line["similarity"][0]) if unit == "captions" else len(line["similarity"])
            for one in line[margin] or ():
                hits.append(one > 0)
                clusters.append(line["doc_id"])
                chances.append(1 / options)
        if not hits:
            continue
        if len(set(clusters)) > 1:
            rate = cluster_rate(hits, clusters, level=level, resamples=resamples, seed=seed)
        else:  # from one match nothing can be drawn again
            rate = Rate(
                value=sum(hits) / len(hits), low=0.0, high=1.0, hits=sum(hits), n=len(hits), level=level
            )
        yield Measure.of_rate(f"{unit}_right", rate, unit, chance=math.fsum(chances) / len(chances))


def _margins(
    lines: Sequence[Mapping[str, Any]], *, level: float, resamples: int, seed: int
) -> Iterable[Measure]:
    for unit, margin in _SINGLE:
        values = [one for line in lines for one in line[margin] or ()]
        clusters = [line["doc_id"] for line in lines for _ in line[margin] or ()]
        if not values:
            continue
        try:
            found = cluster_bootstrap(values, clusters, level=level, resamples=resamples, seed=seed)
        except ValueError:  # one match, or margins that do not differ: there is no interval
            low = high = None
        else:
            low, high = found.low, found.high
        value = sum(values) / len(values)
        yield Measure(
            name=f"{margin}_mean", value=value, low=low, high=high, n=len(values), unit=unit, level=level
        )


def _notes(lines: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    ties = sum(one == 0 for line in lines for _, margin in _SINGLE for one in line[margin] or ())
    if ties:
        yield f"{ties} comparisons of captions with images were ties, which are wrong"
    twice = [
        line["doc_id"]
        for line in lines
        if len(set(line["doc"]["images_sha256"])) < len(line["doc"]["images_sha256"])
    ]
    if twice:
        yield (
            f"{len(twice)} matches hold one picture twice and cannot be right from text to image: "
            + ", ".join(map(str, twice[:10]))
        )
