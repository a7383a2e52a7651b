"""Encoders of transformers: each against transformers' own path, and the traps on the way there."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, ViTImageProcessorPil

from checkpoint_parts import edit
from checkpoints import ENCODERS
from eyechart.core.errors import Incapable, UserError
from eyechart.models.encoders import Encoder, load_encoder
from pictures import picture

Checkpoints = Callable[[str], Path]
Encoders = Callable[[str], Encoder]

PREFIX = {"siglip": 0, "siglip2_naflex": 0, "dinov2_with_registers": 5, "dinov3": 5}
"""Tokens before the patches; all others have a class token alone."""

CLASSLESS = ("siglip", "siglip2_naflex")
WITH_TEXT = ("clip", "clip_legacy", "siglip", "siglip2_naflex", "metaclip_2", "chinese_clip")
VISION_ONLY = sorted(set(ENCODERS) - set(WITH_TEXT))


@pytest.fixture(scope="module")
def encoders(checkpoint_dir: Checkpoints) -> Encoders:
    """A function from a checkpoint's name to its encoder, loaded once. Don't change it."""
    return functools.cache(lambda name: load_encoder(str(checkpoint_dir(name))))


def own_inputs(folder: Path, images: list[Image.Image]) -> Any:
    """The pictures as the checkpoint's own image processor makes them, in one batch."""
    try:
        processor = AutoImageProcessor.from_pretrained(folder)
    except ImportError:
        processor = ViTImageProcessorPil.from_pretrained(folder)  # DINOv3 without torchvision
    return processor(images=images, return_tensors="pt")


@functools.cache
def own_model(folder: Path) -> Any:
    """The checkpoint as transformers loads it, loaded once; MAE with its masking off."""
    model = AutoModel.from_pretrained(folder).eval()
    if hasattr(model.config, "mask_ratio"):
        model.config.mask_ratio = 0.0
    return model


def own_output(folder: Path, images: list[Image.Image]) -> tuple[Any, Any]:
    """transformers' own model and what it gives for the pictures in one batch, with all hidden states."""
    model = own_model(folder)
    reader = getattr(model, "get_image_features", model)
    extra = (
        {"noise": torch.arange(49.0).expand(len(images), -1)} if hasattr(model.config, "mask_ratio") else {}
    )
    with torch.no_grad():
        return model, reader(**own_inputs(folder, images), output_hidden_states=True, **extra)


# ------------------------------------------------------------------------------------ against transformers


@pytest.mark.parametrize(
    "name", ["clip", "clip_legacy", "siglip", "siglip2_naflex", "metaclip_2", "chinese_clip"]
)
def test_projected_is_the_image_embedding(
    name: str, encoders: Encoders, checkpoint_dir: Checkpoints, pictures: list[Image.Image]
) -> None:
    encoder = encoders(name)
    assert (encoder.kind, encoder.default_pooling) == ("clip_like", "projected")
    _, output = own_output(checkpoint_dir(name), pictures)
    torch.testing.assert_close(encoder.embed(pictures), output.pooler_output)


def test_a_projected_tower_without_texts(checkpoint_dir: Checkpoints, square_picture: Image.Image) -> None:
    folder = checkpoint_dir("clip_vision_projected")
    encoder = load_encoder(str(folder))
    assert encoder.poolings == ("projected", "cls", "mean_patch")
    inputs = own_inputs(folder, [square_picture])
    with torch.no_grad():
        expected = tf.CLIPVisionModelWithProjection.from_pretrained(folder)(**inputs).image_embeds
    torch.testing.assert_close(encoder.embed([square_picture]), expected)
    with pytest.raises(Incapable, match="CLIPVisionModelWithProjection has no text tower"):
        encoder.embed_texts(["a dog"])


@pytest.mark.parametrize("name", VISION_ONLY)
def test_vision_only_encoders_pool_after_their_final_norm(
    name: str, encoders: Encoders, checkpoint_dir: Checkpoints, pictures: list[Image.Image]
) -> None:
    encoder = encoders(name)
    assert (encoder.kind, encoder.poolings) == ("vision_only", ("cls", "mean_patch"))
    _, output = own_output(checkpoint_dir(name), pictures)
    tokens = output.last_hidden_state
    torch.testing.assert_close(encoder.embed(pictures), tokens[:, 0])
    means = tokens[:, PREFIX.get(name, 1) :].mean(dim=1)
    torch.testing.assert_close(encoder.embed(pictures, pooling="mean_patch"), means)


@pytest.mark.parametrize("name", ["clip", "clip_vision", "metaclip_2", "chinese_clip"])
def test_clip_tokens_get_the_norm_that_transformers_leaves_out(
    name: str, encoders: Encoders, checkpoint_dir: Checkpoints, pictures: list[Image.Image]
) -> None:
    """CLIP's last_hidden_state is bare; its final norm is applied to the class token alone."""
    encoder = encoders(name)
    model, output = own_output(checkpoint_dir(name), pictures)
    tower = getattr(model, "vision_model", model)
    with torch.no_grad():
        normed = tower.post_layernorm(output.last_hidden_state)
    torch.testing.assert_close(encoder.embed(pictures, pooling="cls"), normed[:, 0])
    torch.testing.assert_close(encoder.embed(pictures, pooling="mean_patch"), normed[:, 1:].mean(dim=1))


