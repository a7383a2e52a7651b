"""Which tokens stand for a word: on made vocabularies, on CLIP's own byte-pair merges, Llama's way, and the zoo's."""

import gzip
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from eyechart import zoo
from eyechart.core.errors import UserError
from eyechart.locate.labels import (
    Collision,
    Label,
    LabelRule,
    Speller,
    collisions,
    label_of,
    labels_of,
    plural_of,
    speller_of,
)
from eyechart.train.tokens import load_tokenizer
from eyechart.world.kinds import KINDS, PARTS

LLAMA_PIECES = "▁a ▁head head ▁Head Head HEAD ▁heads ▁tail tails ▁light light ▁p aw ▁m uzz le".split()


def llama() -> Speller:
    """As Llama's tokenizer: a space is put before every text, and words are pieces with their space or without."""
    letters = sorted({letter for piece in LLAMA_PIECES for letter in piece} | {"▁", "\n"})
    vocabulary = {
        piece: number for number, piece in enumerate(dict.fromkeys(["<unk>", *letters, *LLAMA_PIECES]))
    }
    merges = []
    for piece in LLAMA_PIECES:  # left to right, each prefix made a piece
        for end in range(2, len(piece) + 1):
            merges.append((piece[: end - 1], piece[end - 1]))
            vocabulary.setdefault(piece[:end], len(vocabulary))
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=list(dict.fromkeys(merges)), unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return speller_of(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"))


@pytest.fixture(scope="module")
def clip(shared_data) -> Speller:
    """CLIP's published byte-pair merges: 49,408 tokens, words end with `</w>`."""
    path = shared_data / "clip-tokenizer-and-prompts" / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [tuple(line.split()) for line in lines]
    letters = list(_byte_letters().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={word: number for number, word in enumerate(words)},
            merges=merges,
            end_of_word_suffix="</w>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return speller_of(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def _byte_letters() -> dict[int, str]:
    """The printable letter of each byte, in the order of CLIP's vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def test_clip_words_are_whole_or_several_pieces(clip):
    ear = label_of("ear", clip)
    assert ear.spelled == ("ear</w>",)
    assert label_of("cat", clip).tokens == (2368,), "as in `a photo of a cat`: 320 1125 539 320 2368"
    with pytest.raises(
        UserError, match=r"'chainwheel' is 2 tokens, 'chain', 'wheel</w>', and the rule 'whole'"
    ):
        label_of("chainwheel", clip)
    mean = label_of("chainwheel", clip, rule=LabelRule.MEAN)
    assert mean.spelled == ("chain", "wheel</w>")
    assert label_of("chainwheel", clip, rule=LabelRule.FIRST).tokens == mean.tokens[:1]


def test_clip_names_of_several_words_are_all_their_pieces(clip):
    spelled = label_of("license plate", clip, rule=LabelRule.MEAN).spelled
    assert spelled == ("license</w>", "plate</w>")


def test_clip_knows_no_case_and_no_space_so_a_word_has_two_variants(clip):
    found = label_of("wheel", clip, rule=LabelRule.VARIANTS)
    assert found.spelled == ("wheel</w>", "wheels</w>")
    assert found.surfaces == (" wheel", "wheel", " Wheel", "Wheel", " WHEEL", "WHEEL", " wheels", "wheels")


def test_llama_like_words_are_read_behind_a_text_and_with_their_space():
    llama_like = llama()
    assert label_of("head", llama_like).spelled == ("▁head",)
    assert label_of("paw", llama_like, rule=LabelRule.MEAN).spelled == ("▁p", "aw")
    assert label_of("muzzle", llama_like, rule=LabelRule.MEAN).spelled == ("▁m", "uzz", "le")
    assert label_of("muzzle", llama_like, rule=LabelRule.FIRST).spelled == ("▁m",)
    with pytest.raises(
        UserError, match=r"'paw' is 2 tokens, '▁p', 'aw', .* take the rule 'first', 'mean', 'variants'"
    ):
        label_of("paw", llama_like)


def test_llama_like_surface_variants_differ_by_word():
    llama_like = llama()
    head = label_of("head", llama_like, rule=LabelRule.VARIANTS)
    assert set(head.spelled) == {"▁head", "head", "▁Head", "Head", "HEAD", "▁heads"}
    assert head.surfaces == (" head", "head", " Head", "Head", "HEAD", " heads")
    assert set(label_of("tail", llama_like, rule=LabelRule.VARIANTS).spelled) == {"▁tail", "tail", "tails"}
    with pytest.raises(
        UserError, match=r"'paw' .*'▁p', 'aw'.* and its variants 'paw', 'Paw', 'PAW', 'paws' are several"
    ):
        label_of("paw", llama_like, rule=LabelRule.VARIANTS)


def test_first_pieces_collide_and_it_is_said(caplog):
    llama_like = llama()
    with caplog.at_level(logging.WARNING):
        found = labels_of(["head", "headlight", "tail"], llama_like, rule=LabelRule.FIRST)
    (one,) = found.collisions
    assert (one.spelled, one.words) == ("▁head", ("head", "headlight"))
    assert "'head', 'headlight' share the token '▁head'" in caplog.text
    whole = labels_of(["head", "headlight", "tail", "head"], llama_like)
    assert whole.words == ("head", "tail")
    assert [one.word for one in whole.refused] == ["headlight"]
    assert "'▁head', 'light'" in whole.refused[0].why
    assert whole.collisions == ()


def test_what_a_vocabulary_cannot_write_is_refused():
    llama_like = llama()
    for rule in LabelRule:
        with pytest.raises(UserError, match="'ж'"):
            label_of("ж", llama_like, rule=rule)


@pytest.mark.parametrize("word", ["", " head", "head\n"])
def test_a_word_has_no_space_round_it(word):
    with pytest.raises(UserError, match="a label is a word without white space round it"):
        label_of(word, llama())


def test_a_tokenizer_that_joins_words_is_refused():
    joined = Speller(encode=lambda text: [len(text)], spell=str)
    with pytest.raises(UserError, match="this tokenizer joins words"):
        label_of("head", joined)


@pytest.mark.parametrize("name", ["llava-biased", "llava-told-all", "llava-permuted"])
def test_every_part_of_the_world_is_one_token_of_the_zoo(name):
    tokenizer = load_tokenizer(zoo.path(name))
    words = [part for owner, part in PARTS if owner in KINDS]
    found = labels_of(words, speller_of(tokenizer))
    assert found.refused == ()
    assert found.collisions == ()
    for label in found.labels:
        assert tokenizer.decode(list(label.tokens)) == f" {label.word}"
        assert tokenizer(f" {label.word}", add_special_tokens=False)["input_ids"] == list(label.tokens)


def test_plurals():
    words = ("wheel", "torch", "box", "body", "key", "hoof", "left foot", "leaf", "eye")
    assert [plural_of(word) for word in words] == [
        "wheels", "torches", "boxes", "bodies", "keys", "hooves", "left feet", "leaves", "eyes",
    ]  # fmt: skip
    own = label_of("head", llama(), rule=LabelRule.VARIANTS, plural=lambda word: "tails")
    assert "tails" in own.surfaces


@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4), min_size=1, max_size=6))
def test_collisions_are_what_looking_at_all_pairs_finds(tokens):
    labels = [
        Label(
            word=f"w{n}", rule=LabelRule.MEAN, tokens=tuple(some), spelled=tuple(str(token) for token in some)
        )
        for n, some in enumerate(tokens)
    ]
    slow = {(token, tuple(label.word for label in labels if token in label.tokens)) for token in range(13)}
    wanted = {
        Collision(token=token, spelled=str(token), words=words) for token, words in slow if len(words) > 1
    }
    assert set(collisions(labels)) == wanted


@given(st.text(alphabet="adehilstuw ", min_size=1, max_size=12).map(str.strip).filter(bool))
def test_pieces_are_those_of_the_word_inside_a_text(word):
    """Whatever the word, its pieces behind `a tail` are its pieces behind `a`: no choice of ours shows."""
    llama_like = llama_once()
    mean = label_of(word, llama_like, rule=LabelRule.MEAN)
    behind = list(llama_like.encode(f"a tail {word}"))
    assert behind[-len(mean.tokens) :] == list(mean.tokens)


_LLAMA: list[Speller] = []


def llama_once() -> Speller:
    """One tokenizer for all examples."""
    if not _LLAMA:
        _LLAMA.append(llama())
    return _LLAMA[0]
