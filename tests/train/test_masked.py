"""MAE: what the encoder is shown, positions that exist, a loss that falls, and an export that is the same encoder."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, ViTMAEModel

from eyechart.models.encoders.loading import load_encoder
from eyechart.train.crops import Crops
from eyechart.train.loop import Settings, fit
from eyechart.train.masked import MaskedObjective, MaskedSettings, export_masked, masked_model
from eyechart.train.pictures import FamilyBatches, PictureBatches
from eyechart.train.towers import TowerShape, make_tower, sine_positions, to_pixels

SMALL = TowerShape(
    image_size=24,
    patch_size=6,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
)
DECODER = MaskedSettings(
    decoder_hidden_size=32,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=64,
)


def stripes(count, seed=0):
    """Pictures of one wave each, so that hidden patches follow from those shown and from where they are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:24, :24] / 24
    turn, phase = (
        rng.integers(4, size=(2, count, 1, 1)) * np.array([np.pi / 4, np.pi / 2])[:, None, None, None]
    )
    wave = np.sin(2 * np.pi * 1.5 * (x * np.cos(turn) + y * np.sin(turn)) + phase)
    return np.repeat(((wave + 1) * 127).astype(np.uint8)[..., None], 3, axis=3)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return masked_model(SMALL, DECODER)


def test_every_position_has_a_code_of_its_own(model):
    """transformers leaves both tables at zero; trained so, an encoder does not know where a patch is."""
    for table in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        assert table.requires_grad
        apart = torch.cdist(table[0], table[0]) + torch.eye(17) * 9
        assert apart.min() > 0.1


def test_sine_positions_say_column_then_row():
    codes = sine_positions(4, 32)[0, 1:].reshape(4, 4, 32)
    assert torch.equal(codes[0, :, :16], codes[3, :, :16])
    assert torch.equal(codes[:, 0, 16:], codes[:, 3, 16:])
    assert not torch.equal(codes[0, 0], codes[0, 1])
    for column in range(4):
        for number in range(8):
            angle = column / 10000 ** (number / 8)
            assert codes[2, column, number] == pytest.approx(np.sin(angle), abs=1e-6)
            assert codes[2, column, 8 + number] == pytest.approx(np.cos(angle), abs=1e-6)


def test_the_encoder_runs_on_the_patches_that_are_left(model):
    seen = []
    model.vit.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    model(torch.randn(3, 3, 24, 24))
    assert seen == [(3, 1 + 4, 32)]


@pytest.mark.slow
def test_training_beats_the_blank_guess(tmp_path):
    torch.manual_seed(0)
    half = replace(DECODER, mask_ratio=0.5)
    model, objective = masked_model(SMALL, half), MaskedObjective(half)
    batches = PictureBatches(stripes(256), 32)
    settings = Settings(max_steps=160, per_device_train_batch_size=32, learning_rate=3e-3, warmup_steps=10)
    before = objective(model, batches(0)).item()
    fit(model, objective, batches, settings, tmp_path)
    with torch.no_grad():
        after = objective(model.eval(), {"pictures": torch.from_numpy(stripes(128, seed=1))}).item()
    assert before > 0.95
    assert after < 0.85


