"""The adapters to timm and open_clip, on tiny models saved here. Skipped where those packages cannot be imported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from eyechart.core.errors import Incapable, UserError
from eyechart.models.encoders import load_encoder
from eyechart.models.encoders.extras import load_extra

timm = pytest.importorskip("timm", reason="timm needs torchvision", exc_type=ImportError)
open_clip = pytest.importorskip("open_clip", reason="open_clip needs torchvision", exc_type=ImportError)

pytestmark = pytest.mark.extras

VIT = {"img_size": 56, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 5}


def save_timm(folder: Path, **more: Any) -> Any:
    """A tiny timm ViT in timm's own layout, and the model itself."""
    torch.manual_seed(3)
    model = timm.models.VisionTransformer(**VIT, **more).eval()
    model.pretrained_cfg = {
        "architecture": "vit_tiny_patch16_224", "input_size": (3, 56, 56), "crop_pct": 1.0, "num_classes": 5,
        "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic", "fixed_input_size": True,
    }  # fmt: skip
    timm.models.save_for_hf(model, folder, model_args=VIT | more)
    return model


def prepared(model: Any, images: list[Image.Image]) -> torch.Tensor:
    """The pictures as timm's own transform makes them."""
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return torch.stack([transform(image) for image in images])


@pytest.mark.parametrize("named", ["timm:local-dir:{}", "{}"])
def test_a_timm_vit_reads_as_timm_itself_does(
    named: str, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    model = save_timm(tmp_path / "vit", reg_tokens=4)
    encoder = load_encoder(named.format(tmp_path / "vit"))
    assert (encoder.kind, encoder.poolings, encoder.layers) == ("vision_only", ("cls", "mean_patch"), 3)
    pixels = prepared(model, pictures)
    with torch.no_grad():
        tokens = model.forward_features(pixels)
        between = model.forward_intermediates(
            pixels, indices=[0, 1, 2], output_fmt="NLC", intermediates_only=True
        )
    torch.testing.assert_close(encoder.embed(pictures), tokens[:, 0])
    torch.testing.assert_close(encoder.embed(pictures, pooling="mean_patch"), tokens[:, 5:].mean(dim=1))
    for layer in (1, 2, 3):
        found = encoder.patches(pictures, layer=layer)
        assert (found.grid, found.prefix) == ((7, 7), 5)
        torch.testing.assert_close(found.features, between[layer - 1])


def test_a_timm_vit_made_for_mean_pooling_has_its_final_norm_elsewhere(
    tmp_path: Path, square_picture: Image.Image
) -> None:
    model = save_timm(tmp_path / "vit", global_pool="avg", class_token=False)
    torch.nn.init.uniform_(model.fc_norm.weight, 0.5, 2.0)
    timm.models.save_for_hf(
        model, tmp_path / "vit", model_args=VIT | {"global_pool": "avg", "class_token": False}
    )
    encoder = load_encoder(f"timm:local-dir:{tmp_path / 'vit'}")
    assert encoder.poolings == ("mean_patch",)
    with torch.no_grad():
        tokens = model.fc_norm(model.forward_features(prepared(model, [square_picture])))
    torch.testing.assert_close(encoder.embed([square_picture]), tokens.mean(dim=1))


def test_timm_layer_0_is_what_enters_the_first_block(tmp_path: Path, square_picture: Image.Image) -> None:
    model = save_timm(tmp_path / "vit")
    with torch.no_grad():
        embedded = model.norm_pre(model._pos_embed(model.patch_embed(prepared(model, [square_picture]))))
    found = load_encoder(f"timm:local-dir:{tmp_path / 'vit'}").patches([square_picture], layer=0)
    torch.testing.assert_close(found.features, embedded[:, 1:])


def test_the_timm_key_follows_the_weights(tmp_path: Path) -> None:
    model = save_timm(tmp_path / "one")
    first = load_encoder(f"timm:local-dir:{tmp_path / 'one'}")
    with torch.no_grad():
        model.norm.bias += 1
    timm.models.save_for_hf(model, tmp_path / "two", model_args=VIT)
    second = load_encoder(f"timm:local-dir:{tmp_path / 'two'}")
    assert len({first.sha256, second.sha256, None}) == 3
    assert first.cache_key() != second.cache_key()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "timm:vit_tiny_patch16_244",
            "no timm model named 'vit_tiny_patch16_244'. Near it: vit_tiny_patch16_224",
        ),
        ("timm:test_vit", "timm:test_vit has no pretrained weights that can be loaded"),
        ("timm:local-dir:/nowhere/at/all", "local-dir:/nowhere/at/all has no pretrained weights"),
    ],
)
def test_a_timm_model_without_weights_is_an_error(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_encoder(name)


def test_a_timm_model_that_is_no_vit_is_an_error(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=0)
    timm.models.save_for_hf(model, tmp_path / "net")
    with pytest.raises(UserError, match="is a ResNet, not a vision transformer"):
        load_encoder(f"timm:local-dir:{tmp_path / 'net'}")


def test_timm_embeds_no_texts(tmp_path: Path) -> None:
    save_timm(tmp_path / "vit")
    with pytest.raises(Incapable, match="no text tower"):
        load_encoder(f"timm:local-dir:{tmp_path / 'vit'}").embed_texts(["a dog"])


CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 56, "patch_size": 8, "width": 32, "layers": 3, "head_width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


@pytest.fixture
def tiny_open_clip(tmp_path: Path) -> Callable[..., tuple[str, Any]]:
    """A function that writes a tiny open_clip model in its local-dir layout: its name, and the model itself."""

    def make(**vision: Any) -> tuple[str, Any]:
        import json

        settings = CLIP | {"vision_cfg": CLIP["vision_cfg"] | vision}
        torch.manual_seed(5)
        model = open_clip.CLIP(**settings).eval()
        folder = tmp_path / "open-clip"
        folder.mkdir()
        (folder / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": settings, "preprocess_cfg": {}})
        )
        torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
        return f"open_clip:local-dir:{folder}", model

    return make


def test_open_clip_reads_as_open_clip_itself_does(
    tiny_open_clip: Callable[..., tuple[str, Any]], pictures: list[Image.Image]
) -> None:
    name, model = tiny_open_clip()
    encoder = load_encoder(name)
    assert (encoder.kind, encoder.poolings, encoder.layers) == (
        "clip_like",
        ("projected", "cls", "mean_patch"),
        3,
    )
    settings = open_clip.transform.PreprocessCfg(size=(56, 56))
    transform = open_clip.transform.image_transform_v2(settings, is_train=False)
    pixels = torch.stack([transform(image) for image in pictures])
    texts = ["a dog", "a very long line about two cats on a mat"]
    with torch.no_grad():
        image_rows, text_rows = (
            model.encode_image(pixels),
            model.encode_text(open_clip.get_tokenizer("ViT-B-32")(texts)),
        )
        between = model.visual.forward_intermediates(
            pixels, indices=[0, 1, 2], output_fmt="NLC", output_extra_tokens=True, intermediates_only=True
        )
    torch.testing.assert_close(encoder.embed(pictures), image_rows)
    torch.testing.assert_close(encoder.embed_texts(texts), text_rows)
    last = between["image_intermediates"][-1]
    with torch.no_grad():
        means = model.visual.ln_post(last).mean(dim=1)
    torch.testing.assert_close(encoder.embed(pictures, pooling="mean_patch"), means)
    torch.testing.assert_close(encoder.patches(pictures, layer=-1).features, last)
    torch.testing.assert_close(encoder.patches(pictures, layer=1).features, between["image_intermediates"][0])


def test_open_clip_cls_is_projected_to_the_embedding(
    tiny_open_clip: Callable[..., tuple[str, Any]], square_picture: Image.Image
) -> None:
    name, model = tiny_open_clip()
    encoder = load_encoder(name)
    cls = encoder.embed([square_picture], pooling="cls")
    torch.testing.assert_close(cls @ model.visual.proj.detach(), encoder.embed([square_picture]))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("open_clip:ViT-B-23/openai", "no open_clip model named 'ViT-B-23'. Did you mean 'ViT-B-32'"),
        (
            "open_clip:ViT-B-32/opnai",
            "no weights for open_clip:ViT-B-32 named 'opnai'. Did you mean 'openai'",
        ),
        ("open_clip:local-dir:/nowhere", "open_clip:local-dir:/nowhere has no weights that can be loaded"),
    ],
)
def test_open_clip_names_that_are_not_there(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_encoder(name)


def test_open_clip_without_weights_is_an_error(tiny_open_clip: Callable[..., tuple[str, Any]]) -> None:
    name, _ = tiny_open_clip()
    Path(name.removeprefix("open_clip:local-dir:"), "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="no weights that can be loaded"):
        load_encoder(name)


def test_the_other_gelu_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Weights trained with quick GELU give other features under GELU; open_clip only warns."""
    module = __import__("open_clip.factory", fromlist=["factory"])
    weights = tmp_path / "weights.pt"
    torch.save({}, weights)
    monkeypatch.setattr(module, "download_pretrained", lambda *args, **kwargs: str(weights))
    with pytest.raises(UserError, match=r"QuickGELU mismatch.*Try ViT-B-32-quickgelu"):
        load_encoder("open_clip:ViT-B-32/metaclip_400m")


def test_extras_that_are_there_load() -> None:
    assert load_extra("timm", why="this test", extra="timm") is timm
