"""An eye exam for vision-language models.

The public names are loaded on first use, so that importing the package costs no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "examine": ".exam",
    "load_benchmark": ".score",
    "load_encoder": ".models",
    "load_vlm": ".models",
    "write_report": ".report",
}
__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"no {name!r} in eyechart; public names: {', '.join(sorted(_WHERE))}")
    return getattr(import_module(_WHERE[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
