"""What a VLM proves about itself on two pictures before it is used: where the image goes, and what may be shared."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig

from eyechart.core.errors import Incapable, UserError
from eyechart.core.records import Prompt
from eyechart.models.vlms.beginnings import split, why_never
from eyechart.models.vlms.generating import forced_scores, greedy_config, next_scores, run_generate
from eyechart.models.vlms.objects import is_encoder_decoder
from eyechart.models.vlms.prompting import REFUSALS, Inputs, Prompting, image_positions
from eyechart.models.vlms.scoring import forced, shared, whole
from eyechart.models.vlms.together import together
from eyechart.models.vlms.towers import Towers, resolve_towers

logger = logging.getLogger(__name__)

_TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-6}
_HALF = 0.1
"""Share of the logits' spread by which two ways to the same number may differ: rounding lies far below it, a
wrong mask or position far above. In half precision rounding alone reaches some hundredths."""

_DEAF = "its processor leaves the text of a question out: the model describes pictures and takes no question"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was found. A reason is empty where the thing works."""

    why_not_asked: str
    """The question never reaches the model: its processor makes the same of every text."""

    blind: bool
    """The picture changed no score, as with gates that start shut; a note, since training may open them."""

    towers: Towers | None
    why_no_towers: str
    why_no_batches: str
    """Prompts are answered one at a time when a batch does not give the same numbers."""

    why_no_cache: str
    """The model decodes without its cache when decoding with it contradicts its own forward pass."""

    why_not_together: str
    """Options are scored one prompt and one token at a time when `together` does not give the same numbers."""

    why_not_shared: str
    """Options are scored with a pass of their own each when sharing the prompt does not give the same numbers; only
    tried out where `why_not_together` holds something."""

    image_ids_hold: bool
    """Whether the image token's positions are where the image was seen to enter; else it is followed each time."""


def prove(model: Any, prompting: Prompting) -> Proof:
    """Run a model on two small pictures and compare ways that must agree. Call it inside `undisturbed`.

    Raises:
        UserError: the model cannot run on an image at all, or not in the memory there is.
    """
    prompts = [
        Prompt(text="Is there a line?", images=(probe_picture(96, 64),)),
        Prompt(
            text="What is on the left side of the picture, and what is on the right?",
            images=(probe_picture(64, 150),),
        ),
    ]
    steps = _probe_options(prompting.tokenizer)[0]
    config = greedy_config(model, prompting.tokenizer, max_new_tokens=1)
    try:
        inputs, other = (prompting.inputs([prompt]) for prompt in prompts)
        mixed = prompting.inputs([Prompt(text=prompts[0].text, images=prompts[1].images)])
        alone = [next_scores(model, fed, config, steps) for fed in (inputs, other, mixed)]
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{type(model).__name__} with one small picture does not fit in the memory of {model.device}; try another "
            "--device, --device-map auto, or --dtype bfloat16"
        ) from error
    except REFUSALS as error:
        raise UserError(
            f"{type(model).__name__} fails on a plain picture with its own processor "
            f"({type(prompting.processor).__name__}): {type(error).__name__}: {error}. Do model and processor belong together?"
        ) from error
    if why_no_cache := _cache_misleads(model, prompting, inputs):
        config = greedy_config(model, prompting.tokenizer, max_new_tokens=1, use_cache=False)
        alone = [next_scores(model, fed, config, steps) for fed in (inputs, other, mixed)]
    towers, why = _towers(model, lambda: run_generate(model, inputs, config))
    why_no_batches = _batches(model, prompting, config, prompts, alone[:2])
    why_not_together = why_no_cache or _together(
        model, prompting, prompts, [prompts[:1], prompts[1:]] if why_no_batches else [prompts]
    )
    positions = image_positions(inputs, prompting.image_token_id)
    seen = towers.flow.positions if towers is not None and towers.flow is not None else None
    return Proof(
        why_not_asked=_DEAF if _same(other, mixed) else "",
        blind=torch.equal(alone[0], alone[2]),
        towers=towers,
        why_no_towers=why,
        why_no_batches=why_no_batches,
        why_no_cache=why_no_cache,
        why_not_together=why_not_together,
        why_not_shared=why_no_cache or (why_not_together and _shares(model, prompting, prompts[0])),
        image_ids_hold=positions is not None and (seen is None or set(seen) <= set(positions)),
    )


