"""What the loop does beyond one mean a step: sums divided by the labels of a whole step, and checkpoints of what is trained."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from eyechart.core.errors import UserError
from eyechart.train.loop import Batch, Settings, fit
from eyechart.train.weights import named, put_named

SETTINGS = Settings(
    max_steps=3,
    per_device_train_batch_size=1,
    learning_rate=0.05,
    warmup_steps=0,
    logging_steps=1,
    save_steps=2,
    gradient_accumulation_steps=2,
)


class Model(nn.Module):
    """A frozen layer under one that is trained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.below, self.above = nn.Linear(3, 3), nn.Linear(3, 1)
        self.below.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.above(self.below(inputs))[:, 0]


def batches(number: int) -> Batch:
    """Rows of which another share counts in each batch."""
    rng = np.random.default_rng(number)
    inputs = torch.from_numpy(rng.normal(size=(6, 3)).astype("float32"))
    labels = torch.where(torch.arange(6) <= number % 5, 1, -100)
    return {"inputs": inputs, "labels": labels}


def summed(model: nn.Module, batch: Batch) -> Tensor:
    counted = batch["labels"] != -100
    return (model(batch["inputs"]) - 1).square()[counted].sum()


def test_a_sum_is_divided_by_the_labels_of_the_whole_step(tmp_path):
    """The slow reference: the first step's loss by hand, and plain AdamW's weights after it."""
    model = Model()
    fit(model, summed, batches, SETTINGS, tmp_path, summed=True, kept=["above.bias", "above.weight"])
    lines = [json.loads(line) for line in (tmp_path / "loss.jsonl").read_text().splitlines()]
    plain = Model()
    both = [batches(0), batches(1)]
    count = sum(int((batch["labels"] != -100).sum()) for batch in both)
    with torch.no_grad():
        wanted = float(sum(summed(plain, batch) for batch in both)) / count
        mean_of_means = np.mean(
            [float(summed(plain, batch)) / int((batch["labels"] != -100).sum()) for batch in both]
        )
    assert count == 1 + 2
    assert lines[0]["loss"] == pytest.approx(wanted, rel=1e-5)
    assert abs(mean_of_means - wanted) > 0.01, "or the test would not tell the two apart"


def test_checkpoints_hold_what_is_trained_and_a_stopped_run_resumes(tmp_path):
    kept = ["above.bias", "above.weight"]
    whole, broken = Model(), Model()
    fit(whole, summed, batches, SETTINGS, tmp_path / "whole", summed=True, kept=kept)

    def stop(number: int) -> Batch:
        if number == 5:
            raise KeyboardInterrupt
        return batches(number)

    with pytest.raises(KeyboardInterrupt):
        fit(broken, summed, stop, SETTINGS, tmp_path / "broken", summed=True, kept=kept)
    assert set(load_file(tmp_path / "broken/checkpoint-2/model.safetensors")) == set(kept)
    again = Model()
    fit(again, summed, batches, SETTINGS, tmp_path / "broken", summed=True, kept=kept)
    assert torch.equal(again.above.weight, whole.above.weight)
    assert not torch.equal(again.above.weight, Model().above.weight)


def test_a_folder_that_began_before_a_setting_was_there_goes_on(tmp_path):
    plain = {name: getattr(SETTINGS, name) for name in Settings.__slots__} | {
        "gradient_accumulation_steps": 1
    }
    settings = Settings(**plain)
    fit(Model(), summed, batches, settings, tmp_path)
    path = tmp_path / "settings.json"
    told = json.loads(path.read_text())
    del told["settings"]["gradient_accumulation_steps"]
    path.write_text(json.dumps(told))
    fit(Model(), summed, batches, settings, tmp_path)
    with pytest.raises(UserError, match="gradient_accumulation_steps was 1, now 2"):
        fit(Model(), summed, batches, SETTINGS, tmp_path)


def test_weights_are_put_back_by_exactly_their_names():
    one, other = Model(), nn.Module()
    names = ["above.weight"]
    values = {name: value + 1 for name, value in named(one, names).items()}
    put_named(one, values, names)
    assert torch.equal(one.above.weight, Model().above.weight + 1)
    for wrong, said in (
        ({}, "above.weight"),
        (values | {"more": torch.zeros(1)}, "more"),
        ({"above.weight": torch.zeros(1)}, "above.weight"),
    ):
        with pytest.raises(RuntimeError, match=f"missing, too many or of another shape: {said}"):
            put_named(one, wrong, names)
    with pytest.raises(RuntimeError, match=r"above\.weight"):
        put_named(other, values, names)
