"""`eyechart locate`: where in a VLM what it sees is lost, from the command line."""

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
    Quiet,
    Revision,
    TrustRemoteCode,
)

if TYPE_CHECKING:
    from eyechart.locate.run import Located

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A VLM: ORG/NAME[@REVISION], a folder, or zoo:NAME.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        help="lens: names of parts read by the logit lens; knockout: the 2x2 of knockouts; dose: growing shares of them; probes:"
        " readability of each pattern and the verdict. Can be given several times; all but dose unless given."
    ),
]
Parts = Annotated[
    str,
    typer.Option(
        help="Pictures with part masks: world, or a folder or file (PASCAL Panoptic Parts, Pascal-Part, COCO-style polygons, index"
        " PNGs; see docs/parts.md)."
    ),
]
PartsLayout = Annotated[str, typer.Option(help="How --parts is to be read, where it does not say.")]
PartsImages = Annotated[
    str | None, typer.Option(help="The folder of the pictures, where they do not lie beside the masks.")
]
PartsWords = Annotated[
    str,
    typer.Option(
        help="In Pascal-Part and PASCAL Panoptic Parts: folded (leg), full (left front leg), code (lfleg)."
    ),
]
PartsLabels = Annotated[str | None, typer.Option(help="The table of an index layout.")]
PartsObject = Annotated[str | None, typer.Option(help="The object that plain labels are parts of.")]
PartsCategories = Annotated[
    str,
    typer.Option(help="Where a COCO-style file says object and part: auto, name, supercategory or whole."),
]
Pictures = Annotated[int, typer.Option(help="At most so many pictures with parts.")]
On = Annotated[
    str, typer.Option("--on", help="Pairs for the probes: world (twins), or a benchmark in pairs.")
]
Pairs = Annotated[int, typer.Option(help="On the world: pairs of each of the nine patterns.")]
SceneSeed = Annotated[int, typer.Option(help="On the world: another number draws other scenes.")]
Size = Annotated[int, typer.Option(help="On the world: side of a picture in pixels, 96 to 672.")]
Limit = Annotated[int | None, typer.Option(help="At most this many pairs of a benchmark.")]
VisionEdges = Annotated[
    str,
    typer.Option(help="What the vision cut cuts, by name, several joined by '+': see docs/locate.md."),
]
LanguageEdges = Annotated[str, typer.Option(help="What the language cut cuts, likewise.")]
VisionLayers = Annotated[
    str, typer.Option(help="all, first:n, last:n, a-b, or several sets: window:k, each.")
]
LanguageLayers = Annotated[str, typer.Option(help="The same for the language tower.")]
Controls = Annotated[
    list[str] | None,
    typer.Option(help="both ways, random; both unless given. Can be given several times; 'none' for none."),
]
SpecialIsRest = Annotated[
    bool,
    typer.Option(
        help="Count class token and registers among the rest that a part is cut off from; without, they stay a way round."
    ),
]
Sink = Annotated[bool, typer.Option(help="Cut edges to the language sequence's first position, too.")]
PartProbe = Annotated[
    bool,
    typer.Option(
        help="Read parts under knockouts by a linear probe as well, which takes most of that stage."
    ),
]
Label = Annotated[str, typer.Option(help="Which tokens stand for a name: whole, first, mean or variants.")]
Ties = Annotated[
    str, typer.Option(help="What equally likely tokens do to a rank: pessimistic, optimistic, average.")
]
Threshold = Annotated[
    float, typer.Option(help="A patch belongs to a part that covers more than this share of it.")
]
Regions = Annotated[int, typer.Option(help="Random regions that stand beside each part.")]
Scale = Annotated[str, typer.Option(help="Of readability: log_rank, reciprocal_rank or log_vocabulary.")]
Probe = Annotated[str, typer.Option(help="How tokens are read by probes: flat, mean or attentive.")]
Out = Annotated[Path | None, typer.Option(help="The run folder (default: runs/locate-...).")]
Seed = Annotated[int, typer.Option(help="Of random edges and regions, folds and intervals.")]


def run_locate(
    model: Model,
    *,
    only: Only = None,
    parts: Parts = "world",
    parts_layout: PartsLayout = "auto",
    parts_images: PartsImages = None,
    parts_words: PartsWords = "folded",
    parts_labels: PartsLabels = None,
    parts_object: PartsObject = None,
    parts_categories: PartsCategories = "auto",
    pictures: Pictures = 40,
    on: On = "world",
    pairs: Pairs = 60,
    scene_seed: SceneSeed = 0,
    size: Size = 96,
    limit: Limit = None,
    vision_edges: VisionEdges = "part<-rest",
    language_edges: LanguageEdges = "part<-earlier image",
    vision_layers: VisionLayers = "all",
    language_layers: LanguageLayers = "all",
    controls: Controls = None,
    special_is_rest: SpecialIsRest = True,
    sink: Sink = False,
    part_probe: PartProbe = True,
    label: Label = "whole",
    ties: Ties = "pessimistic",
    threshold: Threshold = 0.5,
    regions: Regions = 8,
    scale: Scale = "log_rank",
    probe: Probe = "flat",
    adapter: Adapter = None,
    out: Out = None,
    fresh: Fresh = False,
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
    """Locate where in a VLM what it sees is lost: knockouts in both towers, logit lens, probes, and a verdict for each pattern.

    Every knockout is proved to do what it says on this model before anything is counted. The same command again continues where this
    one stopped.

    Example:  eyechart locate zoo:llava-biased --only lens --only knockout
    """
    _locate(dict(locals()))


def _locate(given: dict[str, Any]) -> None:
    """Do what the options say; those that are no choice of the localisation are taken out first."""
    from eyechart.core.config import build
    from eyechart.exam.locating import probe_patterns
    from eyechart.locate.config import LocateConfig
    from eyechart.locate.run import locate, plan

    out, fresh, json, quiet, dry_run = (
        given.pop(name) for name in ("out", "fresh", "json", "quiet", "dry_run")
    )
    only, controls, batch = (given.pop(name) for name in ("only", "controls", "batch_size"))
    given["batch_size"] = int(batch) if batch.isdecimal() else batch
    given |= {} if only is None else {"only": tuple(dict.fromkeys(only))}
    given |= {} if controls is None else {"controls": () if controls == ["none"] else tuple(controls)}
    config = build(LocateConfig, given)
    if dry_run:
        emit(plan(config, out=out))
        return
    with progress(quiet=quiet or json) as bars:
        located = locate(config, probes=probe_patterns, out=out, fresh=fresh, progress=bars)
    if json:
        emit(located.results)
    else:
        _tell(located, quiet=quiet)


def _tell(located: "Located", *, quiet: bool) -> None:
    from eyechart.locate.lines import lines_of

    if located.again:
        say("this run was finished before and is shown again; --fresh starts it over", quiet=quiet)
    for line in lines_of(located.results):
        say(line, quiet=quiet)
    say(f"results: {located.folder / 'results.json'}", quiet=quiet)
