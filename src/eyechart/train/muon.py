"""Muon for the matrices of a transformer's blocks and AdamW for everything else, as one optimiser.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), as `torch.optim.Muon` has it, but in
the weights' own precision and all matrices of a shape at once: torch rounds to bfloat16 on every device, which on a CPU
without units for it took almost half of a training step (bench/muon_step.py). A step's size is brought to AdamW's as in
arXiv 2502.16982, so that one learning rate serves both.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer


class FullMuon(Muon):
    """`torch.optim.Muon` with Nesterov momentum and steps as large as AdamW's, in the precision of the weights."""

    def __init__(self, params: Any, *, lr: float = 1e-3, weight_decay: float = 0.1) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move every matrix that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for value in group["params"]:
                if value.grad is not None:
                    by_shape.setdefault(value.shape, []).append(value)
            for shape, values in by_shape.items():
                turned = orthogonalised(torch.stack([self._pushed(value, group) for value in values]), group)
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for value, push in zip(values, turned, strict=True):
                    value.mul_(1 - group["lr"] * group["weight_decay"]).sub_(push, alpha=size)
        return loss

    def _pushed(self, value: Tensor, group: dict[str, Any]) -> Tensor:
        """The gradient with its momentum, which is brought forward."""
        assert value.grad is not None
        known = self.state[value]
        if "momentum_buffer" not in known:
            known["momentum_buffer"] = torch.zeros_like(value)
        held: Tensor = known["momentum_buffer"]
        held.lerp_(value.grad, 1 - group["momentum"])
        return value.grad.lerp(held, group["momentum"])


def orthogonalised(
    pushes: Float[Tensor, "matrix row column"], group: dict[str, Any]
) -> Float[Tensor, "matrix row column"]:
    """Matrices with the same singular vectors and singular values near 1, by the Newton-Schulz steps of Muon."""
    a, b, c = group["ns_coefficients"]
    tall = pushes.shape[1] > pushes.shape[2]
    found = pushes.mT if tall else pushes
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp_min(group["eps"])
    for _ in range(group["ns_steps"]):
        gram = found @ found.mT
        update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        found = torch.baddbmm(found, update, found, beta=a)
    return found.mT if tall else found


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
        self.muon = FullMuon(inner, lr=learning_rate * muon_rate, weight_decay=weight_decay)
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
        self.muon.step()
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
