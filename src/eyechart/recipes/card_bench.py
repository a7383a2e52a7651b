"""What every card is measured on, how much of it, and where results are kept between runs."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from eyechart.core.files import write_json
from eyechart.recipes.card_language import ROWS
from eyechart.recipes.card_scenes import PairScenes, crossed, load_pairs
from eyechart.recipes.card_sight import Effort
from eyechart.recipes.card_tasks import Readable, readable
from eyechart.train.loop import Report
from eyechart.world.facts import PATTERNS
from eyechart.world.sets import SceneSet, render_set
from eyechart.world.sets_pairs import render_pairs
from eyechart.world.sets_plan import PairPlan, SetPlan

SEED = 7
"""Of the cards' scenes: a stream of its own within each split."""

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured."""

    test_pairs: int = 200
    """Of a pattern."""

    selection_pairs: int = 60
    lens_selection: int = 60
    lens_test: int = 200
    texts: int = ROWS
    picture: int = 96
    effort: Effort = field(default_factory=Effort)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What everything is measured on, and where results are kept."""

    sizes: Sizes
    test: PairScenes
    selection: PairScenes
    crossed: UInt8[ndarray, "scene size size 3"]
    """The selection pairs, crossed."""

    lens_test: SceneSet
    lens_selection: SceneSet
    tasks: tuple[Readable, ...]
    work: Path
    report: Report

    def kept(self, what: str, *identity: Any, compute: Callable[[], Any]) -> Any:
        """The result of an earlier run on the same weights, scenes and sizes, or a new one."""
        text = json.dumps(
            [SCHEMA, what, self.test.sha256, self.selection.sha256, asdict(self.sizes), *identity]
        )
        path = self.work / f"{what}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        if not path.is_file():
            write_json(path, compute())
        return json.loads(path.read_bytes())


def make_bench(world: Path, work: Path, sizes: Sizes, *, workers: int, report: Report) -> Bench:
    """Render what is missing, and read it all."""
    folders: dict[str, Path] = {}
    for split, pairs in (("test", sizes.test_pairs), ("selection", sizes.selection_pairs)):
        plan = PairPlan(split=split, pairs=pairs, seed=SEED)
        folders[split] = render_pairs(
            world / f"{split}-pairs", plan, size=sizes.picture, workers=workers, progress=report
        )
    lens: dict[str, SceneSet] = {}
    for split, scenes in (("test", sizes.lens_test), ("selection", sizes.lens_selection)):
        alone = SetPlan(split=split, scenes=scenes, seed=SEED + 1)
        lens[split] = render_set(
            world / f"{split}-parts", alone, size=sizes.picture, workers=workers, maps=True, progress=report
        )
    test, selection = load_pairs(folders["test"]), load_pairs(folders["selection"])
    return Bench(
        sizes=sizes,
        test=test,
        selection=selection,
        crossed=crossed(selection, world, workers=workers, progress=report),
        lens_test=lens["test"],
        lens_selection=lens["selection"],
        tasks=tuple(readable(pattern, test.scenes, most=sizes.effort.scenes) for pattern in PATTERNS),
        work=work,
        report=report,
    )
