"""A hand-made tower that a knockout can be tried on: three blocks, six tokens, and one edge that carries a label.

Its attention goes through transformers' registry as real modelling files do, so it has their two names here.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from eyechart.models.vlms.towers import AttentionSite, Towers

TOKENS, LABELS = 6, 2
WIDTH = TOKENS + 2 * LABELS
"""Where a token stands, what label it has, and what label it was told of."""

SHARP = 40.0
"""The logit of a planted edge; all others have 0, so it gets all the attention that a double can tell."""


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """As transformers' files have it."""
    logits = query @ key.transpose(-1, -2)
    weights = (logits if attention_mask is None else logits + attention_mask).softmax(-1)
    return (weights @ value).transpose(1, 2), weights


class Attention(nn.Module):
    """One head, in which some queries look at one key each and all other queries everywhere."""

    def __init__(self, looks: dict[int, int], attn: str, *, told: bool) -> None:
        super().__init__()
        self.config = SimpleNamespace(_attn_implementation=attn)
        self.is_causal = False
        self.looks = torch.zeros(TOKENS, TOKENS, dtype=torch.float64)
        for query, key in looks.items():
            self.looks[query, key] = SHARP
        self.told = told
        """Whether what a token was told is passed on, beside its own label."""

    def forward(self, states: Tensor) -> Tensor:
        places = states[..., :TOKENS]
        values = states[..., TOKENS : TOKENS + LABELS] + self.told * states[..., TOKENS + LABELS :]
        values = values * bool(self.looks.any())  # in a block without a planted edge nothing is passed on
        wide = torch.zeros(*values.shape[:-1], TOKENS, dtype=values.dtype)
        wide[..., :LABELS] = values
        function = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        query, key, value = ((places @ self.looks)[:, None], places[:, None], wide[:, None])
        found, _ = function(self, query, key, value, attention_mask=None, scaling=1.0)
        added = torch.zeros_like(states)
        added[..., TOKENS + LABELS :] = found[:, :, 0, :LABELS]
        return added


class Block(nn.Module):
    """Attention beside what there was."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states + self.attention(hidden_states)


class Planted(nn.Module):
    """A tower whose blocks carry labels along the given edges (query to key, one map for each block) and no others."""

    def __init__(self, edges: list[dict[int, int]], attn: str = "eager") -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(Attention(looks, attn, told=layer > 0)) for layer, looks in enumerate(edges)
        )

    def forward(self, holder: int, label: int, rows: int = 1) -> Tensor:
        """What each token was told in the end, when one token has a label: row x token x label, all rows alike."""
        states = torch.zeros(rows, TOKENS, WIDTH, dtype=torch.float64)
        states[:, :, :TOKENS] = torch.eye(TOKENS)
        states[:, holder, TOKENS + label] = 1
        for block in self.blocks:
            states = block(states)
        return states[..., TOKENS + LABELS :]

    def towers(self) -> Towers:
        """As a vision tower; no language model follows."""
        blocks = tuple(self.blocks)
        sites = tuple(
            AttentionSite(
                tower="vision", layer=layer, name=f"blocks.{layer}.attention", module=block.attention, heads=1
            )
            for layer, block in enumerate(blocks)
        )
        nothing = nn.Identity()
        return Towers(
            vision=self, vision_name="", vision_blocks=blocks, language=nothing, language_name="language",
            language_blocks=(), language_encoder=False, embeddings=nothing, embeddings_name="embeddings",
            lm_head=None, lm_head_name=None, final_norm=None, final_norm_name=None, width=WIDTH, sites=sites,
        )  # fmt: skip
