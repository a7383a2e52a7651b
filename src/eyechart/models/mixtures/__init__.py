"""Mixtures of features: vision-language models that see through two encoders (A-MoF, I-MoF) or through any one.

The names are loaded when they are first used, so that importing this costs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyechart.models.mixtures.building import EncoderChoice, build_mixture
    from eyechart.models.mixtures.config import MixtureConfig
    from eyechart.models.mixtures.mixing import channel_statistics
    from eyechart.models.mixtures.modeling import MixtureForConditionalGeneration
    from eyechart.models.mixtures.processor import MixtureProcessor
    from eyechart.models.mixtures.published import from_published, to_published

__all__ = [
    "EncoderChoice",
    "MixtureConfig",
    "MixtureForConditionalGeneration",
    "MixtureProcessor",
    "build_mixture",
    "channel_statistics",
    "from_published",
    "to_published",
]

_HOMES = {
    "EncoderChoice": "building",
    "MixtureConfig": "config",
    "MixtureForConditionalGeneration": "modeling",
    "MixtureProcessor": "processor",
    "build_mixture": "building",
    "channel_statistics": "mixing",
    "from_published": "published",
    "to_published": "published",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
