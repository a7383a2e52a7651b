"""The one training loop: the HF Trainer fed by a function of the step, so that a resumed run is the unbroken one."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from jaxtyping import Int64
from numpy import ndarray
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.utils.data import DataLoader, Dataset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from eyechart.core.devices import keep_freed_memory, pick_device
from eyechart.core.errors import UserError
from eyechart.core.files import write_json
from eyechart.models.quiet import quiet
from eyechart.train.muon import MuonAndAdamW
from eyechart.train.weights import named, put_named

logger = logging.getLogger(__name__)

Batch = dict[str, Any]
"""Tensors by name, as the objective takes them; the loop moves them to the model's device."""

Objective = Callable[[nn.Module, Batch], Tensor]
"""The loss of a model on a batch: one finite number with a gradient."""

Batches = Callable[[int], Batch]
"""The batch of a step, counted from 0. It must be a function of the step alone: no generator that remembers.

With gradient accumulation, or on several processes, a step has several batches: they are counted through.
"""

Report = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is."""

WEIGHTS = "model.safetensors"
"""The weights' file in a checkpoint, under the name that transformers uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train; every name but `muon_rate` is the one of `transformers.TrainingArguments` and means the same."""

    max_steps: int
    per_device_train_batch_size: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    adam_epsilon: float = 1e-8
    muon_rate: float = 0.0
    """The matrices of the blocks are trained by Muon at so many times the learning rate; 0 leaves all to AdamW."""
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = 100
    max_grad_norm: float = 1.0
    gradient_accumulation_steps: int = 1
    """So many batches make up a step."""
    logging_steps: int = 20
    save_steps: int = 200
    dataloader_num_workers: int = 0
    bf16: bool = False
    """For GPUs; on a CPU without bf16 units it is many times slower than float32."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse counts below one."""
        counts = ("max_steps", "per_device_train_batch_size", "gradient_accumulation_steps")
        for name in (*counts, "logging_steps", "save_steps"):
            if (given := getattr(self, name)) < 1:
                raise UserError(f"{name} is {given}; it must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffled:
    """Which items make up the batch of a step: every epoch in an order of its own, its last odd items left out."""

    items: int
    batch_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse batches larger than the set."""
        if not 1 <= self.batch_size <= self.items:
            raise UserError(
                f"batches of {self.batch_size} out of {self.items} items: need 1 <= batch <= items"
            )

    def at(self, step: int) -> tuple[int, Int64[ndarray, " batch"]]:
        """The epoch of a step, counted from 0, and the indices of its items."""
        epoch, turn = divmod(step, self.items // self.batch_size)
        order = _order(self.items, self.seed, epoch)
        return epoch, order[turn * self.batch_size : (turn + 1) * self.batch_size]


@lru_cache(maxsize=4)
def _order(items: int, seed: int, epoch: int) -> Int64[ndarray, " items"]:
    return np.random.default_rng((seed, epoch)).permutation(items)


def fit(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    settings: Settings,
    folder: Path,
    *,
    identity: Mapping[str, Any] | None = None,
    after_step: Callable[[nn.Module, int], None] | None = None,
    report: Report | None = None,
    summed: bool = False,
    kept: Collection[str] | None = None,
    checkpointing: bool = False,
) -> Path:
    """Train `model` in place, from the newest whole checkpoint in `folder` if there is one.

    A run that was killed and started again with the same arguments ends with the weights of the unbroken one:
    weights, optimiser, schedule and all random states are restored, and a step's batch depends on the step alone.

    Args:
        objective: gets the model in training mode and the batch.
        batches: gets the step, counted from 0 (see `Batches`).
        folder: `checkpoint-N` (the newest only), `loss.jsonl` and `settings.json` are written there.
        identity: anything else that makes the run what it is (data, sizes); a folder with another one is refused.
        after_step: called after each optimiser step with the model and the number of steps done, for averages
            of weights and the like; what it changes must be in the model's state.
        report: called after each step with "train", steps done and steps in all.
        summed: the objective gives a sum over the batch's `labels` (all but -100), not a mean. It is divided by how
            many there are in the whole step, over all its batches and processes: transformers' `num_items_in_batch`.
            So a step is the same however it is cut into batches.
        kept: the names of the parameters that checkpoints hold, where the others are frozen; all of the model's state
            unless given. (A model sharded by FSDP is stored whole.)
        checkpointing: compute activations anew in the backward pass; the model has to know how.

    Returns:
        The folder of the last checkpoint, which holds the trained weights.

    Raises:
        UserError: the folder belongs to a run with other settings.
        FloatingPointError: a loss is not finite.
    """
    keep_freed_memory()
    arguments = _arguments(settings, folder, checkpointing=checkpointing)
    with arguments.main_process_first(local=False):
        if arguments.process_index == 0:
            folder.mkdir(parents=True, exist_ok=True)
            _claim(folder, {"settings": asdict(settings), "identity": dict(identity or {})})
        newest = _newest_checkpoint(folder)
    trainer = _Trainer(model=model, args=arguments, callbacks=[_Watch(folder, after_step, report)])
    trainer.objective, trainer.batches, trainer.muon_rate = objective, batches, settings.muon_rate
    trainer.kept = None if kept is None else frozenset(kept)
    trainer.model_accepts_loss_kwargs = trainer.loss_is_scaled_for_ga = summed
    trainer.remove_callback(PrinterCallback)
    with quiet():
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    last = folder / f"checkpoint-{settings.max_steps}"
    trainer.gather_into(last)
    return last


def take_newest(model: nn.Module, folder: Path) -> None:
    """Give `model` the weights of the newest whole checkpoint that `fit` wrote in `folder`.

    Raises:
        UserError: there is none.
    """
    newest = _newest_checkpoint(folder)
    if newest is None:
        raise UserError(f"{folder} holds no checkpoint; name the folder of a training that has written one")
    load_model(model, newest / WEIGHTS, strict=True)


def together() -> PartialState:
    """The processes that train together, each with its device.

    Without a GPU they have to be told so: else transformers takes each of them for the only one, and all train the same.
    """
    return PartialState(cpu=pick_device().device.type == "cpu")


def _arguments(settings: Settings, folder: Path, *, checkpointing: bool) -> TrainingArguments:
    known = {name: value for name, value in asdict(settings).items() if name != "muon_rate"}
    return TrainingArguments(
        output_dir=str(folder),
        **known,
        save_strategy="steps",
        save_total_limit=1,
        logging_strategy="steps",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        use_cpu=pick_device().device.type == "cpu",
        activation_checkpointing=checkpointing,
    )


def _claim(folder: Path, wanted: dict[str, Any]) -> None:
    """Write down what runs here, or refuse a folder in which something else began.

    A setting that was not there yet when the folder began had its default.
    """
    path = folder / "settings.json"
    if not path.exists():
        write_json(path, wanted)
        return
    there, here = json.loads(path.read_text()), json.loads(json.dumps(wanted))
    usual = {field.name: field.default for field in fields(Settings)}
    there["settings"] = {name: usual[name] for name in here["settings"] if name in usual} | there["settings"]
    differing = [
        f"{key} was {there[part].get(key)!r}, now {here[part].get(key)!r}"
        for part in here
        for key in sorted(there[part].keys() | here[part].keys())
        if there[part].get(key) != here[part].get(key)
    ]
    if differing:
        raise UserError(
            f"{folder} holds a run with other settings ({'; '.join(differing)}). Name another folder, or remove it"
        )


def _newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; the Trainer writes `trainer_state.json` last."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in reversed(found):
        try:
            json.loads((path / "trainer_state.json").read_text())
        except (FileNotFoundError, ValueError):
            logger.warning("%s was not written to its end and is removed", path)
            shutil.rmtree(path)
        else:
            return path
    return None


class _Steps(Dataset[Batch]):
    """Batches as a data set: item number n is a whole batch; every process takes its own in turn."""

    def __init__(self, batches: Batches, count: int, process: int, processes: int) -> None:
        self._batches, self._count = batches, count
        self._process, self._processes = process, processes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Batch:
        return self._batches(number * self._processes + self._process)


def _only(batches: list[Batch]) -> Batch:
    return batches[0]


class _Trainer(Trainer):
    objective: Objective
    batches: Batches
    muon_rate: float
    kept: frozenset[str] | None

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Muon with AdamW where it is asked for, else what the Trainer makes."""
        if self.muon_rate and self.optimizer is None:
            taught = model or self.model
            assert taught is not None
            decayed = set(self.get_decay_parameter_names(taught))
            self.optimizer = MuonAndAdamW(
                taught,
                learning_rate=self.args.learning_rate,
                muon_rate=self.muon_rate,
                weight_decay=self.args.weight_decay,
                undecayed=lambda name: name not in decayed,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
            )
        made: torch.optim.Optimizer = super().create_optimizer(model)
        return made

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """One pass over all steps, in order; on resuming, the Trainer skips by step without making a batch."""
        count = self.args.max_steps * self.args.gradient_accumulation_steps
        return DataLoader(
            _Steps(self.batches, count, self.args.process_index, self.args.world_size),
            batch_size=1,
            collate_fn=_only,
            num_workers=self.args.dataloader_num_workers,
        )

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, inputs: Batch, **kwargs: Any
    ) -> Tensor:
        """The objective's loss, which must be finite; a sum is divided by the labels of the whole step."""
        loss = self.objective(model, inputs)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {self.state.global_step}")
        if (
            self.loss_is_scaled_for_ga
        ):  # gradients are averaged over the processes, so each loss counts as many times
            loss = loss * self.args.world_size / kwargs["num_items_in_batch"]
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Keep the weights under the names they have in memory.

        `save_pretrained` renames those of some models (ViT-MAE, LLaVA), and the Trainer, resuming, passes over names
        it does not find: a killed run would begin anew, unnoticed.
        """
        assert self.model is not None
        if not self.args.should_save or self.is_fsdp_enabled:  # the Trainer stores a sharded model by itself
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        if self.kept is None:
            save_model(self.model, str(folder / WEIGHTS))
        else:
            save_file(named(self.model, self.kept), folder / WEIGHTS)

    def gather_into(self, folder: Path) -> None:
        """Put a sharded model's weights together in a checkpoint, as those of a model that is not sharded stand there."""
        if not self.is_fsdp_enabled:
            return
        assert self.model is not None
        values: dict[str, Any] = get_model_state_dict(
            self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
        )
        if self.args.should_save:
            save_file({name: value.clone() for name, value in values.items()}, folder / WEIGHTS)
        torch.distributed.barrier()

    def _save_rng_state(self, output_dir: str) -> None:
        """Have all processes' states on the disk before the file that says the checkpoint is whole."""
        super()._save_rng_state(output_dir)
        if self.args.world_size > 1:
            torch.distributed.barrier()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Read the weights back; a name too many or too few is an error."""
        kept_in = model or self.model
        assert kept_in is not None
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        elif self.kept is None:
            load_model(kept_in, Path(resume_from_checkpoint) / WEIGHTS, strict=True)
        else:
            put_named(kept_in, load_file(Path(resume_from_checkpoint) / WEIGHTS), self.kept)


class _Watch(TrainerCallback):
    """Progress, the loss log, and what is to be done after each step."""

    def __init__(
        self, folder: Path, after_step: Callable[[nn.Module, int], None] | None, report: Report | None
    ) -> None:
        self._log = folder / "loss.jsonl"
        self._after_step, self._report = after_step, report
        self._began, self._first = time.monotonic(), 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Drop what was logged after the checkpoint this run continues from."""
        self._began, self._first = time.monotonic(), state.global_step
        if not state.is_world_process_zero:
            return
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        kept = [
            line for line in lines if line.endswith("}") and json.loads(line)["step"] <= state.global_step
        ]
        self._log.write_text("".join(f"{line}\n" for line in kept))
        if self._report is not None:
            self._report("train", state.global_step, state.max_steps)

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Let the caller do his part; the Trainer counts the step only after this."""
        if self._after_step is not None and model is not None:
            self._after_step(model, state.global_step + 1)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report progress."""
        if self._report is not None and state.is_world_process_zero:
            self._report("train", state.global_step, state.max_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append the mean loss since the last line, with rate and time left."""
        if logs is None or "loss" not in logs or not state.is_world_process_zero:
            return
        passed = time.monotonic() - self._began
        rate = (state.global_step - self._first) / max(passed, 1e-9)
        line = {"step": state.global_step, "loss": logs["loss"], "learning_rate": logs["learning_rate"]}
        line |= {"grad_norm": float(logs["grad_norm"]), "seconds": round(passed, 1)}
        with self._log.open("a") as out:
            out.write(json.dumps(line) + "\n")
        logger.info(
            "step %d of %d, loss %.4f, %.2f steps/s, %.1f min left",
            state.global_step,
            state.max_steps,
            logs["loss"],
            rate,
            (state.max_steps - state.global_step) / rate / 60,
        )
