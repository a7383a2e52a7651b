"""A small benchmark of the world for tests that need one, rendered in a second or two."""

from pathlib import Path

from eyechart.world.facts import PATTERNS
from eyechart.world.sets_pairs import render_pairs
from eyechart.world.sets_plan import PairPlan


def small_world(folder: Path, *, pairs: int = 4) -> Path:
    """One pair of siblings of each of the first so many patterns, as a benchmark."""
    return render_pairs(folder, PairPlan(pairs=1, patterns=PATTERNS[:pairs]), workers=1)
