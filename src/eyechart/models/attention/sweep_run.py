"""The conditions of a sweep on one prompt, replayed by the stretches that they share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from eyechart.models.attention.cuts import Condition
from eyechart.models.attention.replay import Chain, Model
from eyechart.models.attention.sweep_masks import RowCutter
from eyechart.models.attention.sweep_plan import Plan, Reach, existing_edges, plan_tower
from eyechart.models.attention.sweep_tree import Node, Path, Stack, fewest_rows, walk
from eyechart.models.vlms.prompting import Inputs
from eyechart.models.vlms.towers import TowerName


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is read under each condition."""

    layers: tuple[int, ...]
    """Of the language tower; 0 is what the first block reads."""

    positions: tuple[int, ...]
    vision_layers: tuple[int, ...]
    logits: bool

    @property
    def language(self) -> bool:
        """Whether anything is read behind the vision tower."""
        return bool(self.layers) or self.logits

    def language_depth(self, blocks: int) -> int:
        """How many of so many language blocks must be run."""
        return blocks if self.logits else max(self.layers, default=0)

    def vision_depth(self, blocks: int, fed: Sequence[int]) -> int:
        """How many vision blocks must be run: as many as are read, and as many as lead to what is fed."""
        fed_depth = max((layer + 1 for layer in fed), default=blocks) if self.language else 0
        return max(fed_depth, *self.vision_layers, 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What was read under one condition: by layer, without repetition, in rising order."""

    place: int
    layers: Float[Tensor, "layer position dim"] | None
    """None where none was asked for."""

    vision: tuple[Tensor, ...]
    """Row x token x dim each, or packed, token x dim."""

    logits: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """A model and one prompt, ready to be replayed."""

    model: Model
    inputs: Inputs
    """Of the part of the prompt that is run."""

    whole: int
    """Tokens of the whole prompt."""

    fed: tuple[int, ...]
    """Vision blocks whose output is read outside of the vision tower."""

    vision_rows: int | None
    """How many conditions the vision tower takes at a time; None for as many as there are in a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """Layer passes: how often a block is run on one prompt."""

    vision: int
    language: int


class Replay:
    """The conditions of a sweep, by stretches that they share."""

    def __init__(self, setting: Setting, conditions: Sequence[Condition], wanted: Wanted) -> None:
        self.setting, self.wanted = setting, wanted
        self.chains = setting.model.chains(setting.inputs)
        towers, vision = setting.model.towers, self.chains["vision"]
        language = self.chains["language"]
        self.depths: dict[TowerName, int] = {
            "vision": wanted.vision_depth(len(towers.vision_blocks), setting.fed),
            "language": wanted.language_depth(len(towers.language_blocks)),
        }
        self.plans = {
            "vision": self._plan(conditions, vision, vision.tokens),
            "language": self._plan(conditions, language, setting.whole),
        }
        steps = sorted(set(self.plans["vision"].steps))
        self.vision_paths = [Path(root=0, steps=one) for one in steps]
        self.leader = [self.plans["vision"].steps.index(one) for one in steps]
        self.variant = [steps.index(one) for one in self.plans["vision"].steps]
        self.language_paths = [
            Path(root=root, steps=one)
            for root, one in zip(self.variant, self.plans["language"].steps, strict=True)
        ]

    def _plan(self, conditions: Sequence[Condition], chain: Chain, whole: int) -> Plan:
        depth, towers = self.depths[chain.tower], self.setting.model.towers
        reach = Reach(tower=chain.tower, depth=depth, whole=whole, tokens=chain.tokens)
        cut = any(one.tower == chain.tower for condition in conditions for one in condition.cuts)
        existing = existing_edges(towers, chain, depth) if cut else [None] * depth
        return plan_tower(conditions, towers, reach, existing)

    @property
    def passes(self) -> Passes:
        """Layer passes that this takes, which are as few as there can be."""
        language = fewest_rows(self.language_paths) if self.wanted.language else 0
        return Passes(vision=fewest_rows(self.vision_paths), language=language)

    def run(self, batch: int) -> Iterator[list[Found]]:
        """What is read under each condition, a batch at a time, those with the same vision cuts together."""
        variants = _Variants(self, min(batch, self.setting.vision_rows or batch))
        if not self.wanted.language:
            for place in sorted(range(len(self.variant)), key=self.variant.__getitem__):
                yield [self._found(place, variants, None, None)]
                variants.let_go(self.variant[place])
            return
        cutter = RowCutter(self.setting.model.towers, self.chains["language"], self.plans["language"])
        readings = _Readings(self.wanted, self.chains["language"].root)
        stack = Stack(enter=variants.merged, step=cutter.step, keep=readings.keep)
        for some in walk(self.language_paths, stack, batch=batch):
            states, last = readings.finished(some), some[-1][0]
            found = [self._found(place, variants, node, states.pop(place, None)) for place, node in some]
            some.clear()  # so that a reading goes when the one it is handed to lets it go
            yield found
            variants.let_go(self.variant[last])

    def _found(self, place: int, variants: "_Variants", node: Node | None, states: Tensor | None) -> Found:
        setting = self.setting
        logits = None
        if node is not None and self.wanted.logits:
            logits = setting.model.logits(setting.inputs, self.chains["vision"], node.state)
        return Found(
            place=place,
            layers=states,
            vision=variants.read(self.variant[place]),
            logits=logits,
        )


class _Readings:
    """Where the states of each condition are gathered: they are written once, into what is handed over.

    A state that several paths run through is written for one of them, and copied to the others when their batch is done.
    """

    def __init__(self, wanted: Wanted, like: Tensor) -> None:
        self.like, self.layers = like, sorted(set(wanted.layers))
        self.rows = {depth: row for row, depth in enumerate(self.layers)}
        self.positions = torch.tensor(wanted.positions, dtype=torch.long, device=like.device)
        self.open: dict[int, list[Tensor]] = {}
        """By place, a view of each layer."""

        self.whole: dict[int, Tensor] = {}

    def keep(self, depth: int, state: Tensor, place: int) -> Tensor | None:
        """Write what is read of a state, for one of the paths that run through it."""
        if depth not in self.rows:
            return None
        row = self._of(place)[self.rows[depth]]
        return torch.index_select(state[0], 0, self.positions, out=row)

    def _of(self, place: int) -> list[Tensor]:
        if place not in self.open:
            shape = len(self.layers), len(self.positions), self.like.shape[-1]
            self.whole[place] = torch.empty(shape, dtype=self.like.dtype, device=self.like.device)
            self.open[place] = list(self.whole[place])
        return self.open[place]

    def finished(self, batch: Sequence[tuple[int, Node]]) -> dict[int, Tensor]:
        """By place, all that is read of the language tower; no two share memory."""
        if not self.layers:
            return {}
        for place, node in batch:
            for row, kept in zip(self._of(place), node.kept, strict=True):
                if row is not kept:
                    row.copy_(kept)
        found, self.whole, self.open = self.whole, {}, {}
        return found


class _Variants:
    """What the vision tower gives under each set of vision cuts, in their order, a batch at a time."""

    def __init__(self, replay: Replay, batch: int) -> None:
        self.replay, wanted = replay, replay.wanted
        fed = [layer + 1 for layer in replay.setting.fed] if wanted.language else []
        self.depths = sorted({*fed, *wanted.vision_layers})
        chain = replay.chains["vision"]
        cutter = RowCutter(replay.setting.model.towers, chain, replay.plans["vision"])
        stack = Stack(
            enter=lambda root: chain.root,
            step=lambda layer, states, places: cutter.step(
                layer, states, [replay.leader[one] for one in places]
            ),
            keep=lambda depth, state, place: state.clone() if depth in self.depths else None,
        )
        self.batches = walk(replay.vision_paths, stack, batch=batch)
        self.ready: dict[int, dict[int, Tensor]] = {}

    def at(self, variant: int) -> dict[int, Tensor]:
        """States by depth."""
        while variant not in self.ready:
            for place, node in next(self.batches):
                self.ready[place] = dict(zip(self.depths, node.kept, strict=True))
        return self.ready[variant]

    def let_go(self, before: int) -> None:
        """Variants before this one are not asked for again."""
        for gone in [one for one in self.ready if one < before]:
            del self.ready[gone]

    def merged(self, variant: int) -> Tensor:
        """What the language tower is given."""
        states, setting = self.at(variant), self.replay.setting
        fed = {layer: states[layer + 1] for layer in setting.fed}
        return setting.model.merged(setting.inputs, self.replay.chains["vision"], fed)

    def read(self, variant: int) -> tuple[Tensor, ...]:
        """The vision states that were asked for."""
        wanted = sorted(set(self.replay.wanted.vision_layers))
        return tuple(self.at(variant)[depth] for depth in wanted) if wanted else ()
