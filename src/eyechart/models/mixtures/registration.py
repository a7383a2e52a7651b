"""Make mixtures known to transformers' Auto classes, without importing transformers before somebody else does.

`import eyechart.models` calls `register_mixtures`. Where an Auto module of transformers is already loaded, the classes
are registered at once; else a finder waits for it to be imported, registers, and is never asked again.
"""

import importlib
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def _config() -> None:
    auto = importlib.import_module("transformers.models.auto.configuration_auto")
    config = importlib.import_module("eyechart.models.mixtures.config").MixtureConfig
    auto.AutoConfig.register(config.model_type, config, exist_ok=True)


def _model() -> None:
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    config = importlib.import_module("eyechart.models.mixtures.config").MixtureConfig
    model = importlib.import_module("eyechart.models.mixtures.modeling").MixtureForConditionalGeneration
    auto.AutoModelForImageTextToText.register(config, model, exist_ok=True)


def _processor() -> None:
    auto = importlib.import_module("transformers.models.auto.processing_auto")
    config = importlib.import_module("eyechart.models.mixtures.config").MixtureConfig
    processor = importlib.import_module("eyechart.models.mixtures.processor").MixtureProcessor
    auto.AutoProcessor.register(config, processor, exist_ok=True)


_WAITING: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _config,
    "transformers.models.auto.modeling_auto": _model,
    "transformers.models.auto.processing_auto": _processor,
}


class _After(Loader):
    """Loads a module as its own loader does, and then registers."""

    def __init__(self, inner: Loader, then: Callable[[], None]) -> None:
        self.inner, self.then = inner, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        self.then()


class _Waiting(MetaPathFinder):
    """Finds the Auto modules where they are, once each."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in _WAITING:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _After(spec.loader, _WAITING[fullname])
        return spec


def register_mixtures() -> None:
    """Register config, model and processor with AutoConfig, AutoModelForImageTextToText and AutoProcessor, now or later."""
    for name, register in _WAITING.items():
        if name in sys.modules:
            register()
    if not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())
