"""Token counts and label masks of conversations without an image, with one and with two, against slow references."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor

from eyechart.core.errors import UserError
from eyechart.models.untrained import TEMPLATE
from eyechart.train.collate import Tokeniser, Tokens, collate
from eyechart.train.packs import NO_TARGET
from eyechart.train.samples import Bad, Sample, Turn
from llava_parts import PATCHES, QUESTION, save_small_llava
from pictures import picture


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return AutoProcessor.from_pretrained(save_small_llava(tmp_path_factory.mktemp("llava")))


def tokeniser_of(processor, *, max_length=500):
    return Tokeniser(processor, processor.image_token_id, max_length=max_length)


def sample(*turns, images=0):
    made = tuple(Turn(role=role, parts=parts) for role, parts in turns)
    return Sample(id="a", file="f", row=0, turns=made, images=(Path("x"),) * images)


def asked(*images):
    return ("user", (*images, QUESTION))


TEXT = sample(asked(), ("assistant", ("full",)))
ONE = sample(asked(0), ("assistant", ("full",)), images=1)
TWO = sample(asked(0, 1), ("assistant", ("left",)), images=2)
TALK = sample(
    ("system", ("no",)), asked(0), ("assistant", ("full",)), asked(), ("assistant", ("right left",)), images=1
)


def answers(processor, tokens: Tokens) -> list[str]:
    """What is learnt, run by run, spelt out."""
    taught = tokens.labels != NO_TARGET
    borders = np.flatnonzero(np.diff(taught.astype(int), prepend=0, append=0)).reshape(-1, 2)
    return [processor.tokenizer.decode(tokens.labels[start:stop]) for start, stop in borders]


@pytest.mark.parametrize(
    ("one", "images", "said"),
    [
        (TEXT, 0, ["full</s>"]),
        (ONE, 1, ["full</s>"]),
        (TWO, 2, ["left</s>"]),
        (TALK, 1, ["full</s>", "right left</s>"]),
    ],
)
def test_tokens_are_the_processors_own_and_labels_are_on_the_answers(processor, one, images, said):
    tokens = tokeniser_of(processor)(one, [PATCHES] * images)
    messages = [
        {
            "role": turn.role,
            "content": [
                {"type": "image"} if isinstance(part, int) else {"type": "text", "text": part}
                for part in turn.parts
            ],
        }
        for turn in one.turns
    ]
    text = processor.apply_chat_template(messages, tokenize=False)
    shown = {"images": [picture(24, 24, seed=n) for n in range(images)]} if images else {}
    whole = processor(text=text, return_tensors="np", **shown)["input_ids"][0]
    assert tokens.ids.tolist() == whole.tolist()
    assert (tokens.ids == processor.image_token_id).sum() == PATCHES * images
    assert [one.strip() for one in answers(processor, tokens)] == said
    taught = tokens.labels != NO_TARGET
    assert (tokens.labels[taught] == tokens.ids[taught]).all()
    assert (tokens.images, tokens.cut, tokens.images_cut) == (images, 0, 0)


def test_the_prompt_is_what_a_model_is_asked_with(processor):
    """What comes before the first label is, token by token, what the model reads before it answers."""
    tokens = tokeniser_of(processor)(ONE, [PATCHES])
    first = int(np.flatnonzero(tokens.labels != NO_TARGET)[0])
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    whole = processor(text=text, images=[picture(24, 24, seed=0)], return_tensors="np")["input_ids"][0]
    assert tokens.ids[:first].tolist() == whole.tolist()


def test_where_a_template_closes_no_answer_the_end_token_is_learnt_all_the_same(tmp_path):
    processor = AutoProcessor.from_pretrained(save_small_llava(tmp_path, template=TEMPLATE))
    assert "</s>" not in processor.apply_chat_template(
        [{"role": "assistant", "content": [{"type": "text", "text": "full"}]}], tokenize=False
    )
    tokeniser = tokeniser_of(processor)
    assert tokeniser.text(TALK)[0].endswith(
        "full</s>USER: Is the mug full or empty? ASSISTANT: right left</s>"
    )
    tokens = tokeniser(TALK, [PATCHES])
    assert [one.strip() for one in answers(processor, tokens)] == ["full</s>", "right left</s>"]


def test_an_image_is_never_cut_apart_and_what_is_cut_is_counted(processor):
    talk = sample(
        asked(), ("assistant", ("full",)), asked(0), ("assistant", ("left",)), asked(1), ("assistant", ("no",)),
        images=2,
    )  # fmt: skip
    whole = tokeniser_of(processor)(talk, [PATCHES] * 2)
    places = np.flatnonzero(whole.ids == processor.image_token_id)
    seen = set()
    for longest in range(2, len(whole.ids) + 3):
        tokeniser = tokeniser_of(processor, max_length=longest)
        if not (whole.labels[:longest] != NO_TARGET).any():
            with pytest.raises(Bad, match="after cutting to max_length no token of an answer is left"):
                tokeniser(talk, [PATCHES] * 2)
            continue
        tokens = tokeniser(talk, [PATCHES] * 2)
        held = int((tokens.ids == processor.image_token_id).sum())
        assert held == PATCHES * tokens.images
        assert tokens.images + tokens.images_cut == 2
        assert len(tokens.ids) + tokens.cut == len(whole.ids)
        assert len(tokens.ids) <= longest
        assert tokens.ids.tolist() == whole.ids[: len(tokens.ids)].tolist()
        inside = places[0] < longest < places[PATCHES - 1] + 1
        assert len(tokens.ids) == (places[0] if inside else len(tokens.ids))
        seen.add(tokens.images)
    assert seen == {0, 1, 2}


LAST = "{% for m in messages %}{% if loop.last %}LAST {% endif %}{{ m['role'] }}:{{ m['content'][0]['text'] }}</s>{% endfor %}"


@pytest.mark.parametrize(
    ("one", "images", "template", "reason"),
    [
        (sample(("user", ("<image> no",)), ("assistant", ("full",))), 0, None, "mark_in_text"),
        (sample(("assistant", ("full",)), asked()), 0, None, "bad_turn"),
        (sample(asked(), ("assistant", ("full",)), asked()), 0, LAST, "unstable_template"),
        (ONE, 0, None, "image_count"),
    ],
)
def test_what_cannot_be_learnt_from_says_why(processor, one, images, template, reason):
    before = processor.chat_template
    try:
        processor.chat_template = template or before
        with pytest.raises(Bad) as bad:
            tokeniser_of(processor)(one, [PATCHES] * images)
    finally:
        processor.chat_template = before
    assert bad.value.reason == reason


def test_a_processor_without_a_template_is_refused(processor):
    before = processor.chat_template
    try:
        processor.chat_template = None
        processor.tokenizer.chat_template = None
        with pytest.raises(UserError, match="has no chat template"):
            tokeniser_of(processor)
    finally:
        processor.chat_template = before
    with pytest.raises(UserError, match="max_length is 1; it must be at least 2"):
        tokeniser_of(processor, max_length=1)


def test_a_batch_is_padded_on_the_right_and_holds_the_images_in_reading_order(processor):
    tokeniser = tokeniser_of(processor)
    rows = [tokeniser(one, [PATCHES] * len(one.images)) for one in (TEXT, TWO, ONE)]
    seen = [{"tower": torch.full((PATCHES, 3), float(number))} for number in range(3)]
    batch = collate(rows, seen, pad_id=tokeniser.pad_id)
    length = max(len(row.ids) for row in rows)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape == (3, length)
    for number, row in enumerate(rows):
        size = len(row.ids)
        assert batch["input_ids"][number].tolist() == row.ids.tolist() + [tokeniser.pad_id] * (length - size)
        assert batch["labels"][number].tolist() == row.labels.tolist() + [NO_TARGET] * (length - size)
        assert batch["attention_mask"][number].tolist() == [1] * size + [0] * (length - size)
    assert batch["features"]["tower"][:, 0, 0].tolist() == [0.0, 1.0, 2.0]
    assert collate(rows[:1], [], pad_id=0)["features"] == {}
    with pytest.raises(ValueError, match="2 images have features, 3 are read"):
        collate(rows, seen[:2], pad_id=0)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["full", "left and right", "A", "no no no"])),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_is_said_exactly_the_answers_are_learnt(processor, turns):
    """The slow reference: each answer's own tokens with the end token, in order, and nothing else."""
    made, count = [], 0
    for images, answer in turns:
        made += [asked(*range(count, count + images)), ("assistant", (answer,))]
        count += images
    tokens = tokeniser_of(processor)(sample(*made, images=count), [PATCHES] * count)
    wanted = [
        token
        for _, answer in turns
        for token in processor.tokenizer(f" {answer}</s>", add_special_tokens=False)["input_ids"]
    ]
    assert tokens.labels[tokens.labels != NO_TARGET].tolist() == wanted
    assert (tokens.ids == processor.image_token_id).sum() == PATCHES * count
