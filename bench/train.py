"""Two-stage LLaVA training: samples per second and peak memory, beside transformers' Trainer and the bound of bare steps.

Run: python bench/train.py [SHAPE[=STEPS] ...]. One thread, float32, random weights, two shapes (`SHAPES`). `zoo` is the bundled LLaVA:
vision 6 layers x 128, 96 pixels, 64 image tokens; language 8 layers x 128, 764 tokens. `long` has the 576 image tokens and the layers of
LLaVA 1.5 at widths that a CPU can bear: vision 24 x 128, 336 pixels; language 32 x 256. Made-up pictures, and a conversation of one question and
one answer on each.

Every contender is a process of its own that starts from the same weights and sees the same rows in the same order, with the same optimiser,
schedule and clipping. `eyechart` is `train_stages` with its features stored. `plain` is `transformers.Trainer` on the whole model: in every step
its collator opens the pictures and runs the processor, and `requires_grad` says what is trained. `bound` is what a step cannot avoid:
adapters and language model forward and backward, logits at the labels alone, clipping and optimiser, in a bare loop whose features and ids
lie ready in memory.

They take turns step by step, so every ratio is of one step on one batch; the first step and the last, for which no Trainer
loads a further batch, do not count. Seconds are those of a process's CPU, which others stretch less, and of the wall clock. Both collators must
give the same batch, and the losses of every step must be equal to `CLOSE`. What is done once is told apart: the features of every image, and
the reading of every row as a run begins. `loaded` is a process that only loads the model.
"""

import json
import operator
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_scheduler,
)

from eyechart import zoo
from eyechart.core.devices import keep_freed_memory, seeded
from eyechart.models.quiet import quiet
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
WORDS = "the red mug,a small dog,stands,lies,left of,behind,the box,an open door,is empty".split(",")
NO_LABEL = -100
ARMS = ("bound", "eyechart", "plain")
CLOCKS = {"CPU": time.process_time, "wall": time.perf_counter}

Done = Callable[[], None]
"""Called after each step."""


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
    "zoo": Shape(side=(96, 96), batch=16, steps=42, words=3),
    "long": Shape(side=(640, 480), batch=2, steps=9, words=12),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every contender is given."""

    folder: Path
    """With `model`, `rows.json`, its pictures and, once filled, `features`."""

    name: str
    """Of the shape."""

    stage: str
    plan: StagePlan
    rows: int

    @property
    def settings(self) -> Settings:
        """Those that the plan comes to."""
        return self.plan.settings(self.rows, processes=1, bf16=False, seed=0)


def now() -> dict[str, float]:
    """Both clocks."""
    return {name: read() for name, read in CLOCKS.items()}


# ------------------------------------------------------------------------------------------ what is trained


def make_set(folder: Path, name: str, steps: int) -> None:
    """A model of random weights, and pictures of coloured squares with a conversation on each."""
    if name == "zoo":
        where = zoo.path("llava")
        with seeded(0):
            model: Any = LlavaForConditionalGeneration(LlavaConfig.from_pretrained(where))
        processor = LlavaProcessor.from_pretrained(where)
    else:
        made = made_vlm()
        model, processor = made.model, made.processor
    with quiet():
        model.save_pretrained(folder / "model")
        processor.save_pretrained(folder / "model")
    shape, drawn, rows = SHAPES[name], random.Random(0), []
    for number in range(shape.batch * steps):
        colours = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        picture = Image.fromarray(colours).resize(shape.side, Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.jpg", quality=90)
        asked = f"<image>\nWhat {drawn.choice(WORDS)} {drawn.choice(WORDS)}?"
        answer = " ".join(drawn.choices(WORDS, k=drawn.randint(1, shape.words))) + "."
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
        rows.append({"id": str(number), "image": f"{number}.jpg", "conversations": turns})
    (folder / "rows.json").write_text(json.dumps(rows))


def work_of(folder: Path, name: str, stage: str, steps: int) -> Work:
    """One stage on a set."""
    shape = SHAPES[name]
    plan = StagePlan(
        data=(DataPlan(file=str(folder / "rows.json")),),
        per_device_train_batch_size=shape.batch,
        max_steps=steps,
        learning_rate=RATES[stage],
        bf16=False,
        logging_steps=1,
        save_steps=10**6,
    )
    return Work(folder=folder, name=name, stage=stage, plan=plan, rows=shape.batch * steps)


def loaded(work: Work) -> tuple[Any, Any]:
    """Model and processor, with that frozen that the stage does not train."""
    with quiet():
        model = LlavaForConditionalGeneration.from_pretrained(work.folder / "model")
        processor = LlavaProcessor.from_pretrained(work.folder / "model")
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


def eyechart(work: Work, done: Done) -> list[float]:
    """`train_stages`, one stage of it."""

    def report(part: str, number: int, total: int) -> None:
        if part == "train" and number:
            done()

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
    return [json.loads(line)["loss"] for line in lines]


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


class Watch(TrainerCallback):
    """Tells when a step is done, and keeps its loss."""

    def __init__(self, done: Done) -> None:
        self._done = done
        self.losses: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """A step is done."""
        self._done()

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Its loss is known."""
        if "loss" in kwargs["logs"]:
            self.losses.append(kwargs["logs"]["loss"])


