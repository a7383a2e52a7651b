"""Lays the run folder of `eyechart mine` out as one HTML page: the pairs that were found, and how exactly."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from eyechart.core.errors import UserError
from eyechart.core.files import read_table, write_bytes
from eyechart.report import words
from eyechart.report.charts import heat_map
from eyechart.report.page import (
    CARDS_MAX,
    CARDS_OPEN,
    PICTURE_BYTES_MAX,
    ROWS_MAX,
    Picture,
    environment,
    manifest_groups,
    picture_of,
    reason_text,
)
from eyechart.report.reading import LeftOut, Rate
from eyechart.report.records import Record, Row, read_object, validated

ALIKE_MAX = 12
"""Near-duplicates whose pictures are in the page."""

NAME_SHOWN = 72
"""Characters of an image's name that a card shows, counted from its end."""

_MEND = (
    "Give the command that made the folder again: it goes on where it stopped. "
    "A run folder with pairs is made by: eyechart mine SOURCE --out FOLDER"
)


class Encoder(Record):
    """One of the two encoders, and the cosine that pairs had to lie beyond, as a number and as it was wished for."""

    id: str
    pooling: str
    threshold: float
    wish: str
    centred: bool


class Certificate(Record):
    """What was compared, and how many pairs each stage left."""

    images: int
    pairs: int
    compared: int
    columns: int
    slack: float
    bounded: int
    semantic: int
    found: int
    kept: int


class Limits(Record):
    """How many of the pairs found are kept; None where there is no limit."""

    per_image: int | None
    per_burst: int | None
    budget: int | None


class Alike(Record):
    """What counts as nearly the same picture, and how many such pairs there are."""

    found: int
    kept: int
    min_reference: float
    most_bits: int


Edges = Annotated[tuple[float, ...], Field(min_length=2)]


class Joint(Record):
    """How many pairs lie in each cell of semantic (rows) by reference (columns) cosine."""

    semantic_edges: Edges
    reference_edges: Edges
    counts: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...]
    sampled: int
    exhaustive: bool

    @model_validator(mode="after")
    def _fits(self) -> "Joint":
        rows, columns = len(self.semantic_edges) - 1, len(self.reference_edges) - 1
        if len(self.counts) != rows or any(len(row) != columns for row in self.counts):
            raise ValueError(f"counts are not {rows} rows of {columns}, as the edges say")
        for edges in (self.semantic_edges, self.reference_edges):
            if list(edges) != sorted(set(edges)):
                raise ValueError("edges do not rise")
        return self


class Known(Record):
    """How many of the pairs that were made to differ in one pattern are listed."""

    pattern: str | None
    recall: Rate


class Truth(Record):
    """What is known of the pairs that should have been found."""

    recall: Rate
    precision: Rate | None
    """None where nothing is listed."""

    patterns: tuple[Known, ...] = ()
    about: str


class Mining(Record):
    """`results.json` of a mining run."""

    source: str
    images: int
    unique: int
    quarantined: int
    semantic: Encoder
    reference: Encoder
    certificate: Certificate
    limits: Limits
    alike: Alike
    set_apart: int
    listed: int
    joint: Joint
    truth: Truth | None
    notes: tuple[str, ...]


