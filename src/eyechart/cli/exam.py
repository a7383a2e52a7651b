"""`eyechart exam`: the main job from the command line."""

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
    from eyechart.exam import ExamConfig, ExamResult

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="Hugging Face ids (ORG/NAME[@REVISION]), local folders, zoo:NAME, URLs of OpenAI-compatible servers"
        " (http://host:8000/v1), or 'untrained' (random weights). Several are shown side by side on the page of the first. None: the zoo's VLMs; without a zoo, 'untrained'.",
    ),
]
On = Annotated[
    list[str] | None,
    typer.Option(
        "--on",
        help="Benchmarks: an MMVP-shaped folder (images + CSV), a table with question, options, answer, image,"
        " pattern, pair_id, or 'world' (the default): scenes rendered for the exam.",
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option(help="A server's URL; the models are then names of models it serves.")
]
SceneSeed = Annotated[
    int,
    typer.Option(help="On the world: another number draws scenes that no model can have been trained on."),
]
Size = Annotated[
    int,
    typer.Option(
        help="On the world: side of a picture in pixels, 96 to 672; the scenes are the same at every size."
    ),
]
Pairs = Annotated[int, typer.Option(help="On the world: pairs of each of the nine patterns.")]
Reference = Annotated[
    str,
    typer.Option(
        help="The vision-only encoder that says which pairs do differ; 'none' leaves it out. 'auto': the zoo's for a zoo"
        " model or on the world, else facebook/dinov2-base where it can be had."
    ),
]
ReferencePooling = Annotated[
    str | None,
    typer.Option(help="What stands for the whole image under the reference: cls, mean_patch, projected."),
]
Percentile = Annotated[
    float,
    typer.Option(
        help="A pair is a suspect when its similarity reaches this percentile of all image pairs under"
        " the model's own encoder and stays below it under the reference."
    ),
]
Ask = Annotated[
    str,
    typer.Option(
        help="generate: read the model's reply; options: compare the options' likelihoods;"
        " auto: generate, but options for the random-weight model."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="The run folder (default: runs/exam-...); with several exams, the folder that holds theirs."
    ),
]
Locate = Annotated[
    bool,
    typer.Option(
        "--locate/--no-locate",
        help="Say for each pattern where it is lost: probes along the model's stages, beside its answers.",
    ),
]
Limit = Annotated[int | None, typer.Option(help="At most this many pairs.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice but the scenes.")]


def run_exam(
    models: Models = None,
    *,
    on: On = None,
    base_url: BaseUrl = None,
    scene_seed: SceneSeed = 0,
    size: Size = 96,
    pairs: Pairs = 20,
    reference: Reference = "auto",
    reference_pooling: ReferencePooling = None,
    percentile: Percentile = 95.0,
    ask: Ask = "auto",
    template: Template = "letter",
    max_new_tokens: MaxNewTokens = 16,
    adapter: Adapter = None,
    locate: Locate = True,
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
    """Examine vision-language models and write one page a person can read.

    The same command again continues where it stopped.

    Example:  eyechart exam org/name --on MMVP/ --reference facebook/dinov2-large
    """
    options = {
        "scene_seed": scene_seed, "size": size, "pairs": pairs, "reference": reference, "reference_pooling": reference_pooling,
        "percentile": percentile, "ask": ask, "template": template, "max_new_tokens": max_new_tokens, "adapter": adapter,
        "locate": locate, "limit": limit, "seed": seed, "batch_size": int(batch_size) if batch_size.isdecimal() else batch_size, "dtype": dtype,
        "device": device, "device_map": device_map, "attn": attn, "revision": revision,
        "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    exams = _exams(models, on, options, base_url)
    if dry_run:
        from eyechart.exam import plan

        records = [plan(config, out=_folder(config, out, exams)) for config in exams]
    else:
        held, failed = _hold(exams, out=out, fresh=fresh, quiet=quiet or json)
        records = [result.results for result in held]
    if (json or dry_run) and records:
        emit(records if len(exams) > 1 else records[0])
    if not dry_run and failed:
        raise UserError(f"{len(failed)} of {len(exams)} exams were not held:\n" + "\n".join(failed))


def _exams(
    models: list[str] | None, benchmarks: list[str] | None, options: dict[str, Any], base_url: str | None
) -> "list[ExamConfig]":
    """Every model on every benchmark, benchmark by benchmark."""
    from eyechart.core.config import build
    from eyechart.exam import ExamConfig, default_models

    named = [{}] if benchmarks is None else [{"on": benchmark} for benchmark in benchmarks]
    if base_url is None:
        asked: list[dict[str, str | None]] = [{"model": model} for model in models or default_models()]
    else:
        asked = [{"model": base_url, "served_model": model} for model in (models or (None,))]
    return [build(ExamConfig, {**options, **on, **model}) for on in named for model in asked]


def _folder(config: "ExamConfig", out: Path | None, exams: "list[ExamConfig]") -> Path | None:
    return out if out is None or len(exams) == 1 else out / config.slug


def _hold(
    exams: "list[ExamConfig]", *, out: Path | None, fresh: bool, quiet: bool
) -> "tuple[list[ExamResult], list[str]]":
    """Hold the exams one after another, then set the models of each benchmark beside one another.

    One of several that cannot be held does not end the others; the second list says which and why.
    """
    from eyechart.exam import examine

    held: dict[int, ExamResult] = {}
    failed: list[str] = []
    for place, config in enumerate(exams):
        try:
            with progress(quiet=quiet) as bars:
                held[place] = examine(
                    config=config, out=_folder(config, out, exams), fresh=fresh, progress=bars
                )
        except UserError as error:
            if len(exams) == 1:
                raise
            failed.append(f"{config.model}: {error}")
            say(f"not examined: {failed[-1]}")
        else:
            _tell(held[place], quiet=quiet)
    for benchmark in dict.fromkeys(config.on for config in exams):
        places = [place for place in held if exams[place].on == benchmark]
        if len(places) > 1:
            held[places[0]] = _beside([held[place] for place in places], quiet=quiet)
    return [*held.values()], failed


def _beside(results: "list[ExamResult]", *, quiet: bool) -> "ExamResult":
    from eyechart.exam import place_beside

    first = place_beside(results)
    for line in first.summary:
        if line not in results[0].summary:
            say(line, quiet=quiet)
    say(f"side by side: {first.page}#beside", quiet=quiet)
    return first


def _tell(result: "ExamResult", *, quiet: bool) -> None:
    if result.again:
        say("this exam was finished before and is shown again; --fresh starts it over", quiet=quiet)
    for line in result.summary:
        say(line, quiet=quiet)
    say(f"report: {result.page}", quiet=quiet)
