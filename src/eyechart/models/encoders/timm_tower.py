"""Encoders of timm: vision transformers with their own preprocessing."""

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from eyechart.core.errors import Incapable, UserError
from eyechart.models.encoders.encoder import Reading
from eyechart.models.encoders.extras import block_states, load_extra, weights_sha256
from eyechart.models.encoders.probing import patch_grid


class TimmTower:
    """A timm vision transformer as an `ImageTower`."""

    kind: Literal["clip_like", "vision_only"] = "vision_only"

    def __init__(self, model: Any, transform: Any, settings: Mapping[str, Any]) -> None:
        self._model = model
        self._transform = transform
        self.layers = len(model.blocks)
        self.prefix = int(model.num_prefix_tokens)
        classed = getattr(model, "cls_token", None) is not None
        self.dims: dict[str, int] = dict.fromkeys(
            ["cls", "mean_patch"] if classed else ["mean_patch"], model.num_features
        )
        text = json.dumps(dict(settings), sort_keys=True, default=str)
        self.preprocessing = f"timm-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.notes: tuple[str, ...] = ()
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.weights_sha256 = weights_sha256(model)

    def prepare(self, image: Image.Image) -> dict[str, Tensor]:
        """The tensor of one picture, with a leading axis of one."""
        return {"pixel_values": self._transform(image)[None]}

    def grid(self, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
        """Rows and columns of patches of one prepared picture."""
        sized = self._model if hasattr(self._model, "patch_size") else self._model.patch_embed
        grid = patch_grid(sized, inputs)
        assert grid is not None
        return grid

    @torch.no_grad()
    def read(self, inputs: Mapping[str, Tensor], *, layer: int | None = None) -> Reading:
        """Run the model on prepared pictures of one shape, stacked."""
        with block_states(list(self._model.blocks), () if layer is None else (layer,)) as states:
            tokens = self._model.forward_features(inputs["pixel_values"])
        if isinstance(getattr(self._model, "norm", None), nn.Identity):
            tokens = self._model.fc_norm(tokens)  # models made for mean pooling keep their final norm here
        return Reading(projected=None, tokens=tokens, layer=None if layer is None else states[layer])

    def read_texts(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """Refuse: a timm model has no text tower."""
        raise Incapable("timm models have no text tower, so they cannot embed texts")


def load_timm_tower(name: str, *, dtype: torch.dtype | None, device: torch.device) -> TimmTower:
    """Load a timm model by name, `hf-hub:` or `local-dir:`, with its pretrained weights.

    Raises:
        UserError: there is no such model, it has no pretrained weights, or it is no vision transformer.
    """
    timm = load_extra("timm", why=f"the encoder timm:{name}", extra="timm")
    data = load_extra("timm.data", why=f"the encoder timm:{name}", extra="timm")
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(pretrained=True) + timm.list_models(), n=5)
        raise UserError(f"no timm model named {name!r}. Near it: {', '.join(near) or 'none'}.")
    try:
        model = timm.create_model(name, pretrained=True)
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"timm:{name} has no pretrained weights that can be loaded: {error}") from error
    if not hasattr(model, "blocks") or not hasattr(model, "num_prefix_tokens"):
        raise UserError(
            f"timm:{name} is a {type(model).__name__}, not a vision transformer with blocks and patch tokens"
        )
    model = model.to(device=device, dtype=dtype).eval()
    settings = data.resolve_model_data_config(model)
    return TimmTower(model, data.create_transform(**settings, is_training=False), settings)
