"""Device, number format, batch size and seeds: what was asked for or the best there is, with the reason."""

import platform
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from eyechart.core.devices import DTYPES, pick_batch_size, pick_device, pick_dtype, seeded
from eyechart.core.errors import UserError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def machine(monkeypatch):
    """A function that pretends this machine has so many GPUs of a kind, and bfloat16 or not."""

    def pretend(*, cuda=0, mps=False, bfloat16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"card {index}")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


class TestDevice:
    @pytest.mark.parametrize("wish", [None, "auto"])
    def test_auto_takes_the_fastest_and_says_so(self, wish, machine):
        machine()
        assert pick_device(wish) == (CPU, "auto: no GPU that torch can use")
        machine(mps=True)
        assert pick_device(wish) == (torch.device("mps"), "auto: Apple GPU")
        machine(cuda=2, mps=True)
        assert pick_device(wish) == (CUDA, "auto: card 0")

    def test_a_wish_is_followed(self, machine):
        machine(cuda=2, mps=True)
        for wish in ("cpu", "cuda", "cuda:1", "mps"):
            assert pick_device(wish) == (torch.device(wish), f"asked for: {wish}")

    @pytest.mark.parametrize(
        ("wish", "says"),
        [
            ("cuda", r"device 'cuda' was asked for, but torch sees 0 of kind cuda; try 'auto' or 'cpu'"),
            ("cuda:3", "device 'cuda:3' was asked for, but torch sees 0"),
            ("mps", "torch sees 0 of kind mps"),
            ("cpu:1", "torch sees 1 of kind cpu"),
            ("cuda:x", "'x' is no number; say for example 'cuda:0'"),
            ("cuba", r"no device named 'cuba'\. Did you mean 'cuda'\? There are: auto, cpu, cuda, mps"),
        ],
    )
    def test_what_is_not_there(self, wish, says, machine):
        machine()
        with pytest.raises(UserError, match=says):
            pick_device(wish)

    def test_this_machines_choice_can_compute(self):
        device, reason = pick_device()
        assert torch.ones(2, device=device).sum().item() == 2
        assert reason.startswith("auto: ")


class TestDtype:
    @pytest.mark.parametrize("wish", [None, "auto"])
    def test_auto(self, wish, machine):
        machine(cuda=1)
        assert pick_dtype(CPU, wish) == (
            torch.float32,
            "auto: cpu computes in float32 unless asked otherwise",
        )
        assert pick_dtype(CUDA, wish) == (torch.bfloat16, "auto: cuda with native bfloat16")
        machine(cuda=1, bfloat16=False)
        assert pick_dtype(CUDA, wish).dtype == torch.float32

    @pytest.mark.parametrize("name", sorted(DTYPES))
    def test_a_wish_is_followed(self, name):
        assert pick_dtype(CPU, name) == (getattr(torch, name), f"asked for: {name}")

    def test_an_unknown_format(self):
        with pytest.raises(
            UserError, match=r"no dtype named 'float23'\. Did you mean 'float32'\? There are: auto, "
        ):
            pick_dtype(CPU, "float23")

    def test_a_format_the_card_has_not(self, machine):
        machine(cuda=1, bfloat16=False)
        with pytest.raises(
            UserError, match="'bfloat16' is not native to cuda:0; ask for 'float16' or 'float32'"
        ):
            pick_dtype(CUDA, "bfloat16")


class TestBatchSize:
    def test_a_wish_is_followed_untried(self):
        assert pick_batch_size(7, device=CUDA, default=32, fits=None) == (7, "asked for: 7")
        with pytest.raises(UserError, match="batch size must be 1 or more, got 0"):
            pick_batch_size(0, device=CPU, default=8)

    def test_where_memory_gives_no_sign_the_default_is_taken(self):
        def never(size):
            raise AssertionError("tried")

        assert pick_batch_size(None, device=CPU, default=8, fits=never) == (
            8,
            "auto: 8, not tried out on cpu",
        )
        assert pick_batch_size(None, device=CUDA, default=8).value == 8

    @pytest.mark.parametrize(
        ("room", "wanted", "tries"), [(100, 32, [32]), (10, 8, [32, 16, 8]), (1, 1, [32, 16, 8, 4, 2, 1])]
    )
    def test_it_is_halved_until_it_fits(self, room, wanted, tries, machine):
        machine(cuda=1)
        tried = []

        def fits(size):
            tried.append(size)
            if size > room:
                raise torch.OutOfMemoryError

        choice = pick_batch_size(None, device=CUDA, default=32, fits=fits)
        assert choice == (wanted, f"auto: {wanted} fits, tried from 32 downwards")
        assert tried == tries

    def test_not_even_one(self, machine):
        machine(cuda=1)

        def full(size):
            raise torch.OutOfMemoryError

        with pytest.raises(UserError, match="not even one item fits in the memory of cuda:0"):
            pick_batch_size(None, device=CUDA, default=4, fits=full)

    def test_other_errors_are_not_swallowed(self, machine):
        machine(cuda=1)

        def broken(size):
            raise RuntimeError("shapes do not match")

        with pytest.raises(RuntimeError, match="shapes do not match"):
            pick_batch_size(None, device=CUDA, default=4, fits=broken)


def draws():
    return random.random(), float(np.random.rand()), torch.rand(2).tolist()  # noqa: NPY002


class TestSeeded:
    def test_same_seed_same_draws_and_the_outside_goes_on_as_if_nothing_was(self):
        with seeded(1):
            draws()
            expected = draws()
        with seeded(1):
            with seeded(2):
                first = draws()
            draws()
            assert draws() == expected
        with seeded(2):
            assert draws() == first
        assert first != expected

    def test_state_comes_back_after_an_error(self):
        with seeded(3):
            expected = draws()
        with seeded(3):
            with pytest.raises(ValueError, match="inside"), seeded(4):
                raise ValueError("inside")
            assert draws() == expected


@pytest.mark.gpu
def test_on_a_real_card():
    device, reason = pick_device("auto")
    assert (device.type, reason) == ("cuda", f"auto: {torch.cuda.get_device_name(0)}")
    assert pick_device("cuda:0").device == device
    with pytest.raises(UserError, match="torch sees"):
        pick_device(f"cuda:{torch.cuda.device_count()}")
    dtype = pick_dtype(device).dtype
    assert (
        torch.ones(4, 4, device=device, dtype=dtype)
        .matmul(torch.ones(4, 4, device=device, dtype=dtype))
        .sum()
        == 64
    )
    with seeded(0):
        first = torch.rand(3, device=device)
    with seeded(0):
        assert torch.equal(torch.rand(3, device=device), first)
    total = torch.cuda.get_device_properties(device).total_memory
    item = total // 3

    def fits(size):
        torch.empty(size * item, dtype=torch.uint8, device=device)

    assert pick_batch_size(None, device=device, default=16, fits=fits).value == 2


FAULTS = """
import resource
import torch
from eyechart.core.devices import keep_freed_memory

def faults():
    for use in range(30):  # the first ones find the place
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(12_500_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), keep_freed_memory(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.slow
def test_memory_that_was_freed_is_not_faulted_in_again():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    given_back, did, kept = done.stdout.split()
    assert did == "True"
    assert int(given_back) > 20 * max(1, int(kept))
