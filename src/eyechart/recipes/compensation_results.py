"""What the study of compensation found, from its raw results: tables in Markdown and pictures.

    python -m eyechart.recipes.compensation_results docs/studies

reads `compensation.parquet` there. Seeds of stage 2 and pictures are drawn anew for every interval (crossed), pictures alone where a VLM
has one seed. Ratios are of means, and undefined where their denominator may be 0.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from eyechart.core.files import write_bytes
from eyechart.core.stats import (
    Estimate,
    Ratio,
    RunsTest,
    cluster_ratios,
    crossed_mean,
    crossed_ratio,
    sign_flip_test,
)
from eyechart.locate.arms import BOTH, INTACT, LANGUAGE, VISION
from eyechart.recipes.compensation_raw import SCALES, Block, Raw

RAW, TABLES, PICTURE = "compensation.parquet", "compensation-tables.md", "compensation.svg"

FOUR = (INTACT, VISION, LANGUAGE, BOTH)

PART, PATCHES = "part<-rest", "patches<-patches"

COLOURS = {INTACT: "#1b6ca8", VISION: "#d1495b", LANGUAGE: "#8a9a5b", BOTH: "#6b6b6b"}

SHOWN = (
    ("biased", PART),
    ("told-all", PART),
    ("permuted", PART),
    ("biased", PATCHES),
    ("biased-alone", PATCHES),
    ("biased-floor", PART),
)
"""VLMs and cuts of the picture."""

TITLES = {"biased-alone": "ceiling: trained on cut features", "biased-floor": "floor: random blocks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A difference of two means of readability, with what each seed says of it."""

    said: str
    difference: Estimate
    by_seed: tuple[float, ...]
    test: RunsTest
    """Of the seeds' differences."""


def mean(block: Block, sums: Float[ndarray, "seed image"]) -> Estimate | Ratio:
    """The mean over parts, of a cell or of a difference of cells."""
    if len(sums) > 1:
        return crossed_mean(sums, block.sizes, seed=0)
    return cluster_ratios(sums.T, block.sizes[:, None], block.images, seed=0)[0]


def recovered(block: Block, *, both_ways: bool = False) -> Ratio:
    """(vision cut - both cut) / (intact - both cut): of what both cuts take away, what language attention alone can bring back."""
    tail = ", both ways" if both_ways else ""
    cells = block.cells
    top, bottom = cells[VISION + tail] - cells[BOTH + tail], cells[INTACT] - cells[BOTH + tail]
    if len(top) > 1:
        return crossed_ratio(top, bottom, block.sizes, seed=0)
    return cluster_ratios(top.T, bottom.T, block.images, seed=0)[0]


def contrast(said: str, block: Block, sums: Float[ndarray, "seed image"]) -> Contrast:
    """What the differences `sums` (runs x pictures, summed over parts) come to, over all and seed by seed."""
    by_seed = tuple((sums.sum(axis=1) / block.sizes.sum()).tolist())
    found = crossed_mean(sums, block.sizes, seed=0)
    return Contrast(said=said, difference=found, by_seed=by_seed, test=sign_flip_test(by_seed))


def contrasts(raw: Raw, scale: str = "look-alikes") -> Iterator[Contrast]:
    """The study's questions at the last layer, each one a difference in nats.

    Seeds of two arms are paired where both were trained from them on the same data in the same order.
    """
    last, there = raw.layers, set(raw.there())
    for vlm in ("biased", "told-all", "permuted"):
        for cut in (PART, PATCHES):
            if (vlm, cut) in there:
                block = raw.block(vlm, cut, scale, last)
                gain = block.cells[VISION] - block.cells[BOTH]
                yield contrast(f"`{vlm}`, `{cut}`: vision cut minus both cut", block, gain)
    for vlm in ("told-all", "permuted"):
        if {("biased", PART), (vlm, PART)} <= there:
            one, other = _paired(raw, scale, ("biased", PART), (vlm, PART))
            more = (other.cells[VISION] - other.cells[BOTH]) - (one.cells[VISION] - one.cells[BOTH])
            yield contrast(f"the same, `{vlm}` minus `biased`, `{PART}`", one, more)
    if {("biased", PATCHES), ("biased-alone", PATCHES)} <= there:
        one, other = _paired(raw, scale, ("biased", PATCHES), ("biased-alone", PATCHES))
        yield contrast(
            "ceiling minus `biased`, both under the vision cut", one, other.cells[VISION] - one.cells[VISION]
        )
        yield contrast("ceiling, vision cut minus both cut", other, other.cells[VISION] - other.cells[BOTH])
    if {("biased", PART), ("biased-floor", PART)} <= there:
        one, other = _paired(raw, scale, ("biased", PART), ("biased-floor", PART))
        yield contrast("`biased` minus floor, both intact", one, one.cells[INTACT] - other.cells[INTACT])


