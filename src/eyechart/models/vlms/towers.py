"""The parts of a VLM: vision tower, projector, language model and their self-attention modules, found at run time.

No path is written down. The vision tower comes from the model's own accessor, the language tower from where its
input embeddings stand, blocks are the entries of module lists that hold attention, and what lies between the towers
is found by following the image through a forward pass (`dataflow.py`). Dotted names are looked up by identity.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from eyechart.core.errors import Incapable
from eyechart.models.vlms.dataflow import Flow, follow

TowerName = Literal["vision", "language"]

_FUSED = re.compile(r"^(qkv|wqkv|query_key_value|in_proj|c_attn)(_|$)", re.IGNORECASE)
_QUERY = re.compile(r"^(q|wq|query)(_|$)", re.IGNORECASE)
_KEY = re.compile(r"^(k|kv|wk|key)(_|$)", re.IGNORECASE)
_NOT_SELF = {
    "cross-attention": re.compile(r"cross|x_attn|encoder_attn|encdec|encoder_decoder", re.IGNORECASE),
    "a linear attention, which has no (query, key) edges": re.compile(r"linear_?att", re.IGNORECASE),
    "an attention over channels, not tokens": re.compile(r"channel_?att", re.IGNORECASE),
    "a query resampler (Q-Former, Perceiver), no tower": re.compile(r"q_?former|perceiver|resampler", re.I),
}


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
    vision_blocks, excluded_vision = _blocks(vision, names, skip=())
    language, lists, excluded = _language_tower(base, embeddings, vision, names)
    blocks, is_encoder, others = _reading_blocks(base, language, lists)
    width = int(embeddings.weight.shape[-1])
    norm = _final_norm(language, blocks)
    bridge_names: tuple[str, ...] = ()
    flow = None
    if run is not None:
        flow = follow(
            model,
            run,
            vision=vision,
            vision_blocks=vision_blocks,
            language=language,
            language_blocks=blocks,
            cross_blocks=_cross_blocks(language, vision, blocks),
            embeddings=embeddings,
            width=width,
        )
        bridge_names = flow.bridge
        norm = model.get_submodule(flow.final_norm) if flow.final_norm else norm
    head = _output_embeddings(base)
    sites = (*_sites("vision", vision_blocks, names), *_sites("language", blocks, names))
    return Towers(
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
        width=width,
        bridge=tuple(model.get_submodule(name) for name in bridge_names),
        bridge_names=bridge_names,
        flow=flow,
        excluded=(*excluded_vision, *excluded, *others),
        sites=sites,
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


_List = tuple[str, tuple[nn.Module, ...]]


def _language_tower(
    base: nn.Module, embeddings: nn.Module, vision: nn.Module, names: dict[int, str]
) -> tuple[nn.Module, list[_List], tuple[str, ...]]:
    """The nearest holder of the input embeddings that also holds blocks outside the vision tower."""
    path = next(name for name, module in base.named_modules() if module is embeddings)
    parts = path.split(".")
    for depth in range(len(parts) - 1, -1, -1):
        holder = base.get_submodule(".".join(parts[:depth]))
        lists, excluded = _block_lists(holder, names, skip=(vision,))
        if lists:
            return holder, lists, excluded
    raise Incapable(f"{type(base).__name__} has no list of language blocks with self-attention")


def _reading_blocks(
    base: Any, language: Any, lists: list[_List]
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


def _blocks(
    tower: nn.Module, names: dict[int, str], skip: tuple[nn.Module, ...]
) -> tuple[tuple[nn.Module, ...], tuple[str, ...]]:
    """All blocks of a tower in module order: stages and a second stack follow one another."""
    lists, excluded = _block_lists(tower, names, skip)
    return tuple(block for _, blocks in lists for block in blocks), excluded


def _block_lists(
    tower: nn.Module, names: dict[int, str], skip: tuple[nn.Module, ...]
) -> tuple[list[_List], tuple[str, ...]]:
    lists: list[_List] = []
    excluded: list[str] = []

    def visit(module: nn.Module) -> None:
        for name, child in module.named_children():
            if any(child is other for other in skip):
                continue
            if isinstance(child, nn.ModuleList | nn.Sequential) and _is_block_list(child):
                lists.append((names[id(child)], tuple(child)))
                excluded.extend(f"{names[id(m)]}: {why}" for m, why in _others(child))
            elif why := _why_not(f"{name} {type(child).__name__}"):
                if any(_has_projections(m) for m in child.modules()):
                    excluded.append(f"{names[id(child)]}: {why}")
            else:
                visit(child)

    visit(tower)
    return lists, tuple(excluded)


def _cross_blocks(
    language: nn.Module, vision: nn.Module, blocks: tuple[nn.Module, ...]
) -> tuple[nn.Module, ...]:
    """The entries of lists of cross-attention blocks that the language tower holds beside its own blocks."""
    known = {id(m) for one in (*blocks, vision) for m in one.modules()}
    lists = (m for m in language.modules() if isinstance(m, nn.ModuleList) and id(m) not in known)
    entries = (entry for one in lists for entry in one if id(entry) not in known)
    crossing = re.compile("cross", re.IGNORECASE)
    return tuple(e for e in entries if any(crossing.search(type(m).__name__) for m in e.modules()))


def _is_block_list(modules: nn.Module) -> bool:
    """A list of blocks holds self-attention in an entry, and no entry holds such a list itself (a stage)."""
    entries = list(modules.children())
    if not any(_attention_in(entry) for entry in entries):
        return False
    inner = (m for entry in entries for m in entry.modules() if isinstance(m, nn.ModuleList | nn.Sequential))
    return not any(_is_block_list(m) for m in inner if len(list(m.children())) > 1 or _is_stage(m))


def _is_stage(modules: nn.Module) -> bool:
    return isinstance(modules, nn.ModuleList) and all(_attention_in(m) for m in modules.children())


def _walk(block: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The block's attention modules in order, each with why it is no self-attention ('' when it is one)."""
    for name, module in block.named_modules():
        if _has_projections(module):
            yield module, _why_not(f"{type(block).__name__} {name} {type(module).__name__}")


def _attention_in(block: nn.Module) -> nn.Module | None:
    return next((module for module, why in _walk(block) if not why), None)


def _others(blocks: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for block in blocks.children():
        first = _attention_in(block)
        for module, why in _walk(block):
            if module is not first:
                yield module, why or "a second attention in its block"


def _why_not(words: str) -> str:
    return next((why for why, pattern in _NOT_SELF.items() if pattern.search(words)), "")


def _has_projections(module: nn.Module) -> bool:
    """An attention module by class name that owns query and key projections, apart or fused."""
    if "attention" not in type(module).__name__.lower():
        return False
    children = [name for name, _ in module.named_children()]
    if any(map(_FUSED.match, children)) or isinstance(module, nn.MultiheadAttention):
        return True
    return any(map(_QUERY.match, children)) and any(map(_KEY.match, children))


def _sites(tower: TowerName, blocks: tuple[nn.Module, ...], names: dict[int, str]) -> Iterator[AttentionSite]:
    for layer, block in enumerate(blocks):
        module = _attention_in(block)
        if module is not None:
            yield AttentionSite(
                tower=tower, layer=layer, name=names[id(module)], module=module, heads=_heads(module)
            )


def _heads(module: Any) -> int | None:
    owners = (module, getattr(module, "config", None))
    for owner in owners:
        for name in ("num_heads", "num_attention_heads", "n_heads", "num_query_heads"):
            value = getattr(owner, name, None)
            if isinstance(value, int):
                return value
    return None


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
