"""Stand where transformers calls attention: every call of chosen self-attention modules, under eager and SDPA alike.

transformers' attention modules look their function up by the name of the implementation, in a registry with a public
way to put another in its place for a while (`AttentionInterface`); eager is not in it and is the module's own default.
Both are taken there, so one mechanism serves vision and language towers, whatever the modules are called and
however they cut their sequence (Qwen2.5-VL's windows arrive as one call each). A call that nobody changes goes on with
the same tensors to the same function. flash and flex attention take no dense masks and are refused by name.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from eyechart.core.errors import Incapable
from eyechart.models.vlms.towers import AttentionSite

IMPLEMENTATIONS = ("eager", "sdpa")
"""The attention implementations whose edges can be cut."""

REGISTRY, EAGER = "ALL_ATTENTION_FUNCTIONS", "eager_attention_forward"
"""What transformers' modelling files call their registry and their default."""

Output = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One call of an attention function by a known module: query, key and value are `row x head x token x dim`."""

    site: AttentionSite
    function: Callable[..., Output]
    """transformers' own, for this module and implementation."""

    query: Float[Tensor, "row head query dim"]
    key: Float[Tensor, "row kv_head key dim"]
    value: Float[Tensor, "row kv_head key value_dim"]
    mask: Tensor | None
    """As the module gives it: none, boolean (true: may look) or additive."""

    options: dict[str, Any]
    eager: bool

    def run(self) -> Output:
        """What the module would have got."""
        return self.function(
            self.site.module, self.query, self.key, self.value, attention_mask=self.mask, **self.options
        )

    def allowed(self) -> Bool[Tensor, "row head query key"]:
        """The edges that exist before anything is cut; rows and heads are 1 where all have the same."""
        queries, keys = self.query.shape[2], self.key.shape[2]
        if self.mask is not None:
            mask = self.mask[..., :keys]
            if mask.dtype == torch.bool:
                return torch.ones_like(mask) if self.eager else mask  # eager adds it to the logits, as 0 or 1
            return mask > torch.finfo(mask.dtype).min / 2
        everything = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=self.query.device)
        return everything.tril() if self._causal_by_itself and queries > 1 else everything

    @property
    def _causal_by_itself(self) -> bool:
        """Without a mask SDPA is causal unless module or call say that it is not; eager is not."""
        if self.eager:
            return False
        asked = self.options.get("is_causal")
        return bool(getattr(self.site.module, "is_causal", True) if asked is None else asked)

    def without(self, cut: Bool[Tensor, "row head query key"]) -> "Call":
        """The same call with edges cut: their logits are minus infinity before the softmax."""
        if self.mask is not None and (self.eager or self.mask.dtype != torch.bool):
            mask = self.mask[..., : self.key.shape[2]]
            mask = torch.where(
                cut, -torch.inf, mask.to(self.query.dtype) if mask.dtype == torch.bool else mask
            )
        elif self.eager:
            mask = torch.where(cut | ~self.allowed(), -torch.inf, 0.0).to(self.query.dtype)
        else:
            mask = self.allowed() & ~cut
        return replace(self, mask=mask)

    def weights(self) -> Float[Tensor, "row head query key"]:
        """The attention weights, read through the function itself: unit vectors as values come back as weights.

        Where the value of key j is the j-th unit vector, and zero for all other keys, the output's j-th number is
        the weight of j, to the bit. As many keys are read at a time as a value has numbers.
        """
        rows, heads, keys, width = self.value.shape
        found = []
        for first in range(0, keys, width):
            count = min(width, keys - first)
            unit = torch.zeros(keys, width, dtype=self.value.dtype, device=self.value.device)
            unit[torch.arange(first, first + count), torch.arange(count)] = 1
            output, _ = replace(self, value=unit.expand(rows, heads, keys, width)).run()
            found.append(output.transpose(1, 2)[..., :count])
        return torch.cat(found, dim=-1)


Handler = Callable[[Call], Output]


@contextmanager
def taking_calls(sites: Sequence[AttentionSite], handle: Handler) -> Iterator[None]:
    """Hand every attention call of these modules to `handle`; calls of other modules pass unseen.

    Raises:
        Incapable: a module's attention implementation is neither eager nor SDPA, or its code does not go through
            transformers' registry.
    """
    known = {id(site.module): site for site in sites}
    slots = {(id(registry), name): (registry, name) for registry, name in map(_slot, sites)}
    replaced = []
    try:
        for registry, name in slots.values():
            local = registry._local_mapping.get(name)
            registry[name] = _Taker(known, name, registry.get(name), handle)
            replaced.append((registry, name, local))
        yield
    finally:
        for registry, name, local in reversed(replaced):
            del registry[name]
            if local is not None:
                registry[name] = local


def _slot(site: AttentionSite) -> tuple[Any, str]:
    """The registry that a module looks its function up in, and the name it asks for.

    Raises:
        Incapable: see `taking_calls`.
    """
    seen = _globals_of(site.module)
    registry = seen.get(REGISTRY)
    kind = type(site.module).__name__
    config = getattr(site.module, "config", None)
    name = getattr(config, "_attn_implementation", None)
    if registry is None or (name == "eager" and EAGER not in seen and name not in registry):
        raise Incapable(
            f"edges of {site.name} cannot be cut: the code of {kind} does not call attention through transformers'"
            " registry of attention functions"
        )
    if name not in IMPLEMENTATIONS:
        raise Incapable(
            f"edges of {site.name} ({kind}) cannot be cut under the attention implementation {name!r}, which takes no dense"
            f" mask; load the model with --attn {' or '.join(IMPLEMENTATIONS)}"
        )
    return registry, name


class _Taker:
    """Stands in the registry for one implementation."""

    def __init__(
        self,
        known: dict[int, AttentionSite],
        name: str,
        original: Callable[..., Output] | None,
        handle: Handler,
    ) -> None:
        self.known, self.name, self.original, self.handle = known, name, original, handle

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Output:
        function = self.original or _globals_of(module)[EAGER]
        site = self.known.get(id(module))
        if site is None:
            output: Output = function(module, query, key, value, attention_mask=attention_mask, **options)
            return output
        call = Call(
            site=site,
            function=function,
            query=query,
            key=key,
            value=value,
            mask=attention_mask,
            options=options,
            eager=self.name == "eager",
        )
        return self.handle(call)


def _globals_of(module: nn.Module) -> dict[str, Any]:
    """The names that the code of a module's forward pass sees."""
    forward = inspect.unwrap(type(module).forward)
    found: dict[str, Any] = getattr(forward, "__globals__", {})
    return found
