"""A 3-D world that knows everything about itself: facts, scenes, pictures with exact maps, captions, questions, sets."""

from eyechart.world.facts import PATTERNS, Facts

__all__ = ["PATTERNS", "Facts"]
