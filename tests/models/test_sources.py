"""What a model's name means, and which weights it stands for."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

import eyechart.models
from eyechart.core.errors import UserError
from eyechart.models import load_encoder
from eyechart.models.encoders import load_encoder as the_same
from eyechart.models.sources import Source, cached_models, fingerprint, parse_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("facebook/dinov2-base", Source(kind="hub", name="facebook/dinov2-base")),
        ("facebook/dinov2-base@main", Source(kind="hub", name="facebook/dinov2-base", revision="main")),
        ("gpt2", Source(kind="hub", name="gpt2")),
        ("timm:vit_tiny_patch16_224", Source(kind="timm", name="vit_tiny_patch16_224")),
        ("timm:hf-hub:timm/test_vit.r160_in1k", Source(kind="timm", name="hf-hub:timm/test_vit.r160_in1k")),
        ("open_clip:ViT-B-32/openai", Source(kind="open_clip", name="ViT-B-32", tag="openai")),
        ("open_clip:ViT-B-32/my/own.pt", Source(kind="open_clip", name="ViT-B-32", tag="my/own.pt")),
        ("open_clip:hf-hub:laion/CLIP", Source(kind="open_clip", name="hf-hub:laion/CLIP")),
        ("http://localhost:8000/v1/", Source(kind="server", name="http://localhost:8000/v1")),
        ("https://example.org", Source(kind="server", name="https://example.org")),
    ],
)
def test_names_are_read(text: str, expected: Source) -> None:
    source = parse_source(text)
    assert source == expected
    assert source.location == source.name
    assert parse_source(source.id) == parse_source(text.partition("@")[0])


def test_a_folder_is_a_local_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "org" / "name" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert parse_source("org/name") == Source(kind="local", name="org/name")
    assert parse_source("./org/name").kind == "local"
    assert parse_source(str(tmp_path / "org" / "name")).location == str(tmp_path / "org" / "name")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_source("~/org/name").name == str(tmp_path / "org" / "name")


def test_a_revision_is_given_once() -> None:
    assert (
        parse_source("a/b", revision="v1") == parse_source("a/b@v1") == parse_source("a/b@v1", revision="v1")
    )
    with pytest.raises(UserError, match="two revisions for 'a/b': 'v1' in the name and 'v2' beside it"):
        parse_source("a/b@v1", revision="v2")
    with pytest.raises(UserError, match="'a/b@' ends in '@'"):
        parse_source("a/b@")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("./nowhere", r"no folder '\./nowhere' here"),
        ("/nowhere/at/all", "no folder '/nowhere/at/all' here"),
        ("~/nowhere", "no folder '~/nowhere' here"),
        ("a/b/c", "no folder 'a/b/c' here"),
        ("C:\\models\\llava", r"no folder 'C:\\\\models\\\\llava' here"),
        ("tim:vit", r"no kind of model named 'tim:'\. Did you mean 'timm:'"),
        ("timm:", "'timm:' names no model"),
        ("open_clip:ViT-B-32", r"'open_clip:ViT-B-32' names no weights; write open_clip:NAME/TAG"),
        ("zoo:nothing", "no zoo model named 'nothing'"),
        ("a model", "'a model' is neither a folder here nor a hub id"),
        (" ", "a model's name is empty .' '.; give a folder"),
    ],
)
def test_names_that_mean_nothing(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_source(text)


@pytest.mark.parametrize("text", ["timm:vit", "open_clip:a/b", "http://here"])
def test_only_the_hub_has_revisions(text: str) -> None:
    with pytest.raises(
        UserError, match=r"revision 'v1' was given for .*, but only models on the hub have one"
    ):
        parse_source(text, revision="v1")


def test_folders_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json, so it is no checkpoint\.$"):
        parse_source(str(tmp_path))
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="It has folders that do: inner"):
        parse_source(str(tmp_path))
    with pytest.raises(UserError, match=r"config\.json' is a file; give the folder"):
        parse_source(str(tmp_path / "inner" / "config.json"))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="is a PEFT adapter; name its base model here"):
        parse_source(str(tmp_path))


def test_a_folder_is_known_by_its_files(checkpoint_dir: Callable[[str], Path], tmp_path: Path) -> None:
    first = shutil.copytree(checkpoint_dir("dinov2"), tmp_path / "first")
    second = shutil.copytree(checkpoint_dir("dinov2"), tmp_path / "second")

    def sha256(folder: Path) -> str | None:
        return fingerprint(parse_source(str(folder))).sha256

    whole = sha256(first)
    assert fingerprint(parse_source(str(first))).id == str(first)
    assert whole == sha256(second)
    (second / "README.md").write_text("a card")
    (second / "trainer_state.json").write_text("{}")
    (second / "checkpoint-10").mkdir()
    (second / "checkpoint-10" / "model.safetensors").write_bytes(b"older")
    assert sha256(second) == whole, "cards and training state are no part of a model"
    config = json.loads((second / "preprocessor_config.json").read_text())
    (second / "preprocessor_config.json").write_text(json.dumps(config | {"resample": 0}))
    assert sha256(second) != whole
    weights = bytearray((first / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (first / "model.safetensors").write_bytes(weights)
    assert sha256(first) not in (whole, sha256(second))


def test_a_hub_model_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    assert cached_models() == []
    assert fingerprint(parse_source("org/name")).revision is None
    snapshot = tmp_path / "models--org--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = tmp_path / "models--org--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    assert cached_models() == ["org/name"]
    assert fingerprint(parse_source("org/name")).revision == COMMIT
    assert fingerprint(parse_source("org/name@main")).revision == COMMIT
    assert fingerprint(parse_source(f"org/name@{COMMIT}")).revision == COMMIT
    assert fingerprint(parse_source("org/name@other")).revision is None


@pytest.mark.parametrize("text", ["timm:vit", "open_clip:a/b", "http://here"])
def test_other_sources_are_known_by_name_alone(text: str) -> None:
    known = fingerprint(parse_source(text))
    assert (known.id, known.revision, known.sha256) == (text, None, None)


def test_names_cost_no_torch() -> None:
    code = "import sys, eyechart.models, eyechart.models.sources, eyechart.zoo; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_loaders_are_reached_through_the_package() -> None:
    assert load_encoder is the_same
    with pytest.raises(AttributeError, match="has no attribute 'load_nothing'"):
        eyechart.models.load_nothing  # noqa: B018


def test_a_mistyped_folder_is_not_sought_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "ck" / "llava").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no folder 'ck/lava' here\. Did you mean 'ck/llava'"):
        parse_source("ck/lava")
    assert parse_source("org/lava").kind == "hub"