def test_clip_cls_is_projected_to_the_embedding(
    encoders: Encoders, checkpoint_dir: Checkpoints, square_picture: Image.Image
) -> None:
    encoder = encoders("clip")
    model = own_model(checkpoint_dir("clip"))
    with torch.no_grad():
        projected = model.visual_projection(encoder.embed([square_picture], pooling="cls"))
    torch.testing.assert_close(projected, encoder.embed([square_picture], pooling="projected"))


def test_naflex_means_leave_padding_out(
    encoders: Encoders, checkpoint_dir: Checkpoints, wide_picture: Image.Image
) -> None:
    encoder = encoders("siglip2_naflex")
    _, output = own_output(checkpoint_dir("siglip2_naflex"), [wide_picture])
    mask = own_inputs(checkpoint_dir("siglip2_naflex"), [wide_picture])["pixel_attention_mask"][0].bool()
    assert 0 < mask.sum() < mask.numel(), "this picture pads nothing, so the test shows nothing"
    expected = output.last_hidden_state[0, mask].mean(dim=0)
    torch.testing.assert_close(encoder.embed([wide_picture], pooling="mean_patch")[0], expected)


@pytest.mark.parametrize("name", [*ENCODERS, "clip_vision"])
def test_patch_states_of_every_layer_are_the_hidden_states(
    name: str, encoders: Encoders, checkpoint_dir: Checkpoints, square_picture: Image.Image
) -> None:
    encoder = encoders(name)
    _, output = own_output(checkpoint_dir(name), [square_picture])
    assert encoder.layers == len(output.hidden_states) - 1 == 3
    for layer, states in enumerate(output.hidden_states):
        found = encoder.patches([square_picture], layer=layer)
        assert (found.grid, found.layer, found.prefix) == ((7, 7), layer, PREFIX.get(name, 1))
        torch.testing.assert_close(found.features, states[:, found.prefix :])
        again = encoder.patches([square_picture], layer=layer - 4)
        assert again.layer == layer
        assert torch.equal(again.features, found.features)


def test_a_layer_says_in_words_what_it_is(encoders: Encoders, square_picture: Image.Image) -> None:
    encoder = encoders("dinov2")
    stages = [encoder.patches([square_picture], layer=layer).stage for layer in (0, -1)]
    assert stages == [
        "the embeddings, as they enter the first block",
        "the output of block 3 of 3, before the final norm",
    ]


# ------------------------------------------------------------------------------------ planted truths


@pytest.mark.parametrize("name", list(ENCODERS))
def test_patches_come_row_by_row(name: str, encoders: Encoders) -> None:
    """A change in one patch of the picture shows in the embeddings of that patch and no other."""
    pixels = np.array(picture(56, 56, 4))
    cells = [(0, 0), (0, 6), (3, 2), (6, 5)]
    images = [Image.fromarray(pixels)]
    for row, column in cells:
        changed = pixels.copy()
        changed[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] ^= 0x55
        images.append(Image.fromarray(changed))
    states = encoders(name).patches(images, layer=0).features
    for place, (row, column) in enumerate(cells, start=1):
        differs = (states[0] - states[place]).abs().amax(dim=-1) > 1e-4
        assert differs.nonzero().flatten().tolist() == [7 * row + column]


def test_mae_hides_nothing_and_moves_nothing(
    checkpoint_dir: Checkpoints, square_picture: Image.Image
) -> None:
    """ViT and ViT-MAE checkpoints here have the same weights, so they must give the same, whatever the seed."""
    plain = load_encoder(str(checkpoint_dir("vit"))).patches([square_picture], layer=2)
    for seed in (1, 2):
        torch.manual_seed(seed)
        masked = load_encoder(str(checkpoint_dir("vit_mae")))
        torch.testing.assert_close(masked.patches([square_picture], layer=2).features, plain.features)


# ------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("name", list(ENCODERS))
def test_neighbours_change_nothing(name: str, encoders: Encoders, pictures: list[Image.Image]) -> None:
    encoder = encoders(name)
    together = encoder.embed(pictures, batch_size=4)
    assert (together.dtype, together.device.type) == (torch.float32, "cpu")
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    for row, image in enumerate(pictures):
        assert torch.equal(encoder.embed([image])[0], together[row])


@pytest.fixture(scope="module")
def batched(checkpoint_dir: Checkpoints) -> Encoder:
    """An encoder that runs filled-up batches on the CPU, as it would on a GPU."""
    encoder = load_encoder(str(checkpoint_dir("clip")))
    encoder._one_by_one = False
    return encoder


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(7)), size=st.integers(1, 5))
def test_filled_batches_give_the_rows_in_order(batched: Encoder, order: list[int], size: int) -> None:
    images = [picture(60 + 9 * seed, 50, seed) for seed in range(7)]
    rows = batched.embed(images, batch_size=4)
    found = batched.embed([images[place] for place in order], batch_size=size)
    torch.testing.assert_close(found, rows[order])


