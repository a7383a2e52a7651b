"""Pair readability: whether a probe tells the two images of a pair apart by the answer, for encoders that have no text.

A pair is read where a probe trained on other pairs is right on both its images. That needs a label that means the same in
several pairs. Of a benchmark's questions only the options can be one, within a pattern: `left` and `right`, `1` and `2`. Options
that say nothing without their question (yes and no, true and false) are one label only where the question is the same to
the word. Pairs with a label that is in fewer than `LEAST` pairs are not covered; they are counted, and nothing is said of them.

Probes, folds and control are those of `train.readability`: the two images of a pair, and pairs that share a picture, are never
on both sides of a split; the control is the same probe after labels were dealt out anew among pairs. Where siblings are so alike that
a probe gives both one answer, a guess reads no pair, not a quarter of them: the control shows that, chance does not.

A pattern is `readable` where the probe reads more pairs than its control, by a sign-flip test on the differences of the pairs,
after Holm over the patterns. Everything else is `undecided`. It is never "not there": another probe, more pairs or another
layer may read it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.core.records import Benchmark
from eyechart.core.stats import cluster_bootstrap, holm, sign_flip_test, wilson
from eyechart.models.encoders.encoder import Encoder
from eyechart.score.encoders import Progress
from eyechart.score.measures import Measure
from eyechart.score.pair_features import features_of
from eyechart.train.pair_labels import LEAST, Covered, covered
from eyechart.train.pair_reading import MOST, PairsRead, read_features, sample

FED = -2
"""The layer whose patches are read: what enters the last block, as LLaVA reads it."""

Verdict = Literal["readable", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one probe read of one pattern from one kind of features."""

    features: str
    """`patches`, or a pooling."""

    probe: Literal["linear", "attentive"]
    pairs: Measure
    control: Measure
    difference: Measure
    """Pairs read less pairs that the control read."""

    p_value: float
    """One pattern by itself; the verdict is after Holm."""

    verdict: Verdict
    by_pair: tuple[float, ...]
    """Share of the seeds in which each pair was read, in the order of `pair_ids`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternReadability:
    """A pattern: what of it is covered, and how each kind of features was read."""

    pattern: str
    in_set: int
    """Pairs of the pattern."""

    covered: int
    """Pairs with a label that enough others share."""

    labels: Mapping[str, int]
    """How many pairs each label is in."""

    pair_ids: tuple[str, ...]
    """Pairs that were read."""

    readings: tuple[Reading, ...]

    def to_dict(self) -> dict[str, Any]:
        """The first reading's measure, and all of them under `readings`."""
        if self.readings:
            first, verdict = self.readings[0].pairs.to_dict(), self.readings[0].verdict
        else:
            first, verdict = _none("pairs_readable").to_dict(), "undecided"
        plain = [asdict(one) | {"by_pair": list(one.by_pair)} for one in self.readings]
        return {
            "pattern": self.pattern,
            **first,
            "verdict": verdict,
            "in_set": self.in_set,
            "covered": self.covered,
            "labels": dict(self.labels),
            "pair_ids": list(self.pair_ids),
            "readings": plain,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReadability:
    """An encoder read on a benchmark."""

    measures: tuple[Measure, ...]
    """Over all covered pairs, for each kind of features: pairs read, then pairs its control read."""

    patterns: tuple[PatternReadability, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        return {
            "measures": [one.to_dict() for one in self.measures],
            "patterns": [one.to_dict() for one in self.patterns],
            "notes": list(self.notes),
        }


def read_pairs(
    encoder: Encoder,
    benchmark: Benchmark,
    *,
    labels: Mapping[str, str] | None = None,
    layer: int = FED,
    least: int = LEAST,
    most: int = MOST,
    attentive: bool = False,
    repeats: int = 3,
    batch: int = 32,
    level: float = 0.95,
    seed: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> PairReadability:
    """Read an encoder on a benchmark of pairs: linear probes on its patches and on each of its poolings.

    Args:
        encoder: any; its text tower, if there is one, plays no part.
        benchmark: questions in pairs with opposite answers.
        labels: for each item id what is to be read, as `door open`, where more is known than the options say.
        layer: whose patches.
        least: pairs that must share a label for it to be learned.
        most: pairs of a pattern that are read.
        attentive: read patches by an attentive probe, too, which takes minutes a pattern.
        repeats: seeds of splits and controls that are averaged.
        batch: pictures open at once.
        level: confidence of intervals and verdicts.
        seed: of the first split, the sample and the drawing of intervals.
        progress: told how many patterns are done.

    Raises:
        UserError: there are no pairs, or a picture cannot be read.
    """
    if not any(item.pair_id for item in benchmark.items):
        raise UserError(f"{benchmark.name} has no pairs, and an encoder without texts is read on pairs")
    notes: list[str] = []

    def features(chosen: Covered) -> dict[str, ndarray]:
        return features_of(encoder, chosen.items, layer=layer, batch=batch, notes=notes)

    found = covered(benchmark.items, labels=labels, least=least)
    options: dict[str, Any] = {"most": most, "attentive": attentive, "repeats": repeats}
    return read_covered(found, features, **options, level=level, seed=seed, notes=notes, progress=progress)


def read_covered(
    found: Sequence[Covered],
    features: Callable[[Covered], Mapping[str, ndarray]],
    *,
    most: int = MOST,
    attentive: bool = False,
    repeats: int = 3,
    level: float = 0.95,
    seed: int = 0,
    notes: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> PairReadability:
    """Read patterns from features of any kind; arguments as `read_pairs`.

    Args:
        found: patterns with labels, from `covered`.
        features: those of the items of one pattern at a time, by name: item x dim, or item x patch x dim.
        notes: what is to be told beside the result; read when all features were asked for.
    """
    read = {}
    for number, one in enumerate(found):
        if one.items:
            chosen = sample(one, most, seed)
            read[one.pattern] = (
                chosen,
                read_features(features(chosen), chosen, attentive=attentive, repeats=repeats, seed=seed),
            )
        progress("reading patterns", number + 1, len(found))
    return _summary(found, read, notes, level=level, seed=seed)


def _summary(
    found: Sequence[Covered],
    read: Mapping[str, tuple[Covered, Mapping[str, PairsRead]]],
    notes: Sequence[str],
    *,
    level: float,
    seed: int,
) -> PairReadability:
    ways = list(dict.fromkeys(way for _, each in read.values() for way in each))
    readings: dict[str, list[Reading]] = {pattern: [] for pattern in read}
    measures: list[Measure] = []
    for way in ways:
        known = {
            pattern: (chosen, each[way].right, each[way].control)
            for pattern, (chosen, each) in read.items()
            if way in each
        }
        p_values = {
            pattern: _p_value(right - control, one.groups, seed)
            for pattern, (one, right, control) in known.items()
        }
        held = dict(zip(known, holm(list(p_values.values())), strict=True))
        for pattern, (chosen, right, control) in known.items():
            readings[pattern].append(
                _reading(way, chosen, right, control, p_values[pattern], held[pattern], level, seed)
            )
        groups = [f"{pattern} {group}" for pattern, (one, _, _) in known.items() for group in one.groups]
        for place, name in ((1, "pairs_readable"), (2, "pairs_readable_control")):
            values = np.concatenate([each[place] for each in known.values()])
            measures.append(_measure(name, values, groups, level, seed, of=way))
    patterns = tuple(
        PatternReadability(
            pattern=one.pattern,
            in_set=one.in_set,
            covered=len(one.items) // 2,
            labels=one.labels,
            pair_ids=read[one.pattern][0].pair_ids if one.pattern in read else (),
            readings=tuple(readings.get(one.pattern, ())),
        )
        for one in found
    )
    return PairReadability(
        measures=tuple(measures) or (_none("pairs_readable"),),
        patterns=patterns,
        notes=(*dict.fromkeys(notes), *_told(patterns)),
    )


def _reading(
    way: str,
    chosen: Covered,
    right: Float[ndarray, " pair"],
    control: Float[ndarray, " pair"],
    p_value: float,
    held: float,
    level: float,
    seed: int,
) -> Reading:
    features, _, probe = way.rpartition(" ")
    more = _measure("difference", right - control, chosen.groups, level, seed, floor=-1.0)
    above = held < 1 - level and float((right - control).mean()) > 0
    return Reading(
        features=features,
        probe="attentive" if probe == "attentive" else "linear",
        pairs=_measure("pairs_readable", right, chosen.groups, level, seed, of=way),
        control=_measure("pairs_readable_control", control, chosen.groups, level, seed, of=way),
        difference=more,
        p_value=p_value,
        verdict="readable" if above else "undecided",
        by_pair=tuple(round(float(one), 4) for one in right),
    )


def _p_value(differences: Float[ndarray, " pair"], groups: Sequence[str], seed: int) -> float:
    """Signs are flipped of whole groups: pairs that share a picture stand or fall together."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(group, weights=differences)
    return sign_flip_test(sums, resamples=10_000, seed=seed).p_value


def _measure(
    name: str,
    values: Float[ndarray, " pair"],
    groups: Sequence[str],
    level: float,
    seed: int,
    *,
    of: str | None = None,
    floor: float = 0.0,
) -> Measure:
    """A mean over pairs; its interval is from drawing groups of pairs again.

    Where all pairs have one value no drawing differs. The share of pairs unlike those seen is then at most Wilson's upper
    limit for none of as many, and these could lie anywhere.
    """
    value = float(values.mean())
    if np.ptp(values) > 1e-9 and len(set(groups)) > 1:
        drawn = cluster_bootstrap(values, list(groups), level=level, seed=seed)
        low, high = drawn.low, drawn.high
    else:
        unseen = wilson(0, len(set(groups)), level=level).high
        low, high = value - unseen * (value - floor), value + unseen * (1 - value)
    chance = 0.25 if floor == 0 else None
    return Measure(
        name=name,
        value=value,
        low=low,
        high=high,
        n=len(values),
        unit="pairs",
        chance=chance,
        level=level,
        of=of,
    )


def _none(name: str) -> Measure:
    return Measure(name=name, value=None, low=None, high=None, n=0, unit="pairs")


def _told(patterns: Sequence[PatternReadability]) -> Sequence[str]:
    total, known = sum(one.in_set for one in patterns), sum(one.covered for one in patterns)
    notes = []
    if known < total:
        notes.append(
            f"{total - known} of {total} pairs have a label that too few others share, and nothing is said of them"
        )
    open_ = [
        one.pattern for one in patterns if not any(reading.verdict == "readable" for reading in one.readings)
    ]
    if open_:
        notes.append(
            f"undecided: {', '.join(open_)}; not shown to be readable by these probes on so many pairs, which does not mean"
            " that it is not there"
        )
    return notes
