"""Encoders of open_clip: the projected embedding always, tokens where the tower is a vision transformer."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from eyechart.core.errors import UserError, unknown
from eyechart.models.encoders.encoder import Reading
from eyechart.models.encoders.extras import block_states, load_extra, weights_sha256
from eyechart.models.encoders.probing import noise_picture, patch_grid


class OpenClipTower:
    """An open_clip model as an `ImageTower`."""

    kind: Literal["clip_like", "vision_only"] = "clip_like"

    def __init__(self, model: Any, transform: Any, settings: Any, tokenizer: Any) -> None:
        self._model = model
        self._transform = transform
        self._tokenizer = tokenizer
        self._trunk = getattr(model.visual, "trunk", model.visual)
        self._blocks, self._norm = _blocks_and_norm(self._trunk)
        self.layers = len(self._blocks)
        self.preprocessing = f"open_clip-{hashlib.sha256(repr(settings).encode()).hexdigest()[:16]}"
        self.notes: tuple[str, ...] = ()
        parameter = next(model.visual.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.weights_sha256 = weights_sha256(model)
        self.prefix, self.dims = 0, dict[str, int]()
        self._find_out()

    def prepare(self, image: Image.Image) -> dict[str, Tensor]:
        """The tensor of one picture, with a leading axis of one."""
        return {"pixel_values": self._transform(image)[None]}

    def grid(self, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
        """Rows and columns of patches of one prepared picture."""
        sized = self._trunk if hasattr(self._trunk, "patch_size") else self._trunk.patch_embed
        grid = patch_grid(sized, inputs)
        assert grid is not None
        return grid

    @torch.no_grad()
    def read(self, inputs: Mapping[str, Tensor], *, layer: int | None = None) -> Reading:
        """Run the model on prepared pictures of one shape, stacked."""
        wanted = {self.layers} | ({layer} if layer is not None else set()) if self.layers else set()
        with block_states(self._blocks, sorted(wanted)) as states:
            projected = self._model.encode_image(inputs["pixel_values"])
        states = {place: self._batch_first(state) for place, state in states.items()}
        tokens = self._norm(states[self.layers]) if self._norm is not None else None
        return Reading(projected=projected, tokens=tokens, layer=None if layer is None else states[layer])

    @torch.no_grad()
    def read_texts(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """Embed texts one at a time with open_clip's own tokenizer, which pads each to full length."""
        embedded: Tensor = torch.cat(
            [self._model.encode_text(self._tokenizer([text]).to(self.device)) for text in texts]
        )
        return embedded

    def _batch_first(self, state: Tensor) -> Tensor:
        return (
            state
            if getattr(getattr(self._trunk, "transformer", None), "batch_first", True)
            else state.transpose(0, 1)
        )

    def _find_out(self) -> None:
        inputs = self.prepare(noise_picture())
        inputs = {name: tensor.to(self.device, self.dtype) for name, tensor in inputs.items()}
        reading = self.read(inputs)
        assert reading.projected is not None
        self.dims["projected"] = reading.projected.shape[-1]
        if reading.tokens is None:
            return
        rows, columns = self.grid(inputs)
        self.prefix = reading.tokens.shape[1] - rows * columns
        marks = (getattr(self._trunk, name, None) for name in ("class_embedding", "cls_token"))
        if any(mark is not None for mark in marks):
            self.dims["cls"] = reading.tokens.shape[-1]
        self.dims["mean_patch"] = reading.tokens.shape[-1]


def load_open_clip_tower(
    name: str, tag: str | None, *, dtype: torch.dtype | None, device: torch.device
) -> OpenClipTower:
    """Load an open_clip model by architecture and tag (or weight file), `hf-hub:` or `local-dir:`.

    Raises:
        UserError: no such model or tag, no weights, or weights trained with the other GELU.
    """
    open_clip = load_extra("open_clip", why=f"the encoder open_clip:{name}", extra="open-clip")
    if tag is not None:
        _check_names(open_clip, name, tag)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "QuickGELU mismatch")
            model = open_clip.create_model(
                name, pretrained=tag, device=device, require_pretrained=True, pretrained_text=False
            )
    except UserWarning as error:
        raise UserError(f"open_clip:{name}/{tag}: {error} Try {name}-quickgelu.") from error
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"open_clip:{name} has no weights that can be loaded: {error}") from error
    model = model.to(dtype=dtype).eval()
    settings = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    transform = open_clip.transform.image_transform_v2(settings, is_train=False)
    return OpenClipTower(model, transform, settings, open_clip.get_tokenizer(name))


def _check_names(open_clip: Any, name: str, tag: str) -> None:
    if name not in open_clip.list_models():
        raise unknown("open_clip model", name, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags and not Path(tag).is_file():
        raise unknown(f"weights for open_clip:{name}", tag, tags)


def _blocks_and_norm(trunk: Any) -> tuple[list[nn.Module], nn.Module | None]:
    """The blocks and final norm of open_clip's own vision transformer or of timm's; nothing for other towers."""
    if (
        hasattr(trunk, "transformer")
        and hasattr(trunk, "ln_post")
        and getattr(trunk, "attn_pool", None) is None
    ):
        return list(trunk.transformer.resblocks), trunk.ln_post
    if hasattr(trunk, "blocks") and hasattr(trunk, "num_prefix_tokens"):
        return list(trunk.blocks), trunk.fc_norm if isinstance(trunk.norm, nn.Identity) else trunk.norm
    return [], None
