"""A VLM's own lens: its final norm, its unembedding and what it does to its logits, proved on its own last layer.

Models cap their logits (Gemma 2), multiply them (Cohere) or divide them (Granite), and the same field of a config
means one in one family and the other in the next. So nothing is read off the config alone: the lens has to give the
model's own logits back from its last layer, or it is refused.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eyechart.core.errors import Incapable
from eyechart.core.records import Prompt
from eyechart.locate.lens import Lens, Unembedding
from eyechart.models.vlms import VLM, HiddenStates
from eyechart.models.vlms.objects import text_config, undisturbed
from eyechart.models.vlms.proof import probe_picture

SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier")
"""Fields of configs that scale logits; some families multiply by them and some divide."""

CAP = "final_logit_softcapping"

TOLERANCE = 1e-3
"""Of the greatest logit in float32: how far the lens may be from the model."""

COARSE = 3e-2
"""The same where the model computes in 16 bits."""


def lens_of(vlm: VLM) -> Lens:
    """The lens of a VLM; takes one pass over a probe picture, and the tokenizer's tokens for the vocabulary.

    Raises:
        Incapable: it has no final norm or unembedding that can be found, its image is read by an encoder whose states
            no unembedding reads, or its logits are not what norm and unembedding give.
    """
    towers = vlm.towers
    norm, head = towers.final_norm, towers.lm_head
    if towers.language_encoder:
        raise Incapable(f"{vlm.id}: its image is read by an encoder, whose states no unembedding reads")
    if norm is None or head is None:
        lacking = " and ".join(
            name for name, part in (("final norm", norm), ("unembedding", head)) if part is None
        )
        raise Incapable(
            f"{vlm.id} ({vlm.architecture}): no {lacking} is to be found, so it has no logit lens"
        )
    probe = Prompt(text="a", images=(probe_picture(96, 64),))
    wanted = _own_logits(vlm, probe)
    bare = make_lens(norm, head, vlm.tokenizer, rows=len(wanted))
    states = vlm.hidden_states(probe, positions=[-1], layers=[-1])
    with undisturbed(vlm.model, vlm.processor):
        given = _last_logits(bare, states)
    return _finished(vlm, bare, given, wanted[: bare.tokens])


def make_lens(norm: nn.Module, head: nn.Module, tokenizer: Any, *, rows: int) -> Lens:
    """The lens of these parts, before what the model does to its logits; `rows` are those of its logits."""
    ids = set(tokenizer.get_vocab().values())
    tokens = min(rows, max(ids) + 1)
    device, first = _device(head), _device(norm)
    return Lens(
        norm=lambda states: norm(states.to(first)).to(device),
        head=_matrix(head) or head,
        tokens=tokens,
        unused=tuple(sorted(set(range(tokens)) - ids)),
        device=str(device),
    )


def already_normed(states: HiddenStates) -> tuple[bool, ...]:
    """For each layer kept, whether its states have been through the final norm, as `lens_ranks` wants to know."""
    return tuple(states.last_is_normed and number == states.last_layer for number in states.layer_numbers)


def _own_logits(vlm: VLM, probe: Prompt) -> Float[Tensor, " token"]:
    """The model's own logits at the last position of the probe."""
    inputs = vlm.inputs([probe])
    with undisturbed(vlm.model, vlm.processor):
        logits: Tensor = vlm.model(**inputs, return_dict=True).logits
    return logits[0, -1].float().cpu()


def _last_logits(lens: Lens, states: HiddenStates) -> Float[Tensor, " token"]:
    state = states.layers[0].to(lens.device)
    normed = state if states.last_is_normed else lens.norm(state)
    if isinstance(lens.head, Unembedding):
        bias = 0.0 if lens.head.bias is None else lens.head.bias.float()
        return ((lens.head.weight @ normed[0].to(lens.head.weight.dtype)).float() + bias)[: lens.tokens].cpu()
    return lens.head(normed)[0, : lens.tokens].float().cpu()


def _finished(vlm: VLM, bare: Lens, given: Float[Tensor, " token"], wanted: Float[Tensor, " token"]) -> Lens:
    """The lens with the finish that gives the model's own logits."""
    tried = [
        (float((finish(given) - wanted).abs().max()), note, finish)
        for note, finish in _finishes(text_config(vlm.model))
    ]
    error, note, finish = min(tried, key=lambda one: one[0])  # the first of equals: what the config names
    limit = (TOLERANCE if vlm.dtype == "float32" else COARSE) * float(wanted.abs().max())
    if not error <= limit:
        raise Incapable(
            f"{vlm.id} ({vlm.architecture}): its logits at the last layer are not what its final norm and "
            f"unembedding give (off by {error:.3g}, with {', '.join(one[1] for one in tried)}), so it has no logit lens"
        )
    return Lens(
        norm=bare.norm,
        head=bare.head,
        tokens=bare.tokens,
        finish=None if note == "logits as they are" else finish,
        unused=bare.unused,
        device=bare.device,
        note=f"{note}; gives the model's own last logits back within {error:.2g}",
    )


def _finishes(config: Any) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    cap = getattr(config, CAP, None)
    if cap:
        yield f"logits capped at {cap:g}", lambda logits: torch.tanh(logits / cap) * cap
    for name in SCALES:
        by = getattr(config, name, None)
        if isinstance(by, int | float) and by not in (0, 1):
            yield f"logits times {name} {by:g}", partial(torch.mul, other=by)
            yield f"logits over {name} {by:g}", partial(torch.div, other=by)
    yield "logits as they are", lambda logits: logits


def _matrix(head: nn.Module) -> Unembedding | None:
    """The weights of a plain linear head that lie where they are used; None for any other, which has to be called."""
    if type(head) is not nn.Linear or head.weight.is_meta or hasattr(head, "_hf_hook"):
        return None
    bias: Tensor | None = head.bias
    return Unembedding(weight=head.weight.detach(), bias=None if bias is None else bias.detach())


def _device(module: nn.Module) -> torch.device:
    found = next((one.device for one in module.parameters() if not one.is_meta), None)
    return torch.device("cpu") if found is None else found
