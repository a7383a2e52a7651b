"""Load a VLM, its processor and an adapter as transformers does, and say plainly what is wrong with a checkpoint."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

from eyechart.core.devices import DTYPES, pick_device
from eyechart.core.errors import UserError, need, unknown
from eyechart.models.processors import load_processor
from eyechart.models.sources import Fingerprint, Source, fingerprint, parse_source
from eyechart.models.vlms.vlm import VLM

logger = logging.getLogger(__name__)

_HALF = (torch.float16, torch.bfloat16)


def load_vlm(
    text: str,
    *,
    revision: str | None = None,
    device: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    dtype: str = "auto",
    attn: str | None = None,
    adapter: str | None = None,
    trust_remote_code: bool = False,
    tower: str | None = None,
) -> VLM:
    """Load a VLM and prove on two small pictures what it can do.

    Args:
        text: a hub id (`ORG/NAME` or `ORG/NAME@REVISION`), a checkpoint folder, or `zoo:NAME`.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; None or `auto` takes the fastest there is.
        device_map: handed to transformers, to spread a model over devices; then `device` must not be given.
        dtype: `float32`, `float16`, `bfloat16`, or `auto`: the checkpoint's own, in float32 on a CPU if it is half.
        attn: `eager`, `sdpa` and what else transformers knows; None leaves the choice to transformers.
        adapter: folder of a PEFT adapter to put on the model.
        trust_remote_code: run code that comes with the checkpoint.
        tower: `first` or `second`: which encoder of a mixture is its vision tower; None leaves it as saved.

    Raises:
        UserError: there is no such checkpoint, it is no VLM, weights, processor or adapter are missing or do not
            fit, or the model fails on a plain picture.
    """
    source = _vlm_source(text, revision)
    options: dict[str, Any] = {"revision": source.revision or "main", "trust_remote_code": trust_remote_code}
    config = _config(source, options)
    _check_kind(config, source)
    if device_map is not None and device not in (None, "auto"):
        raise UserError(f"give device ({device!r}) or device_map ({device_map!r}), not both")
    place = pick_device(device).device if device_map is None else None
    wanted, note = _dtype(config, dtype, place)
    processor = _processor(source, trust_remote_code=trust_remote_code)
    more = {"attn_implementation": attn, "device_map": device_map, "examined": _tower(config, tower, source)}
    options |= {key: value for key, value in more.items() if value is not None}
    model = _model(source, {**options, "dtype": wanted}, place)
    if wanted == "auto" and model.dtype in _HALF and place is not None and place.type == "cpu":
        note = f"dtype: float32, since a CPU is slow and inexact in the checkpoint's {model.dtype}"
        model = model.float()
    print_of_adapter = None
    if adapter is not None:
        model, print_of_adapter = _with_adapter(model, adapter)
    model.eval()
    notes = (note,) if note else ()
    return VLM(model, processor, fingerprint=fingerprint(source), adapter=print_of_adapter, notes=notes)


def _tower(config: Any, tower: str | None, source: Source) -> str | None:
    """The encoder of a mixture that is examined, checked."""
    if tower is None:
        return None
    active = getattr(config, "active", ())
    if tower not in active:
        there = (
            f"its encoders that are run are: {', '.join(active)}"
            if active
            else "it is no mixture of encoders"
        )
        raise UserError(f"no tower {tower!r} in {source.name!r}: {there}")
    return tower


@runtime_checkable
class VLMChoice(Protocol):
    """The choices of a command that loads a VLM."""

    @property
    def model(self) -> str:
        """As `load_vlm` reads it."""

    @property
    def revision(self) -> str | None: ...

    @property
    def device(self) -> str: ...

    @property
    def device_map(self) -> str | None: ...

    @property
    def dtype(self) -> str: ...

    @property
    def attn(self) -> str | None: ...

    @property
    def adapter(self) -> str | None: ...

    @property
    def trust_remote_code(self) -> bool: ...


def load_chosen(choice: VLMChoice, *, name: str | None = None) -> VLM:
    """Load the VLM that a command's choices name, or another by `name`; errors as `load_vlm`."""
    return load_vlm(
        name or choice.model,
        revision=choice.revision,
        device=None if choice.device_map else choice.device,
        device_map=choice.device_map,
        dtype=choice.dtype,
        attn=choice.attn,
        adapter=choice.adapter,
        trust_remote_code=choice.trust_remote_code,
    )


def _vlm_source(text: str, revision: str | None) -> Source:
    source = parse_source(text, revision=revision)
    if source.kind in ("timm", "open_clip"):
        raise UserError(f"{text!r} names an encoder; expected a vision-language model. Use it as --reference")
    if source.kind == "server":
        raise UserError(
            f"{text!r} is a server; expected a checkpoint that is loaded here: a hub id or a folder"
        )
    return source


