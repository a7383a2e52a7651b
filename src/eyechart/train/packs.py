"""Questions packed for training a VLM: several on one picture share its tokens, and none sees another.

A row is the picture's prefix (`USER: ` and its patches) followed by segments, each a question with its answer. A
segment attends to the prefix and to itself, and its positions go on from the prefix's end; so every answer has the
loss it would have alone, while the picture is read once. Rows without a picture hold segments only. An example that is
shown some patches of its picture has a row for itself, and may be an answer alone, which follows the last patch at once.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Int32, Int64
from numpy import ndarray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from eyechart.train.cached import Features, SideBySide
from eyechart.train.prompts import END, IMAGE, answered, prompt

Row = Int64[ndarray, "_"]
"""The segments of one row."""

NO_TARGET = -100
"""In `targets`, where nothing is to be predicted: torch's own mark."""

_CHECKED = 1000
"""How many answers are looked at in their whole texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A question and its answer: on the picture at this place of the features, or on none."""

    picture: int | None
    text: str | None
    """None if nothing is asked: the answer follows the patches that are shown at once."""

    answer: str
    weight: float = 1.0
    """How much a token of its answer counts beside those of others."""

    patches: tuple[int, ...] = ()
    """Only these of the picture's patches are shown, in this order; all if none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Examples as tokens, one after another in flat arrays, without what comes before the picture."""

    prefix: tuple[int, ...]
    """What comes before a picture's patches."""

    tokens: Int32[ndarray, " token"]
    starts: Int64[ndarray, " border"]
    """Where each segment starts in `tokens`, and the end."""

    answers: Int64[ndarray, " segment"]
    """Where in `tokens` each segment's answer starts."""

    pictures: Int64[ndarray, " segment"]
    """The place of each segment's picture, -1 for none."""

    weights: Float32[ndarray, " segment"]
    """How much a token of each segment's answer counts."""

    shown: tuple[tuple[int, ...], ...]
    """Of each segment's picture the patches that are shown, none for all."""


