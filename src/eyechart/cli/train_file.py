"""`eyechart train FILE.yaml`: two-stage training of a VLM on data of one's own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eyechart.cli.console import Report, emit, progress, say
from eyechart.core.errors import UserError

ENDINGS = (".yaml", ".yml")
"""What a recipe file's name ends in."""


def is_file(recipe: str) -> bool:
    """Whether a recipe is a file, by its name."""
    return Path(recipe).suffix.lower() in ENDINGS


def run_file(
    file: Path,
    given: Mapping[str, Any],
    refused: Mapping[str, Any],
    *,
    dry_run: bool,
    json: bool,
    quiet: bool,
    stages: Callable[[Report], Report],
) -> None:
    """Train as a recipe file says, or say what would be done.

    Args:
        given: options that override the file's; None leaves them to it.
        refused: options that only the zoo's recipes have.

    Raises:
        UserError: an option is not for recipe files, or the recipe cannot be run.
    """
    for name, value in refused.items():
        if value is not None:
            raise UserError(
                f"--{name} {value} is not for a recipe file: leave it out, or put data into {file}"
            )
    from eyechart.models.quiet import quiet as without_advice
    from eyechart.recipes.llava import described, train_from_file

    asked = {name: value for name, value in given.items() if value is not None}
    if dry_run:
        emit(described(file, asked))
        return
    with progress(quiet=quiet or json) as bars, without_advice():
        folder = train_from_file(file, asked, report=stages(bars))
    load = f'transformers.AutoModelForImageTextToText.from_pretrained("{folder}")'
    if json:
        emit({"recipe": str(file), "folder": str(folder), "load": load})
        return
    say(f"done: {folder}", quiet=quiet)
    say(f"loss curves: {folder.parent / 'loss.png'}", quiet=quiet)
    say(f"load it: {load}", quiet=quiet)
    say(f"examine it: eyechart exam {folder}", quiet=quiet)
