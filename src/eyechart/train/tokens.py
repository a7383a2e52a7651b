"""The zoo's one tokenizer: byte-level, with every word of the world as one token, for CLIP, language model and VLM."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from eyechart.core.errors import UserError

PAD, START, IMAGE, END = SPECIAL = ("<pad>", "<s>", "<image>", "</s>")
"""Tokens 0 to 3. The end is not token 2, at which transformers' CLIP would pool texts elsewhere than at their end."""

ZooTokenizer = PreTrainedTokenizerFast
"""What the recipes know the tokenizer as."""

_TOKENIZER: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast
_LOAD: Callable[[str], PreTrainedTokenizerFast] = PreTrainedTokenizerFast.from_pretrained


def train_tokenizer(
    texts: Iterable[str], words: Sequence[str] = (), *, size: int = 1024
) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `size` tokens that reads and gives back any text.

    Its tokens are the special ones, the 256 bytes, every word of `words` with a space before it, then the pieces
    (words with their space, numbers, marks) that `texts` hold most often, and byte-pair merges for what is rare. A
    piece that is a token is never split (`ignore_merges`, as in Llama 3's tokenizer).

    Texts are opened with `<s>` and closed with `</s>`, as CLIP's are.

    Args:
        texts: a sample of what the models will read and write.
        words: what must be one token in the middle of a text, such as every answer option.
        size: the largest number of tokens.

    Raises:
        ValueError: a word is no single piece, or there are more words than fit.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    reader = pre_tokenizers.ByteLevel(add_prefix_space=False)
    asked = [_piece(reader, word) for word in dict.fromkeys(words)]
    counts = Counter(piece for text in texts for piece, _ in reader.pre_tokenize_str(text))
    room = size - len(SPECIAL) - len(alphabet)
    if len(asked) > room:
        raise ValueError(f"{len(asked)} words do not fit into {size} tokens beside {size - room} fixed ones")
    common = [piece for piece, count in counts.most_common() if count > 1 and len(piece) > 1]
    whole = list(dict.fromkeys([*asked, *common]))[:room]
    merged, merges = _merges(counts, alphabet, room - len(whole))
    vocabulary = dict.fromkeys([*SPECIAL, *alphabet, *whole, *merged])
    tokenizer = Tokenizer(
        models.BPE(vocab={t: n for n, t in enumerate(vocabulary)}, merges=merges, ignore_merges=True)
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = reader, decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, SPECIAL.index(START)), (END, SPECIAL.index(END))]
    )
    return _TOKENIZER(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer that was saved in a folder.

    Raises:
        UserError: there is none.
    """
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"{folder} holds no tokenizer (no tokenizer.json)")
    return _LOAD(str(folder))


def _piece(reader: pre_tokenizers.ByteLevel, word: str) -> str:
    """The word with a space before it, as byte-level tokenizers write it."""
    pieces = reader.pre_tokenize_str(f" {word}")
    if len(pieces) != 1:
        raise ValueError(f"{word!r} is no single word: it falls into {[piece for piece, _ in pieces]}")
    return str(pieces[0][0])


def _merges(
    counts: Counter[str], alphabet: Sequence[str], room: int
) -> tuple[list[str], list[tuple[str, str]]]:
    """Up to `room` byte-pair merges learnt from the pieces, and the tokens they make."""
    if room < 1:
        return [], []
    learner = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + room, min_frequency=2, show_progress=False, initial_alphabet=list(alphabet)
    )
    learner.train_from_iterator(
        [piece for piece, count in counts.items() for _ in range(min(count, 9))], trainer
    )
    tokens = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    made = [token for token, _ in tokens if len(token) > 1]
    return made, _pairs(learner)


def _pairs(learner: Tokenizer) -> list[tuple[str, str]]:
    return [(first, second) for first, second in json.loads(learner.to_str())["model"]["merges"]]
