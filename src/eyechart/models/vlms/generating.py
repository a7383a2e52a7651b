"""Greedy replies, new text only, with nothing of a checkpoint's sampling settings let in."""

import copy
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from eyechart.models.vlms.objects import text_config
from eyechart.models.vlms.prompting import Inputs

_SPECIAL = ("bos_token_id", "pad_token_id", "decoder_start_token_id")


def greedy_config(
    model: Any, tokenizer: Any, *, max_new_tokens: int, use_cache: bool = True
) -> GenerationConfig:
    """A generation config that is greedy and keeps only the special tokens of the checkpoint's own.

    No sampling, beams, penalties, forced or suppressed tokens, and no least length. The end tokens are those of the
    checkpoint's generation config together with the tokenizer's.
    """
    sources = [
        m.generation_config for m in model.modules() if getattr(m, "generation_config", None) is not None
    ]
    sources.append(text_config(model))
    found = {name: _first(sources, name) for name in _SPECIAL}
    ends = {*_ids(_first(sources, "eos_token_id")), *_ids(tokenizer.eos_token_id)}
    if found["pad_token_id"] is None:
        found["pad_token_id"] = (
            tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends, default=0)
        )
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        max_new_tokens=max_new_tokens,
        use_cache=use_cache,
        eos_token_id=sorted(ends) or None,
        **found,
    )


def run_generate(
    model: Any, inputs: Inputs, config: GenerationConfig, loop: Callable[..., Any] | None = None
) -> Any:
    """`model.generate` under exactly this config, with transformers' decoding loop or another in its place.

    `generate` fills what a config leaves open from the model's own, so the model's own are replaced; call it inside
    `undisturbed`, which puts them back.

    Args:
        loop: gets what `generate` has prepared: the model or its inner language model, `input_ids`, and the rest.
    """
    for module in model.modules():
        if getattr(module, "generation_config", None) is not None:
            module.generation_config = config
    return model.generate(**inputs, generation_config=config, custom_generate=loop or _plain)


def generate_new(model: Any, inputs: Inputs, config: GenerationConfig) -> list[list[int]]:
    """The new token ids of each row, greedy, up to its first end token."""
    ends = set(_ids(config.eos_token_id))
    new = _decoded(model, inputs, config)
    return [list(takewhile(lambda token: token not in ends, row)) for row in new]


def next_scores(
    model: Any, inputs: Inputs, config: GenerationConfig, tokens: Sequence[int]
) -> Float[Tensor, "row step token"]:
    """The logits of the first new tokens when every row is made to take these, in float32 on the CPU."""
    force = _Force(tokens)
    _decoded(model, inputs, endless(config, len(tokens)), force)
    return torch.stack(force.scores, dim=1)


def forced_scores(model: Any, inputs: Inputs, config: GenerationConfig, tokens: Sequence[int]) -> list[float]:
    """The log-probability of each of these tokens in transformers' own decoding loop, made to take them in turn."""
    steps = next_scores(model, inputs, config, tokens)[0].log_softmax(-1)
    return [float(step[token]) for step, token in zip(steps, tokens, strict=True)]


def endless(config: GenerationConfig, steps: int) -> GenerationConfig:
    """The config with room for so many tokens and no end: an end token among them must not stop it."""
    longer = copy.copy(config)
    longer.eos_token_id, longer.max_new_tokens = None, steps
    return longer


def _decoded(
    model: Any, inputs: Inputs, config: GenerationConfig, *processors: LogitsProcessor
) -> list[list[int]]:
    """All new tokens of each row.

    What comes before the first new token differs: the prompt, nothing where a model generates from embeddings, a
    start token in a decoder. So it is measured where the decoding begins.
    """
    new: list[list[int]] = []

    def loop(inner: Any, input_ids: Tensor, **prepared: Any) -> Any:
        prepared["logits_processor"] = LogitsProcessorList([*prepared["logits_processor"], *processors])
        sequences = inner._sample(input_ids, **prepared)
        new.extend(sequences[:, input_ids.shape[1] :].tolist())
        return sequences

    run_generate(model, inputs, config, loop)
    return new


def _plain(inner: Any, input_ids: Tensor, **prepared: Any) -> Any:
    return inner._sample(input_ids, **prepared)


class _Force(LogitsProcessor):
    """Makes the loop take the given tokens, and keeps the scores it had before each."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = tokens
        self.scores: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = self.tokens[len(self.scores)]
        self.scores.append(scores.detach().float().cpu())
        only = torch.full_like(scores, -torch.inf)
        only[:, token] = 0.0
        return only


def _first(sources: list[Any], name: str) -> Any:
    return next((value for s in sources if (value := getattr(s, name, None)) is not None), None)


def _ids(value: Any) -> list[int]:
    if value is None:
        return []
    return [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
