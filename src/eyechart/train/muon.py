"""Muon for the matrices of a transformer's blocks and AdamW for everything else, as one optimiser.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), as `torch.optim.Muon` computes it; a
step's size is brought to AdamW's as in arXiv 2502.16982, so that one learning rate serves both.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer


class MuonAndAdamW(Optimizer):
    """Both optimisers behind one interface: schedules see all groups, checkpoints hold both states."""

    def __init__(
        self,
        model: nn.Module,
        *,
        learning_rate: float,
        muon_rate: float,
        weight_decay: float,
        undecayed: Callable[[str], bool],
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
    ) -> None:
        """Share the trainable parameters of a model out.

        Args:
            muon_rate: the blocks' matrices learn at so many times the rate of the rest.
            weight_decay: of both, as a share of the weights at a rate of 1.
            undecayed: whether AdamW leaves the parameter of a name without decay.

        Raises:
            ValueError: the model has no trainable matrix in a block.
        """
        taught = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        inner = [value for name, value in taught if in_block(name, value)]
        if not inner:
            raise ValueError("Muon was asked for, but no block of the model has a matrix that is trained")
        rest = [(name, value) for name, value in taught if not in_block(name, value)]
        self.muon = Muon(
            inner, lr=learning_rate * muon_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = AdamW(
            [
                {"params": [v for n, v in rest if not undecayed(n)], "weight_decay": weight_decay},
                {"params": [v for n, v in rest if undecayed(n)], "weight_decay": 0.0},
            ],
            lr=learning_rate,
            betas=betas,
            eps=eps,
        )
        super().__init__([value for _, value in taught], {})
        self._join()

    def _join(self) -> None:
        """Show the two optimisers' own groups, so that whoever sets a rate sets theirs."""
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]

    def step(self, closure: Any = None) -> Any:
        """Take a step with each."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        self.muon.step()  # type: ignore[no-untyped-call]
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Both states by name."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take both states back."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._join()


def in_block(name: str, value: Tensor) -> bool:
    """Whether Muon takes a parameter: a matrix inside a list of layers; never embeddings, heads, norms or biases."""
    return value.ndim == 2 and (".layers." in f".{name}" or ".layer." in f".{name}")
