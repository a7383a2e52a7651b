"""`eyechart list`: the models, benchmarks and recipes there are."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from eyechart.cli.console import emit
from eyechart.recipes import RECIPES

app = typer.Typer(
    help="What there is: models, benchmarks, recipes.", no_args_is_help=True, rich_markup_mode=None
)

Json = Annotated[bool, typer.Option("--json", help="Print the list as JSON.")]


@app.command("models")
def list_models(*, json: Json = False) -> None:
    """The ways to name a model, the bundled ones, and those in the local Hugging Face cache.

    Example:  eyechart list models --json
    """
    from eyechart import zoo
    from eyechart.models.sources import NAMING, cached_models

    found = {
        "naming": {name: text for name, text in NAMING.items() if not name.startswith("http")},
        "zoo": [f"zoo:{name}" for name in zoo.names()],
        "cached": cached_models(),
    }
    _show(
        found, json=json, empty={"zoo": "no bundled models in this version", "cached": "none on this machine"}
    )


@app.command("benchmarks")
def list_benchmarks(*, json: Json = False) -> None:
    """The benchmark layouts that can be read, and what an exam without one is held on.

    Example:  eyechart list benchmarks
    """
    from eyechart.score import LAYOUTS

    _show({"layouts": dict(LAYOUTS)}, json=json, empty={})


@app.command("recipes")
def list_recipes(*, json: Json = False) -> None:
    """What `eyechart train` can train: what each recipe makes, what it needs, and about how long it takes.

    Example:  eyechart list recipes
    """
    if json:
        emit({"recipes": [asdict(recipe) for recipe in RECIPES.values()]})
        return
    told = {}
    for recipe in RECIPES.values():
        time = "" if recipe.minutes is None else f" About {recipe.minutes} min on one core."
        told[recipe.name] = f"{recipe.about} Needs: {', '.join(recipe.needs) or 'nothing'}.{time}"
    _show({"recipes": told}, json=False, empty={})


def _show(found: dict[str, Any], *, json: bool, empty: dict[str, str]) -> None:
    if json:
        emit(found)
        return
    for title, rows in found.items():
        print(f"{title}:")
        lines = [f"{name}  {text}" for name, text in rows.items()] if isinstance(rows, dict) else rows
        for line in lines or [empty[title]]:
            print(f"  {line}")
