"""The bundled checkpoints: a name gives a folder, nothing more."""

from pathlib import Path

from eyechart.core.errors import unknown

_MODELS = Path(__file__).parent / "models"

SHORT = {"llava": "llava-biased", "imof": "imof-biased"}
"""Short names of the models that are examined beside one another, before and after."""


def names() -> list[str]:
    """The names of the bundled checkpoints, sorted: every folder that holds a `config.json`."""
    return sorted(config.parent.name for config in _MODELS.glob("*/config.json"))


def full_name(name: str) -> str:
    """The name of a model that is asked for by a short one; any other name as it is."""
    return SHORT.get(name, name)


def path(name: str) -> Path:
    """The folder of a bundled checkpoint, in the Hugging Face layout; short names do as well.

    Raises:
        UserError: there is none of that name; the text lists those there are.
    """
    if full_name(name) not in names():
        raise unknown("zoo model", name, names())
    return _MODELS / full_name(name)
