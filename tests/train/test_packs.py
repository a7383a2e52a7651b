"""Packed questions: nothing lost, nothing seen that should not be, and every batch a function of its step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from eyechart.train.packs import NO_TARGET, Example, PackedBatches, pack, tokenise, visible
from eyechart.train.prompts import answered, chat_tokenizer
from zoo_parts import small_tokenizer

TOKENIZER = chat_tokenizer(small_tokenizer())
FEATURES = np.random.default_rng(0).normal(size=(9, 4, 16)).astype(np.float16)
EXAMPLES = [
    Example(
        picture=number % 9,
        text="Is the mug full or empty?" + " no" * (number % 5),
        answer=("A", "full")[number % 2],
    )
    for number in range(50)
]
EXAMPLES += [
    Example(picture=None, text=f"the mug is full{'.' * n}\nIs it?", answer="full empty") for n in range(6)
]
EXAMPLES += [Example(picture=n, text="Is it?", answer="full", patches=(1, 3)[: 1 + n % 2]) for n in range(4)]
EXAMPLES += [Example(picture=n, text=None, answer="mug", patches=(0, 2)[: 1 + n % 2]) for n in range(4)]


def made(**options):
    given = {"examples": 8, "longest": 90, **options}
    return PackedBatches(
        tokenise(EXAMPLES, TOKENIZER),
        FEATURES,
        image_id=TOKENIZER.convert_tokens_to_ids("<image>"),
        pad_id=TOKENIZER.pad_token_id,
        **given,
    )


def texts_of(batch):
    """Each example of a batch as the whole text it stands for, with its picture's features, read back slowly."""
    found, shown, image = [], 0, TOKENIZER.convert_tokens_to_ids("<image>")
    for row in range(len(batch["input_ids"])):
        ids, mask = batch["input_ids"][row].tolist(), batch["mask"][row, 0]
        picture = None
        if patches := ids.count(image):
            picture, shown = batch["features"][shown : shown + patches].tolist(), shown + patches
        ends = [place for place, token in enumerate(ids) if token == TOKENIZER.eos_token_id]
        for end in ends:
            seen = mask[end].nonzero().flatten().tolist()
            assert batch["positions"][row][seen].tolist() == list(range(len(seen)))
            whole = TOKENIZER.decode([ids[place] for place in seen]).replace(
                "<image>" * (patches or 1), "<image>"
            )
            targets = [int(target) for place in seen if (target := batch["targets"][row, place]) != NO_TARGET]
            found.append((whole, TOKENIZER.decode(targets), str(picture)))
    assert shown == len(batch["features"])
    return found


def told(example):
    picture = None
    if example.picture is not None:
        picture = FEATURES[example.picture][list(example.patches) or slice(None)].tolist()
    whole = f"USER: <image> {example.answer}</s>"
    if example.text is not None:
        whole = answered(example.text, example.answer, image=example.picture is not None)
    return whole, f" {example.answer}</s>", str(picture)


def test_each_example_is_in_its_row_whole_and_sees_itself_and_its_picture_only():
    batches = made()
    assert sorted(texts_of(batches.collated(batches.rows))) == sorted(map(told, EXAMPLES))


def test_every_target_weighs_as_its_example_does():
    weighing = [replace(example, weight=1.0 + place) for place, example in enumerate(EXAMPLES)]
    segments = tokenise(weighing, TOKENIZER)
    batches = PackedBatches(
        segments, FEATURES, image_id=1, pad_id=TOKENIZER.pad_token_id, examples=8, longest=90
    )
    batch = batches.collated(batches.rows)
    asked = batch["targets"] != NO_TARGET
    found = sorted(batch["weights"][asked].tolist())
    lengths = np.diff(segments.starts) - (segments.answers - segments.starts[:-1])
    assert found == sorted(1.0 + place for place, length in enumerate(lengths) for _ in range(length))


