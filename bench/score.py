"""Scoring options: items per second and peak memory, beside one pass for each option in plain transformers.

Run: python bench/score.py [ITEMS] [ROUNDS] [THREADS] [VOCABULARY] [BATCH]; then `python bench/score.py memory [FEW] [MANY]`.
The model is a LLaVA with random weights and the real one's 576 image tokens (CLIP at 336 pixels in patches of 14), narrow
enough for a CPU (`SHAPE`). Items have a picture and two options each: letters of one token, or texts of several; `orders` asks
for letters with the options in both orders, two prompts a picture, as the control for the order of options does. What bounds the
ratio where every picture is asked about once: two passes over everything against one without the head, so twice one plus the head's
share of the rest. Contenders take turns on the same items in every round and must give the same scores and answers; lmms-eval takes part with a last
argument `lmms-eval`, where it is installed. Its scores are means per token, and are compared as answers only.
"""

import importlib.util
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from eyechart.core.records import Prompt
from eyechart.models.untrained import TEMPLATE, draw_weights, tiny_tokenizer
from eyechart.models.vlms import VLM

SHAPE = {
    "vision": {
        "hidden_size": 128,
        "num_hidden_layers": 24,
        "num_attention_heads": 2,
        "intermediate_size": 512,
    },
    "language": {
        "hidden_size": 512,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "intermediate_size": 1408,
    },
}
"""Depths near those of real models, widths a fraction; 38 million weights in the language model's layers."""

SIDE, PATCH = 336, 14
QUESTIONS = (
    "Is the dog facing left or right from the camera's perspective?",
    "Are there any windows visible in this image?",
    "Where is the yellow animal's head lying in this picture? On the floor or on the carpet?",
    "How many people are there?",
)
INSTRUCTION = "Answer with the option's letter from the given choices directly."
TEXTS = (
    ("On the left", "On the right side"),
    ("Yes, there are", "No"),
    ("On the floor", "On the carpet"),
    ("1", "2"),
)
TOLERANCE = 1e-3
"""In nats, on sums of several log-probabilities in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An item as the model gets it."""

    prompt: Prompt
    options: tuple[str, ...]


Scores = list[tuple[float, ...]]


def made_vlm(vocabulary: int) -> VLM:
    """The model, with a language model's head over so many tokens."""
    tokenizer = tiny_tokenizer(["<image>"], chat_template=TEMPLATE)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model", "image_size": SIDE, "patch_size": PATCH, "projection_dim": 64, **SHAPE["vision"]
        },
        text_config={"model_type": "llama", "vocab_size": max(vocabulary, len(tokenizer)), **ids, **SHAPE["language"]},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIDE // PATCH) ** 2,
    )  # fmt: skip
    model = draw_weights(LlavaForConditionalGeneration(config), seed=0)
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )  # fmt: skip
    return VLM.from_objects(model, processor, name="made")


def made_items(count: int, kind: str) -> Iterator[Asked]:
    """Items one by one: pictures of 224 pixels, as MMVP's, and options as `letters` or `texts`, or letters in both `orders`."""
    for number in range(count):
        rng, place = np.random.default_rng(number), number % len(QUESTIONS)
        colours = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        image = Image.fromarray(colours).resize((224, 224), Image.Resampling.BICUBIC)
        options = tuple(f" {text}" for text in TEXTS[place]) if kind == "texts" else (" A", " B")
        for order in (TEXTS[place], TEXTS[place][::-1]) if kind == "orders" else (TEXTS[place],):
            shown = "\n".join(f"{letter}. {text}" for letter, text in zip("AB", order, strict=True))
            text = f"{QUESTIONS[place]}\n{shown}\n{INSTRUCTION}"
            yield Asked(prompt=Prompt(text=text, images=(image,)), options=options)


def ours(vlm: VLM, items: Iterator[Asked] | Sequence[Asked], batch: int) -> Scores:
    """Eyechart, so many items at a time."""
    scores: Scores = []
    some: list[Asked] = []
    for item in items:
        some.append(item)
        if len(some) == batch:
            scores += vlm.option_scores_of([one.prompt for one in some], [one.options for one in some])
            some = []
    if some:
        scores += vlm.option_scores_of([one.prompt for one in some], [one.options for one in some])
    return scores


def plain(vlm: VLM, items: Iterator[Asked] | Sequence[Asked]) -> Scores:
    """As a script does it: prompt and option together through the model, once for each option."""
    return [
        tuple(
            _by_a_pass(vlm.model, vlm.processor, vlm.render(item.prompt), item, option)
            for option in item.options
        )
        for item in items
    ]


