"""The parts of a VLM: vision tower, projector, language model and their self-attention modules, found at run time.

No path is written down. The vision tower comes from the model's own accessor, the language tower from where its
input embeddings stand, blocks are the entries of module lists that hold attention, and what lies between the towers
is found by following the image through a forward pass (`dataflow.py`). Dotted names are looked up by identity.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from eyechart.core.errors import Incapable
from eyechart.models.vlms.blocks import (
    BlockList,
    block_lists,
    blocks_of,
    cross_blocks,
    heads_of,
    self_attention_in,
)
from eyechart.models.vlms.dataflow import Flow, follow

TowerName = Literal["vision", "language"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionSite:
    """One self-attention module: where it stands and how many heads it has."""

    tower: TowerName
    layer: int
    """Place of its block among the tower's blocks, from 0; blocks without self-attention leave a gap."""

    name: str
    """Dotted path from the model that was resolved."""

    module: nn.Module
    heads: int | None
    """Query heads; None where neither the module nor its config says."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Towers:
    """What a VLM is made of. Every `*_name` is the dotted path of the part beside it."""

    vision: nn.Module
    vision_name: str
    vision_blocks: tuple[nn.Module, ...]
    language: nn.Module
    """The module that holds the input embeddings and the blocks that read them."""

    language_name: str
    language_blocks: tuple[nn.Module, ...]
    """In an encoder-decoder language model, the encoder's: the image enters there."""

    language_encoder: bool
    """True when `language_blocks` are the encoder of an encoder-decoder language model."""

    embeddings: nn.Module
    embeddings_name: str
    lm_head: nn.Module | None
    lm_head_name: str | None
    final_norm: nn.Module | None
    final_norm_name: str | None
    width: int
    """Of the language model's input embeddings."""

    bridge: tuple[nn.Module, ...] = ()
    """The modules that carry the image from the vision tower to the language model, in the order they run."""

    bridge_names: tuple[str, ...] = ()
    flow: Flow | None = None
    """What the image did on its way through a forward pass; None when no pass was run."""

    excluded: tuple[str, ...] = ()
    """`path: why` for attention modules in the towers that are no self-attention site."""

    sites: tuple[AttentionSite, ...] = field(default=(), repr=False)

    @property
    def projector(self) -> nn.Module | None:
        """The first module of the bridge: what reads the vision features (for BLIP the Q-Former)."""
        return self.bridge[0] if self.bridge else None

    @property
    def projector_name(self) -> str | None:
        """Dotted path of `projector`."""
        return self.bridge_names[0] if self.bridge_names else None

    def self_attentions(self, tower: TowerName) -> tuple[AttentionSite, ...]:
        """The tower's self-attention modules in layer order, one for each block that has one."""
        return tuple(site for site in self.sites if site.tower == tower)


def resolve_towers(model: nn.Module, *, run: Callable[[], object] | None = None) -> Towers:
    """Find the parts of a VLM, PEFT-wrapped or not.

    Args:
        model: a transformers image-text-to-text model, or a `PeftModel` around one.
        run: runs one forward pass of `model` on any image. With it the projector, the image positions and the
            final norm are found by following the image; without it `bridge` is empty and the norm is read off
            the structure.

    Raises:
        Incapable: the model has no vision tower of its own (pixels go straight into the language model), or
            no language blocks with self-attention.
    """
    base: Any = unwrapped(model)
    names = {id(module): name for name, module in model.named_modules()}
    embeddings = _input_embeddings(base)
    vision = _vision_tower(base, embeddings)
    vision_blocks, excluded_vision = blocks_of(vision, names, skip=())
    language, lists, excluded = _language_tower(base, embeddings, vision, names)
    blocks, is_encoder, others = _reading_blocks(base, language, lists)
    norm, head = _final_norm(language, blocks), _output_embeddings(base)
    bare = Towers(
        vision=vision,
        vision_name=names[id(vision)],
        vision_blocks=vision_blocks,
        language=language,
        language_name=names[id(language)],
        language_blocks=blocks,
        language_encoder=is_encoder,
        embeddings=embeddings,
        embeddings_name=names[id(embeddings)],
        lm_head=head,
        lm_head_name=names.get(id(head)),
        final_norm=norm,
        final_norm_name=names.get(id(norm)),
        width=int(embeddings.weight.shape[-1]),
        excluded=(*excluded_vision, *excluded, *others),
        sites=(*_sites("vision", vision_blocks, names), *_sites("language", blocks, names)),
    )
    return bare if run is None else _followed(model, bare, run)


def _followed(model: nn.Module, bare: Towers, run: Callable[[], object]) -> Towers:
    """The same towers with what a forward pass shows: the bridge between them and the norm that ends the second."""
    flow = follow(
        model,
        run,
        vision=bare.vision,
        vision_blocks=bare.vision_blocks,
        language=bare.language,
        stack=_holder_of(bare.language, bare.language_blocks),
        language_blocks=bare.language_blocks,
        cross_blocks=cross_blocks(bare.language, bare.vision, bare.language_blocks),
        embeddings=bare.embeddings,
        width=bare.width,
    )
    return replace(
        bare,
        final_norm=model.get_submodule(flow.final_norm) if flow.final_norm else None,
        final_norm_name=flow.final_norm,
        bridge=tuple(model.get_submodule(name) for name in flow.bridge),
        bridge_names=flow.bridge,
        flow=flow,
    )


