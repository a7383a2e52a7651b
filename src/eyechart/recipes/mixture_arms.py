"""The VLMs of the study of mixtures: what they see through, and how they are taught.

All stand on one language model that has looked through an encoder before: that of `zoo:llava-told-all`, whose CLIP is in no
arm. From the bundled text-only one, a VLM learns to look for the most part of an hour before it answers at all
(docs/studies/zoo.md); from this one, adapters suffice to begin with. Each run of a seed has the same examples in the same order, and
stage 1 and stage 2 as in LLaVA: adapters alone, then adapters and language model.
"""

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, LlamaForCausalLM

from eyechart import zoo
from eyechart.core.files import write_json
from eyechart.fix.instructions import cells, held_out, instructed
from eyechart.models.quiet import quiet
from eyechart.recipes.names import namings
from eyechart.recipes.vlm import (
    ANSWER_WEIGHT,
    CAPTION_SHARE,
    STAGES,
    captions,
    choose_questions,
    examples,
    train_on,
)
from eyechart.train.export import export
from eyechart.train.loop import Report, Settings
from eyechart.train.mixture import Sight, join_mixture, see_all
from eyechart.train.packs import Example
from eyechart.train.tokens import load_tokenizer
from eyechart.train.vlm import start_projector, tower_sha256, train_only
from eyechart.world.facts import Facts
from eyechart.world.sets import SceneSet, load_set, set_hash

LANGUAGE = "llava-told-all"
"""The bundled VLM whose language model all arms start from."""