def _paired(raw: Raw, scale: str, first: tuple[str, str], second: tuple[str, str]) -> tuple[Block, Block]:
    """Two VLMs at the last layer, of the seeds that both have."""
    one, other = (raw.block(*which, scale, raw.layers) for which in (first, second))
    seeds = set(one.seeds) & set(other.seeds)
    one, other = (raw.block(*which, scale, raw.layers, seeds=seeds) for which in (first, second))
    return one, other


def tables(raw: Raw) -> str:
    """All tables in Markdown."""
    lines: list[str] = []
    for scale in SCALES:
        lines += [f"### {scale.capitalize()}: the 2x2 after the last layer", "", _HEAD, _RULE]
        lines += [_row(raw, vlm, cut, scale) for vlm, cut in raw.there()]
        lines += ["", f"### {scale.capitalize()}: after the projector", "", _FIRST, _SHORT]
        lines += [_first(raw, vlm, cut, scale) for vlm, cut in raw.there()]
        lines += [
            "",
            f"### {scale.capitalize()}: differences after the last layer, nats",
            "",
            _DIFFERENCES,
            _SHORT,
        ]
        lines += [_difference(one) for one in contrasts(raw, scale)]
        lines.append("")
    return "\n".join(lines)


_HEAD = "| VLM, vision cut | intact | vision cut | language cut | both cut | recovered | both ways | n |"
_RULE = "| --- | --- | --- | --- | --- | --- | --- | --- |"
_FIRST = "| VLM, vision cut | intact | vision cut | n |"
_DIFFERENCES = "| difference | mean | seeds above 0 | p |"
_SHORT = "| --- | --- | --- | --- |"


def _first(raw: Raw, vlm: str, cut: str, scale: str) -> str:
    """There the language cut has done nothing yet, so that half of the 2x2 is left."""
    block = raw.block(vlm, cut, scale, 0)
    cells = [said(mean(block, block.cells[name])) for name in (INTACT, VISION)]
    return f"| `{vlm}`, `{cut}` | " + " | ".join([*cells, _n(block)]) + " |"


def _row(raw: Raw, vlm: str, cut: str, scale: str) -> str:
    block = raw.block(vlm, cut, scale, raw.layers)
    cells = [said(mean(block, block.cells[name])) for name in FOUR]
    reverse = share(recovered(block, both_ways=True)) if f"{VISION}, both ways" in block.cells else ""
    return f"| `{vlm}`, `{cut}` | " + " | ".join([*cells, share(recovered(block)), reverse, _n(block)]) + " |"


def _n(block: Block) -> str:
    seeds = f"{len(block.seeds)} seeds" if len(block.seeds) > 1 else "1 seed"
    return f"{block.sizes.sum():.0f} in {len(block.images)}, {seeds}"


def _difference(one: Contrast) -> str:
    above = sum(value > 0 for value in one.by_seed)
    return f"| {one.said} | {said(one.difference)} | {above} of {len(one.by_seed)} | {one.test.p_value:.3f} |"


def said(found: Estimate | Ratio) -> str:
    """A mean in nats with its interval."""
    if found.value is None or found.low is None or found.high is None:
        return "undefined"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def share(found: Ratio) -> str:
    """A ratio in per cent with its interval."""
    if found.value is None or found.low is None or found.high is None:
        return "undefined" if found.value is None else "no interval"
    return f"{100 * found.value:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def picture(raw: Raw, scale: str = "look-alikes") -> Figure:
    """Readability along the language model's layers: four lines with bands for each VLM and cut that was read."""
    there = set(raw.there())
    shown = [one for one in SHOWN if one in there]
    figure = Figure(figsize=(10, 3.1 * ((len(shown) + 2) // 3)), layout="constrained")
    grid = figure.subplots((len(shown) + 2) // 3, 3, sharex=True, sharey=True, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place < len(shown):
            _draw(axes, raw, *shown[place], scale)
        else:
            axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("readability (nats)")
    for axes in grid[-1]:
        axes.set_xlabel("after language layer (0: projector)")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


def _draw(axes: Axes, raw: Raw, vlm: str, cut: str, scale: str) -> None:
    layers = list(range(raw.layers + 1))
    blocks = [raw.block(vlm, cut, scale, layer) for layer in layers]
    for name in FOUR:
        found = [mean(block, block.cells[name]) for block in blocks]
        low, high = ([float(getattr(one, end) or np.nan) for one in found] for end in ("low", "high"))
        axes.plot(layers, [float(one.value or 0) for one in found], color=COLOURS[name], label=name)
        axes.fill_between(layers, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.6)
    seeds = len(blocks[0].seeds)
    axes.set_title(f"{TITLES.get(vlm, vlm)}\n{cut}, {seeds} seed{'s' * (seeds > 1)}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def main(folder: Path) -> None:
    """Write tables and picture beside the raw results."""
    raw = Raw.load(folder / RAW)
    write_bytes(folder / TABLES, tables(raw).encode())
    picture(raw).savefig(folder / PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
