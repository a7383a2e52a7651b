"""`eyechart zoo`: the bundled models, their cards, and where they lie."""

import json as reader
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from eyechart import zoo
from eyechart.cli.console import emit
from eyechart.core.errors import UserError

app = typer.Typer(help="The bundled models of the zoo.", no_args_is_help=True, rich_markup_mode=None)

KINDS = {
    "clip": "CLIP",
    "vit": "vision-only encoder",
    "llama": "language model",
    "llava": "vision-language model",
    "eyechart_mixture": "mixture of features",
}
"""What a `model_type` of transformers is called here."""

EMPTY = "no bundled models in this version; train them: eyechart train zoo"

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that `eyechart zoo list` shows.")]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@app.command("list")
def list_zoo(*, json: Json = False) -> None:
    """Show each bundled model: its name, kind, size, and how good it is in a line of its card.

    Example:  eyechart zoo list --json
    """
    rows = [_row(name) for name in zoo.names()]
    if json:
        emit({"zoo": rows})
        return
    for row in rows:
        print(f"{row['name']:<18}{row['kind']:<24}{row['megabytes']:>5.1f} MB  {row['summary'] or 'no card'}")
    if not rows:
        print(EMPTY)


@app.command("card")
def show_card(name: Name, *, json: Json = False) -> None:
    """Print a model's card: what it was trained on and how good it is, beside chance and controls.

    Example:  eyechart zoo card llava-biased
    """
    folder = _folder(name)
    wanted = folder / ("card.json" if json else "README.md")
    if not wanted.is_file():
        raise UserError(f"zoo:{name} has no card ({wanted.name} is not in {folder})")
    if json:
        emit(reader.loads(wanted.read_text("utf8")))
    else:
        print(wanted.read_text("utf8").rstrip())


@app.command("path")
def show_path(name: Name) -> None:
    """Print the folder of a model, which `from_pretrained` of transformers loads.

    Example:  eyechart zoo path llava-biased
    """
    print(_folder(name))


def _folder(name: str) -> Path:
    if not zoo.names():
        raise UserError(f"zoo:{name} cannot be found: {EMPTY}")
    return zoo.path(name.removeprefix("zoo:"))


def _row(name: str) -> dict[str, Any]:
    folder = zoo.path(name)
    kind = reader.loads((folder / "config.json").read_text("utf8")).get("model_type", "model")
    card = folder / "card.json"
    told = reader.loads(card.read_text("utf8")) if card.is_file() else {}
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "name": name,
        "kind": KINDS.get(kind, kind),
        "megabytes": round(size / 1e6, 1),
        "summary": headline(told),
    }


def headline(card: Mapping[str, Any]) -> str | None:
    """How good a model is, in a line of its card; None where there is no card."""
    if "vlm" in card:
        shown, blank = (card["vlm"][name]["score"] for name in ("picture", "blank"))
        return f"pairs right {_rate(shown['pairs'])}, chance 25%; items with a blank picture {_rate(blank['images'])}"
    if "clip" in card:
        named = card["clip"]["zero_shot"]
        return f"names the object {_rate(named['kind'])}, chance {named['chance']['kind']:.0%}"
    if "siblings" in card:
        pooling, found = max(card["siblings"].items(), key=lambda each: each[1]["all"]["value"])
        return f"tells siblings apart {_rate(found['all'])} ({pooling}), chance 50%"
    if "language" in card:
        told = card["language"]
        return f"perplexity {told['perplexity']['value']:.2f}, by single tokens {told['unigram']:.1f}"
    return None


def _rate(rate: Mapping[str, Any]) -> str:
    return f"{rate['value']:.0%} [{rate['low']:.0%}, {rate['high']:.0%}], n={rate['n']}"