def tokenise(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Segments:
    """Examples as the tokens of their whole training texts.

    Prompt and answer are cut into tokens apart, as they are when a model answers.

    Raises:
        ValueError: there are no examples, the first of an answer's examples is cut otherwise as a whole, or nothing is
            asked in one that names no patches.
    """
    if not examples:
        raise ValueError("0 examples were given; training needs at least 1")
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    prompts = _asked(examples, tokenizer)
    answers = {one.answer: one for one in reversed(examples)}
    said = dict(zip(answers, _ids(tokenizer, [f" {answer}{END}" for answer in answers]), strict=True))
    _check_whole(list(answers.values()), said, tokenizer)
    prefix = tuple(_ids(tokenizer, [prompt("a", image=True)])[0])
    prefix = prefix[: prefix.index(image_id)]
    heads = [0 if one.picture is None or one.text is None else len(prefix) + 1 for one in examples]
    asked = [ids[head:] for ids, head in zip(prompts, heads, strict=True)]
    segments = [np.array(ids + said[one.answer], np.int32) for ids, one in zip(asked, examples, strict=True)]
    starts = np.cumsum([0, *map(len, segments)], dtype=np.int64)
    return Segments(
        prefix=prefix,
        tokens=np.concatenate(segments),
        starts=starts,
        answers=starts[:-1] + np.array([len(ids) for ids in asked], np.int64),
        pictures=np.array([-1 if one.picture is None else one.picture for one in examples], np.int64),
        weights=np.array([one.weight for one in examples], np.float32),
        shown=tuple(one.patches for one in examples),
    )


def _asked(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The tokens of each prompt, none where nothing is asked."""
    for one in examples:
        if one.text is None and not (one.patches and one.picture is not None):
            raise ValueError(
                f"{one}: without a question, the patches that its answer follows have to be named"
            )
    texts = ["" if one.text is None else prompt(one.text, image=one.picture is not None) for one in examples]
    return _ids(tokenizer, texts)


def _check_whole(
    examples: Sequence[Example], said: Mapping[str, list[int]], tokenizer: PreTrainedTokenizerBase
) -> None:
    for one in examples[:_CHECKED]:
        if one.text is None:
            continue
        shown = one.picture is not None
        whole, asked = _ids(
            tokenizer, [answered(one.text, one.answer, image=shown), prompt(one.text, image=shown)]
        )
        if whole != asked + said[one.answer]:
            raise ValueError(f"prompt and answer {one.answer!r} melt into one token in {one.text!r}")


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def pack(segments: Segments, *, patches: int, longest: int) -> list[Row]:
    """The segments of each row: those of one picture, or of none, as many as fit into `longest` tokens.

    A segment that is shown some patches only has a row for itself.
    """
    lengths = np.diff(segments.starts)
    alone = np.array([bool(patches) for patches in segments.shown])
    rows: list[Row] = [np.array([place]) for place in np.flatnonzero(alone)]
    whole = np.flatnonzero(~alone)
    if not len(whole):
        return rows
    order = whole[np.argsort(segments.pictures[whole], kind="stable")]
    borders = np.flatnonzero(np.diff(segments.pictures[order])) + 1
    for group in np.split(order, borders):
        head = 0 if segments.pictures[group[0]] < 0 else len(segments.prefix) + patches
        rows.extend(_filled(group, lengths, longest - head))
    return rows


def _filled(group: Row, lengths: Int64[ndarray, " all"], room: int) -> Iterator[Row]:
    start, used = 0, 0
    for place, segment in enumerate(group):
        if used and used + lengths[segment] > room:
            yield group[start:place]
            start, used = place, 0
        used += int(lengths[segment])
    yield group[start:]


class PackedBatches:
    """Batches of rows of like length with a fixed number of examples or a few more, each a function of the step alone.

    In an epoch every example comes once, but for the last odd ones.
    """

    def __init__(
        self,
        segments: Segments,
        features: Features | SideBySide,
        *,
        image_id: int,
        pad_id: int,
        examples: int,
        longest: int = 256,
        tokens_per_patch: int = 1,
        seed: int = 0,
    ) -> None:
        """Take tokenised examples and the features of the pictures they speak of.

        Args:
            features: what the projector reads of each picture.
            examples: in a batch; the row that reaches the number is its last.
            longest: tokens of a row; a single example may be longer.
            tokens_per_patch: of the language model: two where those of two encoders take turns.

        Raises:
            ValueError: there are fewer examples than a batch needs, or one speaks of a picture without features.
        """
        if examples > len(segments.answers):
            raise ValueError(f"batches of {examples} out of {len(segments.answers)} examples cannot be made")
        if segments.pictures.max() >= len(features):
            raise ValueError(
                f"an example speaks of picture {segments.pictures.max()}, there are {len(features)}"
            )
        self.segments, self.features = segments, features
        self._image_id, self._pad_id, self._examples, self._seed = image_id, pad_id, examples, seed
        self._tokens_per_patch = tokens_per_patch
        self.rows = pack(segments, patches=features.shape[1] * tokens_per_patch, longest=longest)
        self._epoch = lru_cache(maxsize=4)(self._drawn)

    @property
    def sha256(self) -> str:
        """A hash of all examples and of how they are batched."""
        said = self.segments
        digest = hashlib.sha256(repr((said.prefix, self._examples, len(self.rows), self._seed)).encode())
        if self._tokens_per_patch != 1:
            digest.update(f"tokens a patch: {self._tokens_per_patch}".encode())
        digest.update(
            repr([(place, patches) for place, patches in enumerate(said.shown) if patches]).encode()
        )
        for values in (said.tokens, said.starts, said.answers, said.pictures, said.weights):
            digest.update(values.tobytes())
        return digest.hexdigest()

    def __call__(self, step: int) -> dict[str, Tensor]:
        """The batch of a step, as `answer_loss` takes it."""
        return self.collated([self.rows[row] for row in self.at(step)])

    def at(self, step: int) -> list[int]:
        """The rows of a step's batch."""
        epoch, before = 0, 0
        while step - before >= len(self._epoch(epoch)):
            before += len(self._epoch(epoch))
            epoch += 1
        return self._epoch(epoch)[step - before]

    def _drawn(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch: rows in a drawn order, sorted by length within pools, cut by examples."""
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self.rows))
        sizes = np.array([len(row) for row in self.rows])
        lengths = np.array([self._length(row) for row in self.rows])
        ends = list(accumulate(int(size) for size in sizes[order]))
        pool = 32 * self._examples
        cuts = [bisect_right(ends, border) for border in range(0, ends[-1] + pool, pool)]
        batches: list[list[int]] = []
        for start, end in pairwise([*cuts, len(order)]):
            part = order[start:end]
            batches.extend(self._cut(part[np.argsort(lengths[part], kind="stable")].tolist(), sizes))
        return [batches[place] for place in rng.permutation(len(batches))]

    def _cut(self, rows: list[int], sizes: Int64[ndarray, " row"]) -> Iterator[list[int]]:
        batch: list[int] = []
        held = 0
        for row in rows:
            batch.append(row)
            held += int(sizes[row])
            if held >= self._examples:
                yield batch
                batch, held = [], 0
        if held >= self._examples // 2:
            yield batch

    def _length(self, row: Row) -> int:
        starts = self.segments.starts
        return self._head(row) + int((starts[row + 1] - starts[row]).sum())

    def _head(self, row: Row) -> int:
        if self.segments.pictures[row[0]] < 0:
            return 0
        patches = len(self.segments.shown[row[0]]) or self.features.shape[1]
        return len(self.segments.prefix) + patches * self._tokens_per_patch

    def collated(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Rows as tensors, padded on the right.

        Returns:
            `input_ids`, `positions`, `targets` and `weights` (row, token), where a target is the token that follows an
            answer's place, or `NO_TARGET`, and its weight is that of its example; `mask` (row, 1, query, key), True where
            a token may look; `features` (patch, dim) of all rows that have a picture, row by row.
        """
        length = max(self._length(row) for row in rows)
        ids = np.full((len(rows), length), self._pad_id, np.int64)
        positions = np.zeros((len(rows), length), np.int64)
        targets = np.full((len(rows), length), NO_TARGET, np.int64)
        groups = np.full((len(rows), length), -1, np.int64)
        weights = np.zeros((len(rows), length), np.float32)
        for number, row in enumerate(rows):
            self._fill(row, ids[number], positions[number], targets[number], groups[number])
            inside = groups[number] > 0
            weights[number, inside] = self.segments.weights[row][groups[number, inside] - 1]
            if self.segments.shown[row[0]]:
                weights[number] = self.segments.weights[row[0]]
        return {
            "input_ids": torch.from_numpy(ids),
            "positions": torch.from_numpy(positions),
            "targets": torch.from_numpy(targets),
            "weights": torch.from_numpy(weights),
            "mask": visible(torch.from_numpy(groups)),
            "features": torch.from_numpy(self._read(rows)),
        }

    def _read(self, rows: Sequence[Row]) -> Float16[ndarray, "patch dim"] | Float32[ndarray, "patch dim"]:
        said, found = self.segments, [np.zeros((0, self.features.shape[2]), self.features.dtype)]
        for row in rows:
            picture, patches = said.pictures[row[0]], said.shown[row[0]]
            if picture >= 0:
                seen = self.features[picture]
                found.append(seen[list(patches)] if patches else seen)
        return np.concatenate(found)

    def _fill(
        self,
        row: Row,
        ids: Int64[ndarray, " token"],
        positions: Int64[ndarray, " token"],
        targets: Int64[ndarray, " token"],
        groups: Int64[ndarray, " token"],
    ) -> None:
        """Write one row in place; group 0 is the picture's prefix, 1 and on the segments, -1 padding."""
        said, head = self.segments, self._head(row)
        ids[:head] = self._image_id
        ids[: len(said.prefix) if head else 0] = said.prefix if head else ()
        positions[:head] = np.arange(head)
        groups[:head] = 0
        place = head
        for number, segment in enumerate(row, start=1):
            start, end, answer = said.starts[segment], said.starts[segment + 1], said.answers[segment]
            stop, first = place + int(end - start), place + int(answer - start)
            ids[place:stop] = said.tokens[start:end]
            positions[place:stop] = np.arange(head, head + end - start)
            targets[first - 1 : stop - 1] = said.tokens[answer:end]
            groups[place:stop] = number
            place = stop


def visible(groups: Int64[Tensor, "row token"]) -> Bool[Tensor, "row 1 token token"]:
    """Which tokens each token may look at: earlier ones, of its own segment or of the picture's prefix."""
    query, key = groups[:, :, None], groups[:, None, :]
    causal = torch.ones(groups.shape[1], groups.shape[1], dtype=torch.bool).tril()
    allowed: Tensor = ((query == key) | ((key == 0) & (query > 0))) & causal
    return allowed[:, None]
