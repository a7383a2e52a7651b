"""The model: equal to a slow reference, to LLaVA and to its own parts; saved, loaded, asked, in batches and with a cache."""

import pytest
import torch
import transformers as tf

import eyechart.models  # noqa: F401 (makes mixtures known to the Auto classes)
from checkpoint_parts import build, tower
from eyechart.core.errors import UserError
from eyechart.models.mixtures import MixtureConfig, MixtureForConditionalGeneration, channel_statistics
from mixture_parts import KINDS, SECOND, batch, mixture, noise


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def only(model, names):
    """The weights that another model knows by the same names."""
    return {name: value for name, value in model.state_dict().items() if name in names.state_dict()}


# ------------------------------------------------------------------------------------ what it computes


def by_hand(model, processor, pictures):
    """The logits of one text with its pictures, token by token from the towers' own hidden states."""
    config, inner = model.config, model.model
    inputs = batch(processor, [pictures])
    towers = {
        "first": (inner.vision_tower, inputs["pixel_values"], config.vision_layer),
        "second": (
            getattr(inner, "second_vision_tower", None),
            inputs.get("second_pixel_values"),
            config.second_layer,
        ),
    }
    embeddings = model.get_input_embeddings()(inputs["input_ids"][0])
    places = [k for k, token in enumerate(inputs["input_ids"][0]) if token == config.image_token_id]
    for picture in range(len(pictures)):
        states = {}
        for name in ("first",) if config.mixture == "single" else ("first", "second"):
            encoder, pixels, layer = towers[name]
            states[name] = encoder(pixels[picture : picture + 1], output_hidden_states=True).hidden_states[
                layer
            ][0]
        for patch in range(49):
            token = {
                name: some[None, None, 1 + patch] for name, some in states.items()
            }  # after the class token
            if config.mixture == "interleaved":
                made = [
                    inner.multi_modal_projector(token["first"]),
                    inner.second_multi_modal_projector(token["second"]),
                ]
            elif config.mixture == "additive":
                mixed = config.alpha * token["first"] + (1 - config.alpha) * token["second"]
                made = [inner.multi_modal_projector(mixed)]
            else:
                made = [inner.multi_modal_projector(torch.cat(list(token.values()), dim=-1))]
            for one in made:
                embeddings[places.pop(0)] = one[0, 0]
    assert not places
    return model.lm_head(inner.language_model(inputs_embeds=embeddings[None]).last_hidden_state), inputs


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_model_is_its_slow_reference(kind):
    model, processor = mixture(kind, alpha=0.3)
    wanted, inputs = by_hand(model, processor, [noise(), noise(40, 90, seed=1)])
    assert torch.allclose(logits(model, inputs), wanted, atol=1e-5)


def test_a_single_mixture_is_transformers_llava_bit_for_bit():
    model, processor = mixture("single")
    config = tf.LlavaConfig(
        vision_config=model.config.vision_config, text_config=model.config.text_config,
        image_token_index=model.config.image_token_id, vision_feature_layer=-2,
    )  # fmt: skip
    llava = build(tf.LlavaForConditionalGeneration, config, seed=3)
    llava.load_state_dict(model.state_dict())
    inputs = batch(processor, [[noise()], []])
    assert torch.equal(logits(model, inputs), logits(llava, inputs))


def test_alpha_1_is_the_first_encoder_alone_bit_for_bit_and_never_runs_the_second():
    mixed, processor = mixture("additive", alpha=1.0)
    alone, _ = mixture("single", seed=5)
    alone.load_state_dict(only(mixed, alone))
    inputs = batch(processor, [[noise()], [noise(seed=1), noise(seed=2)]])
    mixed.model.second_vision_tower.register_forward_pre_hook(
        lambda *_: pytest.fail("the second encoder ran")
    )
    found = logits(mixed, inputs)
    del inputs["second_pixel_values"]
    assert torch.equal(found, logits(alone, inputs))


