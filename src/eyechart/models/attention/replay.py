"""Run a tower's blocks by themselves, from any state, on any number of rows, as the model itself would run them.

What a block is given beside its hidden states (masks, rotary positions, lengths of windows) is recorded in a pass of the model
in which every block of both towers only hands on what it is given: it costs no layer. A block is then called with
that and with states of our own. What lies between the towers is the model's own code, run the same way: the vision
blocks give back states that were computed before, and the pass is broken off at the first language block; or it goes on to the logits
with the language model's last state. So no architecture's merging, masking or norming is written down here.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eyechart.core.errors import Incapable
from eyechart.models.vlms.prompting import Inputs
from eyechart.models.vlms.towers import TowerName, Towers

Answer = Callable[[Tensor], Tensor]
"""What stands in for a block: hidden states in, hidden states out."""


class Enough(Exception):
    """A pass was broken off because the rest of it is not needed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockCall:
    """What a block is called with: the place of its hidden states is taken by whatever state is to be run."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str | None
    """The keyword of the hidden states; None where they are the first argument."""

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, "BlockCall"]:
        """Take a call apart into its hidden states and the rest."""
        if args:
            return args[0], cls(args=args[1:], kwargs=dict(kwargs), name=None)
        name = next(name for name, value in kwargs.items() if isinstance(value, Tensor))
        rest = {key: value for key, value in kwargs.items() if key != name}
        return kwargs[name], cls(args=(), kwargs=rest, name=name)

    def on(self, block: nn.Module, states: Tensor, *, rows: int, tiles: int) -> Tensor:
        """The block's output for `rows` times `tiles` states, one after another."""
        args, kwargs = self.args, self.kwargs
        if rows > 1 and tiles > 1:
            args, kwargs = (_repeated(one, rows, tiles) for one in (args, kwargs))
        named = {} if self.name is None else {self.name: states}
        positional = (states,) if self.name is None else ()
        return first_of(block(*positional, *args, **kwargs, **named))

    def kind(self) -> tuple[Any, ...]:
        """Equal for calls that were given the same tensors."""
        return tuple(id(one) for one in _tensors((self.args, self.kwargs)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """A tower's blocks with what each is called with, on one prompt."""

    tower: TowerName
    blocks: tuple[nn.Module, ...]
    calls: tuple[BlockCall, ...]
    root: Tensor
    """What the first block reads: rows (of the vision tower, tiles) x token x dim, or packed, token x dim."""

    unbroken: bool
    """Each block reads what the one before gives, and is called once in a pass."""

    @property
    def tokens(self) -> int:
        """In the whole sequence of one prompt."""
        return self.root.numel() // self.root.shape[-1]

    def step(self, layer: int, states: Tensor) -> Tensor:
        """One block on states with a row each: row x (shape of `root`)."""
        rows, tiles = len(states), self.root.shape[0]
        flat = states.reshape(rows * tiles, *states.shape[2:])
        return self.calls[layer].on(self.blocks[layer], flat, rows=rows, tiles=tiles).reshape(states.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Form:
    """How one model's blocks answer: with a tensor (0), or with so many things of which the first is one."""

    vision: tuple[int, ...]
    language: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A model with its towers, and the form of their answers."""

    model: Any
    towers: Towers
    form: Form

    def chains(self, inputs: Inputs) -> dict[TowerName, Chain]:
        """Both towers' chains for one prompt; no block is run.

        Raises:
            Incapable: the model did not pass through the blocks.
        """
        towers = self.towers
        heard: dict[TowerName, list[tuple[int, Tensor, BlockCall]]] = {"vision": [], "language": []}
        with ExitStack() as stack:
            for tower, blocks in both_towers(towers):
                form = self.form.vision if tower == "vision" else self.form.language
                last = len(blocks) - 1 if tower == "language" else -1
                listeners = [
                    _listener(heard[tower], layer, form[layer], then=_stop if layer == last else None)
                    for layer in range(len(blocks))
                ]
                stack.enter_context(_standing_in(listeners, blocks))
            _until_enough(self.model, inputs)
        return {tower: _chain(tower, blocks, heard[tower]) for tower, blocks in both_towers(towers)}

    def merged(self, inputs: Inputs, vision: Chain, fed: Mapping[int, Tensor]) -> Tensor:
        """What the first language block reads when vision blocks give these states.

        Args:
            fed: of the blocks whose output is read outside of the tower; what the others give does not matter.
        """
        met: list[Tensor] = []

        def stop(*args: Any, **kwargs: Any) -> Any:
            met.append(BlockCall.of(args, kwargs)[0])
            raise Enough

        with self._seeing(vision, fed), _standing_in([stop], self.towers.language_blocks[:1]):
            _until_enough(self.model, inputs)
        return met[0]

    def logits(self, inputs: Inputs, vision: Chain, final: Tensor) -> Tensor:
        """The logits at the last position, when the last language block gives `final`."""
        blocks, form = self.towers.language_blocks, self.form.language
        answers = [_answering(form[n], lambda states: final) for n in range(len(blocks))]
        with self._seeing(vision, {}), _standing_in(answers, blocks):
            out = self.model(**inputs, **_keeping_one(self.model), use_cache=False, return_dict=True)
        return out.logits[0, -1]  # type: ignore[no-any-return]

    @contextmanager
    def _seeing(self, vision: Chain, fed: Mapping[int, Tensor]) -> Iterator[None]:
        """While the model runs, vision blocks give the fed states, or where there are none the tower's input."""
        blocks, form = self.towers.vision_blocks, self.form.vision

        def gives(layer: int) -> Answer:
            return lambda states: fed.get(layer, vision.root)

        with _standing_in([_answering(form[n], gives(n)) for n in range(len(blocks))], blocks):
            yield


def both_towers(towers: Towers) -> tuple[tuple[TowerName, tuple[nn.Module, ...]], ...]:
    """The blocks of each tower, in the order in which an image passes them."""
    return ("vision", towers.vision_blocks), ("language", towers.language_blocks)


def first_of(output: Any) -> Tensor:
    """The hidden states in a block's output."""
    return output if isinstance(output, Tensor) else output[0]


def form_of(output: Any) -> int:
    """How a block answers; see `Form`.

    Raises:
        Incapable: beside its states a block gives other tensors, which cannot be replaced.
    """
    if isinstance(output, Tensor):
        return 0
    if not isinstance(output, tuple) or any(True for _ in _tensors(output[1:])):
        raise Incapable("blocks give other tensors beside their hidden states")
    return len(output)


def stop_after(block: nn.Module) -> Any:
    """Break a pass off when a block has run; the handle removes this."""

    def stop(module: nn.Module, args: Any, output: Any) -> None:
        raise Enough

    return block.register_forward_hook(stop)


def _listener(
    heard: list[tuple[int, Tensor, BlockCall]], layer: int, form: int, *, then: Callable[[], None] | None
) -> Callable[..., Any]:
    """Stands in for a block: notes the call and hands its hidden states on."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        states, call = BlockCall.of(args, kwargs)
        heard.append((layer, states, call))
        if then is not None:
            then()
        return _formed(states, form)

    return forward


def _stop() -> None:
    raise Enough


def _answering(form: int, answer: Answer) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return _formed(answer(BlockCall.of(args, kwargs)[0]), form)

    return forward


def _formed(states: Tensor, form: int) -> Any:
    return (states, *[None] * (form - 1)) if form else states


def _chain(
    tower: TowerName, blocks: tuple[nn.Module, ...], heard: Sequence[tuple[int, Tensor, BlockCall]]
) -> Chain:
    if not heard:
        raise Incapable(f"the model did not pass through the blocks of its {tower} tower")
    root = heard[0][1]
    in_order = [layer for layer, _, _ in heard] == list(range(len(blocks)))
    return Chain(
        tower=tower,
        blocks=blocks,
        calls=tuple(call for _, _, call in heard),
        root=root,
        unbroken=in_order and all(torch.equal(states, root) for _, states, _ in heard),
    )


@contextmanager
def _standing_in(forwards: Sequence[Callable[..., Any]], blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Blocks answer by these functions for a while; hooks on them run as ever."""
    before = [vars(block).get("forward") for block in blocks]
    try:
        for block, forward in zip(blocks, forwards, strict=True):
            block.forward = forward
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is None:
                vars(block).pop("forward", None)
            else:
                block.forward = own


def _until_enough(model: Any, inputs: Inputs) -> None:
    try:
        model(**inputs, use_cache=False)
    except Enough:
        pass


def _keeping_one(model: Any) -> dict[str, int]:
    """Ask for the last position's logits only, where the model can be asked for that."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}


def _repeated(tree: Any, rows: int, tiles: int) -> Any:
    """Tensors with a row for each tile, once for each row of states; one for all tiles goes round by itself."""
    if isinstance(tree, Tensor):
        return tree.repeat(rows, *[1] * (tree.ndim - 1)) if tree.ndim > 1 and len(tree) == tiles else tree
    if isinstance(tree, Mapping):
        return {key: _repeated(value, rows, tiles) for key, value in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(_repeated(value, rows, tiles) for value in tree)
    return tree


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, tuple | list):
        for value in tree:
            yield from _tensors(value)
