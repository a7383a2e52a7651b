"""Follow an image through a forward pass: which modules carry it from the vision tower to the language model.

The first vision block's output is replaced by NaN, which no arithmetic removes: a module whose output holds NaN has
read the image, and the positions at which the first language block receives NaN are the image positions. NaN is
washed out at the entry of the language blocks, so the rest of the pass runs on numbers.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What one image did on its way from the vision tower into the language model."""

    bridge: tuple[str, ...]
    """Paths of the modules between the towers that carried it, in the order they ran; outermost modules only."""

    side: tuple[str, ...]
    """Paths of modules that led it out of the middle of the vision tower (Qwen3-VL's deepstack mergers)."""

    positions: tuple[int, ...]
    """Positions of the language sequence that held it at the first block, for the first row of the batch."""

    by_cross_attention: bool
    """It reached the language blocks beside their sequence, as keys and values of cross-attention."""

    final_norm: str | None
    """Path of the norm that ran after the last language block; None when none did."""


def follow(
    model: nn.Module,
    run: Callable[[], object],
    *,
    vision: nn.Module,
    vision_blocks: tuple[nn.Module, ...],
    language: nn.Module,
    stack: nn.Module,
    language_blocks: tuple[nn.Module, ...],
    cross_blocks: tuple[nn.Module, ...],
    embeddings: nn.Module,
    width: int,
) -> Flow:
    """Run one forward pass with the vision tower's first output marked, and see where the mark went.

    Args:
        model: the VLM; `run` must run one forward pass of it on one row with an image.
        vision: the tower; marked at its first block, or at its output where it has no blocks.
        stack: what owns the list of language blocks, and the final norm if there is one.
        cross_blocks: blocks of cross-attention that stand between the language blocks (Idefics).
        width: of the language model's embeddings; a projector inside the vision tower is known by it.
    """
    names = {id(module): name for name, module in model.named_modules()}
    entries = (*language_blocks, *cross_blocks)
    silent = {id(m) for block in (*vision_blocks, *entries) for m in block.modules()}
    silent |= {id(m) for m in embeddings.modules()} | _holders(
        model, (*vision_blocks, *language_blocks, vision)
    )
    silent |= set() if vision_blocks else {id(m) for m in vision.modules()}
    watch = _Watch(names)
    with ExitStack() as hooks:
        for module in model.modules():
            if id(module) not in silent:
                hooks.callback(module.register_forward_hook(watch.left).remove)
        source = vision_blocks[0] if vision_blocks else vision
        hooks.callback(source.register_forward_hook(_mark).remove)
        if vision_blocks:
            hooks.callback(vision_blocks[-1].register_forward_hook(watch.seen).remove)
        for block in entries:
            hooks.callback(block.register_forward_pre_hook(watch.arrived, with_kwargs=True).remove)
        hooks.callback(language_blocks[-1].register_forward_hook(watch.passed).remove)
        run()
    return watch.flow(vision=vision, language=language, stack=stack, width=width)


def _holders(model: nn.Module, parts: tuple[nn.Module, ...]) -> set[int]:
    """Ids of the modules that have one of `parts` below them."""
    wanted = {id(part) for part in parts}
    return {id(m) for m in model.modules() if any(id(p) in wanted for p in m.modules() if p is not m)}


class _Watch:
    """Collects what the hooks of one pass see."""

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names
        self.carriers: list[tuple[nn.Module, bool, int]] = []  # module, after the last vision block?, width
        self.done_seeing = False
        self.positions: tuple[int, ...] | None = None
        self.beside = False
        self.after: list[nn.Module] | None = None

    def left(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.after is not None:
            self.after.append(module)
        elif any(True for _ in module.parameters()):
            widths = [t.shape[-1] for t in _tensors(output) if t.ndim and _marked(t)]
            if widths:
                self.carriers.append((module, self.done_seeing, widths[0]))

    def seen(self, module: nn.Module, args: Any, output: Any) -> None:
        self.done_seeing = True

    def arrived(self, block: nn.Module, args: Any, kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs.get("hidden_states", next(_tensors(kwargs), None))
        if self.positions is None and isinstance(hidden, Tensor):
            rows = hidden.reshape(-1, *hidden.shape[-2:])[0].isnan().any(-1)
            self.positions = tuple(rows.nonzero().flatten().tolist())
        others = (t for t in _tensors((args, kwargs)) if t is not hidden)
        self.beside = self.beside or any(_marked(t) for t in others)
        return _each(args, _washed), _each(kwargs, _washed)

    def passed(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.after is None:
            self.after = []

    def flow(self, *, vision: nn.Module, language: nn.Module, stack: nn.Module, width: int) -> Flow:
        in_vision = {id(m) for m in vision.modules()}
        in_language = {id(m) for m in language.modules()}
        if in_language & in_vision:  # the language model holds the vision tower, and so perhaps the bridge
            in_language = set()
        outside = [m for m, _, _ in self.carriers if id(m) not in in_vision | in_language]
        within = [
            (m, late)
            for m, late, out in self.carriers
            if id(m) in in_vision and out == width and "norm" not in type(m).__name__.lower()
        ]
        late = [m for m, is_late in within if is_late]
        return Flow(
            bridge=self._outermost(outside or late),
            side=self._outermost([m for m, is_late in within if not is_late and not outside]),
            positions=self.positions or (),
            by_cross_attention=self.beside,
            final_norm=self._norm(stack),
        )

    def _outermost(self, modules: list[nn.Module]) -> tuple[str, ...]:
        below = {id(p) for m in modules for p in m.modules() if p is not m}
        return tuple(dict.fromkeys(self.names[id(m)] for m in modules if id(m) not in below))

    def _norm(self, stack: nn.Module) -> str | None:
        inside = {id(m) for m in stack.modules()}
        norms = (m for m in self.after or () if "norm" in type(m).__name__.lower() and id(m) in inside)
        first = next(norms, None)
        return None if first is None else self.names[id(first)]


def _mark(module: nn.Module, args: Any, output: Any) -> Any:
    return _each(output, lambda t: torch.full_like(t, torch.nan) if t.is_floating_point() else t)


def _marked(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isnan().any())


def _washed(tensor: Tensor) -> Tensor:
    return torch.where(tensor.isnan(), 0.0, tensor).to(tensor.dtype) if _marked(tensor) else tensor


def _tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors of nested tuples, lists and mappings, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, tuple | list):
        for value in tree:
            yield from _tensors(value)


def _each(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of tuples, lists and mappings with each tensor changed; anything else is left alone."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return type(tree)(**{key: _each(value, change) for key, value in tree.items()})
    if type(tree) in (tuple, list):
        return type(tree)(_each(value, change) for value in tree)
    return tree
