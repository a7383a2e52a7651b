"""What the adapters to timm and open_clip share: the import, block states by hooks, and a hash of the weights."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from eyechart.core.errors import UserError, need


def load_extra(module: str, *, why: str, extra: str) -> ModuleType:
    """Import timm or open_clip, both of which need a torchvision built for the installed torch.

    Raises:
        UserError: the package or torchvision is missing, or torchvision does not fit torch.
    """
    try:
        return need(module, why=why, extra=extra)
    except ModuleNotFoundError as error:
        raise UserError(f"{why}: {module} itself needs the package {error.name!r}; install it too") from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        raise UserError(
            f"{why}: the installed torchvision was not built for torch {torch.__version__} ({error}); install both from one "
            "source"
        ) from error


@contextmanager
def block_states(blocks: Sequence[nn.Module], wanted: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Catch the states between blocks while the model runs: 0 is what enters the first, n is what leaves block n."""
    caught: dict[int, Tensor] = {}
    hooks = []
    if 0 in wanted:
        hooks.append(blocks[0].register_forward_pre_hook(lambda module, args: caught.update({0: args[0]})))
    for place in set(wanted) - {0}:
        hooks.append(blocks[place - 1].register_forward_hook(_catcher(caught, place)))
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


def weights_sha256(model: nn.Module) -> str:
    """A hash of a model's weights and buffers by name, whatever file they came from."""
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        whole.update(f"{name}\0{data.dtype}\0{tuple(data.shape)}\0".encode())
        whole.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _catcher(caught: dict[int, Tensor], place: int) -> Any:
    def catch(module: nn.Module, args: Any, output: Any) -> None:
        caught[place] = output[0] if isinstance(output, tuple) else output

    return catch