def test_the_export_is_the_same_encoder_and_hides_nothing(model, tmp_path):
    folder = export_masked(model, SMALL, tmp_path / "mae")
    pixels = to_pixels(torch.from_numpy(stripes(4)))
    whole = ViTMAEModel(model.config).eval()
    whole.load_state_dict({name: value.half().float() for name, value in model.vit.state_dict().items()})
    whole.config.mask_ratio = 0.0
    noise = torch.arange(16.0).expand(4, -1)
    wanted = whole(pixels, noise=noise, output_hidden_states=True)
    loaded, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert loaded.dtype == torch.float32
    given = loaded.eval()(pixels, output_hidden_states=True)
    torch.testing.assert_close(given.last_hidden_state, wanted.last_hidden_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(given.hidden_states[-2], wanted.hidden_states[-2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(given.pooler_output, wanted.last_hidden_state[:, 0], rtol=1e-5, atol=1e-5)


def test_eyechart_reads_the_export(model, tmp_path):
    encoder = load_encoder(str(export_masked(model, SMALL, tmp_path / "mae")))
    picture = Image.fromarray(stripes(1)[0])
    assert encoder.poolings == ("cls", "mean_patch")
    patches = encoder.patches([picture], layer=-2)
    assert (patches.grid, patches.layer) == ((4, 4), 1)
    assert torch.equal(encoder.embed([picture]), encoder.embed([picture]))
    tower = AutoModel.from_pretrained(tmp_path / "mae").eval()
    with torch.no_grad():
        wanted = tower(to_pixels(torch.from_numpy(stripes(1))), output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(patches.features, wanted[:, 1:], rtol=1e-4, atol=1e-4)


def test_crops_leave_the_identity_when_told_to():
    pixels = torch.rand(3, 3, 24, 24) * 2 - 1
    same = Crops(smallest=1.0, brightness=0.0, contrast=0.0)(pixels)
    torch.testing.assert_close(same, pixels, rtol=0, atol=1e-5)


def test_crops_never_mirror():
    """A ramp that rises to the right and downwards still does after any crop."""
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-0.5, 0.5, 24), torch.linspace(-0.5, 0.5, 24), indexing="ij")
    pixels = torch.stack([x, y, x + y]).expand(64, -1, -1, -1) * 0.8
    cut = Crops(smallest=0.6)(pixels)
    assert (cut[:, 0, :, -1] > cut[:, 0, :, 0]).all()
    assert (cut[:, 1, -1] > cut[:, 1, 0]).all()
    assert cut.abs().max() <= 1
    assert cut[:, 0].std(dim=0).min() > 0.01, "every picture is changed in its own way"


def test_batches_follow_from_the_step_and_cover_an_epoch():
    pictures = np.arange(12, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 4, 4, 3), np.uint8)
    batches = PictureBatches(pictures, 4, seed=3)
    epoch = [batches(step)["pictures"][:, 0, 0, 0].tolist() for step in range(3)]
    assert sorted(number for batch in epoch for number in batch) == list(range(12))
    assert batches(1)["pictures"][:, 0, 0, 0].tolist() == epoch[1]
    assert [batches(step)["pictures"][:, 0, 0, 0].tolist() for step in range(3, 6)] != epoch


def test_families_stay_together_and_views_change_sides():
    numbers = np.arange(12, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 4, 4, 3), np.uint8)
    families = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2])
    batches = FamilyBatches(numbers, numbers + 100, families, 2)
    turns = set()
    for step in range(12):
        first, second = (batches(step)[name][:, 0, 0, 0].int() for name in ("first", "second"))
        assert ((first - second).abs() == 100).all()
        turns.add(bool(first[0] > second[0]))
        scenes = torch.minimum(first, second).reshape(2, 4)
        assert all(len(set(families[row.numpy()])) == 1 and len(set(row.tolist())) == 4 for row in scenes)
    assert turns == {True, False}


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"mask_ratio must lie between 0 and 1, got 1\.0"):
        MaskedSettings(mask_ratio=1.0)
    with pytest.raises(ValueError, match="image_size 25 is no multiple of patch_size 6"):
        TowerShape(image_size=25, patch_size=6)
    with pytest.raises(ValueError, match="hidden_size 30 is no multiple of 4 and of 4 heads"):
        TowerShape(hidden_size=30)
    with pytest.raises(ValueError, match=r"smallest must be above 0 and at most 1, got 1\.5"):
        Crops(smallest=1.5)
    pictures = np.zeros((5, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="families of 2 and of 3 scenes"):
        FamilyBatches(pictures, pictures, np.array([0, 0, 0, 1, 1]), 1)
    with pytest.raises(ValueError, match="5 and 4 pictures for 5 scenes"):
        FamilyBatches(pictures, pictures[:4], np.array([0, 0, 0, 1, 1]), 1)


def test_towers_start_alike_under_a_seed():
    torch.manual_seed(5)
    first = make_tower(SMALL).state_dict()
    torch.manual_seed(5)
    second = make_tower(SMALL).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
