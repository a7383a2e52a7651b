"""Names of the released I-MoF checkpoints: there and back, and the two adapters never meet."""

import pytest
import torch
from torch import nn

from checkpoint_parts import tower
from eyechart.core.errors import UserError
from eyechart.models.mixtures import from_published, to_published
from mixture_parts import mixture


class Attention(nn.Module):
    """DINOv2's own: query, key and value in one matrix."""

    def __init__(self, width, heads):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x):
        images, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(images, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(images, tokens, width))


class Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(width))

    def forward(self, x):
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.ls1, self.ls2 = Attention(width, 4), Scale(width), Scale(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 2 * width), "fc2": nn.Linear(2 * width, width)})

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x)))))


class Dino(nn.Module):
    """The released code's second encoder, written out: `x_prenorm` without the class token is what I-MoF reads."""

    def __init__(self, width=32, patch=8, side=7, layers=3):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.mask_token = nn.Parameter(torch.randn(1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + side**2, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, stride=patch)})
        self.blocks = nn.ModuleList([Block(width) for _ in range(layers)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, pixels):
        x = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x[:, 1:]


def released(model):
    """The model's weights by the released names, with a DINOv2 of its own and what else such a file may hold."""
    weights = {
        name: value for name, value in to_published(model.state_dict()).items() if "dino_tower" not in name
    }
    torch.manual_seed(1)
    dino = Dino()
    weights |= {f"model.dino_tower.vision_tower.{name}": value for name, value in dino.state_dict().items()}
    weights["model.dino_tower.clip_vision_tower.vision_model.post_layernorm.weight"] = torch.zeros(32)
    weights["model.vision_tower.vision_tower.vision_model.embeddings.position_ids"] = torch.arange(50)
    return weights, dino


@torch.no_grad()
def test_a_released_checkpoint_loads_and_its_dino_computes_the_same():
    model, _ = mixture("interleaved", second_layer=-1)
    weights, dino = released(model)
    model.load_state_dict(from_published(weights))
    pixels = torch.randn(2, 3, 56, 56)
    features, _ = model.model.encoded(pixels, pixels)
    assert torch.allclose(features["second_vision_tower"], dino(pixels), atol=1e-5)


def test_there_and_back_is_the_same_in_both_directions():
    model, _ = mixture("interleaved")
    ours = model.state_dict()
    again = from_published(to_published(ours))
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[name], value) for name, value in ours.items())
    weights, _ = released(model)
    kept = {k: v for k, v in weights.items() if "clip_vision_tower" not in k and "position_ids" not in k}
    back = to_published(from_published(weights))
    assert back.keys() == kept.keys()
    assert all(torch.equal(back[name], value) for name, value in kept.items())


def released_loader(weights, keyword):
    """What the released code does: everything with the keyword in it, by what follows it; the last one wins."""
    return {name.split(keyword + ".")[1]: value for name, value in weights.items() if keyword in name}


def test_clips_adapter_never_gets_dinos_weights_as_it_does_in_the_released_loader():
    model, _ = mixture("interleaved")
    weights, _ = released(model)
    clip, dino = weights["model.mm_projector.0.weight"], weights["model.dino_mm_projector.0.weight"]
    assert not torch.equal(clip, dino)
    assert torch.equal(released_loader(weights, "mm_projector")["0.weight"], dino), "the defect is there"
    found = from_published(weights)
    assert torch.equal(found["model.multi_modal_projector.linear_1.weight"], clip)
    assert torch.equal(found["model.second_multi_modal_projector.linear_1.weight"], dino)
    adapters = {name: value for name, value in weights.items() if "mm_projector" in name}
    assert len(from_published(adapters)) == len(adapters) == 8


def test_each_name_keeps_its_own_place_whatever_the_order():
    model, _ = mixture("interleaved")
    weights, _ = released(model)
    wanted = from_published(weights)
    for order in (sorted(weights), sorted(weights, reverse=True)):
        found = from_published({name: weights[name] for name in order})
        assert all(torch.equal(value, wanted[name]) for name, value in found.items())


@pytest.mark.parametrize(
    "name",
    [
        "model.some_mm_projector.0.weight",
        "mm_projector.0.weight",
        "model.mm_projector.1.weight",
        "classifier.weight",
    ],
)
def test_a_name_that_is_not_known_is_refused(name):
    with pytest.raises(UserError, match=name):
        from_published({name: torch.zeros(1)})


def test_what_has_no_released_name_is_refused():
    model, _ = mixture("interleaved", tower("siglip_vision_model"))
    with pytest.raises(UserError, match="no place for the weight"):
        to_published(model.state_dict())
    model, _ = mixture("interleaved")
    weights = model.state_dict()
    del weights["model.second_vision_tower.encoder.layer.0.attention.k_proj.bias"]
    with pytest.raises(UserError, match=r"blocks\.0\.attn\.qkv\.bias is made of .* only q_proj, v_proj"):
        to_published(weights)
