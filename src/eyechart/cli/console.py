"""What people read goes to stderr, data goes to stdout; progress with rate and time left."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is."""


def fail(text: str, *, code: int) -> int:
    """Print an error without a traceback; return the exit code."""
    print(f"error: {text}", file=sys.stderr)
    return code


def say(text: str, *, quiet: bool = False) -> None:
    """Print a line for the person, on stderr."""
    if not quiet:
        print(text, file=sys.stderr)


def emit(data: Any) -> None:
    """Print data for a program, on stdout."""
    json.dump(data, sys.stdout, indent=2, ensure_ascii=False)
    print()


@contextmanager
def progress(*, quiet: bool) -> Iterator[Report]:
    """A callable that draws one bar a stage, with count, rate, elapsed time and time left."""
    if quiet:
        yield lambda stage, done, total: None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description:<28}"),
        rich.BarColumn(bar_width=28),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[rate]}"),
        rich.TimeElapsedColumn(),
        rich.TextColumn("left"),
        rich.TimeRemainingColumn(),
    )
    stages: dict[str, tuple[rich.TaskID, int, float]] = {}
    bars = rich.Progress(*columns, console=Console(stderr=True))

    def report(stage: str, done: int, total: int) -> None:
        if stage not in stages:
            bars.start()
            task = bars.add_task(stage, total=total, completed=done, rate="")
            stages[stage] = (task, done, time.monotonic())
        task, at_first, since = stages[stage]
        passed = time.monotonic() - since
        rate = f"{(done - at_first) / passed:.1f}/s" if done > at_first and passed > 0 else ""
        bars.update(task, completed=done, total=total, rate=rate)

    try:
        yield report
    finally:
        if stages:
            bars.stop()
