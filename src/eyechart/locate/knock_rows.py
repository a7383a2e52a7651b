"""What was read of parts under knockouts, as lines of a log and as the numbers of the 2x2."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from eyechart.locate.arms import BOTH, LANGUAGE, VISION, WHOLE, Cell, DosePlan
from eyechart.locate.compensate import Arm, Compensation, Readouts, compensation
from eyechart.locate.compensate_probe import Features, probe_parts
from eyechart.locate.compensate_words import summary
from eyechart.locate.doses import LayerDose, dose_curve
from eyechart.locate.identify import NotRanked
from eyechart.locate.knock import PartReading
from eyechart.locate.readable_scale import Scale, readability

Against = Literal["control", "rival", "rank"]
"""What a part's rank is set against: that of its name elsewhere, or at the same place that of the name it could be taken for; or
nothing, itself."""

CELLS = (VISION, LANGUAGE, BOTH)

LEAST = 2
"""Pictures without which there is no interval, and so no result."""


def line_of(image: str, read: Sequence[PartReading], missing: Sequence[NotRanked]) -> dict[str, Any]:
    """What was read of a picture, as a line of `knockouts.jsonl`; the states stand in a file of their own."""
    return {
        "image": image,
        "parts": [
            {
                "object": one.object,
                "part": one.part,
                "instance": one.instance,
                "cells": one.cells,
                "row": round(one.row, 6),
                "share": round(one.share, 8),
                "missing": dict(one.missing),
                "read": {
                    _key(cell): {
                        "rank": reading.rank.tolist(),
                        "control": None if reading.control is None else reading.control.tolist(),
                        "rival": None if reading.rival is None else reading.rival.tolist(),
                    }
                    for cell, reading in one.readings.items()
                },
            }
            for one in read
        ],
        "not_ranked": [
            {"object": one.object, "part": one.part, "instance": one.instance, "reason": one.reason}
            for one in missing
        ],
    }


def states_of(read: Sequence[PartReading], arms: Sequence[str]) -> dict[str, Float[ndarray, "layer dim"]]:
    """The states of a picture's parts by part and cell, for the arms that a probe reads."""
    return {
        f"{number}|{_key(cell)}": np.ascontiguousarray(reading.state, dtype=np.float32)
        for number, one in enumerate(read)
        for cell, reading in one.readings.items()
        if cell == WHOLE or cell[0] in arms
    }


def _key(cell: Cell) -> str:
    return f"{cell[0]}|{cell[1]}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instances:
    """The parts of all pictures that were read in every cell in question."""

    lines: tuple[Mapping[str, Any], ...]
    """One for each part."""

    images: tuple[str, ...]
    places: tuple[int, ...]
    """Of each part among those of its picture."""

    left_out: int
    """Parts that have no such cell (an arm has nothing to cut there), or nothing to be set against."""

    against: Against = "control"

    @classmethod
    def of(
        cls, logged: Iterable[Mapping[str, Any]], cells: Iterable[Cell], *, against: Against = "control"
    ) -> "Instances":
        """Those that have all these cells, and there what they are set against."""
        needed = [_key(WHOLE), *map(_key, cells)]
        kept, images, places, left_out = [], [], [], 0
        for line in logged:
            for place, part in enumerate(line["parts"]):
                read = part["read"]
                if all(key in read and read[key][against] is not None for key in needed):
                    kept.append(part)
                    images.append(line["image"])
                    places.append(place)
                else:
                    left_out += 1
        return cls(
            lines=tuple(kept), images=tuple(images), places=tuple(places), left_out=left_out, against=against
        )

    def ranks(self, cell: Cell) -> tuple[Float[ndarray, "instance layer"], Float[ndarray, "instance layer"]]:
        """The ranks over the parts, and those that they are set against."""
        read = [line["read"][_key(cell)] for line in self.lines]
        return np.array([one["rank"] for one in read]), np.array([one[self.against] for one in read])

    def readable(self, cell: Cell, scale: Scale, vocabulary: int) -> Float[ndarray, "instance layer"]:
        """On a scale whose zero means nothing."""
        ranks, control = self.ranks(cell)
        return readability(ranks, scale=scale, control=control, vocabulary=vocabulary)