def test_padding_and_prefix_see_no_question():
    batch = made().collated(made().rows)
    for row, ids in enumerate(batch["input_ids"].tolist()):
        image = [
            place for place, token in enumerate(ids) if token == TOKENIZER.convert_tokens_to_ids("<image>")
        ]
        if image:
            assert batch["mask"][row, 0, image[-1]].nonzero().flatten().tolist() == list(range(image[-1] + 1))
        if ids[-1] == TOKENIZER.pad_token_id:
            length = max(place for place, token in enumerate(ids) if token == TOKENIZER.eos_token_id) + 1
            assert batch["mask"][row, 0, length:, :length].sum() == 0
            assert (batch["targets"][row, length:] == NO_TARGET).all()
    assert batch["mask"].any(-1).all()


def test_an_epoch_holds_every_example_at_most_once_and_nearly_all():
    batches = made()
    epoch = len(batches._epoch(0))
    rows = [row for step in range(epoch) for row in batches.at(step)]
    assert len(rows) == len(set(rows))
    sizes = [sum(len(batches.rows[row]) for row in batches.at(step)) for step in range(epoch)]
    assert all(size >= 4 for size in sizes)
    assert sum(sizes) >= len(EXAMPLES) - 4
    assert sorted(rows) != [row for step in range(epoch, 2 * epoch) for row in batches.at(step)]


def test_a_batch_depends_on_its_step_alone():
    first, second = made(), made()
    late = second(37)
    for step in range(38):
        batch = first(step)
    assert {name: value.tolist() for name, value in batch.items()} == {n: v.tolist() for n, v in late.items()}
    assert first.sha256 == second.sha256
    assert made(seed=1).sha256 != first.sha256
    assert [made(seed=1).at(step) for step in range(3)] != [first.at(step) for step in range(3)]


def test_rows_are_as_full_as_the_limit_allows():
    segments = tokenise(EXAMPLES, TOKENIZER)
    lengths = np.diff(segments.starts)
    for row in pack(segments, patches=4, longest=90):
        assert len(set(segments.pictures[row].tolist())) == 1
        head = 0 if segments.pictures[row[0]] < 0 else len(segments.prefix) + 4
        assert len(row) == 1 or head + lengths[row].sum() <= 90
    assert sorted(np.concatenate(pack(segments, patches=4, longest=90)).tolist()) == list(
        range(len(EXAMPLES))
    )
    assert all(len(row) == 1 for row in pack(segments, patches=4, longest=1))


def test_visibility_on_a_row_written_out():
    seen = visible(torch.tensor([[0, 0, 1, 2, 2, -1]]))[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(ValueError, match="0 examples"):
        tokenise([], TOKENIZER)
    with pytest.raises(ValueError, match="batches of 99 out of 64"):
        made(examples=99)
    with pytest.raises(ValueError, match="speaks of picture 8, there are 3"):
        PackedBatches(tokenise(EXAMPLES, TOKENIZER), FEATURES[:3], image_id=2, pad_id=0, examples=8)


def test_an_answer_to_nothing_needs_the_patches_that_it_follows():
    for given in ({"picture": None}, {"picture": 3}, {"picture": None, "patches": (1,)}):
        with pytest.raises(ValueError, match="the patches that its answer follows have to be named"):
            tokenise([Example(text=None, answer="full", **given)], TOKENIZER)


def test_an_answer_that_melts_into_the_prompt_is_refused():
    signs = sorted(set("USER: Is it? ASSISTANT: full"))
    vocabulary = {token: place for place, token in enumerate(["<pad>", "<image>", "</s>", *signs, ": "])}
    letters = Tokenizer(models.BPE(vocab=vocabulary, merges=[(":", " ")]))
    letters.add_special_tokens(["<pad>", "<image>", "</s>"])
    greedy = PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="<pad>", eos_token="</s>")
    with pytest.raises(ValueError, match="answer 'full' melt into one token in 'Is it"):
        tokenise([Example(picture=None, text="Is it?", answer="full")], greedy)
