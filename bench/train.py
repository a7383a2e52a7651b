"""Two-stage LLaVA training: samples per second and peak memory, beside transformers' Trainer and the bound of bare steps.

Run: python bench/train.py [ROUNDS] [zoo|long ...]; then `python bench/train.py memory [zoo|long ...]`. One thread, float32.

Shapes (`SHAPES`), both of random weights: `zoo` is the bundled LLaVA (vision 6 layers x 128, 96 pixels, 64 image tokens;
language 8 layers x 128, 764 tokens), `long` has the real one's 576 image tokens and layers at widths that a CPU can bear
(vision 24 x 128, 336 pixels; language 32 x 256). Made-up pictures, a conversation of one question and one answer on each.

Contenders take turns in every round, from the same weights and on the same rows in the same order, with the same optimiser, schedule
and clipping. `eyechart` is `train_stages` with its features stored. `plain` is `transformers.Trainer` on the whole model: in every
step its collator opens the pictures and runs the processor, and `requires_grad` says what is trained. `bound` is what a step
cannot avoid: adapters and language model forward and backward, logits at the labels alone, clipping and optimiser, in a bare
loop whose features and token ids lie ready in memory. Timed are the steps but the first and the last, in seconds of this process's
CPU, which others do not stretch, and of the wall clock. The losses of every step must be equal to `CLOSE`. What is done once is told
apart: features of every image, and the reading of every row at the start of a run.
"""

import json
import math
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    get_scheduler,
)

from eyechart import zoo
from eyechart.core.devices import keep_freed_memory
from eyechart.models.quiet import quiet
from eyechart.models.untrained import draw_weights
from eyechart.models.vlms.feeding import feeding_of
from eyechart.train.collate import Tokeniser
from eyechart.train.dataset import Batches, make_ready
from eyechart.train.feature_store import FeatureStore, identity_of
from eyechart.train.loop import Settings, Shuffled
from eyechart.train.plan import DataPlan, StagePlan, TrainPlan
from eyechart.train.samples import read_samples
from eyechart.train.stages import train_stages
from locate import made_vlm

CLOSE = 1e-5
"""Nats by which the losses of a step may differ."""

