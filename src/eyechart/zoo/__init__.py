"""The bundled checkpoints: a name gives a folder, nothing more."""

from pathlib import Path

from eyechart.core.errors import unknown

_MODELS = Path(__file__).parent / "models"


def names() -> list[str]:
    """The names of the bundled checkpoints, sorted: every folder that holds a `config.json`."""
    return sorted(config.parent.name for config in _MODELS.glob("*/config.json"))


def path(name: str) -> Path:
    """The folder of a bundled checkpoint, in the Hugging Face layout.

    Raises:
        UserError: there is none of that name; the text lists those there are.
    """
    if name not in names():
        raise unknown("zoo model", name, names())
    return _MODELS / name
