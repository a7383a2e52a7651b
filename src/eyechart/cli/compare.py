"""`eyechart compare`: runs on the same items, beside one another, from the command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyechart.cli.console import emit, say

if TYPE_CHECKING:
    from eyechart.recipes.compare import CompareResult

Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="A run folder of 'eyechart exam' or 'eyechart score' (or one samples file of it), an output folder of"
        " lmms-eval made with --log_samples (or one samples file), or a result table of VLMEvalKit (.xlsx, .tsv, .csv,"
        " .json). The others are compared with the first.",
    ),
]
All = Annotated[bool, typer.Option("--all", help="Compare each two of the runs, not only with the first.")]
Common = Annotated[
    bool,
    typer.Option(
        "--common", help="Leave out items that not all runs have, and list them, instead of refusing."
    ),
]
Task = Annotated[str | None, typer.Option(help="Which task, where a run holds several.")]
Out = Annotated[Path | None, typer.Option(help="The run folder (default: runs/compare-...).")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over.")]
Seed = Annotated[int, typer.Option(help="Seed of the intervals' resampling.")]
Json = Annotated[bool, typer.Option("--json", help="Print the comparison as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No summary.")]


def run_compare(
    runs: Runs,
    *,
    every: All = False,
    common: Common = False,
    task: Task = None,
    out: Out = None,
    fresh: Fresh = False,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare runs on the same pairs: exact tests, Holm over patterns, and what a set of this size can show.

    Ways of asking inside one run are set beside its first way: how many answers change, and what is left without the
    picture. Logs of lmms-eval and VLMEvalKit are graded again by our reader.

    Example:  eyechart compare runs/score-a runs/score-b other-harness/model_MMVP.xlsx
    """
    from eyechart.core.config import build
    from eyechart.recipes.compare import CompareConfig, compare

    options: dict[str, Any] = {
        "runs": tuple(runs),
        "every": every,
        "common": common,
        "task": task,
        "seed": seed,
    }
    result = compare(build(CompareConfig, options), out=out, fresh=fresh, command=["eyechart", *sys.argv[1:]])
    if json:
        emit(result.record)
    else:
        _tell(result, quiet=quiet)


def _tell(result: "CompareResult", *, quiet: bool) -> None:
    from eyechart.score.compare_lines import comparison_lines

    if result.again:
        say("these runs were compared before and are shown again; --fresh starts over", quiet=quiet)
    for line in comparison_lines(result.record):
        say(line, quiet=quiet)
    say(f"page: {result.page}", quiet=quiet)
