"""The zoo's two-view encoder, trained to tell near-identical scenes apart (about 30 minutes on 2 cores).

The scenes come in families whose members differ in single facts. Each scene is rendered twice: once laid out as its
family is (twins: one camera, light and clutter for all), and once with a layout of its own. Finding a scene's other
picture among its family is then possible by that fact alone. No word is used, and no fact is named.

Run it again to go on where it was interrupted; the same arguments end with the same weights.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from eyechart.train.loop import Report, Settings, fit
from eyechart.train.pictures import FamilyBatches
from eyechart.train.towers import TowerShape
from eyechart.train.two_view import TwoView, TwoViewObjective, TwoViewSettings, export_two_view
from eyechart.world.sets import Progress, render_set
from eyechart.world.sets_plan import SetPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoViewRecipe:
    """Everything that decides what comes out."""

    scenes: int = 12_000
    """Each is rendered twice."""

    steps: int = 1_700
    families_per_batch: int = 32
    learning_rate: float = 1e-3
    seed: int = 1
    shape: TowerShape = field(default_factory=TowerShape)
    settings: TwoViewSettings = field(default_factory=TwoViewSettings)


def train_two_view(
    folder: Path,
    data: Path,
    recipe: TwoViewRecipe | None = None,
    *,
    workers: int = 2,
    rendered: Progress = lambda stage, done, total: None,
    trained: Report | None = None,
) -> Path:
    """Render the families twice, train, and write the encoder to `folder/model`.

    Args:
        folder: of the run: checkpoints, `loss.jsonl`, and at the end the model.
        data: where rendered scenes are kept, in `twins` and `siblings`; sets that are there are used again.
        rendered, trained: told how far rendering and training are.

    Raises:
        UserError: one of the folders holds something else.
    """
    recipe = recipe or TwoViewRecipe()
    size = recipe.shape.image_size
    plan = SetPlan(
        split="train",
        scenes=recipe.scenes,
        seed=recipe.seed,
        members=recipe.settings.members,
        relation="twins",
    )
    twins = render_set(data / "twins", plan, size=size, workers=workers, progress=rendered)
    plan = replace(plan, relation="siblings")
    siblings = render_set(data / "siblings", plan, size=size, workers=workers, progress=rendered)
    assert [scene.facts for scene in twins.scenes] == [scene.facts for scene in siblings.scenes]
    torch.manual_seed(recipe.seed)
    model = TwoView(recipe.shape, recipe.settings)
    settings = Settings(
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.families_per_batch * recipe.settings.members,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
    )
    batches = FamilyBatches(
        twins.images, siblings.images, twins.families, recipe.families_per_batch, seed=recipe.seed
    )
    objective = TwoViewObjective(recipe.settings)
    fit(model, objective, batches, settings, folder, identity=asdict(recipe), report=trained)
    return export_two_view(model, folder / "model")
