"""What a step of Muon on the zoo's language model takes: torch's own, and ours in the weights' precision.

Run: python bench/muon_step.py [ROUNDS]. The matrices of the blocks of the bundled model, one thread. The two take turns on
the same gradients. The limit is the products of matrices that a step needs, at the speed of one large product. Their steps
must differ by no more than bfloat16 rounds. Minimum, median and maximum of the milliseconds over the rounds.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.optim import Muon, Optimizer
from transformers import AutoModelForCausalLM

from eyechart import zoo
from eyechart.train.muon import FullMuon, in_block


def milliseconds(work: Callable[[], object]) -> float:
    """How long it takes once."""
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def limit(shapes: list[torch.Size]) -> float:
    """The least that the products of a step can take, in milliseconds."""
    side = 1536
    first, second = torch.randn(2, side, side)
    fastest = min(milliseconds(lambda: first @ second) for _ in range(5)) / (2 * side**3)
    work = sum(5 * 2 * (2 * min(shape) ** 2 * max(shape) + min(shape) ** 3) for shape in shapes)
    return fastest * work


def main(rounds: int) -> None:
    """Both in turn, and what came out."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(zoo.path("lm"))
    start = [value.detach() for name, value in model.named_parameters() if in_block(name, value)]
    theirs, ours = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    arms: dict[str, Optimizer] = {
        "torch.optim.Muon": Muon(theirs, lr=1e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        "FullMuon": FullMuon(ours, lr=1e-3, weight_decay=0.05),
    }
    took: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in range(rounds + 1):
        for one, other in zip(theirs, ours, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for arm, optimiser in arms.items():
            spent = milliseconds(optimiser.step)
            if turn:
                took[arm].append(spent)
    moved = max(
        float(((one - other).abs().max() / (one - began).abs().max()).detach())
        for one, other, began in zip(theirs, ours, start, strict=True)
    )
    if moved > 0.05:
        raise SystemExit(f"the steps differ by {moved:.3f} of the longest")
    for arm, found in took.items():
        print(f"{arm}: {min(found):.0f} to {statistics.median(found):.0f} to {max(found):.0f} ms a step")
    print(f"limit: {limit([value.shape for value in start]):.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
