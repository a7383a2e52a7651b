"""Scoring during a training: the numbers arrive in the log, and the training does not notice."""

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from eyechart.core.errors import UserError
from eyechart.score import load_benchmark
from eyechart.score.during import scorer
from eyechart.train.callback import ScoreCallback, unnoticed
from small_world import small_world

pytestmark = pytest.mark.slow


class Model(nn.Module):
    """A linear map with dropout and a running mean, so that random states and modes count."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.frozen = nn.Dropout(0.5)
        self.dropout = nn.Dropout(0.5)
        self.out = nn.Linear(4, 1)

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        made = self.out(self.dropout(self.norm(self.linear(inputs))))
        noise = random.random() + float(np.random.rand())  # noqa: NPY002 -- the global generators are what is tested
        return {"loss": ((made[:, 0] - labels).square() * (1 + noise)).mean(), "logits": made}


class Data(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        inputs = torch.arange(3.0) + place
        return {"inputs": inputs.sin(), "labels": inputs.sum().cos()}


def trainer(folder: Path, *callbacks: Any, **options: Any) -> Trainer:
    torch.manual_seed(5)
    model = Model()
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, num_train_epochs=2, learning_rate=0.05, seed=3,
        report_to="none", disable_tqdm=True, save_strategy="no", logging_strategy="steps", logging_steps=3,
        use_cpu=True, **options,
    )  # fmt: skip
    return Trainer(model=model, args=args, train_dataset=Data(), callbacks=list(callbacks))


def disturbing(model: nn.Module) -> dict[str, float]:
    """A score that draws from every generator and would notice training mode and gradients."""
    assert not any(module.training for module in model.modules())
    assert not torch.is_grad_enabled()
    model(torch.randn(5, 3), torch.randn(5))
    torch.manual_seed(random.randrange(1000))
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    return {"pair_accuracy": float(torch.rand(())), "n": 7}


def scored(made: Trainer) -> dict[int, dict[str, float]]:
    return {
        row["step"]: {name: value for name, value in row.items() if name.startswith("eyechart/")}
        for row in made.state.log_history
        if any(name.startswith("eyechart/") for name in row)
    }


def test_the_training_is_the_same_to_the_bit_with_it_and_without(tmp_path):
    plain = trainer(tmp_path / "a")
    plain.train()
    watched = trainer(tmp_path / "b", ScoreCallback(disturbing, every_steps=2, at_start=True))
    watched.train()
    assert sorted(scored(watched)) == [0, 2, 4, 6, 8, 10, 12]
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, watched.model.state_dict()[name]), name
    losses = [[row["loss"] for row in one.state.log_history if "loss" in row] for one in (plain, watched)]
    assert losses[0] == losses[1]


def test_numbers_are_in_the_log_history_and_reach_other_loggers_when_attached(tmp_path):
    seen: list[dict[str, float]] = []

    class Logger(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(dict(logs))

    alone = trainer(tmp_path / "a", ScoreCallback(disturbing, every_epochs=1), Logger())
    alone.train()
    assert sorted(scored(alone)) == [6, 12]
    assert set(scored(alone)[6]) == {"eyechart/pair_accuracy", "eyechart/n"}
    assert not any("eyechart/n" in logs for logs in seen)
    made = trainer(tmp_path / "b", Logger())
    ScoreCallback(disturbing, every_epochs=1, prefix="eyechart/world_").attach(made)
    made.train()
    assert sorted(scored(made)) == [6, 12]
    assert sum("eyechart/world_n" in logs for logs in seen) == 2


def test_only_at_the_end_unless_more_is_asked_for_and_once_a_step(tmp_path):
    made = trainer(tmp_path / "a", ScoreCallback(disturbing))
    made.train()
    assert sorted(scored(made)) == [12]
    both = trainer(tmp_path / "b", ScoreCallback(disturbing, every_steps=6, every_epochs=1))
    both.train()
    assert [row["step"] for row in both.state.log_history if "eyechart/n" in row] == [6, 12]


def test_an_error_of_the_score_ends_nothing_unless_strict(tmp_path, caplog):
    def broken(model: nn.Module) -> dict[str, float]:
        raise ZeroDivisionError("no pairs")

    made = trainer(tmp_path / "a", ScoreCallback(broken, every_steps=6))
    with caplog.at_level(logging.WARNING):
        made.train()
    assert scored(made) == {6: {"eyechart/failed": 1.0}, 12: {"eyechart/failed": 1.0}}
    assert "scoring at step 6 failed" in caplog.text
    assert "ZeroDivisionError: no pairs" in caplog.text
    assert made.model.training
    with pytest.raises(ZeroDivisionError, match="no pairs"):
        trainer(tmp_path / "b", ScoreCallback(broken, every_steps=6, strict=True)).train()
    with pytest.raises(UserError, match="the score 'name' is 'blue'"):
        trainer(tmp_path / "c", ScoreCallback(lambda model: {"name": "blue"}, strict=True)).train()


def interrupted(model: nn.Module) -> None:
    with unnoticed(model):
        assert not model.training
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        raise RuntimeError("in the middle")


def test_modes_and_generators_are_put_back_even_after_an_error():
    model = Model()
    model.train()
    model.frozen.eval()
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    with pytest.raises(RuntimeError, match="in the middle"):
        interrupted(model)
    assert model.training
    assert not model.frozen.training
    assert torch.is_grad_enabled()
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("options", [{"every_steps": 0}, {"every_epochs": -1}, {"at_end": False}])
def test_turns_that_never_come_are_refused(options):
    with pytest.raises(UserError, match=r"expected 1 or more|nothing would ever be scored"):
        ScoreCallback(disturbing, **options)


def test_a_set_is_scored_while_a_vlm_is_trained(tmp_path, checkpoint_dir):
    """A real VLM under the Trainer: the set's measures at the start and the end, and the same weights as without."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = checkpoint_dir("llava")
    benchmark = load_benchmark(small_world(tmp_path / "world", pairs=2))
    processor = AutoProcessor.from_pretrained(folder)
    ids = torch.tensor(processor.tokenizer("a red box on a table")["input_ids"])

    class Texts(Dataset[dict[str, Tensor]]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, place: int) -> dict[str, Tensor]:
            return {"input_ids": ids, "labels": ids}

    def trained(name: str, *callbacks: Any) -> Trainer:
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_pretrained(folder)
        args = TrainingArguments(
            output_dir=str(tmp_path / name), per_device_train_batch_size=2, max_steps=2, learning_rate=0.01,
            report_to="none", disable_tqdm=True, save_strategy="no", use_cpu=True,
        )  # fmt: skip
        made = Trainer(model=model, args=args, train_dataset=Texts(), callbacks=list(callbacks))
        made.train()
        return made

    plain = trained("a")
    watched = trained(
        "b", ScoreCallback(scorer(benchmark, processor), every_steps=1, at_start=True, strict=True)
    )
    found = scored(watched)
    assert sorted(found) == [0, 1, 2]
    for row in found.values():
        assert 0 <= row["eyechart/pair_accuracy_low"] <= row["eyechart/pair_accuracy"] <= 1
        assert row["eyechart/unread"] <= 1
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, watched.model.state_dict()[name]), name
