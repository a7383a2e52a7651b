"""The kinds of sets that are read, and the columns by which each is recognised."""

import re
from collections.abc import Iterable, Mapping

from eyechart.core.errors import UserError, unknown
from eyechart.score.tables import Table

KINDS: Mapping[str, str] = {
    "auto": "recognised by its columns; else pairs",
    "pairs": "two rows with one pair_id: one question, two pictures, opposite answers; or MMVP's numbering in a folder",
    "mmvp": "all 300 items of MMVP, each checked; from its folder and CSV, or the re-hosted Parquet",
    "cv-bench": "CV-Bench's columns: type (2D, 3D), task, source, question, choices, answer",
    "pope": "POPE: yes/no questions on objects in three categories; re-hosted, or the original lines of JSON",
    "naturalbench": "NaturalBench: two pictures and two questions a row",
    "vsr": "VSR: a caption that is true of its picture or not, with its relation",
    "blink": "BLINK-shaped: multiple choice about image_1 to image_4, with its sub_task",
    "items": "any rows of question, options, answer and image, each scored by itself",
}
"""How questions can be read, for people."""

MATCH_KINDS: Mapping[str, str] = {
    "mmvp-vlm": "all 135 pairs of MMVP-VLM, each checked: Question ID, Type, Statement, and a folder of pictures a Type",
    "winoground": "Winoground's columns: image_0, image_1, caption_0, caption_1",
    "sugarcrepe": "SugarCrepe: a picture with its caption and a negative_caption",
    "captions": "two captions and two images a row: caption_a (or statement_a), caption_b, image_a, image_b, pattern",
}
"""How captions and images for encoders can be read, for people."""

_MMVP_ID = frozenset({"index", "lndex"})

SIGNATURES: Mapping[str, tuple[frozenset[str], ...]] = {
    "naturalbench": (
        frozenset("question_0 question_1 image_0 image_1 image_0_question_0 image_1_question_1".split()),
    ),
    "cv-bench": (frozenset("type task source question choices answer image".split()),),
    "blink": (frozenset("sub_task image_1 question choices answer".split()),),
    "pope": (
        frozenset("question_id question answer image category image_source".split()),
        frozenset("question_id image text label".split()),
    ),
    "vsr": (frozenset("image caption label relation".split()),),
    "mmvp": tuple(frozenset({name, "question", "options", "correct_answer"}) for name in sorted(_MMVP_ID)),
}
"""The columns that say what a table is, lower-case with underscores; one of several sets is enough."""

MATCH_SIGNATURES: Mapping[str, tuple[frozenset[str], ...]] = {
    "mmvp-vlm": (frozenset("question_id type statement".split()),),
    "winoground": (frozenset("image_0 image_1 caption_0 caption_1".split()),),
    "sugarcrepe": (
        frozenset("filename caption negative_caption".split()),
        frozenset("image caption negative_caption".split()),
        frozenset("image tested_labels true_label".split()),
    ),
    "captions": (
        frozenset("caption_a caption_b image_a image_b".split()),
        frozenset("statement_a statement_b image_a image_b".split()),
    ),
}
"""The same for captions and images."""


def plain(name: str) -> str:
    """A column's name without case, with underscores for blanks and hyphens."""
    return re.sub(r"[\s-]+", "_", name.strip()).lower()


def recognise(table: Table, kind: str) -> str:
    """The kind of a table of questions.

    `auto` goes by `SIGNATURES`; a table with a pair_id, or of no known columns, is read in pairs.

    Raises:
        UserError: there is no such kind, the columns fit two kinds, or they are of captions for encoders.
    """
    if kind not in KINDS:
        raise unknown("kind of benchmark", kind, KINDS)
    columns = {plain(name) for name in table.columns}
    if kind != "auto":
        return kind
    if "pair_id" in columns and "question" in columns:
        return "pairs"
    fits = _fitting(columns, SIGNATURES)
    if len(fits) > 1:
        raise _two(table, fits)
    captions = _fitting(columns, MATCH_SIGNATURES)
    if captions and not fits and "question" not in columns:
        raise UserError(
            f"{table.path}: the columns {', '.join(table.columns)} are of captions and images for encoders"
            f" ({captions[0]}), not of questions; score an encoder on it"
        )
    return fits[0] if fits else "pairs"


def recognise_matches(table: Table, kind: str) -> str:
    """The kind of a table of captions and images.

    Raises:
        UserError: there is no such kind, or the columns fit none or two.
    """
    if kind != "auto":
        if kind not in MATCH_KINDS:
            raise unknown("kind of captions and images", kind, ("auto", *MATCH_KINDS))
        return kind
    fits = _fitting({plain(name) for name in table.columns}, MATCH_SIGNATURES)
    if not fits:
        known = "; ".join(f"{name}: {', '.join(sorted(MATCH_SIGNATURES[name][0]))}" for name in MATCH_KINDS)
        raise UserError(
            f"{table.path}: the columns {', '.join(table.columns)} are of no known set of captions and images ({known})"
        )
    if len(fits) > 1:
        raise _two(table, fits)
    return fits[0]


def _fitting(columns: Iterable[str], signatures: Mapping[str, tuple[frozenset[str], ...]]) -> list[str]:
    there = set(columns)
    return [name for name, sets in signatures.items() if any(each <= there for each in sets)]


def _two(table: Table, fits: list[str]) -> UserError:
    return UserError(
        f"{table.path}: the columns {', '.join(table.columns)} fit more than one kind ({', '.join(fits)}); say which"
        " (kind=...)"
    )
