"""Encoders of transformers: CLIP, SigLIP, DINO, MAE, ViT and whatever else is pixels in, patch tokens out."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import transformers
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel

from eyechart.core.errors import Incapable, UserError
from eyechart.models.encoders.encoder import Reading
from eyechart.models.encoders.preprocessing import Preprocessor, check_size, load_preprocessor
from eyechart.models.encoders.probing import noise_picture, patch_grid, probe
from eyechart.models.encoders.texts import TextReader

logger = logging.getLogger(__name__)

_UNUSED = ("pooler", "mask_token", "lm_head", "classifier")
"""Parts a checkpoint may lack: nothing here reads them."""


class HubTower:
    """A transformers model as an `ImageTower`. How it is read is found out by one run on a probe picture."""

    def __init__(
        self,
        model: Any,
        preprocessor: Preprocessor,
        *,
        name: str,
        texts: TextReader | None = None,
        interpolate: bool = False,
    ) -> None:
        self._model = model
        self._preprocessor = preprocessor
        self._texts = texts
        self._config = getattr(model.config, "vision_config", None) or model.config
        self._arguments = _forward_arguments(model, self._config, interpolate=interpolate)
        self.kind: Literal["clip_like", "vision_only"] = "vision_only"
        self.device, self.dtype = model.device, model.dtype
        inputs = self._move(self.prepare(noise_picture()))
        resizable = interpolate or "interpolate_pos_encoding" not in _parameters(model)
        notes = check_size(name, inputs, self._config, resizable=resizable)
        self.preprocessing = preprocessor.description + ("+interpolated" if interpolate else "")
        self.layers, self.prefix, self.dims = 0, 0, dict[str, int]()
        self._norm: nn.Module | None = None
        self.notes = preprocessor.notes + notes + self._find_out(name, inputs)

    def prepare(self, image: Image.Image) -> dict[str, Tensor]:
        """The tensors of one picture, each with a leading axis of one."""
        return self._preprocessor(image)

    def grid(self, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
        """Rows and columns of patches of one prepared picture."""
        grid = patch_grid(self._config, inputs)
        assert grid is not None
        return grid

    @torch.no_grad()
    def read(self, inputs: Mapping[str, Tensor], *, layer: int | None = None) -> Reading:
        """Run the model on prepared pictures of one shape, stacked."""
        output = self._run(inputs, states=layer is not None)
        tokens = getattr(output, "last_hidden_state", None) if self.layers else None
        if tokens is not None and self._norm is not None:
            tokens = self._norm(tokens)
        state = output.hidden_states[layer] if layer is not None else None
        return Reading(projected=_projected(self._model, output), tokens=tokens, layer=state)

    def read_texts(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """Embed texts into the space of `projected`."""
        if self._texts is None:
            raise Incapable(f"{type(self._model).__name__} has no text tower, so it cannot embed texts")
        return self._texts(texts)

    def _run(self, inputs: Mapping[str, Tensor], *, states: bool) -> Any:
        reader = getattr(self._model, "get_image_features", self._model)
        extra = {name: make(inputs) for name, make in self._arguments.items()}
        return reader(**inputs, **extra, **({"output_hidden_states": True} if states else {}))

    def _move(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }

    def _find_out(self, name: str, inputs: dict[str, Tensor]) -> tuple[str, ...]:
        """Fill in what can be read, and return what is worth a note."""
        try:
            output, layout = probe(self._model, lambda: self._run(inputs, states=True), self._config, inputs)
        except (ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"{name} cannot be run on a picture: {error}") from error
        projected = _projected(self._model, output)
        if projected is not None:
            self.kind = "clip_like"
            self.dims["projected"] = projected.shape[-1]
        elif isinstance(layout, str):
            kind = self._config.model_type
            raise UserError(f"{name} (model type {kind!r}) is no encoder that Eyechart can read: {layout}")
        if isinstance(layout, str):
            return (f"no patch features: {layout}",)
        self.layers, self.prefix, self._norm = layout.layers, layout.prefix, layout.norm
        self.dims |= dict.fromkeys(["cls", "mean_patch"] if layout.classed else ["mean_patch"], layout.width)
        return layout.notes


def load_hub_tower(
    name: str, config: Any, *, options: Mapping[str, Any], model_options: Mapping[str, Any], interpolate: bool
) -> HubTower:
    """Load a checkpoint of transformers as an encoder.

    Raises:
        UserError: the files are missing or broken, weights are missing, or image processor and model disagree.
    """
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0
    model = _load_model(name, config, {**options, **model_options})
    texts = TextReader(name, model, options) if hasattr(model, "get_text_features") else None
    preprocessor = load_preprocessor(name, model, options)
    return HubTower(model, preprocessor, name=name, texts=texts, interpolate=interpolate)


def _load_model(name: str, config: Any, options: Mapping[str, Any]) -> Any:
    try:
        model, report = _model_class(config).from_pretrained(
            name, config=config, output_loading_info=True, **options
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise UserError(f"{name} cannot be loaded as an encoder: {error}") from error
    absent = [key for key in report["missing_keys"] if not any(part in key for part in _UNUSED)]
    wrong = [str(key) for key in report["mismatched_keys"]]
    if absent or wrong:
        listed = ", ".join(sorted(absent + wrong)[:5])
        raise UserError(
            f"{name}: {len(absent)} weights are missing and {len(wrong)} have another shape: {listed}"
        )
    return model.eval()


def _model_class(config: Any) -> Any:
    """The class that keeps a tower's projection, where the checkpoint is of one; else what AutoModel gives."""
    for architecture in config.architectures or ():
        if architecture.endswith("VisionModelWithProjection") and hasattr(transformers, architecture):
            return getattr(transformers, architecture)
    return AutoModel


def _parameters(model: nn.Module) -> set[str]:
    return set(inspect.signature(getattr(model, "get_image_features", model.forward)).parameters)


def _forward_arguments(model: nn.Module, config: Any, *, interpolate: bool) -> dict[str, Any]:
    """What to add to the pixels: no interpolation unless asked; for MAE, noise that leaves patches in their order."""
    there = _parameters(model)
    arguments: dict[str, Any] = {}
    if "interpolate_pos_encoding" in there:
        arguments["interpolate_pos_encoding"] = lambda inputs: interpolate
    if "noise" in there and hasattr(config, "mask_ratio"):
        arguments["noise"] = lambda inputs: _raster_noise(inputs["pixel_values"], config.patch_size)
    return arguments


def _raster_noise(pixels: Tensor, patch: int) -> Tensor:
    """Rising noise: MAE sorts patches by it and keeps the first ones, so with a mask ratio of 0 nothing moves."""
    count = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
    return torch.arange(count, device=pixels.device, dtype=torch.float32).expand(len(pixels), -1)


def _projected(model: Any, output: Any) -> Tensor | None:
    """The image embedding that is compared with texts, whichever way this model hands it out."""
    if isinstance(output, Tensor):
        return output
    if getattr(output, "image_embeds", None) is not None:
        embeds: Tensor = output.image_embeds
        return embeds
    pooled: Tensor | None = getattr(output, "pooler_output", None)
    if hasattr(model, "get_image_features"):
        return pooled
    return pooled if str(model.config.model_type).startswith("siglip") else None