def _by_a_pass(model: Any, processor: Any, text: str, item: Asked, option: str) -> float:
    inputs = processor(text=text + option, images=list(item.prompt.images), return_tensors="pt")
    count = len(processor.tokenizer(option, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        logits = model(**inputs).logits[0, -count - 1 : -1].float()
    tokens = inputs["input_ids"][0, -count:]
    return float(logits.log_softmax(-1).gather(1, tokens[:, None]).sum())


def lmms_eval(vlm: VLM, folder: Path) -> Callable[[Sequence[Asked]], Scores]:
    """lmms-eval's own scoring of options by its LLaVA class: minus the mean loss of each."""
    from lmms_eval.api.instance import Instance
    from lmms_eval.models.simple.llava_hf import LlavaHf

    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    template = "{% for m in messages %}{{ 'USER: ' + m.content + ' ASSISTANT:' if m.role == 'user' else m.content }}{% endfor %}"
    harness = LlavaHf(
        pretrained=str(folder), device="cpu", device_map="cpu", dtype="float32", chat_template=template
    )

    def score(items: Sequence[Asked]) -> Scores:
        harness.task_dict = {"made": {"test": list(items)}}
        requests = [
            Instance(
                request_type="loglikelihood",
                arguments=(
                    item.prompt.text,
                    option,
                    lambda one: list(one.prompt.images),
                    number,
                    "made",
                    "test",
                ),
                idx=0,
                metadata={"task": "made", "doc_id": number, "repeats": 1},
            )
            for number, item in enumerate(items)
            for option in item.options
        ]
        losses = iter([-loss for loss, _ in harness.loglikelihood(requests)])
        return [tuple(next(losses) for _ in item.options) for item in items]

    return score


def best(scores: Scores) -> list[int]:
    """The place of the most likely option of each item."""
    return [max(range(len(some)), key=some.__getitem__) for some in scores]


def told(values: Sequence[float], form: str = ".2f") -> str:
    """Least, median and most."""
    return " to ".join(format(value, form) for value in (min(values), statistics.median(values), max(values)))


def speed(items: int, rounds: int, threads: int, vocabulary: int, batch: int, *, harness: bool) -> None:
    """Every contender in turn on the same items, and what came out."""
    torch.set_num_threads(threads)
    vlm = made_vlm(vocabulary)
    contenders: dict[str, Callable[[Sequence[Asked]], Scores]] = {
        "eyechart": lambda some: ours(vlm, some, batch),
        "plain": lambda some: plain(vlm, some),
    }
    with tempfile.TemporaryDirectory() as folder:
        if harness and importlib.util.find_spec("lmms_eval") is None:
            print("lmms-eval is not installed here: left out")
        elif harness:
            contenders |= _harness(vlm, Path(folder))
        first = next(made_items(1, "letters")).prompt
        fed = vlm.inputs([first])["input_ids"].shape[1]
        language = sum(p.numel() for p in vlm.model.model.language_model.layers.parameters())
        head = vlm.model.lm_head.weight.numel()
        print(
            f"{fed} tokens in the first prompt, {len(vlm.image_positions(first))} of them image tokens; weights: "
            f"{language / 1e6:.0f} M in the language layers, {head / 1e6:.0f} M in the head; {threads} threads, batches of {batch}"
        )
        for kind in ("letters", "texts", "orders"):
            _turns(contenders, list(made_items(items, kind)), rounds, kind)


def _harness(vlm: VLM, folder: Path) -> dict[str, Callable[[Sequence[Asked]], Scores]]:
    """lmms-eval where it can score an item; 0.7.3 cannot with transformers 5: it hands over a text without its image."""
    score = lmms_eval(vlm, folder)
    try:
        score(list(made_items(1, "letters")))
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        print(f"lmms-eval fails on the first item ({str(error)[:100]}): left out")
        return {}
    return {"lmms-eval": score}


def _turns(
    contenders: dict[str, Callable[[Sequence[Asked]], Scores]], items: list[Asked], rounds: int, kind: str
) -> None:
    took: dict[str, list[float]] = {name: [] for name in contenders}
    found: dict[str, Scores] = {}
    for work in contenders.values():
        work(items[:2])
    for _ in range(rounds):
        for name, work in contenders.items():
            began = time.perf_counter()
            found[name] = work(items)
            took[name].append(time.perf_counter() - began)
    apart = max(
        abs(a - b) for some, wanted in zip(found["eyechart"], found["plain"], strict=True)
        for a, b in zip(some, wanted, strict=True)
    )  # fmt: skip
    if apart > TOLERANCE or best(found["eyechart"]) != best(found["plain"]):
        raise SystemExit(f"{kind}: the scores differ by {apart:.2g} nats")
    print(f"{kind}: {len(items)} prompts, the same answers; scores at most {apart:.1g} nats apart")
    for name, seconds in took.items():
        ratios = [other / mine for other, mine in zip(seconds, took["eyechart"], strict=True)]
        same = sum(a == b for a, b in zip(best(found[name]), best(found["plain"]), strict=True))
        print(
            f"  {name:10} {told([len(items) / one for one in seconds])} prompts/s; eyechart is {told(ratios)} times as fast; "
            f"{same} of {len(items)} answers as plain"
        )


def memory(few: int, many: int) -> None:
    """Peak memory of a process that scores few items and of one that scores many."""
    for arm in ("none", "eyechart", "plain"):
        for count in (few, many) if arm == "eyechart" else (few,):
            done = subprocess.run(
                [sys.executable, __file__, "child", arm, str(count)],
                capture_output=True,
                text=True,
                check=True,
            )
            print(f"{arm:10} {count:5} items: peak {float(done.stdout):.0f} MB")


def child(arm: str, count: int) -> None:
    """Score so many items, two options of several tokens each, and print the peak in MB; `none` loads the model only."""
    torch.set_num_threads(1)
    vlm = made_vlm(32_000)
    items = made_items(count, "texts")
    if arm != "none":
        ours(vlm, items, 4) if arm == "eyechart" else plain(vlm, items)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["child"]:
        child(given[1], int(given[2]))
    elif given[:1] == ["memory"]:
        memory(*(int(one) for one in given[1:] or ("50", "400")))
    else:
        numbers = [int(one) for one in given if one != "lmms-eval"]
        defaults = [24, 5, 2, 32_000, 4]
        speed(*[*numbers, *defaults[len(numbers) :]], harness="lmms-eval" in given)
