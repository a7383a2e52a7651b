"""Worlds that know everything about themselves; as yet the flat drawings of an exam without a benchmark."""

from eyechart.world.pictures import MOTIFS, Motif, draw_pictures

__all__ = ["MOTIFS", "Motif", "draw_pictures"]
