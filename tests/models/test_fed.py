"""What the projector reads: against transformers' own hidden states, planted changes, and the pixels it stands for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from transformers.vision_utils import get_vision_window_index

from checkpoint_parts import build, clip_images, language, tower
from checkpoints import VLMS
from eyechart.core.errors import Incapable
from eyechart.models import provenance
from eyechart.models.fed import Fed, fed_features, pool
from eyechart.models.geometry import tower_geometry
from eyechart.models.geometry.inputs import picture_inputs
from eyechart.models.geometry.proof import silenced
from eyechart.models.processors import load_processor
from eyechart.models.provenance import State, Trace, fingerprints, match
from eyechart.models.token_places import grids_of, reading_order
from eyechart.models.untrained import tiny_tokenizer
from eyechart.models.vlms.towers import Towers, resolve_towers
from pictures import picture


class Vlm(NamedTuple):
    model: Any
    processor: Any
    towers: Towers

    def fed(self, *images: Image.Image) -> list[Fed]:
        return fed_features(self.model, self.processor, images, self.towers)


def resolved(model: Any, processor: Any) -> Vlm:
    inputs = picture_inputs(processor, picture(96, 96))
    with torch.no_grad():
        return Vlm(model, processor, resolve_towers(model, run=lambda: model(**inputs)))


@pytest.fixture(scope="module")
def load(checkpoint_dir: Callable[[str], Path]) -> Callable[[str], Vlm]:
    loaded: dict[str, Vlm] = {}

    def get(name: str, *, fresh: bool = False) -> Vlm:
        folder = checkpoint_dir(name)
        if fresh or name not in loaded:
            model = tf.AutoModelForImageTextToText.from_pretrained(folder).eval()
            vlm = resolved(model, load_processor(str(folder)))
            if fresh:
                return vlm
            loaded[name] = vlm
        return loaded[name]

    return get


NORMED = "after final norm (post_layernorm)"
EXPECTED: dict[str, tuple[Any, str, tuple[int, int] | None, int]] = {
    "llava": (2, "patches without CLS", (7, 7), 1),
    "llava_next": (2, "patches without CLS", (7, 7), 5),
    "qwen2_5_vl": (3, "all patches", (6, 6), 1),
    "smolvlm": (3, f"all patches, {NORMED}", (8, 8), 5),
    "idefics3": (3, f"all patches, {NORMED}", (8, 8), 5),
    "paligemma": (3, f"all patches, {NORMED}", (7, 7), 1),
    "mllama": ((4, 1, 3), "patches with 1 of 7 other tokens, concatenated layers (-1, -4, -2)", (7, 7), 4),
    "instructblip": (3, f"patches with CLS, {NORMED}", (7, 7), 1),
    "blip_2": (3, f"patches with CLS, {NORMED}", (7, 7), 1),
    "qwen2_vl": (3, "all patches", (6, 6), 1),
    "qwen3_vl": ((1, 2, 3), "all patches, concatenated layers (-3, -2, -1)", (6, 6), 1),
    "gemma3": (3, f"all patches, {NORMED}", (8, 8), 1),
    "internvl": (3, "patches without CLS, 2 x 2 patches in each", (4, 4), 5),
    "llava_onevision": (3, "all patches", (7, 7), 5),
    "idefics2": (3, f"all patches, {NORMED}", (8, 8), 1),
    "aya_vision": (3, "all patches", (8, 8), 5),
    "florence2": (2, "all tokens", None, 1),
    "kosmos2": (None, "as it enters the projector", None, 1),
}
"""For a square picture of 96 x 96: layer, pooling, grid, canvases."""


@pytest.mark.parametrize("name", VLMS)
def test_every_vlm_says_what_its_projector_reads(name: str, load: Callable[[str], Vlm]) -> None:
    (fed,) = load(name).fed(picture(96, 96))
    layer, pooling, grid, tiles = EXPECTED[name]
    assert (fed.layer, fed.pooling, fed.grid, fed.tiles) == (layer, pooling, grid, tiles)
    assert fed.features.dtype == torch.float32
    assert torch.isfinite(fed.features).all()
    if grid is not None:
        extra = (fed.cells[:, 1] < 0).sum()
        assert len(fed.features) == tiles * grid[0] * grid[1] + extra
    assert ("no grid: the first layer's tokens are no single patches" in fed.note) == (name == "florence2")
    described = fed.describe()
    assert set(described) == {"encoder", "layer", "pooling", "grid", "dim", "note"}
    assert described["dim"] == fed.features.shape[1]
    assert described["encoder"] == type(load(name).towers.vision).__name__
    assert torch.equal(pool(fed), fed.features.mean(0))


def hidden(vlm: Vlm, image: Image.Image) -> tuple[tuple[torch.Tensor, ...], Any]:
    """The vision tower's hidden states and output as transformers itself gives them, in a pass of their own."""
    inputs = picture_inputs(vlm.processor, image)
    pixels = inputs["pixel_values"]
    more = {"grid_thw": inputs["image_grid_thw"]} if "image_grid_thw" in inputs else {}
    with torch.no_grad():
        given = pixels if more else pixels.reshape(-1, *pixels.shape[-3:])
        out = vlm.towers.vision(given, **more, output_hidden_states=True, return_dict=True)
    return out.hidden_states, out


