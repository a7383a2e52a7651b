"""Do the zoo's VLMs go wrong where their CLIPs do? Both on the same pairs of the world, pattern by pattern and pair by pair.

    python -m eyechart.recipes.correlation_study build/studies/correlation docs/studies

Each CLIP matches statements with pictures as MMVP-VLM has it; the VLM that looks through it answers the questions on
the same pictures. What is done is kept, a line an item, under the weights' hash: the same command goes on, and asks a
model that was trained again anew. Tables go between the marks in `correlation.md`, beside it raw results and a picture.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eyechart.core.errors import UserError
from eyechart.core.files import JsonLines, write_bytes, write_json
from eyechart.models import load_encoder, load_vlm
from eyechart.models.sources import fingerprint, parse_source
from eyechart.recipes.correlation_tables import Found, Seen, tables
from eyechart.report.correlation import Dot, Panel, correlation_picture
from eyechart.score import load_benchmark
from eyechart.score.answers import ask_here
from eyechart.score.correlate import correlate, correlations
from eyechart.score.encoders import Matcher, chunks_of
from eyechart.score.match_scores import WAYS
from eyechart.score.matches import load_matches
from eyechart.score.pairwise import Association, same_pairs
from eyechart.score.pooled import pool
from eyechart.score.series import Series
from eyechart.score.variants import Variant, put
from eyechart.train.loop import Report
from eyechart.world.sets_pairs import render_pairs
from eyechart.world.sets_plan import PairPlan

NAMES = ("biased", "told-all", "permuted")
"""Of the zoo's CLIPs and of the VLMs that look through them: `clip-biased` and `llava-biased`."""

PAIRS = 200
"""Of a pattern."""

SCENE_SEED = 33
"""Of the test split: cards (7) and other studies have scenes of their own."""

RAW, PICTURE, PAGE = "correlation.json", "correlation.svg", "correlation.md"
START, END = "<!-- figures: written by the recipe -->", "<!-- end of figures -->"


def study(
    data: Path,
    *,
    names: Sequence[str] = NAMES,
    pairs: int = PAIRS,
    batch: int = 32,
    workers: int = 1,
    report: Report | None = None,
) -> list[Seen]:
    """Score and ask what has not been, and read it all.

    Args:
        data: where pictures and logs are kept.
        names: which of the zoo.
        pairs: of each pattern.
        batch: pictures or questions at a time.
        workers: processes that render.
        report: told how far each stage is.
    """
    report = report or (lambda stage, done, total: None)
    plan = PairPlan(split="test", pairs=pairs, seed=SCENE_SEED)
    folder = render_pairs(data / f"pairs-{pairs}", plan, workers=workers, progress=report)
    return [
        Seen(
            name=name,
            matches=_matched(f"clip-{name}", folder, data, batch, report),
            answers=_answered(f"llava-{name}", folder, data, batch, report),
            sha256=(_weights(f"clip-{name}"), _weights(f"llava-{name}")),
        )
        for name in names
    ]


def _matched(
    name: str, folder: Path, data: Path, batch: int, report: Report
) -> tuple[Mapping[str, Any], ...]:
    found = load_matches(folder / "captions.parquet")
    log = _log(data, name, found.sha256)
    missing = [match for match in found.matches if match.id not in log]
    if missing:
        matcher = Matcher.of(load_encoder(f"zoo:{name}"), prefix=found.prefix, batch=batch)
        for chunk in chunks_of(missing, batch):
            for row in matcher.rows(chunk):
                log.append(row)
            report(name, len(log), len(found.matches))
    rows = tuple(log)
    log.close()
    return rows


def _answered(
    name: str, folder: Path, data: Path, batch: int, report: Report
) -> tuple[Mapping[str, Any], ...]:
    found = load_benchmark(folder)
    log = _log(data, name, found.rows_sha256)
    if len(log) < len(found.items):
        vlm, asked = load_vlm(f"zoo:{name}"), put(found, Variant())
        ask_here(vlm, asked, log, ask="generate", max_new_tokens=8, batch=batch, progress=report, stage=name)
    rows = tuple(log)
    log.close()
    return rows


def _log(data: Path, name: str, of: str) -> JsonLines:
    return JsonLines(data / f"{name}-{_weights(name)[:12]}-{of[:12]}.jsonl", key="doc_id")


