"""`eyechart score`: any model on any set, from the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyechart.cli.console import emit, progress, say
from eyechart.cli.options import (
    Adapter,
    Attn,
    BatchSize,
    Device,
    DeviceMap,
    DryRun,
    Dtype,
    Fresh,
    Json,
    MaxNewTokens,
    Quiet,
    Revision,
    Template,
    TrustRemoteCode,
)
from eyechart.core.errors import UserError

if TYPE_CHECKING:
    from eyechart.score.run import Scored

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A VLM or an encoder (ORG/NAME[@REVISION], a folder, zoo:NAME, timm:NAME, open_clip:NAME/TAG), or the URL of"
        " an OpenAI-compatible server (http://host:8000/v1; its key from OPENAI_API_KEY).",
    ),
]
On = Annotated[
    str,
    typer.Option(
        "--on",
        help="The set: a folder or table ('eyechart bench list' says which shapes are read), or scenes rendered for the"
        " occasion: world (pairs), world:cv (in CV-Bench's shape), world:captions (for encoders).",
    ),
]
Kind = Annotated[str, typer.Option(help="How the set is to be read, where its columns do not say.")]
BaseUrl = Annotated[
    str | None, typer.Option(help="A server's URL; MODEL is then the name of one of its models.")
]
Ask = Annotated[
    str,
    typer.Option(
        help="generate: read the model's reply; options: compare the likelihoods of the options' labels; texts: of their"
        " texts, for each token."
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(help="upper (A.), bracketed ((a)) or numbers ((1)); the template's own unless given."),
]
Order = Annotated[str, typer.Option(help="original, or swapped: options from the last to the first.")]
Show = Annotated[
    str,
    typer.Option(help="image, or a control: none, blank, other (the pair's other picture), told (in words)."),
]
Side = Annotated[
    int | None,
    typer.Option(help="Bring pictures to this longer side, in pixels, before the model gets them."),
]
Also = Annotated[
    list[str] | None,
    typer.Option(
        help="Ask everything again with one thing changed: swapped, numbers, mmvp, letter, mmvp-numbers, none, blank,"
        " other, told, side=N. Can be given several times."
    ),
]
SceneSeed = Annotated[int, typer.Option(help="On the world: another number draws other scenes.")]
Size = Annotated[int, typer.Option(help="On the world: side of a picture in pixels, 96 to 672.")]
Pairs = Annotated[int, typer.Option(help="On the world: pairs of each of the nine patterns.")]
Concurrency = Annotated[int, typer.Option(help="Of a server: questions under way at once.")]
Retries = Annotated[int, typer.Option(help="Of a server: how often an unanswered question is put again.")]
Timeout = Annotated[float, typer.Option(help="Of a server: seconds to wait for an answer.")]
Judge = Annotated[
    str | None,
    typer.Option(
        help="A model or a server that reads replies, too; what it makes of them is told beside the score by rule, with every"
        " difference."
    ),
]
JudgeModel = Annotated[str | None, typer.Option(help="Where the judge is a server: which of its models.")]
JudgeFor = Annotated[str, typer.Option(help="Replies the judge reads: unread (by the rules), or all.")]
Engine = Annotated[
    str,
    typer.Option(
        help="eyechart, or lmms-eval: run --tasks in an environment that has lmms-eval (EYECHART_LMMS_EVAL names its"
        " python) and keep its samples for 'eyechart compare'."
    ),
]
Tasks = Annotated[str | None, typer.Option(help="With --engine lmms-eval: its tasks, joined by commas.")]
Out = Annotated[Path | None, typer.Option(help="The run folder (default: runs/score-...).")]
Limit = Annotated[int | None, typer.Option(help="At most this many pairs, items or matches.")]
Seed = Annotated[int, typer.Option(help="Seed of the intervals' resampling.")]


def run_score(
    model: Model,
    *,
    on: On = "world",
    kind: Kind = "auto",
    base_url: BaseUrl = None,
    ask: Ask = "generate",
    template: Template = "letter",
    labels: Labels = None,
    order: Order = "original",
    show: Show = "image",
    side: Side = None,
    also: Also = None,
    max_new_tokens: MaxNewTokens = 16,
    scene_seed: SceneSeed = 0,
    size: Size = 96,
    pairs: Pairs = 20,
    concurrency: Concurrency = 8,
    retries: Retries = 6,
    timeout: Timeout = 120.0,
    judge: Judge = None,
    judge_model: JudgeModel = None,
    judge_for: JudgeFor = "unread",
    engine: Engine = "eyechart",
    tasks: Tasks = None,
    adapter: Adapter = None,
    out: Out = None,
    fresh: Fresh = False,
    limit: Limit = None,
    seed: Seed = 0,
    batch_size: BatchSize = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    attn: Attn = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Score a model on a set, by pair where it is in pairs, every number with its interval.

    The same command again asks only what has no answer yet. Two runs are set beside one another by 'eyechart compare'.

    Example:  eyechart score zoo:llava-biased --on world --also swapped --also blank
    """
    batch = int(batch_size) if batch_size.isdecimal() else batch_size
    if engine != "eyechart":
        lmms = {"limit": limit, "batch_size": batch if isinstance(batch, int) else 1, "device": device}
        return _by_engine(engine, model, tasks, lmms, out=out, quiet=quiet)
    options = {
        "model": base_url or model, "served_model": model if base_url else None, "on": on, "kind": kind, "ask": ask,
        "template": template, "labels": labels, "order": order, "show": show, "side": side, "also": tuple(also or ()),
        "max_new_tokens": max_new_tokens, "scene_seed": scene_seed, "size": size, "pairs": pairs,
        "concurrency": concurrency, "retries": retries, "timeout": timeout, "judge": judge, "judge_model": judge_model,
        "judge_for": judge_for, "adapter": adapter, "limit": limit, "seed": seed, "trust_remote_code": trust_remote_code,
        "batch_size": batch, "dtype": dtype, "device": device, "device_map": device_map, "attn": attn, "revision": revision,
    }  # fmt: skip
    _by_us(options, tasks, out=out, fresh=fresh, json=json, quiet=quiet, dry_run=dry_run)


