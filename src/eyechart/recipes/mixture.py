"""Do mixtures of features cure what CLIP cannot see, and what do they cost? VLMs of the world, arm by arm and seed by seed.

    python -m eyechart.recipes.mixture build/studies/mixture docs/studies

After Tong et al. 2024 (arXiv 2401.06209, section 5). Every arm sees through other features (`mixture_arms`), all else is the same; each
run is read on test scenes (`mixture_reading`), and its answers go into `mixture.parquet` in the second folder at once. What is
there is not run again: the first folder may be lost. A third word names the seeds to run (`0,1`), further ones the arms;
several processes can share the work if each is given other seeds or arms.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch

from eyechart.models.quiet import quiet
from eyechart.models.vlms import load_vlm
from eyechart.recipes.mixture_arms import ARMS, Amounts, Arm, train_arm
from eyechart.recipes.mixture_raw import Raw, Run, keep, merge
from eyechart.recipes.mixture_reading import Exam, Questions, read
from eyechart.recipes.mixture_results import RAW, main
from eyechart.train.loop import Report

Tell = Callable[[Run, str], None]


def run(
    out: Path,
    raw: Path,
    *,
    arms: Sequence[Arm] = ARMS,
    seeds: Iterable[int] | None = None,
    scenes: Path = Path("build/world/train"),
    maps: Path = Path("build/world/maps"),
    amounts: Amounts | None = None,
    exam: Exam | None = None,
    report: Report | None = None,
) -> Iterator[Run]:
    """Train and read what the table lacks, seed by seed, so that a study that is cut short holds whole seeds.

    Args:
        out: holds trainings, VLMs and test scenes.
        raw: the table.
        seeds: only these; all of each arm unless given.
        scenes: a rendered set of training scenes.
        maps: the first of the same scenes, rendered with maps.
        exam: the test scenes.
        report: told each training's steps.

    Yields:
        Each run as its answers are in the table.
    """
    questions: Questions | None = None
    wanted = None if seeds is None else set(seeds)
    for seed in sorted({seed for arm in arms for seed in arm.seeds if wanted is None or seed in wanted}):
        for arm in arms:
            if seed not in arm.seeds or (arm.name, seed) in Raw(raw).runs:
                continue
            folder = train_arm(arm, seed, out, scenes=scenes, maps=maps, amounts=amounts, report=report)
            questions = questions or Questions(exam or Exam(folder=out / "test"))
            with quiet(), torch.no_grad():
                rows = read(load_vlm(str(folder)), questions)
            keep(out / "answers", (arm.name, seed), rows)
            merge(out / "answers", raw)
            yield arm.name, seed


def study(out: Path, docs: Path, seeds: Sequence[int] | None = None, names: Sequence[str] = ()) -> None:
    """Run what is missing, and write tables and picture."""
    arms = [arm for arm in ARMS if not names or arm.name in names]
    for arm, seed in run(out, docs / RAW, arms=arms, seeds=seeds):
        sys.stderr.write(f"{arm}, seed {seed}: done\n")
    main(docs)


if __name__ == "__main__":
    chosen = [int(seed) for seed in sys.argv[3].split(",")] if len(sys.argv) > 3 else None
    study(Path(sys.argv[1]), Path(sys.argv[2]), chosen, sys.argv[4:])
