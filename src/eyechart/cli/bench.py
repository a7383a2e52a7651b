"""`eyechart bench`: which sets are read, what is in one, and one written for other tools."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyechart.cli.console import emit, progress, say
from eyechart.core.errors import UserError

if TYPE_CHECKING:
    from eyechart.core.records import Benchmark, MatchSet

app = typer.Typer(
    help="Sets of questions: what is read, what one holds, one written for other tools.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

BUNDLED = Path("runs") / "bundled"
"""Where scenes of the world are rendered, as `eyechart score` has it."""

SHOWN = 10
"""Rows of a list that people are shown; --json has all."""

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A folder or table in a layout of 'eyechart bench list', or a set of the world: world, world:cv,"
        " world:captions.",
    ),
]
Kind = Annotated[str, typer.Option(help="How it is to be read, where its columns do not say.")]
SceneSeed = Annotated[int, typer.Option(help="On the world: another number draws other scenes.")]
Size = Annotated[int, typer.Option(help="On the world: side of a picture in pixels, 96 to 672.")]
Pairs = Annotated[int, typer.Option(help="On the world: pairs of each of the nine patterns.")]
Limit = Annotated[int | None, typer.Option(help="At most this many pairs or items, of all patterns in turn.")]
To = Annotated[str, typer.Option(help="hf, lmms-eval, vlmevalkit or inspect.")]
Out = Annotated[Path, typer.Option(help="The folder to write; new, or empty.")]
Licence = Annotated[
    str, typer.Option("--license", help="What the dataset's card says, in the hub's words (cc-by-4.0).")
]
Task = Annotated[
    str | None, typer.Option(help="The task's name there (default: eyechart_ and the set's name).")
]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no summary.")]


@app.command("list")
def list_sets(*, json: Json = False) -> None:
    """Show which layouts are read, the kinds to read them as, the rules of scoring, and the sets of the world.

    Example:  eyechart bench list
    """
    from eyechart.score import KINDS, LAYOUTS, MATCH_KINDS, RULES
    from eyechart.score.export import FORMATS
    from eyechart.score.opening import WORLD_SETS

    told = {
        "layouts": dict(LAYOUTS),
        "kinds": dict(KINDS),
        "kinds_for_encoders": dict(MATCH_KINDS),
        "rules": {name: rule.about for name, rule in RULES.items()},
        "world": dict(WORLD_SETS),
        "exports": dict(FORMATS),
    }
    if json:
        emit(told)
        return
    for heading, rows in told.items():
        print(heading.replace("_", " "))
        for name, about in rows.items():
            print(f"  {name:<20} {about}")


@app.command("check")
def check_set(
    source: Source,
    *,
    kind: Kind = "auto",
    scene_seed: SceneSeed = 0,
    size: Size = 96,
    pairs: Pairs = 20,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Read a set and say what it holds and what is doubtful; ends with 2 and the reasons where it cannot be scored.

    Example:  eyechart bench check ./MMVP --kind mmvp
    """
    from eyechart.score.set_facts import facts

    with _opened(source, kind, scene_seed, size, pairs, limit, quiet=json) as found:
        told = facts(found)
    if json:
        emit(told)
    else:
        for line in _lines(told):
            print(line)


