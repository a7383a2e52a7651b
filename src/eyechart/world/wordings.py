"""How questions are put: the families of questions of each pattern, with several texts for each."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How a family of questions is put: its pattern, both answers where there are only two, and several texts.

    In a text, {k} is the object, {p} its part, {o} the object beside, {x} and {y} the options, each also with its
    article ({ak}); {ks} is the plural, {axk} `an open door`.
    """

    pattern: str
    texts: tuple[str, ...]
    answers: tuple[str, str] | None = None
    group: str = ""
    """Families that ask the same thing in other words; of a group one is asked."""


_WHOLE = (
    "Is the {k} {x} or {y}?",
    "Which is it: {axk} or {ayk}?",
    "Does the picture show {axk} or {ayk}?",
    "Is this {axk} or {ayk}?",
)
_PART = (
    "Is the {p} of the {k} {x} or {y}?",
    "Does the {k} have {axp} or {ayp}?",
    "Do you see a {k} with {axp} or with {ayp}?",
)

FAMILIES: Mapping[str, Wording] = {
    "facing": Wording(
        pattern="orientation",
        answers=("left", "right"),
        texts=(
            "Which way is the {k} facing: {x} or {y}?",
            "Is the {k} facing {x} or {y}?",
            "Is the {k} turned to the {x} or to the {y}?",
            "Is the front of the {k} on the {x} or on the {y}?",
        ),
    ),
    "part": Wording(
        pattern="presence",
        answers=("yes", "no"),
        group="part",
        texts=("Does the {k} have {ap}?", "Is there {ap} on the {k}?", "Can you see {ap} on the {k}?"),
    ),
    "with": Wording(
        pattern="presence",
        answers=("with", "without"),
        group="part",
        texts=("Is the {k} with or without {ap}?", "Is this {ak} with or without {ap}?"),
    ),
    "object": Wording(
        pattern="presence",
        answers=("yes", "no"),
        texts=("Is there {ak} in the picture?", "Can you see {ak}?", "Does the picture show {ak}?"),
    ),
    "state": Wording(pattern="state", texts=_WHOLE),
    "part state": Wording(pattern="state", texts=_PART),
    "number": Wording(
        pattern="quantity",
        texts=(
            "How many {ks} are there?",
            "How many {ks} can you see?",
            "How many {ks} does the picture show?",
        ),
    ),
    "beside": Wording(
        pattern="position",
        answers=("left", "right"),
        group="place",
        texts=(
            "Is the {k} to the {x} or to the {y} of the {o}?",
            "On which side of the {o} is the {k}: {x} or {y}?",
            "Where is the {k}: to the {x} or to the {y} of the {o}?",
        ),
    ),
    "depth": Wording(
        pattern="position",
        answers=("front", "behind"),
        group="place",
        texts=(
            "Is the {k} in front of the {o} or behind it?",
            "Is the {k} behind the {o} or in front of it?",
            "Where is the {k}: in front of the {o} or behind it?",
        ),
    ),
    "near": Wording(
        pattern="position",
        answers=("closer", "farther"),
        group="place",
        texts=(
            "Is the {k} closer to the camera than the {o} or farther away?",
            "Is the {k} farther from the camera than the {o} or closer to it?",
        ),
    ),
    "color": Wording(
        pattern="color",
        texts=("What color is the {k}?", "Which color is the {k}?", "What is the color of the {k}?"),
    ),
    "colors": Wording(pattern="color", texts=("What color are the {ks}?", "Which color are the {ks}?")),
    "part color": Wording(
        pattern="color",
        texts=("What color is the {p} of the {k}?", "What is the color of the {p} of the {k}?"),
    ),
    "shape": Wording(pattern="structure", texts=_WHOLE),
    "part shape": Wording(pattern="structure", texts=_PART),
    "letter": Wording(
        pattern="text",
        texts=(
            "Which letter is on the sign?",
            "What letter can you see on the sign?",
            "What is the letter on the sign?",
        ),
    ),
    "height": Wording(
        pattern="viewpoint",
        answers=("above", "side"),
        group="height",
        texts=(
            "Is the {k} seen from above or from the side?",
            "Do we see the {k} from the side or from above?",
            "Is the camera above the {k} or at its side?",
        ),
    ),
    "camera": Wording(
        pattern="viewpoint",
        answers=("high", "low"),
        group="height",
        texts=("Is the camera {x} or {y}?", "Is the {k} seen from a {x} or from a {y} camera?"),
    ),
    "end": Wording(
        pattern="viewpoint",
        answers=("front", "behind"),
        texts=(
            "Is the {k} seen from the front or from behind?",
            "Do we see the {k} from behind or from the front?",
        ),
    ),
}
"""Every family of questions, by name."""
