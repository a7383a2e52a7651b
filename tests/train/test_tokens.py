"""The zoo's tokenizer: one token for every word of the world, nothing lost, the same after saving."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from eyechart.core.errors import UserError
from eyechart.recipes.tokenizer import make_tokenizer
from eyechart.train.prompts import prompt
from eyechart.train.tokens import SPECIAL, ZooTokenizer, load_tokenizer, train_tokenizer
from eyechart.world.words import vocabulary

TEXTS = ["The red car is to the left of the tree.", "Is the mug full or empty? (a) full (b) empty"] * 3
WORDS = ["purple", "snowman", "A"]


@pytest.fixture(scope="module")
def small() -> ZooTokenizer:
    return train_tokenizer(TEXTS, WORDS)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eyechart.recipes.tokenizer.SCENES", 60)
        return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_words_and_common_pieces_are_one_token_with_their_space(small: ZooTokenizer) -> None:
    for word in [*WORDS, "red", "car", "full", "empty?"[:-1]]:
        assert len(small.tokenize(f"a {word}")) == 2, word


def test_a_word_is_never_split_though_no_merges_lead_to_it(small: ZooTokenizer) -> None:
    assert small.tokenize(" snowman snow")[0] == "Ġsnowman"
    assert len(small.tokenize(" snowmen")) > 1


def test_every_word_of_the_world_is_one_token(zoo: Path) -> None:
    tokenizer = load_tokenizer(zoo)
    assert len(tokenizer) <= 1024
    assert [word for word in vocabulary() if len(tokenizer.tokenize(f" {word}")) != 1] == []


def test_special_tokens_come_first_and_the_end_is_not_number_two(small: ZooTokenizer) -> None:
    assert small.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2, 3]
    assert (small.pad_token_id, small.bos_token_id, small.eos_token_id) == (0, 1, 3)


def test_texts_are_opened_and_closed(small: ZooTokenizer) -> None:
    ids = small("a purple car")["input_ids"]
    assert (ids[0], ids[-1], len(ids)) == (small.bos_token_id, small.eos_token_id, 5)


def test_the_place_of_an_image_is_one_token(small: ZooTokenizer) -> None:
    assert small.tokenize(prompt("red?", image=True)).count("<image>") == 1


@given(text=st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_text_is_given_back(text: str) -> None:
    tokenizer = _TRAINED
    if any(token in text for token in SPECIAL):
        return
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


_TRAINED = train_tokenizer(TEXTS, WORDS, size=330)


def test_a_saved_tokenizer_reads_the_same(zoo: Path) -> None:
    text = "USER: <image>\nIs the snowman red? A. yes zebra ASSISTANT: A</s>"
    first, second = load_tokenizer(zoo), AutoTokenizer.from_pretrained(zoo)
    assert first(text)["input_ids"] == second(text)["input_ids"]


def test_a_tokenizer_that_is_there_is_kept(zoo: Path) -> None:
    before = (zoo / "tokenizer.json").read_bytes()
    assert make_tokenizer(zoo, seed=9) == zoo
    assert (zoo / "tokenizer.json").read_bytes() == before


def test_a_tokenizer_of_another_world_is_refused(small: ZooTokenizer, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"splits .*rabbit.*: remove it"):
        make_tokenizer(tmp_path)


def test_the_size_is_kept_to() -> None:
    assert len(train_tokenizer(TEXTS, WORDS, size=270)) == 270


def test_what_cannot_be_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="'snow man' is no single word"):
        train_tokenizer(TEXTS, ["snow man"])
    with pytest.raises(ValueError, match="3 words do not fit into 262 tokens beside 260 fixed"):
        train_tokenizer(TEXTS, WORDS, size=262)


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
