"""A localisation in lines of text for people: every number with its n and its interval, controls beside it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def lines_of(results: Mapping[str, Any]) -> list[str]:
    """What a run's `results.json` comes to."""
    block = results["eyechart"]
    return [block["model"]["id"], *_lines(block)]


def _lines(block: Mapping[str, Any]) -> Iterator[str]:
    if "labels" in block and block["labels"]["refused"]:
        words = ", ".join(one["word"] for one in block["labels"]["refused"])
        yield f"  not read (no single token under the rule {block['labels']['rule']!r}): {words}"
    if "lens" in block:
        yield from _lens(block["lens"])
    if "proofs" in block:
        yield from _proofs(block["proofs"])
    if "knockout" in block:
        yield from _knockout(block["knockout"])
    for curve in block.get("dose", ()):
        yield from _curve(curve)
    if "probes" in block:
        yield from _probes(block["probes"])


def _lens(lens: Mapping[str, Any]) -> Iterator[str]:
    yield "names of parts under the logit lens (best rank over the part, beside regions as large elsewhere):"
    if "why" in lens:
        yield f"  {lens['why']}"
        return
    for one in lens["by_layer"]:
        yield f"  layer {one['layer']:>2}: {_times(one['random'])}; beside wrong names {_times(one['wrong'])}"
    if lens["not_ranked"]:
        yield f"  {len(lens['not_ranked'])} parts have no rank (listed in lens.jsonl)"


def _times(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return f"undefined, n={one['n']} ({one['note']})"
    if one["low"] is None:
        return f"{one['value']:.2f} times better, n={one['n']} ({one['note']})"
    return (
        f"{one['value']:.2f} times better [{one['low']:.2f}, {one['high']:.2f}], n={one['n']} parts in"
        f" {one['images']} pictures"
    )


def _proofs(proofs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    edges = sum(tower["edges"] for proof in proofs for tower in proof["towers"])
    yield (
        f"knockouts: {len(proofs)} proved to fire ({edges:,} edges carry exactly no weight; nothing leaks; idle, all states are"
        " the same to the bit)"
    )


def _knockout(block: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"  note: {note}" for note in block["notes"])
    yield from _compensation("read by the logit lens", block["lens"])
    if "lens_rival" in block:
        yield from _compensation(
            "the same for parts that share mesh and paint with another's, against the other's name",
            block["lens_rival"],
        )
    for training in ("transfer", "refit"):
        if training in block["probe"]:
            yield from _compensation(f"read by a linear part probe, {training}", block["probe"][training])
    if "why" in block["probe"]:
        yield f"read by a linear part probe: {block['probe']['why']}"


def _compensation(title: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{title}:"
    if "why" in found:
        yield f"  {found['why']}"
        return
    yield from (f"  {line}" for line in found["words"].splitlines())
    yield "  layer   intact           vision cut       language cut     both cut         recovered"
    for place, layer in enumerate(found["layers"]):
        here = found["arms"][found["main"]][place]
        cells = [
            found["intact"][place],
            *(here["means"][name] for name in ("vision cut", "language cut", "both cut")),
        ]
        row = " ".join(f"{_short(one):<16}" for one in cells)
        yield f"  {layer:>5}   {row} {_ratio(here['recovered'])}"


def _curve(curve: Mapping[str, Any]) -> Iterator[str]:
    yield f"dose, {curve['name']}:"
    if "why" in curve:
        yield f"  {curve['why']}"
        return
    yield f"  share 0.000: {_short(curve['intact'])}, n={curve['n']} parts in {curve['images']} pictures"
    for point in curve["points"]:
        yield f"  share {point['share']:.3f}: {_short(point['mean'])}, retained {_ratio(point['retained'])}"


def _short(one: Mapping[str, Any]) -> str:
    return f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"


def _ratio(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    if one["value"] is None or one["low"] is None:
        return "undefined" if one["value"] is None else "no interval"
    return f"{one['value']:.0%} [{one['low']:.0%}, {one['high']:.0%}]"


def _probes(block: Mapping[str, Any]) -> Iterator[str]:
    yield "where each pattern is lost (probes along the model, and its answers):"
    if block["missing"]:
        yield f"  {block['missing']}"
        return
    for one in block["patterns"]:
        yield f"  {one['pattern']:<14} {one['verdict']:<22} {one['reason']}"
