"""Benchmarks read and checked, questions put, replies graded, scores by pair with their intervals, runs compared."""

from eyechart.core.records import NO_PATTERN
from eyechart.score.asking import LABEL_STYLES, TEMPLATES, AskedPrompt, LabelStyle, Template, build_prompt
from eyechart.score.benchmarks import LAYOUTS, exam_hash, load_benchmark
from eyechart.score.doubts import DOUBTS, Doubt, doubtful
from eyechart.score.grading import grade_reply, grade_scores, read_choice
from eyechart.score.kinds import KINDS, MATCH_KINDS
from eyechart.score.matches import load_matches
from eyechart.score.measures import Measure
from eyechart.score.rules import RULES, Rule, measure
from eyechart.score.scoring import (
    Favourite,
    PairOutcome,
    PatternScore,
    Score,
    Summary,
    summarise,
)

__all__ = [
    "DOUBTS",
    "KINDS",
    "LABEL_STYLES",
    "LAYOUTS",
    "MATCH_KINDS",
    "NO_PATTERN",
    "RULES",
    "TEMPLATES",
    "AskedPrompt",
    "Doubt",
    "Favourite",
    "LabelStyle",
    "Measure",
    "PairOutcome",
    "PatternScore",
    "Rule",
    "Score",
    "Summary",
    "Template",
    "build_prompt",
    "doubtful",
    "exam_hash",
    "grade_reply",
    "grade_scores",
    "load_benchmark",
    "load_matches",
    "measure",
    "read_choice",
    "summarise",
]
