"""Encoders that cannot be, and names they lack: each is refused in words that say what to do."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers as tf
from PIL import Image
from transformers import ViTImageProcessorPil

from checkpoint_encoders import clip_tokenizer, text_tower
from checkpoint_parts import build, clip_images, edit, tower
from eyechart.core.errors import Incapable, UserError
from eyechart.models.encoders import Encoder, load_encoder
from pictures import picture

Checkpoints = Callable[[str], Path]
Encoders = Callable[[str], Encoder]


@pytest.fixture(scope="module")
def encoders(checkpoint_dir: Checkpoints) -> Encoders:
    """A function from a checkpoint's name to its encoder, loaded once. Don't change it."""
    return functools.cache(lambda name: load_encoder(str(checkpoint_dir(name))))


def test_names_that_an_encoder_lacks(encoders: Encoders, square_picture: Image.Image) -> None:
    encoder = encoders("siglip")
    with pytest.raises(UserError, match=r"named 'cls'.*There are: mean_patch, projected"):
        encoder.embed([square_picture], pooling="cls")
    with pytest.raises(UserError, match=r"named 'pojected'\. Did you mean 'projected'"):
        encoder.cache_key("pojected")
    with pytest.raises(
        UserError, match=r"no layer 4: give 0 \(embeddings\) to 3 .*, or -1 to -4 from the end"
    ):
        encoder.patches([square_picture], layer=4)
    with pytest.raises(UserError, match="no layer -5"):
        encoder.patches([square_picture], layer=-5)
    with pytest.raises(UserError, match="picture 1 is in mode 'RGBA', expected 'RGB'"):
        encoder.embed([square_picture, square_picture.convert("RGBA")])


def test_a_processor_that_crops_to_another_size(checkpoint_dir: Checkpoints, tmp_path: Path) -> None:
    """The 224 default: a tower made for 336 pixels whose image processor says nothing crops to 224."""
    folder = shutil.copytree(checkpoint_dir("clip"), tmp_path / "cropped")
    edit(folder / "processor_config.json", image_processor={"crop_size": {"height": 40, "width": 40}})
    with pytest.raises(
        UserError, match=r"gives 40 x 40 pixels, the config says 56 x 56\. Mend size and crop_size"
    ):
        load_encoder(str(folder))
    encoder = load_encoder(str(folder), interpolate=True)
    assert encoder.patches([picture(60, 60)], layer=-1).grid == (5, 5)
    assert "40 x 40" in encoder.notes[0]
    assert encoder.preprocessing.endswith("+interpolated")


def test_a_model_that_fits_any_size_gets_a_note(checkpoint_dir: Checkpoints, tmp_path: Path) -> None:
    """DINOv2's published checkpoints are such: made at 518 pixels, cropped to 224."""
    folder = shutil.copytree(checkpoint_dir("dinov2"), tmp_path / "cropped")
    edit(folder / "preprocessor_config.json", crop_size={"height": 40, "width": 40})
    encoder = load_encoder(str(folder))
    assert encoder.notes == (
        "the image processor gives 40 x 40 pixels, the config says 56 x 56; the model fits its positions to what it gets",
    )
    assert encoder.patches([picture(60, 60)], layer=0).grid == (5, 5)


def test_a_checkpoint_without_image_processor(checkpoint_dir: Checkpoints, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint_dir("dinov2"), tmp_path / "bare")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="has no image processor that can be loaded"):
        load_encoder(str(folder))


def test_a_checkpoint_without_some_weights(checkpoint_dir: Checkpoints, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint_dir("dinov2"), tmp_path / "holed")
    edit(folder / "config.json", num_hidden_layers=4)
    with pytest.raises(
        UserError, match=r"1[0-9] weights are missing and 0 have another shape: encoder\.layer"
    ):
        load_encoder(str(folder))


def test_broken_weights(checkpoint_dir: Checkpoints, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint_dir("dinov2"), tmp_path / "broken")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="broken cannot be loaded as an encoder"):
        load_encoder(str(folder))


