"""A LLaVA joined of two checkpoints: its tower untouched, its packed loss the plain one, its checkpoint like any other."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel, LlamaForCausalLM

from eyechart.core.records import Capability, Prompt
from eyechart.models import load_vlm
from eyechart.train.export import export
from eyechart.train.loop import Settings, fit
from eyechart.train.packs import NO_TARGET, Example, PackedBatches, tokenise
from eyechart.train.prompts import answered, prompt
from eyechart.train.vlm import (
    FLATTEST,
    Taught,
    answer_loss,
    cached_features,
    fed_features,
    join_towers,
    start_projector,
    taught_loss,
    tower_sha256,
    train_only,
)
from eyechart.train.weights import weights_sha256
from zoo_parts import save_small_clip, save_small_language, small_tokenizer

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3), dtype=np.uint8)
EXAMPLES = [
    Example(
        picture=number % 6,
        text="Is the mug full or empty?" + " no" * (number % 3),
        answer=answer,
        weight=(1.0, 3.0)[number % 2],
    )
    for number, answer in enumerate(["A", "full", "(b)", "left and then right"] * 6)
] + [Example(picture=None, text="the mug is full.\nIs it?", answer="full")] * 2
SETTINGS = Settings(
    max_steps=6,
    per_device_train_batch_size=8,
    learning_rate=0.01,
    warmup_steps=1,
    logging_steps=1,
    save_steps=3,
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("parts"), small_tokenizer()
    return save_small_clip(folder / "clip", tokenizer), save_small_language(folder / "lm", tokenizer)


@pytest.fixture
def joined(parts):
    return join_towers(*parts)


def batches_of(model, processor, features, **options):
    return PackedBatches(
        tokenise(EXAMPLES, processor.tokenizer),
        features,
        image_id=model.config.image_token_index,
        pad_id=processor.tokenizer.pad_token_id,
        **{"examples": 8, "longest": 90, **options},
    )


def plain_loss(model, processor, example):
    """transformers' own loss of one example on pixels, summed over its answer's tokens, and their number."""
    shown = example.picture is not None
    images = {"images": [Image.fromarray(IMAGES[example.picture])]} if shown else {}
    whole = processor(text=answered(example.text, example.answer, image=shown), return_tensors="pt", **images)
    asked = processor(text=prompt(example.text, image=shown), return_tensors="pt", **images)
    labels = whole["input_ids"].clone()
    labels[:, : asked["input_ids"].shape[1]] = NO_TARGET
    count = int((labels != NO_TARGET).sum())
    with torch.no_grad():
        return float(model(**whole, labels=labels).loss) * count, count


def test_the_parts_are_those_of_the_checkpoints(parts, joined):
    model, _ = joined
    clip, language = CLIPModel.from_pretrained(parts[0]), LlamaForCausalLM.from_pretrained(parts[1])
    assert weights_sha256(model.model.vision_tower) == weights_sha256(clip.vision_model)
    assert weights_sha256(model.model.language_model) == weights_sha256(language.model)
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    assert (model.config.vision_feature_layer, model.config.vision_feature_select_strategy) == (-2, "default")


def test_the_projector_begins_as_its_seed_says(parts):
    def drawn(seed):
        return weights_sha256(join_towers(*parts, seed=seed)[0].model.multi_modal_projector)

    before = torch.random.get_rng_state()
    assert drawn(0) == drawn(0) != drawn(1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-5), ("float16", 5e-3)])
def test_the_packed_loss_on_cached_features_is_the_plain_loss_on_pixels(joined, tmp_path, dtype, rounding):
    model, processor = joined
    features = cached_features(model, processor, IMAGES, tmp_path, source="six", dtype=dtype, batch=4)
    batches = batches_of(model, processor, features)
    with torch.no_grad():
        packed = float(answer_loss(model, batches.collated(batches.rows)))
    plain = [(example.weight, *plain_loss(model, processor, example)) for example in EXAMPLES]
    whole = sum(weight * loss for weight, loss, _ in plain) / sum(
        weight * count for weight, _, count in plain
    )
    assert packed == pytest.approx(whole, abs=rounding)


def test_packing_changes_no_gradient(joined):
    model, processor = joined
    features = fed_features(model, processor, IMAGES).numpy()
    train_only(model, "whole")
    gradients = []
    for longest in (1, 200):
        batches = batches_of(model, processor, features, longest=longest)
        model.zero_grad()
        answer_loss(model, batches.collated(batches.rows)).backward()
        gradients.append(model.model.language_model.layers[0].mlp.up_proj.weight.grad.clone())
    assert torch.allclose(*gradients, atol=1e-6)
    assert gradients[0].abs().max() > 1e-4


def test_features_are_what_the_projector_reads(joined):
    model, processor = joined
    pixels = processor.image_processor([Image.fromarray(image) for image in IMAGES], return_tensors="pt")
    with torch.no_grad():
        states = model.model.vision_tower(**pixels, output_hidden_states=True).hidden_states
    assert torch.allclose(fed_features(model, processor, IMAGES), states[-2][:, 1:], atol=1e-6)


def test_features_without_context_depend_on_their_own_patch_alone(joined, tmp_path):
    model, processor = joined
    patch = model.config.vision_config.patch_size
    changed = IMAGES.copy()
    changed[:, :patch, :patch] = 255 - changed[:, :patch, :patch]  # the first patch
    found = {}
    for name, alone in (("whole", False), ("alone", True)):
        for which, images in (("before", IMAGES), ("after", changed)):
            found[name, which] = np.array(
                cached_features(
                    model,
                    processor,
                    images,
                    tmp_path / name / which,
                    source=which,
                    alone=alone,
                    dtype="float32",
                )
            )
    moved = {
        name: np.abs(found[name, "after"] - found[name, "before"]).max(axis=(0, 2))
        for name in ("whole", "alone")
    }
    assert (moved["whole"] > 0).all()
    assert moved["alone"][0] > 0
    assert (moved["alone"][1:] == 0).all()
    assert json.loads((tmp_path / "alone" / "before" / "features.json").read_text())["identity"]["alone"]


def test_cached_features_go_on_where_they_stopped_and_are_made_anew_for_another_tower(
    parts, joined, tmp_path, monkeypatch
):
    model, processor = joined
    whole = np.array(cached_features(model, processor, IMAGES, tmp_path / "a", source="six", batch=4))
    seen = []
    made = fed_features

    def counting(model, processor, images):
        seen.append(len(images))
        return made(model, processor, images)

    monkeypatch.setattr("eyechart.train.vlm.fed_features", counting)
    assert np.array_equal(cached_features(model, processor, IMAGES, tmp_path / "a", source="six"), whole)
    assert seen == []
    record = tmp_path / "a" / "features.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"done": 4}))
    assert np.array_equal(cached_features(model, processor, IMAGES, tmp_path / "a", source="six"), whole)
    assert seen == [2]
    cached_features(model, processor, IMAGES, tmp_path / "a", source="six other")
    model.model.vision_tower.get_parameter("embeddings.patch_embedding.weight").data.neg_()
    other = cached_features(model, processor, IMAGES, tmp_path / "a", source="six other")
    assert seen == [2, 6, 6]
    assert not np.array_equal(other, whole)


@pytest.mark.parametrize("stage", ["projector", "whole"])
def test_a_stage_trains_what_it_should_and_never_the_tower(joined, stage, tmp_path):
    model, processor = joined
    batches = batches_of(model, processor, fed_features(model, processor, IMAGES).numpy())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_only(model, stage)
    fit(Taught(model), taught_loss, batches, SETTINGS, tmp_path)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    projector = {name for name in before if "multi_modal_projector" in name}
    speech = {name for name in before if "language_model" in name or "lm_head" in name}
    assert changed == (projector if stage == "projector" else projector | speech)


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_the_unbroken_one(parts, tmp_path):
    def trained(folder, killed_at):
        model, processor = join_towers(*parts)
        train_only(model, "whole")
        batches = batches_of(model, processor, fed_features(model, processor, IMAGES).numpy())

        def fed(step):
            if step == killed_at:
                raise KeyboardInterrupt
            return batches(step)

        fit(Taught(model), taught_loss, fed, SETTINGS, folder)
        return weights_sha256(model)

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "broken", 4)
    assert trained(tmp_path / "broken", None) == trained(tmp_path / "whole", None)


@pytest.mark.slow
def test_it_learns_what_it_is_taught(joined, tmp_path):
    model, processor = joined
    batches = batches_of(model, processor, fed_features(model, processor, IMAGES).numpy(), examples=26)
    train_only(model, "whole")
    before = answer_loss(model, batches(0)).item()
    fit(
        Taught(model),
        taught_loss,
        batches,
        replace(SETTINGS, max_steps=60, learning_rate=0.02, save_steps=60),
        tmp_path,
    )
    assert answer_loss(model, batches(0)).item() < 0.2 * before


def test_the_stored_checkpoint_loads_and_answers_like_any_other(joined, tmp_path):
    model, processor = joined
    export(model, tmp_path / "llava", processor)
    stored = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava")
    assert {value.dtype for value in stored.parameters()} == {torch.float32}
    reader = AutoProcessor.from_pretrained(tmp_path / "llava")
    image = Image.fromarray(IMAGES[0])
    fed = reader(images=image, text=prompt("Is the mug full or empty?", image=True), return_tensors="pt")
    said = stored.generate(**fed, max_new_tokens=3, do_sample=False)[0, fed["input_ids"].shape[1] :]
    vlm = load_vlm(str(tmp_path / "llava"), device="cpu")
    asked = Prompt(text="Is the mug full or empty?", images=(image,))
    assert vlm.generate([asked] * 2, max_new_tokens=3) == [reader.decode(said, skip_special_tokens=True)] * 2
    assert vlm.cannot == {}
    assert Capability.OPTION_SCORES in vlm.capabilities
    options = [vlm.join(asked) + option for option in ("full", "empty", "left and then right")]
    scores = vlm.option_scores(asked, options)
    for score, option in zip(scores, ("full", "empty", "left and then right"), strict=True):
        example = Example(picture=0, text="Is the mug full or empty?", answer=option)
        loss, _ = plain_loss(stored, reader, example)
        ended = fed["input_ids"].new_tensor([reader.tokenizer(options[0][:0] + f" {option}").input_ids])
        whole = torch.cat([fed["input_ids"], ended], dim=1)
        with torch.no_grad():
            last = stored(input_ids=whole, pixel_values=fed["pixel_values"]).logits[0, -1].log_softmax(-1)
        assert score == pytest.approx(-loss - float(last[reader.tokenizer.eos_token_id]), abs=1e-3)
    assert vlm.fed([image])[0].features.shape == (4, 16)
    assert vlm.geometry(image).tiles[0].grid == (2, 2)


def test_the_tower_is_stored_bit_for_bit(joined, tmp_path):
    model, processor = joined
    stored = AutoModelForImageTextToText.from_pretrained(export(model, tmp_path, processor))
    assert tower_sha256(stored) == tower_sha256(model)


def scaled_features(joined, seed=0):
    """Features as a tower's inner layer gives them: far from zero, one direction much larger than the others."""
    model, _ = joined
    width = model.config.vision_config.hidden_size
    rng = np.random.default_rng(seed)
    drawn = (
        rng.normal(size=(40, 9, width))
        @ np.diag(np.linspace(0.5, 4.0, width))
        @ rng.normal(size=(width, width))
    )
    return (drawn + rng.normal(size=width) * 20).astype(np.float32)


