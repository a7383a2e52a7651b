"""What a model lacks and why, read off what it has proved about itself."""

import inspect
from typing import Any

from eyechart.core.records import Capability
from eyechart.models.vlms.proof import Proof
from eyechart.models.vlms.towers import Towers

_CROSS = (
    "the image reaches its language model through cross-attention, beside the sequence, so no position of the "
    "sequence holds it"
)
_LOST = "the image could not be followed from the vision tower into the language model's sequence"


def missing(model: Any, proof: Proof) -> dict[Capability, str]:
    """The capabilities a model lacks, each with the reason; `SPATIAL_MAP` only as far as the towers tell.

    Args:
        model: the transformers model.
        proof: what it showed on two pictures.
    """
    found: dict[Capability, str] = {}
    towers = proof.towers
    if proof.why_not_asked:
        found |= dict.fromkeys((Capability.GENERATE, Capability.OPTION_SCORES), proof.why_not_asked)
    if towers is None:
        inside = (
            Capability.FED_FEATURES,
            Capability.HIDDEN_STATES,
            Capability.EDIT_ATTENTION,
            Capability.SPATIAL_MAP,
        )
        found |= dict.fromkeys(inside, proof.why_no_towers)
    else:
        found |= _of_towers(towers)
    if "labels" not in inspect.signature(model.forward).parameters:
        found[Capability.TRAIN] = f"{type(model).__name__} takes no labels, so it computes no loss"
    return found


def _of_towers(towers: Towers) -> dict[Capability, str]:
    found: dict[Capability, str] = {}
    flow = towers.flow
    if flow is None or not flow.positions:
        why = _CROSS if flow is not None and flow.by_cross_attention else _LOST
        found |= {Capability.HIDDEN_STATES: why, Capability.SPATIAL_MAP: why}
    if towers.projector is None:
        found[Capability.FED_FEATURES] = (
            "it has no projector: no module stands between the vision tower and the language model"
        )
    lacking = [name for name in ("vision", "language") if not any(s.tower == name for s in towers.sites)]
    if lacking:
        found[Capability.EDIT_ATTENTION] = (
            f"no self-attention modules were found in its {' and '.join(lacking)} tower"
        )
    elif towers.language_encoder:
        found[Capability.EDIT_ATTENTION] = (
            "its language model is an encoder-decoder: the answer comes from a decoder that reads the image's "
            "positions through cross-attention, which cutting self-attention edges does not reach"
        )
    return found