@pytest.mark.parametrize("name", ["llava", "llava_next"])
def test_llava_reads_the_second_to_last_hidden_state_without_cls(
    name: str, load: Callable[[str], Vlm]
) -> None:
    vlm, image = load(name), picture(96, 96)
    (fed,) = vlm.fed(image)
    states, _ = hidden(vlm, image)
    assert torch.equal(fed.features, states[-2][:, 1:].flatten(0, 1))
    assert fed.layers_from_end == (-2,)
    assert fed.last_layer == len(states) - 1


@pytest.mark.parametrize("name", ["paligemma", "gemma3", "idefics3", "smolvlm", "instructblip", "blip_2"])
def test_a_final_norm_is_seen(name: str, load: Callable[[str], Vlm]) -> None:
    vlm, image = load(name), picture(96, 96)
    (fed,) = vlm.fed(image)
    _, out = hidden(vlm, image)
    assert torch.equal(fed.features, out.last_hidden_state.flatten(0, 1))


def test_qwen_patches_come_out_of_their_windows_in_reading_order(load: Callable[[str], Vlm]) -> None:
    vlm, image = load("qwen2_5_vl"), picture(150, 110)
    (fed,) = vlm.fed(image)
    grid = picture_inputs(vlm.processor, image)["image_grid_thw"]
    rows, columns = (int(n) for n in grid[0, 1:])
    config = vlm.model.config.vision_config
    windows, _ = get_vision_window_index(grid, 2, config.window_size, config.patch_size)
    assert not torch.equal(windows, windows.sort().values), "the picture is too small to be cut into windows"
    states, _ = hidden(vlm, image)
    squares = states[-1].reshape(-1, 4, 32)[windows.argsort()]
    patches = squares.reshape(rows // 2, columns // 2, 2, 2, 32).transpose(1, 2).reshape(rows * columns, 32)
    assert torch.equal(fed.features, patches)
    assert fed.grid == (rows, columns)


def test_internvl_squares_hold_their_four_patches(load: Callable[[str], Vlm]) -> None:
    vlm, image = load("internvl"), picture(96, 96)
    (fed,) = vlm.fed(image)
    states, _ = hidden(vlm, image)
    patches = states[-1][:, 1:].reshape(5, 8, 8, 32)
    for token, (tile, row, column) in enumerate(fed.cells.tolist()):
        four = patches[tile, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(4, 32)
        held = fed.features[token].reshape(4, 32)
        assert {tuple(one.tolist()) for one in held} == {tuple(one.tolist()) for one in four}


@pytest.mark.parametrize(
    "name", ["llava", "llava_next", "internvl", "qwen2_5_vl", "idefics2", "instructblip"]
)
def test_each_token_stands_for_the_pixels_of_its_cell(name: str, load: Callable[[str], Vlm]) -> None:
    """With the tower's attention silenced, a change in the picture changes the tokens of its cells, and no other."""
    vlm, image = load(name), picture(96, 96)
    record = tower_geometry(vlm.processor, vlm.model, image)
    mask = np.zeros((96, 96), dtype=bool)
    mask[20:40, 50:90] = True
    pixels = np.asarray(image)
    changed = Image.fromarray(np.where(mask[..., None], 255 - pixels, pixels))
    with silenced([site.module for site in vlm.towers.self_attentions("vision")]):
        before, after = vlm.fed(image, changed)
    moved = (before.features != after.features).any(dim=1)
    side = record.tiles[0].grid[0] // before.grids[0][0]
    for token, (tile, row, column) in enumerate(before.cells.tolist()):
        if row < 0:
            assert not moved[token]
            continue
        shares = record.shares(mask)[tile]
        shares = np.pad(shares, 1)[side * row : side * (row + 1) + 2, side * column : side * (column + 1) + 2]
        if shares[1:-1, 1:-1].max() > 0.2:
            assert moved[token]
        if shares.max() == 0:
            assert not moved[token]


def test_the_last_block_of_llava_is_dead_for_the_projector(load: Callable[..., Vlm]) -> None:
    """`hidden_states[-2]` is fed, so block 3 of 3 changes nothing, bit for bit, and block 2 does."""
    vlm, image = load("llava", fresh=True), picture(120, 80)
    (before,) = vlm.fed(image)
    for block, same in ((2, True), (1, False)):
        with torch.no_grad():
            for parameter in vlm.towers.vision_blocks[block].parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(block)))
        (after,) = vlm.fed(image)
        assert torch.equal(before.features, after.features) is same
        assert after.layer == 2


