"""What a model's name means: a hub id, a folder, a timm, open_clip or zoo name, a server; and which weights exactly.

Nothing here loads a model or asks the network, and importing it costs no torch.
"""

import difflib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from eyechart import zoo
from eyechart.core.errors import UserError, unknown

Kind = Literal["hub", "local", "timm", "open_clip", "zoo", "server"]

NAMING: Mapping[str, str] = MappingProxyType(
    {
        "ORG/NAME[@REVISION]": "a model on the Hugging Face hub, at a branch, tag or commit",
        "FOLDER": "a checkpoint folder on this machine, as `save_pretrained` writes it",
        "timm:NAME": "a timm model with its pretrained weights (also timm:hf-hub:ORG/NAME, timm:local-dir:FOLDER)",
        "open_clip:NAME/TAG": "an open_clip model with the pretrained weights of that tag, or with a weight file",
        "zoo:NAME": "a model that comes with Eyechart",
        "http(s)://...": "an OpenAI-compatible server",
    }
)
"""The ways to name a model."""

_PREFIXES = ("timm", "open_clip", "zoo")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASHED = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py")
_NOT_HASHED = (
    "trainer_state.json",
    "training_args.bin",
    "optimizer.bin",
    "scheduler.bin",
    "README.txt",
    "card.json",
    "training.json",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a model comes from."""

    kind: Kind
    name: str
    """Without prefix, revision or tag: a hub id, a folder, a timm or open_clip or zoo name, a URL."""

    revision: str | None = None
    """A branch, tag or commit; only for the hub."""

    tag: str | None = None
    """Which pretrained weights; only for open_clip."""

    @property
    def id(self) -> str:
        """The name that `parse_source` takes back, without the revision."""
        prefix = f"{self.kind}:" if self.kind in _PREFIXES else ""
        return f"{prefix}{self.name}" + (f"/{self.tag}" if self.tag else "")

    @property
    def location(self) -> str:
        """What `from_pretrained` takes: the folder of a local or zoo model, else the name."""
        return str(zoo.path(self.name)) if self.kind == "zoo" else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Which weights exactly; a field is None where it cannot be known."""

    id: str
    revision: str | None
    """The commit on the hub."""

    sha256: str | None
    """Of the weight, config and processor files of a folder."""


def parse_source(text: str, *, revision: str | None = None) -> Source:
    """Read a model's name (see `NAMING`).

    Raises:
        UserError: the name is of no known shape, names a folder that is not there or holds no model, a zoo model
            that does not exist, or two revisions.
    """
    if not text.strip():
        raise UserError(f"a model's name is empty ({text!r}); give a folder, or a name such as ORG/NAME")
    if text.startswith(("http://", "https://")):
        return _without_revision(Source(kind="server", name=text.rstrip("/")), revision)
    prefix, colon, rest = text.partition(":")
    if colon and prefix in _PREFIXES:
        return _without_revision(_prefixed(prefix, rest), revision)
    folder = Path(text).expanduser()
    if folder.exists():
        return _without_revision(Source(kind="local", name=str(_checked_folder(folder))), revision)
    if text.startswith((".", "/", "~", "\\")) or text.count("/") > 1 or re.match(r"[A-Za-z]:\\", text):
        raise UserError(
            f"no folder {text!r} here; give the folder of a checkpoint, or a name such as ORG/NAME"
        )
    if colon:
        raise unknown("kind of model", f"{prefix}:", [f"{name}:" for name in (*_PREFIXES, "http", "https")])
    return _hub(text, revision)


def fingerprint(source: Source) -> Fingerprint:
    """Say which weights a source holds, without the network.

    A folder is read whole, so this takes as long as reading its weights from disk. The commit of a hub model is
    that of the snapshot in the local cache: None before it was downloaded.
    """
    if source.kind in ("local", "zoo"):
        return Fingerprint(id=source.id, revision=None, sha256=_folder_sha256(Path(source.location)))
    commit = _cached_commit(source) if source.kind == "hub" else None
    return Fingerprint(id=source.id, revision=commit, sha256=None)


def cached_models() -> list[str]:
    """The ids of the models in the local Hugging Face cache that have a `config.json`, sorted."""
    configs = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/config.json")
    return sorted({config.parts[-4].removeprefix("models--").replace("--", "/") for config in configs})


def _prefixed(prefix: str, rest: str) -> Source:
    if not rest:
        raise UserError(f"{prefix + ':'!r} names no model; write {prefix}:NAME")
    if prefix == "zoo":
        zoo.path(rest)
        return Source(kind="zoo", name=zoo.full_name(rest))
    if prefix == "timm":
        return Source(kind="timm", name=rest)
    if rest.startswith(("hf-hub:", "local-dir:")):
        return Source(kind="open_clip", name=rest)
    name, _, tag = rest.partition("/")
    if not name or not tag:
        raise UserError(
            f"'open_clip:{rest}' names no weights; write open_clip:NAME/TAG, for example open_clip:ViT-B-32/openai"
        )
    return Source(kind="open_clip", name=name, tag=tag)


def _without_revision(source: Source, revision: str | None) -> Source:
    if revision is not None:
        raise UserError(
            f"revision {revision!r} was given for {source.id!r}, but only models on the hub have one"
        )
    return source


def _checked_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"{str(folder)!r} is a file; give the folder of a checkpoint")
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise UserError(
            f"the folder {str(folder)!r} is a PEFT adapter; name its base model here and it as the adapter"
        )
    if not (folder / "config.json").is_file() and not (folder / "open_clip_config.json").is_file():
        inside = sorted(config.parent.name for config in folder.glob("*/config.json"))
        hint = f" It has folders that do: {', '.join(inside)}." if inside else ""
        raise UserError(f"the folder {str(folder)!r} has no config.json, so it is no checkpoint.{hint}")
    return folder


def _hub(text: str, revision: str | None) -> Source:
    name, at, written = text.partition("@")
    if at and not written:
        raise UserError(f"{text!r} ends in '@' without a revision")
    if at and revision is not None and written != revision:
        raise UserError(
            f"two revisions for {name!r}: {written!r} in the name and {revision!r} beside it; give one"
        )
    parent, _, child = name.rpartition("/")
    beside = (
        [folder.name for folder in Path(parent).iterdir() if folder.is_dir()]
        if parent and Path(parent).is_dir()
        else []
    )
    if close := difflib.get_close_matches(child, beside, n=1):
        raise UserError(f"no folder {text!r} here. Did you mean '{parent}/{close[0]}'?")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"{text!r} is neither a folder here nor a hub id: {error}") from None
    return Source(kind="hub", name=name, revision=written or revision)


def _cached_commit(source: Source) -> str | None:
    if source.revision and _COMMIT.fullmatch(source.revision):
        return source.revision
    found = try_to_load_from_cache(source.name, "config.json", revision=source.revision)
    return Path(found).parent.name if isinstance(found, str) else None


def _folder_sha256(folder: Path) -> str:
    whole = hashlib.sha256()
    for file in sorted(_checkpoint_files(folder), key=lambda file: file.relative_to(folder).as_posix()):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{file.relative_to(folder).as_posix()}\0{digest}\n".encode())
    return whole.hexdigest()


def _checkpoint_files(folder: Path) -> Iterator[Path]:
    """The files a checkpoint is made of, without hidden folders and the checkpoints of a training inside it."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "checkpoint-", "__"))]
        for name in files:
            if name.endswith(_HASHED) and name not in _NOT_HASHED and not name.startswith("."):
                yield Path(place) / name
