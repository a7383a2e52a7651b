"""The logit lens: seconds and peak memory of ranking words by every state, beside comparing against full logits.

Run: python bench/lens.py [LAYERS] [PATCHES] [VOCABULARY] [WIDTH] [LABELS] [ROUNDS] [THREADS]; then
`python bench/lens.py memory [LAYERS] [PATCHES] [VOCABULARY] [WIDTH] [LABELS]`. The defaults are LLaVA-1.5's 576 patches
and 32,000 tokens, over 33 layers' states of an eighth of its width. Contenders take turns on the same states and must give
the same ranks: `full` holds the logits of all layers and patches and counts the tokens above each word, `layers` does so
one layer at a time, `sort` sorts each layer's logits as notebooks do, and `bound` is the multiplication by the
unembedding alone, in the same portions. Sums of products differ in the last bit with the shape of the multiplication, so
ranks may differ where two tokens are as near as that; how many do is printed, and more than one in a hundred is an error.
Memory is the peak of a process, less that of one which only holds states and weights, set against the size of full logits.
"""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eyechart.locate.labels import Label, LabelRule
from eyechart.locate.lens import HELD, Lens, Unembedding, lens_ranks

Ranks = Int[Tensor, "layer position label"]
SHAPE = (33, 576, 32_000, 512, 8)
ARMS = ("full", "layers", "sort")


