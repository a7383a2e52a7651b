"""`eyechart report`: run folders → pages, rendered again."""

from pathlib import Path
from typing import Annotated

import typer

from eyechart.cli.console import emit, say


def render_again(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders of earlier exams.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print the pages' paths as JSON.")] = False,
) -> None:
    """Render the page of finished runs again, from their files alone.

    Example:  eyechart report runs/exam-llava-on-mmvp
    """
    from eyechart.report import write_report

    pages = [str(write_report(run)) for run in runs]
    if json:
        emit({"pages": pages})
    else:
        for page in pages:
            say(f"report: {page}")
