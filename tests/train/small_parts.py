"""A small CLIP and a small language model with one tokenizer, saved as the zoo's recipes save theirs."""

from pathlib import Path
from typing import Any

import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from eyechart.models.untrained import draw_weights

WORDS = (
    "USER ASSISTANT Is the mug cat full or empty facing left right Answer with option letter number from given choices "
    "directly A B C yes no red blue Describe picture Which way How many are there two three color of a on is and"
).split()
SPECIAL = ("<pad>", "<s>", "<image>", "</s>")


def small_tokenizer() -> Any:
    """Byte-level, each word and each word with its space one token, `<s>` and `</s>` round a text as CLIP wants it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [piece for word in WORDS for piece in (word, f"Ġ{word}") if len(piece) > 1]
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys([*SPECIAL, *alphabet, *pieces]))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    )
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        clean_up_tokenization_spaces=False,
    )


def save_small_clip(folder: Path, *, seed: int = 0, side: int = 24) -> Path:
    """A CLIP of width 16 at 24 pixels, patch 12: four patches."""
    tokenizer = small_tokenizer()
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = tf.CLIPConfig(
        text_config={
            **layers, "vocab_size": len(tokenizer), "max_position_embeddings": 64,
            "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**layers, "image_size": side, "patch_size": 12},
        projection_dim=16,
    )  # fmt: skip
    draw_weights(tf.CLIPModel(config), seed=seed).save_pretrained(folder)
    size = {"height": side, "width": side}
    images = tf.CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=size)
    tf.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def save_small_language(folder: Path, *, seed: int = 1) -> Path:
    """A Llama of width 16 with tied embeddings."""
    tokenizer = small_tokenizer()
    config = tf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    draw_weights(tf.LlamaForCausalLM(config), seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
