"""Many knockouts on one prompt, with nothing run twice that is the same.

A sweep reads a model's states under many conditions. Conditions that agree up to a layer share what lies below it: the vision tower is run once for all
that have the same vision cuts, and from the first cut block on for those that have not; language states below the first cut
layer are computed once; rows of one batch have different cuts (`cuts.py`). Nothing is run after the last layer read, after the
last position read where the language tower is causal, or in vision blocks behind those that are fed to the projector, and
the unembedding only where logits are asked for. The number of times that a block is run on one prompt is the least that any
order of work allows (`sweep_tree.py`, `layer_passes`). Whether a model can be run this way is shown first (`sweep_proof.py`);
where it cannot, each condition is a whole pass, and `Ways.note` says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eyechart.core.errors import UserError
from eyechart.core.records import Prompt
from eyechart.models.attention.cuts import Condition
from eyechart.models.attention.replay import Chain, Model
from eyechart.models.attention.sweep_proof import Ways, prove_replay, truncated
from eyechart.models.attention.sweep_run import Found, Passes, Replay, Setting, Wanted
from eyechart.models.attention.sweep_whole import merged_length, whole_pass
from eyechart.models.vlms.objects import undisturbed
from eyechart.models.vlms.prompting import Inputs, image_positions
from eyechart.models.vlms.states import forward_inputs, pick_positions
from eyechart.models.vlms.towers import Towers
from eyechart.models.vlms.vlm import VLM

MEMORY = 2**30
"""Bytes that a batch may take, by default: on a CPU, and at most half of what is free on a GPU."""

MOST = 32
"""Conditions in a batch, at most, when memory is not what bounds them."""

TOKENS = 4096
"""Tokens in a batch on a CPU, at most, by default: with more a block is no faster there, and sweeps in batches of 9,000 were a
quarter slower than in batches of 4,700 (`bench/locate.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """What was read under one condition. Tensors are on the model's device, in its number format."""

    condition: Condition
    number: int
    """Its place among the conditions that were given; they come back in an order of the sweep's own."""

    states: Float[Tensor, "layer position dim"]
    """Of the language tower. No layer has been through the final norm, the last included."""

    layer_numbers: tuple[int, ...]
    """0 is what the first block reads, n what block n, counted from 1, gives."""

    positions: tuple[int, ...]
    vision: Float[Tensor, "vision_layer row token vision_dim"] | None
    """Of the vision tower, in its own order of tokens; `row` counts tiles. None where none was asked for."""

    vision_layer_numbers: tuple[int, ...]
    logits: Float[Tensor, " vocabulary"] | None
    """At the prompt's last position; None where they were not asked for."""


def sweep(
    vlm: VLM,
    prompt: Prompt,
    conditions: Sequence[Condition],
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | str = "image",
    vision_layers: Sequence[int] = (),
    logits: bool = False,
    batch: int | None = None,
    memory: int | None = None,
    ways: Ways | None = None,
) -> Iterator[Read]:
    """Read a model's states on one prompt under many knockouts.

    The conditions are checked at once; each is computed when it is taken, together with those of its batch.

    Args:
        layers: of the language tower, 0 for what its first block reads; None for all, and an empty sequence for none.
        positions: `image`, `all`, or positions in the prompt's sequence, negative ones from its end.
        vision_layers: of the vision tower, likewise.
        logits: whether the logits at the last position are wanted.
        batch: conditions to run at a time; None for as many as `memory` holds, at most `MOST`, and on a CPU at most
            `TOKENS` tokens.
        memory: bytes for a batch; None for `MEMORY`.
        ways: what `prove_replay` found for this model; None to find it out on this prompt. Give it when there is more than one prompt.

    Raises:
        UserError: there is no condition, layer or position of this kind, or a cut is not for this model or prompt.
        NoEdges: a cut cannot show in what is read, for the model has none of its edges there.
        Incapable: image positions are asked for and the image does not stand in the sequence, or the model's attention cannot
            be edited.
    """
    ways = ways if ways is not None else prove_replay(vlm, prompt)
    if not conditions:
        raise UserError("a sweep was given no condition; expected at least one, which may be without cuts")
    if batch is not None and batch < 1:
        raise UserError(f"a batch of {batch} conditions was asked for; expected 1 or more")
    with undisturbed(vlm.model, vlm.processor):
        wanted, inputs, whole = _wanted(vlm, prompt, layers, positions, vision_layers, logits=logits)
        if not ways.replays:
            return _stream(vlm, conditions, wanted, _whole_passes(vlm, inputs, conditions, wanted))
        replay = _replay(vlm, inputs, whole, conditions, wanted, ways)
    return _stream(vlm, conditions, wanted, replay.run(batch or _batch(replay, memory)))


def layer_passes(
    vlm: VLM,
    prompt: Prompt,
    conditions: Sequence[Condition],
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | str = "image",
    vision_layers: Sequence[int] = (),
    logits: bool = False,
    ways: Ways,
) -> Passes:
    """How often `sweep` runs a block on one prompt, which is as seldom as can be. Arguments as there.

    Raises:
        UserError: the sweep is no replay on this model, or as `sweep`.
    """
    if not ways.replays:
        raise UserError(f"layer passes are counted for replays; {ways.note}")
    with undisturbed(vlm.model, vlm.processor):
        wanted, inputs, whole = _wanted(vlm, prompt, layers, positions, vision_layers, logits=logits)
        return _replay(vlm, inputs, whole, conditions, wanted, ways).passes


def _wanted(
    vlm: VLM,
    prompt: Prompt,
    layers: Sequence[int] | None,
    positions: Sequence[int] | str,
    vision_layers: Sequence[int],
    *,
    logits: bool,
) -> tuple[Wanted, Inputs, int]:
    """What is to be read, the prompt's inputs, and the length of its sequence.

    Layers and positions stand in the order they were asked for.
    """
    towers = vlm.towers
    inputs = forward_inputs(vlm.model, vlm.prompting.inputs([prompt]))
    whole = _length(vlm, inputs)
    image = _image(vlm, prompt, inputs) if positions == "image" else ()
    wanted = Wanted(
        layers=_layers(layers, len(towers.language_blocks), "language"),
        positions=pick_positions(positions, image, whole),
        vision_layers=_layers(vision_layers, len(towers.vision_blocks), "vision"),
        logits=logits,
    )
    return wanted, inputs, whole


def _layers(asked: Sequence[int] | None, last: int, tower: str) -> tuple[int, ...]:
    for layer in asked or ():
        if not -last - 1 <= layer <= last:
            raise UserError(f"no layer {layer}: the {tower} tower has layers 0 (its input) to {last}")
    return tuple(range(last + 1)) if asked is None else tuple(layer % (last + 1) for layer in asked)


def _length(vlm: VLM, inputs: Inputs) -> int:
    """Of the sequence that the first language block reads."""
    if vlm.proof.image_ids_hold and "input_ids" in inputs:
        return int(inputs["input_ids"].shape[1])
    return merged_length(vlm.model, inputs, vlm.towers)


def _image(vlm: VLM, prompt: Prompt, inputs: Inputs) -> tuple[int, ...]:
    named = image_positions(inputs, vlm.prompting.image_token_id) if vlm.proof.image_ids_hold else None
    return named if named is not None else vlm.image_positions(prompt)


def _replay(
    vlm: VLM, inputs: Inputs, whole: int, conditions: Sequence[Condition], wanted: Wanted, ways: Ways
) -> Replay:
    assert ways.form is not None
    end = whole
    image = image_positions(inputs, vlm.prompting.image_token_id) if ways.truncates else None
    if image is not None and not wanted.logits:
        end = max((*image, *wanted.positions)) + 1
    setting = Setting(
        model=Model(model=vlm.model, towers=vlm.towers, form=ways.form),
        inputs=truncated(inputs, whole, end),
        whole=whole,
        fed=ways.fed,
        vision_rows=None if ways.shares else 1,
    )
    return Replay(setting, conditions, wanted)


def _whole_passes(
    vlm: VLM, inputs: Inputs, conditions: Sequence[Condition], wanted: Wanted
) -> Iterator[list[Found]]:
    for place, condition in enumerate(conditions):
        yield [whole_pass(vlm.model, inputs, vlm.towers, condition, wanted, place)]


def _stream(
    vlm: VLM, conditions: Sequence[Condition], wanted: Wanted, batches: Iterator[list[Found]]
) -> Iterator[Read]:
    """The model is set up for a pass while one is run, and as it was whenever a reading is handed over."""
    left = len(conditions)
    while left:
        with undisturbed(vlm.model, vlm.processor):
            some = next(batches)
        left -= len(some)
        while some:
            one = some.pop(0)
            yield _read(conditions[one.place], one, wanted, vlm.towers)


def _read(condition: Condition, found: Found, wanted: Wanted, towers: Towers) -> Read:
    vision = _ordered(tuple(_tiles(one) for one in found.vision), wanted.vision_layers)
    states = found.layers
    if states is None:
        states = torch.empty(0, len(wanted.positions), towers.width)
    elif (rising := sorted(set(wanted.layers))) != list(wanted.layers):
        states = states[[rising.index(layer) for layer in wanted.layers]]
    return Read(
        condition=condition,
        number=found.place,
        states=states,
        layer_numbers=wanted.layers,
        positions=wanted.positions,
        vision=vision,
        vision_layer_numbers=wanted.vision_layers,
        logits=found.logits,
    )


def _ordered(kept: Sequence[Tensor], asked: Sequence[int]) -> Tensor | None:
    """What was kept in rising order, as it was asked for."""
    rising = sorted(set(asked))
    return torch.stack([kept[rising.index(layer)] for layer in asked]) if asked else None


def _tiles(states: Tensor) -> Tensor:
    """Row x token x dim; packed patches are one row."""
    return states[None] if states.ndim == 2 else states


def _batch(replay: Replay, memory: int | None) -> int:
    """How many conditions fit: what is kept of each, and what a block needs while it runs on it."""
    device, most = replay.chains["language"].root.device, MOST
    if device.type == "cpu":
        most = min(MOST, TOKENS // max(chain.tokens for chain in replay.chains.values()))
    if memory is None:
        free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else MEMORY
        memory = max(min(MEMORY, free), 1) if device.type != "cuda" else free
    return max(1, min(most, memory // _bytes(replay)))


def _bytes(replay: Replay) -> int:
    """For one condition, roughly."""
    wanted, language, vision = replay.wanted, replay.chains["language"], replay.chains["vision"]
    size, width = language.root.element_size(), language.root.shape[-1]
    kept = len(wanted.layers) * len(wanted.positions) * width
    kept += (len(replay.setting.fed) + len(wanted.vision_layers)) * vision.root.numel()
    towers = replay.setting.model.towers
    running = max(
        chain.tokens
        * (
            4 * chain.root.shape[-1]
            + _widest(chain.blocks[0])
            + chain.root.shape[-2] * _squares(towers, chain)
        )
        for chain in (language, vision)
    )
    return (kept + running) * size


def _squares(towers: Towers, chain: Chain) -> int:
    """How many numbers attention holds for a pair of tokens: of masks, and under eager the weights of each head, twice."""
    site = next(iter(towers.self_attentions(chain.tower)), None)
    eager = site is not None and getattr(site.module, "config", None) is not None
    eager = eager and site.module.config._attn_implementation == "eager"  # type: ignore[union-attr]
    return 4 + (2 * (site.heads or 1) if eager and site is not None else 0)


def _widest(block: nn.Module) -> int:
    """Numbers that a block's linear maps give for one token, all together."""
    return sum(m.weight.shape[0] for m in block.modules() if isinstance(m, nn.Linear))
