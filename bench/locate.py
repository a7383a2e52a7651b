"""Knockout sweeps: seconds and peak memory, beside the bound of layer passes, plain hooks and nnsight.

Run: python bench/locate.py [ROUNDS] [PARTS] [BATCH] [THREADS]; then `python bench/locate.py memory`. A BATCH of 0 is the
sweep's own choice.
The model is a LLaVA with random weights, 24 vision and 32 language layers and the real one's 576 image tokens, narrow enough for
a CPU (`SHAPE`). One picture; for each part (a rectangle of patches): cut off from the rest in the vision tower (all layers, and
shares of them), in the language tower (all layers, and windows of nine), and in both; and the intact model once. Read are the
states of all language layers at all image positions.

The bound is what the layers alone would take: layer passes that no order of work avoids (`layer_passes`), times the time
of one for one row, measured in every round on single blocks without any cut, in the batch that is quickest (`ROWS`).
Contenders take turns in every round and must give the same states to 1e-4 of a layer's spread: `plain` is what a script
does, one whole pass for each condition with masks put in by hooks, without the unembedding; `nnsight` does the same
through its traces, broken off after the last layer, where it is installed. With one thread times are also given in CPU
seconds, which other processes stretch much less: read these on a machine that is not quiet.
"""

import importlib.util
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from eyechart.core.records import Prompt
from eyechart.models.attention import Condition, Cut
from eyechart.models.attention.replay import Model
from eyechart.models.attention.sweep import layer_passes, sweep
from eyechart.models.attention.sweep_proof import Ways, prove_replay
from eyechart.models.untrained import TEMPLATE, draw_weights, tiny_tokenizer
from eyechart.models.vlms import VLM

SHAPE = {
    "vision": {"hidden_size": 128, "num_hidden_layers": 24, "num_attention_heads": 2, "intermediate_size": 512},
    "language": {"hidden_size": 256, "num_hidden_layers": 32, "num_attention_heads": 4, "intermediate_size": 688},
}  # fmt: skip
SIDE, PATCH, GRID, WINDOW, STEP = 336, 14, 24, 9, 6
CLOSE = 1e-4
"""Of the spread of a layer's states."""

ROWS = 1, 4, 8
"""Sizes of batches that the bound is tried with."""

States = list[Tensor]
"""Of each condition: layer x image position x dim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every contender is given."""

    vlm: VLM
    prompt: Prompt
    conditions: list[Condition]
    image: list[int]
    ways: Ways
    batch: int | None


def made_vlm() -> VLM:
    """The model and a processor."""
    tokenizer = tiny_tokenizer(["<image>"], chat_template=TEMPLATE)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model", "image_size": SIDE, "patch_size": PATCH, "projection_dim": 64, **SHAPE["vision"]
        },
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **ids, **SHAPE["language"]},
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


def made_prompt() -> Prompt:
    """A picture of 336 pixels and a question."""
    colours = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(colours).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return Prompt(text="What is the animal in the middle of this picture doing?", images=(picture,))


def part_patches(number: int) -> list[int]:
    """A rectangle of 6 x 8 patches, elsewhere for each number."""
    top, left = (5 * number + 2) % (GRID - 6), (7 * number + 3) % (GRID - 8)
    return [row * GRID + column for row in range(top, top + 6) for column in range(left, left + 8)]


def cut_off(
    tower: Any, tokens: int, part: Sequence[int], others: Sequence[int], layers: Sequence[int]
) -> Cut:
    """The part may not look at the others."""
    edges = torch.zeros(tokens, tokens, dtype=torch.bool)
    edges[torch.tensor(part)[:, None], torch.tensor(others)[None]] = True
    return Cut(name="part<-rest", tower=tower, edges=edges, layers=tuple(layers))


