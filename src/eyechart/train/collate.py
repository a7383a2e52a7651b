"""Conversations as tokens by a model's own chat template, with labels on what the assistant says and nothing else.

Where a template closes no turn of the assistant with a special token (LLaVA 1.5's), the end token is written there,
as LLaVA's own training code does: a model that never reads it never learns to stop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray
from torch import Tensor

from eyechart.core.errors import UserError
from eyechart.train.packs import NO_TARGET
from eyechart.train.samples import Bad, Sample, Turn

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """A conversation as a model is trained on it."""

    ids: Int64[ndarray, " token"]
    labels: Int64[ndarray, " token"]
    """The same ids where the assistant speaks, else `NO_TARGET`; a model is taught to predict each from those before."""

    images: int
    """So many of the sample's images, its first ones, are in it."""

    cut: int
    """Tokens that were cut off its end."""

    images_cut: int
    """Images among them."""


class Tokeniser:
    """Turns samples into tokens for one model."""

    def __init__(self, processor: Any, image_token_id: int, *, max_length: int) -> None:
        """Take a processor with a chat template and a fast tokenizer.

        Raises:
            UserError: it has no chat template, its tokenizer tells no offsets, or its image token is another one.
        """
        self._processor, self._tokenizer = processor, getattr(processor, "tokenizer", processor)
        self._image_id, self._longest = image_token_id, max_length
        self._image = str(self._tokenizer.convert_ids_to_tokens(image_token_id))
        template = getattr(processor, "chat_template", None) or getattr(
            self._tokenizer, "chat_template", None
        )
        if not template:
            raise UserError(
                f"{type(processor).__name__} has no chat template, so nobody knows how this model's conversations are "
                "written; expected one in the checkpoint. Set processor.chat_template, save it, and give that folder"
            )
        if not self._tokenizer.is_fast:
            raise UserError(
                f"{type(self._tokenizer).__name__} does not tell where in a text its tokens stand; expected a fast tokenizer"
            )
        if max_length < 2:
            raise UserError(f"max_length is {max_length}; it must be at least 2 tokens")
        self._closers = tuple(self._tokenizer.all_special_tokens)

    @property
    def pad_id(self) -> int:
        """What fills up shorter rows; it is masked, so it only has to be a token."""
        found = self._tokenizer.pad_token_id
        return int(self._tokenizer.eos_token_id or 0) if found is None else int(found)

    def __call__(self, sample: Sample, image_tokens: Sequence[int]) -> Tokens:
        """The tokens of a sample.

        Args:
            image_tokens: how many tokens stand for each of its images.

        Raises:
            Bad: nothing can be learnt from it.
        """
        text, answers = self.text(sample)
        opening = self._tokenizer.bos_token
        made = self._tokenizer(
            text,
            add_special_tokens=not (opening and text.startswith(opening)),
            return_offsets_mapping=True,
        )
        ids = np.array(made["input_ids"], np.int64)
        taught = _inside(made["offset_mapping"], answers)
        marks = np.flatnonzero(ids == self._image_id)
        if len(marks) != len(image_tokens):
            raise Bad("image_count", f"{len(image_tokens)} images, {len(marks)} places for them in the text")
        times = np.ones(len(ids), np.int64)
        times[marks] = image_tokens
        ends = np.cumsum(times)
        labels = np.where(taught, ids, NO_TARGET)
        labels[:1] = NO_TARGET  # nothing comes before it
        blocks = [(int(ends[mark] - times[mark]), int(ends[mark])) for mark in marks]
        return self._shortened(np.repeat(ids, times), np.repeat(labels, times), blocks)

    def text(self, sample: Sample) -> tuple[str, list[Span]]:
        """The whole text, an image token for each image, and where in it the assistant's turns stand, ends included.

        Raises:
            Bad: a text holds the image token, or the template does not go on from turn to turn.
        """
        whole = self._render(sample.turns, asking=False)
        pieces: list[str] = []
        answers: list[Span] = []
        done = length = 0
        for place, turn in enumerate(sample.turns):
            if turn.role != "assistant":
                continue
            if place == 0:
                raise Bad("bad_turn", "the assistant speaks first")
            start = len(self._prefix(whole, sample.turns[:place], asking=True))
            end = len(self._prefix(whole, sample.turns[: place + 1], asking=False))
            before, said = whole[done:start], self._closed(whole[start:end])
            start = length + len(before)
            answers.append((start, start + len(said.rstrip())))
            pieces += [before, said]
            done, length = end, start + len(said)
        return "".join([*pieces, whole[done:]]), answers

    def _prefix(self, whole: str, turns: Sequence[Turn], *, asking: bool) -> str:
        text = self._render(turns, asking=asking)
        if not whole.startswith(text):
            raise Bad("unstable_template", f"{len(turns)} turns are {text[-60:]!r}, which does not go on")
        return text

    def _closed(self, said: str) -> str:
        """What the assistant says with a token that ends it, the template's or the tokenizer's own."""
        bare = said.rstrip()
        if self._tokenizer.eos_token is None or bare.endswith(self._closers):
            return said
        return bare + str(self._tokenizer.eos_token)

    def _render(self, turns: Sequence[Turn], *, asking: bool) -> str:
        text: str = self._processor.apply_chat_template(
            [self._message(turn) for turn in turns], tokenize=False, add_generation_prompt=asking
        )
        return text

    def _message(self, turn: Turn) -> dict[str, Any]:
        for part in turn.parts:
            if isinstance(part, str) and self._image in part:
                raise Bad("mark_in_text", f"{part[:60]!r} holds {self._image!r}")
        parts = [
            {"type": "image"} if isinstance(part, int) else {"type": "text", "text": part}
            for part in turn.parts
        ]
        return {"role": turn.role, "content": parts}

    def _shortened(
        self, ids: Int64[ndarray, " token"], labels: Int64[ndarray, " token"], blocks: Sequence[Span]
    ) -> Tokens:
        """Cut the end off a row that is too long, and with it the whole of an image that would be cut apart."""
        end = min(len(ids), self._longest)
        for start, stop in blocks:
            if start < end < stop:
                end = start
        if not (labels[:end] != NO_TARGET).any():
            raise Bad("too_long", f"{len(ids)} tokens, of {self._longest} at most")
        images = sum(stop <= end for _, stop in blocks)
        return Tokens(
            ids=ids[:end],
            labels=labels[:end],
            images=images,
            cut=len(ids) - end,
            images_cut=len(blocks) - images,
        )


