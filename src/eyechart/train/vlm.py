"""A LLaVA from a CLIP and a language model, both trained before: joined, frozen in part, its loss on answers.

The architecture is LLaVA 1.5's (arXiv 2310.03744): the patches of the vision tower's last layer but one, a two-layer
projector, the language model. The tower stays frozen, so what the projector reads is computed once for each picture.
What trains it trains a mixture of features as well (`train.mixture`): several encoders, an adapter or two.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoImageProcessor,
    CLIPModel,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from eyechart.core.devices import seeded
from eyechart.models.attention import Cut, cutting
from eyechart.models.mixtures.modeling import MixtureForConditionalGeneration
from eyechart.models.vlms.towers import resolve_towers
from eyechart.train.cached import Features, cached
from eyechart.train.loop import Report
from eyechart.train.packs import NO_TARGET
from eyechart.train.prompts import CHAT_TEMPLATE, IMAGE, chat_tokenizer
from eyechart.train.tokens import load_tokenizer
from eyechart.train.weights import weights_sha256

logger = logging.getLogger(__name__)

FED_LAYER = -2
"""The layer of the vision tower that the projector reads."""

FLATTEST = 1e-3
"""Of the largest variance of features: directions below it are scaled as if they had as much."""

Stage = Literal["projector", "whole"]
"""What is trained: the projector alone, or the projector and the language model. Never the vision tower."""

Joined: TypeAlias = LlavaForConditionalGeneration | MixtureForConditionalGeneration
"""What is trained here: transformers' LLaVA, or a mixture of features."""

_PROCESSOR: Callable[..., LlavaProcessor] = LlavaProcessor
_IMAGES: Callable[..., Any] = AutoImageProcessor.from_pretrained


