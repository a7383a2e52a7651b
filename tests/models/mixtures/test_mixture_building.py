"""Mixtures put together from checkpoints: every part holds its checkpoint's weights, only adapters are new."""

import pytest
import torch
import transformers as tf

from checkpoint_parts import build, language
from eyechart import load_vlm
from eyechart.core.errors import UserError
from eyechart.core.records import Prompt
from eyechart.models.mixtures import EncoderChoice, build_mixture
from eyechart.models.untrained import tiny_tokenizer
from mixture_parts import batch, noise

CLIP, VIEWS = (
    EncoderChoice(source="zoo:clip-biased"),
    EncoderChoice(source="zoo:two-view", layer=-1, norm=True),
)


def same(module, weights):
    return all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


@pytest.mark.slow
def test_every_part_is_its_checkpoint_and_the_seed_draws_the_adapters():
    model, processor = build_mixture(CLIP, "zoo:lm", second=VIEWS)
    assert (model.config.mixture, model.config.grid, model.config.second_norm) == (
        "interleaved",
        [8, 8],
        True,
    )
    clip = load_vlm("zoo:llava-biased", device="cpu").model
    assert same(model.model.vision_tower, clip.model.vision_tower.state_dict())
    inputs = batch(processor, [[noise()]])
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 128
    again, _ = build_mixture(CLIP, "zoo:lm", second=VIEWS)
    other, _ = build_mixture(CLIP, "zoo:lm", second=VIEWS, seed=1)
    assert same(again, model.state_dict())
    moved = {n for n, value in other.state_dict().items() if not torch.equal(value, model.state_dict()[n])}
    assert moved == {n for n, _ in model.named_parameters() if "projector" in n and "weight" in n}
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


@pytest.mark.slow
def test_a_zoo_llava_rebuilt_as_a_mixture_answers_as_it_does(tmp_path):
    zoo = load_vlm("zoo:llava-biased", device="cpu")
    model, processor = build_mixture(CLIP, "zoo:lm")
    model.load_state_dict(zoo.model.state_dict())
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    mine = load_vlm(str(tmp_path), device="cpu")
    prompt = Prompt(text="Is there a cup?", images=(noise(96, 96),))
    wanted = zoo.option_scores(prompt, ["Yes", "No"])
    assert mine.option_scores(prompt, ["Yes", "No"]) == pytest.approx(wanted, rel=1e-6)
    assert mine.render(prompt) == zoo.render(prompt)


@pytest.mark.slow
def test_a_language_model_without_the_image_token_is_given_it(checkpoint_dir, tmp_path):
    text = tf.AutoModelForCausalLM.from_pretrained(tf_lm(tmp_path))
    size = text.config.vocab_size
    model, processor = build_mixture(
        EncoderChoice(source=str(checkpoint_dir("clip"))), str(tmp_path / "lm"), second=EncoderChoice(source=str(checkpoint_dir("dinov2"))), mixture="concatenated"
    )  # fmt: skip
    assert model.config.image_token_id == size
    assert model.lm_head.weight.shape[0] == model.config.text_config.vocab_size == size + 1
    assert model(**batch(processor, [[noise()]])).logits.isfinite().all()


def tf_lm(folder):
    """A Llama whose tokenizer knows no pictures."""
    tokenizer = tiny_tokenizer()
    config = tf.LlamaConfig(**{k: v for k, v in language("llama", tokenizer).items() if k != "model_type"})
    build(tf.LlamaForCausalLM, config).save_pretrained(folder / "lm")
    tokenizer.save_pretrained(folder / "lm")
    return folder / "lm"


@pytest.mark.slow
def test_a_saved_config_names_no_folder_of_its_makers_machine():
    model, _ = build_mixture(CLIP, "zoo:lm", second=VIEWS, mixture="additive", alpha=1.0)
    assert "zoo/models" not in model.config.to_json_string()
    assert model.config.active == ("first",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "text", "says"),
    [
        ("zoo:no-such", "zoo:lm", "no zoo model named 'no-such'"),
        ("zoo:lm", "zoo:lm", "'zoo:lm' is a LlamaModel .* expected a vision transformer"),
        ("zoo:mae", "zoo:mae", "'zoo:mae' gives no causal language model"),
    ],
)
def test_checkpoints_that_are_no_parts_are_refused(first, text, says):
    with pytest.raises(UserError, match=says):
        build_mixture(EncoderChoice(source=first), text)
