"""Small VLMs for the tests of attention cuts: loaded plainly, their towers read off the structure."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from eyechart.core.records import Prompt
from eyechart.models.attention import Call, Cut, taking_calls
from eyechart.models.processors import load_processor
from eyechart.models.vlms.prompting import Prompting
from eyechart.models.vlms.towers import TowerName, resolve_towers
from pictures import picture

PROMPT = Prompt(text="A dog?", images=(picture(90, 60, 1),))


class Small:
    """A small VLM in one attention implementation and number format."""

    def __init__(self, folder: Path, attn: str = "eager", dtype: torch.dtype = torch.float32) -> None:
        model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation=attn, dtype=dtype)
        self.model: Any = model.eval()
        self.processor = load_processor(str(folder))
        self.processor.tokenizer.padding_side = "left"
        self.prompting = Prompting(self.model, self.processor)
        self.towers = resolve_towers(self.model)
        self._inputs: dict[tuple[int, ...], tuple[tuple[Prompt, ...], Any]] = {}

    def inputs(self, *prompts: Prompt) -> dict[str, Any]:
        """The model's inputs for a batch."""
        key = tuple(map(id, prompts))
        if key not in self._inputs:  # the prompts are kept, so that no other gets one of their ids
            self._inputs[key] = prompts, self.prompting.inputs(list(prompts))
        return dict(self._inputs[key][1])

    @torch.no_grad()
    def run(self, *prompts: Prompt, **more: Any) -> Any:
        """One pass over a batch, without a cache unless `more` says otherwise."""
        return self.model(**self.inputs(*(prompts or (PROMPT,))), **{"use_cache": False, **more})

    def tokens(self, tower: TowerName, *prompts: Prompt) -> int:
        """How many tokens a tower has in all rows of a batch together."""
        first = self.towers.self_attentions(tower)[0]
        with counting([first]) as found:
            self.run(*prompts)
        return sum(rows * queries for rows, queries, _ in found[first.layer])

    def layers(self, tower: TowerName) -> tuple[int, ...]:
        """The blocks of a tower that attend."""
        return tuple(site.layer for site in self.towers.self_attentions(tower))

    def weights(self, tower: TowerName, *prompts: Prompt) -> dict[int, Tensor]:
        """Weights as transformers gives them: hooks on the modules, which under eager return them."""
        found: dict[int, list[Tensor]] = {}
        handles = [
            site.module.register_forward_hook(
                lambda _m, _a, output, layer=site.layer: found.setdefault(layer, []).append(output[1])
            )
            for site in self.towers.self_attentions(tower)
        ]
        try:
            self.run(*prompts)
        finally:
            for handle in handles:
                handle.remove()
        return {layer: torch.cat(some) for layer, some in found.items()}


@contextmanager
def counting(sites: Sequence[Any]) -> Iterator[dict[int, list[tuple[int, int, int]]]]:
    """Rows, queries and keys of every call of some sites, by layer."""
    found: dict[int, list[tuple[int, int, int]]] = {}

    def keep(call: Call) -> Any:
        shape = (call.query.shape[0], call.query.shape[2], call.key.shape[2])
        found.setdefault(call.site.layer, []).append(shape)
        return call.run()

    with taking_calls(sites, keep):
        yield found


def cross(size: int, part: Sequence[int], keys: Sequence[int] | None = None) -> Tensor:
    """The edges `part <- keys` (all others without `keys`), no token's edge to itself among them."""
    edges = torch.zeros(size, size, dtype=torch.bool)
    others = [key for key in range(size) if key not in part] if keys is None else list(keys)
    for query in part:
        edges[query, others] = True
    return edges & ~torch.eye(size, dtype=torch.bool)


def cut(
    edges: Tensor, layers: Sequence[int], tower: TowerName = "vision", *, heads: Sequence[int] | None = None,
    name: str = "part <- rest",
) -> Cut:  # fmt: skip
    """A knockout, in few words."""
    return Cut(
        name=name,
        tower=tower,
        edges=edges,
        layers=tuple(layers),
        heads=None if heads is None else tuple(heads),
    )


def renormalised(before: Tensor, cut: Tensor) -> Tensor:
    """Weights after a cut, from those before it: the slow and obvious way, number by number."""
    found = before.double()
    found[cut.expand_as(found)] = 0
    for one in found.view(-1, found.shape[-1]):
        total = sum(one.tolist())
        if total > 0:
            one /= total
    return found
