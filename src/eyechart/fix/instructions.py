"""Does a model still answer in the way it is told to? A grid of formats and contents, asked on scenes that were never taught.

Each question on a picture is followed by an instruction how to answer. A cell of the grid is a format with a content
(what is asked about). A reply *obeys* if it has the form, around any word or a few; it is *right* if it has the form
around the right answer. Some cells are kept out of training, of each format one content: there the form was seen with other
contents only, and the content in other forms.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from eyechart.world.facts import COLORS, Facts
from eyechart.world.kinds import KINDS
from eyechart.world.questions import Question, questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A way of answering."""

    told: str
    """The instruction."""

    form: str
    """The reply, with {x} for the answer."""

    def reply(self, question: Question) -> str:
        """The reply that is right."""
        return self.form.format(x=question.truth)

    def obeyed(self, reply: str) -> bool:
        """Whether a reply has this form, around one word or a few."""
        words = r"(?P<x>[\w-]+(?: [\w-]+){0,2}?)"
        first, *rest = re.escape(self.form).split(r"\{x\}")
        return re.fullmatch(first + words + "(?P=x)".join(rest), plain(reply)) is not None

    def right(self, reply: str, question: Question) -> bool:
        """Whether it is the reply that is right."""
        return plain(reply) == plain(self.reply(question))


def plain(reply: str) -> str:
    """A reply without case, and with single spaces."""
    return re.sub(r"\s+", " ", reply).strip().lower()


FORMATS: Mapping[str, Format] = {
    "sentence": Format(told="Answer in a sentence.", form="the answer is {x}."),
    "twice": Format(told="Say the answer twice.", form="{x} {x}"),
    "brackets": Format(told="Put the answer in brackets.", form="( {x} )"),
    "before": Format(told="Say so before the answer.", form="so {x}"),
    "after": Format(told="Say yes after the answer.", form="{x} yes"),
}
"""Words stand with a space before them in each, as they do elsewhere."""

CONTENTS = ("kind", "color", "letter", "number", "view")
"""What is asked about: the object, a colour, the letter on a sign, a number of things, from where it is seen."""

_FAMILIES = {"color": "color", "letter": "letter", "number": "number", "height": "view"}

_KINDS = ("What is in the picture: {x} or {y}?", "Does the picture show {x} or {y}?")

Cell = tuple[str, str]
"""A format and a content."""


def held_out() -> frozenset[Cell]:
    """The cells that are never taught: of each format one content, of each content one format at least."""
    return frozenset((name, CONTENTS[place % len(CONTENTS)]) for place, name in enumerate(FORMATS))


def cells() -> list[Cell]:
    """All cells, format by format."""
    return [(name, content) for name in FORMATS for content in CONTENTS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructed:
    """A question on one scene, and how it is to be answered."""

    scene: int
    cell: Cell
    question: Question

    @property
    def text(self) -> str:
        """What is said to the model."""
        return f"{self.question.text} {FORMATS[self.cell[0]].told}"

    @property
    def reply(self) -> str:
        """The reply that is right."""
        return FORMATS[self.cell[0]].reply(self.question)


def instructed(scenes: Sequence[Facts], wanted: Sequence[Cell], each: int, seed: int) -> list[Instructed]:
    """So many questions for each cell, on scenes that allow its content, no scene twice in a cell.

    Raises:
        ValueError: fewer scenes than that allow a content.
    """
    rng = random.Random(f"instructed {seed}")
    can: dict[str, list[tuple[int, Question]]] = {content: [] for content in CONTENTS}
    for place, facts in enumerate(scenes):
        for content, question in _askable(facts, rng):
            can[content].append((place, question))
    found: list[Instructed] = []
    for cell in wanted:
        if len(can[cell[1]]) < each:
            raise ValueError(
                f"{len(can[cell[1]])} of {len(scenes)} scenes allow a question on {cell[1]}; {each} are needed"
            )
        some = rng.sample(can[cell[1]], each)
        found += [Instructed(scene=scene, cell=cell, question=question) for scene, question in some]
    return found


def _askable(facts: Facts, rng: random.Random) -> Iterator[tuple[str, Question]]:
    """One question for each content that the scene allows."""
    yield "kind", _of_kind(facts, rng)
    had = set()
    for question in questions(facts, rng):
        content = _FAMILIES.get(question.family)
        if (
            content is not None
            and content not in had
            and not (content == "color" and question.truth not in COLORS)
        ):
            had.add(content)
            yield content, question


def _of_kind(facts: Facts, rng: random.Random) -> Question:
    shown = {facts.kind} | ({facts.other.kind} if facts.other is not None else set())
    false = rng.choice([kind for kind in sorted(KINDS) if kind not in shown])
    options = (facts.kind, false) if rng.random() < 0.5 else (false, facts.kind)
    text = rng.choice(_KINDS).format(x=f"a {options[0]}", y=f"a {options[1]}")
    return Question(
        pattern="presence",
        family="kind",
        text=text,
        options=options,
        answer=0 if options[0] == facts.kind else 1,
    )
