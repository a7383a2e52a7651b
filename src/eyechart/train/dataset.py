"""A data set made ready for a model: every row tokenised and every image opened once, what is bad listed, a hash of all."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eyechart.core.images import BadImage
from eyechart.models.vlms.feeding import Feeding
from eyechart.train.collate import Tokeniser, Tokens, collate
from eyechart.train.feature_store import Read
from eyechart.train.loop import Batch, Report, Shuffled
from eyechart.train.packs import NO_TARGET
from eyechart.train.samples import Bad, Picture, Rejected, Sample, open_picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A sample whose images were opened."""

    sample: Sample
    images: tuple[str, ...]
    """The SHA-256 of each image's file."""

    image_tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What is in a data set, for the record beside the model."""

    rows: int
    text_only: int
    one_image: int
    more_images: int
    tokens: int
    """All that is read, image tokens included."""

    image_tokens: int
    learnt: int
    """Tokens that have a label."""

    cut_rows: int
    """Rows that were cut to max_length."""

    cut_tokens: int
    cut_images: int
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Rows that can be learnt from, and those that cannot."""

    rows: tuple[Row, ...]
    pictures: dict[str, Picture]
    """One file of each image that is read, by the SHA-256 of its bytes."""

    rejected: tuple[Rejected, ...]
    counts: Counts
    sha256: str
    """Of all tokens, labels and images."""


def make_ready(
    found: Iterable[Sample | Rejected],
    tokeniser: Tokeniser,
    feeding: Feeding,
    *,
    report: Report | None = None,
) -> Dataset:
    """Tokenise every sample and open every image once.

    Args:
        report: called with "reading", rows done, rows in all.
    """
    told, reader = list(found), _Reader(tokeniser, feeding)
    for number, one in enumerate(told):
        reader.take(one)
        if report is not None:
            report("reading", number + 1, len(told))
    return reader.dataset()


class _Reader:
    def __init__(self, tokeniser: Tokeniser, feeding: Feeding) -> None:
        self._tokeniser, self._feeding = tokeniser, feeding
        self._rows: list[Row] = []
        self._rejected: list[Rejected] = []
        self._pictures: dict[str, Picture] = {}
        self._hashes: dict[Picture, tuple[str, int]] = {}
        self._by_size: dict[tuple[int, int], int] = {}
        self._count: Counter[str] = Counter()
        self._digest = hashlib.sha256()

    def take(self, one: Sample | Rejected) -> None:
        if isinstance(one, Rejected):
            self._rejected.append(one)
            return
        try:
            opened = [self._opened(picture) for picture in one.images]
            tokens = self._tokeniser(one, [count for _, count in opened])
        except Bad as bad:
            self._reject(one, bad.reason, bad.detail)
        except BadImage as error:
            self._reject(one, "bad_image", str(error))
        else:
            self._keep(one, opened, tokens)

    def _reject(self, sample: Sample, reason: str, detail: str) -> None:
        self._rejected.append(
            Rejected(file=sample.file, row=sample.row, id=sample.id, reason=reason, detail=detail)
        )

    def _opened(self, picture: Picture) -> tuple[str, int]:
        """The hash of an image's file and how many tokens stand for it; it is opened when it is first met."""
        if picture not in self._hashes:
            opened = open_picture(picture)
            size = opened.image.size
            if size not in self._by_size:
                self._by_size[size] = self._feeding.tokens(opened.image)
            self._hashes[picture] = opened.sha256, self._by_size[size]
        return self._hashes[picture]

    def _keep(self, sample: Sample, opened: Sequence[tuple[str, int]], tokens: Tokens) -> None:
        read = opened[: tokens.images]
        self._rows.append(
            Row(
                sample=sample,
                images=tuple(sha256 for sha256, _ in opened),
                image_tokens=tuple(count for _, count in opened),
            )
        )
        for (sha256, _), picture in zip(read, sample.images, strict=False):
            self._pictures.setdefault(sha256, picture)
        self._digest.update(repr([sha256 for sha256, _ in read]).encode())
        self._digest.update(tokens.ids.tobytes() + tokens.labels.tobytes())
        kind = ("text_only", "one_image")[tokens.images] if tokens.images < 2 else "more_images"
        self._count.update({"rows": 1, kind: 1, "tokens": len(tokens.ids)})
        self._count.update(image_tokens=sum(count for _, count in read))
        self._count.update(learnt=int((tokens.labels != NO_TARGET).sum()))
        self._count.update(cut_rows=int(tokens.cut > 0), cut_tokens=tokens.cut, cut_images=tokens.images_cut)

    def dataset(self) -> Dataset:
        empty = dict.fromkeys(Counts.__slots__, 0)
        counts = Counts(**(empty | dict(self._count)))
        return Dataset(
            rows=tuple(self._rows),
            pictures=self._pictures,
            rejected=tuple(self._rejected),
            counts=replace(counts, rejected=len(self._rejected)),
            sha256=self._digest.hexdigest(),
        )


class Batches:
    """The batch of every step, a function of the step alone; each epoch has an order of its own."""

    def __init__(
        self, data: Dataset, tokeniser: Tokeniser, read: Read, *, batch_size: int, seed: int
    ) -> None:
        """Take a data set and what reads its images.

        Raises:
            UserError: a batch is larger than the set.
        """
        self._data, self._tokeniser, self._read = data, tokeniser, read
        self._order = Shuffled(items=len(data.rows), batch_size=batch_size, seed=seed)

    def __call__(self, number: int) -> Batch:
        """The batch of that number, as `collate` makes it."""
        rows = [self._data.rows[place] for place in self._order.at(number)[1]]
        return self.collated(rows)

    def collated(self, rows: Sequence[Row]) -> Batch:
        """Any rows as one batch."""
        tokens = [self._tokeniser(row.sample, row.image_tokens) for row in rows]
        seen = [sha256 for row, one in zip(rows, tokens, strict=True) for sha256 in row.images[: one.images]]
        made: dict[str, Any] = collate(tokens, self._read(seen), pad_id=self._tokeniser.pad_id)
        return made
