"""Attention edges of both towers: cut them, read their weights, and prove that a cut did what it says."""

from eyechart.models.attention.calls import Call, taking_calls
from eyechart.models.attention.cuts import Applied, Condition, Cut, cutting

__all__ = ["Applied", "Call", "Condition", "Cut", "cutting", "taking_calls"]
