"""What the study of mixtures found, from its raw results: tables in Markdown and the picture of the trade-off.

    python -m eyechart.recipes.mixture_results docs/studies

reads `mixture.parquet` there. For every interval runs and pairs (or scenes, with all that was asked on them) are drawn anew, crossed;
an arm is set against the baseline on the seeds that both have, run by run.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eyechart.core.files import write_bytes
from eyechart.core.stats import Estimate, Rate, cluster_rate, crossed_mean, sign_flip_test
from eyechart.fix.instructions import CONTENTS, FORMATS, held_out
from eyechart.fix.presence import CATEGORIES
from eyechart.recipes.mixture_arms import ARMS
from eyechart.recipes.mixture_raw import Answers, Raw
from eyechart.recipes.mixture_reading import FOLLOWING, PAIRS, PRESENCE
from eyechart.world.facts import PATTERNS

RAW, TABLES, PICTURE = "mixture.parquet", "mixture-tables.md", "mixture.svg"

BASELINE = "clip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number of an arm: a task's right answers, or their form, on some of its questions."""

    task: str
    groups: frozenset[str] | None = None
    """All unless given."""

    form: bool = False

    def of(self, raw: Raw, arm: str, seeds: Sequence[int] | None = None) -> Answers:
        """The answers it is about."""
        found = raw.answers(arm, self.task, seeds)
        if self.groups is None:
            return found
        return found.of([group in self.groups for group in found.groups])

    def mean(self, raw: Raw, arm: str, seeds: Sequence[int] | None = None) -> Estimate | None:
        """The arm's share, over runs and clusters; None where the arm has one run."""
        found = self.of(raw, arm, seeds)
        if len(found.seeds) < 2:
            return None
        return crossed_mean(*found.by_cluster(found.form if self.form else found.right), seed=0)

    def gain(self, raw: Raw, arm: str, beside: str = BASELINE) -> "Gain | None":
        """How much more than another arm, on the seeds of both; None where they share fewer than two."""
        seeds = [seed for seed in raw.seeds(arm) if seed in raw.seeds(beside)]
        if len(seeds) < 2:
            return None
        one, other = (self.of(raw, name, seeds) for name in (arm, beside))
        values = (one.form - other.form) if self.form else (one.right - other.right)
        return Gain(
            difference=crossed_mean(*one.by_cluster(values), seed=0),
            by_seed=tuple(values.mean(axis=1).tolist()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A difference of two arms."""

    difference: Estimate
    by_seed: tuple[float, ...]

    def __str__(self) -> str:
        p = sign_flip_test(self.by_seed).p_value
        above = sum(value > 0 for value in self.by_seed)
        return f"{_points(self.difference)}; {above} of {len(self.by_seed)}, p={p:.3f}"


NEVER_TAUGHT = frozenset("/".join(cell) for cell in held_out())
ALL_CELLS = frozenset(f"{name}/{content}" for name in FORMATS for content in CONTENTS)

GROUNDING = Measure(task=PAIRS)
FOLLOWED = Measure(task=FOLLOWING, groups=ALL_CELLS - NEVER_TAUGHT)
HEADLINES: Mapping[str, Measure] = {
    "pairs right": GROUNDING,
    "instructions followed": FOLLOWED,
    "objects": Measure(task=PRESENCE),
}


def tables(raw: Raw) -> str:
    """All tables in Markdown."""
    arms = [arm.name for arm in ARMS if len(raw.seeds(arm.name)) > 1]
    parts = [
        _headlines(raw, arms),
        _patterns(raw, arms),
        _gains_by_pattern(raw, arms),
        _following(raw, arms),
        _presence(raw, arms),
        _runs(raw),
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _headlines(raw: Raw, arms: Sequence[str]) -> Iterator[str]:
    yield "### All arms"
    yield ""
    yield "| arm | seeds | " + " | ".join(f"{name} | minus `{BASELINE}`" for name in HEADLINES) + " |"
    yield "| --- | --- |" + " --- | --- |" * len(HEADLINES)
    for arm in arms:
        cells = [f"`{arm}`", str(len(raw.seeds(arm)))]
        for measure in HEADLINES.values():
            gain = None if arm == BASELINE else measure.gain(raw, arm)
            cells += [_share(measure.mean(raw, arm)), "" if gain is None else str(gain)]
        yield "| " + " | ".join(cells) + " |"


def _runs(raw: Raw) -> Iterator[str]:
    """Each run by itself, its interval over pairs or scenes alone."""
    yield "### Every run"
    yield ""
    yield "| arm | seed | " + " | ".join(HEADLINES) + " |"
    yield "| --- | --- |" + " --- |" * len(HEADLINES)
    for arm in ARMS:
        for seed in raw.seeds(arm.name):
            found = [measure.of(raw, arm.name, [seed]) for measure in HEADLINES.values()]
            cells = [_rate(cluster_rate(one.right[0] > 0, one.clusters, seed=0)) for one in found]
            yield f"| `{arm.name}` | {seed} | " + " | ".join(cells) + " |"


def _rate(found: Rate) -> str:
    return f"{100 * found.value:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}], n={found.n}"


def _patterns(raw: Raw, arms: Sequence[str]) -> Iterator[str]:
    yield "### Pairs right, by pattern"
    yield ""
    yield "| arm | " + " | ".join(PATTERNS) + " |"
    yield "| --- |" + " --- |" * len(PATTERNS)
    for arm in arms:
        found = [Measure(task=PAIRS, groups=frozenset([name])).mean(raw, arm) for name in PATTERNS]
        yield f"| `{arm}` | " + " | ".join(map(_share, found)) + " |"


def _gains_by_pattern(raw: Raw, arms: Sequence[str]) -> Iterator[str]:
    yield f"### Pairs right minus `{BASELINE}`, by pattern, in points"
    yield ""
    yield "| arm | " + " | ".join(PATTERNS) + " |"
    yield "| --- |" + " --- |" * len(PATTERNS)
    for arm in arms:
        if arm == BASELINE:
            continue
        found = [Measure(task=PAIRS, groups=frozenset([name])).gain(raw, arm) for name in PATTERNS]
        yield (
            f"| `{arm}` | "
            + " | ".join("" if one is None else _points(one.difference) for one in found)
            + " |"
        )


def _following(raw: Raw, arms: Sequence[str]) -> Iterator[str]:
    columns = {
        "followed": FOLLOWED,
        "form": Measure(task=FOLLOWING, groups=FOLLOWED.groups, form=True),
        "followed, cells never taught": Measure(task=FOLLOWING, groups=NEVER_TAUGHT),
        "form, cells never taught": Measure(task=FOLLOWING, groups=NEVER_TAUGHT, form=True),
    }
    for content in CONTENTS:
        own = frozenset(cell for cell in ALL_CELLS - NEVER_TAUGHT if cell.endswith(f"/{content}"))
        columns[content] = Measure(task=FOLLOWING, groups=own)
    yield from _table(raw, arms, "### Instructions", columns)


def _presence(raw: Raw, arms: Sequence[str]) -> Iterator[str]:
    columns = {}
    for category in CATEGORIES:
        columns[category] = Measure(task=PRESENCE, groups=frozenset([f"{category}/yes", f"{category}/no"]))
        for truth in ("yes", "no"):
            name = "there" if truth == "yes" else "not there"
            columns[f"{category}, {name}"] = Measure(task=PRESENCE, groups=frozenset([f"{category}/{truth}"]))
    yield from _table(raw, arms, "### Objects: share of right answers", columns)


def _table(raw: Raw, arms: Sequence[str], title: str, columns: Mapping[str, Measure]) -> Iterator[str]:
    yield title
    yield ""
    yield "| arm | " + " | ".join(columns) + " |"
    yield "| --- |" + " --- |" * len(columns)
    for arm in arms:
        yield f"| `{arm}` | " + " | ".join(_share(one.mean(raw, arm)) for one in columns.values()) + " |"


def _share(found: Estimate | None) -> str:
    if found is None:
        return ""
    return f"{100 * found.value:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _points(found: Estimate) -> str:
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def picture(raw: Raw) -> Figure:
    """Grounding and instruction following against the share of the second encoder, and against one another."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axes, measure, said in (
        (left, GROUNDING, "pairs right"),
        (middle, FOLLOWED, "instructions followed"),
    ):
        _curve(axes, raw, measure)
        axes.set_xlabel("share of the second encoder in A-MoF")
        axes.set_ylabel(f"{said} (%)")
    _trade(right, raw)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


_LINES: Mapping[str, tuple[str, Mapping[float, str]]] = {
    "two-view": (
        "#1b6ca8",
        {0: "clip", 1: "ssl"} | {a.share: a.name for a in ARMS if a.share and a.sight.second == "two-view"},
    ),
    "mae": (
        "#d1495b",
        {0: "clip", 1: "mae"} | {a.share: a.name for a in ARMS if a.share and a.sight.second == "mae"},
    ),
}
"""A-MoF arms by share, with the single encoders at its ends."""

_LEVELS = {"imof": ("#1b6ca8", "--", "I-MoF, two-view"), "mae-imof": ("#d1495b", "--", "I-MoF, mae")}
_LEVELS |= {"concatenated": ("#8a9a5b", "-.", "concatenated, two-view")}


def _curve(axes: Axes, raw: Raw, measure: Measure) -> None:
    for second, (colour, arms) in _LINES.items():
        found = {share: measure.mean(raw, arm) for share, arm in sorted(arms.items()) if raw.seeds(arm)}
        shown = {share: one for share, one in found.items() if one is not None}
        if not shown:
            continue
        values = np.array([[one.value, one.low, one.high] for one in shown.values()]).T * 100
        spread = np.clip([values[0] - values[1], values[2] - values[0]], 0, None)
        axes.errorbar(
            [*shown], values[0], yerr=spread, color=colour, marker="o", capsize=2, label=f"A-MoF, {second}"
        )
    for arm, (colour, dashes, label) in _LEVELS.items():
        one = measure.mean(raw, arm) if raw.seeds(arm) else None
        if one is not None:
            axes.axhline(100 * one.value, color=colour, linestyle=dashes, linewidth=1, label=label)


def _trade(axes: Axes, raw: Raw) -> None:
    for arm in ARMS:
        if len(raw.seeds(arm.name)) < 2:
            continue
        grounding, followed = (measure.mean(raw, arm.name) for measure in (GROUNDING, FOLLOWED))
        if grounding is None or followed is None:
            continue
        axes.errorbar(
            100 * followed.value,
            100 * grounding.value,
            xerr=[[100 * (followed.value - followed.low)], [100 * (followed.high - followed.value)]],
            yerr=[[100 * (grounding.value - grounding.low)], [100 * (grounding.high - grounding.value)]],
            marker="o",
            color="#d1495b" if arm.name.startswith("mae") else "#1b6ca8",
            elinewidth=0.5,
        )
        axes.annotate(
            arm.name,
            (100 * followed.value, 100 * grounding.value),
            fontsize=7,
            xytext=(3, 3),
            textcoords="offset points",
        )
    axes.set_xlabel("instructions followed (%)")
    axes.set_ylabel("pairs right (%)")


def main(folder: Path) -> None:
    """Write tables and picture beside the raw results."""
    raw = Raw(folder / RAW)
    write_bytes(folder / TABLES, tables(raw).encode())
    picture(raw).savefig(folder / PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
