"""VLMs for the study of compensation: stage 2 again from six seeds, a ceiling and a floor, each read under knockouts.

    python -m eyechart.recipes.compensation_seeds build/studies/compensation

Stage 1 is trained once for each CLIP, on its features or on features without context; stage 2, the first part of the zoo's
(captions, with rehearsals), from each seed. The *ceiling* is trained on features of patches that have read no other token, so that
it had every reason to learn to make up for them. The *floor* is each trained VLM with the blocks of its language model drawn
anew, between the same embedding and unembedding. All is resumable: a training at its last checkpoint, a reading at its last picture.
"""

import re
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlamaForCausalLM

from eyechart import zoo
from eyechart.core.devices import seeded
from eyechart.locate.config import LocateConfig
from eyechart.locate.run import Progress, locate
from eyechart.recipes.vlm import STAGES, train_vlm
from eyechart.train.export import export
from eyechart.train.loop import Report, Settings

_PROCESSOR: Callable[[Path], Any] = AutoProcessor.from_pretrained

SEEDS = range(6)

PICTURES = 150
"""Scenes of the test split that each VLM is read on, with some three parts that are large enough in each."""

STAGE_ONE: Mapping[str, Settings] = {"projector": replace(STAGES["projector"], max_steps=300)}

STAGE_TWO = replace(STAGES["captions"], max_steps=120, lr_scheduler_type="cosine", warmup_steps=20)

QUESTIONS = 1000
"""Of each pattern: those that are rehearsed on scenes told in words."""

CUTS: Mapping[str, tuple[str, ...]] = {"part<-rest": ("both ways",), "patches<-patches": ()}
"""Vision cuts, and the controls of each; the second cuts both ways itself."""

ALONE_CUTS = {"patches<-patches": CUTS["patches<-patches"]}
"""A VLM that was trained on features without context is read on such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way of training, from six seeds."""

    rates: str
    """Of its CLIP's captions."""

    alone: bool = False
    """Whether it is trained on features without context: the ceiling."""

    floor: bool = False
    """Whether the language model's blocks are drawn anew after training."""

    @property
    def name(self) -> str:
        """As in the names of folders."""
        return (
            self.rates.replace("_", "-") + ("-alone" if self.alone else "") + ("-floor" if self.floor else "")
        )

    @property
    def cuts(self) -> Mapping[str, tuple[str, ...]]:
        """What its VLMs are read under."""
        return ALONE_CUTS if self.alone else CUTS


ARMS = (
    Arm(rates="biased"),
    Arm(rates="biased", alone=True),
    Arm(rates="biased", floor=True),
    Arm(rates="told_all"),
    Arm(rates="permuted"),
)


def run(
    out: Path,
    *,
    arms: Sequence[Arm] = ARMS,
    seeds: Sequence[int] = SEEDS,
    scenes: Path = Path("build/world/train"),
    maps: Path = Path("build/world/maps"),
    stages: tuple[Mapping[str, Settings], Settings] = (STAGE_ONE, STAGE_TWO),
    per_pattern: int = QUESTIONS,
    pictures: int = PICTURES,
    report: Report | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Iterator[tuple[Arm, int, str, Path]]:
    """Train and read what is missing, seed by seed; each reading's folder as it is done.

    Args:
        out: holds trainings, VLMs and readings.
        arms: what is trained; a floor needs the VLMs of its arm, which are trained where they are missing.
        seeds: of stage 2.
        scenes: a rendered set of training scenes.
        maps: the first of the same scenes, rendered with maps.
        stages: stage 1, and the one of stage 2.
        per_pattern: questions of each pattern that rehearsals are drawn from.
        pictures: test scenes that are read.
        report: told each training's steps.
        progress: told how far each reading is.

    Yields:
        Arm, seed, vision cut, run folder.
    """
    for seed in seeds:
        for arm in arms:
            options = {"scenes": scenes, "maps": maps, "per_pattern": per_pattern, "report": report}
            vlm = _trained(out, replace(arm, floor=False), seed, stages, options)
            if arm.floor:
                vlm = draw_blocks_anew(vlm, out / "zoo" / f"{arm.name}-{seed}", seed=seed)
            for cut, controls in arm.cuts.items():
                yield arm, seed, cut, read(vlm, cut, controls, out / "read", pictures, progress)


def _trained(
    out: Path,
    arm: Arm,
    seed: int,
    stages: tuple[Mapping[str, Settings], Settings],
    options: Mapping[str, object],
) -> Path:
    """The VLM of an arm and a seed."""
    _take_towers(out / "zoo", arm.rates)
    one, two = stages
    common = {"alone": arm.alone, "work": out / "work", "out": out / "zoo", **options}
    first = f"{arm.name}-stage-1"
    if not (out / "zoo" / first / "training.json").exists():
        train_vlm(arm.rates, seed=0, name=first, stages=one, **common)  # type: ignore[arg-type]
    name = f"{arm.name}-{seed}"
    if not (out / "zoo" / name / "training.json").exists():
        train_vlm(
            arm.rates,
            seed=seed,
            name=name,
            stages={"captions": replace(two, seed=seed)},
            first=out / "work" / first / "projector",
            **common,  # type: ignore[arg-type]
        )
    return out / "zoo" / name


def _take_towers(folder: Path, rates: str) -> None:
    """The bundled CLIP and language model, where `train_vlm` looks for them."""
    for name in (f"clip-{rates.replace('_', '-')}", "lm"):
        if not (folder / name).exists():
            shutil.copytree(zoo.path(name), folder / name)


def draw_blocks_anew(vlm: Path, out: Path, *, seed: int) -> Path:
    """A VLM whose language model has random blocks between its own embedding, last norm and unembedding."""
    if (out / "config.json").exists():
        return out
    model = AutoModelForImageTextToText.from_pretrained(vlm, dtype=torch.float32)
    with seeded(seed):
        drawn = LlamaForCausalLM(model.config.text_config)
    model.model.language_model.layers.load_state_dict(drawn.model.layers.state_dict())
    export(model, out, _PROCESSOR(vlm))
    return out


def read(
    vlm: Path | str,
    cut: str,
    controls: Sequence[str],
    folder: Path,
    pictures: int,
    progress: Progress,
    *,
    part_probe: bool = False,
) -> Path:
    """Read a VLM by the lens under one vision cut; the run folder."""
    config = LocateConfig(
        model=str(vlm),
        only=("knockout",),
        pictures=pictures,
        vision_edges=cut,
        controls=tuple(controls),
        part_probe=part_probe,
    )
    name = re.split("[/:]", str(vlm))[-1]
    letters = "".join(letter for letter in cut if letter.isalpha())
    return locate(config, out=folder / f"{name}-{letters}", progress=progress).folder


if __name__ == "__main__":
    wanted = [arm for arm in ARMS if arm.name in sys.argv[2:] or len(sys.argv) == 2]
    deque(run(Path(sys.argv[1]), arms=wanted), maxlen=0)
