"""A handful of flat drawings in pairs, for an exam that was given no benchmark; they measure nothing.

Each pair is one question on two drawings that differ in one thing, over the nine patterns, with opposite answers.
They show what a report looks like; a score on them says nothing about how well a model sees.
"""

import csv
import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from eyechart.core.errors import UserError
from eyechart.core.files import write_bytes
from eyechart.world import drawings
from eyechart.world.drawings import Canvas, Look, draw_look

TABLE = "questions.csv"

SIZES = (96, 224)
"""The smallest and the largest side of a drawing, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Motif:
    """One question, its two answers, and how each of them looks."""

    pattern: str
    question: str
    options: tuple[str, str]
    draw: Callable[[Canvas, Look, int], None]
    """Draws what makes option 0 or 1 right; all else follows from the look."""


MOTIFS: Mapping[str, tuple[Motif, ...]] = {
    "orientation": (
        Motif(
            pattern="orientation",
            question="Which way does the arrow point?",
            options=("Left", "Right"),
            draw=drawings.arrow,
        ),
        Motif(
            pattern="orientation",
            question="Which way is the fish facing?",
            options=("Left", "Right"),
            draw=drawings.fish,
        ),
    ),
    "presence": (
        Motif(
            pattern="presence",
            question="Does the house have a chimney?",
            options=("Yes", "No"),
            draw=drawings.chimney,
        ),
        Motif(
            pattern="presence",
            question="Is there a sun in the sky?",
            options=("Yes", "No"),
            draw=drawings.sun,
        ),
    ),
    "state": (
        Motif(
            pattern="state",
            question="Is the glass full or empty?",
            options=("Full", "Empty"),
            draw=drawings.glass,
        ),
        Motif(
            pattern="state",
            question="Is the eye open or closed?",
            options=("Open", "Closed"),
            draw=drawings.eye,
        ),
    ),
    "quantity": (
        Motif(
            pattern="quantity",
            question="How many balls are there?",
            options=("Two", "Three"),
            draw=drawings.balls,
        ),
        Motif(
            pattern="quantity",
            question="How many windows does the house have?",
            options=("One", "Two"),
            draw=drawings.windows,
        ),
    ),
    "position": (
        Motif(
            pattern="position",
            question="Is the ball on the table or under the table?",
            options=("On the table", "Under the table"),
            draw=drawings.table_ball,
        ),
        Motif(
            pattern="position",
            question="Is the ball to the left or to the right of the tree?",
            options=("Left", "Right"),
            draw=drawings.tree_ball,
        ),
    ),
    "color": (
        Motif(
            pattern="color",
            question="What color is the car?",
            options=("Red", "Blue"),
            draw=drawings.car,
        ),
        Motif(
            pattern="color",
            question="What color is the flower?",
            options=("Yellow", "Purple"),
            draw=drawings.flower,
        ),
    ),
    "structure": (
        Motif(
            pattern="structure",
            question="Is the roof of the house pointed or flat?",
            options=("Pointed", "Flat"),
            draw=drawings.roof,
        ),
        Motif(
            pattern="structure",
            question="Is the table top round or square?",
            options=("Round", "Square"),
            draw=drawings.table_top,
        ),
    ),
    "text": (
        Motif(
            pattern="text",
            question="What does the sign say?",
            options=("STOP", "GO"),
            draw=drawings.sign,
        ),
        Motif(
            pattern="text",
            question="Which letter is on the cube?",
            options=("The letter R", "The letter K"),
            draw=drawings.letter,
        ),
    ),
    "viewpoint": (
        Motif(
            pattern="viewpoint",
            question="Is the cup seen from the side or from above?",
            options=("From the side", "From above"),
            draw=drawings.cup,
        ),
        Motif(
            pattern="viewpoint",
            question="Is the car seen from the front or from the side?",
            options=("From the front", "From the side"),
            draw=drawings.car_view,
        ),
    ),
}
"""What there is to draw, by pattern."""


def draw_pictures(folder: Path | str, *, pairs: int = 18, size: int = 160, seed: int = 0) -> Path:
    """Draw pairs of flat pictures and write them as a benchmark: `questions.csv` beside `images/`.

    Patterns take turns, so 9 pairs have one of each. Half of the pairs show the first option's answer
    first, and half name the options the other way round. The same arguments give the same pixels.

    Returns:
        The folder, ready for `score.load_benchmark`.

    Raises:
        UserError: fewer than one pair, or a size outside 96..224 pixels.
    """
    if pairs < 1:
        raise UserError(f"{pairs} pairs of pictures cannot be drawn; 1 is the least")
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"drawings are {SIZES[0]} to {SIZES[1]} pixels wide, got {size}")
    root = Path(folder)
    rng = random.Random(seed)
    swapped, turned = _halves(pairs, rng), _halves(pairs, rng)
    rows = []
    for number in range(pairs):
        motif = _motif(number)
        look = draw_look(rng)
        options = motif.options[::-1] if turned[number] else motif.options
        for place, answer in enumerate((1, 0) if swapped[number] else (0, 1)):
            item = 2 * number + place + 1
            name = f"images/{item:04d}.png"
            right = 1 - answer if turned[number] else answer  # the place in the motif's own options
            write_bytes(root / name, picture(motif, look, right, size))
            rows.append(
                [
                    item,
                    f"pair-{number + 1}",
                    motif.pattern,
                    motif.question,
                    _labelled(options),
                    "AB"[answer],
                    name,
                ]
            )
    write_bytes(root / TABLE, _csv(rows))
    return root


def picture(motif: Motif, look: Look, answer: int, size: int) -> bytes:
    """A PNG of `size` x `size` pixels on which option `answer` of the motif is right."""
    canvas = Canvas(look.paper)
    motif.draw(canvas, look, answer)
    out = io.BytesIO()
    canvas.image.resize((size, size), Image.Resampling.BOX).save(out, "PNG")
    return out.getvalue()


def _motif(number: int) -> Motif:
    patterns = list(MOTIFS)
    motifs = MOTIFS[patterns[number % len(patterns)]]
    return motifs[number // len(patterns) % len(motifs)]


def _halves(pairs: int, rng: random.Random) -> list[bool]:
    """Yes and no equally often (to one), in a drawn order."""
    flags = [place % 2 == 0 for place in range(pairs)]
    rng.shuffle(flags)
    return flags


def _labelled(options: tuple[str, ...]) -> str:
    return " ".join(f"({label}) {option}" for label, option in zip("ab", options, strict=True))


def _csv(rows: list[list[object]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "pair_id", "pattern", "question", "options", "answer", "image"])
    writer.writerows(rows)
    return out.getvalue().encode()
