"""Layer probes: how many pairs of a pattern one probe reads at each stage of a model, from the encoder to the answer.

Linear probes on every layer are due to Alain and Bengio (arXiv 1610.01644); that a probe's accuracy needs a control with dealt
labels is due to Hewitt and Liang (arXiv 1909.03368). Here all stages of a pattern are read from the same items, by the same
kind of probe, with the same labels, folds and dealing of the control, so that two stages can be compared pair by pair.

Choices:

- A pair is *read* where a probe trained on other pairs is right on both its items. Pairs that share a picture are never on
  both sides of a split.
- `reading="flat"` (the default) gives the linear probe all tokens side by side, token x dim. A fact about *where* something is
  is often no direction of any one token, nor of their mean; flat, a linear probe can weigh each place by itself. It has many
  more weights than there are items; the penalty, chosen inside each training fold, and the control hold that in check.
  `reading="mean"` reads the mean over tokens, and `reading="attentive"` a learned pooling. A stage of one token (the last
  position) is the same under `flat` and `mean`.
- Features are asked for one pattern at a time, all stages together, and are let go of before the next pattern.
- A stage's numbers differ in dimension, and the probe's capacity with it. Its control has the same capacity, so what counts is
  the difference of the two, never the share of pairs read alone.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.core.records import Item
from eyechart.core.stats import Estimate
from eyechart.locate.verdict_numbers import Resampling
from eyechart.train.pair_labels import Covered
from eyechart.train.pair_reading import FOLDS, MOST, PairsRead, read_features, sample

States = Callable[[Sequence[Item]], Mapping[str, ndarray]]
"""From items to what each stage held, item x token x dim; the order of the stages is that of the model."""

ReadingKind = Literal["flat", "mean", "attentive"]
Kind = Literal["vision", "fed", "image", "last"]
Progress = Callable[[str, int, int], None]

_LANGUAGE = re.compile(r"language (\d+) (image|last)")
_VISION = re.compile(r"vision (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageName:
    """A stage's place in the model, read off its name."""

    name: str
    """`vision 3`, `fed`, `language 0 image` (what the projector gives), `language 8 last`."""

    kind: Kind
    layer: int | None
    """Counted as in `hidden_states`: 0 is what the first block reads; None for what the projector reads."""

    @classmethod
    def of(cls, name: str) -> "StageName":
        """The stage of a name.

        Raises:
            UserError: it is no stage's name.
        """
        if name == "fed":
            return cls(name=name, kind="fed", layer=None)
        if found := _VISION.fullmatch(name):
            return cls(name=name, kind="vision", layer=int(found[1]))
        if found := _LANGUAGE.fullmatch(name):
            return cls(name=name, kind="image" if found[2] == "image" else "last", layer=int(found[1]))
        raise UserError(
            f"no stage is named {name!r}; expected 'vision 3', 'fed', 'language 0 image' or 'language 8 last', with"
            " any layer's number"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StageReading:
    """What the probe read at one stage."""

    stage: StageName
    read: Float[ndarray, " pair"]
    """Share of the repeats in which each pair was read, for paired comparisons."""

    control: Float[ndarray, " pair"]
    """The same where labels were dealt out anew."""

    pairs: Estimate
    """Share of pairs read."""

    dealt: Estimate
    """Share of pairs that the control read."""

    difference: Estimate
    """Pairs read less pairs that the control read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PatternStages:
    """One pattern, read at every stage; no stages where too few of its pairs share a label."""

    pattern: str
    in_set: int
    """Pairs of the pattern."""

    pair_ids: tuple[str, ...]
    """Pairs that were read."""

    groups: tuple[Hashable, ...]
    """Of each pair; pairs that share a picture are of one group."""

    labels: Mapping[str, int]
    """How many of the pairs each label is in."""

    probe: str
    stages: tuple[StageReading, ...]

    def stage(self, name: str) -> StageReading | None:
        """The reading of a stage, None where there is none."""
        return next((one for one in self.stages if one.stage.name == name), None)


def read_stages(
    found: Sequence[Covered],
    states: States,
    *,
    reading: ReadingKind = "flat",
    repeats: int = 1,
    folds: int = FOLDS,
    most: int = MOST,
    level: float = 0.95,
    seed: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[PatternStages, ...]:
    """Read every pattern at every stage.

    Args:
        found: patterns with labels, from `pair_labels.covered`.
        states: asked once a pattern, for the items that are read.
        reading: how a stage's tokens are read; see above.
        repeats: seeds of splits and controls that are averaged.
        folds: of the cross-validation.
        most: pairs of a pattern that are read; a drawn sample of them where there are more.
        level: confidence of the intervals.
        seed: of the first split, of the sample and of the intervals.
        progress: told how many patterns are done.

    Returns:
        The patterns in the order given.

    Raises:
        UserError: a stage has a name that says nothing, no token, or other items than were asked for.
    """
    read = []
    for number, one in enumerate(found):
        progress("reading stages", number, len(found))
        chosen = sample(one, most, seed)
        held = states(chosen.items) if chosen.items else {}
        read.append(
            read_pattern(chosen, held, reading=reading, repeats=repeats, folds=folds, level=level, seed=seed)
        )
        del held
    progress("reading stages", len(found), len(found))
    return tuple(read)


def read_pattern(
    chosen: Covered,
    held: Mapping[str, ndarray],
    *,
    reading: ReadingKind = "flat",
    repeats: int = 1,
    folds: int = FOLDS,
    level: float = 0.95,
    seed: int = 0,
) -> PatternStages:
    """Read one pattern from what each stage held of its items; arguments and errors as `read_stages`."""
    shares: dict[str, PairsRead] = {}
    for name, values in held.items():
        StageName.of(name)
        _check(name, values, len(chosen.items))
        one = values.mean(axis=1) if reading == "mean" else values
        shares |= read_features(
            {name: one},
            chosen,
            linear=reading != "attentive",
            attentive=reading == "attentive",
            repeats=repeats,
            folds=folds,
            seed=seed,
        )
    plain = {way.rpartition(" ")[0]: one for way, one in shares.items()}
    return pattern_stages(chosen, plain, probe=_probe_words(reading), level=level, seed=seed)


def pattern_stages(
    chosen: Covered, shares: Mapping[str, PairsRead], *, probe: str, level: float = 0.95, seed: int = 0
) -> PatternStages:
    """What was read, pair by pair, with its intervals.

    Args:
        chosen: the pairs.
        shares: by stage, in the model's order.
        probe: its kind, in words.
    """
    made: list[StageReading] = []
    if shares:
        drawn = Resampling.of(chosen.groups, seed=seed)
        for name, one in shares.items():
            options: dict[str, Any] = {"level": level}
            made.append(
                StageReading(
                    stage=StageName.of(name),
                    read=one.right,
                    control=one.control,
                    pairs=drawn.estimate(one.right, floor=0.0, **options),
                    dealt=drawn.estimate(one.control, floor=0.0, **options),
                    difference=drawn.estimate(one.right - one.control, **options),
                )
            )
    return PatternStages(
        pattern=chosen.pattern,
        in_set=chosen.in_set,
        pair_ids=chosen.pair_ids,
        groups=chosen.groups,
        labels=chosen.labels,
        probe=probe,
        stages=tuple(made),
    )


def _check(name: str, values: ndarray, items: int) -> None:
    if values.ndim != 3 or len(values) != items or not values.shape[1]:
        raise UserError(
            f"stage {name!r} holds an array of shape {values.shape}; expected item x token x dim for {items} items"
        )
    if not np.isfinite(values).all():
        raise UserError(f"stage {name!r} holds numbers that are not finite, which no probe can be trained on")


def _probe_words(reading: ReadingKind) -> str:
    return {
        "flat": "linear, tokens side by side",
        "mean": "linear, mean over tokens",
        "attentive": "attentive",
    }[reading]
