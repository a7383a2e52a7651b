"""Encoders from transformers, timm and open_clip behind one interface."""

from eyechart.models.encoders.encoder import POOLINGS, Encoder, PatchFeatures
from eyechart.models.encoders.loading import load_encoder

__all__ = ["POOLINGS", "Encoder", "PatchFeatures", "load_encoder"]