@pytest.mark.parametrize("norm", [False, True])
def test_alpha_0_is_the_second_encoder_alone_bit_for_bit_and_never_runs_the_first(norm):
    mixed, processor = mixture("additive", alpha=0.0, second_norm=norm)
    alone, _ = mixture("single", vision_config=SECOND["dinov2"], vision_layer=-1, vision_norm=norm, seed=5)
    renamed = {
        name.replace("second_vision_tower", "vision_tower"): value
        for name, value in mixed.state_dict().items()
        if "model.vision_tower" not in name
    }
    alone.load_state_dict(renamed)
    inputs = batch(processor, [[noise()], [noise(seed=1)]])
    mixed.model.vision_tower.register_forward_pre_hook(lambda *_: pytest.fail("the first encoder ran"))
    found = logits(mixed, inputs)
    inputs["pixel_values"] = inputs.pop("second_pixel_values")
    assert torch.equal(found, logits(alone, inputs))


def test_alpha_between_needs_both_and_is_neither():
    model, processor = mixture("additive", alpha=0.5)
    inputs = batch(processor, [[noise()]])
    found = {}
    for alpha in (0.0, 0.5, 1.0):
        model.config.alpha = alpha
        found[alpha] = logits(model, inputs)
    assert not torch.allclose(found[0.5], found[0.0], atol=1e-3)
    assert not torch.allclose(found[0.5], found[1.0], atol=1e-3)
    assert model.config.ssl_share == 0


# ------------------------------------------------------------------------------------ what is read of an encoder


@pytest.mark.parametrize("name", list(SECOND))
@torch.no_grad()
def test_each_encoder_gives_its_patches_in_reading_order_and_nothing_else(name):
    model, processor = mixture("concatenated", SECOND[name], second_layer=0)
    pixels = batch(processor, [[noise()]])
    before, grids = model.model.encoded(pixels["pixel_values"], pixels["second_pixel_values"])
    assert grids["second_vision_tower"] == (7, 7)
    for place in (0, 9, 48):
        changed = pixels["second_pixel_values"].clone()
        row, column = divmod(place, 7)
        changed[..., row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += 1
        after, _ = model.model.encoded(pixels["pixel_values"], changed)
        moved = (after["second_vision_tower"] != before["second_vision_tower"])[0].any(-1)
        assert moved.nonzero().flatten().tolist() == [place]
        assert torch.equal(after["vision_tower"], before["vision_tower"])


@pytest.mark.parametrize("name", list(SECOND))
@torch.no_grad()
def test_layer_and_norm_are_what_was_chosen(name):
    model, processor = mixture("concatenated", SECOND[name], second_layer=-1)
    encoder = model.model.second_vision_tower
    blocks = (
        encoder.layers
        if hasattr(encoder, "layers")
        else getattr(encoder.encoder, "layer", None) or encoder.encoder.layers
    )
    kept = []
    for block in blocks:
        block.register_forward_hook(
            lambda _m, _a, out: kept.append(out[0] if isinstance(out, tuple) else out)
        )
    inputs = batch(processor, [[noise()]])

    def read(layer, norm):
        kept.clear()
        model.config.second_layer, model.config.second_norm = layer, norm
        found, _ = model.model.encoded(inputs["pixel_values"], inputs["second_pixel_values"])
        return found["second_vision_tower"]

    norm = encoder.post_layernorm if hasattr(encoder, "post_layernorm") else encoder.layernorm
    assert torch.equal(read(2, False), kept[1][:, -49:])
    assert torch.equal(read(-1, False), kept[-1][:, -49:])
    assert torch.equal(read(-1, True), norm(kept[-1])[:, -49:])


@torch.no_grad()
def test_the_second_encoder_sees_its_own_numbers_or_the_firsts():
    for sees, name in (("own", "second_pixel_values"), ("first", "pixel_values")):
        model, processor = mixture("interleaved", second_sees=sees)
        inputs = batch(processor, [[noise()]])
        assert ("second_pixel_values" in inputs) == (sees == "own")
        taken = []
        model.model.second_vision_tower.register_forward_pre_hook(
            lambda _m, args, into=taken: into.append(args[0])
        )
        logits(model, inputs)
        assert torch.equal(taken[0], inputs[name])


@torch.no_grad()
def test_encoders_of_other_widths_grids_and_sizes_are_brought_to_one_grid():
    other = tower("vit", side=48, patch=16, hidden_size=24)
    for kind, tokens in (("interleaved", 98), ("concatenated", 49)):
        model, processor = mixture(kind, other)
        inputs = batch(processor, [[noise()]])
        assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == tokens
        features, grids = model.model.encoded(inputs["pixel_values"], inputs["second_pixel_values"])
        assert features["second_vision_tower"].shape == (1, 9, 24)
        assert grids == {"vision_tower": (7, 7), "second_vision_tower": (3, 3)}
        assert logits(model, inputs).isfinite().all()
    model, processor = mixture("interleaved", other, grid=[3, 3], resample="area")
    inputs = batch(processor, [[noise()]])
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 18
    features, grids = model.model.encoded(inputs["pixel_values"], inputs["second_pixel_values"])
    fed = model.model.fed(features, grids)
    assert torch.equal(fed["second_multi_modal_projector"], features["second_vision_tower"])


# ------------------------------------------------------------------------------------ standardising


@torch.no_grad()
def test_channel_statistics_must_be_set_are_used_and_travel_with_the_weights(tmp_path):
    model, processor = mixture("additive", standardise="per_channel")
    inputs = batch(processor, [[noise(seed=n)] for n in range(3)])
    with pytest.raises(UserError, match="holds no channel statistics"):
        logits(model, inputs)
    features, grids = model.model.encoded(inputs["pixel_values"], inputs["second_pixel_values"])
    model.set_channel_statistics({name: channel_statistics(some) for name, some in features.items()})
    model.config.alpha = 1.0
    fed = model.model.fed({"vision_tower": features["vision_tower"]}, grids)["multi_modal_projector"]
    assert torch.allclose(fed.mean((0, 1)), torch.zeros(32), atol=1e-4)
    assert torch.allclose(fed.std((0, 1), correction=0), torch.ones(32), atol=1e-3)
    model.config.alpha = 0.5
    model.save_pretrained(tmp_path)
    again = tf.AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert torch.equal(logits(again, inputs), logits(model, inputs))


def test_statistics_that_fit_no_encoder_are_refused():
    model, _ = mixture("additive", standardise="per_channel")
    some = channel_statistics(torch.randn(1, 5, 31))
    with pytest.raises(UserError, match="31 channels for an encoder of 32"):
        model.set_channel_statistics({"vision_tower": some})
    with pytest.raises(UserError, match="no encoder named 'third'"):
        model.set_channel_statistics({"third": some})
    with pytest.raises(UserError, match="statistics need 'per_channel'"):
        mixture("additive")[0].set_channel_statistics({"vision_tower": some})


# ------------------------------------------------------------------------------------ a model like any other


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_by_the_auto_classes_it_is_the_same(kind, tmp_path):
    model, processor = mixture(kind)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} <= {".json", ".safetensors", ".jinja"}
    again = tf.AutoModelForImageTextToText.from_pretrained(tmp_path)
    reader = tf.AutoProcessor.from_pretrained(tmp_path)
    pictures = [[noise()], [noise(30, 90, seed=1), noise(seed=2)]]
    first, second = batch(processor, pictures), batch(reader, pictures)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert torch.equal(logits(model, first), logits(again, second))


