"""The language model's tests: perplexity of unseen text beside single tokens' frequencies, and answers from told words."""

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from eyechart.core.stats import cluster_bootstrap, cluster_rate
from eyechart.models.quiet import quiet
from eyechart.recipes.language_model import dialogues
from eyechart.train.language import answers_right, perplexity
from eyechart.train.loop import Batch
from eyechart.train.tokens import load_tokenizer

ROWS = 400
"""Texts to read, each of at most 256 tokens."""


def language_tests(folder: Path, *, rows: int = ROWS, seed: int = 0) -> dict[str, Any]:
    """Read texts about scenes that were drawn from a seed of their own.

    Returns:
        `perplexity` with an interval from drawing texts anew, `unigram` of the same tokens, and `answers`: how many
        questions on scenes told in words are answered in exactly the right tokens.
    """
    words = load_tokenizer(folder)
    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model.eval()
    pad = words.pad_token_id
    batches = [dialogues(words, rows=1, seed=seed, split="test")(step) for step in range(rows)]
    whole, unigram = perplexity(model, batches, pad_id=pad)
    losses, texts, right, answered = [], [], [], []
    for row, batch in enumerate(batches):
        each = token_losses(model, batch, pad_id=pad)
        losses += each
        texts += [row] * len(each)
        hits, count = answers_right(model, batch)
        right += [1.0] * hits + [0.0] * (count - hits)
        answered += [row] * count
    found = cluster_bootstrap(losses, texts, seed=seed)
    low, high = torch.tensor([found.low, found.high]).exp().tolist()
    return {
        "perplexity": {**found.to_dict(), "value": whole, "low": low, "high": high},
        "unigram": unigram,
        "texts": rows,
        "answers": cluster_rate(right, answered, seed=seed).to_dict(),
    }


@torch.no_grad()
def token_losses(model: Any, batch: Batch, *, pad_id: int) -> list[float]:
    """Nats of each token given those before it."""
    ids = batch["input_ids"]
    real = ids[:, 1:] != pad_id
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    found: list[float] = functional.cross_entropy(
        logits[real].double(), ids[:, 1:][real], reduction="none"
    ).tolist()
    return found
