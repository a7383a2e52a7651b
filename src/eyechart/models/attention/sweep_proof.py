"""Whether a sweep may be replayed on a model: it gives what whole passes give, or whole passes are run.

Shown once for each model, on one prompt, against whole passes with the same cuts: an intact condition, cuts in either tower and in both,
made of random edges. One condition at a time and over the whole prompt the replay is the same arithmetic, and has to agree to
1e-5 of the spread of each layer's states. Then several conditions share a batch and the prompt ends where reading does, which
changes the order of sums only; where that goes too far, the sweep does without the one, the other or both.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from eyechart.core.errors import Incapable, UserError
from eyechart.core.records import Prompt
from eyechart.models.attention.cuts import Condition, Cut
from eyechart.models.attention.replay import Chain, Enough, Form, Model, both_towers, form_of, stop_after
from eyechart.models.attention.sweep_plan import existing_edges
from eyechart.models.attention.sweep_run import Found, Replay, Setting, Wanted
from eyechart.models.attention.sweep_whole import whole_pass
from eyechart.models.vlms.objects import undisturbed
from eyechart.models.vlms.prompting import REFUSALS, Inputs, image_positions
from eyechart.models.vlms.states import forward_inputs
from eyechart.models.vlms.towers import TowerName, Towers
from eyechart.models.vlms.vlm import VLM

logger = logging.getLogger(__name__)

SAME, CLOSE = 1e-5, 1e-4
"""Largest difference from whole passes, over the spread of a layer's states: in the same arithmetic, and in another order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How sweeps are run on a model."""

    replays: bool
    """Conditions share what they have in common; otherwise each is a whole pass."""

    shares: bool
    """Conditions with different vision cuts share a batch of the vision tower."""

    truncates: bool
    """Nothing is run after the last position that is read, or the last image position."""

    form: Form | None
    fed: tuple[int, ...]
    """Vision blocks, from 0, whose output is read outside of the tower; later ones are dead and not run."""

    apart: float
    """The largest difference from whole passes that was seen, over the spread of a layer's states."""

    note: str
    """The same in words, for a run's record."""


def prove_replay(vlm: VLM, prompt: Prompt) -> Ways:
    """Find out how sweeps can be run on a model; takes some twenty passes over the prompt.

    Args:
        prompt: with an image; any one stands for all.

    Raises:
        Incapable: the model has no vision tower of its own.
    """
    towers = vlm.towers
    with undisturbed(vlm.model, vlm.processor):
        inputs = forward_inputs(vlm.model, vlm.prompting.inputs([prompt]))
        try:
            proof = _Proof(vlm, inputs, towers)
            return proof.best()
        except torch.OutOfMemoryError:
            raise
        except (UserError, *REFUSALS) as error:
            why = (
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {str(error)[:200]}"
            )
            return _whole_passes(why)


def _whole_passes(why: str) -> Ways:
    note = f"sweep: a whole pass for each condition, since its blocks cannot be run by themselves ({why})"
    logger.info(note)
    return Ways(replays=False, shares=False, truncates=False, form=None, fed=(), apart=0.0, note=note)


class _Proof:
    """One model on one prompt."""

    def __init__(self, vlm: VLM, inputs: Inputs, towers: Towers) -> None:
        self.model = Model(model=vlm.model, towers=towers, form=_forms(vlm, inputs, towers))
        self.inputs, self.towers = inputs, towers
        self.chains = self.model.chains(inputs)
        for tower, one in self.chains.items():
            if not one.unbroken:
                raise Incapable(f"something stands between the blocks of the {tower} tower")
        self.fed = _fed(self.model, inputs, self.chains["vision"])
        depths: dict[TowerName, int] = {"vision": max(self.fed) + 1, "language": len(towers.language_blocks)}
        existing = {tower: existing_edges(towers, one, depths[tower]) for tower, one in self.chains.items()}
        self.end = _end(vlm, inputs, existing["language"])
        self.conditions = _conditions(existing)

    def best(self) -> Ways:
        """The way that saves most, of those that agree with whole passes."""
        expected = [self._whole(condition) for condition in self.conditions]
        same = self._apart(expected, shares=False, truncates=False, batch=1)
        if not same <= SAME:
            raise Incapable(
                f"replayed one by one, states are {same:.2g} of their spread from those of whole passes"
            )
        close = max(CLOSE, 32 * torch.finfo(self.chains["language"].root.dtype).eps)
        for truncates in (True, False) if self.end else (False,):
            for shares in (True, False):
                apart = self._apart(expected, shares=shares, truncates=truncates, batch=len(self.conditions))
                if apart <= close:
                    return self._ways(shares=shares, truncates=truncates, apart=max(same, apart))
        raise Incapable(
            f"in a batch, states are more than {close:.2g} of their spread from those of whole passes"
        )

    def _ways(self, *, shares: bool, truncates: bool, apart: float) -> Ways:
        note = (
            f"sweep: conditions share what they have in common; vision blocks {list(self.fed)} are fed, later ones are not"
            f" run; {'nothing' if truncates else 'all'} of the prompt after its last image and last position read is run;"
            f" the vision tower takes {'a batch of conditions' if shares else 'one condition at a time'}; at most"
            f" {apart:.1g} of a layer's spread from whole passes"
        )
        return Ways(
            replays=True,
            shares=shares,
            truncates=truncates,
            form=self.model.form,
            fed=self.fed,
            apart=apart,
            note=note,
        )

    def _wanted(self, tokens: int) -> Wanted:
        last = len(self.towers.language_blocks)
        return Wanted(
            layers=tuple(range(last + 1)),
            positions=tuple(range(tokens)),
            vision_layers=tuple(layer + 1 for layer in self.fed),
            logits=False,
        )

    def _whole(self, condition: Condition) -> Found:
        wanted = self._wanted(self.chains["language"].tokens)
        return whole_pass(self.model.model, self.inputs, self.towers, condition, wanted)

    def _apart(self, expected: Sequence[Found], *, shares: bool, truncates: bool, batch: int) -> float:
        whole = self.chains["language"].tokens
        tokens = self.end if truncates and self.end else whole
        setting = Setting(
            model=self.model,
            inputs=truncated(self.inputs, whole, tokens),
            whole=whole,
            fed=self.fed,
            vision_rows=None if shares else 1,
        )
        largest = 0.0
        try:
            batches = Replay(setting, self.conditions, self._wanted(tokens)).run(batch)
            for found in chain.from_iterable(batches):
                wanted = expected[found.place]
                assert found.layers is not None
                assert wanted.layers is not None
                pairs = list(zip(found.layers, wanted.layers[:, :tokens], strict=True))
                pairs += zip(found.vision, wanted.vision, strict=True)
                largest = max(largest, *(_difference(a, b) for a, b in pairs))
        except torch.OutOfMemoryError:
            raise
        except REFUSALS as error:
            if batch == 1:
                raise
            logger.info("a batch of a sweep fails: %s", error)
            return torch.inf
        return largest


