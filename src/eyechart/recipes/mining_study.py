"""Does mining find pairs that differ in a fact the captions were silent about? Measured on the world, where it is known.

    python -m eyechart.recipes.mining_study build/studies/mining

Pairs of the selection and the test split are rendered as siblings and as twins, and embedded under three CLIPs that
differ in what their captions told and two encoders that saw no words. Thresholds are chosen on selection scenes and
reported on test scenes. Every step keeps what an earlier start has done; `results.json` holds all figures.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from eyechart.core.runs import RunFolder
from eyechart.find.embed import View
from eyechart.models import load_encoder
from eyechart.recipes.clip import RATES
from eyechart.recipes.mine import view_of
from eyechart.recipes.mining_layout import what_of_layout_moves
from eyechart.recipes.mining_lists import (
    Joined,
    Score,
    Wishes,
    by_chance,
    found_more,
    joined,
    listed_at,
    most_alike,
    score,
    without,
)
from eyechart.recipes.mining_pictures import SIZE, Collection, Told, collection, silent
from eyechart.recipes.mining_scores import (
    AllPairs,
    ordered_as_told,
    partner_ranks,
    standing_out,
    what_moves,
)
from eyechart.world.captions import BIASED
from eyechart.world.facts import PATTERNS
from eyechart.world.sets import Progress
from eyechart.world.sets_plan import PairPlan, draw_pairs

SEMANTIC = {"clip-biased": "biased", "clip-told-all": "told_all", "clip-permuted": "permuted"}
"""The encoders that are examined, and what their captions told."""

REFERENCE = ("two-view", "mae")
CONTROL = "clip-told-all"
RELATIONS = ("siblings", "twins")
MIN_SEMANTIC = ("p90", "p95", "p98", "p99", "p99.5", "p99.9")
MAX_REFERENCE = ("p10", "p20", "p40", "p60", "p80")
GRID = tuple(
    Wishes(min_semantic=low, max_reference=high, centred=centred)
    for centred in (False, True)
    for low in MIN_SEMANTIC
    for high in MAX_REFERENCE
)
FIXED = {
    "named": Wishes(min_semantic="p99.5", max_reference="p60", centred=False),
    "published": Wishes(min_semantic="0.95", max_reference="0.6", centred=False),
}
"""Thresholds that were there before this study; the published ones are cosines."""

Job = tuple[str, Callable[[], Any]]


def study(
    data: Path,
    *,
    pairs: int = 100,
    layouts: int = 30,
    grid: tuple[Wishes, ...] = GRID,
    batch_size: int = 32,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """All of it, or what is missing of it.

    Args:
        data: where pictures, vectors and results are kept.
        pairs: of each pattern, in each split.
        layouts: of these, the pairs of each pattern that are rendered with one part of their layout changed.
        grid: the thresholds to choose from.
        batch_size: pictures that are embedded at once.
        progress: told how far each stage is.
    """
    encoders = {name: load_encoder(f"zoo:{name}") for name in (*SEMANTIC, *REFERENCE)}
    views = {name: view_of(encoder) for name, encoder in encoders.items()}
    known = {
        (split, relation): collection(
            data,
            PairPlan(split=split, pairs=pairs, relation=relation),
            views,
            batch_size=batch_size,
            progress=progress,
        )
        for split, relation in product(("selection", "test"), RELATIONS)
    }
    config = {
        "what": "mining study",
        "pairs": pairs,
        "layouts": layouts,
        "grid": [asdict(wishes) for wishes in grid],
        "encoders": {name: view.key for name, view in views.items()},
        "pictures": {" ".join(name): _digest(each.hashes) for name, each in known.items()},
    }
    with RunFolder.open(data / "results", config=config, command=sys.argv) as run:
        lines = run.jsonl("found.jsonl", key="job")
        found = {line["job"]: line["found"] for line in lines}
        jobs = [*_grids(known, grid), *_tests(known, found), *_free(known)]
        jobs.append(("layout", partial(_layout, views, layouts, batch_size, progress)))
        for done, (name, work) in enumerate(jobs, start=1):
            if name not in found:
                found[name] = work()
                lines.append({"job": name, "found": found[name]})
            progress("measuring", done, len(jobs))
        results = {**found, "order": orders(found)}
        if not run.finished:
            run.write_json("results.json", results)
            run.finish()
    return results


def _digest(hashes: Sequence[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _silent_under(semantic: str) -> tuple[str, ...]:
    """What captions were silent about; for the control, that was told everything, what the biased ones were."""
    return silent(RATES[SEMANTIC[semantic]]) or silent(BIASED)


def _told(known: Collection, semantic: str) -> Told:
    rates = RATES[SEMANTIC[semantic]]
    return Told.by(known.facts, rates if silent(rates) else BIASED)


def _grids(known: Mapping[tuple[str, str], Collection], grid: tuple[Wishes, ...]) -> Iterator[Job]:
    """Lists at all thresholds, on selection scenes."""
    for relation, semantic, reference in product(RELATIONS, SEMANTIC, REFERENCE):
        work = partial(_grid, known["selection", relation], semantic, reference, grid)
        yield f"grid {relation} {semantic} {reference}", work


def _grid(known: Collection, semantic: str, reference: str, grid: tuple[Wishes, ...]) -> list[dict[str, Any]]:
    told, mute = _told(known, semantic), _silent_under(semantic)
    lowest = min((wishes.min_semantic for wishes in grid), key=lambda text: float(text.removeprefix("p")))
    rows = []
    for centred in sorted({wishes.centred for wishes in grid}):
        both = joined(known, semantic, reference, lowest=lowest, centred=centred)
        for wishes in grid:
            if wishes.centred == centred:
                found = score(known, listed_at(both, wishes).pairs, told, mute)
                rows.append({"wishes": asdict(wishes), **found.to_dict()})
    return rows


def chosen(rows: list[dict[str, Any]]) -> Wishes:
    """The thresholds with the best F1 on true pairs; the first of equals."""
    return Wishes(**max(rows, key=lambda row: float(row["f1"]))["wishes"])


def _tests(known: Mapping[tuple[str, str], Collection], found: Mapping[str, Any]) -> Iterator[Job]:
    """Lists on test scenes, at the thresholds chosen and at the fixed ones, with what they are to be read beside."""
    for relation, semantic, reference in product(RELATIONS, SEMANTIC, REFERENCE):
        for how in ("chosen", *FIXED):
            names = f"{relation} {semantic} {reference}"
            work = partial(_test, known["test", relation], semantic, reference, how, found, f"grid {names}")
            yield f"{how} {names}", work


def _test(
    known: Collection, semantic: str, reference: str, how: str, found: Mapping[str, Any], grid: str
) -> dict[str, Any]:
    wishes = FIXED.get(how) or chosen(found[grid])
    told, mute = _told(known, semantic), _silent_under(semantic)

    def both_of(first: str, second: str) -> Joined:
        return joined(known, first, second, lowest=wishes.min_semantic, centred=wishes.centred)

    both = both_of(semantic, reference)
    selected = listed_at(both, wishes)
    listed, free = selected.pairs, joined(known, semantic, reference, lowest="p90", centred=wishes.centred)
    nearest = joined(known, reference, semantic, lowest="p90", centred=wishes.centred)
    lists = {
        "mined": listed,
        "semantic alone": most_alike(free, len(listed)),
        "reference alone": most_alike(nearest, len(listed)),
    }
    more = None
    if semantic != CONTROL:
        control = listed_at(both_of(CONTROL, reference), wishes).pairs
        lists["not under the control"] = without(listed, control)
        more = found_more(known, control, listed, mute).to_dict()
    scored: dict[str, Score] = {name: score(known, pairs, told, mute) for name, pairs in lists.items()}
    return {
        "wishes": asdict(wishes),
        "more than under the control": more,
        "set apart": selected.set_apart,
        "chance": by_chance(known, told, mute),
        **{name: each.to_dict() for name, each in scored.items()},
    }


def _free(known: Mapping[tuple[str, str], Collection]) -> Iterator[Job]:
    """What needs no threshold, on test scenes."""
    for relation, semantic, reference, centred in product(RELATIONS, SEMANTIC, REFERENCE, (False, True)):
        work = partial(_standing_out, known["test", relation], semantic, reference, centred)
        yield f"area {relation} {semantic} {reference}{' centred' * centred}", work
    siblings, twins = known["test", "siblings"], known["test", "twins"]
    for name in (*SEMANTIC, *REFERENCE):
        mute = _silent_under(name) if name in SEMANTIC else silent(BIASED)
        yield f"partners {name}", partial(partner_ranks, siblings, name, mute)
        yield f"moves {name}", partial(what_moves, siblings, twins, name)


def _standing_out(known: Collection, semantic: str, reference: str, centred: bool) -> dict[str, Any]:  # noqa: FBT001 (one reader, above)
    pairs = AllPairs.of(known, semantic, reference, centred=centred)
    return standing_out(pairs, _silent_under(semantic))


def _layout(views: Mapping[str, View], count: int, batch_size: int, progress: Progress) -> dict[str, Any]:
    pairs = draw_pairs(PairPlan(split="test", pairs=count))
    return what_of_layout_moves(pairs, views, size=SIZE, batch_size=batch_size, progress=progress)


def orders(found: Mapping[str, Any]) -> dict[str, Any]:
    """Whether patterns that captions tell seldom are found more often: Spearman's correlation over the nine."""
    rows: dict[str, Any] = {}
    for semantic in ("clip-biased", "clip-permuted"):
        measures = {}
        for relation, reference in product(RELATIONS, REFERENCE):
            lists, control = (found[f"chosen {relation} {each} {reference}"] for each in (semantic, CONTROL))
            name = f"{relation}, {reference}, recall"
            measures[name] = _values(lists["mined"]["patterns"])
            measures[f"{name} under the control"] = _values(control["mined"]["patterns"])
            measures[f"{name} of semantic alone"] = _values(lists["semantic alone"]["patterns"])
        for relation in RELATIONS:
            areas = [
                _values(found[f"area {relation} {each} two-view"]["semantic"]) for each in (semantic, CONTROL)
            ]
            measures[f"{relation}, area"] = areas[0]
            measures[f"{relation}, area minus control"] = _minus(*areas)
        moves = [_values(found[f"moves {each}"]["layout moves more"]) for each in (semantic, CONTROL)]
        measures["layout moves more"] = moves[0]
        measures["layout moves more, minus control"] = _minus(*moves)
        for name, values in measures.items():
            seen = ordered_as_told(RATES[SEMANTIC[semantic]], values)
            rows[f"{semantic}, {name}"] = None if seen is None else seen.to_dict()
    return rows


def _values(rates: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {pattern: float(rates[pattern]["value"]) for pattern in PATTERNS}


def _minus(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {pattern: first[pattern] - second[pattern] for pattern in PATTERNS}


if __name__ == "__main__":
    study(Path(sys.argv[1]))
