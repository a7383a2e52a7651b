"""Device, number format, seeds and batch size, each chosen with its reason; the only module here that knows torch."""

import ctypes
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from .errors import UserError, unknown

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""The number formats a model can be asked to compute in."""


class DeviceChoice(NamedTuple):
    """A device and why; the reason goes in the manifest."""

    device: torch.device
    reason: str


class DtypeChoice(NamedTuple):
    """A number format and why."""

    dtype: torch.dtype
    reason: str


class BatchChoice(NamedTuple):
    """A batch size and why."""

    value: int
    reason: str


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Keep what this process frees for its next tensor, where the C library is glibc; True if that was done.

    Else every tensor above a few megabytes is mapped anew and each of its pages is faulted in at its first touch: a
    fifth of the time of a training step on a CPU (`bench/train_memory.py`). It holds until the process ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    wanted = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**26}
    return all([mallopt(name, value) == 1 for name, value in wanted.items()])


def pick_device(wish: str | None = None) -> DeviceChoice:
    """The device to compute on: what was asked for (`cpu`, `cuda`, `cuda:1`, `mps`), else the fastest there is.

    Raises:
        UserError: the device asked for is unknown or not on this machine.
    """
    if wish is None or wish == "auto":
        if torch.cuda.is_available():
            return DeviceChoice(torch.device("cuda", 0), f"auto: {torch.cuda.get_device_name(0)}")
        if torch.backends.mps.is_available():
            return DeviceChoice(torch.device("mps"), "auto: Apple GPU")
        return DeviceChoice(torch.device("cpu"), "auto: no GPU that torch can use")
    kind, _, number = wish.partition(":")
    if kind not in ("cpu", "cuda", "mps"):
        raise unknown("device", wish, ["auto", "cpu", "cuda", "mps"])
    if number and not number.isdecimal():
        raise UserError(f"device {wish!r}: {number!r} is no number; say for example 'cuda:0'")
    there = _count(kind)
    if int(number or 0) >= there:
        raise UserError(
            f"device {wish!r} was asked for, but torch sees {there} of kind {kind}; try 'auto' or 'cpu'"
        )
    return DeviceChoice(torch.device(wish), f"asked for: {wish}")


def pick_dtype(device: torch.device, wish: str | None = None) -> DtypeChoice:
    """The number format to compute in: what was asked for, else bfloat16 on GPUs that have it and float32.

    Raises:
        UserError: the format is unknown, or `device` cannot compute in it.
    """
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if wish is None or wish == "auto":
        if native:
            return DtypeChoice(torch.bfloat16, "auto: cuda with native bfloat16")
        return DtypeChoice(torch.float32, f"auto: {device.type} computes in float32 unless asked otherwise")
    if wish not in DTYPES:
        raise unknown("dtype", wish, ["auto", *DTYPES])
    if wish == "bfloat16" and device.type == "cuda" and not native:
        raise UserError(f"dtype 'bfloat16' is not native to {device}; ask for 'float16' or 'float32'")
    return DtypeChoice(DTYPES[wish], f"asked for: {wish}")


def pick_batch_size(
    wish: int | None, *, device: torch.device, default: int, fits: Callable[[int], None] | None = None
) -> BatchChoice:
    """How many items to compute at once: `wish`, else the largest of `default`, half of it, ... that fits.

    Args:
        wish: what was asked for; None for auto.
        device: only on CUDA does running out of memory show as an error; elsewhere `default` is taken.
        default: where auto starts, at least 1.
        fits: computes one batch of the given size; raises torch.OutOfMemoryError when it does not fit.

    Raises:
        UserError: `wish` is below 1, or not even one item fits.
    """
    if wish is not None:
        if wish < 1:
            raise UserError(f"batch size must be 1 or more, got {wish}")
        return BatchChoice(wish, f"asked for: {wish}")
    if fits is None or device.type != "cuda":
        return BatchChoice(default, f"auto: {default}, not tried out on {device.type}")
    size = default
    while size:
        try:
            fits(size)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            size //= 2
        else:
            return BatchChoice(size, f"auto: {size} fits, tried from {default} downwards")
    raise UserError(f"not even one item fits in the memory of {device}; try --dtype or another --device")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with the global generators of Python, NumPy and torch seeded, and put them back afterwards.

    For libraries that draw from global state; code of this package takes a generator or a seed.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (global state is the point)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _count(kind: str) -> int:
    """How many devices of `kind` torch can use."""
    if kind == "cuda":
        return torch.cuda.device_count()
    return int(kind == "cpu" or torch.backends.mps.is_available())