def _weights(name: str) -> str:
    return str(fingerprint(parse_source(f"zoo:{name}")).sha256)


def correlated(seen: Sequence[Seen], *, resamples: int = 4000) -> Found:
    """Correlate all there is.

    Raises:
        UserError: there are fewer than two models, or a series is the same in all patterns.
    """
    own = tuple(correlate(one.encoder(), one.model(), resamples=resamples) for one in seen)
    others = {
        (first.encoder().name, second.model().name): _pearson(first.encoder(), second.model())
        for first in seen
        for second in seen
    }
    within = {
        (first.encoder().name, second.model().name): _within(first.encoder(), second.model())
        for first in seen
        for second in seen
    }
    ways = {way: {one.model().name: _pearson(one.encoder(way), one.model()) for one in seen} for way in WAYS}
    return Found(own=own, others=others, within=within, ways=ways, pooled=pool(own, resamples=resamples))


def _pearson(encoder: Series, model: Series) -> float | None:
    """None where one of the two is the same in all patterns."""
    shares = [[[one.rate(name).value for name in encoder.patterns]] for one in (encoder, model)]
    found = float(correlations(np.array(shares[0]), np.array(shares[1]), "pearson")[0])
    return None if math.isnan(found) else found


def _within(encoder: Series, model: Series) -> Association:
    keys = sorted(encoder.pairs.keys() & model.pairs.keys())
    first, second = ([one.pairs[key].right for key in keys] for one in (encoder, model))
    return same_pairs(first, second, [encoder.pairs[key].pattern for key in keys]).phi_within


def raw(seen: Sequence[Seen], found: Found) -> dict[str, Any]:
    """The raw results: what became of each pair, in the set's order, and all correlations."""
    return {
        "scenes": {"split": "test", "seed": SCENE_SEED},
        "models": [
            {
                "name": one.name,
                "sha256": {"encoder": one.sha256[0], "model": one.sha256[1]},
                "encoder": {way: _bits((row["doc_id"], row[way]) for row in one.matches) for way in WAYS},
                "model": _bits((row["doc_id"], row["right"]) for row in one.answers),
                "unread": sum(row["outcome"] == "unread" for row in one.answers),
            }
            for one in seen
        ],
        "own": [one.to_dict() for one in found.own],
        "others": [
            {"encoder": a, "model": b, "pearson": r, "phi_within": asdict(found.within[a, b])}
            for (a, b), r in found.others.items()
        ],
        "ways": {way: dict(values) for way, values in found.ways.items()},
        "pooled": found.pooled.to_dict(),
    }


def _bits(rows: Iterator[tuple[str, int]]) -> str:
    return "".join("01"[right] for _, right in sorted(rows))


def picture(found: Found) -> str:
    """A panel for each VLM."""
    panels = []
    for one in found.own:
        dots = tuple(
            Dot(
                name=point.pattern,
                x=point.encoder.value,
                x_low=point.encoder.low,
                x_high=point.encoder.high,
                y=point.model.value,
                y_low=point.model.low,
                y_high=point.model.high,
            )
            for point in one.points
        )
        panels.append(
            Panel(
                title=f"{one.model} over {one.encoder}",
                lines=(str(one.pearson), str(one.spearman)),
                x_name=f"{one.encoder}: statements pick their pictures, % of pairs",
                y_name=f"{one.model}: both answers right, % of pairs",
                dots=dots,
            )
        )
    return correlation_picture(panels)


def spliced(page: str, text: str) -> str:
    """The page with new figures between its marks.

    Raises:
        UserError: it has not both marks, each once and in order.
    """
    head, first, rest = page.partition(START)
    _, second, tail = rest.partition(END)
    if not first or not second:
        raise UserError(f"the page has no place for figures: a line {START!r} and after it a line {END!r}")
    return f"{head}{START}\n\n{text}\n\n{END}{tail}"


def main(data: Path, docs: Path) -> None:
    """Ask what has not been asked, and write raw results, picture and tables."""
    seen = study(data)
    found = correlated(seen)
    write_json(docs / RAW, raw(seen, found), indent=None)
    write_bytes(docs / PICTURE, picture(found).encode())
    page = docs / PAGE
    before = page.read_text("utf8") if page.is_file() else f"{START}\n{END}\n"
    write_bytes(page, spliced(before, tables(seen, found)).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
