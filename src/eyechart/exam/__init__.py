"""The main job, top to bottom: ask → grade → find → score → report, for one model on one benchmark."""

from eyechart.exam.config import ExamConfig
from eyechart.exam.main import ExamResult, examine, plan

__all__ = ["ExamConfig", "ExamResult", "examine", "plan"]
