"""The zoo's two-view encoder: vision-only, trained to tell scenes apart that differ in a single fact.

The scenes come in families. Each scene is rendered twice: laid out as its whole family is (twins: one camera, light
and clutter for all), and with a layout of its own (siblings). Which of the twins is the other picture of the same scene
can then be told by the facts alone. No word is used, and no fact is named. The encoder begins with the weights of `mae`:
begun anew, it saw less in as many steps (docs/studies/zoo.md).
"""

from dataclasses import asdict
from pathlib import Path

from eyechart.core.devices import seeded
from eyechart.core.errors import UserError
from eyechart.train.loop import Report, Settings, fit
from eyechart.train.pictures import FamilyBatches
from eyechart.train.towers import TowerShape
from eyechart.train.two_view import (
    TwoView,
    TwoViewObjective,
    TwoViewSettings,
    begin_with,
    export_two_view,
)
from eyechart.world.sets import Progress, SceneSet, load_set, render_set, set_hash
from eyechart.world.sets_plan import SetPlan

SHAPE = TowerShape()
AGAINST = TwoViewSettings()
SCENES = 8_000
SEED = 1
SETTINGS = Settings(
    max_steps=1800,
    per_device_train_batch_size=64,
    learning_rate=1e-3,
    muon_rate=2.0,
    warmup_steps=100,
    save_steps=200,
)


def render_families(
    folder: Path = Path("build/world/families"),
    *,
    scenes: int = SCENES,
    members: int = AGAINST.members,
    size: int = SHAPE.image_size,
    workers: int = 2,
    progress: Progress = lambda stage, done, total: None,
) -> Path:
    """Render the scenes as twins and again as siblings, into `folder/twins` and `folder/siblings`; resumable."""
    for relation in ("twins", "siblings"):
        plan = SetPlan(split="train", scenes=scenes, seed=SEED, members=members, relation=relation)
        render_set(folder / relation, plan, size=size, workers=workers, progress=progress)
    return folder


def train_two_view(
    *,
    families: Path = Path("build/world/families"),
    begun: Path | None = None,
    work: Path = Path("build/work"),
    out: Path = Path("build/zoo"),
    settings: Settings = SETTINGS,
    shape: TowerShape = SHAPE,
    against: TwoViewSettings = AGAINST,
    report: Report | None = None,
) -> Path:
    """Train the encoder and write it to `out/two-view`, as a `ViTModel`.

    Args:
        families: what `render_families` made.
        begun: the folder of an encoder of the same shape to begin with; None begins with weights drawn at random.
        work: checkpoints go to `work/two-view`; the same command goes on there.
        settings: how long and how fast to train; the batch size counts scenes, and each comes as two pictures.
        shape: how large the encoder is.
        against: what is hidden, and how the terms weigh.
        report: told the steps that are done.

    Raises:
        UserError: no two sets of the same scenes in `families`, a batch that is no whole number of families, an
            encoder of another shape in `begun`, or another run in `work`.
    """
    twins, siblings = _both(families)
    size, rest = divmod(settings.per_device_train_batch_size, against.members)
    if rest:
        raise UserError(
            f"batches of {settings.per_device_train_batch_size} scenes are no whole families of {against.members}"
        )
    with seeded(settings.seed):
        model = TwoView(shape, against)
    first = None if begun is None else begin_with(model, begun)
    fit(
        model,
        TwoViewObjective(against),
        FamilyBatches(twins.images, siblings.images, twins.families, size, seed=settings.seed),
        settings,
        work / "two-view",
        identity={
            "twins": set_hash(twins.folder),
            "siblings": set_hash(siblings.folder),
            "shape": asdict(shape),
            "against": asdict(against),
            "begun": first,
        },
        report=report,
    )
    return export_two_view(model, out / "two-view")


def _both(families: Path) -> tuple[SceneSet, SceneSet]:
    twins, siblings = load_set(families / "twins"), load_set(families / "siblings")
    if [scene.facts for scene in twins.scenes] != [scene.facts for scene in siblings.scenes]:
        raise UserError(f"{families}: the twins and the siblings are not the same scenes; render both again")
    return twins, siblings
