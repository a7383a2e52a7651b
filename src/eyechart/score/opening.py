"""The set a name stands for: files in any of the known shapes, or pairs of the world's scenes rendered for the occasion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from eyechart.core.errors import UserError, unknown
from eyechart.core.records import Benchmark, MatchSet
from eyechart.score.benchmarks import load_benchmark
from eyechart.score.matches import MATCH_KINDS, load_matches
from eyechart.world.facts import PATTERNS
from eyechart.world.sets_pairs import CAPTIONS, CV, QUESTIONS, folder_name, render_pairs
from eyechart.world.sets_plan import PairPlan

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done and how much there is."""

WORLD = "world"

WORLD_SETS: Mapping[str, str] = {
    WORLD: "pairs of questions in the shape of MMVP",
    "world:captions": "pairs of statements in the shape of MMVP-VLM, for encoders",
    "world:cv": "questions in the shape of CV-Bench",
}
"""What is asked of rendered scenes, by name."""

SIZES = (96, 672)
"""The smallest and the largest side of a picture of the world that is shown to a model, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldChoice:
    """Which scenes of the world's test split."""

    scene_seed: int = 0
    """Another number draws other scenes."""

    size: int = 96
    """Side of a picture, in pixels; the scenes are the same at every size."""

    pairs: int = 20
    """Of each of the nine patterns."""

    def __post_init__(self) -> None:
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise UserError(
                f"size {self.size}: pictures of the world are {SIZES[0]} to {SIZES[1]} pixels wide here"
            )
        for name, least in (("scene_seed", 0), ("pairs", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be {least} or more, got {getattr(self, name)}")

    def plan(self, limit: int | None = None) -> PairPlan:
        """The pairs that are needed: with a limit, no more than are asked.

        The first pairs of a pattern are the same however many follow, so a limit leaves out pairs and changes none.
        """
        pairs = self.pairs if limit is None else min(self.pairs, -(-limit // len(PATTERNS)))
        return PairPlan(split="test", pairs=pairs, seed=self.scene_seed, relation="siblings")

    def __str__(self) -> str:
        return (
            f"scenes of the test split drawn with scene seed {self.scene_seed}, {self.size} pixels wide and high; the two"
            " images of a pair differ in one fact, and camera, light and clutter are drawn anew for each"
        )


DEFAULT = WorldChoice()
"""The scenes that are drawn where nobody chose."""


def is_world(on: str) -> bool:
    """Whether a name is one of the world's sets."""
    return on == WORLD or on.startswith(f"{WORLD}:")


def world_folder(world: WorldChoice, bundled: Path, progress: Progress, *, limit: int | None = None) -> Path:
    """The folder of the rendered pairs, rendered now where it is not there.

    Raises:
        UserError: another process is rendering it.
    """
    plan = world.plan(limit)
    folder = bundled / folder_name(plan, world.size)
    if not (folder / QUESTIONS).is_file():  # written last
        render_pairs(folder, plan, size=world.size, workers=1, progress=progress)
    return folder


def open_questions(
    on: str,
    *,
    world: WorldChoice = DEFAULT,
    limit: int | None = None,
    bundled: Path,
    kind: str = "auto",
    progress: Progress = lambda stage, done, total: None,
) -> Benchmark:
    """Read and check a set of questions, after rendering it where it is the world's.

    Args:
        on: a folder or table, or one of the world's sets.
        world: which scenes, for these.
        limit: at most so many pairs or items.
        bundled: where rendered scenes lie, and pictures that stand in a table as bytes.
        kind: how a file is to be read; see `benchmarks.KINDS`.
        progress: told how many pairs are rendered.

    Raises:
        UserError: there is no such set, or it cannot be scored.
    """
    if not is_world(on):
        return load_benchmark(on, limit=limit, images=bundled / "images", kind=kind)
    _check_world(on, kind, [WORLD, "world:cv"])
    folder = world_folder(world, bundled, progress, limit=limit)
    if on == WORLD:
        found = load_benchmark(folder, name=WORLD, limit=limit)
    else:
        found = load_benchmark(folder / CV, name="world-cv", limit=limit, kind="cv-bench")
    return replace(found, notes=(str(world), *found.notes))


def open_matches(
    on: str,
    *,
    world: WorldChoice = DEFAULT,
    limit: int | None = None,
    bundled: Path,
    kind: str = "auto",
    progress: Progress = lambda stage, done, total: None,
) -> MatchSet:
    """Read and check a set of captions and images; arguments and errors as `open_questions`."""
    if not is_world(on):
        return load_matches(on, limit=limit, images=bundled / "images", kind=kind)
    _check_world(on, kind, ["world:captions"])
    folder = world_folder(world, bundled, progress, limit=limit)
    found = load_matches(folder / CAPTIONS, name="world-captions", limit=limit)
    return replace(found, notes=(str(world), *found.notes))


def open_for_encoder(
    on: str,
    *,
    world: WorldChoice = DEFAULT,
    limit: int | None = None,
    bundled: Path,
    kind: str = "auto",
    progress: Progress = lambda stage, done, total: None,
) -> Benchmark | MatchSet:
    """Captions and images, or else questions in pairs; arguments and errors as `open_questions`."""
    options = {"world": world, "limit": limit, "bundled": bundled, "kind": kind, "progress": progress}
    if on == "world:captions" or kind in MATCH_KINDS:
        return open_matches(on, **options)  # type: ignore[arg-type]
    if is_world(on) or kind != "auto":
        return open_questions(on, **options)  # type: ignore[arg-type]
    try:
        return open_matches(on, **options)  # type: ignore[arg-type]
    except UserError as no_matches:
        try:
            return open_questions(on, **options)  # type: ignore[arg-type]
        except UserError as no_questions:
            raise UserError(
                f"{on} holds neither captions with images nor questions in pairs:\n  {no_matches}\n  {no_questions}"
            ) from None


def _check_world(on: str, kind: str, here: list[str]) -> None:
    if on not in WORLD_SETS:
        raise unknown("set of the world", on, WORLD_SETS)
    if on not in here:
        raise UserError(f"{on!r} holds {WORLD_SETS[on]}; expected one of {', '.join(here)}")
    if kind != "auto":
        raise UserError(f"{on!r} is made for the occasion, so there is no kind {kind!r} to read it as")
