"""What is asked in an exam: the benchmark that was named, or pairs of the world's scenes rendered for it."""

from pathlib import Path

from eyechart.core.errors import UserError
from eyechart.core.records import Benchmark
from eyechart.exam.config import ExamConfig
from eyechart.score.opening import Progress, open_questions
from eyechart.world.sets_plan import PairPlan


def open_benchmark(config: ExamConfig, bundled: Path, progress: Progress) -> Benchmark:
    """Read and check the benchmark, after rendering it where it is the world.

    Args:
        bundled: where rendered scenes lie, and pictures that stand in a table as bytes.
        progress: told how many pairs are rendered.

    Raises:
        UserError: there is no such benchmark, it is not in pairs, or another process is rendering it.
    """
    found = open_questions(
        config.on, world=config.world, limit=config.limit, bundled=bundled, progress=progress
    )
    if found.rule != "pairs":
        raise UserError(
            f"{config.on} is scored by the rule {found.rule!r}, and an exam asks pairs; use: eyechart score"
            f" {config.model} --on {config.on}"
        )
    return found


def world_plan(config: ExamConfig) -> PairPlan:
    """Which pairs of the world an exam needs: with a limit, no more than are asked."""
    return config.world.plan(config.limit)