RATES = {"stage1": 1e-3, "stage2": 2e-5}
WORDS = (
    "the red mug",
    "a small dog",
    "stands",
    "lies",
    "left of",
    "behind",
    "the box",
    "an open door",
    "is empty",
)
NO_LABEL = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model, and how it is trained."""

    side: tuple[int, int]
    """Of the pictures on the disk, in pixels."""

    batch: int
    steps: int
    words: int
    """Of an answer, at the most."""


SHAPES = {
    "zoo": Shape(side=(96, 96), batch=16, steps=14, words=3),
    "long": Shape(side=(640, 480), batch=2, steps=5, words=12),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every contender is given."""

    folder: Path
    """With `model`, `rows.json`, its pictures and, once filled, `features`."""

    stage: str
    plan: StagePlan
    rows: int

    @property
    def settings(self) -> Settings:
        """Those that the plan comes to."""
        return self.plan.settings(self.rows, processes=1, bf16=False, seed=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What came of a run: the clocks after each step, and each step's loss."""

    marks: list[dict[str, float]]
    losses: list[float]

    def seconds(self, clock: str) -> float:
        """Of the steps but the first, which warms up, and the last, for which the Trainer loads no further batch."""
        return self.marks[-2][clock] - self.marks[0][clock]


def now() -> dict[str, float]:
    """Both clocks."""
    return {"CPU": time.process_time(), "wall": time.perf_counter()}


# ------------------------------------------------------------------------------------------ what is trained


def make_set(folder: Path, name: str) -> None:
    """A model of random weights, and pictures of coloured squares with a conversation on each."""
    if name == "zoo":
        where = zoo.path("llava")
        model: Any = draw_weights(LlavaForConditionalGeneration(LlavaConfig.from_pretrained(where)), seed=0)
        processor = AutoProcessor.from_pretrained(where)
    else:
        made = made_vlm()
        model, processor = made.model, made.processor
    with quiet():
        model.save_pretrained(folder / "model")
        processor.save_pretrained(folder / "model")
    shape, drawn, rows = SHAPES[name], random.Random(0), []
    for number in range(shape.batch * shape.steps):
        colours = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        picture = Image.fromarray(colours).resize(shape.side, Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.jpg", quality=90)
        asked = f"<image>\nWhat {drawn.choice(WORDS)} {drawn.choice(WORDS)}?"
        answer = " ".join(drawn.choices(WORDS, k=drawn.randint(1, shape.words))) + "."
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
        rows.append({"id": str(number), "image": f"{number}.jpg", "conversations": turns})
    (folder / "rows.json").write_text(json.dumps(rows))


def work_of(folder: Path, name: str, stage: str) -> Work:
    """One stage on a set."""
    shape = SHAPES[name]
    plan = StagePlan(
        data=(DataPlan(file=str(folder / "rows.json")),),
        per_device_train_batch_size=shape.batch,
        max_steps=shape.steps,
        learning_rate=RATES[stage],
        bf16=False,
        logging_steps=1,
        save_steps=10**6,
    )
    return Work(folder=folder, stage=stage, plan=plan, rows=shape.batch * shape.steps)


def loaded(work: Work) -> tuple[Any, Any]:
    """Model and processor, with that frozen that the stage does not train."""
    with quiet():
        model = LlavaForConditionalGeneration.from_pretrained(work.folder / "model")
        processor = AutoProcessor.from_pretrained(work.folder / "model")
    model.requires_grad_(False)
    inner = model.model
    taught = [inner.multi_modal_projector]
    if work.stage == "stage2":
        taught += [inner.language_model, model.lm_head]
    for part in taught:
        part.requires_grad_(True)
    return model.train(), processor


def prepared(work: Work) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The batch of every step, with features; and the CPU seconds of what is done once, for each row."""
    model, processor = loaded(work)
    feeding = feeding_of(model, processor)
    tokeniser = Tokeniser(processor, feeding.image_token_id, max_length=2048)
    began = time.process_time()
    data = make_ready(read_samples(work.folder / "rows.json"), tokeniser, feeding)
    read = time.process_time()
    identity = identity_of(feeding, model, processor, "float32")
    store = FeatureStore(work.folder / "features", feeding.features, identity)
    opened = time.process_time()
    store.fill(data.pictures)
    filled = time.process_time()
    store.reload()
    batches = Batches(data, tokeniser, store, batch_size=work.plan.per_device_train_batch_size, seed=0)
    once = {"reading": (read - began) / work.rows, "features": (filled - opened) / work.rows}
    return [batches(number) for number in range(work.plan.max_steps)], once


# ------------------------------------------------------------------------------------------ contenders


def eyechart(work: Work) -> Ran:
    """`train_stages`, one stage of it."""
    marks: list[dict[str, float]] = []

    def report(part: str, done: int, total: int) -> None:
        if part == "train" and done:
            marks.append(now())

    def resolve(part: DataPlan) -> tuple[Path, None]:
        return Path(part.file), None

    with tempfile.TemporaryDirectory() as out:
        plan = TrainPlan(
            model=str(work.folder / "model"),
            output_dir=out,
            stage1=work.plan if work.stage == "stage1" else None,
            stage2=work.plan if work.stage == "stage2" else None,
            features_dir=str(work.folder / "features"),
        )
        train_stages(plan, resolve, report=report)
        lines = (Path(out) / work.stage / "loss.jsonl").read_text().splitlines()
    return Ran(marks=marks, losses=[json.loads(line)["loss"] for line in lines])


class Collator:
    """As a script does it: pictures and texts through the processor, labels where the answer is."""

    def __init__(self, folder: Path, processor: Any) -> None:
        self._folder, self._processor = folder, processor

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch with pixels."""
        prompts = [self._prompt(row) for row in rows]
        end = self._processor.tokenizer.eos_token
        said = [
            f"{prompt} {row['conversations'][1]['value']}{end}"
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        pictures = [Image.open(self._folder / row["image"]).convert("RGB") for row in rows]
        made = self._processor(
            images=pictures, text=said, padding=True, padding_side="right", return_tensors="pt"
        )
        labels = made["input_ids"].masked_fill(made["attention_mask"] == 0, NO_LABEL)
        asked = self._processor(images=pictures, text=prompts)["input_ids"]
        for number, ids in enumerate(asked):
            labels[number, : len(ids)] = NO_LABEL
        return {**made, "labels": labels}

    def _prompt(self, row: dict[str, Any]) -> str:
        asked = row["conversations"][0]["value"].removeprefix("<image>\n")
        content = [{"type": "image"}, {"type": "text", "text": asked}]
        turns = [{"role": "user", "content": content}]
        return str(self._processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


class Marks(TrainerCallback):
    """The clocks after each step, and its loss."""

    def __init__(self) -> None:
        self.marks: list[dict[str, float]] = []
        self.losses: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A step is done."""
        self.marks.append(now())

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Its loss is known."""
        if "loss" in kwargs["logs"]:
            self.losses.append(kwargs["logs"]["loss"])


def in_order(work: Work) -> list[dict[str, Any]]:
    """The rows as the steps take them."""
    rows = json.loads((work.folder / "rows.json").read_text())
    order = Shuffled(items=work.rows, batch_size=work.plan.per_device_train_batch_size)
    return [rows[place] for step in range(work.plan.max_steps) for place in order.at(step)[1]]


def plain(work: Work) -> Ran:
    """The Trainer on the whole model."""
    model, processor = loaded(work)
    given = {name: value for name, value in asdict(work.settings).items() if name != "muon_rate"}
    seen = Marks()
    with tempfile.TemporaryDirectory() as out, quiet():
        arguments = TrainingArguments(
            output_dir=out,
            **given,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
            train_sampling_strategy="sequential",
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=in_order(work),  # type: ignore[arg-type]
            data_collator=Collator(work.folder, processor),
            callbacks=[seen],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Ran(marks=seen.marks, losses=seen.losses)


def bare(work: Work, batches: Sequence[dict[str, Any]]) -> Ran:
    """The bound: nothing but the parts, on features and ids in memory."""
    model, _ = loaded(work)
    settings = work.settings
    taught = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        taught,
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        weight_decay=0.0,
        fused=True,
    )
    schedule = get_scheduler(settings.lr_scheduler_type, optimiser, settings.warmup_steps, settings.max_steps)
    marks, losses = [], []
    for batch in batches:
        loss = _loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(taught, settings.max_grad_norm)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
        marks.append(now())
    return Ran(marks=marks, losses=losses)


def _loss(model: Any, batch: dict[str, Any]) -> Tensor:
    ids, inner = batch["input_ids"], model.model
    tokens = inner.multi_modal_projector(batch["features"]["vision_tower"])
    places = (ids == model.config.image_token_id)[..., None]
    held = inner.language_model.embed_tokens(ids).masked_scatter(places, tokens)
    mask = batch["attention_mask"]
    states = inner.language_model(inputs_embeds=held, attention_mask=mask, use_cache=False).last_hidden_state
    targets = functional.pad(batch["labels"][:, 1:], (0, 1), value=NO_LABEL)
    spoken = targets != NO_LABEL
    return functional.cross_entropy(model.lm_head(states[spoken]), targets[spoken])


# ------------------------------------------------------------------------------------------ speed


def told(values: Sequence[float], form: str = ".2f") -> str:
    """Least, median and most."""
    return " to ".join(format(value, form) for value in (min(values), statistics.median(values), max(values)))


def speed(rounds: int, names: Sequence[str]) -> None:
    """Every contender in turn, for each shape and stage, and what came out."""
    keep_freed_memory()  # as the training room does; the others profit too
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            make_set(Path(folder), name)
            batches, once = prepared(work_of(Path(folder), name, "stage1"))
            check_batch(work_of(Path(folder), name, "stage1"), batches[0])
            _, length = batches[0]["input_ids"].shape
            shape = SHAPES[name]
            print(
                f"{name}: {shape.batch} rows of at most {length} tokens a step, {shape.steps - 2} steps timed of {shape.steps},"
                f" {rounds} rounds; done once for each row: {1e3 * once['features']:.1f} ms of CPU for the features of its"
                f" image, and in every run {1e3 * once['reading']:.1f} ms of reading"
            )
            for stage in RATES:
                _turns(work_of(Path(folder), name, stage), batches, rounds, once)


def check_batch(work: Work, ours: dict[str, Any]) -> None:
    """The plain collator and Eyechart's make the same ids and labels."""
    collator = Collator(work.folder, loaded(work)[1])
    theirs = collator(in_order(work)[: work.plan.per_device_train_batch_size])
    for name in ("input_ids", "attention_mask", "labels"):
        if not torch.equal(ours[name], theirs[name]):
            raise SystemExit(f"the two collators differ in {name}")


def _turns(work: Work, batches: Sequence[dict[str, Any]], rounds: int, once: dict[str, float]) -> None:
    contenders: dict[str, Callable[[], Ran]] = {
        "bound": lambda: bare(work, batches),
        "eyechart": lambda: eyechart(work),
        "plain": lambda: plain(work),
    }
    found: dict[str, list[Ran]] = {name: [] for name in contenders}
    apart = 0.0
    for _ in range(rounds):
        for name, contender in contenders.items():
            found[name].append(contender())
        apart = max(apart, same({name: runs[-1].losses for name, runs in found.items()}))
    last = found["plain"][-1].losses[-1]
    print(f"  {work.stage}: losses of {len(batches)} steps at most {apart:.1g} apart, the last {last:.4f}")
    rows = work.plan.per_device_train_batch_size * (len(batches) - 2)
    for clock in ("CPU", "wall"):
        rates = {name: [rows / ran.seconds(clock) for ran in runs] for name, runs in found.items()}
        share, gain = (
            [mine / other for mine, other in zip(rates["eyechart"], rates[name], strict=True)]
            for name in ("bound", "plain")
        )
        print(
            f"    {clock}: "
            + "; ".join(f"{name} {told(values)}" for name, values in rates.items())
            + " rows/s"
        )
        print(f"      eyechart is {told(share)} of the bound, and {told(gain)} times plain")
        if clock == "CPU":
            medians = {name: statistics.median(values) for name, values in rates.items()}
            saved = 1 / medians["plain"] - 1 / medians["eyechart"]
            print(f"      what features cost is earned after {once['features'] / saved:.1f} epochs")


def same(losses: dict[str, list[float]]) -> float:
    """How far the losses of a step are apart at the most.

    Raises:
        SystemExit: farther than they may.
    """
    apart = max(max(step) - min(step) for step in zip(*losses.values(), strict=True))
    if not apart <= CLOSE or not math.isfinite(apart):
        raise SystemExit(f"losses are {apart:.2g} apart: {losses}")
    return apart


# ------------------------------------------------------------------------------------------ memory


def memory(names: Sequence[str]) -> None:
    """Peak memory of a process for each contender, and of one that only loads the model."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            make_set(Path(folder), name)
            for arm, stage in [("none", "stage1"), ("features", "stage1")] + [
                (arm, stage) for stage in RATES for arm in ("eyechart", "plain")
            ]:
                command = [sys.executable, __file__, "child", arm, folder, name, stage]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                print(f"{name} {stage} {arm:10} {float(done.stdout):.0f} MB at the most", flush=True)


def child(arm: str, folder: Path, name: str, stage: str) -> None:
    """Do an arm's part in four steps and print the peak in MB; `features` fills the store."""
    work = work_of(folder, name, stage)
    work = replace(work, plan=replace(work.plan, max_steps=4))
    if arm == "features":
        prepared(work)
    elif arm == "none":
        loaded(work)
    else:
        {"eyechart": eyechart, "plain": plain}[arm](work)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = sys.argv[1:]
    if given[:1] == ["child"]:
        child(given[1], Path(given[2]), given[3], given[4])
    elif given[:1] == ["memory"]:
        memory(given[1:] or list(SHAPES))
    else:
        speed(int(given[0]) if given else 5, given[1:] or list(SHAPES))