def _same(first: Inputs, second: Inputs) -> bool:
    """Whether two sets of inputs are equal, number by number."""
    pairs = ((value, second.get(key)) for key, value in first.items() if isinstance(value, Tensor))
    return all(isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def probe_picture(width: int, height: int) -> Image.Image:
    """A picture with edges at many scales, the same each time."""
    y, x = np.mgrid[:height, :width]
    channels = [(x * 7 + y * 3) % 256, (x * y) % 256, ((x // 9 + y // 5) % 2) * 255]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def agree(first: Tensor, second: Tensor, dtype: torch.dtype) -> bool:
    """Whether two rows of logits or log-probabilities are equal but for rounding."""
    spread = float(first.std()) if first.numel() > 1 else 1.0
    worst = float((first - second).abs().max())
    return worst <= _TOLERANCE.get(dtype, _HALF) * max(spread, 1e-6)


def _towers(model: Any, run: Any) -> tuple[Towers | None, str]:
    try:
        return resolve_towers(model, run=run), ""
    except Incapable as error:
        return None, str(error)


def _batches(
    model: Any,
    prompting: Prompting,
    config: GenerationConfig,
    prompts: Sequence[Prompt],
    alone: Sequence[Tensor],
) -> str:
    """Why prompts cannot share a batch: it fails, or a row is not what it is alone."""
    steps = _probe_options(prompting.tokenizer)[0]
    try:
        together = next_scores(model, prompting.inputs(prompts), config, steps)
    except REFUSALS as error:
        return f"a batch of two prompts with pictures of different sizes fails: {str(error)[:200]}"
    if not all(agree(one[0], row, model.dtype) for one, row in zip(alone, together, strict=True)):
        worst = max(float((one[0] - row).abs().max()) for one, row in zip(alone, together, strict=True))
        return f"a reply would depend on the other prompts in its batch (logits differ by {worst:.2g})"
    return ""


def _cache_misleads(model: Any, prompting: Prompting, inputs: Inputs) -> str:
    """Why decoding with the cache is not to be trusted: without it, generation agrees with the plain forward pass.

    Two ways against one: a forward pass over the whole text and generation without a cache must agree with each
    other and differ from generation with one (Kosmos-2 counts positions in another way then). Where the whole pass
    cannot be made, in an encoder-decoder say, nothing is decided and the cache is used.
    """
    if is_encoder_decoder(model):
        return ""
    option = _probe_options(prompting.tokenizer)[0]
    config, plain = (
        greedy_config(model, prompting.tokenizer, max_new_tokens=1, use_cache=use) for use in (True, False)
    )
    try:
        once = torch.tensor(whole(model, inputs, option))
        cached = torch.tensor(forced_scores(model, inputs, config, option))
        if agree(once, cached, model.dtype):
            return ""
        uncached = torch.tensor(forced_scores(model, inputs, plain, option))
    except REFUSALS as error:
        logger.info("no forward pass over a whole text: %s", error)
        return ""
    if not agree(once, uncached, model.dtype):
        return ""
    return (
        f"decoding with its cache differs from its forward pass by {float((once - cached).abs().max()):.2g}"
    )


def _together(
    model: Any, prompting: Prompting, prompts: Sequence[Prompt], batches: Sequence[Sequence[Prompt]]
) -> str:
    """Why options cannot be scored in one pass over all of them: it fails, or gives other numbers than a pass each.

    The two prompts differ in length, in the size of their picture, and in the number and length of their options.
    """
    config = greedy_config(model, prompting.tokenizer, max_new_tokens=1)
    one, other = _probe_options(prompting.tokenizer)
    wanted = [[one, other[:1], one[:2]], [other]]
    inputs = [prompting.inputs([prompt]) for prompt in prompts]
    (plain,), (first, last) = (
        forced(model, inputs[1], config, [other]),
        forced(model, inputs[0], config, [one, other]),
    )
    expected = [*first, *last[:1], *first[: len(one[:2])], *plain]
    found: list[float] = []
    try:
        for batch in batches:
            some, wanted = wanted[: len(batch)], wanted[len(batch) :]
            for rows in together(model, prompting.inputs(batch), config, some):
                found += [score for row in rows for score in row]
    except REFUSALS as error:
        return f"the state after the prompts cannot be taken up by all options at once: {str(error)[:200]}"
    first_way, second_way = torch.tensor(expected), torch.tensor(found)
    if not agree(first_way, second_way, model.dtype):
        return f"one pass for all options and a pass each differ by {float((first_way - second_way).abs().max()):.2g}"
    return ""


def parts(model: Any, prompting: Prompting) -> str:
    """Why prompts cannot be parted after their images, against `together` without; call it inside `undisturbed`.

    Three prompts: two about one picture, the longer one also about another picture of its size.
    """
    if why := why_never(model):
        return why
    config = greedy_config(model, prompting.tokenizer, max_new_tokens=1)
    picture, mirrored = probe_picture(96, 64), probe_picture(96, 64).transpose(Image.Transpose.ROTATE_180)
    asked = (
        (picture, "Colour?"),
        (picture, "Is there a line on the left side?"),
        (mirrored, "Is there a line?"),
    )
    prompts = [Prompt(text=text, images=(image,)) for image, text in asked]
    one, other = _probe_options(prompting.tokenizer)
    options = [[one, other], [other[:1]], [other, one[:2]]]
    try:
        inputs = prompting.inputs(prompts)
        if (begun := split(prompting, prompts, inputs, [0, 0, 0])) is None:
            return "its inputs do not say where an image ends"
        found = [
            together(model, inputs, config, options),
            together(model, begun[0], config, options, begun[1]),
        ]
    except REFUSALS as error:
        return f"the state after the images cannot be taken up: {str(error)[:200]}"
    whole_way, parted = (torch.tensor([s for rows in way for row in rows for s in row]) for way in found)
    if not agree(whole_way, parted, model.dtype):
        return f"prompts read whole and in parts differ by {float((whole_way - parted).abs().max()):.2g}"
    return ""


def _shares(model: Any, prompting: Prompting, prompt: Prompt) -> str:
    """Why options cannot share one pass over the prompt: it fails, or gives other numbers than a pass each."""
    config = greedy_config(model, prompting.tokenizer, max_new_tokens=1)
    options = _probe_options(prompting.tokenizer)
    inputs = prompting.inputs([prompt])
    plain = forced(model, inputs, config, options)
    try:
        once = shared(model, inputs, config, options)
    except REFUSALS as error:
        return f"the state after the prompt cannot be taken up again: {str(error)[:200]}"
    first, second = (torch.tensor([score for row in rows for score in row]) for rows in (plain, once))
    if not agree(first, second, model.dtype):
        return f"shared and separate passes differ by {float((first - second).abs().max()):.2g}"
    return ""


def _probe_options(tokenizer: Any) -> list[list[int]]:
    """Two options of several tokens, of different lengths."""
    words = [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("yes and no", "the left one, 7")
    ]
    return [ids[:4] for ids in words]
