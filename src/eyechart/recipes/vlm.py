"""A VLM of the zoo: a CLIP's patches, a projector and the language model, taught to answer questions about the world.

    eyechart train vlm

Stage 1 trains the projector on the names of single regions and on dense captions. Stage 2 trains projector and language
model: on the captions, until they are read off the picture; then on about 5,000 questions of each pattern, answered in a
word; then on the same with labelled options, too, answered by the option itself. With all of them it rehearses names, and
questions on scenes told in words.
Questions alone did not teach it to look, and a label is not found for what it sees (docs/studies/zoo.md). The vision
tower stays as CLIP left it, which is checked bit for bit; so a fact is answered only as well as the patches happen to
show it.
"""

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from eyechart.core.errors import UserError, unknown
from eyechart.core.files import write_json
from eyechart.recipes.clip import RATES
from eyechart.recipes.forms import LABEL_SHARES, WORD, ask, draw_form
from eyechart.recipes.names import namings
from eyechart.train.cached import Features, SideBySide
from eyechart.train.export import export
from eyechart.train.loop import Report, Settings, fit, take_newest
from eyechart.train.mixture import Sight, join_mixture, see_all
from eyechart.train.packs import Example, PackedBatches, tokenise
from eyechart.train.prompts import DESCRIBE
from eyechart.train.prompts import told as asked_of
from eyechart.train.vlm import (
    Joined,
    Taught,
    cached_features,
    join_towers,
    start_projector,
    taught_loss,
    tower_sha256,
    train_only,
)
from eyechart.train.weights import weights_sha256
from eyechart.world.captions import dense, told
from eyechart.world.facts import Facts
from eyechart.world.questions import Question, questions
from eyechart.world.sets import SceneSet, load_set, set_hash

_WHOLE = Settings(
    max_steps=250,
    per_device_train_batch_size=200,
    learning_rate=1e-3,
    muon_rate=2.0,
    warmup_steps=20,
    logging_steps=10,
    save_steps=50,
)

STAGES: Mapping[str, Settings] = {
    "projector": replace(
        _WHOLE,
        max_steps=400,
        per_device_train_batch_size=96,
        learning_rate=2e-3,
        muon_rate=0.0,
        weight_decay=0.0,
    ),
    "captions": replace(
        _WHOLE,
        max_steps=530,
        per_device_train_batch_size=75,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=40,
    ),
    "words": replace(
        _WHOLE,
        max_steps=660,
        per_device_train_batch_size=240,
        lr_scheduler_type="constant_with_warmup",
    ),
    "options": replace(_WHOLE, max_steps=265),
}
"""The stages in order. The batch size counts examples; those on one picture share rows."""

LONGEST = 340
"""Tokens of a row: a picture, its caption and the questions on it."""

PER_PATTERN = 5000
"""Questions of each pattern, where there are as many scenes that allow one."""

CAPTION_SHARE = 0.33
"""So many of the captions are still read beside the questions."""

ANSWER_WEIGHT = 30.0
"""A token of an answer to a question counts so much; a caption has many tokens, an answer few."""

STARTED_ON = 1000
"""Pictures from whose features the projector's first weights are made."""

NAMED, NAMED_LATER = 30_000, 6_000
"""Regions that are shown with their names in stage 1, and in each part of stage 2."""

TOLD_SHARE = 0.15
"""So many of the questions are asked once more without the picture, the scene told in words: a rehearsal."""


