"""An encoder's patterns beside a VLM's, from two logs."""

from collections.abc import Sequence
from typing import Any

from eyechart.core.errors import UserError
from eyechart.score.correlate import correlate
from eyechart.score.joining import units_of
from eyechart.score.logged import Log, read_lines
from eyechart.score.series import Series, series_of_answers, series_of_counts, series_of_matches


def beside_encoder(
    encoders: Sequence[tuple[str, Log]], models: Sequence[tuple[str, Log]], *, seed: int = 0
) -> tuple[list[dict[str, Any]], list[str]]:
    """The correlation over patterns of every encoder with every model, and what could not be correlated and why."""
    found, notes = [], []
    for encoder in encoders:
        for model in models:
            try:
                told = correlate(_series(*encoder), _series(*model), seed=seed)
            except UserError as error:
                notes.append(f"{encoder[0]} and {model[0]} are not correlated: {error}")
            else:
                found.append({"encoder": encoder[0], "model": model[0], "correlated": told.to_dict()})
    return found, notes


def _series(name: str, log: Log) -> Series:
    if log.source == "eyechart":
        rows = read_lines(log.path)
        return series_of_matches(name, rows) if log.kind == "encoder" else series_of_answers(name, rows)
    units = units_of(log.answers, rule=str(log.benchmark.get("rule", "")))
    by_id = {one.id: one for one in log.answers}
    counts: dict[str, tuple[int, int]] = {}
    for group in units.groups.values():
        pattern = by_id[group[0]].pattern
        if pattern is None:
            raise UserError(f"{log.path} tells no pattern of its items")
        hits, n = counts.get(pattern, (0, 0))
        counts[pattern] = (hits + all(by_id[one].right for one in group), n + 1)
    return series_of_counts(name, counts)
