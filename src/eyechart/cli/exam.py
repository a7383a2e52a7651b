"""`eyechart exam`: the main job from the command line."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyechart.cli.console import emit, progress, say
from eyechart.core.errors import UserError

if TYPE_CHECKING:
    from eyechart.exam import ExamResult


def run_exam(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Hugging Face ids (ORG/NAME[@REVISION]), local folders or zoo:NAME. None: a small random-weight"
            " LLaVA that has learnt nothing, to show what a report looks like.",
        ),
    ] = None,
    *,
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on",
            help="Benchmarks: an MMVP-shaped folder (images + CSV), or a table with question,"
            " options, answer, image, pattern, pair_id. None: a few generated pictures.",
        ),
    ] = None,
    reference: Annotated[
        str,
        typer.Option(
            help="The vision-only encoder that says which pairs do differ; 'none' leaves it out."
            " 'auto': facebook/dinov2-base where it can be had."
        ),
    ] = "auto",
    reference_pooling: Annotated[
        str | None,
        typer.Option(help="What stands for the whole image under the reference: cls, mean_patch, projected."),
    ] = None,
    percentile: Annotated[
        float,
        typer.Option(
            help="A pair is a suspect when its similarity reaches this percentile of all image pairs under"
            " the model's own encoder and stays below it under the reference."
        ),
    ] = 95.0,
    ask: Annotated[
        str,
        typer.Option(
            help="generate: read the model's reply; options: compare the options' likelihoods;"
            " auto: generate, but options for the random-weight model."
        ),
    ] = "auto",
    template: Annotated[
        str, typer.Option(help="How the question is put: letter, number or mmvp (the official free form).")
    ] = "letter",
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply, in tokens.")] = 16,
    adapter: Annotated[str | None, typer.Option(help="A PEFT adapter to load on top of the model.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder (default: runs/exam-...).")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of continuing.")] = False,
    limit: Annotated[int | None, typer.Option(help="At most this many pairs.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    batch_size: Annotated[str, typer.Option(help="Questions at a time, or 'auto'.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = "auto",
    device_map: Annotated[str | None, typer.Option(help="accelerate's device map, such as 'auto'.")] = None,
    attn: Annotated[
        str | None, typer.Option(help="Attention implementation: eager, sdpa, flash_attention_2 ...")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="The model's revision on the hub.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the checkpoint.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no summary.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; load no weights.")
    ] = False,
) -> None:
    """Examine vision-language models and write one page a person can read.

    The same command again continues where it stopped.

    Example:  eyechart exam org/name --on MMVP/ --reference facebook/dinov2-large
    """
    from eyechart.core.config import build
    from eyechart.exam import ExamConfig, examine, plan

    options = {
        "reference": reference, "reference_pooling": reference_pooling, "percentile": percentile, "ask": ask, "template": template,
        "max_new_tokens": max_new_tokens, "adapter": adapter, "limit": limit, "seed": seed, "batch_size": int(batch_size) if batch_size.isdecimal() else batch_size,
        "dtype": dtype, "device": device, "device_map": device_map, "attn": attn, "revision": revision,
        "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    nothing: list[str | None] = [None]
    exams = list(itertools.product(models or nothing, on or nothing))
    records: list[Any] = []
    failed: list[str] = []
    for model, benchmark in exams:
        config = build(ExamConfig, {**options, "model": model, "on": benchmark})
        folder = out if out is None or len(exams) == 1 else out / config.slug
        if dry_run:
            records.append(plan(config, out=folder))
            continue
        try:
            with progress(quiet=quiet or json) as bars:
                result = examine(config=config, out=folder, fresh=fresh, progress=bars)
        except UserError as error:
            if len(exams) == 1:
                raise
            failed.append(f"{model}: {error}")
            say(f"not examined: {failed[-1]}")
            continue
        records.append(result.results)
        _tell(result, quiet=quiet or json)
    if json or dry_run:
        emit(records if len(exams) > 1 else records[0])
    if failed:
        raise UserError(f"{len(failed)} of {len(exams)} exams were not held:\n" + "\n".join(failed))


def _tell(result: "ExamResult", *, quiet: bool) -> None:
    if result.again:
        say("this exam was finished before and is shown again; --fresh starts it over", quiet=quiet)
    for line in result.summary:
        say(line, quiet=quiet)
    say(f"report: {result.page}", quiet=quiet)
