"""The zoo's masked autoencoder: a vision-only encoder trained by painting in patches it was not shown."""

from dataclasses import asdict
from pathlib import Path

from eyechart.core.devices import seeded
from eyechart.train.loop import Report, Settings, fit
from eyechart.train.masked import MaskedObjective, MaskedSettings, export_masked, masked_model
from eyechart.train.pictures import PictureBatches
from eyechart.train.towers import TowerShape
from eyechart.world.sets import load_set, set_hash

SHAPE = TowerShape()
AGAINST = MaskedSettings()
SETTINGS = Settings(
    max_steps=3400,
    per_device_train_batch_size=128,
    learning_rate=1e-3,
    muon_rate=2.0,
    warmup_steps=100,
    save_steps=200,
)


def train_masked(
    *,
    scenes: Path = Path("build/world/train"),
    work: Path = Path("build/work"),
    out: Path = Path("build/zoo"),
    settings: Settings = SETTINGS,
    shape: TowerShape = SHAPE,
    against: MaskedSettings = AGAINST,
    report: Report | None = None,
) -> Path:
    """Train the encoder and write it to `out/mae`, as a `ViTModel`.

    Args:
        scenes: a rendered set of training scenes; only its pictures are used.
        work: checkpoints go to `work/mae`; the same command goes on there.
        settings: how long and how fast to train.
        shape: how large the encoder is.
        against: how much is hidden, and what paints it in.
        report: told the steps that are done.

    Raises:
        UserError: no set in `scenes`, or another run in `work`.
    """
    pictures = load_set(scenes)
    with seeded(settings.seed):
        model = masked_model(shape, against)
    fit(
        model,
        MaskedObjective(against),
        PictureBatches(pictures.images, settings.per_device_train_batch_size, seed=settings.seed),
        settings,
        work / "mae",
        identity={"scenes": set_hash(scenes), "shape": asdict(shape), "against": asdict(against)},
        report=report,
    )
    return export_masked(model, shape, out / "mae")
