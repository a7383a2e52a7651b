"""From a name to a loaded encoder."""

from typing import Any

import torch
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from eyechart.core.devices import DTYPES, pick_device
from eyechart.core.errors import UserError, unknown
from eyechart.models.encoders.encoder import Encoder, ImageTower
from eyechart.models.encoders.hub import load_hub_tower
from eyechart.models.encoders.open_clip_tower import load_open_clip_tower
from eyechart.models.encoders.timm_tower import load_timm_tower
from eyechart.models.sources import Source, fingerprint, parse_source


def load_encoder(
    text: str,
    *,
    revision: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    attn: str | None = None,
    trust_remote_code: bool = False,
    interpolate: bool = False,
) -> Encoder:
    """Load an encoder by hub id, folder, `timm:`, `open_clip:` or `zoo:` name.

    Args:
        dtype: what to compute in; `auto` is what the checkpoint stores. `Encoder.dtype` says which it became.
        attn: the attention implementation of a transformers model (`eager`, `sdpa`, ...).
        interpolate: interpolate position embeddings where the image processor's size is not the model's. Without
            it, such a checkpoint is refused.

    Raises:
        UserError: the name, the files, the number format or the device are of no use; the text says what to do.
    """
    source = parse_source(text, revision=revision)
    if dtype != "auto" and dtype not in DTYPES:
        raise unknown("dtype", dtype, ["auto", *DTYPES])
    chosen = DTYPES.get(dtype)
    place = pick_device(device).device
    tower: ImageTower
    if source.kind == "timm":
        tower = load_timm_tower(source.name, dtype=chosen, device=place)
    elif source.kind == "open_clip":
        tower = load_open_clip_tower(source.name, source.tag, dtype=chosen, device=place)
    elif source.kind == "server":
        raise UserError(
            f"{text!r} is a server, which answers questions but gives no features; name an encoder"
        )
    else:
        tower = _from_transformers(
            source, dtype=chosen, device=place, attn=attn, trust=trust_remote_code, interpolate=interpolate
        )
    print_ = fingerprint(source)
    weights = print_.sha256 or getattr(tower, "weights_sha256", None)
    return Encoder(tower, id=print_.id, revision=print_.revision, sha256=weights)


def _from_transformers(
    source: Source,
    *,
    dtype: torch.dtype | None,
    device: torch.device,
    attn: str | None,
    trust: bool,
    interpolate: bool,
) -> ImageTower:
    options: dict[str, Any] = {"revision": source.revision or "main", "trust_remote_code": trust}
    config = config_of(source, options)
    if config.model_type == "timm_wrapper":
        return load_timm_tower(_timm_name(source), dtype=dtype, device=device)
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise UserError(
            f"{source.id} is a vision-language model (model type {config.model_type!r}), not an encoder; name an encoder "
            "such as a CLIP, SigLIP or DINO checkpoint"
        )
    wishes = {"dtype": dtype or "auto"} | ({"attn_implementation": attn} if attn else {})
    tower = load_hub_tower(
        source.location,
        config,
        options=options,
        model_options=wishes | {"device_map": str(device)},
        interpolate=interpolate,
    )
    return tower


def config_of(source: Source, options: dict[str, Any]) -> Any:
    """The config of a checkpoint of transformers.

    Raises:
        UserError: there is none.
    """
    try:
        return AutoConfig.from_pretrained(source.location, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"no model can be loaded from {source.id!r}: {error}") from error


def _timm_name(source: Source) -> str:
    if source.kind == "hub":
        return f"hf-hub:{source.name}" + (f"@{source.revision}" if source.revision else "")
    return f"local-dir:{source.location}"
