"""The main job, top to bottom: ask → grade → find → score → report, for one model or several on one benchmark."""

from eyechart.exam.beside import place_beside
from eyechart.exam.config import ExamConfig
from eyechart.exam.defaults import default_models
from eyechart.exam.main import ExamResult, examine, plan

__all__ = ["ExamConfig", "ExamResult", "default_models", "examine", "place_beside", "plan"]
