"""`eyechart mine`: blind pairs from the command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyechart.cli.console import emit, progress, say

if TYPE_CHECKING:
    from eyechart.recipes.mine import MineResult

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Where the pictures are: a folder (everything below it), .tar shards in WebDataset form, .parquet files, a"
        " folder of datasets.save_to_disk, hf:ORG/NAME[:SPLIT], or 'world:' for scenes rendered in pairs.",
    ),
]
Semantic = Annotated[
    str,
    typer.Option(
        help="The encoder that is examined: a Hugging Face id, a folder, timm:NAME, open_clip:NAME/TAG or zoo:NAME."
        " 'auto': openai/clip-vit-large-patch14; on the world zoo:clip-biased."
    ),
]
Reference = Annotated[
    str,
    typer.Option(
        help="The vision-only encoder that tells pictures apart. 'auto': facebook/dinov2-large; on the world zoo:two-view."
    ),
]
SemanticPooling = Annotated[
    str | None,
    typer.Option(help="What stands for the whole picture: projected (CLIP's default), cls, mean_patch."),
]
ReferencePooling = Annotated[str | None, typer.Option(help="The same of the reference: cls, mean_patch.")]
MinSemantic = Annotated[
    str,
    typer.Option(
        help="A pair's cosine under --semantic is above this; or p and a percentile of drawn pairs' cosines, as p99.9."
    ),
]
MaxReference = Annotated[
    str, typer.Option(help="... and its cosine under --reference below this; or p and a percentile.")
]
Centred = Annotated[
    bool,
    typer.Option(
        "--centred",
        help="Take the mean over the pictures away from all vectors first, which spreads the cosines of encoders whose"
        " vectors lie in a narrow cone.",
    ),
]
Classes = Annotated[
    str, typer.Option(help="any; same or different: only pairs of equal or of unequal labels.")
]
PerImage = Annotated[int, typer.Option(help="At most so many pairs of one picture.")]
PerBurst = Annotated[
    int, typer.Option(help="At most so many pairs between the same two groups of near-duplicates.")
]
Budget = Annotated[int, typer.Option(help="At most so many pairs in all.")]
MinAlike = Annotated[
    float,
    typer.Option(
        help="Near-duplicates, which are set apart, have at least this cosine under --reference ..."
    ),
]
MostBits = Annotated[
    int, typer.Option(help="... and perceptual hashes that differ in so many of 64 bits at most.")
]
Pictured = Annotated[int, typer.Option(help="So many of the first pairs are drawn as pictures on the page.")]
ImageColumn = Annotated[str | None, typer.Option(help="Of a table: the column with the pictures.")]
LabelColumn = Annotated[str | None, typer.Option(help="Of a table: the column with the labels.")]
SceneSeed = Annotated[int, typer.Option(help="On the world: another number draws other scenes.")]
Size = Annotated[int, typer.Option(help="On the world: side of a picture in pixels, 96 to 672.")]
Pairs = Annotated[int, typer.Option(help="On the world: pairs of each of the nine patterns.")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="The run folder (default: runs/mine-...); embeddings are kept beside it, in embeddings/."
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start over instead of continuing; embeddings are kept.")
]
Limit = Annotated[int | None, typer.Option(help="Only so many pictures, the first.")]
Seed = Annotated[int, typer.Option(help="Of the pairs that are drawn for percentiles.")]
BatchSize = Annotated[
    int, typer.Option(help="Pictures at a time; halved where the device's memory is too small.")
]
Workers = Annotated[int, typer.Option(help="Processes that decode pictures; 0: none of their own.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")]
Engine = Annotated[
    str,
    typer.Option(
        help="local; ray: on a Ray cluster whose machines share the pictures and the run folder (pip install"
        " 'eyechart[ray]'). The pairs are the same."
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="Of the cluster's head, or auto. By itself the one RAY_ADDRESS names, else a Ray started on this machine."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no summary.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the pictures and say what would be done.")]


def run_mine(
    source: Source,
    *,
    semantic: Semantic = "auto",
    reference: Reference = "auto",
    semantic_pooling: SemanticPooling = None,
    reference_pooling: ReferencePooling = None,
    min_semantic: MinSemantic = "0.95",
    max_reference: MaxReference = "0.6",
    centred: Centred = False,
    classes: Classes = "any",
    per_image: PerImage = 5,
    per_burst: PerBurst = 1,
    budget: Budget = 10_000,
    min_alike: MinAlike = 0.9,
    most_bits: MostBits = 10,
    pictured: Pictured = 100,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    scene_seed: SceneSeed = 0,
    size: Size = 96,
    pairs: Pairs = 20,
    out: Out = None,
    fresh: Fresh = False,
    limit: Limit = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    workers: Workers = 1,
    dtype: Dtype = "float32",
    device: Device = "auto",
    engine: Engine = "local",
    ray_address: RayAddress = None,
    json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Mine pictures for pairs that one encoder takes for nearly the same and another tells apart.

    The same command again continues where it stopped; other thresholds embed nothing again.

    Example:  eyechart mine photos/ --semantic openai/clip-vit-large-patch14 --reference facebook/dinov2-large
    """
    options = {
        "source": source, "semantic": semantic, "reference": reference, "semantic_pooling": semantic_pooling,
        "reference_pooling": reference_pooling, "min_semantic": min_semantic, "max_reference": max_reference,
        "centred": centred, "classes": classes, "per_image": per_image, "per_burst": per_burst, "budget": budget,
        "min_alike": min_alike, "most_bits": most_bits, "pictured": pictured, "image_column": image_column,
        "label_column": label_column, "scene_seed": scene_seed, "size": size, "pairs": pairs, "limit": limit,
        "seed": seed, "batch_size": batch_size, "workers": workers, "dtype": dtype, "device": device,
        "engine": engine, "ray_address": ray_address,
    }  # fmt: skip
    _mine(options, out=out, fresh=fresh, json=json, quiet=quiet, dry_run=dry_run)


def _mine(
    options: dict[str, Any], *, out: Path | None, fresh: bool, json: bool, quiet: bool, dry_run: bool
) -> None:
    from eyechart.core.config import build
    from eyechart.find.config import MineConfig
    from eyechart.recipes.mine import mine, plan

    config = build(MineConfig, options)
    if dry_run:
        emit(plan(config, out=out))
        return
    with progress(quiet=quiet or json) as bars:
        result = mine(config, out=out, fresh=fresh, progress=bars, command=["eyechart", *sys.argv[1:]])
    if json:
        emit(result.results)
    _tell(result, quiet=quiet)


def _tell(result: "MineResult", *, quiet: bool) -> None:
    if result.again:
        say("this mine was finished before and is shown again; --fresh starts it over", quiet=quiet)
    for line in _told(result.results):
        say(line, quiet=quiet)
    say(f"page: {result.page}", quiet=quiet)


def _told(results: dict[str, Any]) -> list[str]:
    """The result in a few lines."""
    certificate, near, far = (results[name] for name in ("certificate", "semantic", "reference"))
    lines = [
        f"{results['images']} pictures, {results['quarantined']} unreadable, {results['unique']} different:"
        f" {certificate['pairs']} pairs compared, exactly",
        f"{certificate['found']} pairs with a cosine above {near['threshold']:.4f} under {near['id']} and below"
        f" {far['threshold']:.4f} under {far['id']}; {results['listed']} listed",
    ]
    if results["set_apart"] or results["alike"]["kept"]:
        lines.append(f"{results['alike']['kept']} near-duplicates are set apart")
    return [*lines, *results["notes"]]