def test_tied_embeddings_stay_tied(tmp_path):
    model, _ = mixture("interleaved")
    text = {**model.config.text_config.to_dict(), "tie_word_embeddings": True}
    config = MixtureConfig(**{**model.config.to_dict(), "text_config": text})
    tied = build(MixtureForConditionalGeneration, config)
    tied.save_pretrained(tmp_path)
    again = tf.AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.language_model.embed_tokens.weight
    assert torch.equal(again.lm_head.weight, tied.model.language_model.embed_tokens.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_gets_as_many_image_tokens_as_its_pictures_make(kind):
    model, processor = mixture(kind)
    inputs = batch(processor, [[], [noise()], [noise(30, 90), noise(90, 30)]])
    each = 98 if kind == "interleaved" else 49
    assert (inputs["input_ids"] == model.config.image_token_id).sum(-1).tolist() == [0, each, 2 * each]
    assert len(inputs["pixel_values"]) == 3
    assert "pixel_values" not in batch(processor, [[]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_a_mixed_batch_is_what_it_is_alone(kind):
    model, processor = mixture(kind)
    pictures = [[], [noise()], [noise(30, 90, seed=1), noise(90, 30, seed=2)]]
    together = logits(model, batch(processor, pictures))
    for row, some in zip(together, pictures, strict=True):
        alone = logits(model, batch(processor, [some]))[0]
        assert torch.allclose(row[-len(alone) :], alone, atol=1e-4)


@pytest.mark.parametrize("kind", ["additive", "interleaved"])
def test_it_generates_the_same_with_and_without_a_cache_and_with_beams(kind):
    model, processor = mixture(kind)
    inputs = batch(processor, [[noise()], [noise(seed=1), noise(seed=2)], []])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 3}
    options["suppress_tokens"] = [model.config.image_token_id]  # untrained as it is, it might say <image>
    cached = model.generate(**inputs, **options)
    assert torch.equal(cached, model.generate(**inputs, **options, use_cache=False))
    start = inputs["input_ids"].shape[1]
    assert cached.shape[1] > start
    beams = model.generate(**inputs, **options, num_beams=2)
    assert torch.equal(beams[:, :start], inputs["input_ids"])


def test_eager_and_sdpa_agree():
    model, processor = mixture("interleaved")
    inputs = batch(processor, [[noise()], []])
    sdpa = logits(model, inputs)
    model.set_attn_implementation("eager")
    assert model.config.vision_config._attn_implementation == "eager"
    assert model.config.second_vision_config._attn_implementation == "eager"
    read = inputs["attention_mask"].bool()  # what padding gives is nobody's
    assert torch.allclose(logits(model, inputs)[read], sdpa[read], atol=1e-4)


# ------------------------------------------------------------------------------------ gradients


def moved(model, inputs, *, train=lambda name: True):
    """The parameters a step would move: those whose gradient is there and not zero."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(train(name))
    model.zero_grad()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}


def projector(name):
    return "multi_modal_projector" in name


@pytest.mark.parametrize("kind", KINDS)
def test_in_stage_1_gradients_reach_every_adapter_weight_and_nothing_else(kind):
    model, processor = mixture(kind)
    found = moved(model, batch(processor, [[], [noise()]]), train=projector)
    assert found == {name for name, _ in model.named_parameters() if projector(name)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_texts_alone_moves_the_language_model_and_no_adapter(kind):
    model, processor = mixture(kind)
    found = moved(model, batch(processor, [[], []]))
    assert found == {n for n, _ in model.named_parameters() if "language_model" in n or n == "lm_head.weight"}


def test_gradients_stop_at_the_layer_that_is_read_and_at_an_encoder_that_is_not_run():
    model, processor = mixture("interleaved", vision_layer=-2, second_layer=-1)
    found = moved(model, batch(processor, [[noise()]]))
    towers = {name for name in found if "vision_tower" in name}
    assert not any(".vision_tower.encoder.layers.2." in name or "post_layernorm" in name for name in towers)
    assert any(".vision_tower.encoder.layers.1." in name for name in towers)
    assert any("second_vision_tower.encoder.layer.2." in name for name in towers)
    assert not any("second_vision_tower.layernorm" in name for name in towers)
    for alpha, ran in ((1.0, "model.vision_tower"), (0.0, "model.second_vision_tower")):
        model, processor = mixture("additive", alpha=alpha)
        found = moved(model, batch(processor, [[noise()]]))
        assert {name.split(".")[1] for name in found if "vision_tower" in name} == {ran.split(".")[1]}


# ------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mixture": "single"}, "'single' takes no second encoder"),
        ({"alpha": 1.5}, "from 0 to 1, got 1.5"),
        ({"second_vision_config": tower("vit", hidden_size=48)}, "got 32 .* and 48"),
        ({"second_vision_config": None}, "every other mixture takes one"),
        ({"grid": [7]}, r"two numbers from 1, got \[7\]"),
        ({"second_layer": 4}, "second_layer 4: dinov2 has layers 0"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, says):
    model, _ = mixture("additive")
    with pytest.raises(UserError, match=says):
        MixtureConfig(**{**model.config.to_dict(), **fields})


def test_inputs_that_do_not_fit_are_refused():
    model, processor = mixture("interleaved")
    inputs = batch(processor, [[noise()]])
    with pytest.raises(UserError, match="98 image tokens, the images make 196"):
        model(**{**inputs, **{n: v.repeat(2, 1, 1, 1) for n, v in inputs.items() if "pixel" in n}})
    with pytest.raises(UserError, match="1 images in pixel_values and None in second_pixel_values"):
        model(**{name: value for name, value in inputs.items() if name != "second_pixel_values"})
    with pytest.raises(ValueError, match="total number of <image> tokens"):
        processor(text=["<image> <image>"], images=[noise()], return_tensors="pt")
