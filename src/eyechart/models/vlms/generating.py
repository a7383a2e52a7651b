"""Greedy replies, new text only, with nothing of a checkpoint's sampling settings let in."""

from itertools import takewhile
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from eyechart.models.vlms.objects import text_config
from eyechart.models.vlms.prompting import Inputs

_SPECIAL = ("bos_token_id", "pad_token_id", "decoder_start_token_id")


def greedy_config(model: Any, tokenizer: Any, *, max_new_tokens: int) -> GenerationConfig:
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
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        eos_token_id=sorted(ends) or None,
        **found,
    )


def run_generate(model: Any, inputs: Inputs, config: GenerationConfig, **more: Any) -> Any:
    """`model.generate` under exactly this config.

    `generate` fills what a config leaves open from the model's own, so the model's own are replaced; call it inside
    `undisturbed`, which puts them back.
    """
    for module in model.modules():
        if getattr(module, "generation_config", None) is not None:
            module.generation_config = config
    return model.generate(**inputs, generation_config=config, **more)


class PromptLength(LogitsProcessor):
    """Notes how long the sequence is before its first new token, whatever `generate` takes for the prompt.

    That differs: nothing where a model generates from embeddings, one start token in a decoder, the prompt elsewhere.
    """

    def __init__(self) -> None:
        self.value: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave the scores as they are."""
        if self.value is None:
            self.value = input_ids.shape[1]
        return scores


def generate_new(model: Any, inputs: Inputs, config: GenerationConfig) -> list[list[int]]:
    """The new token ids of each row, greedy, up to its first end token."""
    length = PromptLength()
    sequences = run_generate(model, inputs, config, logits_processor=LogitsProcessorList([length]))
    ends = set(_ids(config.eos_token_id))
    rows: list[list[int]] = sequences[:, length.value :].tolist()
    return [list(takewhile(lambda token: token not in ends, row)) for row in rows]


def next_scores(model: Any, inputs: Inputs, config: GenerationConfig) -> Float[Tensor, "row token"]:
    """The logits of the first new token of each row, in float32 on the CPU."""
    first = FirstScores()
    run_generate(model, inputs, config, logits_processor=LogitsProcessorList([first]))
    assert first.scores is not None
    return first.scores


class FirstScores(LogitsProcessor):
    """Keeps the scores it is shown first."""

    def __init__(self) -> None:
        self.scores: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave the scores as they are."""
        if self.scores is None:
            self.scores = scores.detach().float().cpu()
        return scores


def _first(sources: list[Any], name: str) -> Any:
    return next((value for s in sources if (value := getattr(s, name, None)) is not None), None)


def _ids(value: Any) -> list[int]:
    if value is None:
        return []
    return [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
