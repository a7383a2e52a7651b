"""Lays the run folder of `eyechart compare` out as one HTML page: differences, sensitivity, and the pairs that changed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyechart.core.files import write_bytes
from eyechart.report import words
from eyechart.report.charts import Tick
from eyechart.report.comparing import (
    MEND,
    Change,
    ChangedItem,
    Compared,
    ComparisonRecord,
    EncoderAgainst,
    Test,
    read_changes,
    read_comparison,
)
from eyechart.report.page import (
    CARDS_OPEN,
    PICTURE_BYTES_MAX,
    QUESTION_SHOWN,
    ROWS_MAX,
    Picture,
    environment,
    manifest_groups,
    picture_of,
)
from eyechart.report.records import read_object

CARDS_MAX = 100
"""Changed units whose pictures and replies are in the page."""

_WORDS = {"pairs": "pair", "groups": "group", "items": "item", "matches": "match"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a chart of differences; places in per cent of the plot."""

    label: str
    test: Test
    at: float
    low: float
    high: float
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """Differences with their intervals, all units first, on one axis around 0."""

    lines: tuple[Line, ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One pattern in the chart of an encoder against a model; in per cent, y from the top."""

    label: str
    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    below: bool
    """Whether its name stands below: every second one from the left, so that neighbours do not overlap."""

    left: bool
    """Whether its name stands to the left, as at the right edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardItem:
    """One item on a card, with its picture."""

    item: ChangedItem
    pictures: tuple[Picture, ...]
    question: words.Clipped
    replies: tuple[words.Clipped, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeCard:
    """A unit that the runs do not have equal."""

    change: Change
    items: tuple[CardItem, ...]

    @property
    def one_question(self) -> bool:
        """Whether all its items ask the same."""
        return len({(one.item.question, one.item.options) for one in self.items}) == 1


def write_comparison(folder: Path) -> Path:
    """Write `compare.html` into a run folder of `eyechart compare` and return where it stands.

    The same folder gives the same bytes. The page needs no network and runs no script.

    Raises:
        UserError: a file of the run is missing, damaged or of another kind; the text says which and what to do.
    """
    page = environment().get_template("compare.html.j2").render(_context(folder))
    write_bytes(folder / "compare.html", words.printable(page).encode("utf-8"))
    return folder / "compare.html"


def _context(folder: Path) -> dict[str, Any]:
    record = read_comparison(folder)
    cards = _cards(folder, read_changes(folder, CARDS_MAX))
    return {
        "record": record,
        "title": _title(record),
        "forests": [_forest(one) for one in record.comparisons],
        "spots": [_spots(one) for one in record.encoder_against_model],
        "cards_shown": cards[:CARDS_OPEN],
        "cards_folded": cards[CARDS_OPEN:],
        "disagreements": record.disagreements[:ROWS_MAX],
        "unmatched": record.unmatched[:ROWS_MAX],
        "manifest": manifest_groups(read_object(folder / "manifest.json", mend=MEND)),
        "id_shown": words.ID_SHOWN,
        "number": lambda n: f"{n:,}",
        "points": points,
        "singular": lambda unit: _WORDS.get(unit, unit),
        "way": _way,
    }


def _title(record: ComparisonRecord) -> str:
    names = [run.name for run in record.runs]
    return words.listed(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} other runs"


def points(test: Test) -> str:
    """A difference in percentage points, with its interval: `+20.0 [8.1, 31.0]`."""
    values = (f"{100 * value:+.1f}" for value in (test.difference, test.low, test.high))
    difference, low, high = (value.replace("-", "\u2212") for value in values)
    return f"{difference} [{low}, {high}]"


def _way(way: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value}" for name, value in way.items() if value not in (None, "original", "image")
    )


def _forest(one: Compared) -> Forest:
    rows = [(f"all {one.unit}", one.overall), *((row.pattern, row.against) for row in one.patterns)]
    reach = max(max(abs(test.low), abs(test.high)) for _, test in rows)
    step = next((step for step in (0.02, 0.05, 0.1, 0.2) if reach <= 5 * step), 0.25)
    steps = max(1, math.ceil(reach / step - 1e-9))
    limit = steps * step

    def at(value: float) -> float:
        return 50 + 50 * value / limit

    return Forest(
        lines=tuple(
            Line(label=label, test=test, at=at(test.difference), low=at(test.low), high=at(test.high), whole=not place)
            for place, (label, test) in enumerate(rows)
        ),
        ticks=tuple(
            Tick(at=at(k * step), label=f"{100 * k * step:+.0f}".replace("-", "\u2212") if k else "0")
            for k in range(-steps, steps + 1)
        ),
    )  # fmt: skip


def _spots(one: EncoderAgainst) -> list[Spot]:
    told = sorted(one.correlated.points, key=lambda point: (point.encoder.value, point.model.value))
    return [
        Spot(
            label=point.pattern,
            x=100 * point.encoder.value,
            y=100 - 100 * point.model.value,
            x_low=100 * point.encoder.low,
            x_high=100 * point.encoder.high,
            y_low=100 - 100 * point.model.low,
            y_high=100 - 100 * point.model.high,
            below=place % 2 == 1,
            left=point.encoder.value > 0.8,
        )
        for place, point in enumerate(told)
    ]


def _cards(folder: Path, changes: Sequence[Change]) -> list[ChangeCard]:
    """The changed units as far as the bytes of their pictures allow."""
    cards: list[ChangeCard] = []
    room = PICTURE_BYTES_MAX
    for change in changes:
        items = tuple(_card_item(folder, item) for item in change.items)
        room -= sum(picture.size for item in items for picture in item.pictures)
        if room < 0:
            break
        cards.append(ChangeCard(change=change, items=items))
    return cards


def _card_item(folder: Path, item: ChangedItem) -> CardItem:
    paths = item.images or ("",) * len(item.images_sha256)
    return CardItem(
        item=item,
        pictures=tuple(
            picture_of(folder, sha256, path) for sha256, path in zip(item.images_sha256, paths, strict=False)
        ),
        question=words.clipped(item.question, shown=QUESTION_SHOWN),
        replies=tuple(words.clipped(answer.reply) for answer in item.answers),
    )
