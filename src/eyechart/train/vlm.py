"""A LLaVA from a CLIP and a language model, both trained before: joined, frozen in part, its loss on answers.

The architecture is LLaVA 1.5's (arXiv 2310.03744): the patches of the vision tower's last layer but one, a two-layer
projector, the language model. The tower stays frozen, so what the projector reads is computed once for each picture.
"""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

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
from eyechart.core.files import write_json
from eyechart.models.attention import Cut, cutting
from eyechart.models.vlms.towers import resolve_towers
from eyechart.train.loop import Report
from eyechart.train.packs import NO_TARGET, Features
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


def train_only(model: LlavaForConditionalGeneration, stage: Stage) -> None:
    """Freeze what a stage does not train; the vision tower always."""
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    if stage == "whole":
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)


@torch.no_grad()
def start_projector(
    model: LlavaForConditionalGeneration, features: Float[ndarray, "image patch dim"], *, seed: int = 0
) -> None:
    """Draw the projector anew, so that it starts from features that are all of one size and gives what words give.

    What a tower's inner layer holds lies mostly in a few directions, far from zero, and is many times larger than the
    embeddings that a language model is used to. The first layer begins with the features whitened (mean 0, covariance 1;
    directions of less than `FLATTEST` of the largest variance are not raised further); the second gives vectors of
    mean 0 and of the size of the language model's embeddings.

    Args:
        features: what the projector reads of some images.
        seed: of the weights that are drawn.
    """
    projector: Any = model.model.multi_modal_projector
    first, second = projector.linear_1, projector.linear_2
    rows = torch.from_numpy(np.asarray(features, np.float32)).flatten(0, 1).to(first.weight.device)
    mean = rows.mean(0)
    sizes, turned = torch.linalg.eigh(torch.cov((rows - mean).T))
    scaled = sizes.clamp_min(FLATTEST * sizes.max()).rsqrt()
    whiten = turned @ torch.diag(scaled) @ turned.T
    generator = torch.Generator().manual_seed(seed)
    for layer in (first, second):
        drawn = torch.randn(layer.weight.shape, generator=generator) * layer.in_features**-0.5
        layer.weight.copy_(drawn)
        layer.bias.zero_()
    first.weight.copy_(first.weight @ whiten)
    first.bias.copy_(-first.weight @ mean)
    given = projector(rows)
    words: Any = model.get_input_embeddings()
    size = words.weight.std() / given.std(0).mean()
    second.weight.mul_(size)
    second.bias.copy_(-size * given.mean(0))


def tower_sha256(model: LlavaForConditionalGeneration) -> str:
    """The hash of the vision tower, which training must leave as it was."""
    return weights_sha256(model.model.vision_tower)


class Taught(nn.Module):
    """The parts of a LLaVA that training may change, the same tensors under names of their own: what `fit` is given.

    transformers 5 stores a LLaVA under other names than it has in memory, and its Trainer, on resuming, passes over
    what it does not find; a LLaVA given to it would begin anew. The vision tower is not among the parts.
    """

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.projector = model.model.multi_modal_projector
        self.language = model.model.language_model
        if model.lm_head.weight is not model.get_input_embeddings().weight:
            self.head = model.lm_head
        self._whole = (model,)

    @property
    def whole(self) -> LlavaForConditionalGeneration:
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
        seen = inner.multi_modal_projector(batch["features"].to(embedded.dtype))
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
    """The features of all images as a memory map on disk, computed where they are not there yet.

    Args:
        folder: holds `features.npy` and `features.json`, which says whose features they are and how many are done.
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
        "shape": [len(images), model.config.image_seq_length, tower.hidden_size],
        "dtype": dtype,
        **({"alone": True} if alone else {}),
    }
    identity = json.loads(json.dumps(identity, default=str))
    folder.mkdir(parents=True, exist_ok=True)
    record, path = folder / "features.json", folder / "features.npy"
    there = json.loads(record.read_text()) if record.exists() and path.exists() else {}
    done = there.get("done", 0) if there.get("identity") == identity else 0
    mapped = np.lib.format.open_memmap(
        path, mode="r+" if done else "w+", dtype=dtype, shape=tuple(identity["shape"])
    )
    while done < len(images):
        part = images[done : done + batch]
        with _alone(model, len(part)) if alone else nullcontext():
            mapped[done : done + len(part)] = fed_features(model, processor, part).numpy()
        done += len(part)
        if done == len(images) or done % (16 * batch) == 0:
            mapped.flush()
            write_json(record, {"identity": identity, "done": done})
        if report is not None:
            report("features", done, len(images))
    found: Features = np.load(path, mmap_mode="r")
    return found
