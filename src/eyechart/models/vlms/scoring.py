"""Log-probabilities of options as continuations of a prompt, with the prompt read once for all of them.

The prompt runs through the model one time, inside transformers' own `generate`, which prepares encoder outputs,
rotary positions and masks as each architecture wants them; every option then continues from a copy of that state,
one token a step. `together` (its own module) does the same for a batch of prompts and all tokens at once, and is used
where it is proved. `forced` is the plain way, a `generate` for each option, and `whole` the plainest, one forward pass
without a cache; the others are proved against it before they are used.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.modeling_outputs import CausalLMOutput

from eyechart.models.vlms.generating import endless, forced_scores, run_generate
from eyechart.models.vlms.prompting import Inputs

TokenScores = list[float]
"""The log-probability of each token of one option, in nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuations:
    """Options as token ids after a prompt, and how many tokens of the prompt's end they begin before."""

    tokens: tuple[tuple[int, ...], ...]
    cut: int
    """Tokens taken off the end of the prompt: 0 unless an option's first character merges with the prompt's last."""


def shared(
    model: Any, inputs: Inputs, config: GenerationConfig, options: Sequence[Sequence[int]]
) -> list[TokenScores]:
    """Log-probabilities of each option's tokens; the prompt is read once.

    Args:
        inputs: of one prompt, one row.
        config: a `greedy_config`; its length and end tokens do not matter here.
        options: token ids of each option, none empty.
    """
    loop = _SharedPrefix([list(option) for option in options])
    run_generate(model, inputs, endless(config, 1), loop.decode)
    return loop.scores


def forced(
    model: Any, inputs: Inputs, config: GenerationConfig, options: Sequence[Sequence[int]]
) -> list[TokenScores]:
    """The same by transformers' own decoding loop, once for each option, its tokens forced one by one."""
    return [forced_scores(model, inputs, config, option) for option in options]


def whole(model: Any, inputs: Inputs, option: Sequence[int]) -> TokenScores:
    """The same for one option by a single forward pass over prompt and option, with no cache; for decoder-only models.

    What runs along with the sequence is made longer as the model itself makes it for new tokens, else by its last
    column.
    """
    ids, length, count = inputs["input_ids"], inputs["input_ids"].shape[1], len(option)
    beside = {key: value for key, value in inputs.items() if key != "input_ids"}
    longer = model._update_model_kwargs_for_generation(CausalLMOutput(), beside, num_new_tokens=count)

    def stretched(value: Any) -> Any:
        runs_along = isinstance(value, Tensor) and value.ndim >= 2 and value.shape[1] == length
        return torch.cat([value, *[value[:, -1:]] * count], dim=1) if runs_along else value

    fed = {key: stretched(value) for key, value in longer.items()}
    extended = torch.cat([ids, ids.new_tensor([list(option)])], dim=1)
    logits = model(input_ids=extended, **fed).logits[0, -count - 1 : -1].float()
    return [float(row[token]) for row, token in zip(logits.log_softmax(-1), option, strict=True)]


def continuations(tokenizer: Any, text: str, options: Sequence[str], prompt: Sequence[int]) -> Continuations:
    """The options' tokens as the tokenizer cuts `text + option`, after what that shares with `text`.

    If an option merges with the end of the text, all options are counted from the last token that every one of them
    leaves whole, so that their scores cover the same stretch of text.

    Args:
        text: the rendered prompt.
        prompt: token ids that the model is really fed. A processor may put something after the text (PaliGemma
            a line break); then the text is taken with it.
    """
    for whole in (text, text + "\n"):
        alone = _tokens(tokenizer, whole)
        if list(prompt[-len(alone[-4:]) :]) == alone[-4:]:
            together = [_tokens(tokenizer, whole + option) for option in options]
            kept = min(_common(alone, each) for each in together)
            if len(alone) - kept < 4:
                return Continuations(tokens=tuple(tuple(e[kept:]) for e in together), cut=len(alone) - kept)
    return Continuations(tokens=tuple(tuple(_tokens(tokenizer, option)) for option in options), cut=0)


def cut_inputs(inputs: Inputs, cut: int) -> Inputs:
    """The inputs without the last `cut` tokens: every tensor as long as the sequence is shortened with it."""
    if not cut:
        return inputs
    length = inputs["input_ids"].shape[1]

    def shorter(value: Any) -> Any:
        runs_along = isinstance(value, Tensor) and value.ndim >= 2 and value.shape[1] == length
        return value[:, : length - cut] if runs_along else value

    return {key: shorter(value) for key, value in inputs.items()}


class _SharedPrefix:
    """A decoding loop for `generate`: one pass over the prompt, then each option from a copy of its state."""

    def __init__(self, options: list[list[int]]) -> None:
        self.options = options
        self.scores: list[TokenScores] = []

    def decode(
        self,
        model: Any,
        input_ids: Tensor,
        *,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **state: Any,
    ) -> Tensor:
        """Called by `generate` in place of its own loop, with everything it has prepared."""
        decoder = model.config.is_encoder_decoder
        fed = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **state)
        out = model(**fed, return_dict=True)
        state = model._update_model_kwargs_for_generation(out, state, is_encoder_decoder=decoder)
        first = _log_probabilities(out)
        for option in self.options:
            scores = [float(first[option[0]])]
            mine, ids = _copied(state), input_ids
            for token, following in pairwise(option):
                ids = torch.cat([ids, ids.new_full((1, 1), token)], dim=1)
                fed = model.prepare_inputs_for_generation(ids, next_sequence_length=1, **mine)
                out = model(**fed, return_dict=True)
                mine = model._update_model_kwargs_for_generation(out, mine, is_encoder_decoder=decoder)
                scores.append(float(_log_probabilities(out)[following]))
            self.scores.append(scores)
        return input_ids


def _log_probabilities(out: Any) -> Tensor:
    logits: Tensor = out.logits[0, -1].float()
    return logits.log_softmax(-1)


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """The state with caches of its own; everything else is replaced, never changed, by a step."""
    return {key: copy.deepcopy(value) if is_cache(key) else value for key, value in state.items()}


def is_cache(name: str) -> bool:
    """Whether an entry of the state is what a model keeps of the tokens it has read."""
    return "past" in name or "cache" in name


def _tokens(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _common(first: list[int], second: list[int]) -> int:
    """How many leading tokens two lists share."""
    for place, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return place
    return min(len(first), len(second))