@pytest.mark.parametrize(
    ("layer", "strategy", "expected", "words"),
    [
        (-1, "default", 3, "patches without CLS"),
        (-3, "full", 1, "patches with CLS"),
        (1, "default", 1, "patches without CLS"),
        ([-1, -3], "default", (3, 1), "patches without CLS, concatenated layers (-1, -3)"),
    ],
)
def test_the_config_decides_and_the_report_follows(
    layer: Any, strategy: str, expected: Any, words: str
) -> None:
    tokenizer = tiny_tokenizer(["<image>"])
    config = tf.LlavaConfig(
        vision_config=tower("clip_vision_model", projection_dim=16),
        text_config=language("llama", tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
    )
    processor = tf.LlavaProcessor(
        clip_images(56), tokenizer, patch_size=8, vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1,
    )  # fmt: skip
    vlm = resolved(build(tf.LlavaForConditionalGeneration, config), processor)
    (fed,) = vlm.fed(picture(96, 96))
    assert (fed.layer, fed.pooling, fed.grid) == (expected, words, (7, 7))
    states, _ = hidden(vlm, picture(96, 96))
    layers = layer if isinstance(layer, list) else [layer]
    first = 1 if strategy == "default" else 0
    assert torch.equal(fed.features, torch.cat([states[one][0, first:] for one in layers], dim=-1))
    assert fed.cells[0].tolist() == ([0, -1, -1] if strategy == "full" else [0, 0, 0])


def test_a_model_not_in_the_test_bed() -> None:
    """VipLlava concatenates layers, one of them twice here, and norms inside its projector."""
    tokenizer = tiny_tokenizer(["<image>"])
    config = tf.VipLlavaConfig(
        vision_config=tower("clip_vision_model", projection_dim=16),
        text_config=language("llama", tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layers=[-2, -3, 1],
    )
    processor = tf.LlavaProcessor(
        clip_images(56), tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )  # fmt: skip
    (fed,) = resolved(build(tf.VipLlavaForConditionalGeneration, config), processor).fed(picture(96, 96))
    assert fed.layer == (2, 1, 1)
    assert fed.pooling == "patches without CLS, concatenated layers (-2, -3, -3)"


@pytest.mark.parametrize("name", ["llava", "idefics3", "qwen2_5_vl"])
def test_an_image_does_not_depend_on_its_neighbours(name: str, load: Callable[[str], Vlm]) -> None:
    """Alone, in a list, and in a real batch through the model: the first two to the bit, the batch to rounding."""
    vlm = load(name)
    images = [picture(96, 96, 1), picture(96, 96, 2), picture(150, 64, 3)]
    together = vlm.fed(*images)
    for image, one in zip(images, together, strict=True):
        (alone,) = vlm.fed(image)
        assert torch.equal(alone.features, one.features)
        assert torch.equal(alone.cells, one.cells)
    if name == "llava":
        batch = torch.cat([picture_inputs(vlm.processor, image)["pixel_values"] for image in images])
        with torch.no_grad():
            states = vlm.towers.vision(batch, output_hidden_states=True).hidden_states[-2][:, 1:]
        for row, one in zip(states, together, strict=True):
            torch.testing.assert_close(row, one.features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "internvl"])
def test_a_plain_picture_gives_no_ties(name: str, load: Callable[[str], Vlm]) -> None:
    """All patches alike: layer and places are proved on random pixels, so nothing becomes ambiguous."""
    vlm = load(name)
    grey, other = vlm.fed(Image.new("RGB", (96, 96), (90, 90, 90)), picture(96, 96))
    assert (grey.layer, grey.pooling, grey.grid) == (other.layer, other.pooling, other.grid)
    assert torch.equal(grey.cells, other.cells)


def test_empty_canvases_of_mllama_are_left_out(load: Callable[[str], Vlm]) -> None:
    vlm = load("mllama")
    three, four = vlm.fed(picture(48, 133), picture(96, 96))
    assert (three.tiles, four.tiles) == (3, 4)
    assert three.note == "empty canvases left out: 1"
    assert four.note == ""


def test_layers_that_cannot_be_told_apart_are_named(load: Callable[..., Vlm]) -> None:
    """A last block that adds nothing: both its sides hold the same numbers."""
    vlm = load("paligemma", fresh=True)
    vlm.model.config.vision_config.num_hidden_layers = 3
    block = vlm.towers.vision_blocks[1]
    with torch.no_grad():
        for part in (block.self_attn.out_proj, block.mlp.fc2):
            part.weight.zero_()
            part.bias.zero_()
    read = vlm.model.model.vision_tower.forward

    def second(*args: Any, **kwargs: Any) -> Any:
        out = read(*args, **{**kwargs, "output_hidden_states": True})
        out.last_hidden_state = out.hidden_states[2]
        return out

    vlm.model.model.vision_tower.forward = second
    (fed,) = vlm.fed(picture(96, 96))
    assert fed.layer == 2
    assert fed.note == "layers [1] hold the very same numbers"


def test_features_of_no_layer_are_said_to_be_of_none(load: Callable[[str], Vlm]) -> None:
    """Kosmos-2 scales each token to length one before its projector."""
    (fed,) = load("kosmos2").fed(picture(96, 96))
    assert fed.layer is None
    assert fed.layers_from_end == ()
    assert "is, number for number, no layer of the vision tower" in fed.note
    torch.testing.assert_close(fed.features.norm(dim=-1), torch.ones(50))


def test_a_vlm_without_projector_is_refused(load: Callable[[str], Vlm]) -> None:
    vlm = load("llava")
    bare = replace(vlm.towers, bridge=(), bridge_names=(), flow=None)
    with pytest.raises(Incapable, match="LlavaForConditionalGeneration has no projector"):
        fed_features(vlm.model, vlm.processor, [picture(96, 96)], bare)
    blind = replace(vlm.towers, bridge_names=("model.language_model.embed_tokens",), flow=None)
    with pytest.raises(Incapable, match=r"nothing that enters model\.language_model\.embed_tokens depends"):
        fed_features(vlm.model, vlm.processor, [picture(96, 96)], blind)


def test_the_model_is_left_as_it_was(load: Callable[..., Vlm]) -> None:
    vlm = load("llava", fresh=True)
    vlm.model.train()
    vlm.towers.vision.eval()
    before = [module.training for module in vlm.model.modules()]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vlm.model.modules())
    (fed,) = vlm.fed(picture(96, 96))
    assert [module.training for module in vlm.model.modules()] == before
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vlm.model.modules()) == hooks
    assert not fed.features.requires_grad


