"""A VLM of the zoo: a CLIP's patches, a projector, the language model; taught to answer questions about the world.

Stage 1 trains the projector alone on dense captions, stage 2 projector and language model on about 5,000 questions of
each pattern. The vision tower stays as CLIP left it, which is checked bit for bit. What the captions of CLIP left out
is therefore answered only as well as the patches happen to show it.
"""

import json
import logging
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import LlavaForConditionalGeneration, LlavaProcessor

from eyechart.core.errors import UserError
from eyechart.core.files import write_json
from eyechart.recipes.forms import SHARES, ask
from eyechart.train.export import export
from eyechart.train.loop import Settings, fit
from eyechart.train.packs import Example, Features, PackedBatches, tokenise
from eyechart.train.prompts import DESCRIBE
from eyechart.train.prompts import told as told_and_asked
from eyechart.train.vlm import (
    Report,
    Stage,
    answer_loss,
    cached_features,
    join_towers,
    tower_sha256,
    train_only,
    weights_sha256,
)
from eyechart.world.captions import dense, told
from eyechart.world.facts import Facts
from eyechart.world.questions import Question, questions
from eyechart.world.sets import load_set

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmRecipe:
    """What a VLM is trained from and how; the defaults take about 20 minutes on two cores."""

    clip: Path
    """A trained CLIP, as exported."""

    language: Path
    """A trained language model, as exported."""

    scenes: Path
    """A rendered set of the train split."""

    pictures: int = 24_000
    """How many of its scenes are used, from the first."""

    per_pattern: int = 5_000
    """Questions of each pattern, at most one of a pattern on a picture."""

    variants: int = 2
    """In how many forms each question is asked."""

    told: float = 0.08
    """The share of questions also asked without the picture, the scene told in words."""

    seed: int = 0
    projector: Settings = field(
        default_factory=lambda: Settings(
            max_steps=200, per_device_train_batch_size=48, learning_rate=2e-3, warmup_steps=20, weight_decay=0.0
        )
    )
    whole: Settings = field(
        default_factory=lambda: Settings(
            max_steps=600, per_device_train_batch_size=128, learning_rate=1e-3, warmup_steps=50
        )
    )
    """Of both stages; the batch size counts examples, not rows."""


def train_vlm(recipe: VlmRecipe, out: Path, work: Path, *, report: Report | None = None) -> Path:
    """Train a VLM and store it as a checkpoint, going on where an earlier call stopped.

    Args:
        out: where the checkpoint goes; `training.json` beside it says how it came about.
        work: where cached features and the newest training states are kept.
        report: called with the name of what is being done, how much is done, how much there is.

    Raises:
        UserError: there are too few scenes, or `work` holds another recipe's run.
    """
    began = time.monotonic()
    scenes = load_set(recipe.scenes)
    if recipe.pictures > len(scenes.scenes):
        raise UserError(f"{recipe.pictures} pictures are asked for; {recipe.scenes} holds {len(scenes.scenes)}")
    facts = [scene.facts for scene in scenes.scenes[: recipe.pictures]]
    model, processor = join_towers(recipe.clip, recipe.language, seed=recipe.seed)
    tower = tower_sha256(model)
    features = cached_features(
        model,
        processor,
        scenes.images[: recipe.pictures],
        work / "features",
        source=_set_sha256(recipe.scenes),
        report=report,
    )
    asked = choose_questions(facts, recipe)
    stages: Mapping[Stage, tuple[Settings, list[Example]]] = {
        "projector": (recipe.projector, captions(facts, recipe)),
        "whole": (recipe.whole, examples(facts, asked, recipe)),
    }
    for stage, (settings, taught) in stages.items():
        _train(model, processor, features, taught, stage, replace(settings, seed=recipe.seed), work, report)
    if tower_sha256(model) != tower:
        raise RuntimeError(f"the frozen vision tower has changed: it was {tower}, is {tower_sha256(model)}")
    export(model, out, processor)
    _write_record(out, recipe, asked, tower, time.monotonic() - began)
    return out


def _train(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    features: Features,
    taught: Sequence[Example],
    stage: Stage,
    settings: Settings,
    work: Path,
    report: Report | None,
) -> None:
    """One stage, from the newest checkpoint there is."""
    tokenizer: Any = processor.tokenizer  # type: ignore[attr-defined]
    train_only(model, stage)
    batches = PackedBatches(
        tokenise(taught, tokenizer),
        features,
        image_id=model.config.image_token_index,
        pad_id=tokenizer.pad_token_id,
        examples=settings.per_device_train_batch_size,
        seed=settings.seed,
    )
    identity = {"stage": stage, "examples": len(taught), "from": weights_sha256(model)}
    fit(model, answer_loss, batches, settings, work / stage, identity=identity, report=report)


def choose_questions(facts: Sequence[Facts], recipe: VlmRecipe) -> list[tuple[int, Question]]:
    """Up to `per_pattern` questions of each pattern, on the first pictures that allow them, one of each a picture."""
    rng = random.Random(f"questions {recipe.seed}")
    chosen: list[tuple[int, Question]] = []
    had: Counter[str] = Counter()
    for place, known in enumerate(facts):
        found = questions(known, rng)
        rng.shuffle(found)
        for question in {one.pattern: one for one in found}.values():
            if had[question.pattern] < recipe.per_pattern:
                had[question.pattern] += 1
                chosen.append((place, question))
    return chosen


def captions(facts: Sequence[Facts], recipe: VlmRecipe) -> list[Example]:
    """A dense caption of each picture."""
    rng = random.Random(f"captions {recipe.seed}")
    return [
        Example(picture=place, text=DESCRIBE, answer=dense(known, rng)) for place, known in enumerate(facts)
    ]


def examples(
    facts: Sequence[Facts], asked: Sequence[tuple[int, Question]], recipe: VlmRecipe
) -> list[Example]:
    """Each question in several forms, its options in either order; some with the scene told instead of shown."""
    rng = random.Random(f"forms {recipe.seed}")
    made = [
        _put(place, question, rng, "") for place, question in asked for _ in range(recipe.variants)
    ]
    instead = rng.sample(list(asked), round(recipe.told * len(asked)))
    return made + [_put(None, question, rng, told(facts[place])) for place, question in instead]


def _put(place: int | None, question: Question, rng: random.Random, scene: str) -> Example:
    form = rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
    options = question.options if rng.random() < 0.5 else question.options[::-1]
    text, answers = ask(question.text, options, form)
    answer = answers[options.index(question.truth)]
    return Example(picture=place, text=told_and_asked(scene, text) if scene else text, answer=answer)


def _set_sha256(folder: Path) -> str:
    return str(json.loads((folder / "manifest.json").read_text())["sha256"])


def _write_record(
    out: Path, recipe: VlmRecipe, asked: Sequence[tuple[int, Question]], tower: str, seconds: float
) -> None:
    """How the checkpoint came about, without anything that names a place on this machine."""
    told_of = {name: Path(value).name if isinstance(value, Path) else value for name, value in asdict(recipe).items()}
    write_json(
        out / "training.json",
        {
            "recipe": told_of,
            "questions": dict(sorted(Counter(question.pattern for _, question in asked).items())),
            "scenes_sha256": _set_sha256(recipe.scenes),
            "vision_tower_sha256": tower,
            "seconds": round(seconds),
        },
    )
