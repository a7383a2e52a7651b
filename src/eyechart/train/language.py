"""The zoo's language model: its sizes, dialogues as batches of tokens, and a loss on all of a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from eyechart.train.export import export
from eyechart.train.loop import Batch, Objective
from eyechart.train.prompts import chat_tokenizer, prompt

Turn = tuple[str, str]
"""What the user says and what is answered."""

Dialogue = Sequence[Turn]


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageShape:
    """How large the language model is."""

    hidden_size: int = 128
    intermediate_size: int = 384
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    max_position_embeddings: int = 512


def make_language_model(
    tokenizer: PreTrainedTokenizerFast, shape: LanguageShape | None = None
) -> LlamaForCausalLM:
    """A `LlamaForCausalLM` with tied embeddings and weights drawn from torch's generator."""
    shape = shape or LanguageShape()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            max_position_embeddings=shape.max_position_embeddings,
            initializer_range=(2 / (shape.hidden_size + shape.hidden_size)) ** 0.5,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


class DialogueReader:
    """Turns dialogues into batches: a row each, as many turns as fit, padded on the right to the longest.

    A row is exactly what the chat template makes of its turns (`eyechart.train.prompts`).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, length: int) -> None:
        self._tokenizer, self._length = chat_tokenizer(tokenizer), length
        self._pad, self._end = tokenizer.pad_token_id, tokenizer.eos_token_id

    def __call__(self, dialogues: Sequence[Dialogue]) -> Batch:
        """`input_ids` (row, length), and `answers`: 1.0 where a token belongs to an answer, 0.0 elsewhere, of the same shape.

        A turn that does not fit into what is left of a row is passed over, and the next one is tried.

        Raises:
            ValueError: the first turn of a dialogue, without which the others mean nothing, is longer than a row.
        """
        ids = np.full((len(dialogues), self._length), self._pad, dtype=np.int64)
        answers = np.zeros(ids.shape, dtype=np.float32)
        for row, dialogue in enumerate(dialogues):
            at = 0
            for number, (asked, answer) in enumerate(self._tokens(dialogue)):
                end = at + len(asked) + len(answer)
                if end > self._length:
                    if number == 0:
                        raise ValueError(
                            f"{end} tokens do not fit into a row of {self._length}: {dialogue[0]}"
                        )
                    continue
                ids[row, at:end] = [*asked, *answer]
                answers[row, at + len(asked) : end] = 1.0
                at = end
        used = (ids != self._pad).any(axis=0).sum()
        return {"input_ids": torch.from_numpy(ids[:, :used]), "answers": torch.from_numpy(answers[:, :used])}

    def _tokens(self, dialogue: Dialogue) -> list[tuple[list[int], list[int]]]:
        texts = [text for said, answer in dialogue for text in (prompt(said, image=False), f" {answer}")]
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [(asked, [*answer, self._end]) for asked, answer in zip(ids[::2], ids[1::2], strict=True)]


def language_objective(*, pad_id: int, answer_weight: float = 1.0) -> Objective:
    """The cross-entropy of each token given those before it, padding left out.

    Args:
        pad_id: the token that is never predicted.
        answer_weight: how much a token of an answer counts, beside 1 for every other token.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        ids: Int64[Tensor, "row token"] = batch["input_ids"]
        weights = token_weights(ids, batch["answers"], pad_id=pad_id, answer_weight=answer_weight)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        each = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return (each * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()

    return loss


def token_weights(
    ids: Int64[Tensor, "row token"],
    answers: Float[Tensor, "row token"],
    *,
    pad_id: int,
    answer_weight: float,
) -> Float[Tensor, "row token"]:
    """How much each token counts in the loss."""
    return torch.where(ids == pad_id, 0.0, 1.0 + (answer_weight - 1.0) * answers)


@torch.no_grad()
def perplexity(model: nn.Module, batches: Sequence[Batch], *, pad_id: int) -> tuple[float, float]:
    """The model's perplexity on texts, and that of the best guess from the texts' own token frequencies alone."""
    total, count = 0.0, 0
    seen: list[Int64[ndarray, " token"]] = []
    for batch in batches:
        ids = batch["input_ids"]
        real = ids[:, 1:] != pad_id
        logits = model.eval()(input_ids=ids, use_cache=False).logits[:, :-1]
        each = functional.cross_entropy(logits[real], ids[:, 1:][real], reduction="none")
        total, count = total + each.double().sum().item(), count + len(each)
        seen.append(ids[:, 1:][real].numpy())
    shares = np.bincount(np.concatenate(seen)) / count
    unigram = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
    return float(np.exp(total / count)), float(np.exp(unigram))


@torch.no_grad()
def answers_right(model: nn.Module, batch: Batch) -> tuple[int, int]:
    """How many answers of a batch are the likeliest tokens throughout, each after all that stands before it; and of how many.

    The first answer of a row is read after a scene told in words and one question, as an exam would put it; those
    after it follow other questions with their right answers.
    """
    ids, answers = batch["input_ids"], batch["answers"][:, 1:] > 0
    wrong = (model.eval()(input_ids=ids, use_cache=False).logits[:, :-1].argmax(-1) != ids[:, 1:]) & answers
    starts = answers & ~functional.pad(answers, (1, 0))[:, :-1]
    number = starts.long().cumsum(1)
    failed = {(row, int(number[row, place])) for row, place in wrong.nonzero().tolist()}
    count = int(starts.sum())
    return count - len(failed), count


def export_language_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write the checkpoint with its tokenizer, which bears the chat template."""
    return export(model, folder, chat_tokenizer(tokenizer))