def test_pictures_of_different_shapes_keep_their_places(checkpoint_dir: Checkpoints, tmp_path: Path) -> None:
    """Without a crop DINOv2 sees any shape; those of one shape run together and come back in order."""
    folder = shutil.copytree(checkpoint_dir("dinov2"), tmp_path / "uncropped")
    edit(folder / "preprocessor_config.json", do_center_crop=False)
    encoder = load_encoder(str(folder))
    images = [picture(56, 112, 0), picture(56, 56, 1), picture(56, 112, 2), picture(112, 56, 3)]
    alone = torch.cat([encoder.embed([image], pooling="mean_patch") for image in images])
    encoder._one_by_one = False
    torch.testing.assert_close(encoder.embed(images, pooling="mean_patch", batch_size=2), alone)
    assert encoder.patches(images[:1], layer=1).grid == (14, 7)
    with pytest.raises(UserError, match=r"grids of 2 shapes \(\[\(7, 7\), \(14, 7\)\]\)"):
        encoder.patches(images[:2], layer=1)


def test_nothing_gives_nothing(encoders: Encoders) -> None:
    encoder = encoders("clip")
    assert encoder.embed([]).shape == (0, 24)
    assert encoder.embed([], pooling="cls").shape == (0, 32)
    assert encoder.embed_texts([]).shape == (0, 24)
    with pytest.raises(UserError, match="no pictures were given"):
        encoder.patches([], layer=1)
    with pytest.raises(UserError, match="batch size must be 1 or more, got 0"):
        encoder.embed([], batch_size=0)


# ------------------------------------------------------------------------------------ number formats


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float32", "float32"), ("bfloat16", "bfloat16"), ("auto", "bfloat16")]
)
def test_the_number_format_is_what_was_asked_for(
    dtype: str,
    expected: str,
    encoders: Encoders,
    checkpoint_dir: Checkpoints,
    tmp_path: Path,
    square_picture: Image.Image,
) -> None:
    """`auto` is what the checkpoint stores, and the encoder says which that was."""
    folder = shutil.copytree(checkpoint_dir("dinov2"), tmp_path / "half")
    AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    encoder = load_encoder(str(folder), dtype=dtype)
    assert encoder.dtype == expected
    full = encoders("dinov2").embed([square_picture])
    found = encoder.embed([square_picture])
    assert found.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found, full).item() > 0.999


def test_attention_implementations_agree(checkpoint_dir: Checkpoints, square_picture: Image.Image) -> None:
    rows = [
        load_encoder(str(checkpoint_dir("clip")), attn=attn).embed([square_picture])
        for attn in ("eager", "sdpa")
    ]
    torch.testing.assert_close(rows[0], rows[1])


# ------------------------------------------------------------------------------------ the key


def test_the_key_follows_everything_that_changes_a_row(
    encoders: Encoders, checkpoint_dir: Checkpoints, tmp_path: Path
) -> None:
    encoder = encoders("clip")
    moved = shutil.copytree(checkpoint_dir("clip"), tmp_path / "moved")
    assert load_encoder(str(moved)).cache_key() == encoder.cache_key() == encoder.cache_key("projected")
    recropped = shutil.copytree(checkpoint_dir("clip"), tmp_path / "recropped")
    edit(recropped / "processor_config.json", image_processor={"resample": 2})
    keys = [
        encoder.cache_key(),
        encoder.cache_key("cls"),
        load_encoder(str(checkpoint_dir("clip")), dtype="bfloat16").cache_key(),
        load_encoder(str(recropped)).cache_key(),
        encoders("clip_legacy").cache_key(),
    ]
    assert len(set(keys)) == 5
    assert keys[0].startswith("projected-float32-")


def test_a_hub_model_is_loaded_from_the_cache_and_known_by_its_commit(
    checkpoint_dir: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--name"
    shutil.copytree(checkpoint_dir("dinov2"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    encoder = load_encoder("org/name")
    assert (encoder.id, encoder.revision, encoder.sha256) == ("org/name", commit, None)
    assert load_encoder(f"org/name@{commit}").cache_key() == encoder.cache_key()
    with pytest.raises(UserError, match="no model can be loaded from 'org/name'"):
        load_encoder("org/name@v2")


def test_an_encoder_describes_itself_for_a_manifest(encoders: Encoders, checkpoint_dir: Checkpoints) -> None:
    encoder = encoders("dinov2")
    told = json.loads(json.dumps(encoder.describe()))
    assert told["id"] == str(checkpoint_dir("dinov2"))
    assert (told["kind"], told["poolings"], told["layers"]) == ("vision_only", ["cls", "mean_patch"], 3)
    assert (told["revision"], len(told["sha256"]), told["device"]) == (None, 64, "cpu")
    assert told["preprocessing"].startswith("BitImageProcessor")
    assert repr(encoder).startswith(f"Encoder('{encoder.id}', vision_only")
