"""Turn a prompt into what a model is fed: the model's own chat template where it has one, and said so where not."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from eyechart.core.errors import UserError
from eyechart.core.records import Prompt
from eyechart.models.vlms.objects import tokenizer_of

logger = logging.getLogger(__name__)

Inputs = dict[str, Any]
"""What a processor made for a model: names to tensors, on the model's device."""

REFUSALS = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, NotImplementedError)
"""What transformers' code raises when a model or processor is used in a way it does not support."""

CHAT, WRITTEN, PLAIN, PREFIXED = "chat template", "chat template, text only", "plain", "prefixed"


class Prompting:
    """How one checkpoint wants to be asked. `note` says so in words for the run's record.

    Four layouts, in this order; the first that fits is kept:

    1. the chat template, given the image as a part of the message;
    2. the chat template, for one that drops image parts: the image token is written at the head of the text;
    3. no chat template, and a processor that places the image by itself (PaliGemma, InstructBLIP): the text alone;
    4. no chat template: the processor's image token, a line break, the text. No family's format is guessed.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor
        self.tokenizer = tokenizer_of(processor)
        self.image_token_id = _image_token_id(model, processor)
        self.image_token = _image_token(processor, self.tokenizer, self.image_token_id)
        repeated = (
            None if self.image_token_id is None else self.tokenizer.convert_ids_to_tokens(self.image_token_id)
        )
        self.placeholders = tuple(str(one) for one in (self.image_token, repeated) if one)
        self.nested = True
        self.layout = self._layout()
        self.note = {
            CHAT: "chat template of the processor",
            WRITTEN: f"chat template of the tokenizer, with {self.image_token!r} written before the text",
            PLAIN: "none: the checkpoint has no chat template, so the processor was given the text alone",
            PREFIXED: f"none: the checkpoint has no chat template, so it was given {self.image_token!r}, "
            "a line break and the text",
        }[self.layout]

    def render(self, prompt: Prompt) -> str:
        """The text a processor is given for this prompt, image tokens not yet repeated.

        Raises:
            UserError: the prompt's own text holds the image token.
        """
        token = self.image_token
        if held := next((one for one in self.placeholders if one in prompt.text), ""):
            raise UserError(
                f"the prompt {prompt.text[:80]!r} holds {held!r}, which stands for an image in this model; "
                "take it out of the question"
            )
        count = len(prompt.images)
        if self.layout == CHAT:
            parts = [{"type": "image"}] * count + [{"type": "text", "text": prompt.text}]
            return self._templated(parts)
        head = f"{token}\n" * count if token else ""
        if self.layout == WRITTEN:
            return self._templated(head + prompt.text)
        return prompt.text if self.layout == PLAIN else head + prompt.text

    def inputs(self, prompts: Sequence[Prompt]) -> Inputs:
        """The processor's tensors for a batch, on the model's device and in its number format.

        All prompts must have images, or none. Several are padded on the side the tokenizer is set to.
        """
        texts = [self.render(prompt) for prompt in prompts]
        images = [list(prompt.images) for prompt in prompts]
        return self._processed(texts, images if any(images) else None)

    def _processed(self, texts: list[str], images: list[list[Any]] | None) -> Inputs:
        options: dict[str, Any] = {"return_tensors": "pt"}
        bos = self.tokenizer.bos_token
        if bos and all(text.startswith(bos) for text in texts):
            options["add_special_tokens"] = False  # as apply_chat_template(tokenize=True) does
        if len(texts) > 1:
            options |= {"padding": True, "padding_side": self.tokenizer.padding_side}
        made = self._called(texts, images, options)
        return {key: self._placed(value) for key, value in made.items() if key != "labels"}

    def _called(self, texts: list[str], images: list[list[Any]] | None, options: dict[str, Any]) -> Any:
        """The processor's own output: images as a list for each text, or in one list for a processor of that kind."""
        if images is None:
            return self.processor(text=texts, **options)
        flat = [one for some in images for one in some]
        if not self.nested:
            return self.processor(text=texts, images=flat, **options)
        try:
            return self.processor(text=texts, images=images, **options)
        except REFUSALS as error:
            try:
                made = self.processor(text=texts, images=flat, **options)
            except REFUSALS:
                raise error from None
            self.nested = False
            return made

    def _placed(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._placed(one) for one in value]
        if not isinstance(value, Tensor):
            return value
        dtype = self.model.dtype if value.is_floating_point() else None
        return value.to(device=_device(self.model), dtype=dtype)

    def _templated(self, content: Any) -> str:
        messages = [{"role": "user", "content": content}]
        owner = self.processor if _has_template(self.processor) else self.tokenizer
        text: str = owner.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text

    def _layout(self) -> str:
        blank = Image.new("RGB", (64, 64), (127, 127, 127))
        if _has_template(self.processor) or _has_template(self.tokenizer):
            image, words = {"type": "image"}, {"type": "text", "text": "a"}
            try:
                if self._templated([image, words]) != self._templated([words]):
                    return CHAT
            except REFUSALS as error:  # a template for plain strings only
                logger.info("the chat template takes no message parts: %s", error)
            return WRITTEN
        return PLAIN if self._places_images("a", blank) else PREFIXED

    def _places_images(self, text: str, image: Any) -> bool:
        """Whether the processor, given a bare text and an image, finds a place for the image by itself."""
        try:
            made = self._processed([text], [[image]])
        except REFUSALS as error:
            logger.info("the processor refuses a text without an image token: %s", error)
            return False
        if self.image_token_id is None:
            return True
        return bool((made["input_ids"] == self.image_token_id).any())


def image_positions(inputs: Mapping[str, Any], image_token_id: int | None) -> tuple[int, ...] | None:
    """Where one row of inputs holds its image: by a placeholder mask, else by the image token's id.

    Returns:
        Positions in the row, in order, the places of row separators that carry the image token included; None
        when neither says.
    """
    for key, value in inputs.items():
        if "image" in key and "position" in key and key.endswith("mask") and isinstance(value, Tensor):
            return tuple(value[0].bool().nonzero().flatten().tolist())
    if image_token_id is None or "input_ids" not in inputs:
        return None
    return tuple((inputs["input_ids"][0] == image_token_id).nonzero().flatten().tolist())


def _image_token_id(model: Any, processor: Any) -> int | None:
    for owner in (model.config, processor):
        for name in ("image_token_id", "image_token_index"):
            value = getattr(owner, name, None)
            if isinstance(value, int):
                return value
    return None


def _image_token(processor: Any, tokenizer: Any, token_id: int | None) -> str | None:
    """The text that stands for an image in a prompt; not always the token that is repeated (Gemma3, Aya)."""
    for owner in (processor, tokenizer):
        token = getattr(owner, "image_token", None)
        if token is not None:
            return str(getattr(token, "content", token))
    return None if token_id is None else str(tokenizer.convert_ids_to_tokens(token_id))


def _has_template(owner: Any) -> bool:
    return bool(getattr(owner, "chat_template", None))


def _device(model: nn.Module) -> torch.device:
    """Where inputs go: to the input embeddings, which under a device map need not be where the rest is."""
    base: Any = model
    try:
        device: torch.device = base.get_input_embeddings().weight.device
    except NotImplementedError:
        device = base.device
    return base.device if device.type == "meta" else device
