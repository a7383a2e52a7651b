"""Training on features: what is fed, projected and put into the text is the model's own pass on pixels, number for number."""

import pytest
import torch

from checkpoint_vlms import llava
from eyechart.core.errors import UserError
from eyechart.models.vlms.feeding import Feeding, embedded, feeding_of
from mixture_parts import KINDS, SECOND, batch, mixture, noise

MODELS = {
    "llava": llava,
    **{kind: lambda kind=kind: mixture(kind) for kind in KINDS},
    "first-sees": lambda: mixture("interleaved", second_sees="first"),
    "alpha-1": lambda: mixture("additive", alpha=1.0),
    "alpha-0": lambda: mixture("additive", alpha=0.0),
    "mae": lambda: mixture("concatenated", SECOND["mae"], second_norm=True),
}


def stacked(feeding, pictures):
    rows = feeding.features(pictures)
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("name", list(MODELS))
def test_a_step_from_features_is_the_models_own_pass_bit_for_bit(name):
    model, processor = MODELS[name]()
    feeding = feeding_of(model, processor)
    assert isinstance(feeding, Feeding)
    pictures = [[noise()], [], [noise(30, 90, seed=1), noise(seed=2)]]
    inputs = batch(processor, pictures)
    features = stacked(feeding, [one for some in pictures for one in some])
    assert features.keys() == feeding.encoders.keys()
    fed = embedded(model, inputs["input_ids"], feeding.image_token_id, feeding.project(features))
    found = model(inputs_embeds=fed, attention_mask=inputs["attention_mask"]).logits
    assert torch.equal(found, model(**inputs).logits)


@pytest.mark.parametrize("name", list(MODELS))
def test_features_carry_no_gradient_and_project_gives_adapters_theirs(name):
    model, processor = MODELS[name]()
    feeding = feeding_of(model, processor)
    features = stacked(feeding, [noise()])
    assert not any(some.requires_grad for some in features.values())
    feeding.project(features).square().sum().backward()
    moved = {id(p) for p in model.parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved == {id(p) for one in feeding.adapters.values() for p in one.parameters()}


@pytest.mark.parametrize("name", list(MODELS))
def test_parts_are_the_models_own_and_tokens_are_as_many_as_projected(name):
    model, processor = MODELS[name]()
    feeding = feeding_of(model, processor)
    own = {id(p) for p in model.parameters()}
    parts = [*feeding.encoders.values(), *feeding.adapters.values(), feeding.language]
    held = [id(p) for one in parts for p in one.parameters()]
    assert set(held) <= own
    assert len(held) == len(set(held)), "a parameter belongs to one part"
    assert feeding.tokens(noise(200, 30)) == feeding.project(stacked(feeding, [noise()])).shape[1]
    assert feeding.image_token_id == model.config.image_token_id


@pytest.mark.parametrize("kind", ["llava", "interleaved"])
def test_features_of_a_model_in_training_are_free_of_dropout_and_leave_its_mode_alone(kind):
    model, processor = MODELS[kind]()
    feeding = feeding_of(model, processor)
    for module in feeding.encoders["vision_tower"].modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.5
    wanted = stacked(feeding, [noise()])
    model.train()
    assert all(torch.equal(some, wanted[name]) for name, some in stacked(feeding, [noise()]).items())
    assert all(module.training for module in model.modules())
    pixels = processor.image_processor([noise()], return_tensors="pt")["pixel_values"]
    noisy = [feeding.encoders["vision_tower"](pixels).last_hidden_state for _ in range(2)]
    assert not torch.equal(*noisy), "the dropout is there"


def test_a_batch_of_texts_has_no_tokens_and_other_numbers_are_refused():
    model, processor = mixture("interleaved")
    feeding = feeding_of(model, processor)
    texts = batch(processor, [[], []])["input_ids"]
    assert torch.equal(
        embedded(model, texts, feeding.image_token_id, None), model.get_input_embeddings()(texts)
    )
    with pytest.raises(UserError, match="0 image positions for 98 projected tokens"):
        embedded(model, texts, feeding.image_token_id, feeding.project(stacked(feeding, [noise()])))


def test_another_model_is_refused_by_name():
    with pytest.raises(UserError, match=r"Linear cannot be fed .* LlavaForConditionalGeneration"):
        feeding_of(torch.nn.Linear(1, 1), None)
