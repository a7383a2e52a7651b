"""A real server process, transformers' own, with a model of the zoo: the same replies as from the model held here."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from transformers.utils.import_utils import is_serve_available

from eyechart import zoo
from eyechart.core.errors import UserError
from eyechart.core.images import open_image
from eyechart.core.records import Prompt
from eyechart.models import load_vlm
from eyechart.models.servers import Server, Unanswered
from eyechart.score.config import ScoreConfig
from eyechart.score.run import score
from server_parts import closed_port
from small_world import small_world

MODEL = "llava-biased"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not is_serve_available(), reason="'transformers serve' needs fastapi, uvicorn and openai installed"
    ),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[str]:
    """The URL of `transformers serve` with the model loaded."""
    folder, port = tmp_path_factory.mktemp("serve"), closed_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(zoo.path(MODEL))]
    command += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_for(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path, *, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text("utf8", "replace")[-3000:]
        try:
            if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"no server after {seconds} s: {log.read_text('utf8', 'replace')[-3000:]}")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return small_world(tmp_path_factory.mktemp("set") / "pictures", pairs=9)


def samples(folder: Path) -> dict[str, dict[str, object]]:
    (path,) = folder.glob("samples_*.jsonl")
    return {row["doc_id"]: row for row in map(json.loads, path.read_text("utf8").splitlines())}


def test_a_run_on_the_server_is_the_run_on_the_model_item_by_item(served, pictures, tmp_path):
    """Pictures as PNG, the server's own chat template and image processor, greedy: the same text, to the sign."""
    here = ScoreConfig(model=f"zoo:{MODEL}", on=str(pictures), batch_size=1, device="cpu")
    there = ScoreConfig(
        model=served, served_model=str(zoo.path(MODEL)), on=str(pictures), concurrency=3, timeout=60.0
    )
    local = score(here, out=tmp_path / "here")
    remote = score(there, out=tmp_path / "there")
    assert samples(tmp_path / "there") == samples(tmp_path / "here")
    assert len(samples(tmp_path / "there")) == 18
    assert len({str(row["resps"]) for row in samples(tmp_path / "here").values()}) > 1, (
        "it does not say one thing only"
    )
    assert remote.results["eyechart"]["variants"] == local.results["eyechart"]["variants"]
    described = remote.results["eyechart"]["model"]
    assert described["answered_as"] == [f"{zoo.path(MODEL)}@main"]
    assert sum(described["finish_reasons"].values()) == len(samples(tmp_path / "there"))


@pytest.mark.parametrize("longest", [1, 3, 16])
def test_the_longest_reply_is_kept_to_and_cut_replies_are_counted(longest, served, pictures):
    vlm = load_vlm(f"zoo:{MODEL}", device="cpu")
    image = open_image(sorted(pictures.rglob("*.png"))[0]).image
    prompts = [
        Prompt(text="Describe the picture.", images=(image,)),
        Prompt(text="What is in the picture?", images=(image,)),
    ]
    expected = [vlm.generate([one], max_new_tokens=longest)[0] for one in prompts]
    with Server(served, model=str(zoo.path(MODEL)), timeout=60.0) as server:
        assert server.generate(prompts, max_new_tokens=longest) == expected
        if longest == 1:
            assert any("2 of 2 replies were cut" in note for note in server.notes)


def test_what_the_server_says_of_a_wrong_name_reaches_the_person(served):
    with pytest.raises(UserError, match="serves 0 models"):
        Server(served)  # it lists what is in the cache, and fails where there is none
    with Server(served, model="other/model", timeout=60.0) as server:
        with pytest.raises(Unanswered, match=r"Server is pinned to .*requested 'other/model'"):
            server.generate([Prompt(text="a")], max_new_tokens=1)
