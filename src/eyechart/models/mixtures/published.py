"""Names of weights in the released I-MoF code and here, both ways.

The released code (tsb0601/MMVP, LLaVA/llava/model) keeps two adapters as `model.mm_projector` and
`model.dino_mm_projector`, and reads the first by looking for "mm_projector" *in* a name, which both have: of a
checkpoint that holds both, the DINO adapter ends up in CLIP's place. Here a name is matched from its first letter, and
two names that come out the same are an error.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from eyechart.core.errors import UserError

Weights = Mapping[str, Tensor]

_PLAIN = (
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.dino_mm_projector.0.", "model.second_multi_modal_projector.linear_1."),
    ("model.dino_mm_projector.2.", "model.second_multi_modal_projector.linear_2."),
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("lm_head.", "lm_head."),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.layers.", "model.language_model.layers."),
    ("model.norm.", "model.language_model.norm."),
)
_DINO, _SECOND = "model.dino_tower.vision_tower.", "model.second_vision_tower."
_OF_DINO = (
    ("cls_token", "embeddings.cls_token"),
    ("mask_token", "embeddings.mask_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("norm.", "layernorm."),
)
_OF_BLOCK = (
    ("norm1.", "norm1."),
    ("norm2.", "norm2."),
    ("attn.proj.", "attention.o_proj."),
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
    ("mlp.", "mlp."),
)
_QKV = ("q_proj", "k_proj", "v_proj")
_UNUSED = re.compile(r"model\.dino_tower\.clip_vision_tower\.|.*\.rotary_emb\.inv_freq$|.*\.position_ids$")
"""What a released checkpoint may hold and no computation reads: a second CLIP, kept for its number format, and tables."""


def from_published(weights: Weights) -> dict[str, Tensor]:
    """The weights of a released I-MoF checkpoint under the names of a `MixtureForConditionalGeneration`.

    DINOv2's fused query, key and value are parted. Files that hold an adapter only are read as well.

    Raises:
        UserError: a name is not known, or two become one.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if _UNUSED.match(name):
            continue
        if name.startswith(_DINO):
            for part, value in _dino_parts(name.removeprefix(_DINO), tensor):
                _put(found, _SECOND + part, value, name)
        else:
            _put(found, _renamed(name, _PLAIN), tensor, name)
    return found


def to_published(weights: Weights) -> dict[str, Tensor]:
    """The weights of a `MixtureForConditionalGeneration` of CLIP and DINOv2 under the released code's names.

    Raises:
        UserError: a name is not known (another encoder, channel statistics), or query, key and value are not all there.
    """
    found: dict[str, Tensor] = {}
    fused: dict[str, dict[str, Tensor]] = {}
    back = tuple((ours, theirs) for theirs, ours in _PLAIN)
    for name, tensor in weights.items():
        if not name.startswith(_SECOND):
            _put(found, _renamed(name, back), tensor, name)
            continue
        part = name.removeprefix(_SECOND)
        if held := re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.([qkv]_proj)\.(weight|bias)", part):
            fused.setdefault(f"{_DINO}blocks.{held[1]}.attn.qkv.{held[3]}", {})[held[2]] = tensor
        else:
            _put(found, _DINO + _dino_name(part), tensor, name)
    for name, three in fused.items():
        if set(three) != set(_QKV):
            raise UserError(
                f"{name} is made of {', '.join(_QKV)}, but there are only {', '.join(sorted(three))}"
            )
        _put(found, name, torch.cat([three[one] for one in _QKV]), name)
    return found


def _dino_parts(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """One weight of DINOv2's own code as those of transformers' Dinov2Model."""
    held = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if held is None:
        return [(_renamed(name, _OF_DINO), tensor)]
    block = f"encoder.layer.{held[1]}."
    if fused := re.fullmatch(r"attn\.qkv\.(weight|bias)", held[2]):
        return [
            (f"{block}attention.{one}.{fused[1]}", value)
            for one, value in zip(_QKV, tensor.chunk(3), strict=True)
        ]
    return [(block + _renamed(held[2], _OF_BLOCK), tensor)]


def _dino_name(name: str) -> str:
    """The way back, for a weight that is not fused."""
    held = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", name)
    pairs = _OF_DINO if held is None else _OF_BLOCK
    back = _renamed(name if held is None else held[2], tuple((ours, theirs) for theirs, ours in pairs))
    return back if held is None else f"blocks.{held[1]}.{back}"


def _renamed(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise UserError(
        f"no place for the weight {name!r}: expected the names of the released I-MoF code for CLIP, DINOv2, the two adapters "
        "and a Llama"
    )


def _put(found: dict[str, Tensor], name: str, tensor: Tensor, source: str) -> None:
    if name in found:
        raise UserError(
            f"{source!r} and another weight both become {name!r}; expected one weight for each name"
        )
    found[name] = tensor
