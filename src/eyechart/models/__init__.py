"""Encoders, VLMs, their sources, geometry and fed features: the room that knows transformers.

`load_encoder` and `load_vlm` are here by name only: importing this package loads no torch, using them does. It also makes
mixtures known to transformers' Auto classes, now or when those are loaded (`mixtures/registration.py`).
"""

import importlib
from typing import TYPE_CHECKING, Any

from eyechart.models.mixtures.registration import register_mixtures

if TYPE_CHECKING:
    from eyechart.models.encoders import load_encoder
    from eyechart.models.vlms import load_chosen, load_vlm

__all__ = ["load_chosen", "load_encoder", "load_vlm"]

_HOMES = {
    "load_encoder": "eyechart.models.encoders",
    "load_chosen": "eyechart.models.vlms",
    "load_vlm": "eyechart.models.vlms",
}

register_mixtures()


def __getattr__(name: str) -> Any:
    """Import a loader when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
