"""Run a recipe on processes of a CPU, sharded by FSDP2 over gloo if ACCELERATE_USE_FSDP says so: started by torchrun.

accelerate 1.15 shards on GPUs alone: its `AcceleratorState` passes MULTI_CPU over without a word. Told otherwise here, all
the rest is accelerate's and torch's own.
"""

import sys
from pathlib import Path
from typing import Any

from accelerate import state
from accelerate.utils import DistributedType

_made = state.AcceleratorState.__init__


def _sharded(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    _made(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    wanted = fsdp_plugin or self.__dict__.get(
        "fsdp_plugin"
    )  # every state made later takes the type of processes anew
    if wanted is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, wanted


if __name__ == "__main__":
    state.AcceleratorState.__init__ = _sharded
    from eyechart.recipes.llava import train_from_file

    train_from_file(Path(sys.argv[1]))
