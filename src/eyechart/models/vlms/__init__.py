"""Vision-language models of any architecture behind one face."""

from eyechart.models.vlms.loading import load_chosen, load_vlm
from eyechart.models.vlms.states import HiddenStates, VisionStates
from eyechart.models.vlms.towers import AttentionSite, Towers, resolve_towers
from eyechart.models.vlms.vlm import VLM

__all__ = [
    "VLM",
    "AttentionSite",
    "HiddenStates",
    "Towers",
    "VisionStates",
    "load_chosen",
    "load_vlm",
    "resolve_towers",
]
