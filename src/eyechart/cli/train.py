"""`eyechart train`: train a model of the zoo from its recipe, or any LLaVA-like VLM from a recipe file."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyechart.cli.console import Report, emit, progress, say
from eyechart.cli.options import DryRun
from eyechart.cli.train_file import is_file, run_file
from eyechart.core.errors import UserError, unknown
from eyechart.recipes import RECIPES

if TYPE_CHECKING:
    from eyechart.train.loop import Settings
    from eyechart.train.mixture import Sight

CLIPS: Mapping[str, str] = {
    f"clip-{rates.replace('_', '-')}": rates for rates in ("biased", "told_all", "permuted")
}
"""The zoo's CLIPs, and the name of each one's caption rates in `recipes.clip.RATES`."""

SSL = ("two-view", "mae")
"""The zoo's encoders that learnt from pictures alone."""

JOINED: Mapping[str, str] = {"interleaved": "imof", "additive": "amof", "concatenated": "concatenated"}
"""Ways to join two encoders, and what their VLMs are called."""

STAGES = {"train": "training", "features": "encoding pictures"}
"""What a stage is called on its bar, where the training room calls it otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training as it was asked for; None leaves a choice to the recipe."""

    recipe: str
    rates: str | None
    clip: str | None
    second: str | None
    mixture: str | None
    alpha: float | None
    scenes: int | None
    max_steps: int | None
    batch_size: int | None
    seed: int | None
    questions: int | None
    world: Path
    out: Path
    work: Path

    def settings(self, usual: "Settings") -> "Settings":
        """The recipe's settings with what was asked for put in."""
        asked: dict[str, Any] = {
            "max_steps": self.max_steps,
            "per_device_train_batch_size": self.batch_size,
            "seed": self.seed,
        }
        return replace(usual, **{name: value for name, value in asked.items() if value is not None})


TAKES: Mapping[str, tuple[str, ...]] = {
    "tokenizer": ("seed",),
    "clip": ("rates", "scenes", "max_steps", "batch_size", "seed"),
    "masked": ("scenes", "max_steps", "batch_size", "seed"),
    "two-view": ("scenes", "max_steps", "batch_size", "seed"),
    "language-model": ("max_steps", "batch_size", "seed"),
    "vlm": ("clip", "second", "mixture", "alpha", "questions", "scenes", "max_steps", "batch_size", "seed"),
    "cards": (),
    "zoo": (),
}
"""The options of each recipe that not all of them have."""


RatesOption = Annotated[
    str | None,
    typer.Option(help="clip: how often captions tell each fact: biased (the default), told-all or permuted."),
]

QuestionsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="vlm: at most so many of each pattern (default 5000); the model is named after them, as llava-biased-1000.",
    ),
]
Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help=f"What to train: {', '.join(RECIPES)}; or a recipe file (.yaml), for a VLM on data of your own.",
        show_default=False,
    ),
]
Clip = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="vlm: the CLIP it sees with, a folder in --out (default clip-biased)."),
]
Second = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="vlm: a second encoder, a folder in --out, such as two-view or mae; makes a mixture of features.",
    ),
]
MixtureOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="vlm: how two encoders are joined: interleaved (the default), additive or concatenated.",
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="vlm: the CLIP's share where features are added (default .5)."),
]
Scenes = Annotated[
    int | None,
    typer.Option(
        help="How many scenes to train on (default: those that are rendered, or the recipe's number)."
    ),
]
MaxSteps = Annotated[
    int | None,
    typer.Option(help="Steps of training, of each stage where there are several (default: the recipe's)."),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(help="Examples a step, of each stage where there are several (default: the recipe's)."),
]
SeedOption = Annotated[
    int | None, typer.Option(help="Seed of the first weights and of the order of batches (default 0).")
]
WorldFolder = Annotated[
    Path, typer.Option(help="Where rendered scenes lie; what is not there yet is rendered.")
]
OutFolder = Annotated[
    Path | None,
    typer.Option(
        help="The trained models, a folder each; recipes find there what they build on (default build/zoo, or a recipe"
        " file's output_dir)."
    ),
]
WorkFolder = Annotated[
    Path,
    typer.Option(help="Checkpoints and loss logs, a folder a model; the same command continues there."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print where the model lies as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress, no summary.")]


def run_training(
    recipe: Recipe,
    *,
    rates: RatesOption = None,
    clip: Clip = None,
    second: Second = None,
    mixture: MixtureOption = None,
    alpha: Alpha = None,
    questions: QuestionsOption = None,
    scenes: Scenes = None,
    max_steps: MaxSteps = None,
    batch_size: BatchSizeOption = None,
    seed: SeedOption = None,
    world: WorldFolder = Path("build/world"),
    out: OutFolder = None,
    work: WorkFolder = Path("build/work"),
    json: JsonOption = False,
    quiet: QuietOption = False,
    dry_run: DryRun = False,
) -> None:
    """Train a model of the zoo on the world, or a VLM on data of your own, and write it as a Hugging Face checkpoint.

    The scenes are rendered first where they are not there yet. The same command again continues where it stopped.
    `eyechart list recipes` says what each recipe of the zoo makes, needs and takes; a recipe file is described in
    docs/train.md, and takes --max-steps, --batch-size, --seed and --out.

    Example:  eyechart train clip --rates told-all
    """
    job = Job(
        recipe=recipe, rates=rates, clip=clip, second=second, mixture=mixture, alpha=alpha, scenes=scenes, max_steps=max_steps, batch_size=batch_size,
        seed=seed, questions=questions, world=world, out=out or Path("build/zoo"), work=work,
    )  # fmt: skip
    if is_file(recipe):
        own = ("rates", "clip", "second", "mixture", "alpha", "questions", "scenes")
        refused = {name: getattr(job, name) for name in own}
        given: dict[str, Any] = {"max_steps": max_steps, "per_device_train_batch_size": batch_size}
        given |= {"seed": seed, "output_dir": None if out is None else str(out)}
        run_file(Path(recipe), given, refused, dry_run=dry_run, json=json, quiet=quiet, stages=stages)
        return
    _check(job)
    if dry_run:
        emit({**asdict(RECIPES[recipe]), "folder": str(job.out), "world": str(world), "work": str(work)})
        return
    with progress(quiet=quiet or json) as bars:
        folder = _RUN[recipe](job, stages(bars))
    _tell(job, folder, json=json, quiet=quiet)


def stages(bars: Report) -> Report:
    """Give a stage that begins again under the same name (a second set, a second stage of training) its own bar."""
    last: dict[str, tuple[int, int, int]] = {}

    def report(stage: str, done: int, total: int) -> None:
        turn, before, of = last.get(stage, (1, 0, total))
        turn += done < before or total != of
        last[stage] = turn, done, total
        name = STAGES.get(stage, stage)
        bars(name if turn == 1 else f"{name} ({turn})", done, total)

    return report


def _check(job: Job) -> None:
    """Refuse what can be refused before anything is rendered or loaded."""
    if job.recipe not in RECIPES:
        raise unknown("recipe", job.recipe, RECIPES)
    for option in dict.fromkeys(option for options in TAKES.values() for option in options):
        given = getattr(job, option)
        if given is not None and option not in TAKES[job.recipe]:
            takers = [name for name, options in TAKES.items() if option in options]
            flag = option.replace("_", "-")
            raise UserError(
                f"--{flag} {given} is not for {job.recipe}, but for {', '.join(takers)}: leave it out"
            )
    known = [name.removeprefix("clip-") for name in CLIPS]
    if job.rates is not None and job.rates not in known:
        raise unknown("set of caption rates", job.rates, known)
    if job.clip is not None and job.clip not in CLIPS:
        raise unknown("CLIP of the zoo", job.clip, CLIPS)
    _check_sight(job)
    if job.questions is not None and job.questions < 1:
        raise UserError(f"--questions {job.questions} teach nothing: give 1 or more of each pattern")


def _check_sight(job: Job) -> None:
    """Refuse options of a mixture that do not go together."""
    if job.second is not None and job.second not in SSL:
        raise unknown("vision-only encoder of the zoo", job.second, SSL)
    if job.mixture is not None and job.mixture not in JOINED:
        raise unknown("way to join two encoders", job.mixture, JOINED)
    if job.second is None and (job.mixture is not None or job.alpha is not None):
        raise UserError("--mixture and --alpha say how a second encoder is joined: give --second, too")
    if job.alpha is not None and (job.mixture != "additive" or not 0 <= job.alpha <= 1):
        raise UserError(
            f"--alpha {job.alpha} is the CLIP's share in --mixture additive: give both, and a share from 0 to 1"
        )


def _tokenizer(job: Job, report: Report) -> Path:
    from eyechart.recipes.tokenizer import make_tokenizer

    return make_tokenizer(job.out / "tokenizer", seed=job.seed or 0)


def _clip(job: Job, report: Report) -> Path:
    from eyechart.recipes.clip import SETTINGS, train_clip

    settings = job.settings(SETTINGS)
    return train_clip(
        CLIPS[f"clip-{job.rates or 'biased'}"],
        scenes=_scenes(job, report),
        tokenizer=job.out / "tokenizer",
        work=job.work,
        out=job.out,
        settings=settings,
        report=report,
    )


def _masked(job: Job, report: Report) -> Path:
    from eyechart.recipes.masked import SETTINGS, train_masked

    settings = job.settings(SETTINGS)
    return train_masked(
        scenes=_scenes(job, report),
        work=job.work,
        out=job.out,
        settings=settings,
        report=report,
    )


def _two_view(job: Job, report: Report) -> Path:
    from eyechart.recipes.scenes import training_families
    from eyechart.recipes.two_view import SETTINGS, train_two_view

    _trained_before(job, "mae", "masked")
    settings = job.settings(SETTINGS)
    return train_two_view(
        families=training_families(job.world / "families", scenes=job.scenes, progress=report),
        begun=job.out / "mae",
        work=job.work,
        out=job.out,
        settings=settings,
        report=report,
    )


def _language_model(job: Job, report: Report) -> Path:
    from eyechart.recipes.language_model import STAGES, train_language_model

    return train_language_model(
        tokenizer=job.out / "tokenizer",
        work=job.work,
        out=job.out,
        stages={stage: job.settings(settings) for stage, settings in STAGES.items()},
        report=report,
    )


def _vlm(job: Job, report: Report) -> Path:
    from eyechart.models.quiet import quiet
    from eyechart.recipes.scenes import MAPPED, count_of, training_maps
    from eyechart.recipes.vlm import PER_PATTERN, STAGES, train_vlm

    stages = {stage: job.settings(settings) for stage, settings in STAGES.items()}
    clip = job.clip or "clip-biased"
    if job.second is not None:
        _trained_before(job, job.second, {"mae": "masked"}.get(job.second, job.second))
    _trained_before(job, clip, f"clip --rates {clip.removeprefix('clip-')}")
    _trained_before(job, "lm", "language-model")
    scenes = _scenes(job, report)
    largest = max(stage.per_device_train_batch_size for stage in stages.values())
    if largest > count_of(scenes):
        raise UserError(
            f"batches of {largest} examples out of {count_of(scenes)} scenes cannot be made: give a --batch-size of at"
            f" most {count_of(scenes)}, or more scenes"
        )
    with quiet():
        return train_vlm(
            CLIPS[clip],
            sight=_sight(job, clip),
            scenes=scenes,
            maps=training_maps(job.world / "maps", scenes=min(MAPPED, count_of(scenes)), progress=report),
            per_pattern=job.questions or PER_PATTERN,
            name=_vlm_name(job, clip),
            seed=job.seed or 0,
            work=job.work,
            out=job.out,
            stages=stages,
            report=report,
        )


def _sight(job: Job, clip: str) -> "Sight | None":
    """The mixture that is asked for, if one is."""
    from eyechart.train.mixture import Sight

    if job.second is None:
        return None
    mixture: Any = job.mixture or "interleaved"
    alpha = 0.5 if job.alpha is None else job.alpha
    return Sight(
        first=clip, second=job.second, mixture=mixture, alpha=alpha, standardise=mixture == "additive"
    )


def _vlm_name(job: Job, clip: str) -> str:
    """The folder of a VLM: after its CLIP, how a second encoder is joined (named unless it is two-view), limited questions."""
    name = clip.replace("clip", "llava")
    if job.second is not None:
        mixture = job.mixture or "interleaved"
        share = f"-{0.5 if job.alpha is None else job.alpha:g}" if mixture == "additive" else ""
        name = f"{JOINED[mixture]}{share}-{clip.removeprefix('clip-')}"
        name += "" if job.second == SSL[0] else f"-{job.second}"
    return name if job.questions is None else f"{name}-{job.questions}"


def _cards(job: Job, report: Report) -> Path:
    from eyechart.models.quiet import quiet
    from eyechart.recipes.cards import recompute_cards

    with quiet():
        return recompute_cards(zoo=job.out, world=job.world / "cards", work=job.work / "cards", report=report)


def _zoo(job: Job, report: Report) -> Path:
    from eyechart.models.quiet import quiet
    from eyechart.recipes.zoo import make_zoo, steps

    with quiet():
        make_zoo(steps(world=job.world, work=job.work, zoo=job.out, report=report))
    return job.out


_RUN: Mapping[str, Callable[[Job, Report], Path]] = {
    "tokenizer": _tokenizer,
    "clip": _clip,
    "masked": _masked,
    "two-view": _two_view,
    "language-model": _language_model,
    "vlm": _vlm,
    "cards": _cards,
    "zoo": _zoo,
}


def _scenes(job: Job, report: Report) -> Path:
    from eyechart.recipes.scenes import training_scenes

    return training_scenes(job.world / "train", scenes=job.scenes, progress=report)


def _trained_before(job: Job, name: str, recipe: str) -> None:
    if not (job.out / name / "config.json").is_file():
        raise UserError(f"{job.out / name} is not there yet; first: eyechart train {recipe} --out {job.out}")


def _tell(job: Job, folder: Path, *, json: bool, quiet: bool) -> None:
    loader = RECIPES[job.recipe].loader
    load = loader and f'transformers.{loader}.from_pretrained("{folder}")'
    if json:
        emit({"recipe": job.recipe, "folder": str(folder), "load": load})
        return
    say(f"done: {folder}", quiet=quiet)
    if load:
        say(f"load it: {load}", quiet=quiet)
    if job.recipe == "vlm":
        say(f"examine it: eyechart exam {folder}", quiet=quiet)
