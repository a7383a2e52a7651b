"""A mixture behind the face that every room uses: what it can be asked, where its tokens look, what its adapters read."""

import numpy as np
import pytest
import torch
from torch import nn

from checkpoint_parts import tower
from eyechart.core.errors import UserError
from eyechart.core.records import Capability, Prompt
from eyechart.models.geometry import tower_geometry
from eyechart.models.geometry.inputs import picture_inputs, picture_positions
from eyechart.models.geometry.pixels import packing
from eyechart.models.geometry.proof import NOTHING, cells_read, language_input, regions, silenced
from eyechart.models.token_places import patch_of_token
from eyechart.models.vlms import VLM, load_vlm
from mixture_parts import KINDS, SECOND, mixture, noise

pytestmark = pytest.mark.slow  # each loads a model behind the face and proves it


def vlm(kind, second=None, **fields):
    return VLM.from_objects(*mixture(kind, second, **fields), name=kind)


def attentions(model):
    """The self-attention of both towers."""
    towers = model.model.encoders.values()
    return [m for one in towers for m in one.modules() if type(m).__name__.endswith("Attention")]


@torch.no_grad()
def read_by_positions(model, processor, image, name):
    """Of each image position the cell of one input's canvas that it reads, seen by changing pixels."""
    inputs = picture_inputs(processor, image)
    place = torch.tensor(picture_positions(inputs, model.config, processor))
    held = packing({"pixel_values": inputs[name]}, None)

    def run(pixels):
        taken = language_input(model, {**inputs, name: pixels}, model.model.language_model.layers[0])
        return taken[0][place]

    with silenced(attentions(model)):
        return cells_read(run, inputs[name], held, regions(1, held.canvas, (8, 8)))


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_asked_for_everything(kind):
    one = vlm(kind, alpha=0.3)
    assert one.cannot == {}
    assert not one.proof.why_no_batches
    assert not one.proof.why_not_together
    assert not one.why_not_parted
    assert one.towers.vision is one.model.model.vision_tower
    assert len(one.self_attentions("vision")) == 3
    assert len(one.self_attentions("language")) == 3
    prompts = [
        Prompt(text="Is it red?", images=(noise(),)),
        Prompt(text="What is on the left?", images=(noise(30, 90),)),
    ]
    together = one.option_scores_of(prompts, [["Yes", "No"], ["A dog", "No"]])
    alone = [
        one.option_scores(prompt, some)
        for prompt, some in zip(prompts, [["Yes", "No"], ["A dog", "No"]], strict=True)
    ]
    assert np.allclose(together, alone, atol=1e-3)
    assert len(one.generate(prompts, max_new_tokens=3)) == 2
    assert one.hidden_states(prompts[0]).layers.shape == (4, 98 if kind == "interleaved" else 49, 32)


def test_interleaved_tokens_look_where_the_record_says_each_through_its_own_encoder():
    model, processor = mixture("interleaved")
    image = noise(120, 64)
    record = VLM.from_objects(model, processor).geometry(image)
    first, second = record.tiles
    assert record.length == 98
    assert record.separators == 0
    for name, own, other in (("pixel_values", first, second), ("second_pixel_values", second, first)):
        seen = read_by_positions(model, processor, image, name)
        assert seen[own.position_grid.flatten()].tolist() == list(range(49))
        assert set(seen[other.position_grid.flatten()].tolist()) == {NOTHING}
    assert first.box[0] > 0, "CLIP's square is cut out of the middle"
    assert second.box == (0, 0, 120, 64), "the second encoder's is squashed"
    assert first.position_grid[0, :3].tolist() == [0, 2, 4]
    assert second.position_grid[0, :3].tolist() == [1, 3, 5]


@pytest.mark.parametrize(
    ("kind", "alpha", "names"),
    [
        ("single", 0.5, ["pixel_values"]),
        ("concatenated", 0.5, ["pixel_values", "second_pixel_values"]),
        ("additive", 0.5, ["pixel_values", "second_pixel_values"]),
        ("additive", 1.0, ["pixel_values"]),
        ("additive", 0.0, ["second_pixel_values"]),
    ],
)
def test_one_token_a_cell_reads_that_cell_in_every_encoder_that_is_run(kind, alpha, names):
    model, processor = mixture(kind, alpha=alpha)
    record = VLM.from_objects(model, processor).geometry(noise(120, 64))
    assert record.length == 49
    assert len(record.tiles) == 1
    assert record.tiles[0].position_grid.flatten().tolist() == list(range(49))
    for name in ("pixel_values", "second_pixel_values"):
        if name == "second_pixel_values" and kind == "single":
            continue
        seen = read_by_positions(model, processor, noise(120, 64), name)
        assert seen.tolist() == (list(range(49)) if name in names else [NOTHING] * 49)
    squashed = record.tiles[0].box == (0, 0, 120, 64)
    assert squashed == (alpha == 0), "the record is about the encoder that is examined"
    assert ("shown another part" in record.note) == (len(names) == 2)


