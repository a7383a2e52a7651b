"""The zoo: a name gives a folder, nothing more."""

from pathlib import Path

import pytest

from eyechart import zoo
from eyechart.core.errors import UserError
from eyechart.models.sources import Source, fingerprint, parse_source


@pytest.fixture
def cage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of one model, and a folder beside it that is none."""
    (tmp_path / "clip-small").mkdir()
    (tmp_path / "clip-small" / "config.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    monkeypatch.setattr(zoo, "_MODELS", tmp_path)
    return tmp_path


def test_every_name_has_a_folder_with_a_config() -> None:
    assert all((zoo.path(name) / "config.json").is_file() for name in zoo.names())


def test_a_name_is_a_folder(cage: Path) -> None:
    assert zoo.names() == ["clip-small"]
    assert zoo.path("clip-small") == cage / "clip-small"
    source = parse_source("zoo:clip-small")
    assert source == Source(kind="zoo", name="clip-small")
    assert source.location == str(cage / "clip-small")
    assert len(fingerprint(source).sha256 or "") == 64


def test_a_name_that_is_not_there(cage: Path) -> None:
    with pytest.raises(UserError, match=r"no zoo model named 'clip-smal'\. Did you mean 'clip-small'"):
        zoo.path("clip-smal")
    with pytest.raises(UserError, match="no zoo model named 'notes'"):
        parse_source("zoo:notes")
    with pytest.raises(UserError, match=r"no zoo model named '\.\./notes'"):
        zoo.path("../notes")


def test_a_short_name_is_that_of_the_model_it_stands_for(cage: Path) -> None:
    (cage / "llava-biased").mkdir()
    (cage / "llava-biased" / "config.json").write_text("{}")
    assert parse_source("zoo:llava").id == "zoo:llava-biased"
    assert zoo.path("llava") == cage / "llava-biased"
    with pytest.raises(UserError, match="no zoo model named 'imof'"):
        zoo.path("imof")


def test_short_names_stand_for_bundled_models_and_are_none_themselves() -> None:
    assert not set(zoo.SHORT) & set(zoo.names())
