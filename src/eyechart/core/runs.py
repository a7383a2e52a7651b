"""The run folder: one folder a command writes, which the same command continues and another may not touch.

It holds `config.yaml` (every option in force), `manifest.json` (where the run comes from), tables as Parquet,
records as JSONL and whatever results there are. Each file is written whole or not at all, each record is on
the disk before the next one is asked for. While it is open the folder is locked against other processes.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import pyarrow as pa
import yaml

from . import files
from .errors import UserError
from .files import JsonLines
from .lock import LOCK, FolderLock
from .manifest import now, provenance, surroundings
from .records import Quarantined

log = logging.getLogger(__name__)

CONFIG, MANIFEST, QUARANTINE = "config.yaml", "manifest.json", "quarantine.parquet"

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""`quarantine.parquet`: what was left out, a word of `core.images.REASONS` (or `bad_row`), and a sentence."""


class RunFolder:
    """One run's folder, open and locked. Made by `RunFolder.open`; a context manager that lets go at the end."""

    def __init__(self, path: Path, lock: FolderLock, manifest: dict[str, Any]) -> None:
        self.path = path
        self._lock = lock
        self._manifest = manifest
        self._lines: dict[str, JsonLines] = {}

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        config: Mapping[str, Any],
        command: Sequence[str],
        fresh: bool = False,
        given: Mapping[str, Any] | None = None,
    ) -> "RunFolder":
        """Start a run in `path`, or continue the one there.

        Args:
            path: the folder; made when absent.
            config: every option in force, of what JSON can hold; decides whether this is the same run.
            command: the words of the command line, for the manifest.
            fresh: start over: remove what the run store made here before, nothing else.
            given: only the options somebody set, for the manifest.

        Raises:
            UserError: the folder holds something else, a run with another config, or is in use.
            TypeError: `config` holds what JSON cannot.
        """
        folder, config = Path(path), json.loads(json.dumps(config, allow_nan=False))
        _check_is_ours(folder)
        lock = FolderLock(folder)
        try:
            files.remove_unfinished(folder)
            manifest = _read_manifest(folder)
            if manifest and (fresh or "clearing" in manifest):
                _clear(folder, manifest)
                manifest = {}
            run = cls(folder, lock, manifest)
            if manifest:
                _check_same(folder, config)
                run._resume()
            else:
                run._begin(config, command, dict(given or {}))
        except BaseException:
            lock.release()
            raise
        return run

    @property
    def manifest(self) -> dict[str, Any]:
        """A copy of what `manifest.json` says."""
        return json.loads(json.dumps(self._manifest))  # type: ignore[no-any-return]

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self._manifest["finished"] is not None

    def update_manifest(self, **fields: Any) -> None:
        """Set fields of the manifest and write it; they are of what JSON can hold."""
        changed = self._manifest | fields
        files.write_json(self.path / MANIFEST, changed)
        self._manifest = changed

    def finish(self) -> None:
        """Mark the run as finished; reopened, it stays as it is."""
        self.update_manifest(finished=now())

    def jsonl(self, name: str, *, key: str | tuple[str, ...]) -> JsonLines:
        """The append-only file `name`, with the records there already; asked for again, it is the same object."""
        if name not in self._lines:
            self._lines[name] = JsonLines(self.own(name), key=key)
        elif self._lines[name].key != key:
            raise ValueError(f"{name} is open with key {self._lines[name].key!r}, not {key!r}")
        return self._lines[name]

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file such as `thumbs/<sha256>.jpg`, atomically."""
        files.write_bytes(self.own(name), data)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file in UTF-8, atomically."""
        files.write_bytes(self.own(name), text.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Write indented JSON, atomically; NaN and infinities raise ValueError."""
        files.write_json(self.own(name), value)

    def write_yaml(self, name: str, value: Any) -> None:
        """Write YAML, keys in their order, atomically."""
        files.write_bytes(self.own(name), _yaml(value))

    def write_table(self, name: str, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
        """Write Parquet with exactly the columns of `schema`, atomically; same rows, same bytes."""
        files.write_table(self.own(name), rows, schema)

    def write_quarantine(self, rows: Iterable[Quarantined]) -> None:
        """Write `quarantine.parquet`; an empty one says that nothing was left out."""
        plain = [{"path": row.path, "reason": row.reason, "detail": row.detail} for row in rows]
        self.write_table(QUARANTINE, plain, QUARANTINE_SCHEMA)

    def own(self, name: str) -> Path:
        """The path of a file of this run, for who writes it by other means; listed, so that `--fresh` removes it.

        A file in a subfolder stands for all of that subfolder with its ending.

        Raises:
            ValueError: `name` leads out of the folder, is hidden, or is the manifest's.
        """
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or parts.name in ("", MANIFEST) or parts.name[0] == ".":
            raise ValueError(f"{name!r} is no name for a file of a run folder")
        entry = name if len(parts.parts) == 1 else f"{parts.parent}/*{parts.suffix}"
        if entry not in self._manifest["files"]:
            self.update_manifest(files=[*self._manifest["files"], entry])
        return self.path / name

    def close(self) -> None:
        """Close all files and let other processes in."""
        for lines in self._lines.values():
            lines.close()
        self._lock.release()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, config: Any, command: Sequence[str], given: dict[str, Any]) -> None:
        """The config before the manifest: where there is a manifest, the run can be continued."""
        try:
            files.write_bytes(self.path / CONFIG, _yaml(config))
            self.update_manifest(**provenance(command), given=given, files=[CONFIG])
        except BaseException:
            (self.path / CONFIG).unlink(missing_ok=True)  # without a manifest nobody would know it as ours
            raise

    def _resume(self) -> None:
        """Note a start that continues an unfinished run, and what has changed around it since the first."""
        if self.finished:
            return
        here = surroundings()
        changed = differences({name: self._manifest.get(name) for name in here}, here)
        if changed:
            log.warning("%s goes on under other versions: %s", self.path, "; ".join(changed))
        again = {"at": now(), "changed": changed}
        resumed = [*self._manifest.get("resumed", []), again]
        self.update_manifest(resumes=len(resumed), resumed=resumed)


def read_quarantine(path: str | os.PathLike[str]) -> list[Quarantined]:
    """The rows of a `quarantine.parquet`.

    Raises:
        UserError: it is missing or no such table.
    """
    try:
        return [Quarantined(**row) for row in files.read_table(Path(path))]
    except TypeError as error:
        raise UserError(f"{path} is not a quarantine table ({error})") from None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each option that differs, as `model.dtype: float32 → bfloat16`."""
    before, after = _flat(old), _flat(new)
    keys = [*before, *(key for key in after if key not in before)]
    say = "(not set)"
    return [
        f"{key}: {before.get(key, say)} → {after.get(key, say)}"
        for key in keys
        if before.get(key) != after.get(key) or (key in before) != (key in after)
    ]


def _flat(config: Any, name: str = "") -> dict[str, str]:
    """Dotted names to values as JSON."""
    if isinstance(config, Mapping) and (config or not name):
        flat: dict[str, str] = {}
        for key, value in config.items():
            flat |= _flat(value, f"{name}.{key}" if name else str(key))
        return flat
    return {name: json.dumps(config, ensure_ascii=False)}


def _check_is_ours(folder: Path) -> None:
    """A folder is new, empty, or a run folder; anything else is left alone."""
    try:
        inside = sorted(one.name for one in folder.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise UserError(f"{folder} is a file; --out names a folder") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be looked into ({error.strerror}); choose another --out") from None
    if inside and LOCK not in inside and not _read_manifest(folder):
        raise UserError(
            f"{folder} is not empty and not a run folder (it holds {inside[0]!r}); choose another --out"
        )


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the run in `folder`; empty where there is none yet."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); choose another --out") from None
    if not isinstance(manifest, dict) or not {"eyechart", "finished", "files"} <= manifest.keys():
        raise UserError(f"{path} is not the manifest of an eyechart run; choose another --out")
    return manifest


def _check_same(folder: Path, config: Mapping[str, Any]) -> None:
    try:
        old = yaml.safe_load((folder / CONFIG).read_bytes())
    except (OSError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{folder / CONFIG} cannot be read ({why}); use --fresh or another --out") from None
    changed = differences(old, config)
    if changed:
        listed = "\n  ".join(changed)
        raise UserError(
            f"{folder} holds a run with another config:\n  {listed}\nStart it over with --fresh, or choose another --out."
        )


def _clear(folder: Path, manifest: dict[str, Any]) -> None:
    """Remove the files that `manifest` lists, the manifest last; what else lies in the folder stays.

    The manifest says so first: what is killed on the way is gone on with by the next start, fresh or not.
    """
    files.write_json(folder / MANIFEST, manifest | {"finished": None, "clearing": True})
    for entry in manifest["files"]:
        inner, pattern = (folder / entry).parent, (folder / entry).name
        if pattern.startswith("*"):
            made = [path for path in inner.glob("*") if path.is_file() and path.suffix == pattern[1:]]
        else:
            made = [inner / pattern]
        for path in made:
            path.unlink(missing_ok=True)
        while inner != folder and inner.is_dir() and not any(inner.iterdir()):
            inner.rmdir()
            inner = inner.parent
    (folder / MANIFEST).unlink()


def _yaml(value: Any) -> bytes:
    """YAML people can read; where that would not read back the same (PyYAML folds U+0085), with escapes."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    if yaml.safe_load(text) != value:
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=False)
    return text.encode()