def test_where_both_see_one_tensor_both_tokens_of_a_cell_look_at_one_place():
    model, processor = mixture("interleaved", second_sees="first")
    record = VLM.from_objects(model, processor).geometry(noise(120, 64))
    first, second = record.tiles
    assert first.box == second.box
    assert (first.position_grid + 1 == second.position_grid).all()
    mask = np.zeros((64, 120), dtype=bool)
    mask[:8, 28:37] = True  # a cell and a bit of the next
    assert record.positions_of(mask, threshold=0.5).tolist() == [0, 1]


def test_a_coarser_grid_has_bigger_cells():
    model, processor = mixture("interleaved", tower("vit", side=48, patch=16), grid=[3, 3], resample="area")
    record = VLM.from_objects(model, processor).geometry(noise(64, 64))
    assert [tile.grid for tile in record.tiles] == [(3, 3), (3, 3)]
    assert record.tiles[0].cell == pytest.approx((56 / 3, 56 / 3))
    assert record.tiles[1].cell == (16, 16)
    assert record.cell_box(0, 1, 1) == pytest.approx(record.cell_box(1, 1, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_fed_features_are_what_the_adapters_read(kind):
    one = vlm(kind, alpha=0.3)
    image = noise()
    inputs = picture_inputs(one.processor, image)
    taken = []
    for adapter in one.model.model.adapters.values():
        adapter.linear_1.register_forward_pre_hook(lambda _m, args: taken.append(args[0][0]))
    with torch.no_grad():
        one.model(**inputs)
    wanted = torch.cat(taken, dim=-1)
    (fed,) = one.fed([image])
    assert torch.equal(fed.features, wanted)
    assert fed.grid == (7, 7)
    assert fed.cells[8].tolist() == [0, 1, 1]
    assert (fed.layer, fed.layers_from_end) == (2, (-2,))
    assert ("alpha 0.3" in fed.note) == (kind == "additive")


def test_the_second_encoder_can_be_the_vision_tower(tmp_path):
    model, processor = mixture("interleaved", tower("vit", side=48, patch=16, layers=2), second_norm=True)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert load_vlm(str(tmp_path), device="cpu").towers.vision_name == "model.vision_tower"
    one = load_vlm(str(tmp_path), device="cpu", tower="second")
    assert one.towers.vision is one.model.model.second_vision_tower
    assert one.towers.bridge_names == ("model.second_multi_modal_projector",)
    assert len(one.self_attentions("vision")) == 2
    image = noise(120, 64)
    inputs = picture_inputs(one.processor, image)
    found, why = patch_of_token(one.model, one.processor.second_image_processor, inputs, one.towers)
    assert found is not None, why
    assert found[1:, 1:].tolist() == [[row, column] for row in range(3) for column in range(3)]
    record = tower_geometry(one.processor, one.model, image)
    assert (record.length, record.tiles[0].box) == (9, (0, 0, 120, 64))
    assert one.fed([image])[0].layer == 2
    assert one.vision_states([image])[0].layers.shape == (3, 1, 10, 32)
    with pytest.raises(UserError, match=r"no tower 'third' .* first, second"):
        load_vlm(str(tmp_path), device="cpu", tower="third")


def test_at_alpha_0_the_vision_tower_is_the_one_that_runs():
    one = vlm("additive", alpha=0.0)
    assert one.towers.vision is one.model.model.second_vision_tower
    assert Capability.EDIT_ATTENTION in one.capabilities


@pytest.mark.parametrize("name", list(SECOND))
def test_every_second_encoder_can_be_edited_and_mapped(name):
    one = vlm("interleaved", SECOND[name])
    assert one.cannot == {}
    assert isinstance(one.model.model.second_vision_tower, nn.Module)
