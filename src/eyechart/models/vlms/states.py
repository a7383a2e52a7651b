"""Hidden states of a VLM's two towers, kept only where they were asked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eyechart.core.errors import Incapable, UserError, unknown
from eyechart.models.vlms.prompting import Inputs
from eyechart.models.vlms.towers import Towers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HiddenStates:
    """What the language model's layers held at some positions of one prompt."""

    layers: Float[Tensor, "layer position dim"]
    """On the CPU, in the model's own number format; the same numbers as transformers' `output_hidden_states`."""

    layer_numbers: tuple[int, ...]
    """0 is what the first block reads (for a VLM the merged embeddings), n what block n, counted from 1, gives."""

    last_layer: int
    """The number of the last layer there is, whether it was kept or not."""

    last_is_normed: bool
    """Whether the last layer's states have been through the final norm, as transformers gives them."""

    positions: tuple[int, ...]
    """The positions kept, in the order of `layers`."""

    image_positions: tuple[int, ...]
    """Where the prompt holds its images, separators that carry the image token included."""

    grid: tuple[int, int] | None
    """Rows and columns, where the image positions are one grid row by row; else see the image's geometry."""

    input_ids: tuple[int, ...]
    """Of the prompt; one for each position of the sequence, but for models that put image features before it (GIT)."""

    of_encoder: bool
    """True in an encoder-decoder language model, whose encoder reads the image."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VisionStates:
    """What the vision tower's blocks held for one image."""

    layers: Float[Tensor, "layer row token dim"]
    """`row` counts tiles; a tower that packs its patches has one. Tokens stand in the tower's own order: class and
    register tokens are included, and Qwen2.5-VL sorts its patches by windows."""

    layer_numbers: tuple[int, ...]
    """0 is what the first block reads, n what block n, counted from 1, gives. No final norm is applied."""


def language_states(model: Any, inputs: Inputs, towers: Towers) -> tuple[tuple[Tensor, ...], bool]:
    """All layers' states for one row of inputs, and whether the last of them is normed.

    Returns:
        One (position, dim) tensor for the embeddings and each block.

    Raises:
        Incapable: transformers does not give this model's states for every block.
    """
    last: list[Tensor] = []
    with ExitStack() as stack:
        if towers.final_norm is not None:
            hook = towers.final_norm.register_forward_hook(lambda _m, _a, output: last.append(output))
            stack.callback(hook.remove)
        out = model(**forward_inputs(model, inputs), output_hidden_states=True, return_dict=True)
    states = _found(out, towers)
    if states is None or len(states) != len(towers.language_blocks) + 1:
        given = "none" if states is None else str(len(states))
        raise Incapable(
            f"{type(model).__name__} gives hidden states of {given} layers, but its language model has "
            f"{len(towers.language_blocks)} blocks and an embedding"
        )
    normed = bool(last) and any(torch.equal(one, states[-1]) for one in last)
    return tuple(state[0] for state in states), normed


def pick_layers(states: Sequence[Tensor], layers: Sequence[int] | None) -> tuple[int, ...]:
    """The layer numbers asked for, negative ones counted from the end; all of them for None.

    Raises:
        UserError: there is no such layer.
    """
    count = len(states)
    for layer in layers or ():
        if not -count <= layer < count:
            raise UserError(f"no layer {layer}: this tower has layers 0 (its input) to {count - 1}")
    return tuple(range(count)) if layers is None else tuple(layer % count for layer in layers)


def pick_positions(wanted: Sequence[int] | str, image: tuple[int, ...], length: int) -> tuple[int, ...]:
    """The positions asked for: `image`, `all`, or places in a sequence of `length`, negative ones from its end.

    Raises:
        UserError: there is no such position.
    """
    if wanted == "image":
        return image
    if wanted == "all":
        return tuple(range(length))
    if isinstance(wanted, str):
        raise unknown("kind of positions", wanted, ["image", "all"])
    for position in wanted:
        if not -length <= position < length:
            raise UserError(f"no position {position}: this prompt has {length} positions, 0 to {length - 1}")
    return tuple(position % length for position in wanted)


def vision_states(towers: Towers, run: Callable[[], object]) -> tuple[Float[Tensor, "row token dim"], ...]:
    """What the vision blocks held while `run` ran the model on one image.

    The pass is broken off where the language model begins.

    Raises:
        Incapable: the tower has no blocks, or they do not all hold states of one shape.
    """
    if not towers.vision_blocks:
        raise Incapable(f"the vision tower {towers.vision_name!r} has no list of attention blocks")
    collected: list[list[Tensor]] = [[] for _ in range(len(towers.vision_blocks) + 1)]
    with _collecting(towers.vision_blocks, collected), _stopping_at(towers.language_blocks):
        try:
            run()
        except _Enough:
            pass
    shapes = {tuple(one.shape) for one in collected[0]} | {
        tuple(one.shape) for some in collected for one in some
    }
    if not collected[0] or len(shapes) != 1:
        raise Incapable(f"the vision tower's layers hold states of different shapes: {sorted(shapes)}")
    return tuple(torch.cat([_rows(one) for one in some]) for some in collected)


class _Enough(Exception):
    """The vision tower is done."""


@contextmanager
def _collecting(blocks: Sequence[nn.Module], into: list[list[Tensor]]) -> Iterator[None]:
    def keep(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any = None) -> None:
            source = output if layer else (args or tuple(kwargs.values()))
            found = source if isinstance(source, Tensor) else source[0]
            into[layer].append(found.detach())

        return hook

    with ExitStack() as stack:
        stack.callback(blocks[0].register_forward_pre_hook(keep(0), with_kwargs=True).remove)
        for number, block in enumerate(blocks, start=1):
            stack.callback(block.register_forward_hook(keep(number), with_kwargs=True).remove)
        yield


@contextmanager
def _stopping_at(blocks: Sequence[nn.Module]) -> Iterator[None]:
    def stop(module: nn.Module, args: Any) -> None:
        raise _Enough

    handle = blocks[0].register_forward_pre_hook(stop)
    try:
        yield
    finally:
        handle.remove()


def _rows(states: Tensor) -> Tensor:
    """(row, token, dim), whatever stood before: packed patches are one row."""
    return states[None] if states.ndim == 2 else states.reshape(-1, *states.shape[-2:])


def forward_inputs(model: Any, inputs: Inputs) -> Inputs:
    """What a plain forward pass needs beside the inputs: an encoder-decoder one token for its decoder."""
    config = next(
        (m.config for m in model.modules() if getattr(getattr(m, "config", None), "is_encoder_decoder", 0)),
        None,
    )
    if config is None:
        return inputs
    text = config.get_text_config(decoder=True)
    start = next(
        (
            v
            for n in ("decoder_start_token_id", "bos_token_id", "pad_token_id")
            if (v := getattr(text, n, None)) is not None
        ),
        0,
    )
    return {**inputs, "decoder_input_ids": torch.full((1, 1), start, device=model.device)}


def _found(out: Any, towers: Towers) -> Any:
    """The language states in a model's output, which nests its language model's own output in some families."""
    name = "encoder_hidden_states" if towers.language_encoder else "hidden_states"
    inner = out.get("language_model_outputs") if hasattr(out, "get") else None
    for source in (inner, out):
        states = source.get(name) if source is not None else None
        if states is not None:
            return states
    return None