def _config(source: Source, options: dict[str, Any]) -> Any:
    try:
        return AutoConfig.from_pretrained(source.location, **options)
    except OSError as error:
        raise UserError(
            f"no model {source.name!r} at revision {options['revision']!r}: not in the local cache, and the hub did "
            f"not give it. Check the name, the network and access rights, or give a folder. ({_first_line(error)})"
        ) from error
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{source.name!r} comes with code of its own, which was not run. Read it, and if you trust it ask for "
                "it by name: trust_remote_code=True, --trust-remote-code"
            ) from error
        raise UserError(f"the config of {source.name!r} cannot be read: {_first_line(error)}") from error


def _check_kind(config: Any, source: Source) -> None:
    """Raise a UserError unless transformers has an image-text-to-text model for this config."""
    remote = "AutoModelForImageTextToText" in (getattr(config, "auto_map", None) or {})
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or remote:
        return
    kind = config.model_type
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        what = "a text-only language model, which cannot see images"
    elif hasattr(config, "vision_config") or hasattr(config, "patch_size") or hasattr(config, "image_size"):
        what = "an image encoder, which cannot answer; use it as --reference"
    else:
        what = "a model of a kind that transformers does not load for images and text"
    examples = "llava, qwen2_5_vl, smolvlm, paligemma, gemma3, mllama"
    raise UserError(
        f"{source.name!r} is {what} (model_type {kind!r}). Expected a vision-language checkpoint: of a kind "
        f"that transformers' AutoModelForImageTextToText loads, such as {examples}"
    )


def _dtype(config: Any, wish: str, device: torch.device | None) -> tuple[torch.dtype | str, str]:
    """The number format to load in and a note on it; 'auto' is the checkpoint's own, in float32 on a CPU if half."""
    if wish != "auto":
        if wish not in DTYPES:
            raise unknown("dtype", wish, ["auto", *DTYPES])
        return DTYPES[wish], f"dtype: {wish}, asked for"
    stored = _stored_dtype(config)
    if stored is None:
        return "auto", ""
    name = str(stored).removeprefix("torch.")
    if stored in _HALF and device is not None and device.type == "cpu":
        return torch.float32, f"dtype: float32, since a CPU is slow and inexact in the checkpoint's {name}"
    return stored, f"dtype: {name}, the checkpoint's own"


def _stored_dtype(config: Any) -> torch.dtype | None:
    for one in (config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", {}))):
        dtype = getattr(one, "dtype", None)
        dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
        if isinstance(dtype, torch.dtype):
            return dtype
    return None


def _processor(source: Source, *, trust_remote_code: bool) -> Any:
    expected = "a processor_config.json or preprocessor_config.json and the tokenizer's files"
    try:
        processor = load_processor(
            source.location, revision=source.revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise UserError(
            f"the processor of {source.name!r} cannot be loaded: expected {expected} beside the weights. "
            f"Copy them from the model this one was made from. ({_first_line(error)})"
        ) from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise UserError(
            f"{source.name!r} has only a {type(processor).__name__} and no processor for images and text: expected "
            f"{expected}. Copy them from the model this one was made from."
        )
    return processor


def _model(source: Source, options: dict[str, Any], device: torch.device | None) -> Any:
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            source.location, output_loading_info=True, **options
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise UserError(f"the model {source.name!r} cannot be loaded: {_first_line(error)}") from error
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        some = ", ".join(missing[:3])
        raise UserError(
            f"the checkpoint {source.name!r} lacks {len(missing)} of its weights ({some}{', ...' if missing[3:] else ''}); "
            "expected all of them, since transformers would fill them with random numbers. Is a shard missing?"
        )
    return model if device is None else model.to(device)


def _with_adapter(model: Any, adapter: str) -> tuple[Any, Fingerprint]:
    folder = Path(adapter).expanduser()
    if not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"no adapter at {adapter!r}: expected a folder with an adapter_config.json, as PEFT saves it"
        )
    peft = need("peft", why=f"the adapter {adapter!r}")
    try:
        wrapped = peft.PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"the adapter {adapter!r} does not fit the model: {_first_line(error)}") from error
    if wrapped.active_peft_config.is_prompt_learning:
        raise UserError(
            f"the adapter {adapter!r} learns a prompt ({wrapped.active_peft_config.peft_type}), which is "
            "not supported; expected one that changes weights, such as LoRA"
        )
    return wrapped, fingerprint(Source(kind="local", name=str(folder)))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
