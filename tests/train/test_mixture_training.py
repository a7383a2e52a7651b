"""A mixture taught as the zoo's LLaVA is: its packed loss is its own on pixels, its adapters start alike, only they move."""

import numpy as np
import pytest
import torch
from PIL import Image

from eyechart.models import load_vlm
from eyechart.models.mixtures.modeling import FIRST, SECOND
from eyechart.train.cached import SideBySide
from eyechart.train.export import export
from eyechart.train.loop import Settings, fit
from eyechart.train.mixture import Sight, join_mixture, see_all
from eyechart.train.packs import NO_TARGET, Example, PackedBatches, tokenise
from eyechart.train.prompts import answered, prompt
from eyechart.train.vlm import Taught, answer_loss, start_projector, taught_loss, tower_sha256, train_only
from zoo_parts import save_small_clip, save_small_language, save_small_vit, small_tokenizer

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3), dtype=np.uint8)
EXAMPLES = [
    Example(picture=number % 6, text="Is the mug full or empty?" + " no" * (number % 3), answer=answer)
    for number, answer in enumerate(["A", "full", "(b)", "left and then right"] * 3)
] + [Example(picture=None, text="the mug is full.\nIs it?", answer="full")]
SHOWN = [
    Example(picture=2, text=None, answer="full", patches=(1, 3)),
    Example(picture=5, text=None, answer="A", patches=(0,)),
]
SIGHTS = {
    "single": Sight(first="vit", first_layer=-1),
    "additive": Sight(first="clip", second="vit", mixture="additive", alpha=0.25, standardise=True),
    "interleaved": Sight(first="clip", second="vit", mixture="interleaved"),
    "concatenated": Sight(first="clip", second="vit", mixture="concatenated"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("models"), small_tokenizer()
    save_small_clip(folder / "clip", tokenizer)
    save_small_vit(folder / "vit")
    save_small_language(folder / "lm", tokenizer)
    return folder


@pytest.fixture(params=SIGHTS)
def joined(request, models, tmp_path):
    sight = SIGHTS[request.param]
    model, processor = join_mixture(sight, models, models / "lm", seed=1)
    return model, processor, see_all(sight, model, processor, IMAGES, tmp_path / "work", source="six")


def packed(joined, taught, **options):
    model, processor, features = joined
    return PackedBatches(
        tokenise(taught, processor.tokenizer),
        features,
        image_id=model.config.image_token_index,
        pad_id=processor.tokenizer.pad_token_id,
        tokens_per_patch=model.config.tokens_per_cell,
        **{"examples": 4, "longest": 90, **options},
    )


def plain_loss(model, processor, example):
    """The mixture's own loss of one example on pixels, summed over its answer's tokens, and their number."""
    shown = example.picture is not None
    images = {"images": [Image.fromarray(IMAGES[example.picture])]} if shown else {}
    whole = processor(text=answered(example.text, example.answer, image=shown), return_tensors="pt", **images)
    asked = processor(text=prompt(example.text, image=shown), return_tensors="pt", **images)
    labels = whole["input_ids"].clone()
    labels[:, : asked["input_ids"].shape[1]] = NO_TARGET
    count = int((labels != NO_TARGET).sum())
    with torch.no_grad():
        return float(model(**whole, labels=labels).loss) * count, count


def test_the_packed_loss_on_cached_features_is_the_mixtures_own_on_pixels(joined):
    model, processor, _ = joined
    batches = packed(joined, EXAMPLES)
    with torch.no_grad():
        found = float(answer_loss(model, batches.collated(batches.rows)))
    plain = [plain_loss(model, processor, example) for example in EXAMPLES]
    assert found == pytest.approx(sum(one for one, _ in plain) / sum(n for _, n in plain), abs=5e-3)


def test_some_patches_alone_give_the_tokens_they_give_in_the_whole_picture(joined):
    model, _, features = joined
    batch = packed(joined, SHOWN, examples=1)
    rows = {int(batch.segments.pictures[row[0]]): row for row in batch.rows}
    with torch.no_grad():
        towers = list(model.model.encoders)
        for example in SHOWN:
            made = batch.collated([rows[example.picture]])
            seen = torch.from_numpy(np.asarray(features[example.picture], np.float32))[None]
            parts = dict(
                zip(towers, torch.split(seen, [part.shape[2] for part in features.parts], -1), strict=True)
            )
            whole = model.model.projected(parts)[0]
            each = model.config.tokens_per_cell
            wanted = whole.reshape(-1, each, whole.shape[-1])[list(example.patches)].flatten(0, 1)
            held = made["input_ids"][0] == model.config.image_token_index
            assert int(held.sum()) == each * len(example.patches)
            embedded = []
            handle = model.model.language_model.register_forward_pre_hook(
                lambda module, args, kwargs, kept=embedded: kept.append(kwargs["inputs_embeds"]),
                with_kwargs=True,
            )
            answer_loss(model, made)
            handle.remove()
            assert torch.allclose(embedded[0][0][held], wanted, atol=1e-5)


def test_adapters_start_with_vectors_as_large_as_words_and_of_mean_zero(joined):
    model, _, features = joined
    start_projector(model, np.asarray(features[:]), seed=3)
    rows = torch.from_numpy(np.asarray(features[:], np.float32))
    with torch.no_grad():
        parts = torch.split(rows, [part.shape[2] for part in features.parts], dim=-1)
        read = model.model.fed(dict(zip(model.model.encoders, parts, strict=True)))
        size = model.get_input_embeddings().weight.std()
        for name, values in read.items():
            given = model.model.adapters[name](values).flatten(0, 1)
            assert given.mean(0).abs().max() < 1e-4 * max(1.0, float(size))
            assert given.std(0).mean() == pytest.approx(float(size), rel=1e-3)


@pytest.mark.parametrize("stage", ["projector", "whole"])
def test_a_stage_moves_adapters_and_never_an_encoder(joined, stage, tmp_path):
    model, _, _ = joined
    before = {name: value.clone() for name, value in model.state_dict().items()}
    towers = tower_sha256(model)
    train_only(model, stage)
    settings = Settings(max_steps=2, per_device_train_batch_size=4, learning_rate=0.01, warmup_steps=0)
    fit(Taught(model), taught_loss, packed(joined, EXAMPLES), settings, tmp_path / "run")
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    adapters = {name for name in before if "multi_modal_projector" in name}
    assert adapters <= moved
    assert tower_sha256(model) == towers
    others = {name for name in moved - adapters if "language_model" not in name and "lm_head" not in name}
    assert others == set()
    assert bool(moved - adapters) == (stage == "whole")


def test_the_stored_mixture_answers_as_it_did(joined, tmp_path):
    model, processor, _ = joined
    export(model, tmp_path / "model", processor)
    vlm = load_vlm(str(tmp_path / "model"), device="cpu")
    assert "train" in {str(one) for one in vlm.capabilities}
    example = EXAMPLES[0]
    first, count = plain_loss(model, processor, example)
    again, _ = plain_loss(vlm.model, processor, example)
    assert again == pytest.approx(first, abs=0.01 * count)


def test_every_mixture_reads_the_same_stored_features(models, tmp_path, monkeypatch):
    for name in ("interleaved", "concatenated"):
        model, processor = join_mixture(SIGHTS[name], models, models / "lm")
        found = see_all(SIGHTS[name], model, processor, IMAGES, tmp_path / "work", source="six")
        monkeypatch.setattr("eyechart.train.mixture.patch_features", None)  # a second reading would fail
    assert found.shape == (6, 4, found.parts[0].shape[2] + found.parts[1].shape[2])
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [
        "features-clip-at--2",
        "features-vit-at--1",
    ]


def test_a_mixture_that_standardises_knows_its_channels(models, tmp_path):
    sight = SIGHTS["additive"]
    model, processor = join_mixture(sight, models, models / "lm")
    features = see_all(sight, model, processor, IMAGES, tmp_path / "work", source="six")
    for name, part in zip((FIRST, SECOND), features.parts, strict=True):
        rows = np.asarray(part, np.float64).reshape(-1, part.shape[2])
        assert np.allclose(model.model.standardisers[name].mean.numpy(), rows.mean(0), atol=1e-5)
        assert np.allclose(model.model.standardisers[name].deviation.numpy(), rows.std(0), atol=1e-5)


def test_features_side_by_side_are_the_parts_along_the_channels():
    first, second = np.ones((3, 4, 2), np.float16), np.full((3, 4, 5), 2, np.float16)
    both = SideBySide([first, second])
    assert both.shape == (3, 4, 7)
    assert len(both) == 3
    assert np.array_equal(both[1], np.concatenate([first[1], second[1]], axis=1))
    with pytest.raises(ValueError, match="cannot stand side by side"):
        SideBySide([first, second[:, :3]])


def test_the_same_examples_with_two_tokens_a_patch_are_another_training(joined):
    batches = packed(joined, EXAMPLES)
    other = PackedBatches(
        batches.segments, joined[2], image_id=1, pad_id=0, examples=4,
        tokens_per_patch=3 - joined[0].config.tokens_per_cell,
    )  # fmt: skip
    assert other.sha256 != batches.sha256
