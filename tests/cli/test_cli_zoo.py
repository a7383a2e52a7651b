"""`eyechart zoo`: what is bundled, how good it is, where it lies; and that an empty zoo says so."""

import json

import pytest

from eyechart import zoo
from eyechart.cli import main
from eyechart.cli.zoo import headline
from eyechart.core.stats import wilson


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(["zoo", *words])
    said = capsys.readouterr()
    assert isinstance(done.value.code, int)
    return done.value.code, said.out, said.err


HALF = wilson(50, 100).to_dict()
CARDS = {
    "llava-biased": {"vlm": {"picture": {"score": {"pairs": HALF}}, "blank": {"score": {"images": HALF}}}},
    "clip-biased": {"clip": {"zero_shot": {"kind": HALF, "chance": {"kind": 1 / 14}}}, "siblings": {}},
    "mae": {"siblings": {"cls": {"all": wilson(1, 9).to_dict()}, "mean_patch": {"all": HALF}}},
    "lm": {"language": {"perplexity": {"value": 2.345}, "unigram": 61.23}},
}
RATE = "50% [40%, 60%], n=100"


@pytest.fixture
def cage(tmp_path, monkeypatch):
    """A zoo of five, the last without a card."""
    types = {"llava-biased": "llava", "clip-biased": "clip", "mae": "vit", "lm": "llama", "new": "dinov2"}
    for name, kind in types.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": kind}))
        if name in CARDS:
            (tmp_path / name / "card.json").write_text(json.dumps(CARDS[name]))
            (tmp_path / name / "README.md").write_text(f"# {name}\n")
    (tmp_path / "mae/model.safetensors").write_bytes(b"0" * 2_500_000)
    monkeypatch.setattr(zoo, "_MODELS", tmp_path)
    return tmp_path


def test_an_empty_zoo_says_so(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_MODELS", tmp_path)
    code, out, err = run(capsys, "list")
    assert (code, out, err) == (0, "no bundled models in this version; train them: eyechart train zoo\n", "")
    assert json.loads(run(capsys, "list", "--json")[1]) == {"zoo": []}
    for words in (["card", "mae"], ["path", "mae"]):
        code, out, err = run(capsys, *words)
        assert (code, out) == (2, "")
        assert "zoo:mae cannot be found: no bundled models in this version" in err


def test_the_list_shows_name_kind_size_and_a_line_of_the_card(capsys, cage):
    code, out, _ = run(capsys, "list")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0
    assert list(lines) == zoo.names()
    assert "vision-only encoder" in lines["mae"]
    assert "2.5 MB" in lines["mae"]
    assert f"tells siblings apart {RATE} (mean_patch), chance 50%" in lines["mae"]
    assert f"pairs right {RATE}, chance 25%; items with a blank picture {RATE}" in lines["llava-biased"]
    assert f"names the object {RATE}, chance 7%" in lines["clip-biased"]
    assert "perplexity 2.35, by single tokens 61.2" in lines["lm"]
    assert lines["new"].endswith("no card")
    rows = json.loads(run(capsys, "list", "--json")[1])["zoo"]
    assert [row["name"] for row in rows] == zoo.names()
    assert {row["name"]: row["kind"] for row in rows}["llava-biased"] == "vision-language model"
    assert next(row for row in rows if row["name"] == "new")["summary"] is None
    assert headline({}) is None


def test_cards_and_paths(capsys, cage):
    assert run(capsys, "card", "mae") == (0, "# mae\n", "")
    assert json.loads(run(capsys, "card", "lm", "--json")[1]) == CARDS["lm"]
    assert run(capsys, "path", "zoo:mae") == (0, f"{cage / 'mae'}\n", "")
    code, _, err = run(capsys, "card", "new")
    assert code == 2
    assert f"zoo:new has no card (README.md is not in {cage / 'new'})" in err
    code, _, err = run(capsys, "path", "llava-biasd")
    assert code == 2
    assert "no zoo model named 'llava-biasd'. Did you mean 'llava-biased'?" in err
