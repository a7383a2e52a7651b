"""Put a mixture together from two encoder checkpoints and a language model; its adapters start with random weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer

from eyechart.core.devices import seeded
from eyechart.core.errors import UserError
from eyechart.models.mixtures.config import Mixture, MixtureConfig
from eyechart.models.mixtures.encoding import patch_grid
from eyechart.models.mixtures.modeling import MixtureForConditionalGeneration
from eyechart.models.mixtures.processor import MixtureProcessor
from eyechart.models.quiet import quiet
from eyechart.models.sources import parse_source

_AUTO: Any = AutoModel
_CAUSAL: Any = AutoModelForCausalLM
_IMAGES: Any = AutoImageProcessor
_TOKENS: Any = AutoTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderChoice:
    """One encoder of a mixture, and what is read of it."""

    source: str
    """A hub id, a folder or `zoo:NAME`; of a checkpoint with a text tower its vision half is taken."""

    layer: int = -2
    """Counted as in `hidden_states`."""

    norm: bool = False
    """Whether its final LayerNorm is applied."""


def build_mixture(
    first: EncoderChoice,
    language: str,
    *,
    second: EncoderChoice | None = None,
    mixture: Mixture | None = None,
    seed: int = 0,
    image_token: str = "<image>",
    **fields: Any,
) -> tuple[MixtureForConditionalGeneration, MixtureProcessor]:
    """A mixture of checkpoints in memory, in float32 on the CPU, and its processor.

    Adapters are drawn as transformers draws them, from the seed. The grid is the first encoder's own, as its image
    processor makes it, unless `grid` is among the fields. A language model that does not know the image token is given it.

    Args:
        first: the encoder that alpha weighs (in the paper CLIP).
        language: hub id, folder or `zoo:NAME` of a causal language model with its tokenizer.
        second: the other encoder; None makes a `single` mixture.
        mixture: how they are mixed; None is `interleaved` with a second encoder, else `single`.
        fields: of `MixtureConfig`: `alpha`, `standardise`, `second_sees`, `grid`, `resample`, `examined`.

    Raises:
        UserError: a checkpoint cannot be read or is no vision model, the fields contradict each other, or the language
            model has no chat template and no image token.
    """
    choices = [first] if second is None else [first, second]
    towers = [_tower(choice) for choice in choices]
    images = [_loaded(_IMAGES, choice.source, "an image processor") for choice in choices]
    text, tokenizer = _language(language, image_token, seed)
    grid = fields.pop("grid", None) or _grid(towers[0], images[0])
    if second is not None:
        fields |= {"second_layer": second.layer, "second_norm": second.norm}
        fields["second_vision_config"] = _plain(towers[1].config)
    config = MixtureConfig(
        vision_config=_plain(towers[0].config),
        vision_layer=first.layer,
        vision_norm=first.norm,
        text_config=_plain(text.config),
        mixture=mixture or ("single" if second is None else "interleaved"),
        grid=list(grid),
        image_token_index=tokenizer.convert_tokens_to_ids(image_token),
        **fields,
    )
    processor = MixtureProcessor(
        images[0],
        images[-1],
        tokenizer,
        grid=list(grid),
        tokens_per_cell=config.tokens_per_cell,
        second_sees="first" if second is None else config.second_sees,
        chat_template=tokenizer.chat_template,
        image_token=image_token,
    )
    return _joined(config, towers, text, seed), processor


def _joined(
    config: MixtureConfig, towers: Sequence[nn.Module], text: Any, seed: int
) -> MixtureForConditionalGeneration:
    """The model with the weights of its parts."""
    with seeded(seed):
        model = MixtureForConditionalGeneration(config)
    for name, tower in zip(("vision_tower", "second_vision_tower"), towers, strict=False):
        getattr(model.model, name).load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(text.base_model.state_dict())
    model.lm_head.load_state_dict(text.get_output_embeddings().state_dict())
    if text.generation_config is not None:
        model.generation_config = text.generation_config
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _tower(choice: EncoderChoice) -> nn.Module:
    """The vision model of a checkpoint, of the class that transformers makes from its config.

    Raises:
        UserError: there is none.
    """
    found = _loaded(_AUTO, choice.source, "an encoder")
    tower = found.vision_model if hasattr(found.config, "vision_config") else found
    if not hasattr(tower.config, "patch_size") or not hasattr(tower.config, "num_hidden_layers"):
        raise UserError(
            f"{choice.source!r} is a {type(found).__name__} (model type {found.config.model_type!r}), whose config gives no "
            "patches or layers; expected a vision transformer such as CLIP, SigLIP, DINOv2, MAE or ViT"
        )
    again = type(_AUTO.from_config(tower.config))
    if type(tower) is not again:
        raise UserError(
            f"{choice.source!r}: its vision tower is a {type(tower).__name__}, but its config makes a {again.__name__}; "
            "expected a tower that loads by itself"
        )
    module: nn.Module = tower
    return module


def _language(source: str, image_token: str, seed: int) -> tuple[Any, Any]:
    """A language model and its tokenizer, both with the image token."""
    text = _loaded(_CAUSAL, source, "a causal language model")
    tokenizer = _loaded(_TOKENS, source, "a tokenizer")
    if tokenizer.convert_tokens_to_ids(image_token) in (None, tokenizer.unk_token_id):
        tokenizer.add_special_tokens({"additional_special_tokens": [image_token]})
        if len(tokenizer) > text.config.vocab_size:
            with seeded(seed):
                text.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return text, tokenizer


def _plain(config: Any) -> dict[str, Any]:
    """A sub-config as a dict, without the place it was read from."""
    return {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}


def _loaded(loader: Any, source: str, what: str) -> Any:
    place = parse_source(source)
    more = {"dtype": "float32"} if loader in (_AUTO, _CAUSAL) else {}
    try:
        with quiet():
            return loader.from_pretrained(place.location, revision=place.revision or "main", **more)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0][:300]
        raise UserError(
            f"{source!r} gives no {what.partition(' ')[2]}; expected {what} there: {reason}"
        ) from error


def _grid(tower: Any, image_processor: Any) -> tuple[int, int]:
    """Rows and columns of patches on what the image processor makes."""
    made = image_processor(images=[Image.new("RGB", (64, 64))], return_tensors="pt")
    return patch_grid(tower.config, made["pixel_values"])
