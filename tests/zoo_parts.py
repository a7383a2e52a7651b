"""A small CLIP and a small language model of random weights with one tokenizer, stored as the zoo's recipes do."""

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from eyechart.models.untrained import draw_weights
from eyechart.train.contrastive import ClipShape, export_clip, make_clip
from eyechart.train.language import LanguageShape, export_language_model, make_language_model
from eyechart.train.prompts import DESCRIBE, answered
from eyechart.train.tokens import train_tokenizer
from eyechart.train.towers import TowerShape, export_tower, make_tower

SAID = (
    "Is the mug full or empty?\nA. full\nB. empty\nAnswer with the option's letter from the given choices directly.",
    "Which way is the cat facing: left or right?",
    DESCRIBE,
)
WORDS = ("full", "empty", "left", "right", "yes", "no", "A", "B", "1", "2", "ASSISTANT")


def small_tokenizer() -> PreTrainedTokenizerFast:
    """The zoo's tokenizer with few words."""
    return train_tokenizer([answered(text, "A", image=True) for text in SAID] * 2, WORDS, size=400)


def save_small_clip(
    folder: Path, tokenizer: PreTrainedTokenizerFast, *, side: int = 24, seed: int = 0
) -> Path:
    """Width 16, patches of 12."""
    shape = ClipShape(
        image_size=side,
        hidden_size=16,
        intermediate_size=32,
        num_attention_heads=2,
        vision_layers=3,
        text_layers=2,
    )
    return export_clip(draw_weights(make_clip(tokenizer, shape), seed=seed), tokenizer, folder)


def save_small_language(folder: Path, tokenizer: PreTrainedTokenizerFast, *, seed: int = 1) -> Path:
    """Width 16, three blocks."""
    shape = LanguageShape(hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2)
    return export_language_model(
        draw_weights(make_language_model(tokenizer, shape), seed=seed), tokenizer, folder
    )


def save_small_vit(folder: Path, *, side: int = 24, seed: int = 2) -> Path:
    """A vision-only encoder of width 16, patches of 12."""
    shape = TowerShape(
        image_size=side, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2
    )
    return export_tower(draw_weights(make_tower(shape), seed=seed).state_dict(), shape, folder)
