"""What the VLMs of the study of mixtures are asked, on test scenes alone: pairs, instructions, presence of objects."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from eyechart.core.images import open_image
from eyechart.core.records import Prompt
from eyechart.fix.instructions import FORMATS, Instructed, cells, instructed, plain
from eyechart.fix.presence import Presence, presence
from eyechart.models.encoders import load_encoder
from eyechart.models.vlms import VLM
from eyechart.score import load_benchmark
from eyechart.world.facts import Facts
from eyechart.world.kinds import KINDS
from eyechart.world.sets import SceneSet, render_set
from eyechart.world.sets_pairs import render_pairs
from eyechart.world.sets_plan import PairPlan, SetPlan
from eyechart.world.words import a

PAIRS, FOLLOWING, PRESENCE = "pairs", "following", "presence"
"""The three tasks."""

Row = dict[str, Any]
"""One answer: task, group, item, cluster, and what was right of it; see `mixture_raw.SCHEMA`."""

LONGEST_REPLY = 14
"""New tokens; the longest form takes nine."""

Asked = TypeVar("Asked", Instructed, Presence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """The test scenes, rendered where they are not there yet."""

    folder: Path
    split: str = "test"
    pairs: int = 60
    """Of each pattern."""

    each: int = 20
    """Instructed questions of each cell."""

    scenes: int = 400
    """That instructions are drawn on; the first half of them is asked about objects, too."""

    seed: int = 11
    """Of the scenes; those of the zoo's own cards have others."""

    def benchmark(self) -> Path:
        """The pairs."""
        plan = PairPlan(split=self.split, pairs=self.pairs, seed=self.seed)
        return render_pairs(self.folder / "pairs", plan)

    def singles(self) -> SceneSet:
        """The single scenes."""
        plan = SetPlan(split=self.split, scenes=self.scenes, seed=self.seed)
        return render_set(self.folder / "scenes", plan)


class Questions:
    """All that is asked, made once for all VLMs."""

    def __init__(self, exam: Exam) -> None:
        self.exam, self.benchmark = exam, load_benchmark(exam.benchmark())
        self._known = exam.singles()
        self.facts: list[Facts] = [scene.facts for scene in self._known.scenes]

    @cached_property
    def following(self) -> list[Instructed]:
        """Instructed questions of all cells."""
        return instructed(self.facts, cells(), self.exam.each, self.exam.seed)

    @cached_property
    def presence(self) -> list[Presence]:
        """Questions on objects; the CLIP of the baseline says which absent ones are likeliest."""
        half = len(self.facts) // 2
        encoder, names = load_encoder("zoo:clip-biased"), sorted(KINDS)
        words = encoder.embed_texts([f"a photo of {a(name)}" for name in names]).numpy()
        seen = encoder.embed([self.picture(place) for place in range(half)], pooling="projected").numpy()
        like = seen @ (words / np.linalg.norm(words, axis=1, keepdims=True)).T
        return presence(
            self.facts[:half], [dict(zip(names, row.tolist(), strict=True)) for row in like], self.exam.seed
        )

    def picture(self, scene: int) -> Image.Image:
        """The picture of one of the single scenes."""
        return Image.fromarray(np.asarray(self._known.images[scene]))


def read(vlm: VLM, questions: Questions, *, batch: int = 64) -> list[Row]:
    """Put all questions to a VLM."""
    return [
        *_pairs(vlm, questions, batch),
        *_following(vlm, questions, batch),
        *_presence(vlm, questions, batch),
    ]


def _pairs(vlm: VLM, questions: Questions, batch: int) -> Iterator[Row]:
    """Pairs by the bare question, as it was taught; a pair is right if the right option alone is the reply to both."""
    items = questions.benchmark.items
    replies: list[str] = []
    for start in range(0, len(items), batch):
        prompts = [
            Prompt(text=item.question, images=(open_image(item.image).image,))
            for item in items[start : start + batch]
        ]
        replies += vlm.generate(prompts, max_new_tokens=LONGEST_REPLY)
    right: dict[str, list[bool]] = {}
    named: dict[str, list[bool]] = {}
    for item, reply in zip(items, replies, strict=True):
        said = plain(reply).rstrip(".")
        right.setdefault(item.pair_id, []).append(said == item.options[item.answer].lower())
        named.setdefault(item.pair_id, []).append(said in [option.lower() for option in item.options])
    patterns = {item.pair_id: item.pattern for item in items}
    for pair, both in right.items():
        yield {
            "task": PAIRS,
            "group": patterns[pair],
            "item": pair,
            "cluster": pair,
            "right": all(both),
            "form": all(named[pair]),
            "items": sum(both),
        }


def _following(vlm: VLM, questions: Questions, batch: int) -> Iterator[Row]:
    for place, (one, reply) in enumerate(
        _asked(vlm, questions.following, questions, batch, lambda one: one.text)
    ):
        form = FORMATS[one.cell[0]]
        yield {
            "task": FOLLOWING,
            "group": "/".join(one.cell),
            "item": f"{place}",
            "cluster": f"scene {one.scene}",
            "right": form.right(reply, one.question),
            "form": form.obeyed(reply),
        }


def _presence(vlm: VLM, questions: Questions, batch: int) -> Iterator[Row]:
    asked = _asked(vlm, questions.presence, questions, batch, lambda one: one.question.text)
    for place, (one, reply) in enumerate(asked):
        said = plain(reply).rstrip(".")
        yield {
            "task": PRESENCE,
            "group": f"{one.category}/{one.question.truth}",
            "item": f"{place}",
            "cluster": f"scene {one.scene}",
            "right": said == one.question.truth,
            "form": said in ("yes", "no"),
        }


def _asked(
    vlm: VLM,
    asked: Sequence[Asked],
    questions: Questions,
    batch: int,
    text: Callable[[Asked], str],
) -> Iterator[tuple[Asked, str]]:
    """Each question with the reply to it."""
    for start in range(0, len(asked), batch):
        some = asked[start : start + batch]
        prompts = [Prompt(text=text(one), images=(questions.picture(one.scene),)) for one in some]
        yield from zip(some, vlm.generate(prompts, max_new_tokens=LONGEST_REPLY), strict=True)
