"""The one layout in which the zoo's language models and VLMs are trained and asked.

    USER: <image>
    {question} ASSISTANT: {answer}</s>

It is LLaVA 1.5's (arXiv 2310.03744) without a system prompt and without an opening token, so that a text is the same
tokens however it reaches the model: through the chat template, or written out by hand. Without an image the line with
`<image>` is absent; a scene told in words then stands there instead.
"""

import copy

from transformers import PreTrainedTokenizerFast

IMAGE, END, PAD = "<image>", "</s>", "<pad>"
"""The special tokens of the layout; the tokenizer holds each as one token."""

DESCRIBE = "Describe the picture."
"""What is asked where the answer is a caption."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}{% else %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""The layout as a chat template; a picture goes before the text of its message, wherever it stands in it."""


def prompt(text: str, *, image: bool) -> str:
    """What a model reads before it answers: exactly what the chat template makes of one user message."""
    return f"USER: {IMAGE}\n{text} ASSISTANT:" if image else f"USER: {text} ASSISTANT:"


def answered(text: str, answer: str, *, image: bool) -> str:
    """A whole training text, closed by the end token."""
    return f"{prompt(text, image=image)} {answer}{END}"


def told(scene: str, text: str) -> str:
    """A question about a scene that is told in words: asked without an image, as the control of a VLM."""
    return f"{scene}\n{text}"


def chat_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A copy of a tokenizer for asking: the same tokens, nothing added to a text, padded left, with the template.

    Raises:
        ValueError: a special token of the layout is not one token of its own.
    """
    for token in (IMAGE, END, PAD):
        if token not in tokenizer.get_vocab():
            raise ValueError(f"the tokenizer has no token {token!r}, which the layout of prompts needs")
    asking = copy.deepcopy(tokenizer)
    asking.backend_tokenizer.post_processor = None
    asking.padding_side = "left"
    asking.chat_template = CHAT_TEMPLATE
    return asking
