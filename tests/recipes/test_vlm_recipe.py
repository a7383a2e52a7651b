"""The VLM's recipe from scenes to checkpoint, at a small size: what is asked, what is stored, and that it can be resumed."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.core.records import Item, Prompt
from eyechart.models import load_vlm
from eyechart.recipes import vlm as recipe
from eyechart.recipes.forms import FORMS, LABEL_SHARES, ask
from eyechart.recipes.vlm import (
    ANSWER_WEIGHT,
    CAPTION_SHARE,
    STAGES,
    TOLD_SHARE,
    captions,
    choose_questions,
    examples,
    rehearsals,
    train_vlm,
)
from eyechart.score import build_prompt, grade_reply
from eyechart.train.loop import Settings
from eyechart.train.packs import Example
from eyechart.train.prompts import DESCRIBE
from eyechart.train.prompts import told as asked_of
from eyechart.world.captions import told
from eyechart.world.facts import PATTERNS
from eyechart.world.sets import load_set, render_set
from eyechart.world.sets_plan import SetPlan
from zoo_parts import save_small_clip, save_small_language, small_tokenizer

SHORT = Settings(
    max_steps=4,
    per_device_train_batch_size=12,
    learning_rate=0.01,
    warmup_steps=1,
    logging_steps=1,
    save_steps=2,
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A folder with rendered scenes, a CLIP and a language model."""
    folder, tokenizer = tmp_path_factory.mktemp("zoo"), small_tokenizer()
    render_set(folder / "scenes", SetPlan(split="train", scenes=60), size=36, workers=1)
    render_set(folder / "maps", SetPlan(split="train", scenes=30), size=36, workers=1, maps=True)
    save_small_clip(folder / "zoo" / "clip-biased", tokenizer, side=36)
    save_small_language(folder / "zoo" / "lm", tokenizer)
    return folder


@pytest.fixture(scope="module")
def facts(zoo):
    return [scene.facts for scene in load_set(zoo / "scenes").scenes]


