"""Benchmarks read and checked, questions put, replies graded, and scores by pair with their intervals."""

from eyechart.score.asking import LABEL_STYLES, TEMPLATES, AskedPrompt, LabelStyle, Template, build_prompt
from eyechart.score.benchmarks import LAYOUTS, exam_hash, load_benchmark
from eyechart.score.doubts import DOUBTS, Doubt, doubtful
from eyechart.score.grading import grade_reply, grade_scores, read_choice
from eyechart.score.scoring import (
    NO_PATTERN,
    Favourite,
    PairOutcome,
    PatternScore,
    Score,
    Summary,
    summarise,
)

__all__ = [
    "DOUBTS",
    "LABEL_STYLES",
    "LAYOUTS",
    "NO_PATTERN",
    "TEMPLATES",
    "AskedPrompt",
    "Doubt",
    "Favourite",
    "LabelStyle",
    "PairOutcome",
    "PatternScore",
    "Score",
    "Summary",
    "Template",
    "build_prompt",
    "doubtful",
    "exam_hash",
    "grade_reply",
    "grade_scores",
    "load_benchmark",
    "read_choice",
    "summarise",
]