def unwrapped(model: nn.Module) -> nn.Module:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    inside = getattr(model, "get_base_model", None)
    return inside() if callable(inside) else model


def is_within(module: nn.Module, holder: nn.Module) -> bool:
    """Whether `module` is `holder` or one of its descendants."""
    return any(part is module for part in holder.modules())


def _vision_tower(base: Any, embeddings: nn.Module) -> nn.Module:
    """By the accessor; where that answers with something else, by what a sub-model says it is fed."""
    found = base
    for _ in range(3):  # an encoder that holds text and vision (T5Gemma2) is asked again
        found = found.get_encoder("image") if hasattr(found, "get_encoder") else None
        if not isinstance(found, nn.Module):
            break
        if not is_within(embeddings, found):
            return found
    for module in base.modules():
        fed = getattr(module, "main_input_name", None)
        if fed in ("pixel_values", "flattened_patches") and not is_within(embeddings, module):
            assert isinstance(module, nn.Module)
            return module
    raise Incapable(
        f"{type(base).__name__} has no vision tower: its pixels go into the language model without an encoder "
        "of their own. What needs a vision tower (fed features, vision states, attention edits) cannot be done."
    )


def _input_embeddings(base: Any) -> Any:
    try:
        return base.get_input_embeddings()
    except NotImplementedError:  # transformers' own answer where the accessor cannot be derived
        return base.get_decoder().get_input_embeddings()


def _output_embeddings(base: Any) -> nn.Module | None:
    """The unembedding: the model's own accessor, or that of a sub-model (BLIP's text decoder)."""
    for module in base.modules():
        accessor = getattr(module, "get_output_embeddings", None)
        head = accessor() if accessor is not None else None
        if isinstance(head, nn.Module):
            return head
    return None


def _language_tower(
    base: nn.Module, embeddings: nn.Module, vision: nn.Module, names: dict[int, str]
) -> tuple[nn.Module, list[BlockList], tuple[str, ...]]:
    """The nearest holder of the input embeddings that also holds blocks outside the vision tower."""
    path = next(name for name, module in base.named_modules() if module is embeddings)
    parts = path.split(".")
    for depth in range(len(parts) - 1, -1, -1):
        holder = base.get_submodule(".".join(parts[:depth]))
        lists, excluded = block_lists(holder, names, skip=(vision,))
        if lists:
            return holder, lists, excluded
    raise Incapable(f"{type(base).__name__} has no list of language blocks with self-attention")


def _reading_blocks(
    base: Any, language: Any, lists: list[BlockList]
) -> tuple[tuple[nn.Module, ...], bool, tuple[str, ...]]:
    """The blocks that read the input embeddings: of an encoder-decoder its encoder, else the biggest list."""
    encoder = language.get_encoder() if hasattr(language, "get_encoder") else language
    inside = [one for one in lists if is_within(one[1][0], encoder)]
    split = 0 < len(inside) < len(lists)
    chosen = inside[0] if split else max(lists, key=lambda one: _size(one[1]))
    apart = bool(getattr(base.config, "is_encoder_decoder", False)) and not is_within(
        chosen[1][0], base.get_decoder()
    )
    why = "blocks of the decoder, which the image reaches by cross-attention" if split else "a smaller list"
    others = tuple(f"{name}: {why}" for name, blocks in lists if blocks is not chosen[1])
    return chosen[1], split or apart, others


def _size(blocks: tuple[nn.Module, ...]) -> int:
    return sum(p.numel() for block in blocks for p in block.parameters())


def _sites(tower: TowerName, blocks: tuple[nn.Module, ...], names: dict[int, str]) -> Iterator[AttentionSite]:
    for layer, block in enumerate(blocks):
        module = self_attention_in(block)
        if module is not None:
            yield AttentionSite(
                tower=tower, layer=layer, name=names[id(module)], module=module, heads=heads_of(module)
            )


def _final_norm(language: nn.Module, blocks: tuple[nn.Module, ...]) -> nn.Module | None:
    """The norm beside the blocks, by structure: the last one in their holder that is no norm of embeddings."""
    holder = _holder_of(language, blocks)
    norms = [
        module
        for name, module in holder.named_children()
        if "norm" in type(module).__name__.lower() and not re.search("embed|pre_?norm", name, re.IGNORECASE)
    ]
    return norms[-1] if norms else None


def _holder_of(language: nn.Module, blocks: tuple[nn.Module, ...]) -> nn.Module:
    for module in language.modules():
        for child in module.children():
            if isinstance(child, nn.ModuleList | nn.Sequential) and blocks[0] in list(child):
                return module
    return language
