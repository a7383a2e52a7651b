"""Options of several prompts in one batch: the prompts are read once, all options go on from there in one pass.

An option's first token is predicted by the prompt's last position, so options of one token cost no further pass. For
longer ones the state after the prompts is repeated, one row for each option, and the options' tokens are fed at
once, padded on the right, where nothing that counts can see the padding. `scoring.shared` is the same one prompt, one
option and one token at a time; `proof.prove` compares before this is used.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig
from transformers.modeling_outputs import CausalLMOutput

from eyechart.core.records import Prompt
from eyechart.models.vlms.beginnings import Tails, split
from eyechart.models.vlms.generating import endless, run_generate
from eyechart.models.vlms.objects import is_encoder_decoder
from eyechart.models.vlms.prompting import Inputs, Prompting
from eyechart.models.vlms.scoring import (
    Continuations,
    TokenScores,
    continuations,
    cut_inputs,
    forced,
    is_cache,
    shared,
)

_READ = ("pixel", "mm_encoder", "image_sizes", "image_grid", "aspect_ratio")
"""What names of inputs hold that only the reading of the prompt needs."""


def together(
    model: Any,
    inputs: Inputs,
    config: GenerationConfig,
    options: Sequence[Sequence[Sequence[int]]],
    tails: Tails | None = None,
) -> list[list[TokenScores]]:
    """Log-probabilities, in nats, of each token of each option of each prompt.

    Args:
        inputs: of one or more prompts, one row each, padded on the left; with `tails`, of what comes before them.
        config: a `greedy_config`; its length and end tokens do not matter here.
        options: for each prompt the token ids of its options, none empty.
        tails: what each prompt goes on with after `inputs` (`beginnings.split`).
    """
    loop = _Together(options, tails)
    run_generate(model, inputs, endless(config, 1), loop.decode)
    return loop.scores


class _Together:
    """A decoding loop for `generate`: one pass over the prompts, one over what all options add."""

    def __init__(self, options: Sequence[Sequence[Sequence[int]]], tails: Tails | None) -> None:
        self.options = options
        self.tails = tails
        self.scores: list[list[TokenScores]] = []

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
        ids = input_ids
        if self.tails is not None:
            ids, out, state = _with_tails(model, input_ids, state, self.tails)
        first = out.logits[:, -1].float().log_softmax(-1)
        del out, fed
        self.scores = [
            [[float(row[option[0]])] for option in some]
            for row, some in zip(first, self.options, strict=True)
        ]
        if any(len(option) > 1 for option in chain(*self.options)):
            self._go_on(model, ids, state)
        return input_ids

    def _go_on(self, model: Any, input_ids: Tensor, state: dict[str, Any]) -> None:
        """Add the scores of every token after the first."""
        longer = [[place for place, option in enumerate(some) if len(option) > 1] for some in self.options]
        each = max(map(len, longer))
        tokens, following = self._rows(longer, each, input_ids)
        steps = tokens.shape[1]
        ids, state = _repeated(model, input_ids, state, each)
        state = _longer(model, state, steps)
        fed = model.prepare_inputs_for_generation(
            torch.cat([ids, tokens], dim=1), next_sequence_length=steps, **state
        )
        if "logits_to_keep" in fed:
            fed["logits_to_keep"] = steps
        scores = _of_tokens(model(**fed, return_dict=True).logits[:, -steps:], following).tolist()
        for prompt, places in enumerate(longer):
            for row, place in enumerate(places, start=prompt * each):
                count = len(self.options[prompt][place]) - 1
                self.scores[prompt][place] += scores[row][:count]

    def _rows(
        self, longer: list[list[int]], each: int, like: Tensor
    ) -> tuple[Int[Tensor, "row step"], Int[Tensor, "row step"]]:
        """What is fed and what follows it: as many rows for each prompt, each padded with its own last token."""
        fill = next(option for option in chain(*self.options) if len(option) > 1)
        options = [
            some[places[row]] if row < len(places) else fill
            for some, places in zip(self.options, longer, strict=True)
            for row in range(each)
        ]
        length = max(map(len, options))
        padded = like.new_tensor([[*option, *[option[-1]] * (length - len(option))] for option in options])
        return padded[:, :-1], padded[:, 1:]


def score_options(
    model: Any,
    prompting: Prompting,
    config: GenerationConfig,
    prompts: Sequence[Prompt],
    options: Sequence[Sequence[str]],
    *,
    begin: bool = False,
) -> list[list[TokenScores]]:
    """Log-probabilities, in nats, of each token of each option, all prompts in one batch.

    With `begin` what prompts have in common up to the end of their images is read first and once (`beginnings.split`).
    Only where an option merges with the end of its prompt (`scoring.continuations`) are there more batches, one for
    each number of tokens that are taken off.
    """
    inputs = prompting.inputs(prompts)
    asked = [
        _continued(model, prompting, prompt, some, row)
        for prompt, some, row in zip(prompts, options, _rows_of(model, inputs, len(prompts)), strict=True)
    ]
    if begin and (begun := split(prompting, prompts, inputs, [one.cut for one in asked])) is not None:
        return together(model, begun[0], config, [one.tokens for one in asked], begun[1])
    scores: list[list[TokenScores]] = [[] for _ in prompts]
    cuts = sorted({one.cut for one in asked})
    for cut in cuts:
        places = [place for place, one in enumerate(asked) if one.cut == cut]
        if len(cuts) > 1:
            inputs = prompting.inputs([prompts[place] for place in places])
        found = together(model, cut_inputs(inputs, cut), config, [asked[place].tokens for place in places])
        for place, each in zip(places, found, strict=True):
            scores[place] = each
    return scores


def score_steps(
    model: Any,
    prompting: Prompting,
    config: GenerationConfig,
    prompts: Sequence[Prompt],
    options: Sequence[Sequence[str]],
) -> list[list[TokenScores]]:
    """The same, each prompt read by itself and options continued one token at a time (`scoring.shared`)."""
    return _one_by_one(shared, model, prompting, config, prompts, options)


def score_alone(
    model: Any,
    prompting: Prompting,
    config: GenerationConfig,
    prompts: Sequence[Prompt],
    options: Sequence[Sequence[str]],
) -> list[list[TokenScores]]:
    """The same, each prompt read again for each of its options (`scoring.forced`)."""
    return _one_by_one(forced, model, prompting, config, prompts, options)


def _one_by_one(
    way: Any,
    model: Any,
    prompting: Prompting,
    config: GenerationConfig,
    prompts: Sequence[Prompt],
    options: Sequence[Sequence[str]],
) -> list[list[TokenScores]]:
    scores: list[list[TokenScores]] = []
    for prompt, some in zip(prompts, options, strict=True):
        inputs = prompting.inputs([prompt])
        asked = _continued(model, prompting, prompt, some, _rows_of(model, inputs, 1)[0])
        scores.append(way(model, cut_inputs(inputs, asked.cut), config, asked.tokens))
    return scores


def _rows_of(model: Any, inputs: Inputs, prompts: int) -> list[list[int]]:
    """The token ids of each prompt as it is fed; empty where a decoder starts empty."""
    if is_encoder_decoder(model):
        return [[] for _ in range(prompts)]
    rows: list[list[int]] = inputs["input_ids"].tolist()
    return rows


def _continued(
    model: Any, prompting: Prompting, prompt: Prompt, options: Sequence[str], row: Sequence[int]
) -> Continuations:
    """The options as tokens after a prompt that is fed as `row`."""
    text = "" if is_encoder_decoder(model) else prompting.render(prompt)
    return continuations(prompting.tokenizer, text, options, row)


def _longer(model: Any, state: dict[str, Any], steps: int) -> dict[str, Any]:
    """The state with room for so many tokens; the pass before made room for one."""
    decoder = model.config.is_encoder_decoder
    for _ in range(steps - 1):
        state = model._update_model_kwargs_for_generation(CausalLMOutput(), state, is_encoder_decoder=decoder)
    return state


def _with_tails(
    model: Any, input_ids: Tensor, state: dict[str, Any], tails: Tails
) -> tuple[Tensor, Any, dict[str, Any]]:
    """Each prompt's rest after the beginning that it has: ids, output and state as after a pass over whole prompts.

    The rests are padded on the left, so that all end in one column: masked, and without a place of their own.
    """
    steps, begun = max(map(len, tails.tokens)), input_ids.shape[1]
    state = _longer(model, _selected(state, tails.of, len(input_ids)), steps)
    padding = torch.tensor([steps - len(each) for each in tails.tokens], device=input_ids.device)
    rows = [[*[each[0]] * (steps - len(each)), *each] for each in tails.tokens]
    ids = torch.cat([input_ids[torch.tensor(tails.of)], input_ids.new_tensor(rows)], dim=1)
    place = torch.arange(steps, device=input_ids.device)
    if bool(padding.any()):
        mask = state.get("attention_mask")  # `generate` leaves one of ones out
        mask = torch.ones_like(ids) if mask is None else mask.clone()
        mask[:, begun:] *= (place >= padding[:, None]).to(mask.dtype)
        state["attention_mask"] = mask
    if (positions := state.get("position_ids")) is not None:
        after = (place - padding[:, None]).clamp(min=-1) + 1
        state["position_ids"] = torch.cat(
            [positions[..., :begun], positions[..., begun - 1 : begun] + after], dim=-1
        )
    fed = model.prepare_inputs_for_generation(ids, next_sequence_length=steps, **state)
    out = model(**fed, return_dict=True)
    state = model._update_model_kwargs_for_generation(out, state, is_encoder_decoder=False)
    return ids, out, state


def _selected(state: dict[str, Any], rows: Sequence[int], count: int) -> dict[str, Any]:
    """The state with these of its rows, in this order."""
    chosen: dict[str, Any] = {}
    for name, value in state.items():
        if is_cache(name):
            if hasattr(value, "batch_select_indices") and list(rows) != list(range(count)):
                value.batch_select_indices(torch.tensor(rows))
            chosen[name] = value
        elif not any(part in name for part in _READ):
            axis = 1 if name == "position_ids" and value.ndim == 3 else 0
            by_row = isinstance(value, Tensor) and value.ndim > axis and value.shape[axis] == count
            chosen[name] = (
                value.index_select(axis, torch.tensor(rows, device=value.device)) if by_row else value
            )
    return chosen


def _repeated(
    model: Any, input_ids: Tensor, state: dict[str, Any], times: int
) -> tuple[Tensor, dict[str, Any]]:
    """Ids and state with so many rows for each prompt; what only the prompt's reading needed is left out."""
    caches = {name: value for name, value in state.items() if is_cache(name)}
    rest = {
        name: value
        for name, value in state.items()
        if name not in caches and not any(part in name for part in _READ)
    }
    if times == 1:
        return input_ids, {**rest, **caches}
    for cache in caches.values():
        if hasattr(cache, "batch_repeat_interleave"):
            cache.batch_repeat_interleave(times)
    ids, rest = model._expand_inputs_for_generation(
        expand_size=times, is_encoder_decoder=model.config.is_encoder_decoder, input_ids=input_ids, **rest
    )
    return ids, {**rest, **caches}


def _of_tokens(
    logits: Float[Tensor, "row step token"], tokens: Int[Tensor, "row step"]
) -> Float[Tensor, "row step"]:
    """The log-probability of each of these tokens, in float32."""
    logits = logits.float()
    chosen: Tensor = logits.gather(-1, tokens[..., None].to(logits.device))[..., 0]
    return chosen - logits.logsumexp(-1)
