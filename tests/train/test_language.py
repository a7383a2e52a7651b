"""The language model: rows are the chat layout, the loss is that of the slow one, and training teaches to copy."""

import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eyechart.recipes import language_model as recipe
from eyechart.train.language import (
    DialogueReader,
    LanguageShape,
    answers_right,
    export_language_model,
    language_objective,
    make_language_model,
    perplexity,
    token_weights,
)
from eyechart.train.loop import Settings, fit
from eyechart.train.prompts import chat_tokenizer
from eyechart.train.tokens import ZooTokenizer, train_tokenizer
from eyechart.world.facts import PATTERNS
from eyechart.world.words import vocabulary

SMALL = LanguageShape(hidden_size=32, intermediate_size=64, num_hidden_layers=2)
TURNS = [("a red car\nwhat color?", "red"), ("A. car\nB. mug", "A"), ("is it red?", "yes")]


@pytest.fixture(scope="module")
def tokenizer() -> ZooTokenizer:
    return train_tokenizer([text for turn in TURNS for text in turn] * 3, vocabulary())


def model_of(tokenizer: ZooTokenizer):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return make_language_model(tokenizer, SMALL)


def test_a_row_is_what_the_chat_template_makes(tokenizer: ZooTokenizer) -> None:
    batch = DialogueReader(tokenizer, length=90)([TURNS])
    messages = [
        {"role": role, "content": text}
        for said, answer in TURNS
        for role, text in (("user", said), ("assistant", answer))
    ]
    expected = chat_tokenizer(tokenizer).apply_chat_template(messages, return_dict=False)
    ids = batch["input_ids"][0].tolist()
    assert ids == expected
    longer = DialogueReader(tokenizer, length=90)([TURNS, TURNS[:1]])["input_ids"][1].tolist()
    shorter = DialogueReader(tokenizer, length=90)([TURNS[:1]])["input_ids"][0].tolist()
    assert longer == shorter + [tokenizer.pad_token_id] * (len(expected) - len(shorter))


def test_answers_are_marked_with_their_end(tokenizer: ZooTokenizer) -> None:
    batch = DialogueReader(tokenizer, length=90)([TURNS])
    marked = batch["input_ids"][0][batch["answers"][0] > 0]
    assert tokenizer.decode(marked) == " red</s> A</s> yes</s>"


def test_a_turn_that_does_not_fit_is_passed_over(tokenizer: ZooTokenizer) -> None:
    whole = DialogueReader(tokenizer, length=99)
    lengths = [int((whole([[turn]])["input_ids"] != 0).sum()) for turn in TURNS]
    assert lengths[2] < lengths[1]
    batch = DialogueReader(tokenizer, length=lengths[0] + lengths[2])([TURNS])
    assert tokenizer.decode(batch["input_ids"][0][batch["answers"][0] > 0]) == " red</s> yes</s>"
    with pytest.raises(ValueError, match=f"{lengths[0]} tokens do not fit into a row of {lengths[0] - 1}"):
        DialogueReader(tokenizer, length=lengths[0] - 1)([TURNS])


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_the_loss_is_the_slow_weighted_mean(weight: float, tokenizer: ZooTokenizer) -> None:
    model = model_of(tokenizer).eval()
    batch = DialogueReader(tokenizer, length=90)([TURNS, TURNS[:1]])
    total = weights = 0.0
    for row, marks in zip(batch["input_ids"].tolist(), batch["answers"].tolist(), strict=True):
        row = [token for token in row if token != tokenizer.pad_token_id]
        for place in range(1, len(row)):
            with torch.no_grad():
                said = model(input_ids=torch.tensor([row[:place]])).logits[0, -1].log_softmax(-1)
            counts = weight if marks[place] else 1.0
            total, weights = total - counts * said[row[place]].item(), weights + counts
    loss = language_objective(pad_id=tokenizer.pad_token_id, answer_weight=weight)(model, batch)
    assert loss.item() == pytest.approx(total / weights, rel=1e-4)


def test_padding_has_no_weight() -> None:
    ids, answers = torch.tensor([[5, 6, 7, 0]]), torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert token_weights(ids, answers, pad_id=0, answer_weight=3.0).tolist() == [[1.0, 3.0, 1.0, 0.0]]


