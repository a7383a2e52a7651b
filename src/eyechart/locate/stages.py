"""What a VLM holds of items at the stages that probes read: one forward pass an item, in batches where the model allows it.

Stages, in the model's order, with layers counted as in `hidden_states` (0 is what the first block reads, n what block n gives):

- `vision n`: all tokens of the vision tower after block n, class and register tokens included; no final norm.
- `fed`: what the projector reads (`models.fed`), in a pass of its own.
- `language n image`: the language model's states at the image's positions; at layer 0 that is what the projector gives.
- `language n last`: its states at the last position of the prompt, where the answer is read; no final norm.

The prompt is the question as it is put to the model, so the last position is the one whose next token is the reply. Batches are
used only after two items were read together and apart with the same result; a model that fails this is read item by item.
Where a stage's tokens would take more than its share of `room` numbers for all items, neighbouring tokens are averaged; where
items have different numbers of tokens (pictures of different sizes), the mean over tokens is taken. Both are told in `notes`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from eyechart.core.errors import Incapable
from eyechart.core.records import Capability, Item, Prompt
from eyechart.models.vlms import VLM
from eyechart.models.vlms.objects import undisturbed
from eyechart.models.vlms.towers import Towers
from eyechart.train.pair_reading import ROOM, coarser

Tokens = Float[Tensor, "token dim"]

TOGETHER_ATOL, TOGETHER_RTOL = 1e-3, 1e-3
"""How far two items read together may differ from the same read apart: rounding, against values of about 1."""


FED_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLayers:
    """Which layers are read, by kind of stage."""

    vision: tuple[int, ...]
    image: tuple[int, ...]
    last: tuple[int, ...]
    fed: bool = True

    @classmethod
    def all_of(cls, towers: Towers) -> "StageLayers":
        """Every layer there is."""
        language = tuple(range(len(towers.language_blocks) + 1))
        return cls(vision=tuple(range(len(towers.vision_blocks) + 1)), image=language, last=language[1:])

    @classmethod
    def few(cls, towers: Towers, *, vision: int = 2, image: int = 2, last: int = 3) -> "StageLayers":
        """So many of each kind, at even steps from the first block to the last.

        The last position is read from the middle of the language model on, where an answer may be formed; layer 0 at the image's
        positions is always read.
        """
        v, n = len(towers.vision_blocks), len(towers.language_blocks)
        return cls(
            vision=_even(1, v, vision),
            image=tuple(dict.fromkeys((0, *_even(1, n, image)))),
            last=_even(-(-n // 2), n, last),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StageReader:
    """Reads stages of one VLM; calling it with items gives item x token x dim for each stage."""

    vlm: VLM
    put: Callable[[Item], Prompt]
    """How an item is asked, its picture opened."""

    layers: StageLayers
    batch: int = 8
    room: int = ROOM
    notes: list[str] = field(default_factory=list)
    """What was done to the features that their readers should know."""

    told: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.vlm.require(Capability.HIDDEN_STATES, for_="reading stages")
        if self.vlm.towers.language_encoder:
            raise Incapable(
                f"{self.vlm.id} ({self.vlm.architecture}) reads its answer from a decoder, so the prompt has no last"
                " position at which it is read"
            )

    def __call__(self, items: Sequence[Item]) -> Mapping[str, ndarray]:
        """What each stage held of the items; see the module.

        Raises:
            UserError: a picture cannot be opened.
            Incapable: the model has no states where they are asked for.
        """
        parts: dict[str, list[Tensor]] = {}
        step = self.batch if len(items) > 1 and self._together(items) else 1
        for start in range(0, len(items), step):
            prompts = [self.put(item) for item in items[start : start + step]]
            for held in self._read(prompts):
                for name, tokens in held.items():
                    parts.setdefault(name, []).append(self._smaller(name, tokens, len(items)))
        if self.layers.fed and Capability.FED_FEATURES in self.vlm.capabilities:
            parts["fed"] = [self._smaller("fed", tokens, len(items)) for tokens in self._fed(items)]
        return {name: self._stacked(name, parts[name]) for name in sorted(parts, key=_place)}

    def _read(self, prompts: Sequence[Prompt]) -> list[dict[str, Tokens]]:
        """The stages of each prompt, whole, in one pass over all of them; without what is fed."""
        vlm, layers = self.vlm, self.layers
        inputs = vlm.inputs(prompts)
        vision: dict[int, Tensor] = {}
        language: dict[int, Tensor] = {}
        with undisturbed(vlm.model, vlm.processor), ExitStack() as stack:
            stack.enter_context(_keeping(vlm.towers.vision_blocks, layers.vision, vision))
            wanted = sorted({*layers.image, *layers.last})
            stack.enter_context(_keeping(vlm.towers.language_blocks, wanted, language))
            vlm.model(**inputs)
        found: list[dict[str, Tokens]] = [{} for _ in prompts]
        for number, states in vision.items():
            for held, tokens in zip(found, _split(states, len(prompts)), strict=True):
                held[f"vision {number}"] = tokens
        padding = _padding(inputs, len(prompts))
        for row, (held, prompt) in enumerate(zip(found, prompts, strict=True)):
            places = [place + padding[row] for place in vlm.image_positions(prompt)]
            held |= {f"language {n} image": language[n][row][places] for n in layers.image}
            held |= {f"language {n} last": language[n][row][-1:] for n in layers.last}
        return [{name: value.float().cpu() for name, value in held.items()} for held in found]

    def _fed(self, items: Sequence[Item]) -> Iterator[Tokens]:
        """What the projector reads of each item's picture; which layer that is is proved once for so many pictures."""
        for start in range(0, len(items), FED_AT_ONCE):
            images = [self.put(item).images[0] for item in items[start : start + FED_AT_ONCE]]
            yield from (fed.features for fed in self.vlm.fed(images))

    def _together(self, items: Sequence[Item]) -> bool:
        """Whether items may be read in one batch, tried once on the first two that differ."""
        if "together" not in self.told:
            self.told["together"] = self._try_together([self.put(item) for item in items[:2]])
            if not self.told["together"]:
                self.notes.append("items were read one by one")
        return self.told["together"]

    def _try_together(self, prompts: Sequence[Prompt]) -> bool:
        if self.batch == 1 or self.vlm.proof.why_no_batches:
            return False
        apart = [self._read([prompt])[0] for prompt in prompts]
        try:
            both = self._read(prompts)
        except (Incapable, ValueError, RuntimeError, IndexError):
            return False
        return all(
            one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)
            for one, other in zip(apart, both, strict=True)
        )

    def _smaller(self, name: str, tokens: Tokens, items: int) -> Float[Tensor, "cell dim"]:
        """Tokens averaged in blocks where all items' would not fit."""
        room = self.room // max(1, self._count())
        if items * tokens.numel() <= room:
            return tokens
        side = round(len(tokens) ** 0.5)
        grid = (side, side) if side**2 == len(tokens) else (1, len(tokens))
        self._tell(
            f"{name}: neighbouring tokens were averaged, so that {items} items fit into {room} numbers"
        )
        return coarser(tokens[None], grid, items=items, room=room)[0]

    def _stacked(self, name: str, tokens: Sequence[Tensor]) -> Float[ndarray, "item token dim"]:
        """All items of a stage, (token, dim) each; their means where they have different numbers of tokens."""
        if len({len(one) for one in tokens}) > 1:
            self._tell(f"{name}: items have different numbers of tokens, and their mean was read")
            tokens = [one.mean(dim=0, keepdim=True) for one in tokens]
        return np.asarray(torch.stack(list(tokens)).numpy())

    def _count(self) -> int:
        layers = self.layers
        return len(layers.vision) + len(layers.image) + len(layers.last) + layers.fed

    def _tell(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _even(first: int, last: int, count: int) -> tuple[int, ...]:
    """So many whole numbers from the first to the last, both included; the last alone where one is wanted."""
    if count < 1 or last < first:
        return ()
    steps = np.linspace(last if count == 1 else first, last, count)
    return tuple(dict.fromkeys(int(step) for step in np.rint(steps)))


@contextmanager
def _keeping(blocks: Sequence[Any], layers: Sequence[int], into: dict[int, Tensor]) -> Iterator[None]:
    """Keep the states of these layers as the blocks run: 0 is what the first reads, n what block n, from 1, gives."""

    def reads(module: Any, args: Any, kwargs: Any) -> None:
        first = args[0] if args else next(iter(kwargs.values()))
        into[0] = first.detach()

    def gives(layer: int) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            into[layer] = (output if isinstance(output, Tensor) else output[0]).detach()

        return hook

    with ExitStack() as stack:
        for layer in layers:
            if layer == 0:
                stack.callback(blocks[0].register_forward_pre_hook(reads, with_kwargs=True).remove)
            else:
                stack.callback(blocks[layer - 1].register_forward_hook(gives(layer)).remove)
        yield


def _split(states: Tensor, prompts: int) -> list[Tokens]:
    """A vision layer's states shared out among prompts with one picture each: by rows (tiles), or by packed tokens."""
    rows = states[None] if states.ndim == 2 else states.reshape(-1, *states.shape[-2:])
    if len(rows) % prompts == 0:
        return [each.flatten(0, 1) for each in rows.chunk(prompts)]
    if len(rows) == 1 and rows.shape[1] % prompts == 0:
        return list(rows[0].chunk(prompts))
    raise Incapable(
        f"states of shape {tuple(states.shape)} cannot be shared out among {prompts} pictures of one size"
    )


def _padding(inputs: Mapping[str, Any], prompts: int) -> list[int]:
    """How many positions come before each prompt begins; prompts are padded on the left."""
    mask = inputs.get("attention_mask")
    if prompts == 1 or mask is None:
        return [0] * prompts
    return [int(row.shape[0] - row.sum()) for row in mask]


def _alike(one: Tensor, other: Tensor) -> bool:
    """Equal but for rounding; stages with other numbers of tokens are not."""
    return one.shape == other.shape and torch.allclose(one, other, atol=TOGETHER_ATOL, rtol=TOGETHER_RTOL)


_KINDS = {"vision": 0, "fed": 1, "image": 2, "last": 3}


def _place(name: str) -> tuple[int, int]:
    """Where a stage comes in the model's order."""
    words = name.split()
    kind = words[0] if words[0] in ("vision", "fed") else words[2]
    return _KINDS[kind], int(words[1]) if len(words) > 1 else 0
