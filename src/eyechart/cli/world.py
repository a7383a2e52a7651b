"""`eyechart world`: look at the controlled world, or render sets of its scenes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyechart.cli.console import emit, progress, say
from eyechart.core.errors import UserError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from eyechart.world.sheets import Strip

app = typer.Typer(
    help="The controlled 3-D world: look at its pairs and objects, render sets of scenes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

OBJECTS = "objects"
"""What `show` is asked for to see every kind of object."""

PAIRS = 20
"""Pairs of each pattern in a benchmark where nobody said."""

Relation = Annotated[
    str,
    typer.Option("--kind", help="twins: all else identical; siblings: camera, light and clutter drawn anew."),
]
Split = Annotated[str, typer.Option(help="train, selection or test; no scene is in two of them.")]
SceneSeed = Annotated[int, typer.Option(help="Another number draws other scenes of the split.")]
Json = Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no summary.")]


@app.command("show")
def show(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN",
            help="A pattern (orientation, presence, state, quantity, position, color, structure, text,"
            " viewpoint), a kind of object (cat), or 'objects' for all kinds.",
        ),
    ],
    *,
    pairs: Annotated[int, typer.Option(help="How many pairs of a pattern.")] = 6,
    kind: Relation = "twins",
    size: Annotated[int, typer.Option(help="Side of a picture in pixels, 32 to 672; the zoo sees 96.")] = 192,
    split: Split = "test",
    scene_seed: SceneSeed = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="An .html page, or a .png or .jpg picture (default: world-PATTERN.html)."),
    ] = None,
    json: Json = False,
) -> None:
    """Draw a contact sheet: each question, its two pictures, the right answer under each.

    Example:  eyechart world show orientation --pairs 4 --out orientation.html
    """
    from eyechart.core.files import write_bytes
    from eyechart.world.sheets import file_of

    path = out or Path(f"world-{pattern}.html")
    if path.suffix not in (".html", ".png", ".jpg"):
        raise UserError(f"--out {path}: a contact sheet is an .html, .png or .jpg file")
    strips = _strips(pattern, pairs=pairs, relation=kind, size=size, split=split, seed=scene_seed)
    write_bytes(path, file_of(f"The world: {pattern}", strips, path.suffix))
    if json:
        emit({"sheet": str(path), "strips": len(strips)})
    else:
        say(f"contact sheet: {path}")


def _strips(
    pattern: str, *, pairs: int, relation: str, size: int, split: str, seed: int
) -> "tuple[Strip, ...]":
    from eyechart.core.config import build
    from eyechart.world.facts import PATTERNS
    from eyechart.world.kinds import KINDS
    from eyechart.world.sets import check_size
    from eyechart.world.sets_plan import PairPlan, draw_pairs
    from eyechart.world.sheets import strip_of_kind, strips_of_pairs

    check_size(size)
    if pattern == OBJECTS:
        return tuple(strip_of_kind(name, size) for name in KINDS)
    if pattern in KINDS:
        return (strip_of_kind(pattern, size),)
    if pattern not in PATTERNS:
        raise unknown("pattern or kind of object", pattern, [*PATTERNS, *KINDS, OBJECTS])
    options = {"split": split, "pairs": pairs, "seed": seed, "patterns": [pattern], "relation": relation}
    return strips_of_pairs(draw_pairs(build(PairPlan, options)), size)


@app.command("render")
def render(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where; the same command continues there.")
    ],
    *,
    pairs: Annotated[
        int | None, typer.Option(help="A benchmark: so many pairs of each pattern (default 20).")
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option("--pattern", help="A pattern of the benchmark; repeat it. None: all nine."),
    ] = None,
    scenes: Annotated[
        int | None,
        typer.Option(help="Instead of a benchmark: a set of so many scenes, to train or probe with."),
    ] = None,
    members: Annotated[
        int, typer.Option(help="With --scenes: scenes in families of so many that differ by single facts.")
    ] = 1,
    kind: Relation = "siblings",
    size: Annotated[int, typer.Option(help="Side of a picture in pixels, 32 to 672; the zoo sees 96.")] = 96,
    split: Split = "test",
    scene_seed: SceneSeed = 0,
    maps: Annotated[
        bool, typer.Option("--maps", help="Write exact part, object and depth maps too.")
    ] = False,
    workers: Annotated[
        int, typer.Option(help="Processes that render; the result does not depend on them.")
    ] = 2,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of continuing.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Render a benchmark of pairs that `eyechart exam --on FOLDER` reads, or a set of single scenes.

    The same seed at another size shows the same scenes. A killed run is continued by the same command.

    Example:  eyechart world render my-world --pairs 50 --size 336 --scene-seed 7
    """
    if scenes is not None and (pairs is not None or pattern):
        raise UserError(
            "--scenes makes a set of single scenes; --pairs and --pattern make a benchmark: give one"
        )
    if scenes is None and members != 1:
        raise UserError(f"--members {members} is for sets of single scenes: add --scenes, or leave it out")
    words: dict[str, Any] = {"scenes": scenes, "members": members}
    if scenes is None:
        words = {"pairs": PAIRS if pairs is None else pairs}
    words |= {
        "pattern": pattern,
        "kind": kind,
        "split": split,
        "scene-seed": scene_seed,
        "size": size,
        "maps": maps,
    }
    with progress(quiet=quiet or json) as bars:
        _render(folder, words, workers=workers, fresh=fresh, progress=bars)
    _tell(folder, json=json, quiet=quiet)


def _render(
    folder: Path,
    words: dict[str, Any],
    *,
    workers: int,
    fresh: bool,
    progress: "Callable[[str, int, int], None]",
) -> None:
    from eyechart.core.config import build
    from eyechart.world.sets import render_set
    from eyechart.world.sets_pairs import render_pairs
    from eyechart.world.sets_plan import PairPlan, SetPlan

    common = {"split": words["split"], "seed": words["scene-seed"], "relation": words["kind"]}
    how: dict[str, Any] = {"size": words["size"], "maps": words["maps"], "workers": workers, "fresh": fresh}
    how |= {"command": _command(folder, words), "progress": progress}
    if "scenes" in words:
        plan = build(SetPlan, {**common, "scenes": words["scenes"], "members": words["members"]})
        render_set(folder, plan, **how)
    else:
        wanted = {"patterns": words["pattern"]} if words["pattern"] else {}
        render_pairs(folder, build(PairPlan, {**common, **wanted, "pairs": words["pairs"]}), **how)


def _command(folder: Path, options: dict[str, Any]) -> list[str]:
    """What a person types to make the same again."""
    words = ["eyechart", "world", "render", str(folder)]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, list):
            words += [word for one in value for word in (f"--{name}", one)]
        elif value not in (None, False):
            words += [f"--{name}", str(value)]
    return words


def _tell(folder: Path, *, json: bool, quiet: bool) -> None:
    import json as reader

    manifest = reader.loads((folder / "manifest.json").read_bytes())
    if json:
        emit({"folder": str(folder), "sha256": manifest["sha256"]})
    else:
        say(f"rendered: {folder} (sha256 {manifest['sha256'][:12]})", quiet=quiet)
