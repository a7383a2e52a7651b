"""The frozen rows that cross from room to room."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

NO_PATTERN = "(none)"
"""Where pairs without a pattern are counted."""


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
    """One question on one image, or on several.

    `pair_id` is empty where the benchmark is not in pairs. `answer` is the place of the right option in `options`; `image_sha256` is of the file's bytes.
    """

    id: str
    pair_id: str
    question: str
    options: tuple[str, ...]
    answer: int
    image: Path
    image_sha256: str
    pattern: str | None = None
    facets: tuple[tuple[str, str], ...] = ()
    """What else a benchmark's rule of scoring reads of an item: `("source", "ADE20K")`, `("split", "popular")`."""

    more_images: tuple[Path, ...] = ()
    """The second and further pictures of a question about several."""

    more_sha256: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[Path, ...]:
        """All pictures of the question, in their order."""
        return (self.image, *self.more_images)

    def facet(self, name: str) -> str | None:
        """What the item says under this name, None where it says nothing."""
        return dict(self.facets).get(name)

    def __post_init__(self) -> None:
        if len(self.more_images) != len(self.more_sha256):
            raise ValueError(
                f"item {self.id!r}: {len(self.more_images)} further images, {len(self.more_sha256)} hashes of them"
            )
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
    """One of the words in `core.images.REASONS`, `bad_row` for a row of a table, or a word for masks of parts
    (`locate.part_records.REASONS`)."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A label that is publicly held to be wrong: the places of the old and the new answer among the options."""

    item_id: str
    old: int
    new: int
    reason: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A checked set of items, and what had to be left out of it."""

    name: str
    source: str
    sha256: str
    """Of questions, options, answers, pairing and image bytes: two equal hashes are the same exam."""

    items: tuple[Item, ...]
    in_source: int
    """Items in the source, before a limit and the quarantine."""

    quarantined: tuple[Quarantined, ...] = ()
    notes: tuple[str, ...] = ()
    rule: str = "pairs"
    """How it is scored: a name in `score.rules.RULES`."""

    corrections: tuple[Correction, ...] = ()
    """Labels in doubt; `items` hold the ones first published, whichever a re-hosted source has."""

    def corrected(self) -> tuple[Item, ...]:
        """The items with the corrections applied, in the same order.

        Raises:
            ValueError: a correction names no item, or another answer than the item has.
        """
        known = {item.id: item for item in self.items}
        for one in self.corrections:
            if one.item_id not in known or known[one.item_id].answer != one.old:
                raise ValueError(f"the correction of item {one.item_id!r} does not fit the items: {one}")
        new = {one.item_id: one.new for one in self.corrections}
        return tuple(replace(item, answer=new.get(item.id, item.answer)) for item in self.items)

    @property
    def rows_sha256(self) -> str:
        """A hash of everything an item says, ids and patterns and order included; where files lie plays no part."""
        rows = [
            [item.id, item.pair_id, item.question, item.options, item.answer, item.image_sha256, item.pattern]
            + ([item.facets] if item.facets else [])
            + ([item.more_sha256] if item.more_sha256 else [])
            for item in self.items
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Captions and images of which caption k belongs to image k.

    Two and two are a pair of statements (MMVP-VLM, Winoground). One image and several captions say that the first
    caption is the right one (SugarCrepe).
    """

    id: str
    captions: tuple[str, ...]
    images: tuple[Path, ...]
    images_sha256: tuple[str, ...]
    pattern: str | None = None

    def __post_init__(self) -> None:
        shape = (len(self.images), len(self.captions))
        if len(self.images_sha256) != len(self.images) or not (
            shape[0] == shape[1] >= 2 or (shape[0] == 1 < shape[1])
        ):
            raise ValueError(
                f"match {self.id!r}: {shape[0]} images, {len(self.images_sha256)} hashes and {shape[1]} captions; expected"
                " as many captions as images, two or more, or one image with two captions or more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchSet:
    """A checked set of matches for encoders with a text tower."""

    name: str
    source: str
    sha256: str
    """Of captions, patterns and image bytes, whatever their order."""

    matches: tuple[Match, ...]
    in_source: int
    """Matches in the source, before a limit and the quarantine."""

    prefix: str = ""
    """What is put before each caption, as `a photo of ` in MMVP-VLM."""

    quarantined: tuple[Quarantined, ...] = ()
    notes: tuple[str, ...] = ()


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
