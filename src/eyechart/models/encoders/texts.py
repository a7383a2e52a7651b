"""The text side of CLIP-like checkpoints: padding as in training, pooling where the text ends."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoTokenizer

from eyechart.core.errors import UserError

logger = logging.getLogger(__name__)

_PADDED = ("siglip", "siglip2")
"""Model types whose texts were always padded to full length in training, the padding attended to."""


class TextReader:
    """Embeds texts one at a time: neither padding nor neighbours can change the result."""

    def __init__(self, name: str, model: Any, options: Mapping[str, Any]) -> None:
        self._name = name
        self._model = model
        self._tokenizer = _load_tokenizer(name, options)
        self._length = int(model.config.text_config.max_position_embeddings)
        self._padded = model.config.model_type in _PADDED
        self._end = next((module.eos_token_id for module in model.modules() if _pools_at_end(module)), None)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """One vector for each text, in the space of the projected images."""
        return torch.cat([self._read(text) for text in texts])

    def _read(self, text: str) -> Float[Tensor, "1 dim"]:
        tokens = self._tokenizer(
            [text],
            padding="max_length" if self._padded else False,
            max_length=self._length,
            truncation=True,
            return_tensors="pt",
        )
        if not self._padded and tokens["input_ids"].shape[1] == self._length:
            logger.warning(
                "%s: this text fills all %d tokens and may be cut: %r", self._name, self._length, text
            )
        self._check_end(tokens["input_ids"][0], text)
        made = self._model.get_text_features(**tokens.to(self._model.device))
        pooled: Tensor = made if isinstance(made, Tensor) else made.pooler_output
        return pooled

    def _check_end(self, ids: Int[Tensor, " token"], text: str) -> None:
        """Make sure that the model pools where the tokenizer ends the text.

        transformers' CLIP pools at the first `eos_token_id` of its config, except that for the value 2 (in the
        configs of OpenAI's checkpoints, by mistake) it pools at the largest id instead. With a tokenizer that fits
        neither, it pools anywhere.
        """
        if self._end is None:
            return
        largest = self._end == 2 and self._model.config.model_type != "metaclip_2"
        pooled = int(ids.argmax() if largest else (ids == self._end).int().argmax())
        if int(ids[pooled]) != self._tokenizer.eos_token_id:
            rule = "the largest token id" if largest else f"token {self._end}"
            raise UserError(
                f"{self._name} pools texts at {rule} (eos_token_id of its text config is {self._end}), but its tokenizer "
                f"ends texts with token {self._tokenizer.eos_token_id}; for {text!r} that is another place. Set "
                "eos_token_id in config.json to the tokenizer's, or give texts their end token."
            )


def _pools_at_end(module: nn.Module) -> bool:
    return isinstance(getattr(module, "eos_token_id", None), int)


def _load_tokenizer(name: str, options: Mapping[str, Any]) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{name} has a text tower but no tokenizer that can be loaded: {error}") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        # transformers makes an empty tokenizer where a checkpoint has no files for one
        raise UserError(
            f"{name} has a text tower but no tokenizer: a vocabulary of {len(tokenizer)} special tokens"
        )
    return tokenizer