def _by_us(
    options: dict[str, Any],
    tasks: str | None,
    *,
    out: Path | None,
    fresh: bool,
    json: bool,
    quiet: bool,
    dry_run: bool,
) -> None:
    from eyechart.core.config import build
    from eyechart.score.config import ScoreConfig
    from eyechart.score.run import plan, score

    if tasks is not None:
        raise UserError(
            f"--tasks {tasks} names tasks of lmms-eval; give --engine lmms-eval with it, or --on SET"
        )
    config = build(ScoreConfig, options)
    if dry_run:
        emit(plan(config, out=out))
        return
    with progress(quiet=quiet or json) as bars:
        scored = score(config, out=out, fresh=fresh, progress=bars)
    if json:
        emit(scored.results)
    else:
        _tell(scored, quiet=quiet)


def _by_engine(
    engine: str,
    model: str,
    tasks: str | None,
    options: dict[str, Any],
    *,
    out: Path | None,
    quiet: bool,
) -> None:
    from eyechart.core.errors import unknown
    from eyechart.score.engine import run_lmms_eval

    if engine != "lmms-eval":
        raise unknown("engine", engine, ["eyechart", "lmms-eval"])
    if not tasks:
        raise UserError("--engine lmms-eval needs --tasks, as in: --tasks gqa,mmstar")
    place = "cpu" if options["device"] == "auto" else options["device"]
    where = out or Path("runs") / "lmms-eval"
    folder = run_lmms_eval(model, tasks.split(","), where, **options | {"device": place})
    say(f"samples and results: {folder} ('eyechart compare' reads them)", quiet=quiet)


def _tell(scored: "Scored", *, quiet: bool) -> None:
    from eyechart.score.lines import lines_of

    if scored.again:
        say("this run was finished before and is shown again; --fresh starts it over", quiet=quiet)
    for line in lines_of(scored.results):
        say(line, quiet=quiet)
    say(f"results: {scored.folder / 'results.json'}", quiet=quiet)
