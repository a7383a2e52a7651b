"""The ways in which the same items are put: template, labels, order of the options, and what is shown beside them.

A variant that shows something else than the item's own picture is a control. Nothing is opened here before a prompt is
asked for, so a benchmark of any size takes the memory of its texts.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from eyechart.core.errors import UserError, unknown
from eyechart.core.images import open_image
from eyechart.core.records import Benchmark, Graded, Item, Outcome, Prompt
from eyechart.score.asking import LABEL_STYLES, TEMPLATES, build_prompt
from eyechart.score.grading import grade_reply, grade_scores
from eyechart.train.prompts import told as told_beside

Order = Literal["original", "swapped"]
Show = Literal["image", "none", "blank", "other", "told"]

SHOWN: Mapping[Show, str] = {
    "image": "the item's own picture",
    "none": "no picture at all",
    "blank": "a grey picture of the same size",
    "other": "the picture of the pair's other item; an answer that follows it counts as wrong here",
    "told": "no picture, and the scene in words before the question (sets of the world)",
}

GREY = (127, 127, 127)
"""The colour of a blank picture."""

FACTS = "facts.jsonl"
"""Where a set of the world tells its scenes in words, beside its questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way of putting all items of a benchmark."""

    template: str = "letter"
    labels: str | None = None
    """A name in `LABEL_STYLES`; the template's own unless given."""

    order: Order = "original"
    """`swapped` shows the options from the last to the first."""

    show: Show = "image"
    side: int | None = None
    """The longer side, in pixels, that pictures are brought to before the model's own processor gets them."""

    def __post_init__(self) -> None:
        if self.template not in TEMPLATES:
            raise unknown("prompt template", self.template, TEMPLATES)
        if self.labels is not None and self.labels not in LABEL_STYLES:
            raise unknown("label style", self.labels, LABEL_STYLES)
        if self.side is not None and self.side < 8:
            raise UserError(f"pictures cannot be shown at a side of {self.side} pixels; give 8 or more")

    @property
    def is_control(self) -> bool:
        """Whether something else is shown than the item's own picture."""
        return self.show != "image"

    def name(self, beside: "Variant | None" = None) -> str:
        """What tells it apart from another variant, in words joined by hyphens; `base` where nothing does.

        >>> Variant(template="mmvp", order="swapped").name()
        'mmvp-swapped'
        """
        other = beside or Variant()
        told = [
            ("template", self.template),
            ("labels", f"labels={self.labels}"),
            ("order", self.order),
            ("show", self.show if self.is_control else "image"),
            ("side", f"side={self.side}"),
        ]
        return (
            "-".join(word for field, word in told if getattr(self, field) != getattr(other, field)) or "base"
        )


CHANGES: Mapping[str, Mapping[str, Any]] = {
    "swapped": {"order": "swapped"},
    "letter": {"template": "letter", "labels": None},
    "mmvp": {"template": "mmvp", "labels": None},
    "numbers": {"template": "number", "labels": None},
    "mmvp-numbers": {"template": "mmvp", "labels": "numbers"},
    **{show: {"show": show} for show in SHOWN if show != "image"},
}
"""What `--also` changes in the variant that is asked first; `side=N` is understood beside these."""