@app.command("export")
def export_set(
    source: Source,
    *,
    to: To,
    out: Out,
    kind: Kind = "auto",
    scene_seed: SceneSeed = 0,
    size: Size = 96,
    pairs: Pairs = 20,
    limit: Limit = None,
    licence: Licence = "unknown",
    task: Task = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a set of questions as a dataset of the hub, a task of lmms-eval or inspect, or a table of VLMEvalKit.

    Example:  eyechart bench export world --to lmms-eval --out ./tasks
    """
    from eyechart.core.records import Benchmark
    from eyechart.score.export import export

    with _opened(source, kind, scene_seed, size, pairs, limit, quiet=quiet or json) as found:
        if not isinstance(found, Benchmark):
            raise UserError(
                f"{source} holds captions and images for encoders; only sets of questions are exported"
            )
        made = export(found, to, out, licence=licence, task=task)
    if json:
        emit(
            {
                "folder": str(made.folder),
                "to": made.to,
                "task": made.task,
                "items": made.items,
                "notes": made.notes,
            }
        )
        return
    for note in made.notes:
        say(f"note: {note}", quiet=quiet)
    say(f"{made.items} items as {made.task}: {made.folder} (see README.md there)", quiet=quiet)


@contextmanager
def _opened(
    source: str, kind: str, scene_seed: int, size: int, pairs: int, limit: int | None, *, quiet: bool
) -> Iterator["Benchmark | MatchSet"]:
    """The set; pictures that stand in its table as bytes are there until the block ends."""
    from eyechart.score.kinds import KINDS, MATCH_KINDS
    from eyechart.score.opening import WorldChoice, is_world, open_matches, open_questions

    if kind not in KINDS and kind not in MATCH_KINDS:
        from eyechart.core.errors import unknown

        raise unknown("kind of set", kind, [*KINDS, *MATCH_KINDS])
    choice = WorldChoice(scene_seed=scene_seed, size=size, pairs=pairs)
    if choice != WorldChoice() and not is_world(source):
        raise UserError(
            f"--scene-seed, --size and --pairs draw scenes of the world and {source!r} was named; use --limit"
        )
    with tempfile.TemporaryDirectory() as scratch, progress(quiet=quiet) as bars:
        bundled = BUNDLED if is_world(source) else Path(scratch)
        options: dict[str, Any] = {"world": choice, "limit": limit, "bundled": bundled, "progress": bars}
        if source == "world:captions" or kind in MATCH_KINDS:
            yield open_matches(source, kind=kind, **options)
            return
        try:
            found: Benchmark | MatchSet = open_questions(source, kind=kind, **options)
        except UserError as error:
            if kind != "auto" or is_world(source):
                raise
            try:
                found = open_matches(source, **options)
            except UserError:
                raise error from None
        yield found


def _lines(told: dict[str, Any]) -> Iterator[str]:
    """What a set holds, for people."""
    if told["what"] == "questions":
        pairs = f" in {told['pairs']} pairs" if told["pairs"] is not None else ""
        yield f"{told['name']}: {told['items']} items{pairs} of {told['in_source']} in {told['source']}"
        yield f"rule: {told['rule']}: {told['rule_about']}"
        by_pair = f", {told['chance_pairs']:.1%} of pairs" if told["chance_pairs"] is not None else ""
        yield f"by chance: {told['chance_items']:.1%} of items{by_pair}"
        yield f"answers: {_listed(told['answers'])}; a constant answer is right for {told['constant_answer']:.1%}"
    else:
        yield f"{told['name']}: {told['matches']} matches of {told['in_source']} in {told['source']}"
        yield f"{told['what']}: {_listed(told['shapes'])}; before each caption: {told['prefix']!r}"
    yield f"patterns: {_listed(told['patterns'])}"
    yield f"pictures: {told['images']}; {_listed(told['image_sizes'])}"
    for one in told.get("corrections", ()):
        yield f"label in doubt: item {one['item_id']}: {one['old']} -> {one['new']} ({one['source']}): {one['reason']}"
    for note in told["notes"]:
        yield f"note: {note}"
    rows = told["quarantined"]
    for row in rows[:SHOWN]:
        yield f"left out: {row['path']}: {row['reason']}: {row['detail']}"
    if len(rows) > SHOWN:
        yield f"left out: {len(rows) - SHOWN} more (--json lists all)"
    yield f"sha256: {told['sha256']}"


def _listed(counts: dict[str, int]) -> str:
    shown = [f"{name} {count}" for name, count in list(counts.items())[:SHOWN]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