def truncated(inputs: Inputs, whole: int, tokens: int) -> Inputs:
    """The inputs of one prompt without what comes after its first tokens."""

    def ended(name: str, value: object) -> object:
        along = isinstance(value, Tensor) and value.ndim >= 2 and value.shape[:2] == (1, whole)
        return value[:, :tokens] if along and "pixel" not in name else value  # type: ignore[index]

    return inputs if tokens == whole else {name: ended(name, value) for name, value in inputs.items()}


def _difference(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape or not bool(torch.isfinite(found).all()):
        return torch.inf
    scale = wanted.float().std().clamp_min(torch.finfo(torch.float32).tiny)
    return float((found.float() - wanted.float()).abs().max() / scale)


def _forms(vlm: VLM, inputs: Inputs, towers: Towers) -> Form:
    """How the blocks answer, seen in one pass."""
    seen: dict[TowerName, list[int]] = {"vision": [], "language": []}
    handles = []
    for tower, blocks in both_towers(towers):
        for block in blocks:
            note = lambda module, args, output, into=seen[tower]: into.append(form_of(output))  # noqa: E731
            handles.append(block.register_forward_hook(note))
    handles.append(stop_after(towers.language_blocks[-1]))
    try:
        vlm.model(**inputs, use_cache=False)
    except Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    for tower, blocks in both_towers(towers):
        if len(seen[tower]) != len(blocks):
            raise Incapable(f"one pass runs {len(seen[tower])} blocks of the {tower} tower's {len(blocks)}")
    return Form(vision=tuple(seen["vision"]), language=tuple(seen["language"]))


def _fed(model: Model, inputs: Inputs, vision: Chain) -> tuple[int, ...]:
    """The vision blocks whose output arrives at the language model: not a number given there, not a number arrives."""
    lost = torch.full_like(vision.root, torch.nan)
    fed = tuple(
        layer
        for layer in range(len(vision.blocks))
        if bool(model.merged(inputs, vision, {layer: lost}).isnan().any())
    )
    if not fed:
        raise Incapable("no output of a vision block arrives where the first language block reads")
    return fed


def _end(vlm: VLM, inputs: Inputs, existing: Sequence[Tensor | None]) -> int | None:
    """Where a prompt may end at the earliest, after its last image; None where it has to be whole.

    It has to be whole where an earlier position may look at a later one, and where nothing says where the image ends.
    """
    named = image_positions(inputs, vlm.prompting.image_token_id) if vlm.proof.image_ids_hold else None
    masks = [there for there in existing if there is not None]
    if not named or "input_ids" not in inputs or not masks:
        return None
    end, whole = max(named) + 1, len(masks[0])
    causal = not any(bool(there[:end, end:].any() or there[end:, end:].triu(1).any()) for there in masks)
    return end if causal and end < whole == inputs["input_ids"].shape[1] else None


def _conditions(existing: dict[TowerName, list[Tensor | None]]) -> list[Condition]:
    """Intact, cut in one tower, in the other, in both, and elsewhere."""
    sets: dict[str, tuple[Cut, ...]] = {}
    for tower, edges in existing.items():
        early, late = range(len(edges)), range(len(edges) // 2, len(edges))
        sets[f"{tower} early"] = tuple(_random_cuts(tower, edges, early, None))
        sets[f"{tower} late"] = tuple(_random_cuts(tower, edges, late, (0,)))
    both = (*sets["vision early"], *sets["language late"])
    some = [("intact", ()), *sets.items(), ("both", both)]
    return [Condition(name=name, cuts=cuts) for name, cuts in some]


def _random_cuts(
    tower: TowerName, existing: Sequence[Tensor | None], layers: range, heads: tuple[int, ...] | None
) -> list[Cut]:
    """A third of the edges of some layers, none of a token to itself."""
    cuts = []
    for layer in layers:
        there = existing[layer]
        if there is None:
            continue
        drawn = torch.rand(there.shape, generator=torch.Generator().manual_seed(layer)) < 1 / 3
        edges = (drawn.to(there.device) & there).fill_diagonal_(False)
        if bool(edges.any()):
            cuts.append(Cut(name=f"random {layer}", tower=tower, edges=edges, layers=(layer,), heads=heads))
    return cuts