class Found(Record):
    """One row of `pairs.parquet` or `alike.parquet`."""

    rank: int
    image_a: str
    image_b: str
    sha256_a: str
    sha256_b: str
    semantic: float
    reference: float
    label_a: str | None
    label_b: str | None
    hash_distance: int | None
    pattern: str | None

    @property
    def labels(self) -> Literal["same", "different"] | None:
        """How the two labels stand to each other, where both are known."""
        if self.label_a is None or self.label_b is None:
            return None
        return "same" if self.label_a == self.label_b else "different"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A pair that is drawn: both its pictures are there."""

    anchor: str
    pair: Found
    pictures: tuple[Picture, Picture]


def write_gallery(folder: Path) -> Path:
    """Write `gallery.html` into a run folder of `eyechart mine` and return where it stands.

    The same folder gives the same bytes. The page needs no network, and no script: its one, which sorts and filters, is
    named by its hash, so that no other can run.

    Raises:
        UserError: a file of the run is missing, damaged or of another kind; the text says which and what to do.
    """
    results = validated(
        Mining,
        read_object(folder / "results.json", mend=_MEND),
        where=str(folder / "results.json"),
        mend=_MEND,
    )
    page = environment().get_template("gallery.html.j2").render(_context(folder, results))
    write_bytes(folder / "gallery.html", words.printable(page).encode("utf-8"))
    return folder / "gallery.html"


def _context(folder: Path, results: Mining) -> dict[str, Any]:
    pairs = _head(folder / "pairs.parquet", expected=results.listed)
    alike = _head(folder / "alike.parquet", expected=results.alike.kept)
    cards = _cards(folder, pairs, kind="pair", most=CARDS_MAX, room=PICTURE_BYTES_MAX)
    room = PICTURE_BYTES_MAX - sum(picture.size for card in cards for picture in card.pictures)
    quarantine = _quarantine(folder / "quarantine.parquet", expected=results.quarantined)
    config = folder / "config.yaml"
    return {
        "results": results,
        "certificate": results.certificate,
        "pairs": pairs,
        "cards_shown": cards[:CARDS_OPEN],
        "cards_folded": cards[CARDS_OPEN:],
        "anchors": {card.pair.rank: card.anchor for card in cards},
        "labelled": any(pair.label_a or pair.label_b for pair in pairs),
        "related": any(card.pair.labels for card in cards),
        "patterns": sorted({pair.pattern for pair in pairs if pair.pattern}),
        "alike": alike,
        "alike_cards": _cards(folder, alike, kind="alike", most=ALIKE_MAX, room=room),
        "heat": heat_map(
            results.joint.counts,
            x_edges=results.joint.semantic_edges,
            y_edges=results.joint.reference_edges,
            corner=(results.semantic.threshold, results.reference.threshold),
        ),
        "reach": reach(results.joint),
        "reasons": Counter(reason_text(row) for row in quarantine).most_common(),
        "quarantine": [(row, reason_text(row)) for row in quarantine[:ROWS_MAX]],
        "manifest": manifest_groups(read_object(folder / "manifest.json", mend=_MEND)),
        "config": config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None,
        "id_shown": words.ID_SHOWN,
        "number": lambda n: f"{n:,}",
        "tail": lambda name: name if len(name) <= NAME_SHOWN else "…" + name[-NAME_SHOWN:],
        "fingerprint": _fingerprint,
    }


def reach(joint: Joint) -> tuple[float, float] | None:
    """No pair counted lies above the first number in semantic or below the second in reference cosine.

    None where there is no pair, or where some lie outside the edges.
    """
    rows = [place for place, row in enumerate(joint.counts) if any(row)]
    columns = [place for place, column in enumerate(zip(*joint.counts, strict=True)) if any(column)]
    if not rows or sum(map(sum, joint.counts)) != joint.sampled:
        return None
    return joint.semantic_edges[rows[-1] + 1], joint.reference_edges[columns[0]]


def _cards(folder: Path, pairs: Iterable[Found], *, kind: str, most: int, room: int) -> list[Card]:
    """The first pairs that have both pictures, as far as bytes allow."""
    cards: list[Card] = []
    for pair in pairs:
        pictures = (
            picture_of(folder, pair.sha256_a, pair.image_a),
            picture_of(folder, pair.sha256_b, pair.image_b),
        )
        room -= sum(picture.size for picture in pictures)
        if len(cards) == most or room < 0:
            break
        if all(picture.source for picture in pictures):
            cards.append(Card(anchor=f"{kind}-{pair.rank}", pair=pair, pictures=pictures))
    return cards


def _head(path: Path, *, expected: int) -> list[Found]:
    """The first rows of a table of pairs, which may be longer than memory; an empty one may be absent."""
    if not expected and not path.is_file():
        return []
    try:
        with pq.ParquetFile(path) as table:
            rows = next(table.iter_batches(batch_size=ROWS_MAX), None)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as a Parquet table: {error}. {_MEND}") from None
    return _rows(path, Found, [] if rows is None else rows.to_pylist())


def _quarantine(path: Path, *, expected: int) -> list[LeftOut]:
    return _rows(path, LeftOut, read_table(path)) if expected or path.is_file() else []


def _rows(path: Path, kind: type[Row], rows: Iterable[dict[str, Any]]) -> list[Row]:
    return [
        validated(kind, row, where=f"{path}, row {number}", mend=_MEND)
        for number, row in enumerate(rows, start=1)
    ]


def _fingerprint(script: str) -> str:
    """The source of a content security policy that allows exactly this script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