def made_conditions(parts: int, length: int, image: Sequence[int]) -> list[Condition]:
    """The sweep: see the module."""
    blocks, used = SHAPE["language"]["num_hidden_layers"], SHAPE["vision"]["num_hidden_layers"] - 1
    conditions = [Condition(name="intact")]
    for number in range(parts):
        patches = part_patches(number)
        rest = [patch for patch in range(GRID * GRID) if patch not in set(patches)]

        def vision(
            first: int,
            patches: Sequence[int] = patches,
            rest: Sequence[int] = rest,
            tokens: int = GRID * GRID + 1,
        ) -> Cut:
            part, others = [one + 1 for one in patches], [0, *(one + 1 for one in rest)]
            return cut_off("vision", tokens, part, others, range(first, used))

        def language(
            layers: Sequence[int], patches: Sequence[int] = patches, rest: Sequence[int] = rest
        ) -> Cut:
            return cut_off("language", length, [image[p] for p in patches], [image[p] for p in rest], layers)

        windows = [range(first, first + WINDOW) for first in range(0, blocks - WINDOW + 1, STEP)]
        cuts = {
            "vision": (vision(0),),
            "language": (language(range(blocks)),),
            "both": (vision(0), language(range(blocks))),
            "vision, last half": (vision(used // 2),),
            "vision, last quarter": (vision(3 * used // 4),),
            **{f"language {some[0]}-{some[-1]}": (language(some),) for some in windows},
        }
        conditions += [Condition(name=f"part {number}: {name}", cuts=some) for name, some in cuts.items()]
    return conditions


def made_work(parts: int, batch: int | None) -> Work:
    """A model, a prompt and the conditions."""
    vlm, prompt = made_vlm(), made_prompt()
    image = list(vlm.image_positions(prompt))
    length = vlm.inputs([prompt])["input_ids"].shape[1]
    conditions = made_conditions(parts, length, image)
    return Work(
        vlm=vlm,
        prompt=prompt,
        conditions=conditions,
        image=image,
        ways=prove_replay(vlm, prompt),
        batch=batch,
    )


# ------------------------------------------------------------------------------------------ contenders


def ours(work: Work) -> States:
    """Eyechart."""
    states: dict[int, Tensor] = {}
    for read in sweep(work.vlm, work.prompt, work.conditions, batch=work.batch, ways=work.ways):
        states[read.number] = read.states
    return [states[number] for number in range(len(work.conditions))]


def plain(work: Work) -> States:
    """As a script does it: hooks put a mask into chosen layers, and the model runs from pixels to the last layer."""
    return [_by_hooks(work, condition) for condition in work.conditions]


@torch.no_grad()
def _by_hooks(work: Work, condition: Condition) -> Tensor:
    inputs = work.vlm.inputs([work.prompt])
    handles, states = [], []
    for module, mask in masks_of(work, condition):
        edit = lambda m, a, k, mask=mask: (a, {**k, "attention_mask": mask})  # noqa: E731
        handles.append(module.register_forward_pre_hook(edit, with_kwargs=True))
    blocks = work.vlm.towers.language_blocks
    handles.append(blocks[0].register_forward_pre_hook(lambda m, a: states.append(a[0][0, work.image])))
    handles += [
        block.register_forward_hook(lambda m, a, o: states.append(o[0, work.image])) for block in blocks
    ]
    work.vlm.model.model(**inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.stack(states)


def masks_of(work: Work, condition: Condition) -> list[tuple[nn.Module, Tensor]]:
    """The modules of attention with a cut, and the additive mask that makes it."""
    found = []
    for cut in condition.cuts:
        mask = torch.zeros(cut.edges.shape).masked_fill(cut.edges, torch.finfo(torch.float32).min)
        if cut.tower == "language":
            mask = mask.masked_fill(torch.ones_like(cut.edges).triu(1), torch.finfo(torch.float32).min)
        found += [
            (site.module, mask[None, None])
            for site in work.vlm.self_attentions(cut.tower)
            if site.layer in cut.layers
        ]
    return found


def nnsight_way(work: Work) -> States:
    """nnsight: traces with the same masks, broken off after the last language layer."""
    from nnsight import NNsight

    wrapped = NNsight(work.vlm.model.model)
    return [_traced(wrapped, work, condition) for condition in work.conditions]


@torch.no_grad()
def _traced(wrapped: Any, work: Work, condition: Condition) -> Tensor:
    masks = {id(module): mask for module, mask in masks_of(work, condition)}
    inputs = work.vlm.inputs([work.prompt])
    seeing, speaking = work.vlm.self_attentions("vision"), work.vlm.self_attentions("language")
    vision, language = wrapped.vision_tower.encoder.layers, wrapped.language_model.layers
    image, blocks, states = work.image, len(speaking), []
    with wrapped.trace(**inputs, use_cache=False) as tracer:
        for layer in range(len(seeing)):
            mask = masks.get(id(seeing[layer].module))
            if mask is not None:
                args, kwargs = vision[layer].self_attn.inputs
                vision[layer].self_attn.inputs = (args, {**kwargs, "attention_mask": mask})
        states.append(language[0].input[0, image].save())
        for layer in range(blocks):
            mask = masks.get(id(speaking[layer].module))
            if mask is not None:
                args, kwargs = language[layer].self_attn.inputs
                language[layer].self_attn.inputs = (args, {**kwargs, "attention_mask": mask})
            states.append(language[layer].output[0, image].save())
        tracer.stop()
    return torch.stack(states)


# ------------------------------------------------------------------------------------------ the bound


Clocks = dict[str, Callable[[], float]]


def seconds_of_layers(work: Work, clocks: Clocks) -> dict[str, tuple[float, float]]:
    """By clock, of one vision and one language block, for one row of the quickest batch."""
    sizes = [seconds_in_batches(work, rows, clocks) for rows in ROWS]
    return {
        clock: (min(one[clock][0] for one in sizes), min(one[clock][1] for one in sizes)) for clock in clocks
    }


@torch.no_grad()
def seconds_in_batches(work: Work, rows: int, clocks: Clocks) -> dict[str, list[float]]:
    """By clock, of one vision and one language block, without a cut, for one row of a batch: medians over blocks."""
    assert work.ways.form is not None
    model = Model(model=work.vlm.model, towers=work.vlm.towers, form=work.ways.form)
    inputs = {
        name: value[:, : max(work.image) + 1] if value.ndim == 2 else value
        for name, value in work.vlm.inputs([work.prompt]).items()
    }
    found: dict[str, list[float]] = {clock: [] for clock in clocks}
    for chain in model.chains(inputs).values():
        states = torch.randn(rows, *chain.root.shape)
        took: dict[str, list[float]] = {clock: [] for clock in clocks}
        for layer in range(0, len(chain.blocks), 2):
            began = {clock: read() for clock, read in clocks.items()}
            chain.step(layer, states)
            for clock, read in clocks.items():
                took[clock].append(read() - began[clock])
        for clock in clocks:
            found[clock].append(statistics.median(took[clock]) / rows)
    return found


def told(values: Sequence[float], form: str = ".2f") -> str:
    """Least, median and most."""
    return " to ".join(format(value, form) for value in (min(values), statistics.median(values), max(values)))


def speed(rounds: int, parts: int, batch: int, threads: int) -> None:
    """Every contender in turn on the same sweep, and what came out."""
    torch.set_num_threads(threads)
    began = time.perf_counter()
    work = made_work(parts, batch or None)
    passes = layer_passes(work.vlm, work.prompt, work.conditions, ways=work.ways)
    used = SHAPE["vision"]["num_hidden_layers"], SHAPE["language"]["num_hidden_layers"]
    many = len(work.conditions)
    print(
        f"{many} conditions in batches of {batch or 'the size the sweep chooses'};"
        f" layer passes: {passes.vision} vision and {passes.language} language, of"
        f" {many * used[0]} and {many * used[1]} in whole passes; set up and proved in"
        f" {time.perf_counter() - began:.1f} s; {work.ways.note}",
        flush=True,
    )
    contenders: dict[str, Callable[[Work], States]] = {"eyechart": ours, "plain": plain}
    if importlib.util.find_spec("nnsight") is None:
        print("nnsight is not installed here: left out")
    else:
        contenders["nnsight"] = nnsight_way
    clocks = {"CPU seconds": time.process_time} if threads == 1 else {}
    _turns(work, contenders, rounds, {"wall seconds": time.perf_counter, **clocks}, passes)


def _turns(
    work: Work,
    contenders: dict[str, Callable[[Work], States]],
    rounds: int,
    clocks: Clocks,
    passes: Any,
) -> None:
    took: dict[str, dict[str, list[float]]] = {name: {} for name in clocks}
    for _ in range(rounds):
        found: dict[str, States] = {}
        for clock, (vision, language) in seconds_of_layers(work, clocks).items():
            bound = passes.vision * vision + passes.language * language
            took[clock].setdefault("bound", []).append(bound)
        for name, contender in contenders.items():
            began = {clock: read() for clock, read in clocks.items()}
            found[name] = contender(work)
            for clock, read in clocks.items():
                took[clock].setdefault(name, []).append(read() - began[clock])
        for name in contenders:
            _same(name, found[name], found["plain"])
    for clock, by_name in took.items():
        print(clock)
        for name, seconds in by_name.items():
            ratios = [other / mine for other, mine in zip(seconds, by_name["eyechart"], strict=True)]
            print(f"  {name:10} {told(seconds)} s; {told(ratios)} times eyechart's")


def _same(name: str, found: States, wanted: States) -> None:
    apart = max(
        float(((a - b).abs().amax(dim=(1, 2)) / b.std(dim=(1, 2))).max())
        for a, b in zip(found, wanted, strict=True)
    )
    if not apart <= CLOSE:
        raise SystemExit(
            f"the states of {name} are {apart:.2g} of a layer's spread from those of plain hooks"
        )
    print(f"  {name}: at most {apart:.1g} of a layer's spread from plain hooks", file=sys.stderr)


def memory(parts: int) -> None:
    """Peak memory of a process that sweeps, of one that does it by plain hooks, and of one that only makes the model."""
    for arm in ("none", "eyechart", "plain"):
        done = subprocess.run(
            [sys.executable, __file__, "child", arm, str(parts)], capture_output=True, text=True, check=True
        )
        print(f"{arm:10} {float(done.stdout):.0f} MB at the most")


def child(arm: str, parts: int) -> None:
    """Read the sweep's states, letting go of each, and print the peak in MB; `none` loads and proves only."""
    torch.set_num_threads(1)
    work = made_work(parts, None)
    if arm == "eyechart":
        for _ in sweep(work.vlm, work.prompt, work.conditions, ways=work.ways):
            pass
    elif arm == "plain":
        for condition in work.conditions:
            _by_hooks(work, condition)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["child"]:
        child(given[1], int(given[2]))
    elif given[:1] == ["memory"]:
        memory(int(given[1]) if given[1:] else 2)
    else:
        numbers, defaults = [int(one) for one in given], [3, 2, 0, 1]
        speed(*[*numbers, *defaults[len(numbers) :]])
