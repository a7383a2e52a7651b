"""CLIP in small: the loss against a slow one, and a stored checkpoint that every loader takes."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, AutoTokenizer, CLIPModel

from eyechart.core.errors import UserError
from eyechart.models import load_encoder
from eyechart.recipes.clip import RATES, SETTINGS, captioned, train_clip
from eyechart.train.contrastive import (
    MAX_LOGIT_SCALE,
    MILD,
    ClipShape,
    clip_objective,
    contrastive_loss,
    export_clip,
    limit_scale,
    make_clip,
    same_captions,
    tokenize,
)
from eyechart.train.loop import Settings, fit
from eyechart.train.tokens import ZooTokenizer, train_tokenizer
from eyechart.train.towers import to_pixels
from eyechart.world.captions import caption
from eyechart.world.sets import SceneSet, render_set
from eyechart.world.sets_plan import SetPlan
from eyechart.world.words import vocabulary
from pictures import picture

SMALL = ClipShape(
    image_size=24, patch_size=12, hidden_size=16, intermediate_size=32, vision_layers=2, text_layers=1
)
COLORS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 220), "white": (240, 240, 240)}


@pytest.fixture(scope="module")
def tokenizer() -> ZooTokenizer:
    return train_tokenizer(["a red thing", "a green or blue thing", "white"] * 2, [*COLORS])


def clip(tokenizer: ZooTokenizer) -> CLIPModel:
    torch.manual_seed(0)
    return make_clip(tokenizer, SMALL)


def slow_loss(logits: list[list[float]], captions: list[str]) -> float:
    """Figure 3 of the CLIP paper, a negative at a time."""
    total = 0.0
    for i in range(len(captions)):
        others = [j for j in range(len(captions)) if captions[j] != captions[i]]
        to_text = sum(np.exp(logits[i][j] - logits[i][i]) for j in others)
        to_image = sum(np.exp(logits[j][i] - logits[i][i]) for j in others)
        total += np.log1p(to_text) + np.log1p(to_image)
    return total / (2 * len(captions))


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_that_of_the_slow_one(seed: int) -> None:
    rng = random.Random(seed)
    captions = [rng.choice(["red", "blue", "green car"]) for _ in range(7)]
    logits = torch.randn(7, 7, generator=torch.Generator().manual_seed(seed)) * 3
    same = torch.tensor([[one == other for other in captions] for one in captions])
    assert contrastive_loss(logits, same).item() == pytest.approx(
        slow_loss(logits.tolist(), captions), rel=1e-5
    )


def test_without_equal_captions_it_is_transformers_own() -> None:
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    ours = contrastive_loss(logits, torch.eye(6, dtype=torch.bool))
    assert torch.allclose(ours, image_text_contrastive_loss(logits.T))


def test_equal_captions_neither_pull_nor_push() -> None:
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    same = torch.eye(4, dtype=torch.bool)
    same[0, 2] = same[2, 0] = True
    contrastive_loss(logits, same).backward()
    assert logits.grad is not None
    assert logits.grad[0, 2] == logits.grad[2, 0] == 0
    assert (logits.grad[0, 1], logits.grad[0, 0]) > (0, -1)


def test_a_batch_of_one_caption_has_no_loss_but_no_error() -> None:
    assert contrastive_loss(torch.randn(3, 3), torch.ones(3, 3, dtype=torch.bool)).item() == 0


def test_captions_are_the_same_when_all_their_tokens_are(tokenizer: ZooTokenizer) -> None:
    captions = ["a red thing", "a red", "a red thing", "a red thing thing"]
    ids = tokenize(tokenizer, captions, length=48)["input_ids"]
    expected = [[one == other for other in captions] for one in captions]
    assert same_captions(ids).tolist() == expected


def test_a_caption_too_long_is_named(tokenizer: ZooTokenizer) -> None:
    with pytest.raises(ValueError, match=r"a caption has 6 tokens, of 5 at most: 'a red red red'"):
        tokenize(tokenizer, ["a red", "a red red red"], length=5)


def test_the_scale_of_logits_is_limited(tokenizer: ZooTokenizer) -> None:
    model = clip(tokenizer)
    torch.nn.init.constant_(model.logit_scale, 7.0)
    limit_scale(model, 1)
    assert model.logit_scale.item() == pytest.approx(MAX_LOGIT_SCALE)


def test_text_is_pooled_at_its_end(tokenizer: ZooTokenizer) -> None:
    model = clip(tokenizer).eval()
    longer = tokenize(tokenizer, ["a red thing", "a red thing thing thing"], length=48)
    alone = tokenize(tokenizer, ["a red thing"], length=48)
    with torch.no_grad():
        first = model.get_text_features(**longer).pooler_output[0]
        assert torch.allclose(first, model.get_text_features(**alone).pooler_output[0], atol=1e-6)


def paint(step: int) -> tuple[torch.Tensor, list[str]]:
    rng = np.random.default_rng(step)
    names = [list(COLORS)[n] for n in rng.integers(len(COLORS), size=12)]
    pictures = np.stack([np.broadcast_to(np.array(COLORS[name], np.uint8), (24, 24, 3)) for name in names])
    return torch.from_numpy(pictures.copy()), names


@pytest.fixture(scope="module")
def trained(tokenizer: ZooTokenizer, tmp_path_factory: pytest.TempPathFactory) -> CLIPModel:
    def batches(step: int) -> dict[str, torch.Tensor]:
        pictures, names = paint(step)
        return {"pictures": pictures, **tokenize(tokenizer, [f"a {name} thing" for name in names], length=48)}

    model = clip(tokenizer)
    settings = Settings(
        max_steps=40, per_device_train_batch_size=12, learning_rate=5e-3, warmup_steps=4, save_steps=40
    )
    fit(
        model, clip_objective(crops=MILD), batches, settings, tmp_path_factory.mktemp("clip"),
        after_step=limit_scale,
    )  # fmt: skip
    return model.eval()


@pytest.fixture(scope="module")
def exported(trained: CLIPModel, tokenizer: ZooTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_clip(trained, tokenizer, tmp_path_factory.mktemp("exported"))


def test_training_teaches_what_captions_tell(exported: Path) -> None:
    model, processor = CLIPModel.from_pretrained(exported).eval(), AutoProcessor.from_pretrained(exported)
    images = [Image.new("RGB", (40, 40), color) for color in COLORS.values()]
    made = processor(
        text=[f"a {name} thing" for name in COLORS], images=images, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(**made).logits_per_image
    assert logits.argmax(1).tolist() == [0, 1, 2, 3]


def test_files_are_half_and_models_are_full_precision(exported: Path, trained: CLIPModel) -> None:
    stored = load_file(exported / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    config = json.loads((exported / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert '"float16"' not in (exported / "config.json").read_text()
    model, info = CLIPModel.from_pretrained(exported, output_loading_info=True)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, value in trained.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(model.state_dict()[name], value.half().float()), name


def test_the_model_given_stays_as_it_was(exported: Path, trained: CLIPModel) -> None:
    assert {value.dtype for value in trained.parameters()} == {torch.float32}


def test_the_processor_makes_the_pixels_of_training(exported: Path) -> None:
    image = picture(24, 24, 5)
    made = AutoProcessor.from_pretrained(exported)(images=image, return_tensors="pt")["pixel_values"]
    expected = to_pixels(torch.from_numpy(np.array(image))[None])
    assert torch.allclose(made, expected, atol=1e-6)
    assert AutoProcessor.from_pretrained(exported)(images=picture(70, 40, 5), return_tensors="pt")[
        "pixel_values"
    ].shape == (1, 3, 24, 24)


def test_the_tokenizer_is_the_zoos(exported: Path, tokenizer: ZooTokenizer) -> None:
    loaded = AutoTokenizer.from_pretrained(exported)
    assert loaded("a white thing")["input_ids"] == tokenizer("a white thing")["input_ids"]
    assert loaded.model_max_length == 48


def test_eyechart_loads_it_as_an_encoder(exported: Path, trained: CLIPModel, tokenizer: ZooTokenizer) -> None:
    encoder = load_encoder(str(exported))
    assert encoder.kind == "clip_like"
    image = picture(24, 24, 6)
    texts = tokenize(tokenizer, ["a red thing"], length=48)
    with torch.no_grad():
        pixels = to_pixels(torch.from_numpy(np.array(image))[None])
        expected = trained.get_image_features(pixels).pooler_output
        said = trained.get_text_features(**texts).pooler_output
    assert torch.allclose(encoder.embed([image]), expected, atol=2e-2)
    assert torch.allclose(encoder.embed_texts(["a red thing"]), said, atol=2e-2)


def test_a_weight_too_large_for_half_precision_is_refused(tokenizer: ZooTokenizer, tmp_path: Path) -> None:
    model = clip(tokenizer)
    torch.nn.init.constant_(model.visual_projection.weight, 1e6)
    with pytest.raises(ValueError, match=r"visual_projection\.weight holds values that float16 cannot hold"):
        export_clip(model, tokenizer, tmp_path)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SceneSet:
    return render_set(tmp_path_factory.mktemp("scenes"), SetPlan(split="train", scenes=8), workers=1)


def test_captions_belong_to_their_pictures_and_are_drawn_anew_each_epoch(scenes: SceneSet) -> None:
    tokenizer = train_tokenizer([], vocabulary())
    batches = captioned(scenes, RATES["told_all"], tokenizer, batch_size=4)
    said: list[dict[int, str]] = [{}, {}]
    for step in range(4):
        batch = batches(step)
        for shown, ids in zip(batch["pictures"].numpy(), batch["input_ids"], strict=True):
            (place,) = [n for n, image in enumerate(scenes.images) if np.array_equal(image, shown)]
            said[step // 2][place] = tokenizer.decode(ids, skip_special_tokens=True)
    for epoch, captions in enumerate(said):
        assert captions == {
            place: caption(
                scenes.scenes[place].facts, RATES["told_all"], random.Random(f"caption 0 {epoch} {place}")
            )
            for place in range(8)
        }
    assert said[0] != said[1]
    assert torch.equal(batches(3)["input_ids"], batches(3)["input_ids"])


@pytest.mark.slow
def test_the_recipe_trains_stores_and_goes_on(
    scenes: SceneSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eyechart.recipes.tokenizer.SCENES", 60)
    shape = ClipShape(hidden_size=16, intermediate_size=32, vision_layers=2, text_layers=1)
    settings = replace(SETTINGS, max_steps=3, per_device_train_batch_size=4, save_steps=2, logging_steps=1)
    places = {"scenes": scenes.folder, "tokenizer": tmp_path / "tokenizer"}
    made = [
        train_clip(
            "permuted",
            **places,
            work=tmp_path / f"w{turn}",
            out=tmp_path / f"o{turn}",
            settings=settings,
            shape=shape,
        )
        for turn in range(2)
    ]
    first, second = (load_file(folder / "model.safetensors") for folder in made)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert made[0].name == "clip-permuted"
    assert load_encoder(str(made[0])).embed([picture(96, 96, 1)]).shape == (1, 16)
    monkeypatch.setattr("eyechart.recipes.clip.RATES", {"permuted": RATES["biased"]})
    with pytest.raises(UserError, match=r"rates was .*'color': 0\.03"):
        train_clip("permuted", **places, work=tmp_path / "w0", out=tmp_path / "o0", settings=settings)


def test_unknown_rates_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no set of caption rates named 'biassed'\. Did you mean 'biased'"):
        train_clip("biassed", scenes=tmp_path)


def test_the_vision_tower_knows_places_from_the_start(tokenizer: ZooTokenizer) -> None:
    """Two patches' codes are the nearer the fewer steps lie between them, and as large as what a patch shows."""
    shape = replace(SMALL, image_size=48)
    embeddings = make_clip(tokenizer, shape).vision_model.embeddings
    grid = shape.image_size // shape.patch_size
    codes = embeddings.position_embedding.weight.detach()[1:].reshape(grid, grid, -1)
    corner = (codes[0, 0] - codes).norm(dim=-1)
    assert (corner[0, 1:] > 0.5).all()
    assert corner[0, 1] < corner[0, -1]
    torch.testing.assert_close(corner, corner.T)
    shown = embeddings.patch_embedding(torch.rand(8, 3, 48, 48) * 2 - 1)
    assert 0.3 < (shown.std() / codes.std()).item() < 3.0