class Case:
    """States of noise, a norm, an unembedding and words."""

    def __init__(self, layers: int, patches: int, vocabulary: int, width: int, labels: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.states = torch.randn(layers, patches, width, generator=generator)
        self.norm = nn.RMSNorm(width)
        self.weight = torch.randn(vocabulary, width, generator=generator).div_(width**0.5)
        self.tokens = [(place + 1) * vocabulary // (labels + 1) for place in range(labels)]
        self.logits_mb = layers * patches * vocabulary * 4 / 2**20

    def normed(self, layer: int) -> Float[Tensor, "position dim"]:
        """One layer's states normed; the last layer is so already."""
        return self.states[layer] if layer == len(self.states) - 1 else self.norm(self.states[layer])

    def all_normed(self) -> Float[Tensor, "layer position dim"]:
        """All of them."""
        return torch.stack([self.normed(layer) for layer in range(len(self.states))])


def ours(case: Case) -> Ranks:
    """Eyechart."""
    labels = [
        Label(word=str(token), rule=LabelRule.WHOLE, tokens=(token,), spelled=(str(token),))
        for token in case.tokens
    ]
    lens = Lens(norm=case.norm, head=Unembedding(weight=case.weight), tokens=len(case.weight))
    layers = len(case.states)
    found = lens_ranks(case.states, labels, lens, normed=[layer == layers - 1 for layer in range(layers)])
    ranks: Ranks = found.ranks
    return ranks


def full(case: Case) -> Ranks:
    """All logits of all layers and patches at once; tokens above each word counted, equal ones as likelier."""
    return _counted(case.all_normed() @ case.weight.T, case.tokens)


def layers(case: Case) -> Ranks:
    """The same a layer at a time."""
    return torch.stack(
        [_counted(case.normed(layer) @ case.weight.T, case.tokens) for layer in range(len(case.states))]
    )


def sort(case: Case) -> Ranks:
    """A layer at a time, with all tokens put in order."""
    ranks = []
    for layer in range(len(case.states)):
        order = (case.normed(layer) @ case.weight.T).argsort(dim=-1, descending=True)
        place = torch.empty_like(order).scatter_(
            -1, order, torch.arange(1, order.shape[-1] + 1).expand_as(order)
        )
        ranks.append(place[:, case.tokens])
    return torch.stack(ranks)


def bound(case: Case) -> None:
    """The logits alone, as many at a time as the lens holds, and nothing done with them."""
    flat, step = case.all_normed().flatten(0, 1), max(1, HELD // len(case.weight))
    buffer = torch.empty(step, len(case.weight))
    for start in range(0, len(flat), step):
        part = flat[start : start + step]
        torch.mm(part, case.weight.T, out=buffer[: len(part)])


def _counted(logits: Float[Tensor, "*state token"], tokens: Sequence[int]) -> Int[Tensor, "*state label"]:
    return torch.stack([(logits >= logits[..., token : token + 1]).sum(dim=-1) for token in tokens], dim=-1)


CONTENDERS: dict[str, Callable[[Case], Ranks]] = {
    "eyechart": ours,
    "full": full,
    "layers": layers,
    "sort": sort,
}


def told(values: Sequence[float], form: str = ".2f") -> str:
    """Least, median and most."""
    return " to ".join(format(value, form) for value in (min(values), statistics.median(values), max(values)))


def speed(shape: Sequence[int], rounds: int, threads: int) -> None:
    """Every contender in turn, and what came out."""
    torch.set_num_threads(threads)
    case = Case(*shape)
    took: dict[str, list[float]] = {name: [] for name in (*CONTENDERS, "bound")}
    found: dict[str, Ranks] = {}
    with torch.no_grad():
        for _ in range(rounds):
            for name, work in CONTENDERS.items():
                began = time.perf_counter()
                found[name] = work(case)
                took[name].append(time.perf_counter() - began)
            began = time.perf_counter()
            bound(case)
            took["bound"].append(time.perf_counter() - began)
    print(
        f"{shape[0]} layers, {shape[1]} patches, {shape[2]} tokens, width {shape[3]}, {shape[4]} words; {threads} threads"
    )
    for name, seconds in took.items():
        ratios = [other / mine for other, mine in zip(seconds, took["eyechart"], strict=True)]
        print(
            f"  {name:9}{told(seconds)} s; eyechart's time is contained {told(ratios)} times in it{_same(found, name)}"
        )


def _same(found: dict[str, Ranks], name: str) -> str:
    if name not in ARMS:
        return ""
    apart = (found[name] - found["eyechart"]).abs()
    if (apart > 0).float().mean() > 0.01 or apart.max() > 2:
        raise SystemExit(
            f"{name}: {int((apart > 0).sum())} of {apart.numel()} ranks differ, by up to {int(apart.max())}"
        )
    return f"; {int((apart > 0).sum())} of {apart.numel()} ranks differ, by up to {int(apart.max())}"


def memory(shape: Sequence[int]) -> None:
    """Peak memory of one process for each contender that does not sort, less that of one which does nothing."""
    peaks, arms = {}, [arm for arm in CONTENDERS if arm != "sort"]
    for arm in ("none", *arms):
        command = [sys.executable, __file__, "child", arm, *map(str, shape)]
        peaks[arm] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    logits = Case(*shape).logits_mb
    print(f"states and weights alone: peak {peaks['none']:.0f} MB; full logits are {logits:.0f} MB")
    for arm in arms:
        more = peaks[arm] - peaks["none"]
        print(f"  {arm:9}{more:7.0f} MB more, 1/{logits / max(more, 1):.1f} of full logits")


def child(arm: str, shape: Sequence[int]) -> None:
    """Rank once and print the peak in MB; `none` makes states and weights only."""
    torch.set_num_threads(1)
    case = Case(*shape)
    with torch.no_grad():
        case.norm(case.states[0][:1])
        if arm != "none":
            CONTENDERS[arm](case)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _numbers(given: Sequence[str], defaults: Sequence[int]) -> list[int]:
    return [*(int(one) for one in given), *defaults[len(given) :]]


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["child"]:
        child(given[1], _numbers(given[2:], SHAPE))
    elif given[:1] == ["memory"]:
        memory(_numbers(given[1:], SHAPE))
    else:
        *shape, rounds, threads = _numbers(given, (*SHAPE, 3, 2))
        speed(shape, rounds, threads)