def trace_of(*states: torch.Tensor, widths: tuple[int, ...] = (6,)) -> Trace:
    made = tuple(
        State(layer=layer, norm="", width=rows.shape[1], prints=fingerprints(rows))
        for layer, rows in enumerate(states)
    )
    return Trace(states=made, entered={}, widths=frozenset(widths))


def test_rows_are_traced_through_selection_order_squares_and_concatenation() -> None:
    torch.manual_seed(0)
    first, second, third = (torch.randn(9, 6) for _ in range(3))
    trace = trace_of(first, second, third)
    order = torch.tensor([8, 1, 2, 5])
    plain = match([second[order][None]], trace)
    assert plain is not None
    assert (plain.layers, plain.tokens.flatten().tolist()) == ((1,), order.tolist())
    squares = match([first[order].reshape(1, 2, 12)], trace)
    assert squares is not None
    assert (squares.layers, squares.tokens.tolist()) == ((0, 0), [[8, 1], [2, 5]])
    both = match([torch.cat([third, first], dim=1)], trace)
    assert both is not None
    assert both.layers == (2, 0)
    mixed = match([torch.cat([third, torch.stack([first, second], dim=-1).flatten(1)], dim=1)], trace)
    assert mixed is not None
    assert mixed.layers == (2, 0, 1)
    image = match([second[:8].T.reshape(1, 6, 2, 4)], trace)
    assert image is not None
    assert (image.axes, image.tokens.flatten().tolist()) == ("map", list(range(8)))
    calls = match([second[:3], second[5:]], trace)
    assert calls is not None
    assert calls.tokens.flatten().tolist() == [0, 1, 2, 5, 6, 7, 8]


