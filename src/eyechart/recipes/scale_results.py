"""What the scale study found, from its raw results: tables in Markdown and a picture.

    python -m eyechart.recipes.scale_results build/studies/scale docs/studies

The same pairs are put to every CLIP, so differences are tested on pairs; slopes over the grid have intervals from drawing
pairs again, the CLIPs as they are. One training each: what another seed would give is not in these intervals.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from numpy import ndarray

from eyechart.core.files import write_bytes, write_json
from eyechart.core.stats import PairedTest, holm, mcnemar_exact, pearson, spearman, wilson
from eyechart.recipes.scale import AMOUNTS, ARMS, SIDES, WIDTHS, Arm
from eyechart.world.facts import PATTERNS

WAY = "text_to_image"
"""The official score of MMVP-VLM."""

RAW = "scale.json"
DRAWS = 4000
FULL = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """By how much a pattern's pair accuracy changes over the grid, with an interval from drawing pairs again."""

    per_width: tuple[float, float, float]
    """For twice the width: value, low, high."""

    per_data: tuple[float, float, float]
    """For four times the scenes."""


def gathered(data: Path) -> dict[str, dict[str, Any]]:
    """The results of all arms that are done, by name, in the order of `ARMS`."""
    found: dict[str, dict[str, Any]] = {}
    for arm in ARMS:
        path = data / f"result-{arm.name}.jsonl"
        lines = path.read_text("utf8").splitlines() if path.is_file() else []
        if lines:  # none while it is trained
            found[arm.name] = json.loads(lines[0])
    return found


def hits_of(result: Mapping[str, Any], pattern: str) -> Bool[ndarray, " pair"]:
    """What became of a pattern's pairs; of all pairs for `all`."""
    patterns = PATTERNS if pattern == "all" else (pattern,)
    return np.array([bit == "1" for name in patterns for bit in result["hits"][name][WAY]])


def slopes(results: Mapping[str, Mapping[str, Any]], pattern: str, *, seed: int = 0) -> Slope:
    """Least squares of a pattern's pair accuracy on the logarithms of width and of scenes, over the grid.

    Raises:
        KeyError: an arm of the grid is missing.
    """
    grid = [Arm(width=width, scenes=scenes) for width in WIDTHS for scenes in AMOUNTS]
    hits = np.stack([hits_of(results[arm.name], pattern) for arm in grid]).astype(float)
    weights = _weights([np.log2(arm.width) for arm in grid], [np.log(arm.scenes) / np.log(4) for arm in grid])
    value = weights @ hits.mean(axis=1)
    rng = np.random.default_rng(seed)
    pairs = hits.shape[1]
    counts = rng.multinomial(pairs, np.full(pairs, 1 / pairs), size=DRAWS)
    drawn = np.quantile(counts @ (weights @ hits).T / pairs, [0.025, 0.975], axis=0)
    both = [(float(value[place]), float(drawn[0, place]), float(drawn[1, place])) for place in (0, 1)]
    return Slope(per_width=both[0], per_data=both[1])


def _weights(widths: Sequence[float], amounts: Sequence[float]) -> Float[ndarray, "2 arm"]:
    """The two slopes of a plane through the arms' values, as weights on the values."""
    design = np.column_stack([np.ones(len(widths)), widths, amounts])
    return np.asarray(np.linalg.pinv(design)[1:])


def changes(
    results: Mapping[str, Mapping[str, Any]], first: Arm, second: Arm
) -> dict[str, tuple[PairedTest, float]]:
    """From one arm to another by pattern: exact McNemar on the same pairs, and p after Holm over the patterns."""
    tests = {
        pattern: mcnemar_exact(hits_of(results[first.name], pattern), hits_of(results[second.name], pattern))
        for pattern in PATTERNS
    }
    adjusted = holm([test.p_value for test in tests.values()])
    return {pattern: (test, p) for (pattern, test), p in zip(tests.items(), adjusted, strict=True)}


def foretold(results: Mapping[str, Mapping[str, Any]], pattern: str, by: str) -> dict[str, Any]:
    """Whether zero-shot accuracy foretells a pattern's score over all CLIPs: two correlations, each with its interval."""
    ahead = [result["zero_shot"][by]["value"] for result in results.values()]
    score = [float(hits_of(result, pattern).mean()) for result in results.values()]
    if len(set(score)) == 1 or len(set(ahead)) == 1:
        return {"pearson": None, "spearman": None}
    return {"pearson": pearson(ahead, score, seed=0), "spearman": spearman(ahead, score, seed=0)}


