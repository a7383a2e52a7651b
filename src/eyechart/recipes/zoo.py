"""The whole zoo in the order in which it is made: scenes, tokenizer, encoders, language model, VLMs, cards.

    eyechart train zoo

Each step is passed over when what it makes is there; a step that was interrupted goes on where it stopped.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from eyechart.core.errors import UserError, unknown
from eyechart.recipes.cards import CLIPS, LANGUAGE, MIXTURES, MODELS, recompute_cards
from eyechart.recipes.clip import train_clip
from eyechart.recipes.language_model import train_language_model
from eyechart.recipes.masked import train_masked
from eyechart.recipes.scenes import training_families, training_maps, training_scenes
from eyechart.recipes.tokenizer import make_tokenizer
from eyechart.recipes.two_view import train_two_view
from eyechart.recipes.vlm import train_vlm
from eyechart.train.loop import Report
from eyechart.train.mixture import Sight

LARGEST = 60_000_000
"""Bytes that the shipped zoo may have."""

WEIGHTS = "model.safetensors"

SIGHT = Sight(first="clip-biased", second="two-view", mixture="interleaved")
"""Of the zoo's mixture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One recipe."""

    name: str
    makes: Path | None
    """The file that is there once the step is done; None for a step that always runs and keeps its own results."""

    run: Callable[[], Any]

    @property
    def done(self) -> bool:
        """Whether what it makes is there."""
        return self.makes is not None and self.makes.is_file()


def steps(
    *,
    world: Path = Path("build/world"),
    work: Path = Path("build/work"),
    zoo: Path = Path("build/zoo"),
    workers: int = 2,
    report: Report | None = None,
) -> tuple[Step, ...]:
    """All steps in order. Rendering ones always run: a set that is whole is only opened."""
    tell: Report = report or (lambda stage, done, total: None)
    scenes, maps, families = (world / name for name in ("train", "maps", "families"))
    tokenizer = zoo / "tokenizer"
    both: dict[str, Any] = {"work": work, "out": zoo, "report": report}

    def made(name: str, run: Callable[[], Any]) -> Step:
        return Step(name=name, makes=zoo / name / WEIGHTS, run=run)

    return (
        Step(name="tokenizer", makes=tokenizer / "tokenizer.json", run=partial(make_tokenizer, tokenizer)),
        Step(
            name="scenes",
            makes=None,
            run=partial(training_scenes, scenes, workers=workers, progress=tell),
        ),
        Step(
            name="families",
            makes=None,
            run=partial(training_families, families, workers=workers, progress=tell),
        ),
        Step(name="maps", makes=None, run=partial(training_maps, maps, workers=workers, progress=tell)),
        *(
            made(name, partial(train_clip, rates, scenes=scenes, tokenizer=tokenizer, **both))
            for name, rates in CLIPS.items()
        ),
        made("mae", partial(train_masked, scenes=scenes, **both)),
        made("two-view", partial(train_two_view, families=families, begun=zoo / "mae", **both)),
        made(LANGUAGE, partial(train_language_model, tokenizer=tokenizer, **both)),
        *(
            made(
                f"llava-{rates.replace('_', '-')}",
                partial(train_vlm, rates, scenes=scenes, maps=maps, **both),
            )
            for rates in CLIPS.values()
        ),
        *(
            made(name, partial(train_vlm, sight=SIGHT, name=name, scenes=scenes, maps=maps, **both))
            for name in MIXTURES
        ),
        Step(
            name="cards",
            makes=None,
            run=partial(
                recompute_cards,
                zoo=zoo,
                world=world / "cards",
                work=work / "cards",
                workers=workers,
                report=report,
            ),
        ),
    )


def make_zoo(todo: Sequence[Step] | None = None, *, only: Sequence[str] | None = None) -> list[str]:
    """Take the steps that are not done.

    Args:
        todo: steps in order; by default all of `steps()`.
        only: the names of those to take.

    Returns:
        The names of the steps that were taken.

    Raises:
        UserError: there is no step of a name, or a step failed to make what it should.
    """
    todo = steps() if todo is None else todo
    known = [step.name for step in todo]
    for name in only or ():
        if name not in known:
            raise unknown("step of the zoo", name, known)
    taken = []
    for step in todo:
        if step.done or (only is not None and step.name not in only):
            continue
        step.run()
        if step.makes is not None and not step.done:
            raise RuntimeError(f"the step {step.name} has ended without making {step.makes}")
        taken.append(step.name)
    return taken


def ship(zoo: Path, into: Path, *, largest: int = LARGEST) -> int:
    """Copy every model's folder with its card, and the gate, to where the package keeps them; how many bytes that is.

    What lay there before is replaced once everything is found to be whole and small enough.

    Raises:
        UserError: a model, its card or the gate is missing, or all of it is larger than allowed.
    """
    files = {path: into / path.relative_to(zoo) for path in _shipped(zoo)}
    sizes = {name: sum(path.stat().st_size for path in files if path.parent.name == name) for name in MODELS}
    total = sum(path.stat().st_size for path in files)
    if total > largest:
        told = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sizes.items())
        raise UserError(f"the zoo has {total / 1e6:.1f} MB, of {largest / 1e6:g} at most: {told}")
    for name in MODELS:
        shutil.rmtree(into / name, ignore_errors=True)
    for path, target in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return total


def _shipped(zoo: Path) -> list[Path]:
    wanted = [
        zoo / name / file for name in MODELS for file in (WEIGHTS, "config.json", "card.json", "README.md")
    ]
    missing = [path.relative_to(zoo) for path in (*wanted, zoo / "gate.json") if not path.is_file()]
    if missing:
        raise UserError(
            f"{zoo} lacks {', '.join(map(str, missing))}: train what is missing, then recompute the cards"
        )
    inside = [path for name in MODELS for path in sorted((zoo / name).iterdir()) if path.is_file()]
    return [*inside, zoo / "gate.json"]
