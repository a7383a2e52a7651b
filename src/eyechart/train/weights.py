"""Weights by their exact names: hashed, taken out, and put back; a name too many or too few is an error."""

import hashlib
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn


def weights_sha256(module: nn.Module) -> str:
    """A hash of a module's parameters and buffers, names and shapes included: equal means equal bit for bit."""
    return values_sha256(module.state_dict())


def values_sha256(values: Mapping[str, Tensor]) -> str:
    """The same of tensors by name."""
    digest = hashlib.sha256()
    for name, value in sorted(values.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def named(model: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    """The parameters of these names, each stored once."""
    there = dict(model.named_parameters())
    return {name: there[name].detach().cpu().contiguous() for name in sorted(names)}


@torch.no_grad()
def put_named(model: nn.Module, values: Mapping[str, Tensor], names: Collection[str]) -> None:
    """Write values into the parameters of exactly these names, in place.

    Raises:
        RuntimeError: a name is missing or one too many, or a shape differs.
    """
    there = dict(model.named_parameters())
    odd = sorted(set(names) ^ set(values)) + sorted(set(names) - set(there))
    odd += [
        name for name in names if name in values and name in there and values[name].shape != there[name].shape
    ]
    if odd:
        raise RuntimeError(f"weights that are missing, too many or of another shape: {', '.join(odd[:5])}")
    for name in names:
        there[name].copy_(values[name])
