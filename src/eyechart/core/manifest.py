"""Where a run comes from: versions, git commit, Python, platform and time."""

import logging
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import eyechart

log = logging.getLogger(__name__)

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "safetensors",
    "huggingface_hub",
    "tokenizers",
    "datasets",
    "timm",
    "open_clip_torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "pyarrow",
    "Pillow",
    "pydantic",
)
"""The packages whose version can change a result."""


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """What a manifest starts with: all of it is read, none of the packages is imported."""
    return {
        "eyechart": eyechart.__version__,
        "command": list(command),
        "rerun": shlex.join(command),
        "started": now(),
        "finished": None,
        "resumes": 0,
        **surroundings(),
    }


def surroundings() -> dict[str, Any]:
    """What can differ between two starts of one run on one machine or two."""
    return {
        "git": git_state(Path(__file__).parent),
        "packages": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Each package's installed version, None where it is absent."""
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def git_state(folder: Path) -> dict[str, Any]:
    """The commit of the checkout that `folder`'s files are tracked in, and whether they were changed since.

    Both are None where the files are no part of a checkout (an installed package, even one inside somebody
    else's repository), where there is no commit yet, and where git is absent. A git that knows the commit but
    cannot say whether the files were changed counts as dirty.
    """
    if not _git(folder, "ls-files", "--", "."):
        return {"commit": None, "dirty": None}
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if not commit:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": _git(folder, "status", "--porcelain", "--", ".") != ""}


def _git(folder: Path, *words: str) -> str | None:
    """What git prints, None when it fails; it writes nothing and never waits for a person."""
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, env=quiet, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.info("git cannot be asked: %s", error)
        return None
    return done.stdout.strip() if done.returncode == 0 else None
