"""A set scored while a model is trained, without the training noticing.

What scores is a callable, so that this room knows no benchmark; `score.during.scorer` makes one of a set:

    from eyechart.score import load_benchmark
    from eyechart.score.during import scorer
    from eyechart.train.callback import ScoreCallback

    score = scorer(load_benchmark("./my-set"), processor)
    ScoreCallback(score, every_steps=200).attach(trainer)
"""

import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from eyechart.core.errors import UserError

log = logging.getLogger(__name__)

Score = Callable[[Any], Mapping[str, float]]
"""Gets the model, in eval mode and without gradients; gives numbers by name."""

PREFIX = "eyechart/"


class ScoreCallback(TrainerCallback):
    """Calls `score(model)` every so many steps or epochs and puts its numbers into the trainer's log history.

    The training is the same to the bit with it and without: all random states, the mode of every module and whether
    gradients are recorded are as before. On several processes every one of them scores, since a sharded model needs
    all of them for a forward pass.
    """

    def __init__(
        self,
        score: Score,
        *,
        every_steps: int | None = None,
        every_epochs: int | None = None,
        at_start: bool = False,
        at_end: bool = True,
        prefix: str = PREFIX,
        strict: bool = False,
    ) -> None:
        """Say what scores, and when.

        Args:
            score: gets the model; see `Score`.
            every_steps: after so many optimiser steps.
            every_epochs: after so many epochs.
            at_start: before the first step as well (of a resumed run, before its first one).
            at_end: after the last step, where that is not a turn anyway.
            prefix: what the names of the numbers begin with in the log.
            strict: let an error of `score` end the training. Else it is logged with its traceback, the number
                `<prefix>failed` is 1 at that step, and the training goes on.

        Raises:
            UserError: a count is below 1, or there is no turn at all.
        """
        for name, given in (("every_steps", every_steps), ("every_epochs", every_epochs)):
            if given is not None and given < 1:
                raise UserError(f"{name} is {given}; expected 1 or more")
        if every_steps is None and every_epochs is None and not (at_start or at_end):
            raise UserError(
                "nothing would ever be scored; give every_steps, every_epochs, at_start or at_end"
            )
        self.score = score
        self.every_steps, self.every_epochs = every_steps, every_epochs
        self.at_start, self.at_end = at_start, at_end
        self.prefix, self.strict = prefix, strict
        self._trainer: Trainer | None = None
        self._scored_at = -1

    def attach(self, trainer: Trainer) -> "ScoreCallback":
        """Add it to a trainer whose other loggers (`report_to`) then get the numbers too.

        Given to a trainer as one of its `callbacks` instead, the numbers are in `state.log_history` alone.
        """
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score at the start, where that was asked for."""
        self._scored_at = -1
        if self.at_start:
            self._take_turn(state, kwargs.get("model"))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score after every so many steps."""
        if self.every_steps is not None and state.global_step % self.every_steps == 0:
            self._take_turn(state, kwargs.get("model"))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score after every so many epochs."""
        if self.every_epochs is not None and round(state.epoch or 0) % self.every_epochs == 0:
            self._take_turn(state, kwargs.get("model"))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score the trained model, where that was asked for."""
        if self.at_end:
            self._take_turn(state, kwargs.get("model"))

    def _take_turn(self, state: TrainerState, model: nn.Module | None) -> None:
        """Once a step, whatever asks for it."""
        if model is None or state.global_step == self._scored_at:
            return
        self._scored_at = state.global_step
        try:
            with unnoticed(model):
                found = {
                    self.prefix + name: _number(name, value) for name, value in self.score(model).items()
                }
        except Exception:
            if self.strict:
                raise
            log.warning("scoring at step %d failed; the training goes on", state.global_step, exc_info=True)
            found = {f"{self.prefix}failed": 1.0}
        if self._trainer is not None:
            self._trainer.log(found)
        else:
            epoch = {} if state.epoch is None else {"epoch": state.epoch}
            state.log_history.append({**found, **epoch, "step": state.global_step})


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"the score {name!r} is {value!r}; expected a number") from None
    if math.isinf(number):
        raise UserError(f"the score {name!r} is infinite; expected a number")
    return number


@contextmanager
def unnoticed(model: nn.Module) -> Iterator[None]:
    """Run a block with the model in eval mode and without gradients, and leave no trace of it.

    Put back are the mode of every module and the states of Python's, NumPy's and torch's random generators (CPU, CUDA,
    MPS). Parameters, gradients and buffers are the block's own responsibility.
    """
    modes = [(module, module.training) for module in model.modules()]
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 -- the global generator is what is kept
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        model.eval()
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if mps is not None:
            torch.mps.set_rng_state(mps)
