"""The layout of prompts: what a model is trained on is, token for token, what the exam asks it."""

from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoTokenizer

from eyechart.core.errors import UserError
from eyechart.core.records import Prompt
from eyechart.models import load_vlm
from eyechart.models.untrained import tiny_tokenizer
from eyechart.recipes.forms import FORMS, SHARES, ask
from eyechart.train.export import export
from eyechart.train.prompts import CHAT_TEMPLATE, DESCRIBE, IMAGE, answered, chat_tokenizer, prompt, told
from eyechart.train.vlm import join_towers
from zoo_parts import save_small_clip, save_small_language, small_tokenizer

QUESTION = "Is the mug full or empty?"
SCENE = "the picture shows a red mug. the mug is full."
GREY = Image.new("RGB", (24, 24), (127, 127, 127))


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("prompts"), small_tokenizer()
    model, processor = join_towers(
        save_small_clip(folder / "clip", tokenizer), save_small_language(folder / "lm", tokenizer)
    )
    return load_vlm(str(export(model, folder / "llava", processor)), device="cpu")


def test_the_layout_is_llavas():
    assert prompt(QUESTION, image=True) == f"USER: <image>\n{QUESTION} ASSISTANT:"
    assert prompt(QUESTION, image=False) == f"USER: {QUESTION} ASSISTANT:"
    assert answered(QUESTION, "full", image=True) == f"USER: <image>\n{QUESTION} ASSISTANT: full</s>"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("image", [True, False])
def test_every_form_is_asked_as_it_was_trained(vlm, form, image):
    text, answers = ask(QUESTION, ("full", "empty"), form)
    text = text if image else told(SCENE, text)
    asked = Prompt(text=text, images=(GREY,) if image else ())
    assert vlm.render(asked) == prompt(text, image=image)
    trained = vlm.tokenizer(answered(text, answers[0], image=image)).input_ids
    fed = vlm.inputs([asked])["input_ids"][0].tolist()
    picture = vlm.tokenizer.convert_tokens_to_ids(IMAGE)
    assert fed.count(picture) == (4 if image else 0)
    once = [token for place, token in enumerate(fed) if token != picture or fed[place - 1] != picture]
    assert trained[: len(once)] == once
    answer = vlm.tokenizer(vlm.join(asked) + answers[0], add_special_tokens=False).input_ids
    assert trained[len(once) :] == [*answer, vlm.tokenizer.eos_token_id]


def test_a_description_is_asked_for_as_it_was_trained(vlm):
    assert vlm.render(Prompt(text=DESCRIBE, images=(GREY,))) == prompt(DESCRIBE, image=True)


def test_the_template_writes_out_a_whole_conversation(vlm):
    spoken = [
        {"role": "user", "content": [{"type": "text", "text": QUESTION}, {"type": "image"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "full"}]},
        {"role": "user", "content": "What color is it?"},
        {"role": "assistant", "content": "red"},
    ]
    expected = answered(QUESTION, "full", image=True) + answered("What color is it?", "red", image=False)
    for owner in (vlm.processor, vlm.tokenizer):
        assert owner.apply_chat_template(spoken, tokenize=False) == expected
    ids = vlm.tokenizer.apply_chat_template(spoken, tokenize=True)["input_ids"]
    assert ids == vlm.tokenizer(expected)["input_ids"]


def test_the_letter_form_is_the_exams_own_template():
    assert ask(QUESTION, ("full", "empty"), "letter") == (
        f"{QUESTION}\nA. full\nB. empty\nAnswer with the option's letter from the given choices directly.",
        ("A", "B"),
    )
    assert ask(QUESTION, ("full", "empty"), "word") == (QUESTION, ("full", "empty"))
    assert ask(QUESTION, ("full", "empty"), "mmvp")[1] == ("(a)", "(b)")
    assert ask(QUESTION, ("full", "empty"), "number")[1] == ("1", "2")
    assert set(SHARES) == set(FORMS)
    assert sum(SHARES.values()) == pytest.approx(1)


def test_no_other_form_is_guessed():
    with pytest.raises(UserError, match=r"no form of a question named 'lettre'. Did you mean 'letter'"):
        ask(QUESTION, ("full", "empty"), "lettre")


def test_a_tokenizer_for_asking_adds_nothing_and_leaves_the_other_as_it_was(tmp_path: Path):
    tokenizer = small_tokenizer()
    asking = chat_tokenizer(tokenizer)
    bare = tokenizer(QUESTION, add_special_tokens=False).input_ids
    assert tokenizer(QUESTION).input_ids == [tokenizer.bos_token_id, *bare, tokenizer.eos_token_id]
    assert asking(QUESTION).input_ids == bare
    asking.save_pretrained(tmp_path)
    stored = AutoTokenizer.from_pretrained(tmp_path)
    assert stored(QUESTION).input_ids == bare
    assert (stored.padding_side, stored.chat_template) == ("left", CHAT_TEMPLATE)


def test_a_tokenizer_without_a_token_for_pictures_is_refused():
    with pytest.raises(ValueError, match="has no token '<image>'"):
        chat_tokenizer(tiny_tokenizer())