def changed(base: Variant, change: str) -> Variant:
    """The base variant with one thing changed.

    Raises:
        UserError: there is no such change, or it changes nothing.
    """
    if change.startswith("side=") and change[5:].isdecimal():
        made = replace(base, side=int(change[5:]))
    elif change in CHANGES:
        made = replace(base, **CHANGES[change])
    else:
        raise unknown("change of the way items are put", change, [*CHANGES, "side=N"])
    if made == base:
        raise UserError(f"{change!r} changes nothing: items are put so already")
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An item as it is put: its text, its labels, and the order in which its options are shown."""

    item: Item
    text: str
    labels: tuple[str, ...]
    order: tuple[int, ...]
    """For each option shown, its place in the item's own order."""

    images: tuple[Path, ...]
    blank: bool = False
    side: int | None = None

    @property
    def target(self) -> str:
        """The label of the right option."""
        return self.labels[self.order.index(self.item.answer)]

    @property
    def shown(self) -> tuple[str, ...]:
        """The options' texts in the order shown."""
        return tuple(self.item.options[place] for place in self.order)

    def prompt(self) -> Prompt:
        """What the model gets, its pictures opened now."""
        return Prompt(text=self.text, images=tuple(self._picture(path) for path in self.images))

    def graded(self, reply: str) -> Graded:
        """The reply, read; `choice` is a place in the item's own order."""
        return self._own(grade_reply(self._as_shown(), reply, self.labels))

    def graded_scores(self, scores: Sequence[float]) -> Graded:
        """The options' scores in the order shown, graded; the record holds them in the item's own order."""
        graded = grade_scores(self._as_shown(), scores, self.labels)
        own = [0.0] * len(scores)
        for score, place in zip(scores, self.order, strict=True):
            own[place] = float(score)
        return replace(self._own(graded), option_scores=tuple(own))

    def _as_shown(self) -> Item:
        return replace(self.item, options=self.shown, answer=self.order.index(self.item.answer))

    def _own(self, graded: Graded) -> Graded:
        return replace(graded, choice=None if graded.choice is None else self.order[graded.choice])

    def _picture(self, path: Path) -> Image.Image:
        image = open_image(path).image
        if self.side is not None:
            factor = self.side / max(image.size)
            width, height = (max(1, round(length * factor)) for length in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        return Image.new("RGB", image.size, GREY) if self.blank else image


def put(benchmark: Benchmark, variant: Variant) -> list[Asked]:
    """All items of a benchmark, put in one way, in its order.

    Raises:
        UserError: the control needs what the benchmark has not: pairs, or scenes told in words.
    """
    others = _others(benchmark) if variant.show == "other" else {}
    scenes = _told(benchmark) if variant.show == "told" else {}
    return [_put(item, variant, others, scenes) for item in benchmark.items]


def _put(item: Item, variant: Variant, others: Mapping[str, Item], scenes: Mapping[str, str]) -> Asked:
    places = range(len(item.options))
    order = tuple(reversed(places)) if variant.order == "swapped" else tuple(places)
    shown = replace(
        item, options=tuple(item.options[place] for place in order), answer=order.index(item.answer)
    )
    made = build_prompt(shown, variant.template, labels=variant.labels)
    images = {"none": (), "told": (), "other": others[item.id].images if others else ()}.get(
        variant.show, item.images
    )
    return Asked(
        item=item,
        text=told_beside(scenes[item.id], made.text) if variant.show == "told" else made.text,
        labels=made.labels,
        order=order,
        images=images,
        blank=variant.show == "blank",
        side=variant.side,
    )


def _others(benchmark: Benchmark) -> dict[str, Item]:
    """For each item of a set in pairs, the other item of its pair."""
    pairs: dict[str, list[Item]] = {}
    for item in benchmark.items:
        pairs.setdefault(item.pair_id, []).append(item)
    if "" in pairs or any(len(pair) != 2 for pair in pairs.values()):
        raise UserError(
            f"{benchmark.name} is not in pairs, so there is no other picture to show ('other'); leave this control out"
        )
    return {one.id: two for pair in pairs.values() for one, two in (pair, pair[::-1])}


def _told(benchmark: Benchmark) -> dict[str, str]:
    """Each item's scene in words, for sets of the world."""
    path = benchmark.items[0].image.parent.parent / FACTS
    if not path.is_file():
        raise UserError(
            f"{benchmark.name} has no {FACTS}, so its scenes cannot be told in words ('told'); leave this control out,"
            " or ask on 'world'"
        )
    rows: Iterable[dict[str, Any]] = map(json.loads, path.read_text("utf8").splitlines())
    scenes = {row["id"]: row["told"] for row in rows}
    missing = [item.id for item in benchmark.items if item.id not in scenes]
    if missing:
        raise UserError(f"{path} tells nothing of items {', '.join(missing[:5])} ({len(missing)})")
    return scenes


def sample_row(asked: Asked, graded: Graded) -> dict[str, Any]:
    """One line of `samples_<task>.jsonl`, in the shape in which lm-eval and lmms-eval log samples.

    `choice` and `answer` are places in the benchmark's own order of options, whatever order was shown.
    """
    item = asked.item
    label = "" if graded.choice is None else asked.labels[asked.order.index(graded.choice)]
    more = {"more_sha256": list(item.more_sha256)} if item.more_sha256 else {}
    return {
        "doc_id": item.id,
        "doc": {
            "question": item.question,
            "options": list(item.options),
            "pattern": item.pattern,
            "pair_id": item.pair_id,
            "image": str(item.image),
            "image_sha256": item.image_sha256,
            **more,
            **({"facets": dict(item.facets)} if item.facets else {}),
        },
        "target": asked.target,
        "labels": list(asked.labels),
        "order": list(asked.order),
        "prompt": asked.text,
        "resps": [[graded.reply]],
        "filtered_resps": [label],
        "answer": item.answer,
        "choice": graded.choice,
        "outcome": str(graded.outcome),
        "right": int(graded.outcome is Outcome.RIGHT),
        "option_scores": list(graded.option_scores) if graded.option_scores is not None else None,
    }


def graded_of(row: Mapping[str, Any]) -> Graded:
    """A line of the log as the record it was made from."""
    scores = row["option_scores"]
    return Graded(
        item_id=row["doc_id"],
        reply=row["resps"][0][0],
        choice=row["choice"],
        outcome=Outcome(row["outcome"]),
        option_scores=tuple(scores) if scores is not None else None,
    )
