"""Fixtures for every test: checkpoints, pictures, the shared data; and a fence round the network."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from extras_shim import mend_torchvision
from pictures import picture

# Before anything imports torch or huggingface_hub, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

mend_torchvision()

LOCAL = ("localhost", "127.0.0.1", "::1", "", None)


# Warnings of other packages that no change of ours can mend, each as narrow as it goes.
NOT_OURS = (
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning:"
    "transformers.models.paligemma.processing_paligemma",
)


def pytest_configure(config: pytest.Config) -> None:
    """Let those warnings pass, after the rule in pyproject.toml that makes every warning an error."""
    for line in NOT_OURS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to look up any address but this machine's, except in tests marked `hub`."""
    if request.node.get_closest_marker("hub"):
        return
    ask = socket.getaddrinfo

    def fenced(host, *args, **kwargs):  # type: ignore[no-untyped-def]
        if host not in LOCAL:
            raise AssertionError(f"this test reached for the network: {host!r}")
        return ask(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", fenced)


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from a checkpoint's name to its folder; each is built once for all workers. Don't write there."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own) / "checkpoints"
    shared.mkdir(exist_ok=True)

    def find(name: str) -> Path:
        from checkpoints import checkpoint  # here, so that tests without models load no torch

        with FileLock(shared / f"{name}.lock"):
            if not (shared / f"{name}.done").exists():
                checkpoint(name, shared)
                (shared / f"{name}.done").touch()
        return shared / name

    return find


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and annotations, or a skip that says how to get it."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EYECHART_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no shared test data at {folder}: set EYECHART_TEST_DATA")
    return folder


@pytest.fixture
def square_picture() -> Image.Image:
    """A square picture, 96 x 96."""
    return picture(96, 96, 1)


@pytest.fixture
def wide_picture() -> Image.Image:
    """A wide picture, 150 x 64."""
    return picture(150, 64, 2)


@pytest.fixture
def tall_picture() -> Image.Image:
    """A tall picture, 48 x 133."""
    return picture(48, 133, 3)


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Six pictures of different sizes, one of them smaller than any model's input."""
    sizes = [(96, 96), (150, 64), (48, 133), (31, 27), (56, 56), (200, 120)]
    return [picture(width, height, seed) for seed, (width, height) in enumerate(sizes)]
