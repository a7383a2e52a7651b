"""Prompts parted after their images: beginnings that are equal are read once, and none of them needs padding.

In a causal language model what comes after the image changes nothing in what was read before. So several questions about
one picture share its reading; and where all pictures take as many tokens, as in LLaVA, the long beginnings form a
batch without padding, and only the short rests are padded.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eyechart.core.records import Prompt
from eyechart.models.vlms.objects import is_encoder_decoder, text_config
from eyechart.models.vlms.prompting import Inputs, Prompting


@dataclass(frozen=True, slots=True, kw_only=True)
class Tails:
    """How each prompt goes on after a beginning."""

    of: tuple[int, ...]
    """The row of the beginning of each prompt."""

    tokens: tuple[tuple[int, ...], ...]
    """What follows it, never empty."""


def split(
    prompting: Prompting, prompts: Sequence[Prompt], inputs: Inputs, cuts: Sequence[int]
) -> tuple[Inputs, Tails] | None:
    """What a batch's distinct beginnings are fed as, and the rest of each prompt.

    Args:
        inputs: of all prompts, padded on the left.
        cuts: tokens to be taken off the end of each prompt.

    Returns:
        None where there is nothing to gain (no padding, no two alike), where beginnings differ in length, or where the
        inputs do not say where an image ends.
    """
    spans = _spans(inputs, prompting.image_token_id)
    if spans is None or len({end - start for start, end in spans}) > 1:
        return None
    ids = inputs["input_ids"].tolist()
    tokens = tuple(
        tuple(row[end : len(row) - cut]) for row, (_, end), cut in zip(ids, spans, cuts, strict=True)
    )
    keys = [
        (tuple(row[start:end]), *map(_digest, prompt.images))
        for row, (start, end), prompt in zip(ids, spans, prompts, strict=True)
    ]
    distinct = list(dict.fromkeys(keys))
    if not all(tokens) or (len(distinct) == len(keys) and len(set(map(len, tokens))) == 1):
        return None
    if len(distinct) < len(keys):
        inputs = prompting.inputs([prompts[keys.index(key)] for key in distinct])
        spans = _spans(inputs, prompting.image_token_id)
        assert spans is not None
    return _beginning(inputs, spans), Tails(of=tuple(map(distinct.index, keys)), tokens=tokens)


def why_never(model: Any) -> str:
    """Why a model's prompts are not parted, whatever a proof on short prompts says; empty when they may be.

    A window slides over columns, padding between beginning and rest included, and some rotary positions depend on the
    length of all.
    """
    config = text_config(model)
    if is_encoder_decoder(model):
        return "replies come from a decoder that starts empty"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or (
        getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    ):
        return "some of its layers see only a window of the text"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") in ("dynamic", "longrope"):
        return "its positions depend on the length of the text"
    return ""


def _spans(inputs: Inputs, image_token_id: int | None) -> list[tuple[int, int]] | None:
    """Where each row begins after its padding, and ends one token after its last image.

    That token is text, so that its position is one from which others are counted: the last of an image's rotary positions
    in rows and columns is not.
    """
    if image_token_id is None or not {"input_ids", "attention_mask"} <= set(inputs):
        return None
    images = inputs["input_ids"] == image_token_id
    if not bool(images.any(dim=1).all()):
        return None
    starts = inputs["attention_mask"].argmax(dim=1)
    ends = images.shape[1] - images.flip(1).int().argmax(dim=1) + 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _beginning(inputs: Inputs, spans: Sequence[tuple[int, int]]) -> Inputs:
    rows, length = inputs["input_ids"].shape

    def begun(name: str, value: Any) -> Any:
        runs_along = isinstance(value, Tensor) and value.ndim >= 2 and value.shape[:2] == (rows, length)
        if not runs_along or "pixel" in name:
            return value
        return torch.stack([row[start:end] for row, (start, end) in zip(value, spans, strict=True)])

    return {name: begun(name, value) for name, value in inputs.items()}


def _digest(image: Any) -> str:
    return hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).hexdigest()