def in_order(work: Work) -> list[dict[str, Any]]:
    """The rows as the steps take them."""
    rows = json.loads((work.folder / "rows.json").read_text())
    order = Shuffled(items=work.rows, batch_size=work.plan.per_device_train_batch_size)
    return [rows[place] for step in range(work.plan.max_steps) for place in order.at(step)[1]]


def plain(work: Work, done: Done) -> list[float]:
    """The Trainer on the whole model."""
    model, processor = loaded(work)
    given = {name: value for name, value in asdict(work.settings).items() if name != "muon_rate"}
    seen = Watch(done)
    with tempfile.TemporaryDirectory() as out, quiet():
        arguments = TrainingArguments(
            output_dir=out, **given, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
            remove_unused_columns=False, train_sampling_strategy="sequential",
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=arguments, train_dataset=in_order(work), callbacks=[seen],
            data_collator=Collator(work.folder, processor),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return seen.losses


def bare(work: Work, done: Done) -> list[float]:
    """The bound: nothing but the parts, on features and ids in memory."""
    keep_freed_memory()  # as the training room does
    batches, _ = prepared(work)
    model, _ = loaded(work)
    settings = work.settings
    taught = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        taught, lr=settings.learning_rate, betas=(settings.adam_beta1, settings.adam_beta2), eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay, fused=True,
    )  # fmt: skip
    schedule = get_scheduler(settings.lr_scheduler_type, optimiser, settings.warmup_steps, settings.max_steps)
    losses = []
    for batch in batches:
        loss = _loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(taught, settings.max_grad_norm)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
        done()
    return losses


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


# ------------------------------------------------------------------------------------------ a contender's process


class Turns:
    """A process's side of the turns: after each step it tells the seconds that took and waits until it may go on."""

    def __init__(self) -> None:
        self._began = now()

    def done(self) -> None:
        """A step is done."""
        took = {clock: at - self._began[clock] for clock, at in now().items()}
        print(json.dumps(took), flush=True)
        if not sys.stdin.readline():
            raise SystemExit("whoever gave the turns is gone")
        self._began = now()


def own_peak() -> float:
    """This process's peak in MB, by Linux; `ru_maxrss` would not be below the peak of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def child(arm: str, work: Work) -> None:
    """Do an arm's part; the last line says what it gave and the peak in MB."""
    done, told = Turns().done, dict[str, Any]()
    if arm == "features":
        told["once"] = prepared(work)[1]
    elif arm == "loaded":
        loaded(work)
    else:
        told["losses"] = {"bound": bare, "eyechart": eyechart, "plain": plain}[arm](work, done)
    told["peak"] = own_peak()
    print(json.dumps(told), flush=True)


class Contender:
    """The parent's side."""

    def __init__(self, arm: str, work: Work) -> None:
        command = [sys.executable, __file__, "child", arm, str(work.folder), work.name, work.stage]
        command.append(str(work.plan.max_steps))
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def told(self) -> dict[str, Any]:
        """What it says next."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise SystemExit(f"{self._process.args!r} ended with {self._process.wait()} and said no more")

    def go_on(self) -> dict[str, Any]:
        """Let it go on, and wait for what it says next."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.told()

    def end(self) -> dict[str, Any]:
        """Let it go on to its end; its last line."""
        found = self.go_on()
        self._process.wait()
        return found


