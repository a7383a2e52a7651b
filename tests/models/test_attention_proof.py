"""A knockout proves itself on every architecture, and a broken one is refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attention_parts import PROMPT, Small, cross, cut
from checkpoints import VLMS
from eyechart.core.errors import NeverFired, NoEdges
from eyechart.models.attention import Call, Cut, cuts
from eyechart.models.attention.proof import KnockoutProof, prove_knockout

COMMON = ("llava", "qwen2_5_vl", "paligemma")
ALL = [
    pytest.param(name, attn, marks=() if name in COMMON else pytest.mark.slow)
    for name in VLMS
    for attn in ("eager", "sdpa")
]


@pytest.fixture(scope="module")
def small(checkpoint_dir: Callable[[str], Path]) -> Callable[..., Small]:
    cache: dict[tuple[object, ...], Small] = {}

    def load(name: str, attn: str = "eager", dtype: torch.dtype = torch.float32) -> Small:
        key = (name, attn, dtype)
        if key not in cache:
            cache[key] = Small(checkpoint_dir(name), attn, dtype)
        return cache[key]

    return load


def proved(one: Small, *knockouts: Cut) -> KnockoutProof:
    return prove_knockout(one.towers, one.run, knockouts)


@pytest.mark.parametrize("tower", ["vision", "language"])
@pytest.mark.parametrize(("name", "attn"), ALL)
def test_part_from_rest_is_proved_on_every_architecture(small, name, attn, tower):
    one = small(name, attn)
    size, layers = one.tokens(tower), one.layers(tower)
    part = [size // 2, size // 2 + 1]
    for chosen in (layers, layers[:1], layers[-1:], layers[1:2]):
        proof = proved(one, cut(cross(size, part), chosen, tower)).towers[0]
        assert proof.layers == chosen
        assert proof.edges > 0
        assert 0 < proof.weight_before <= 1.001
        assert proof.weight_after == 0
        assert proof.change > 0
        assert proof.leak == 0
        assert proof.shielded > 0
        assert proof.sources > 0