def train_vlm(
    rates: str = "biased",
    *,
    sight: Sight | None = None,
    scenes: Path = Path("build/world/train"),
    maps: Path = Path("build/world/maps"),
    per_pattern: int = PER_PATTERN,
    seed: int = 0,
    work: Path = Path("build/work"),
    out: Path = Path("build/zoo"),
    name: str | None = None,
    alone: bool = False,
    stages: Mapping[str, Settings] = STAGES,
    first: Path | None = None,
    report: Report | None = None,
) -> Path:
    """Train a VLM on the CLIP `out/clip-RATES` and the language model `out/lm`, and write it to `out/llava-RATES`.

    Args:
        rates: the caption rates of its CLIP, a name in `recipes.clip.RATES`.
        sight: the encoders of a mixture of features to train instead of a LLaVA, folders in `out`; name it, too.
        scenes: a rendered set of training scenes.
        maps: the first of the same scenes, rendered with maps.
        per_pattern: questions of each pattern.
        seed: of the projector's first weights, the questions and the order of batches.
        work: features and checkpoints go to `work/NAME`; the same command goes on there.
        name: another name than `llava-RATES`.
        alone: the patches it is shown have read no other token in its vision tower: what can be learnt without context.
        stages: how long and how fast to train in each; those that are left out are passed over.
        first: a finished stage 1 (`work/NAME/projector`) to go on from, where `stages` has none.
        report: told the features and the steps that are done.

    Raises:
        UserError: no such rates, no set in `scenes` or `maps`, other scenes in `maps`, or another run in `work`.
    """
    if rates not in RATES:
        raise unknown("set of caption rates", rates, RATES)
    began, known, kind = time.monotonic(), load_set(scenes), rates.replace("_", "-")
    name = name or f"llava-{kind}"
    facts = [scene.facts for scene in known.scenes]
    model, processor, features = _joined(
        sight, kind, known, set_hash(scenes), seed=seed, alone=alone, work=work, out=out, report=report
    )
    tower = tower_sha256(model)
    asked = choose_questions(facts, per_pattern, seed)
    taught = _taught(facts, asked, _named(_mapped(maps, known), features.shape[1], seed), seed)
    start_projector(model, np.asarray(features[:: max(1, len(features) // STARTED_ON)]), seed=seed)
    if first is not None:
        take_newest(Taught(model), first)
    for stage in (stage for stage in taught if stage in stages):
        train_only(model, "projector" if stage == "projector" else "whole")
        train_on(model, processor, features, taught[stage], stages[stage], work / name / stage, report)
    _check_frozen(model, tower)
    export(model, out / name, processor)
    record = {
        "rates": rates,
        "seed": seed,
        **_told(asked, taught, stages),
        **({"alone": True} if alone else {}),
        **({} if sight is None else {"sight": asdict(sight)}),
    }
    record |= {"scenes_sha256": set_hash(scenes), "maps_sha256": set_hash(maps), "vision_tower_sha256": tower}
    write_json(out / name / "training.json", {**record, "seconds": round(time.monotonic() - began)})
    return out / name


def _joined(
    sight: Sight | None,
    kind: str,
    known: SceneSet,
    source: str,
    *,
    seed: int,
    alone: bool,
    work: Path,
    out: Path,
    report: Report | None,
) -> tuple[Joined, Any, Features | SideBySide]:
    """A VLM of trained parts, its processor, and what its adapters read of all pictures."""
    if sight is not None:
        mixture, asking = join_mixture(sight, out, out / "lm", seed=seed)
        seen = see_all(sight, mixture, asking, known.images, work, source=source, report=report)
        return mixture, asking, seen
    model, processor = join_towers(out / f"clip-{kind}", out / "lm", seed=seed)
    folder = work / (f"features-{kind}-alone" if alone else f"features-{kind}")
    features = cached_features(
        model, processor, known.images, folder, source=source, alone=alone, report=report
    )
    return model, processor, features


def _told(
    asked: Sequence[tuple[int, Question]],
    taught: Mapping[str, Sequence[Example]],
    stages: Mapping[str, Settings],
) -> dict[str, Any]:
    """What was read in training, and how, for the record beside the model."""
    return {
        "questions": Counter(sorted(question.pattern for _, question in asked)),
        "examples": {stage: len(read) for stage, read in taught.items()},
        "settings": {stage: asdict(settings) for stage, settings in stages.items()},
    }


def _check_frozen(model: Joined, tower: str) -> None:
    if tower_sha256(model) != tower:
        raise RuntimeError(f"the frozen vision tower has changed: it was {tower}, is {tower_sha256(model)}")


def _mapped(folder: Path, known: SceneSet) -> SceneSet:
    """The scenes with maps, which have to be the first of those whose features are read."""
    mapped = load_set(folder)
    if mapped.scenes != known.scenes[: len(mapped.scenes)]:
        raise UserError(f"{folder} does not hold the first scenes of {known.folder}; render both anew")
    return mapped


def _named(regions: SceneSet, patches: int, seed: int) -> list[list[Example]]:
    """Regions with their names: those of stage 1, and those of each part of stage 2."""
    grid = round(patches**0.5)
    return [
        namings(regions, count, grid=grid, seed=seed, weight=ANSWER_WEIGHT) for count in (NAMED, NAMED_LATER)
    ]


def _taught(
    facts: Sequence[Facts],
    asked: Sequence[tuple[int, Question]],
    named: Sequence[list[Example]],
    seed: int,
) -> dict[str, list[Example]]:
    """What each stage reads. Rehearsals go with all that changes the language model, which captions make forget."""
    described, rehearsed = captions(facts, seed), rehearsals(facts, asked, seed)
    some = random.Random(f"some captions {seed}").sample(described, round(CAPTION_SHARE * len(described)))
    in_words, by_label = (examples(asked, seed, labels=labels) for labels in (False, True))
    first, later = named[0], rehearsed + named[1]
    return {
        "projector": some + first,
        "captions": described + later,
        "words": some + in_words + later,
        "options": some + in_words + by_label + later,
    }


def train_on(
    model: Joined,
    processor: Any,
    features: Features | SideBySide,
    taught: Sequence[Example],
    settings: Settings,
    folder: Path,
    report: Report | None = None,
) -> None:
    """One stage, from its newest checkpoint if there is one."""
    tokenizer: Any = processor.tokenizer
    tokens_per_patch = getattr(model.config, "tokens_per_cell", 1)
    batches = PackedBatches(
        tokenise(taught, tokenizer),
        features,
        image_id=model.config.image_token_index,
        pad_id=tokenizer.pad_token_id,
        examples=settings.per_device_train_batch_size,
        longest=LONGEST + (tokens_per_patch - 1) * features.shape[1],
        tokens_per_patch=tokens_per_patch,
        seed=settings.seed,
    )
    identity = {"examples": batches.sha256, "from": weights_sha256(model)}
    fit(Taught(model), taught_loss, batches, settings, folder, identity=identity, report=report)


def choose_questions(facts: Sequence[Facts], per_pattern: int, seed: int) -> list[tuple[int, Question]]:
    """Up to so many questions of each pattern, on the first pictures that allow them, one of each a picture.

    Where a picture allows several of one pattern, it is the one of the family that was asked least so far.
    """
    rng = random.Random(f"questions {seed}")
    chosen: list[tuple[int, Question]] = []
    had: Counter[str] = Counter()
    for place, known in enumerate(facts):
        found: dict[str, list[Question]] = {}
        for question in questions(known, rng):
            found.setdefault(question.pattern, []).append(question)
        for pattern, several in found.items():
            if had[pattern] < per_pattern:
                question = min(several, key=lambda one: had[f"family {one.family}"])
                had.update((pattern, f"family {question.family}"))
                chosen.append((place, question))
    return chosen


def captions(facts: Sequence[Facts], seed: int) -> list[Example]:
    """A dense caption of each picture."""
    rng = random.Random(f"captions {seed}")
    return [
        Example(picture=place, text=DESCRIBE, answer=dense(known, rng)) for place, known in enumerate(facts)
    ]


def examples(asked: Sequence[tuple[int, Question]], seed: int, *, labels: bool) -> list[Example]:
    """Each question on its picture, by itself or with its options labelled; the answer is the option that is right."""
    rng = random.Random(f"forms {seed}")
    return [
        _put(place, question, draw_form(rng, LABEL_SHARES) if labels else WORD) for place, question in asked
    ]


def rehearsals(facts: Sequence[Facts], asked: Sequence[tuple[int, Question]], seed: int) -> list[Example]:
    """What the language model could do before, without a picture: questions on scenes told in words."""
    rng = random.Random(f"rehearsals {seed}")
    return [
        _put(None, question, draw_form(rng), told(facts[place]))
        for place, question in rng.sample(list(asked), round(TOLD_SHARE * len(asked)))
    ]


def _put(place: int | None, question: Question, form: str, scene: str = "") -> Example:
    text, _ = ask(question.text, question.options, form)
    said = asked_of(scene, text) if scene else text
    return Example(picture=place, text=said, answer=question.truth, weight=ANSWER_WEIGHT)
