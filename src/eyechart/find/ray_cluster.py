"""Ray: reached, started where none runs, kept quiet; and the two ways in which work is given to it.

Ray is optional. All machines need the same file system, with the run folder, the embeddings beside it and the pictures
under the same paths, and eyechart installed. What is done is told by files that appear whole, so that work that was lost
with a machine is done again, and what is there is not.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from eyechart.core.errors import UserError, need

WHY = "--engine ray"

ROUNDS = 3
"""So often lost work is begun again, after Ray's own attempts."""

AHEAD = 4
"""Tasks under way for each processor of the cluster."""

PARTS = 1_000
"""Ray Data takes work in so many parts at most."""

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""For a Ray that is started here: nothing is told to anybody, and errors go to Ray's own log files."""


@contextmanager
def cluster(address: str | None = None) -> Iterator[ModuleType]:
    """Ray, connected: as it is where this process is connected already; else it is let go of at the end.

    Args:
        address: of a cluster's head, or `auto`; without it, the one that RAY_ADDRESS names or that was started on this
            machine, or else one that is started here and ends with this.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    ray = need("ray", why=WHY, extra="ray")
    if ray.is_initialized():
        yield ray
        return
    if address is None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise UserError(f"there is no Ray cluster at {address or 'RAY_ADDRESS'}: {error}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def processors(ray: ModuleType) -> int:
    """How many there are in the cluster now."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def until_there(
    what: str, missing: Callable[[], Sequence[Any]], work: Callable[[Sequence[Any]], None]
) -> None:
    """Have work done that leaves a file for each of its parts, and done again while files are missing.

    Raises:
        UserError: some are missing after `ROUNDS` rounds.
    """
    for _ in range(ROUNDS):
        left = missing()
        if not left:
            return
        work(left)
    left = missing()
    if left:
        raise UserError(
            f"{len(left)} {what} were lost {ROUNDS} times, first {left[0]}: machines died, or do not share the run"
            " folder; the same command goes on with them"
        )


def passed(items: Sequence[Mapping[str, Any]], work: Any, **options: Any) -> Iterator[dict[str, Any]]:
    """A Ray Data pass: what `work` (a function, or a class of which actors are made) gives for each item.

    `work` gives what `refusal` says in a column `refused`.

    Raises:
        UserError: an item was refused.
    """
    data = need("ray.data", why=WHY, extra="ray")
    with _quiet(data):
        items = [dict(item) for item in items]
        dataset = data.from_items(items, override_num_blocks=min(len(items), PARTS))
        for row in dataset.map_batches(work, batch_size=1, **options).iter_rows():
            if row["refused"]:
                raise UserError(row["refused"])
            yield row


def finished(
    ray: ModuleType, work: Callable[..., None], calls: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[Any, ...]]:
    """Call a function on the cluster with each of some arguments; give the arguments of calls that have ended.

    Few calls are under way at a time. One that was lost with its process or its machine is made again by Ray, three
    times; it is given, too, when that was of no use. An interrupt takes back what has not begun.

    Raises:
        UserError: a call raised it.
    """
    task = ray.remote(max_retries=3)(refusal)
    waiting = list(reversed(calls))
    under_way: dict[Any, tuple[Any, ...]] = {}
    try:
        while waiting or under_way:
            room = AHEAD * processors(ray) - len(under_way)
            for _ in range(min(room, len(waiting))):
                call = waiting.pop()
                under_way[task.remote(work, *call)] = call
            done, _ = ray.wait(list(under_way), num_returns=1)
            for reference in done:
                refused = _refused(ray, reference)
                if refused:
                    raise UserError(refused)
                yield under_way.pop(reference)
    finally:
        for reference in under_way:
            ray.cancel(reference)


def _refused(ray: ModuleType, reference: Any) -> str:
    """What a call refused; nothing where it ended well or was lost."""
    try:
        refused: str = ray.get(reference)
    except ray.exceptions.RayTaskError:  # a bug
        raise
    except ray.exceptions.RayError:  # its process or its machine is gone
        return ""
    return refused


def refusal(work: Callable[..., None], *arguments: Any) -> str:
    """Do something on a machine of the cluster, and say what it refused, as text: nothing where it did not."""
    try:
        work(*arguments)
    except UserError as error:
        return f"{error} (on {socket.gethostname()})"
    return ""


def enter(folder: Path) -> None:
    """Work in the folder in which the command was given, so that paths mean the same.

    Raises:
        UserError: it is not there.
    """
    try:
        os.chdir(folder)
    except OSError:
        raise UserError(f"there is no {folder} here; {WHY} needs folders that all machines share") from None


@contextmanager
def _quiet(data: ModuleType) -> Iterator[None]:
    """Without Ray Data's own progress and talk."""
    context, log = data.DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, log.level
    context.enable_progress_bars = False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        log.setLevel(level)
