"""What is asked in an exam: the benchmark that was named, or pairs of the world's scenes rendered for it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from eyechart.core.records import Benchmark
from eyechart.exam.config import ExamConfig
from eyechart.exam.defaults import WORLD
from eyechart.score import load_benchmark
from eyechart.world.facts import PATTERNS
from eyechart.world.sets_pairs import QUESTIONS, folder_name, render_pairs
from eyechart.world.sets_plan import PairPlan

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done and how much there is."""


def open_benchmark(config: ExamConfig, bundled: Path, progress: Progress) -> Benchmark:
    """Read and check the benchmark, after rendering it where it is the world.

    Args:
        bundled: where rendered scenes lie, and pictures that stand in a table as bytes.
        progress: told how many pairs are rendered.

    Raises:
        UserError: there is no such benchmark, it cannot be scored by pair, or another process is rendering it.
    """
    if config.on != WORLD:
        return load_benchmark(config.on, limit=config.limit, images=bundled / "images")
    plan = world_plan(config)
    folder = bundled / folder_name(plan, config.size)
    if not (folder / QUESTIONS).is_file():  # written last
        render_pairs(folder, plan, size=config.size, workers=1, progress=progress)
    benchmark = load_benchmark(folder, name=WORLD, limit=config.limit)
    return dataclasses.replace(benchmark, notes=(_about(config), *benchmark.notes))


def world_plan(config: ExamConfig) -> PairPlan:
    """Which pairs of the world an exam needs: with a limit, no more than are asked.

    The first pairs of a pattern are the same however many follow, so a limit leaves out pairs and changes none.
    """
    pairs = config.pairs
    if config.limit is not None:
        pairs = min(pairs, -(-config.limit // len(PATTERNS)))
    return PairPlan(split="test", pairs=pairs, seed=config.scene_seed, relation="siblings")


def _about(config: ExamConfig) -> str:
    return (
        f"scenes of the test split drawn with scene seed {config.scene_seed}, {config.size} pixels wide and high; the two"
        " images of a pair differ in one fact, and camera, light and clutter are drawn anew for each"
    )