# ------------------------------------------------------------------------------------------ what came out


def compare(name: str, steps: int) -> None:
    """All contenders on one shape, both stages."""
    with tempfile.TemporaryDirectory() as made:
        folder, batch = Path(made), SHAPES[name].batch
        make_set(folder, name, steps)
        first = work_of(folder, name, "stage1", steps)
        made_once = Contender("features", first).told()
        once = {part: 1e3 * seconds for part, seconds in made_once["once"].items()}
        alone = Contender("loaded", first).told()["peak"]
        print(f"{name}: {batch} rows of at most {longest(first)} tokens a step; {steps - 2} steps timed")
        print(
            f"  once for each image {once['features']:.1f} ms of CPU for its features (peak {made_once['peak']:.0f} MB);"
            f" in every run {once['reading']:.1f} ms for each row; loaded: {alone:.0f} MB"
        )
        for stage in RATES:
            _turns(work_of(folder, name, stage, steps), once["features"])


def longest(work: Work) -> int:
    """Tokens of the longest row; both collators must agree on the first batch."""
    batches, _ = prepared(work)
    collator = Collator(work.folder, loaded(work)[1])
    theirs = collator(in_order(work)[: work.plan.per_device_train_batch_size])
    for name in ("input_ids", "attention_mask", "labels"):
        if not torch.equal(batches[0][name], theirs[name]):
            raise SystemExit(f"the two collators differ in {name}")
    return max(int(batch["input_ids"].shape[1]) for batch in batches)


def _turns(work: Work, features: float) -> None:
    """Step by step in turn, each time another first; then rates, ratios and peaks."""
    contenders = {}
    for arm in ARMS:
        contenders[arm] = Contender(arm, work)
        contenders[arm].told()
    took: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for step in range(1, work.plan.max_steps):
        for arm in (*ARMS[step % len(ARMS) :], *ARMS[: step % len(ARMS)]):
            took[arm].append(contenders[arm].go_on())
    ends = {arm: contender.end() for arm, contender in contenders.items()}
    apart, steps = same({arm: end["losses"] for arm, end in ends.items()}), work.plan.max_steps
    print(
        f"  {work.stage}: losses of {steps} steps at most {apart:.1g} apart, the last {ends['plain']['losses'][-1]:.5f}"
    )
    for clock in CLOCKS:
        _tell(
            clock, {arm: [step[clock] for step in found[:-1]] for arm, found in took.items()}, work, features
        )
    print("    peak: " + ", ".join(f"{arm} {end['peak']:.0f} MB" for arm, end in ends.items()), flush=True)


def _tell(clock: str, seconds: dict[str, list[float]], work: Work, features: float) -> None:
    batch = work.plan.per_device_train_batch_size
    rates = [f"{arm} {spread([batch / one for one in of])}" for arm, of in seconds.items()]
    share, gain = (
        list(map(operator.truediv, seconds[arm], seconds["eyechart"])) for arm in ("bound", "plain")
    )
    print(f"    {clock}: {'; '.join(rates)} rows/s")
    print(f"      eyechart is {spread(share)} of the bound, and {spread(gain)} times plain")
    if clock == "CPU":
        saved = statistics.median(map(operator.sub, seconds["plain"], seconds["eyechart"])) / batch
        after = f"after {features / 1e3 / saved:.1f} epochs" if saved > 0 else "never"
        print(f"      its features are paid for {after}")


def spread(values: Sequence[float]) -> str:
    """Least, median and most."""
    return " to ".join(f"{value:.2f}" for value in (min(values), statistics.median(values), max(values)))


def same(losses: dict[str, list[float]]) -> float:
    """How far the losses of a step are apart at the most.

    Raises:
        SystemExit: farther than they may.
    """
    apart: float = max(max(step) - min(step) for step in zip(*losses.values(), strict=True))
    if not apart <= CLOSE:
        raise SystemExit(f"losses are {apart:.2g} apart: {losses}")
    return apart


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["child"]:
        arm, folder, name, stage, steps = sys.argv[2:]
        child(arm, work_of(Path(folder), name, stage, int(steps)))
    else:
        for asked in sys.argv[1:] or list(SHAPES):
            name, _, steps = asked.partition("=")
            compare(name, int(steps or SHAPES[name].steps))
