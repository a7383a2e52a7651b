"""A CLIP trained on pictures of the world and captions that leave out what captions leave out.

Three of them differ in nothing but how often a caption tells a fact: `biased` as captions on the web do, `told_all`
everything at one high rate, `permuted` with the common and the rare facts changed over. What `told_all` sees and
`biased` does not was hidden by the captions' silence and not by the drawing.
"""

import random
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from eyechart.core.devices import seeded
from eyechart.core.errors import UserError, unknown
from eyechart.core.images import sha256_of
from eyechart.recipes.tokenizer import make_tokenizer
from eyechart.train.contrastive import (
    MILD,
    ClipShape,
    clip_objective,
    export_clip,
    limit_scale,
    make_clip,
    tokenize,
)
from eyechart.train.loop import Batch, Batches, Report, Settings, Shuffled, fit
from eyechart.train.pictures import PictureBatches
from eyechart.train.tokens import ZooTokenizer, load_tokenizer
from eyechart.world.captions import BIASED, PERMUTED, TOLD_ALL, Rates, caption
from eyechart.world.sets import SceneSet, load_set, set_hash

RATES: Mapping[str, Rates] = {"biased": BIASED, "told_all": TOLD_ALL, "permuted": PERMUTED}

SHAPE = ClipShape()
SETTINGS = Settings(
    max_steps=1500,
    per_device_train_batch_size=128,
    learning_rate=1e-3,
    muon_rate=2.0,
    weight_decay=0.1,
    warmup_steps=60,
    logging_steps=20,
    save_steps=100,
)


def train_clip(
    rates: str = "biased",
    *,
    scenes: Path = Path("build/world/train"),
    tokenizer: Path = Path("build/zoo/tokenizer"),
    work: Path = Path("build/work"),
    out: Path = Path("build/zoo"),
    settings: Settings = SETTINGS,
    shape: ClipShape = SHAPE,
    first: int | None = None,
    name: str | None = None,
    report: Report | None = None,
) -> Path:
    """Train one of the three and write it to `out/clip-RATES`.

    All three begin with the same weights and see the same pictures in the same order.

    Args:
        rates: a name in `RATES`.
        scenes: a rendered set of training scenes.
        tokenizer: the zoo's tokenizer, which is made where there is none.
        work: checkpoints go to `work/clip-RATES`; the same command goes on there.
        settings: how long and how fast to train.
        shape: how large it is; pictures larger than its `image_size` are made smaller, as its processor makes them.
        first: only the first so many scenes; all unless given.
        name: of its folder, `clip-RATES` unless given.
        report: told the steps that are done.

    Raises:
        UserError: no such rates, no set in `scenes`, or another run in `work`.
    """
    if rates not in RATES:
        raise unknown("set of caption rates", rates, RATES)
    name = name or f"clip-{rates.replace('_', '-')}"
    words = load_tokenizer(make_tokenizer(tokenizer))
    pictures = shown(load_set(scenes), side=shape.image_size, first=first)
    with seeded(settings.seed):
        model = make_clip(words, shape)
    fit(
        model,
        clip_objective(crops=MILD),
        captioned(pictures, RATES[rates], words, batch_size=settings.per_device_train_batch_size),
        settings,
        work / name,
        identity={
            "rates": asdict(RATES[rates]),
            "scenes": set_hash(scenes),
            "shape": asdict(shape),
            "tokenizer": sha256_of(tokenizer / "tokenizer.json"),
            **({} if first is None else {"first": first}),
        },
        after_step=limit_scale,
        report=report,
    )
    return export_clip(model, words, out / name)


def shown(scenes: SceneSet, *, side: int, first: int | None = None) -> SceneSet:
    """The first scenes of a set with pictures of that side, in memory where they have to be made smaller.

    Raises:
        UserError: the set holds fewer scenes, or its pictures are smaller.
    """
    there, drawn = scenes.images.shape[:2]
    count = there if first is None else first
    if not 1 <= count <= there:
        raise UserError(f"{scenes.folder} holds {there} scenes, so the first {count} cannot be taken")
    if side > drawn:
        raise UserError(
            f"{scenes.folder} holds pictures of {drawn} pixels; a side of {side} would add nothing"
        )
    images = scenes.images[:count]
    if side < drawn:
        smaller = [Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC) for one in images]
        images = np.stack([np.asarray(one) for one in smaller])
    return replace(scenes, images=images, scenes=scenes.scenes[:count], families=scenes.families[:count])


def captioned(
    scenes: SceneSet, rates: Rates, tokenizer: ZooTokenizer, *, batch_size: int, seed: int = 0
) -> Batches:
    """Pictures with captions that are worded anew in every epoch, and tell other facts each time."""
    order = Shuffled(items=len(scenes.images), batch_size=batch_size, seed=seed)
    pictures = PictureBatches(scenes.images, batch_size, seed=seed)

    def batch(step: int) -> Batch:
        epoch, places = order.at(step)
        captions = [
            caption(scenes.scenes[place].facts, rates, random.Random(f"caption {seed} {epoch} {place}"))
            for place in places
        ]
        return pictures(step) | tokenize(tokenizer, captions, length=SHAPE.max_position_embeddings)

    return batch
