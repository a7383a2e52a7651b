"""The training loop: a killed run resumed is the unbroken run, and what it writes can be trusted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from eyechart.core.errors import UserError
from eyechart.train.loop import Batch, Settings, Shuffled, fit

SETTINGS = Settings(
    max_steps=7,
    per_device_train_batch_size=4,
    learning_rate=0.05,
    warmup_steps=2,
    logging_steps=2,
    save_steps=3,
)


class Model(nn.Module):
    """A linear map with dropout, so that the random state counts, and an average of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("average", torch.zeros(1, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(self.dropout(inputs))


def new_model() -> Model:
    torch.manual_seed(3)
    return Model()


def batches(step: int) -> Batch:
    rng = np.random.default_rng(step)
    inputs = torch.from_numpy(rng.normal(size=(4, 3)).astype("float32"))
    return {"inputs": inputs, "targets": inputs.sum(1, keepdim=True)}


def objective(model: nn.Module, batch: Batch) -> Tensor:
    return (model(batch["inputs"]) - batch["targets"]).square().mean()


def average(model: nn.Module, step: int) -> None:
    assert isinstance(model, Model)
    model.average.lerp_(model.linear.weight.detach(), 1 / step)


class Killed(Exception):
    """Raised in the middle of a run."""


def killed_at(step: int):  # type: ignore[no-untyped-def]
    def give(asked: int) -> Batch:
        if asked == step:
            raise Killed
        return batches(asked)

    return give


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    folder = tmp_path_factory.mktemp("unbroken")
    model = new_model()
    fit(model, objective, batches, SETTINGS, folder, after_step=average)
    return model, folder


@pytest.mark.parametrize("step", [2, 3, 4, 6])
def test_a_killed_and_resumed_run_has_the_weights_of_the_unbroken_one(
    step: int, unbroken: tuple[Model, Path], tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        fit(new_model(), objective, killed_at(step), SETTINGS, tmp_path, after_step=average)
    resumed = new_model()
    if step >= SETTINGS.save_steps:  # then the weights must come from the checkpoint
        nn.init.constant_(resumed.linear.weight, 9.0)
    last = fit(resumed, objective, batches, SETTINGS, tmp_path, after_step=average)
    for name, value in unbroken[0].state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == [last.name] == ["checkpoint-7"]


def test_training_moves_the_weights_and_the_average_follows(unbroken: tuple[Model, Path]) -> None:
    assert not torch.equal(unbroken[0].linear.weight, new_model().linear.weight)
    assert not torch.equal(unbroken[0].average, torch.zeros(1, 3))


def test_a_torn_checkpoint_is_passed_over(unbroken: tuple[Model, Path], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(new_model(), objective, killed_at(5), SETTINGS, tmp_path, after_step=average)
    torn = tmp_path / "checkpoint-6"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 6, "max')
    resumed = new_model()
    fit(resumed, objective, batches, SETTINGS, tmp_path, after_step=average)
    assert torch.equal(resumed.linear.weight, unbroken[0].linear.weight)


def test_a_finished_run_is_loaded_and_not_trained_again(unbroken: tuple[Model, Path]) -> None:
    model = new_model()

    def never(step: int) -> Batch:
        raise AssertionError(f"asked for step {step}")

    fit(model, objective, never, SETTINGS, unbroken[1], after_step=average)
    assert torch.equal(model.linear.weight, unbroken[0].linear.weight)


def test_the_loss_log_has_one_line_for_every_logging_step(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(new_model(), objective, killed_at(5), SETTINGS, tmp_path)
    fit(new_model(), objective, batches, SETTINGS, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "loss.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(line["loss"] > 0 and line["learning_rate"] >= 0 for line in lines)


def test_the_logged_loss_is_the_mean_of_the_objective(tmp_path: Path) -> None:
    seen: list[float] = []

    def watched(model: nn.Module, batch: Batch) -> Tensor:
        loss = objective(model, batch)
        seen.append(loss.item())
        return loss

    fit(new_model(), watched, batches, SETTINGS, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "loss.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == pytest.approx(np.mean(seen[:2]), rel=1e-3)


def test_progress_counts_the_steps(tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    fit(new_model(), objective, batches, SETTINGS, tmp_path, report=lambda *args: said.append(args))
    assert said == [("train", step, 7) for step in range(8)]


def test_a_folder_of_another_run_is_refused(unbroken: tuple[Model, Path]) -> None:
    other = Settings(
        max_steps=7, per_device_train_batch_size=4, learning_rate=0.5, logging_steps=2, save_steps=3
    )
    with pytest.raises(UserError, match=r"learning_rate was 0\.05, now 0\.5"):
        fit(new_model(), objective, batches, other, unbroken[1])
    with pytest.raises(UserError, match="data was None, now 'b'"):
        fit(new_model(), objective, batches, SETTINGS, unbroken[1], identity={"data": "b"})


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0"):
        fit(
            new_model(),
            lambda model, batch: objective(model, batch) * float("nan"),
            batches,
            SETTINGS,
            tmp_path,
        )


def test_settings_refuse_counts_below_one() -> None:
    with pytest.raises(UserError, match="max_steps is 0"):
        Settings(max_steps=0, per_device_train_batch_size=4)


def test_every_epoch_has_every_item_once_in_an_order_of_its_own() -> None:
    order = Shuffled(items=10, batch_size=5, seed=1)
    rounds = [np.concatenate([order.at(2 * epoch)[1], order.at(2 * epoch + 1)[1]]) for epoch in range(3)]
    assert all(sorted(one) == list(range(10)) for one in rounds)
    assert not np.array_equal(rounds[0], rounds[1])
    assert [order.at(step)[0] for step in range(5)] == [0, 0, 1, 1, 2]
    assert not np.array_equal(Shuffled(items=10, batch_size=5, seed=2).at(0)[1], order.at(0)[1])


def test_odd_items_wait_for_another_epoch() -> None:
    assert [Shuffled(items=11, batch_size=5).at(step)[0] for step in range(4)] == [0, 0, 1, 1]


def test_batches_larger_than_the_set_are_refused() -> None:
    with pytest.raises(UserError, match="batches of 12 out of 10"):
        Shuffled(items=10, batch_size=12)


def masked_model() -> ViTMAEForPreTraining:
    torch.manual_seed(5)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder = {f"decoder_{name}": size for name, size in small.items()}
    return ViTMAEForPreTraining(ViTMAEConfig(image_size=8, patch_size=4, **small, **decoder))


def masked_batches(step: int) -> Batch:
    rng = np.random.default_rng(step)
    return {
        "pixel_values": torch.from_numpy(rng.normal(size=(2, 3, 8, 8)).astype("float32")),
        "noise": torch.from_numpy(rng.random((2, 4)).astype("float32")),
    }


@pytest.mark.slow
def test_a_model_that_transformers_saves_under_other_names_resumes_too(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch).loss

    def killed(step: int) -> Batch:
        if step == 4:
            raise Killed
        return masked_batches(step)

    whole, broken = masked_model(), masked_model()
    fit(whole, loss, masked_batches, SETTINGS, tmp_path / "whole")
    with pytest.raises(Killed):
        fit(broken, loss, killed, SETTINGS, tmp_path / "broken")
    again = masked_model()
    fit(again, loss, masked_batches, SETTINGS, tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    def stop(step: int) -> Batch:
        if step == 4:
            raise Killed
        return batches(step)

    with pytest.raises(Killed):
        fit(new_model(), objective, stop, SETTINGS, tmp_path)

    class Larger(Model):
        def __init__(self) -> None:
            super().__init__()
            self.more = nn.Linear(1, 1)

    with pytest.raises(RuntimeError, match="more"):
        fit(Larger(), objective, batches, SETTINGS, tmp_path)
