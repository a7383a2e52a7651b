"""The tables of the correlation study, in Markdown, from what was found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyechart.core.errors import UserError
from eyechart.score.correlate import Correlated
from eyechart.score.match_scores import WAYS
from eyechart.score.pairwise import Association, SamePairs
from eyechart.score.pooled import Pooled, PooledValue
from eyechart.score.series import Series, series_of_answers, series_of_matches


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A CLIP and the VLM that looks through it, on the same pairs."""

    name: str
    matches: tuple[Mapping[str, Any], ...]
    answers: tuple[Mapping[str, Any], ...]
    sha256: tuple[str, str]
    """Of the weights of both."""

    def encoder(self, way: str = WAYS[0]) -> Series:
        """The CLIP's pairs right, in one of the ways to count."""
        return series_of_matches(f"clip-{self.name}", self.matches, way=way)

    def model(self) -> Series:
        """The VLM's pairs right."""
        return series_of_answers(f"llava-{self.name}", self.answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All correlations of the study."""

    own: tuple[Correlated, ...]
    """Each VLM with its own CLIP."""

    others: Mapping[tuple[str, str], float | None]
    """Pearson's correlation of every CLIP with every VLM."""

    within: Mapping[tuple[str, str], Association]
    """Phi within patterns of every CLIP with every VLM."""

    ways: Mapping[str, Mapping[str, float | None]]
    """Pearson's correlation of each VLM with its own CLIP, in each way to count."""

    pooled: Pooled


def tables(seen: Sequence[Seen], found: Found) -> str:
    """All tables in Markdown."""
    over = {both: _plain(value) for both, value in found.others.items()}
    within = {both: _of(value) for both, value in found.within.items()}
    return "\n\n".join(
        "\n".join(part)
        for part in (
            ["### Pairs right by pattern", "", *_shares(found)],
            ["### Over patterns", "", *_correlations(found)],
            ["### All points together", "", *_pooled(found.pooled)],
            ["### Every CLIP with every VLM: Pearson over patterns", "", *_others(seen, over)],
            ["### On the same pairs", "", *_same(found)],
            ["### Every CLIP with every VLM: phi within patterns", "", *_others(seen, within)],
        )
    )


def _shares(found: Found) -> Iterator[str]:
    yield from _head("pattern", *(name for one in found.own for name in (one.encoder, one.model)))
    for place, point in enumerate(found.own[0].points):
        rates = [getattr(one.points[place], side) for one in found.own for side in ("encoder", "model")]
        yield _row(point.pattern, *(f"{r.value:.0%} [{100 * r.low:.0f}, {100 * r.high:.0f}]" for r in rates))


def _correlations(found: Found) -> Iterator[str]:
    yield from _head("", *(one.model for one in found.own))
    rows: dict[str, list[str]] = {
        "Pearson, own CLIP (Fisher)": [_ranged(one.pearson) for one in found.own],
        "p, exact permutation": [f"{one.pearson.p_value:.2g}" for one in found.own],
        "Spearman (Bonett and Wright)": [_ranged(one.spearman) for one in found.own],
        "p, exact permutation of ranks": [f"{one.spearman.p_value:.2g}" for one in found.own],
        "Pearson, pairs drawn again": [_span(one.pearson_noise) for one in found.own],
        "Pearson, patterns and pairs drawn again": [_span(one.pearson_both) for one in found.own],
        "Pearson without one pattern, least and most": [_left_out(one) for one in found.own],
        "reliability, CLIP and VLM": [_reliable(one) for one in found.own],
        "Pearson corrected for attenuation": [_plain(one.attenuation.corrected) for one in found.own],
    }
    rows |= {
        f"Pearson, CLIP by {way.replace('_', ' ')}": [_plain(values[one.model]) for one in found.own]
        for way, values in found.ways.items()
    }
    for name, cells in rows.items():
        yield _row(name, *cells)


def _left_out(one: Correlated) -> str:
    named = [
        (value, point.pattern)
        for value, point in zip(one.pearson.leave_one_out, one.points, strict=True)
        if value is not None
    ]
    return " to ".join(f"{value:.2f} (without {name})" for value, name in (min(named), max(named)))


def _reliable(one: Correlated) -> str:
    both = (one.attenuation.reliability_encoder, one.attenuation.reliability_model)
    return ", ".join(map(_plain, both))


def _pooled(pooled: Pooled) -> Iterator[str]:
    yield from _head(
        f"{pooled.points} points", "Pearson", "p", *(f"without {name}" for name in pooled.models)
    )
    for name, one in (("as they are", pooled.together), ("within models", pooled.within)):
        yield _row(name, _of(one), _plain(one.p_value, 2), *(_plain(value) for _, value in one.without))


def _of(one: PooledValue | Association) -> str:
    if one.value is None or one.low is None or one.high is None:
        return "undefined"
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def _others(seen: Sequence[Seen], cells: Mapping[tuple[str, str], str]) -> Iterator[str]:
    models = [f"llava-{one.name}" for one in seen]
    yield from _head("", *models)
    for one in seen:
        yield _row(f"clip-{one.name}", *(cells[f"clip-{one.name}", model] for model in models))


def _same(found: Found) -> Iterator[str]:
    yield from _head(
        "VLM", "pairs", "both", "CLIP only", "VLM only", "neither", "phi", "p", "phi within patterns", "p"
    )
    for one in found.own:
        same: SamePairs | None = one.same_pairs
        if same is None:
            raise UserError(f"{one.encoder} and {one.model} have no pairs in common")
        counts = (same.n, same.both, same.first_only, same.second_only, same.neither)
        phis = [cell for phi in (same.phi, same.phi_within) for cell in (_of(phi), _plain(phi.p_value, 2))]
        yield _row(one.model, *map(str, counts), *phis)


def _ranged(one: Any) -> str:
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def _span(one: Any) -> str:
    return f"[{one.low:.2f}, {one.high:.2f}], median {one.median:.2f}"


def _plain(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.2f}" if digits is None else f"{value:.{digits}g}"


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield _row(*["---"] * len(names))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
