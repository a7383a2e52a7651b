"""A small benchmark of the world for tests that need one, rendered in a second or two."""

from pathlib import Path

from eyechart.world.facts import PATTERNS
from eyechart.world.sets_pairs import render_pairs
from eyechart.world.sets_plan import PairPlan


def small_world(folder: Path, *, pairs: int = 4, each: int = 1) -> Path:
    """So many pairs of siblings of each of the first `pairs` patterns, as a benchmark."""
    return render_pairs(folder, PairPlan(pairs=each, patterns=PATTERNS[:pairs]), workers=1)