SIX, THREE = tuple(range(6)), tuple(range(3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to see, and the seeds it is trained from."""

    name: str
    sight: Sight
    seeds: tuple[int, ...] = SIX

    @property
    def share(self) -> float | None:
        """The share of the second encoder where features are added, as the paper's table counts; None elsewhere."""
        return 1 - self.sight.alpha if self.sight.mixture == "additive" else None


def _two(mixture: Any, second: str = "two-view", **more: Any) -> Sight:
    return Sight(first="clip-biased", second=second, mixture=mixture, **more)


def _added(share: float, second: str = "two-view") -> Sight:
    return _two("additive", second, alpha=1 - share, standardise=True)


ARMS = (
    Arm(name="clip", sight=Sight(first="clip-biased")),
    Arm(name="ssl", sight=Sight(first="two-view", first_layer=-1)),
    Arm(name="amof-0.5", sight=_added(0.5)),
    Arm(name="amof-0.75", sight=_added(0.75)),
    Arm(name="imof", sight=_two("interleaved")),
    Arm(name="concatenated", sight=_two("concatenated")),
    Arm(name="clip-twice", sight=_two("interleaved", "clip-biased", second_layer=-2), seeds=THREE),
    Arm(name="amof-0.25", sight=_added(0.25), seeds=THREE),
    Arm(name="amof-0.625", sight=_added(0.625), seeds=THREE),
    Arm(name="amof-0.875", sight=_added(0.875), seeds=THREE),
    Arm(name="mae", sight=Sight(first="mae", first_layer=-1), seeds=THREE),
    Arm(name="mae-amof-0.5", sight=_added(0.5, "mae"), seeds=THREE),
    Arm(name="mae-amof-0.75", sight=_added(0.75, "mae"), seeds=THREE),
    Arm(name="mae-imof", sight=_two("interleaved", "mae"), seeds=THREE),
)
"""`clip` is the baseline. `clip-twice` has as many tokens as `imof`, and sees no more than `clip`."""

STAGE_ONE = replace(STAGES["projector"], max_steps=50, warmup_steps=10)

STAGE_TWO = replace(
    STAGES["captions"],
    max_steps=120,
    per_device_train_batch_size=192,
    lr_scheduler_type="cosine",
    warmup_steps=10,
)

SCENES = 8000
"""Training scenes that are read."""

PER_PATTERN = 3000
NAMED, NAMED_LATER = 10_000, 2000
TAUGHT_EACH = 500
"""Instructed questions of each cell of the grid that is taught."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much is taught."""

    one: Settings = STAGE_ONE
    two: Settings = STAGE_TWO
    scenes: int = SCENES
    per_pattern: int = PER_PATTERN
    named: tuple[int, int] = (NAMED, NAMED_LATER)
    each: int = TAUGHT_EACH


def train_arm(
    arm: Arm,
    seed: int,
    out: Path,
    *,
    scenes: Path,
    maps: Path,
    amounts: Amounts | None = None,
    report: Report | None = None,
) -> Path:
    """Train one run, from where it stopped; its checkpoint is a folder in `out/zoo`.

    Args:
        scenes: a rendered set of training scenes.
        maps: the first of the same scenes, rendered with maps.
        report: told the features and the steps that are done.

    Raises:
        RuntimeError: a frozen encoder has changed.
    """
    name, much = f"{arm.name}-{seed}", amounts or Amounts()
    if (out / "zoo" / name / "training.json").exists():
        return out / "zoo" / name
    models, known = parts(out / "parts"), load_set(scenes)
    with quiet():
        model, processor = join_mixture(arm.sight, models, models / "lm", seed=seed)
    tower = tower_sha256(model)
    features = see_all(
        arm.sight, model, processor, known.images, out / "work", source=set_hash(scenes), report=report
    )
    start_projector(model, np.asarray(features[:: max(1, len(features) // 1000)]), seed=seed)
    taught = lessons(known, load_set(maps), features.shape[1], seed, much)
    for stage, part, settings in (("one", "projector", much.one), ("two", "whole", much.two)):
        train_only(model, part)  # type: ignore[arg-type]
        folder = out / "work" / name / stage
        train_on(model, processor, features, taught[stage], replace(settings, seed=seed), folder, report)
    if tower_sha256(model) != tower:
        raise RuntimeError(f"{name}: the frozen encoders have changed")
    with quiet():
        export(model, out / "zoo" / name, processor)
    counts = {stage: len(read) for stage, read in taught.items()}
    write_json(
        out / "zoo" / name / "training.json",
        {
            "arm": arm.name,
            "seed": seed,
            "sight": asdict(arm.sight),
            "examples": counts,
            "towers_sha256": tower,
        },
    )
    shutil.rmtree(out / "work" / name)
    return out / "zoo" / name


def lessons(
    known: SceneSet, regions: SceneSet, patches: int, seed: int, much: Amounts
) -> Mapping[str, list[Example]]:
    """What each stage reads: captions and names; then captions, questions answered in a word, instructions."""
    facts = [scene.facts for scene in known.scenes[: much.scenes]]
    described = captions(facts, seed)
    some = random.Random(f"some captions {seed}").sample(described, round(CAPTION_SHARE * len(described)))
    named = [
        namings(regions, count, grid=round(patches**0.5), seed=seed, weight=ANSWER_WEIGHT)
        for count in much.named
    ]
    asked = choose_questions(facts, much.per_pattern, seed)
    two = [*some, *examples(asked, seed, labels=False), *following(facts, much.each, seed), *named[1]]
    return {"one": described + named[0], "two": two}


def following(facts: Sequence[Facts], each: int, seed: int) -> list[Example]:
    """Instructed questions of the cells that are taught."""
    kept = held_out()
    taught = [cell for cell in cells() if cell not in kept]
    return [
        Example(picture=one.scene, text=one.text, answer=one.reply, weight=ANSWER_WEIGHT)
        for one in instructed(facts, taught, each, seed)
    ]


def parts(folder: Path) -> Path:
    """The bundled encoders, and the language model of `LANGUAGE` as a checkpoint of its own, in one folder."""
    for name in ("clip-biased", "two-view", "mae"):
        if not (folder / name).exists():
            shutil.copytree(zoo.path(name), folder / name)
    if not (folder / "lm" / "config.json").exists():
        with quiet():
            whole: Any = AutoModelForImageTextToText.from_pretrained(zoo.path(LANGUAGE), dtype=torch.float32)
            language = LlamaForCausalLM(whole.config.text_config)
            language.model.load_state_dict(whole.model.language_model.state_dict())
            language.lm_head.load_state_dict(whole.lm_head.state_dict())
            load_tokenizer(zoo.path("lm")).save_pretrained(folder / "lm")
            language.generation_config = LlamaForCausalLM.from_pretrained(zoo.path("lm")).generation_config
            language.save_pretrained(folder / "lm")
    return folder