def test_a_projector_starts_from_whitened_features_and_gives_vectors_as_large_as_words(joined):
    model, features = joined[0], scaled_features(joined)
    start_projector(model, features, seed=1)
    projector, rows = model.model.multi_modal_projector, torch.from_numpy(features).flatten(0, 1)
    entering = projector.linear_1(rows).detach().double()
    drawn = torch.randn(projector.linear_1.weight.shape, generator=torch.Generator().manual_seed(1))
    drawn = (drawn * projector.linear_1.in_features**-0.5).double()
    centred = rows.double() - rows.double().mean(0)
    sizes, turned = np.linalg.eigh(np.cov(centred.T.numpy()))
    slow = centred @ torch.from_numpy(
        turned @ np.diag(np.maximum(sizes, FLATTEST * sizes.max()) ** -0.5) @ turned.T
    )
    torch.testing.assert_close(entering, slow @ drawn.T, atol=2e-3, rtol=2e-3)
    given = projector(rows)
    assert given.mean(0).abs().max() < 1e-4
    assert given.std(0).mean().item() == pytest.approx(
        model.get_input_embeddings().weight.std().item(), rel=1e-3
    )


def test_a_projector_starts_alike_however_the_features_are_shifted_and_scaled(joined):
    model, features = joined[0], scaled_features(joined)
    projector = model.model.multi_modal_projector
    start_projector(model, features)
    before = projector(torch.from_numpy(features)).detach()
    start_projector(model, features * 3 + 7)
    torch.testing.assert_close(
        projector(torch.from_numpy(features * 3 + 7)).detach(), before, atol=5e-3, rtol=5e-3
    )
    start_projector(model, features, seed=1)
    assert not torch.allclose(projector(torch.from_numpy(features)), before, atol=0.1)