def lens_compensation(
    logged: Sequence[Mapping[str, Any]],
    arms: Sequence[tuple[str, Sequence[str]]],
    *,
    scale: Scale,
    vocabulary: int,
    seed: int,
    against: Against = "control",
) -> dict[str, Any]:
    """The 2x2 of the main arm, with its controls and windows, read by the lens.

    Args:
        logged: the lines of `knockouts.jsonl`.
        arms: names and cells, the main one first.
        scale: of readability.
        vocabulary: tokens that were ranked.
        seed: of the intervals.
        against: what ranks are set against; parts that lack it are left out.
    """
    (main, cells), *others = arms
    found = Instances.of(logged, [(name, cell) for name, own in arms for cell in own], against=against)
    if len(set(found.images)) < LEAST:
        return _nothing(found)

    def read(name: str, own: Sequence[str]) -> Arm:
        values = {cell: found.readable((name, cell), scale, vocabulary) for cell in own}
        return Arm(
            name=name,
            vision_cut=values.get(VISION),
            language_cut=values.get(LANGUAGE),
            both_cut=values.get(BOTH),
        )

    layers = found.ranks(WHOLE)[0].shape[1]
    readouts = Readouts(
        intact=found.readable(WHOLE, scale, vocabulary),
        main=read(main, cells),
        images=found.images,
        layers=tuple(range(layers)),
        scale=scale,
        controls=tuple(read(name, own) for name, own in others),
    )
    done = compensation(readouts, seed=seed)
    return {
        **done.to_dict(),
        "against": against,
        "left_out": found.left_out,
        "words": _words(done, layers - 1),
    }


def _words(done: Compensation, layer: int) -> str:
    return summary(done, layer)


def probe_compensation(
    logged: Sequence[Mapping[str, Any]],
    states: Mapping[tuple[str, int], Mapping[str, ndarray]],
    names: Mapping[str, Sequence[str]],
    *,
    layers: Sequence[int],
    seed: int,
) -> dict[str, Any]:
    """The same 2x2 read by the linear part probe, trained on intact states and trained on the cell's own.

    Args:
        logged: the lines of `knockouts.jsonl`.
        states: by picture and part, the arrays of `states_of` without the part's number.
        names: of each object the names of its parts, among which the probe picks.
        layers: to read.
        seed: of folds and intervals.
    """
    cells = [("main", cell) for cell in CELLS]
    found = Instances.of(logged, cells, against="rank")
    if len(set(found.images)) < 2 * LEAST or len({line["part"] for line in found.lines}) < 2:
        return _nothing(found)
    own = [states[image, place] for image, place in zip(found.images, found.places, strict=True)]

    def features_of(layer: int) -> Features:
        keys = {"intact": _key(WHOLE), **{cell: _key(("main", cell)) for cell in CELLS}}
        return {name: np.stack([one[key][layer] for one in own]) for name, key in keys.items()}

    parts = [line["part"] for line in found.lines]
    options = [tuple(dict.fromkeys([*names[line["object"]], line["part"]])) for line in found.lines]
    folds = min(5, len(set(found.images)))
    read = probe_parts(features_of, layers, parts, found.images, options=options, folds=folds, seed=seed)
    block: dict[str, Any] = {"left_out": found.left_out, "folds": folds, "parts": len(set(parts))}
    for training, by_cell in read.items():
        values = {cell: one.readability() for cell, one in by_cell.items()}
        readouts = Readouts(
            intact=values["intact"],
            main=Arm(
                name="main", vision_cut=values[VISION], language_cut=values[LANGUAGE], both_cut=values[BOTH]
            ),
            images=found.images,
            layers=tuple(layers),
            scale="accuracy",
        )
        done = compensation(readouts, seed=seed)
        block[training] = {**done.to_dict(), "words": _words(done, layers[-1])}
    return block


def dose_curves(
    logged: Sequence[Mapping[str, Any]],
    plans: Sequence[DosePlan],
    *,
    layer: int,
    scale: Scale,
    vocabulary: int,
    seed: int,
) -> list[dict[str, Any]]:
    """What is left at each dose, read by the lens at one layer."""
    curves = []
    for plan in plans:
        cells = [(arm.name, plan.cell) for arm in plan.arms]
        found = Instances.of(logged, cells)
        if len(set(found.images)) < LEAST:
            curves.append({"name": plan.name, **_nothing(found)})
            continue
        doses = [LayerDose(name=f"{share:.3f}", share=share, layers=()) for share in plan.shares]
        curve = dose_curve(
            doses,
            np.stack([found.readable(cell, scale, vocabulary)[:, layer] for cell in cells]),
            found.readable(WHOLE, scale, vocabulary)[:, layer],
            found.images,
            seed=seed,
        )
        curves.append({"name": plan.name, "layer": layer, **curve.to_dict(), "left_out": found.left_out})
    return curves


def _nothing(found: Instances) -> dict[str, Any]:
    """Why there is no result."""
    return {
        "n": len(found.lines),
        "images": len(set(found.images)),
        "left_out": found.left_out,
        "why": f"{len(found.lines)} parts in {len(set(found.images))} pictures were read in every cell, too few for an interval",
    }
