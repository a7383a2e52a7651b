"""A VLM's adapters in a file of their own, each tensor under its adapter's exact name.

The published code saved whatever had `mm_projector` in its name and loaded what followed it, so that of two adapters the
second overwrote the first (papers: arXiv 2401.06209, its training code). Here a name missing, too many or twice is an error.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eyechart.core.errors import UserError

ADAPTERS = "adapters.safetensors"


def adapter_values(adapters: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Every tensor of every adapter, as ADAPTER.NAME."""
    return {
        f"{name}.{key}": value for name, one in adapters.items() for key, value in one.state_dict().items()
    }


def save_adapters(adapters: Mapping[str, nn.Module], file: Path) -> Path:
    """Write the adapters and nothing else."""
    file.parent.mkdir(parents=True, exist_ok=True)
    values = {
        name: value.detach().cpu().contiguous().clone() for name, value in adapter_values(adapters).items()
    }
    save_file(values, file, metadata={"format": "pt"})
    return file


@torch.no_grad()
def load_adapters(adapters: Mapping[str, nn.Module], file: Path) -> None:
    """Read them back, in place.

    Raises:
        UserError: there is no such file, or it does not hold exactly these adapters in these shapes.
    """
    if not file.is_file():
        raise UserError(f"there are no adapters {file}; run stage 1 first, or leave it out of the recipe")
    there, here = load_file(file), adapter_values(adapters)
    odd = sorted(there.keys() ^ here.keys())
    odd += [name for name in here if name in there and here[name].shape != there[name].shape]
    if odd:
        raise UserError(
            f"{file} holds other adapters than this model has; missing, too many or of another shape: {', '.join(odd[:6])}"
        )
    for name, value in here.items():
        value.copy_(there[name])
