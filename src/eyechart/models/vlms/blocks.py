"""The blocks of a tower and the self-attention in them, told from other attention by structure and class name."""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

_FUSED = re.compile(r"^(qkv|wqkv|query_key_value|in_proj|c_attn)(_|$)", re.IGNORECASE)
_QUERY = re.compile(r"^(q|wq|query)(_|$)", re.IGNORECASE)
_KEY = re.compile(r"^(k|kv|wk|key)(_|$)", re.IGNORECASE)
_NOT_SELF = {
    "cross-attention": re.compile(r"cross|x_attn|encoder_attn|encdec|encoder_decoder", re.IGNORECASE),
    "a linear attention, which has no (query, key) edges": re.compile(r"linear_?att", re.IGNORECASE),
    "an attention over channels, not tokens": re.compile(r"channel_?att", re.IGNORECASE),
    "a query resampler (Q-Former, Perceiver), no tower": re.compile(r"q_?former|perceiver|resampler", re.I),
}


BlockList = tuple[str, tuple[nn.Module, ...]]
"""Path of a module list, and its entries."""


def blocks_of(
    tower: nn.Module, names: dict[int, str], skip: tuple[nn.Module, ...]
) -> tuple[tuple[nn.Module, ...], tuple[str, ...]]:
    """All blocks of a tower in module order: stages and a second stack follow one another."""
    lists, excluded = block_lists(tower, names, skip)
    return tuple(block for _, blocks in lists for block in blocks), excluded


def block_lists(
    tower: nn.Module, names: dict[int, str], skip: tuple[nn.Module, ...]
) -> tuple[list[BlockList], tuple[str, ...]]:
    """The module lists of a tower whose entries hold self-attention, and `path: why` for other attention modules.

    Args:
        names: path of each module by its id.
        skip: modules not to look into.
    """
    lists: list[BlockList] = []
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


def cross_blocks(
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
    if not any(self_attention_in(entry) for entry in entries):
        return False
    inner = (m for entry in entries for m in entry.modules() if isinstance(m, nn.ModuleList | nn.Sequential))
    return not any(_is_block_list(m) for m in inner if len(list(m.children())) > 1 or _is_stage(m))


def _is_stage(modules: nn.Module) -> bool:
    return isinstance(modules, nn.ModuleList) and all(self_attention_in(m) for m in modules.children())


def _walk(block: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The block's attention modules in order, each with why it is no self-attention ('' when it is one)."""
    for name, module in block.named_modules():
        if _has_projections(module):
            yield module, _why_not(f"{type(block).__name__} {name} {type(module).__name__}")


def self_attention_in(block: nn.Module) -> nn.Module | None:
    """A block's self-attention module: the first that is one; None for a block without."""
    return next((module for module, why in _walk(block) if not why), None)


def _others(blocks: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for block in blocks.children():
        first = self_attention_in(block)
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


def heads_of(module: Any) -> int | None:
    """How many query heads an attention module has; None where neither it nor its config says."""
    owners = (module, getattr(module, "config", None))
    for owner in owners:
        for name in ("num_heads", "num_attention_heads", "n_heads", "num_query_heads"):
            value = getattr(owner, name, None)
            if isinstance(value, int):
                return value
    return None