def _inside(offsets: Sequence[Span], answers: Sequence[Span]) -> ndarray:
    """Which tokens stand in an answer; none may stand in it by half."""
    starts = np.array([start for start, _ in offsets], np.int64)
    stops = np.array([stop for _, stop in offsets], np.int64)
    inside = np.zeros(len(offsets), bool)
    for begin, end in answers:
        for border in (begin, end):
            if ((starts < border) & (border < stops)).any():
                raise Bad("melted", f"a token reaches over character {border} of the text")
        inside |= (starts >= begin) & (stops <= end) & (stops > starts)
    return inside


def collate(
    rows: Sequence[Tokens], features: Sequence[Mapping[str, Tensor]], *, pad_id: int
) -> dict[str, Any]:
    """Rows as one batch, padded on the right.

    Args:
        features: of each image in the rows, in reading order: what the adapters read, by encoder: (patch, dim).

    Returns:
        `input_ids`, `attention_mask`, `labels` (row, token); `features`: by encoder (image, patch, dim), empty where no
        row has an image.

    Raises:
        ValueError: there are more or fewer features than images in the rows.
    """
    if len(features) != sum(row.images for row in rows):
        raise ValueError(f"{len(features)} images have features, {sum(row.images for row in rows)} are read")
    shape = (len(rows), max(len(row.ids) for row in rows))
    ids, labels = np.full(shape, pad_id, np.int64), np.full(shape, NO_TARGET, np.int64)
    mask = np.zeros(shape, np.int64)
    for number, row in enumerate(rows):
        length = len(row.ids)
        ids[number, :length], labels[number, :length], mask[number, :length] = row.ids, row.labels, 1
    names = features[0].keys() if features else ()
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "labels": torch.from_numpy(labels),
        "features": {name: torch.stack([one[name] for one in features]) for name in names},
    }
