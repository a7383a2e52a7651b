"""What the builders of test checkpoints share: configs of width 32, sizes, chat templates, seeded weights."""

import json
from pathlib import Path
from typing import Any

import transformers as tf

from eyechart.core.devices import seeded
from eyechart.models.untrained import draw_weights

Made = tuple[Any, Any]
"""A model and the processor that goes with it."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def chatml(image: str) -> str:
    """A chat template as Qwen's models have it, with `image` where a picture goes."""
    return CHATML.replace("IMAGE", image)


def plain(image: str) -> str:
    """A chat template as Idefics' models have it, with `image` where a picture goes."""
    return PLAIN.replace("IMAGE", image)


def ids(tokenizer: Any) -> dict[str, int]:
    """The ids every language model's config repeats."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def language(kind: str, tokenizer: Any, **more: Any) -> dict[str, Any]:
    """The config of a language model with three layers of width 32."""
    return {
        "model_type": kind, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        **ids(tokenizer), **more,
    }  # fmt: skip


def tower(kind: str, *, side: int = 56, patch: int = 8, layers: int = 3, **more: Any) -> dict[str, Any]:
    """The config of a vision tower of width 32."""
    return {
        "model_type": kind, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers,
        "num_attention_heads": 4, "image_size": side, "patch_size": patch, **more,
    }  # fmt: skip


def square(side: int) -> dict[str, int]:
    """A size with two equal sides."""
    return {"height": side, "width": side}


def clip_images(side: int) -> Any:
    """CLIP's image processor: resize the short side, crop the centre."""
    return tf.CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square(side))


def build(model_class: Any, config: Any, seed: int = 0) -> Any:
    """A model of that config whose weights are the same each time."""
    with seeded(seed):
        model = model_class(config)
    return draw_weights(model, seed=seed)


def edit(file: Path, **changes: Any) -> None:
    """Change fields of a JSON file; a dict is merged into the one there."""
    data = json.loads(file.read_text())
    for name, value in changes.items():
        data[name] = data[name] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(data))
