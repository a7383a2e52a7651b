"""What a name stands for before its weights are loaded: a VLM, an encoder, or a server."""

from typing import Literal

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from eyechart.models.encoders.loading import config_of
from eyechart.models.sources import parse_source

ModelKind = Literal["vlm", "encoder", "server"]


def kind_of(text: str, *, revision: str | None = None, trust_remote_code: bool = False) -> ModelKind:
    """Tell by the name, and by the config of a checkpoint.

    Raises:
        UserError: there is no such model.
    """
    source = parse_source(text, revision=revision)
    if source.kind == "server":
        return "server"
    if source.kind in ("timm", "open_clip"):
        return "encoder"
    config = config_of(
        source, {"revision": source.revision or "main", "trust_remote_code": trust_remote_code}
    )
    remote = "AutoModelForImageTextToText" in (getattr(config, "auto_map", None) or {})
    return "vlm" if remote or type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING else "encoder"