@pytest.mark.parametrize("name", ["llava", "smolvlm", "blip_2"])
def test_a_vlm_is_no_encoder(name: str, encoders: Encoders) -> None:
    with pytest.raises(
        UserError, match=f"is a vision-language model .model type '{name.replace('_', '-?_?')}'"
    ):
        encoders(name)


def plain_tower() -> dict[str, Any]:
    """The settings of a vision tower of width 32, without its type."""
    return {name: value for name, value in tower("").items() if name != "model_type"}


def save_with_images(model: Any, folder: Path) -> Path:
    """Save a model with an image processor for 56 pixels."""
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 56, "width": 56}).save_pretrained(folder)
    return folder


def test_a_second_token_before_the_patches(tmp_path: Path, square_picture: Image.Image) -> None:
    """DeiT has a token for distillation beside its class token."""
    config = tf.DeiTConfig(**plain_tower())
    folder = save_with_images(build(tf.DeiTModel, config), tmp_path)
    found = load_encoder(str(folder)).patches([square_picture], layer=0)
    assert (found.grid, found.prefix, found.features.shape) == ((7, 7), 2, (1, 49, 32))


def test_tokens_without_a_final_norm_are_noted(tmp_path: Path) -> None:
    folder = save_with_images(build(tf.BeitModel, tf.BeitConfig(**plain_tower())), tmp_path)
    assert load_encoder(str(folder)).notes == ("its tokens pass no final norm",)


def test_an_encoder_that_is_no_transformer(tmp_path: Path) -> None:
    config = tf.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=56)
    folder = save_with_images(build(tf.ConvNextModel, config), tmp_path)
    with pytest.raises(
        UserError, match=r"model type 'convnext'. is no encoder that Eyechart can read: .* no sequence of"
    ):
        load_encoder(str(folder))


def test_a_clip_without_a_grid_still_embeds(tmp_path: Path, square_picture: Image.Image) -> None:
    """GroupViT merges its patches into a few tokens."""
    tokenizer = clip_tokenizer()
    vision = {"hidden_size": 32, "intermediate_size": 64, "depths": [1, 1, 1], "num_hidden_layers": 3}
    groups = {"num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 4], "num_attention_heads": 4}
    config = tf.GroupViTConfig(
        vision_config={**vision, **groups, "image_size": 56, "patch_size": 8},
        text_config=text_tower(tokenizer),
        projection_dim=24,
    )
    build(tf.GroupViTModel, config).save_pretrained(tmp_path)
    tf.CLIPProcessor(clip_images(56), tokenizer).save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    assert encoder.poolings == ("projected",)
    assert encoder.notes[0].startswith("no patch features: it hands out 4 tokens for a grid of 7 x 7 patches")
    assert encoder.embed([square_picture]).shape == (1, 24)
    with pytest.raises(Incapable, match="is no sequence of patch tokens"):
        encoder.patches([square_picture], layer=0)


def test_a_model_of_videos_is_no_encoder(tmp_path: Path) -> None:
    folder = save_with_images(
        build(tf.VideoMAEModel, tf.VideoMAEConfig(num_frames=2, **plain_tower())), tmp_path
    )
    with pytest.raises(UserError, match="cannot be run on a picture: not enough values"):
        load_encoder(str(folder))


def test_a_text_model_is_no_encoder(tmp_path: Path) -> None:
    tf.GPT2Model(tf.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=10, n_positions=8)).save_pretrained(
        tmp_path
    )
    with pytest.raises(UserError, match="has no image processor that can be loaded"):
        load_encoder(str(tmp_path))


def test_names_that_load_nothing() -> None:
    with pytest.raises(UserError, match="no model can be loaded from 'nobody/nothing'"):
        load_encoder("nobody/nothing")
    with pytest.raises(UserError, match="http://localhost:8000/v1' is a server"):
        load_encoder("http://localhost:8000/v1")
    with pytest.raises(UserError, match=r"no dtype named 'float23'\. Did you mean 'float32'"):
        load_encoder("nobody/nothing", dtype="float23")
    with pytest.raises(UserError, match="no device named 'tpu'"):
        load_encoder("nobody/nothing", device="tpu")