def test_one_changed_number_is_no_match() -> None:
    torch.manual_seed(0)
    state = torch.randn(9, 6)
    changed = state.clone()
    changed[4, 3] = torch.nextafter(changed[4, 3], torch.tensor(9.0))
    assert match([state], trace_of(state)) is not None
    assert match([changed], trace_of(state)) is None
    assert match([torch.randn(9, 7)], trace_of(state)) is None


def test_equal_rows_have_equal_fingerprints_and_others_do_not() -> None:
    rows = torch.randn(6000, 5)
    rows[5999] = rows[0]
    prints = fingerprints(rows)
    assert prints[5999] == prints[0]
    assert len(set(prints.tolist())) == 5999
    assert torch.equal(fingerprints(-torch.zeros(1, 5)), fingerprints(torch.zeros(1, 5)))


def test_tokens_are_put_in_reading_order() -> None:
    cells = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, -1, -1], [0, 0, 0], [0, 1, 1], [1, -1, -1]])
    assert reading_order(cells).tolist() == [3, 4, 2, 1, 5, 6, 0]
    assert grids_of(cells) == ((2, 2), (1, 1))
    assert grids_of(cells[:3]) == ()


def test_what_merges_tokens_inside_the_tower_is_no_state_of_them():
    watch = provenance._Watch(widths=frozenset({32, 16}))
    watch.keep(2, "", torch.randn(1, 96, 32))
    watch.keep(2, "downsample", torch.randn(24, 32, 1, 1))
    watch.keep(2, "neck.norm", torch.randn(1, 16, 8, 12))  # a map of 96 tokens, features on its second axis
    watch.keep(2, "norm", torch.randn(1, 96, 32))
    kept = [(state.norm, len(state.prints), state.width) for state in watch.trace().states]
    assert kept == [("", 96, 32), ("neck.norm", 96, 16), ("norm", 96, 32)]