def trained(zoo, work, *, name="llava-biased", report=None):
    return train_vlm(
        scenes=zoo / "scenes", maps=zoo / "maps", per_pattern=8, out=zoo / "zoo", work=zoo / work, name=name,
        stages=dict.fromkeys(STAGES, SHORT), report=report,
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(zoo):
    return trained(zoo, "work")


@pytest.mark.slow
def test_the_checkpoint_is_a_vlm_like_any_other(checkpoint, zoo):
    assert "_name_or_path" not in (checkpoint / "config.json").read_text()
    vlm = load_vlm(str(checkpoint), device="cpu")
    asked = [
        Prompt(text="Is the mug full or empty?", images=(Image.new("RGB", (36, 36)),)),
        Prompt(text="Is it?"),
    ]
    assert len(vlm.generate(asked, max_new_tokens=3)) == 2
    assert vlm.trained
    assert vlm.cannot == {}
    record = json.loads((checkpoint / "training.json").read_text())
    assert set(record["questions"]) == set(PATTERNS)
    assert max(record["questions"].values()) == 8
    assert record["rates"] == "biased"
    assert str(zoo) not in (checkpoint / "training.json").read_text()


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_the_unbroken_one(checkpoint, zoo):
    for stage, step in (("features", 60), ("train", 3)):

        def kill(name, done, whole, stage=stage, step=step):
            if (name, done) == (stage, step):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            trained(zoo, "broken", name="broken", report=kill)
    again = trained(zoo, "broken", name="broken")
    assert (again / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_tower_that_changed_is_never_stored(zoo, monkeypatch):
    def careless(taught, *args, **kwargs):
        taught.whole.model.vision_tower.get_parameter("post_layernorm.weight").data.add_(1.0)

    monkeypatch.setattr(recipe, "fit", careless)
    with pytest.raises(RuntimeError, match=r"the frozen vision tower has changed: it was [0-9a-f]{64}"):
        trained(zoo, "careless", name="careless")
    assert not (zoo / "zoo" / "careless").exists()


def test_only_known_caption_rates_have_a_clip(zoo):
    with pytest.raises(UserError, match="no set of caption rates named 'bias'"):
        train_vlm("bias", scenes=zoo / "scenes", out=zoo / "zoo", work=zoo / "work")


def test_maps_of_other_scenes_are_refused(zoo):
    render_set(zoo / "other", SetPlan(split="train", scenes=3, seed=9), size=36, workers=1, maps=True)
    with pytest.raises(UserError, match="other does not hold the first scenes of"):
        train_vlm(
            scenes=zoo / "scenes", maps=zoo / "other", per_pattern=8, out=zoo / "zoo", work=zoo / "others",
            stages=dict.fromkeys(STAGES, SHORT),
        )  # fmt: skip


def test_questions_keep_to_their_number_and_a_picture_has_one_of_a_pattern(facts):
    asked = choose_questions(facts, 8, 0)
    counts = Counter(question.pattern for _, question in asked)
    assert set(counts) == set(PATTERNS)
    assert max(counts.values()) == 8
    assert max(Counter((place, question.pattern) for place, question in asked).values()) == 1
    families = Counter(question.family for _, question in choose_questions(facts, 60, 0))
    assert abs(families["part"] - families["with"]) <= 4
    assert choose_questions(facts, 8, 0) == asked != choose_questions(facts, 8, 1)


def test_every_question_is_asked_on_its_picture_and_answered_in_a_word(facts):
    asked = choose_questions(facts, 60, 0)
    made = examples(asked, 0, labels=False)
    for (place, question), one in zip(asked, made, strict=True):
        assert (one.picture, one.text, one.answer) == (place, question.text, question.truth)
        assert one.weight == ANSWER_WEIGHT


def test_with_labelled_options_it_is_answered_by_the_right_option_which_the_exam_reads(facts):
    asked = choose_questions(facts, 60, 0)
    made = examples(asked, 0, labels=True)
    seen = Counter()
    for (place, question), one in zip(asked, made, strict=True):
        forms = {ask(question.text, question.options, form)[0]: form for form in LABEL_SHARES}
        assert (one.picture, one.answer) == (place, question.truth)
        assert reads(question, forms[one.text], one.answer) == question.answer
        seen[forms[one.text]] += 1
    assert set(seen) == set(LABEL_SHARES)
    assert made == examples(asked, 0, labels=True) != examples(asked, 1, labels=True)


def reads(question, form, reply):
    """The option that the exam's own reader finds in a reply."""
    item = Item(
        id="", pair_id="", question=question.text, options=question.options, answer=question.answer,
        image=Path(), image_sha256="",
    )  # fmt: skip
    return grade_reply(item, reply, build_prompt(item, form).labels).choice


def test_stages_go_from_captions_to_words_to_options(facts):
    asked = choose_questions(facts, 60, 0)
    named = [
        [Example(picture=0, text=None, answer="wheel", patches=(n,)) for n in range(count)]
        for count in (7, 3)
    ]
    taught = recipe._taught(facts, asked, named, 0)
    assert {stage: sum(one.text is None for one in read) for stage, read in taught.items()} == {
        "projector": 7, "captions": 3, "words": 3, "options": 3,
    }  # fmt: skip
    assert list(taught) == list(STAGES)
    described = {stage: sum(one.text == DESCRIBE for one in read) for stage, read in taught.items()}
    some = round(CAPTION_SHARE * len(facts))
    assert described == {"projector": some, "captions": 60, "words": some, "options": some}
    on_pictures = {
        stage: [one for one in read if one.picture is not None and one.text not in (DESCRIBE, None)]
        for stage, read in taught.items()
    }
    assert on_pictures["projector"] == on_pictures["captions"] == []
    assert on_pictures["words"] == examples(asked, 0, labels=False)
    assert on_pictures["options"] == on_pictures["words"] + examples(asked, 0, labels=True)


def test_rehearsals_are_questions_on_scenes_told_in_words(facts):
    asked = choose_questions(facts, 60, 0)
    made = rehearsals(facts, asked, 0)
    known = {
        (asked_of(told(facts[place]), ask(question.text, question.options, form)[0]), question.truth)
        for place, question in asked
        for form in FORMS
    }
    assert len(made) == round(TOLD_SHARE * len(asked))
    assert all(one.picture is None for one in made)
    assert {(one.text, one.answer) for one in made} <= known
    assert made == rehearsals(facts, asked, 0) != rehearsals(facts, asked, 1)


def test_every_picture_is_described(facts):
    described = captions(facts, 0)
    assert [one.picture for one in described] == list(range(60))
    assert {one.text for one in described} == {DESCRIBE}
    assert all(known.kind in one.answer for known, one in zip(facts, described, strict=True))
