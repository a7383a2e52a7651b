"""Write small models with random weights: ordinary checkpoints that have learnt nothing, for trying things out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from eyechart.core.devices import seeded

M = TypeVar("M", bound=nn.Module)

MARK = "eyechart_untrained"
"""The field in `config.json` that says a checkpoint has random weights; it survives `from_pretrained`."""

SIDE = 112
"""Pixels on a side of what the two models see."""

TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""LLaVA 1.5's chat template, without its system prompt."""

_TOKENIZER: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast
_PROCESSOR: Callable[..., LlavaProcessor] = LlavaProcessor

_CORPUS = (
    "Is the dog facing left or right from the camera's perspective?",
    "How many people are in the picture? Answer with the letter of the right option.",
    "USER: What is the color of the car? (a) Red (b) Blue ASSISTANT: A. B. C. D. Yes. No.",
    "Are there any windows visible in this image? Is the door open or closed?",
    "Where is the yellow animal's head lying? On the floor, on the carpet, on the left, on the right.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Untrained:
    """The folders of a VLM and of a reference encoder that have learnt nothing."""

    vlm: Path
    reference: Path


def make_untrained(folder: Path) -> Untrained:
    """Write a small LLaVA (CLIP tower, Llama) and a small DINOv2, both with random weights, under `folder`.

    They are saved as hub checkpoints are, with processor, tokenizer and chat template. The same bytes come out
    each time. Their configs carry `MARK`, so that `is_untrained` holds for them wherever they are loaded.
    """
    made = Untrained(vlm=folder / "untrained-llava", reference=folder / "untrained-dinov2")
    model, processor = _llava()
    _save(model, made.vlm)
    processor.save_pretrained(made.vlm)
    with seeded(1):
        reference = Dinov2Model(_dinov2_config())
    _save(draw_weights(reference, seed=1), made.reference)
    BitImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(made.reference)
    return made


def is_untrained(config: object) -> bool:
    """Whether a model's config says that its weights are random."""
    return bool(getattr(config, MARK, False))


def draw_weights(model: M, *, seed: int, gain: float = 1.0) -> M:
    """Draw every parameter anew, in place, so that activations neither die away nor drown the image.

    Matrices, kernels and tables get a normal spread of gain/sqrt(inputs), where a table of embeddings counts as
    having four; vectors keep what their class gives them plus a spread of 0.1; gates that start shut are opened.
    """
    generator = torch.Generator().manual_seed(seed)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                inputs = 4 if id(parameter) in tables or "embed" in name else parameter[0].numel()
                parameter.copy_(noise * gain / max(inputs, 1) ** 0.5)
            elif "gate" in name and parameter.numel() == 1:
                parameter.fill_(0.8)
            elif parameter.dim() == 1:
                parameter.add_(noise * 0.1)
    return model.eval()


def tiny_tokenizer(
    special: Sequence[str] = (),
    *,
    named: Mapping[str, str] | None = None,
    bos: bool = True,
    chat_template: str | None = None,
    padding_side: str = "left",
    eos: bool = False,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of about 400 tokens, which reads and gives back any text.

    Args:
        special: Tokens never split, such as `<image>`.
        named: Special tokens a processor looks for by attribute, such as `{"image_token": "<image>"}`.
        bos: Whether `<s>` opens each text, as Llama's tokenizer has it.
        eos: Whether `</s>` closes each text, as CLIP's tokenizer has it.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    first = ["<unk>", "<s>", "</s>", "<pad>"]
    names = dict(named or {})
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        min_frequency=2,
        show_progress=False,
        special_tokens=[*first, *dict.fromkeys([*special, *names.values()])],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    single = f"{'<s> ' if bos else ''}$A{' </s>' if eos else ''}"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return _TOKENIZER(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side=padding_side,
        chat_template=chat_template,
        extra_special_tokens=list(special) if not names else names,
        clean_up_tokenization_spaces=False,
    )


def _save(model: PreTrainedModel, folder: Path) -> None:
    setattr(model.config, MARK, True)
    model.save_pretrained(folder)


def _llava() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    tokenizer = tiny_tokenizer(["<image>"], chat_template=TEMPLATE)
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4, image_size=SIDE,
        patch_size=16, projection_dim=32,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.get_vocab()["<image>"],
        image_seq_length=(SIDE // 16) ** 2,
    )
    with seeded(0):
        model = LlavaForConditionalGeneration(config)
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    processor = _PROCESSOR(
        image_processor,
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )
    return draw_weights(model, seed=0), processor


def _dinov2_config() -> Dinov2Config:
    return Dinov2Config(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=4, mlp_ratio=2, image_size=SIDE, patch_size=14
    )  # fmt: skip
