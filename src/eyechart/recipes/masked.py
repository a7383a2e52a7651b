"""The zoo's masked autoencoder: a vision-only encoder trained by painting hidden patches (about 30 minutes on 2 cores).

Run it again to go on where it was interrupted; the same arguments end with the same weights.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from eyechart.train.loop import Report, Settings, fit
from eyechart.train.masked import MaskedObjective, MaskedSettings, export_masked, masked_model
from eyechart.train.pictures import PictureBatches
from eyechart.train.towers import TowerShape
from eyechart.world.sets import Progress, render_set
from eyechart.world.sets_plan import SetPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedRecipe:
    """Everything that decides what comes out."""

    scenes: int = 24_000
    steps: int = 3_600
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    seed: int = 0
    shape: TowerShape = field(default_factory=TowerShape)
    settings: MaskedSettings = field(default_factory=MaskedSettings)


def train_masked(
    folder: Path,
    data: Path,
    recipe: MaskedRecipe | None = None,
    *,
    workers: int = 2,
    rendered: Progress = lambda stage, done, total: None,
    trained: Report | None = None,
) -> Path:
    """Render the scenes, train, and write the encoder to `folder/model`.

    Args:
        folder: of the run: checkpoints, `loss.jsonl`, and at the end the model.
        data: where rendered scenes are kept; a set that is there is used again.
        rendered, trained: told how far rendering and training are.

    Raises:
        UserError: one of the folders holds something else.
    """
    recipe = recipe or MaskedRecipe()
    plan = SetPlan(split="train", scenes=recipe.scenes, seed=recipe.seed)
    size = recipe.shape.image_size
    scenes = render_set(data, plan, size=size, workers=workers, progress=rendered)
    torch.manual_seed(recipe.seed)
    model = masked_model(recipe.shape, recipe.settings)
    settings = Settings(
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        adam_beta2=0.95,
        seed=recipe.seed,
    )
    batches = PictureBatches(scenes.images, recipe.batch_size, seed=recipe.seed)
    objective = MaskedObjective(recipe.settings)
    fit(model, objective, batches, settings, folder, identity=asdict(recipe), report=trained)
    return export_masked(model, recipe.shape, folder / "model")
