"""Worker processes for rendering: results in the order of the jobs, and nothing left running behind a killed parent."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from eyechart.core.errors import UserError
from eyechart.core.processes import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")

_AHEAD = 2  # jobs handed out beyond those in work, for each worker


def in_order(work: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int) -> Iterator[Result]:
    """`work` done on each job by worker processes (in this one when there is one worker), in the jobs' order.

    Workers are spawned: `work` is a function of a module, and a script that calls this guards its own start by
    `if __name__ == "__main__"`. They ignore Ctrl-C, which is the parent's to handle, and end when the parent dies.

    Raises:
        UserError: fewer than one worker, or a worker was killed from outside.
    """
    if workers < 1:
        raise UserError(f"{workers} workers do nothing; give 1 or more")
    if workers == 1:
        yield from map(work, jobs)
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_settle_in
    )
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            f"one of {workers} rendering processes was ended from outside (is the memory full?); what was done is "
            "kept: give the same command with fewer workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _settle_in() -> None:
    """In a worker, at its start."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