def join_towers(
    clip: Path, language: Path, *, layer: int = FED_LAYER, seed: int = 0
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA of two checkpoints, with a projector of random weights, and its processor.

    Args:
        clip: a folder with a `CLIPModel` and its image processor.
        language: a folder with a `LlamaForCausalLM` and a tokenizer that holds `<image>`.
        layer: the vision tower's layer to read, counted as `hidden_states` are.
        seed: of the projector's weights.
    """
    vision = CLIPModel.from_pretrained(clip, dtype=torch.float32).vision_model
    speech = LlamaForCausalLM.from_pretrained(language, dtype=torch.float32)
    images = _IMAGES(clip, backend="pil")
    tokenizer = chat_tokenizer(load_tokenizer(language))
    patch = vision.config.patch_size
    config = LlavaConfig(
        vision_config=vision.config,
        text_config=speech.config,
        image_token_index=tokenizer.get_vocab()[IMAGE],
        image_seq_length=(vision.config.image_size // patch) ** 2,
        vision_feature_layer=layer,
        vision_feature_select_strategy="default",
        tie_word_embeddings=speech.config.tie_word_embeddings,
    )
    with seeded(seed):
        model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(vision.state_dict())
    model.model.language_model.load_state_dict(speech.model.state_dict())
    model.lm_head.load_state_dict(speech.lm_head.state_dict())
    model.tie_weights()
    model.generation_config = speech.generation_config
    processor = _PROCESSOR(
        images,
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )
    model.eval()  # type: ignore[no-untyped-call]
    return model, processor


def train_only(model: Joined, stage: Stage) -> None:
    """Freeze what a stage does not train; the vision towers always."""
    model.requires_grad_(False)
    for adapter in _adapters(model).values():
        adapter.requires_grad_(True)
    if stage == "whole":
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)


def _adapters(model: Joined) -> Mapping[str, nn.Module]:
    if isinstance(model, MixtureForConditionalGeneration):
        found: dict[str, nn.Module] = model.model.adapters
        return found
    return {"multi_modal_projector": model.model.multi_modal_projector}


def _read(model: Joined, rows: Float[Tensor, "patch dim"]) -> dict[str, Float[Tensor, "_ _"]]:
    """What each adapter reads of patches' features, those of several encoders side by side in `rows`."""
    if not isinstance(model, MixtureForConditionalGeneration):
        return {"multi_modal_projector": rows}
    towers: Mapping[str, Any] = model.model.encoders
    widths = [int(tower.config.hidden_size) for tower in towers.values()]
    parts = dict(zip(towers, torch.split(rows[None], widths, dim=-1), strict=True))
    return {name: read[0] for name, read in model.model.mixed(parts).items()}


def _seen(model: Joined, rows: Float[Tensor, "patch dim"]) -> Float[Tensor, "token hidden"]:
    """The tokens that stand for patches."""
    read = _read(model, rows)
    if isinstance(model, MixtureForConditionalGeneration):
        tokens: Tensor = model.model.tokens({name: part[None] for name, part in read.items()})
        return tokens[0]
    found: Tensor = model.model.multi_modal_projector(read["multi_modal_projector"])
    return found


@torch.no_grad()
def start_projector(model: Joined, features: Float[ndarray, "image patch dim"], *, seed: int = 0) -> None:
    """Draw the adapters anew, so that each starts from features that are all of one size and gives what words give.

    What a tower's inner layer holds lies mostly in a few directions, far from zero, and is many times larger than the
    embeddings that a language model is used to. The first layer begins with the features whitened (mean 0, covariance 1;
    directions of less than `FLATTEST` of the largest variance are not raised further); the second gives vectors of
    mean 0 and of the size of the language model's embeddings.

    Args:
        features: what the adapters read of some images; of several encoders side by side.
        seed: of the weights that are drawn.
    """
    words: Any = model.get_input_embeddings()
    rows = torch.from_numpy(np.asarray(features, np.float32)).flatten(0, 1).to(words.weight.device)
    adapters = _adapters(model)
    for place, (name, read) in enumerate(_read(model, rows).items()):
        _start(adapters[name], read, words.weight.std(), torch.Generator().manual_seed(seed + 1000 * place))


def _start(
    adapter: Any, rows: Float[Tensor, "patch dim"], size_of_words: Tensor, generator: torch.Generator
) -> None:
    first, second = adapter.linear_1, adapter.linear_2
    mean = rows.mean(0)
    sizes, turned = torch.linalg.eigh(torch.cov((rows - mean).T))
    scaled = sizes.clamp_min(FLATTEST * sizes.max()).rsqrt()
    whiten = turned @ torch.diag(scaled) @ turned.T
    for layer in (first, second):
        drawn = torch.randn(layer.weight.shape, generator=generator) * layer.in_features**-0.5
        layer.weight.copy_(drawn)
        layer.bias.zero_()
    first.weight.copy_(first.weight @ whiten)
    first.bias.copy_(-first.weight @ mean)
    given = adapter(rows[None])[0]
    size = size_of_words / given.std(0).mean()
    second.weight.mul_(size)
    second.bias.copy_(-size * given.mean(0))


def tower_sha256(model: Joined) -> str:
    """The hash of the vision tower, or of all towers of a mixture, which training must leave as they were."""
    if isinstance(model, MixtureForConditionalGeneration):
        return weights_sha256(nn.ModuleDict(model.model.encoders))
    return weights_sha256(model.model.vision_tower)


class Taught(nn.Module):
    """The parts of a VLM that training may change, the same tensors under names of their own: what `fit` is given.

    transformers 5 stores a LLaVA under other names than it has in memory, and its Trainer, on resuming, passes over
    what it does not find; a LLaVA given to it would begin anew. The vision tower is not among the parts.
    """

    def __init__(self, model: Joined) -> None:
        super().__init__()
        self.projector, *more = _adapters(model).values()
        if more:
            (self.second_projector,) = more
        self.language = model.model.language_model
        if model.lm_head.weight is not model.get_input_embeddings().weight:
            self.head = model.lm_head
        self._whole = (model,)

    @property
    def whole(self) -> Joined:
        """The model the parts belong to."""
        return self._whole[0]


def taught_loss(taught: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """`answer_loss` of the whole model, as an objective for `fit` on its `Taught` parts."""
    whole: Any = taught.whole
    return answer_loss(whole, batch)


def answer_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The mean cross-entropy of a packed batch's answer tokens by their weights, in nats.

    With equal weights the same as the model's own loss on pixels, each question by itself, but for the rounding of
    cached features.

    Args:
        batch: as `packs.PackedBatches` makes it.
    """
    inner: Any = model.model
    ids = batch["input_ids"]
    embedded = inner.get_input_embeddings()(ids)
    if len(batch["features"]):
        seen = _seen(cast("Joined", model), batch["features"].to(embedded.dtype))
        embedded = embedded.masked_scatter((ids == inner.config.image_token_id)[:, :, None], seen)
    mask = torch.zeros(batch["mask"].shape, dtype=embedded.dtype, device=ids.device)
    states = inner.language_model(
        inputs_embeds=embedded,
        attention_mask=mask.masked_fill(~batch["mask"], torch.finfo(embedded.dtype).min),
        position_ids=batch["positions"],
        use_cache=False,
    ).last_hidden_state
    asked = batch["targets"] != NO_TARGET
    scores = model.lm_head(states[asked])  # type: ignore[operator]
    losses = functional.cross_entropy(scores, batch["targets"][asked], reduction="none")
    weights = batch["weights"][asked]
    return (losses * weights).sum() / weights.sum()


@torch.no_grad()
def fed_features(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    images: Sequence[UInt8[ndarray, "side side 3"]] | UInt8[ndarray, "image side side 3"],
) -> Float[Tensor, "image patch dim"]:
    """What the projector reads of each image, taken where it enters the projector."""
    pixels = processor.image_processor(list(images), return_tensors="pt")["pixel_values"]
    kept: list[Tensor] = []
    projector = model.model.multi_modal_projector
    handle = projector.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    try:
        model.get_image_features(pixel_values=pixels.to(model.device, model.dtype))
    finally:
        handle.remove()
    return kept[0].float().cpu()


def _alone(model: LlavaForConditionalGeneration, images: int) -> AbstractContextManager[object]:
    """While it is open, patches read nothing but themselves in the tower's layers that are fed; the class token reads them still."""
    towers = resolve_towers(model)
    tower: Any = model.config.vision_config
    tokens = model.config.image_seq_length + 1
    edges = ~torch.eye(tokens, dtype=torch.bool)
    edges[0] = False
    fed: Any = model.config.vision_feature_layer
    layer = int(fed) % (tower.num_hidden_layers + 1)
    cut = Cut(name="patches<-patches", tower="vision", edges=edges, layers=tuple(range(layer)))
    return cutting(towers, [[cut]] * images)


def cached_features(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    images: UInt8[ndarray, "image side side 3"],
    folder: Path,
    *,
    source: str,
    alone: bool = False,
    dtype: str = "float16",
    batch: int = 128,
    report: Report | None = None,
) -> Features:
    """What the projector reads of all images, as `train.cached.cached` keeps it.

    Args:
        folder: where it is kept.
        source: what identifies the images, such as the hash of their set.
        alone: every patch goes through the tower without reading any other token: features without context.
        report: called with "features", images done, images in all.
    """
    tower: Any = model.config.vision_config
    identity = {
        "tower": tower_sha256(model),
        "layer": model.config.vision_feature_layer,
        "images": source,
        "processor": processor.image_processor.to_dict(),
        **({"alone": True} if alone else {}),
    }

    def see(part: UInt8[ndarray, "some side side 3"]) -> Float[Tensor, "some patch dim"]:
        with _alone(model, len(part)) if alone else nullcontext():
            return fed_features(model, processor, part)

    shape = (model.config.image_seq_length, tower.hidden_size)
    return cached(
        see, images, folder, shape=shape, identity=identity, dtype=dtype, batch=batch, report=report
    )