@pytest.fixture(scope="module")
def trained(tokenizer: ZooTokenizer, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    read = DialogueReader(tokenizer, length=24)

    def batches(step: int) -> dict[str, torch.Tensor]:
        rng = random.Random(step)
        return read([[(rng.choice(["red", "blue"]), rng.choice(["yes", "yes", "yes"]))] for _ in range(8)])

    model = model_of(tokenizer)
    settings = Settings(
        max_steps=60, per_device_train_batch_size=8, learning_rate=1e-2, warmup_steps=5, save_steps=60
    )
    fit(model, language_objective(pad_id=0), batches, settings, tmp_path_factory.mktemp("lm"))
    return model, [batches(1000), batches(1001)]


def test_perplexity_stands_beside_that_of_single_tokens(trained) -> None:  # type: ignore[no-untyped-def]
    model, batches = trained
    own, unigram = perplexity(model, batches, pad_id=0)
    tokens = torch.cat([batch["input_ids"][:, 1:].flatten() for batch in batches])
    tokens = tokens[tokens != 0]
    entropy = sum(
        -share * math.log(share) for share in (tokens.bincount() / len(tokens)).tolist() if share > 0
    )
    assert unigram == pytest.approx(math.exp(entropy), rel=1e-4)
    assert 1 < own < unigram / 3


def test_right_answers_are_counted_whole(trained, tokenizer: ZooTokenizer) -> None:  # type: ignore[no-untyped-def]
    model, batches = trained
    assert answers_right(model, batches[0]) == (8, 8)
    read = DialogueReader(tokenizer, length=90)
    mixed = read([[("red", "yes"), ("blue", "no"), ("red", "yes")], [("blue", "purple snowman")]])
    right = []
    for row, marks in zip(mixed["input_ids"].tolist(), mixed["answers"].tolist(), strict=True):
        for place in range(1, len(row)):
            if marks[place]:
                right += [True] if not marks[place - 1] else []
                right[-1] &= (
                    int(model(input_ids=torch.tensor([row[:place]])).logits[0, -1].argmax()) == row[place]
                )
    assert answers_right(model, mixed) == (sum(right), 4)
    assert 1 <= sum(right) <= 2


def test_plain_transformers_loads_and_asks_it(trained, tokenizer: ZooTokenizer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model, _ = trained
    export_language_model(model, tokenizer, tmp_path)
    loaded, words = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    asked = words.apply_chat_template(
        [{"role": "user", "content": "red"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    made = loaded.generate(**asked, max_new_tokens=4, do_sample=False)
    assert words.decode(made[0, asked["input_ids"].shape[1] :], skip_special_tokens=True) == " yes"


def test_the_recipes_dialogues_begin_with_a_scene_and_follow_from_the_step(tokenizer: ZooTokenizer) -> None:
    first = recipe.dialogue(random.Random(4))
    assert first == recipe.dialogue(random.Random(4))
    assert first[0][0].count("\n") >= 1
    assert all(answer for _, answer in first)
    batches = recipe.dialogues(tokenizer, rows=3, seed=0)
    assert torch.equal(batches(7)["input_ids"], batches(7)["input_ids"])
    assert not torch.equal(batches(7)["input_ids"], batches(8)["input_ids"])


def test_the_default_model_is_deep_enough_for_the_lens(tokenizer: ZooTokenizer) -> None:
    model = make_language_model(tokenizer)
    assert len(model.model.layers) >= 8
    assert model.config.tie_word_embeddings


def test_short_dialogues_keep_what_the_question_is_about() -> None:
    scene = ["the picture shows a red car", "the wheel of the car is blue", "the camera is low"]
    assert recipe.telling(scene, "Which color is the wheel? blue green") == scene[1:2]
    assert recipe.telling(scene, "Is it so? yes no") == scene
    few, many = (
        [len(recipe.short_dialogue(random.Random(seed), labels=0.0, others=more)[0][0]) for seed in range(60)]
        for more in (0.0, 1.0)
    )
    assert all(short <= long for short, long in zip(few, many, strict=True))
    assert sum(many) > 1.2 * sum(few)


def test_a_label_is_often_asked_for_after_the_word() -> None:
    twice = 0
    for seed in range(200):
        turns = recipe.short_dialogue(random.Random(seed), labels=1.0, others=0.0)
        assert len(turns) in (1, 2)
        if len(turns) == 2:
            (_, word), (labelled, label) = turns
            assert labelled.count(word) >= 1
            assert label.strip("()") in ("A", "B", "1", "2", "a", "b")
            twice += 1
    assert 30 < twice < 90


def test_a_drill_tells_the_answer_and_asks_for_its_label() -> None:
    for seed in range(40):
        ((text, label),) = recipe.drill(random.Random(seed))
        told, *lines = text.split("\n")
        options = [line for line in lines if label in line and told in line]
        assert len(options) == 1, text


def test_every_pattern_is_asked_as_often() -> None:
    counts = Counter(recipe.asked_scene(random.Random(seed))[1].pattern for seed in range(450))
    assert set(counts) == set(PATTERNS)
    assert all(abs(count - 50) < 4 * 50**0.5 for count in counts.values())


def test_an_inquiry_asks_a_whole_scene_for_many_facts_in_words() -> None:
    asked = [recipe.inquiry(random.Random(seed)) for seed in range(60)]
    assert max(len(turns) for turns in asked) == recipe.INQUIRED
    assert sum(len(turns) for turns in asked) > 60 * 4
    for turns in asked:
        scene, _, first = turns[0][0].partition("\n")
        assert scene.endswith(".")
        texts = [first, *(text for text, _ in turns[1:])]
        assert len(set(texts)) == len(texts)
        assert all("\n" not in text for text in texts)
        assert all(answer.isalpha() or len(answer.split()) > 1 for _, answer in turns)


def test_steps_come_in_turns_of_three_and_scenes_grow(tokenizer: ZooTokenizer) -> None:
    growing = recipe.dialogues(tokenizer, rows=8, seed=0, growing=10)
    whole = recipe.dialogues(tokenizer, rows=8, seed=0)
    drilled, single, early, inquired, short, late, dialogue = (
        int((growing(step)["answers"].diff() > 0).sum()) for step in (0, 1, 2, 4, 8, 9, 10)
    )
    assert drilled == late == 8
    assert all(8 <= few <= 16 for few in (single, early, short))
    assert inquired > 24
    assert dialogue > 16
    assert torch.equal(growing(10)["input_ids"], whole(10)["input_ids"])
