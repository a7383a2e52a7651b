"""The package eyechart-kernels, where it is installed: everything works without it, more slowly."""

import importlib
from functools import cache
from typing import Any


@cache
def installed() -> Any:
    """The package; None where there is none that works, or one from before it could do all that is asked of it."""
    try:
        package = importlib.import_module("eyechart_kernels")
    except ImportError:  # not there, or built for another machine
        return None
    return package if all(hasattr(package, name) for name in ("scan", "between", "dots")) else None