def tables(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All tables in Markdown.

    Raises:
        KeyError: an arm is missing.
    """
    return "\n\n".join(
        "\n".join(part)
        for part in (
            ["### Every CLIP", "", *_scores(results)],
            ["### What width and data change", "", *_changes(results)],
            ["### Whether zero-shot accuracy foretells it", "", *_foretold(results)],
            ["### Resolution", "", *_resolution(results)],
        )
    )


def _scores(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield from _head("CLIP", "parameters", "kind", "colour", *PATTERNS, "all")
    for result in results.values():
        arm = Arm(**result["arm"])
        named = f"width {arm.width}, {arm.scenes:,} scenes" + ("" if arm.side == FULL else f", {arm.side} px")
        zero_shot = [_rate(result["zero_shot"][name]) for name in ("kind", "color")]
        rates = []
        for pattern in (*PATTERNS, "all"):
            hits = hits_of(result, pattern)
            rates.append(_rate(wilson(int(hits.sum()), len(hits)).to_dict()))
        yield _row(named, f"{result['parameters'] / 1e6:.2f} M", *zero_shot, *rates)


def _changes(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    smallest, largest = Arm(width=WIDTHS[0], scenes=AMOUNTS[0]), Arm(width=WIDTHS[-1], scenes=AMOUNTS[-1])
    tests = changes(results, smallest, largest)
    yield from _head(
        "pattern", "twice the width", "four times the scenes", "smallest to largest", "p after Holm"
    )
    for pattern in PATTERNS:
        slope, (test, p) = slopes(results, pattern), tests[pattern]
        yield _row(pattern, _points(slope.per_width), _points(slope.per_data), _change(test), f"{p:.2g}")
    slope = slopes(results, "all")
    yield _row("all", _points(slope.per_width), _points(slope.per_data), "", "")


def _foretold(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    found = {pattern: foretold(results, pattern, "kind") for pattern in PATTERNS}
    known = [pattern for pattern in PATTERNS if found[pattern]["spearman"] is not None]
    adjusted = dict(zip(known, holm([found[pattern]["spearman"].p_value for pattern in known]), strict=True))
    yield from _head("pattern", "Pearson", "Spearman", "p after Holm")
    for pattern in PATTERNS:
        if pattern in adjusted:
            both = [_correlation(found[pattern][kind]) for kind in ("pearson", "spearman")]
            yield _row(pattern, *both, f"{adjusted[pattern]:.2g}")
        else:
            yield _row(pattern, "undefined: the same score in all", "", "")


def _resolution(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    full = Arm(width=WIDTHS[-1], scenes=AMOUNTS[-1])
    lower = [Arm(width=full.width, scenes=full.scenes, side=side) for side in SIDES]
    tests = [changes(results, arm, full) for arm in lower]
    yield from _head("pattern", *(f"{arm.side} to {FULL} px | p after Holm" for arm in lower))
    for pattern in PATTERNS:
        cells = [f"{_change(test[pattern][0])} | {test[pattern][1]:.2g}" for test in tests]
        yield _row(pattern, *cells)


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield _row(*["---"] * sum(name.count("|") + 1 for name in names))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rate(rate: Mapping[str, Any]) -> str:
    return f"{rate['value']:.0%} [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"


def _points(value: tuple[float, float, float]) -> str:
    return f"{100 * value[0]:+.1f} [{100 * value[1]:.1f}, {100 * value[2]:.1f}]"


def _change(test: PairedTest) -> str:
    return _points((test.difference, test.low, test.high))


def _correlation(found: Any) -> str:
    interval = "no interval" if found.low is None else f"[{found.low:.2f}, {found.high:.2f}]"
    return f"{found.value:.2f} {interval}, p={found.p_value:.2g}, n={found.n}"


def picture(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A panel for each pattern: pair accuracy over the number of scenes, a line for each width, chance dashed."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots(3, 3, sharex=True, sharey=True)
    for pattern, panel in zip(PATTERNS, axes.flat, strict=True):
        panel.axhline(25, color="0.6", linestyle="--", linewidth=1)
        for place, width in enumerate(WIDTHS):
            rates = []
            for scenes in AMOUNTS:
                hits = hits_of(results[Arm(width=width, scenes=scenes).name], pattern)
                rates.append(wilson(int(hits.sum()), len(hits)))
            middle = np.array([100 * rate.value for rate in rates])
            reach = np.abs(np.array([[100 * rate.low, 100 * rate.high] for rate in rates]).T - middle)
            shifted = [scenes * 1.06 ** (place - 1) for scenes in AMOUNTS]
            shade = ("#9ecae1", "#4292c6", "#08306b")[place]
            panel.errorbar(
                shifted, middle, yerr=reach, marker="o", color=shade, label=f"width {width}", capsize=2
            )
        panel.set_title(pattern)
        panel.set_xscale("log")
        panel.set_xticks(AMOUNTS, [f"{scenes:,}" for scenes in AMOUNTS])
        panel.minorticks_off()
        panel.set_ylim(0, 100)
    figure.supxlabel("training scenes")
    figure.supylabel("pairs right, text to image, % (95 % interval; chance dashed)")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(WIDTHS))
    return figure


def main(data: Path, docs: Path) -> None:
    """Gather the raw results, and write them, the picture and the tables."""
    results = gathered(data)
    write_json(docs / RAW, results, indent=None)
    picture(results).savefig(docs / "scale.png", dpi=110)
    write_bytes(data / "tables.md", (tables(results) + "\n").encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
