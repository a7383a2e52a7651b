"""The frozen rows that cross from room to room."""

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class Outcome(StrEnum):
    """What became of a reply; `unread` earns no credit and is counted beside the score."""

    RIGHT = "right"
    WRONG = "wrong"
    UNREAD = "unread"


class Capability(StrEnum):
    """What a VLM can be asked for; a command names what it needs."""

    GENERATE = "generate"
    OPTION_SCORES = "option_scores"
    FED_FEATURES = "fed_features"
    HIDDEN_STATES = "hidden_states"
    EDIT_ATTENTION = "edit_attention"
    SPATIAL_MAP = "spatial_map"
    TRAIN = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question on one image.

    `answer` is the place of the right option in `options`; `image_sha256` is of the file's bytes.
    """

    id: str
    pair_id: str
    question: str
    options: tuple[str, ...]
    answer: int
    image: Path
    image_sha256: str
    pattern: str | None = None

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise ValueError(f"item {self.id!r}: a question needs two options or more, got {self.options!r}")
        if not 0 <= self.answer < len(self.options):
            raise ValueError(
                f"item {self.id!r}: answer {self.answer} is no place in its {len(self.options)} options"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """Input that could not be used, and why: listed in `quarantine.parquet`, never dropped in silence."""

    path: str
    reason: str
    """One of the words in `core.images.REASONS`, or `bad_row` for a row of a table."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A checked set of items in pairs, and what had to be left out of it."""

    name: str
    source: str
    sha256: str
    """Of questions, options, answers, pairing and image bytes: two equal hashes are the same exam."""

    items: tuple[Item, ...]
    in_source: int
    """Items in the source, before a limit and the quarantine."""

    quarantined: tuple[Quarantined, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rows_sha256(self) -> str:
        """A hash of everything an item says, ids and patterns and order included; where files lie plays no part."""
        rows = [
            [item.id, item.pair_id, item.question, item.options, item.answer, item.image_sha256, item.pattern]
            for item in self.items
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a VLM is shown and asked: images come before the text."""

    text: str
    images: tuple[Any, ...] = field(default=())
    """PIL images in RGB, already opened and checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """One reply, read: which option it names (None when unread) and what that makes it."""

    item_id: str
    reply: str
    choice: int | None
    outcome: Outcome
    option_scores: tuple[float, ...] | None = None
