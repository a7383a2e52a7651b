"""`eyechart bench`: what a set holds, why one cannot be scored, and one written for other tools."""

import json
from pathlib import Path

import pytest
from PIL import Image

from eyechart.cli import main
from eyechart.score import KINDS, load_benchmark
from eyechart.score.export import FORMATS
from small_world import small_world


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(list(words))
    said = capsys.readouterr()
    assert isinstance(done.value.code, int)
    return done.value.code, said.out, said.err


@pytest.fixture
def doors(tmp_path: Path) -> Path:
    """Three pairs in a folder; the second picture of the last cannot be opened."""
    rows = ["id,pair_id,question,options,answer,image,pattern"]
    for number in range(6):
        Image.new("RGB", (8 + number, 8), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
        pattern = "color" if number < 4 else "state"
        rows.append(
            f'{number},{number // 2},Is it red?,"(a) Yes (b) No",{"ab"[number % 2]},{number}.png,{pattern}'
        )
    (tmp_path / "5.png").write_bytes(b"no picture")
    (tmp_path / "questions.csv").write_text("\n".join(rows))
    return tmp_path


def test_list_shows_layouts_kinds_rules_and_exports(capsys):
    code, out, _ = run(capsys, "bench", "list", "--json")
    told = json.loads(out)
    assert code == 0
    assert set(told["kinds"]) == set(KINDS)
    assert set(told["exports"]) == set(FORMATS)
    assert "pairs" in told["rules"]
    code, out, _ = run(capsys, "bench", "list")
    assert code == 0
    assert "cv-bench" in out


def test_check_says_what_is_there_and_what_is_left_out(capsys, doors):
    code, out, _ = run(capsys, "bench", "check", str(doors), "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["items"], told["pairs"], told["in_source"]) == (4, 2, 6)
    assert told["patterns"] == {"color": 4}
    assert told["answers"] == {"A": 2, "B": 2}
    assert told["constant_answer"] == 0.5
    assert (told["chance_items"], told["chance_pairs"]) == (0.5, 0.25)
    assert told["image_sizes"] == {"8 x 8": 1, "9 x 8": 1, "10 x 8": 1, "11 x 8": 1}
    assert [row["reason"] for row in told["quarantined"]] == ["not_an_image"]
    assert told["sha256"] == load_benchmark(doors).sha256
    code, out, _ = run(capsys, "bench", "check", str(doors))
    assert code == 0
    for words in (
        "4 items in 2 pairs of 6",
        "by chance: 50.0% of items, 25.0% of pairs",
        "left out: ",
        "5.png",
    ):
        assert words in out, words


def test_a_set_that_cannot_be_scored_ends_with_2_and_every_reason(capsys, doors):
    text = (doors / "questions.csv").read_text()
    (doors / "questions.csv").write_text(
        text.replace('(b) No",b,1.png', '(b) No",a,1.png').replace(",b,3.png", ",c,3.png")
    )
    code, out, err = run(capsys, "bench", "check", str(doors))
    assert (code, out) == (2, "")
    assert "names none of the options" in err
    code, _, err = run(capsys, "bench", "check", str(doors), "--kind", "pair")
    assert code == 2
    assert "Did you mean 'pairs'?" in err
    code, _, err = run(capsys, "bench", "check", str(doors), "--pairs", "3")
    assert code == 2
    assert "draw scenes of the world" in err


def test_check_reads_captions_for_encoders_too(capsys, tmp_path):
    world = small_world(tmp_path / "world", pairs=2)
    code, out, _ = run(capsys, "bench", "check", str(world / "captions.parquet"), "--json")
    told = json.loads(out)
    assert code == 0
    assert told["what"] == "captions and images, for encoders"
    assert told["matches"] == 2
    code, _, err = run(
        capsys, "bench", "export", str(world / "captions.parquet"), "--to", "hf", "--out", str(tmp_path / "o")
    )
    assert code == 2
    assert "only sets of questions are exported" in err


def test_export_writes_the_set_and_says_where(capsys, doors, tmp_path):
    out_folder = tmp_path / "hub"
    code, out, err = run(capsys, "bench", "export", str(doors), "--to", "hf", "--out", str(out_folder))
    assert (code, out) == (0, "")
    assert "note: 1 pictures could not be used" in err
    assert f"4 items as eyechart_{doors.name.lower()}" in err
    again = load_benchmark(out_folder, images=tmp_path / "images")
    assert again.sha256 == load_benchmark(doors).sha256
    code, _, err = run(capsys, "bench", "export", str(doors), "--to", "hf", "--out", str(out_folder))
    assert code == 2
    assert "choose another --out" in err


def test_the_world_is_rendered_for_an_export(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "bench",
        "export",
        "world",
        "--to",
        "vlmevalkit",
        "--pairs",
        "1",
        "--limit",
        "1",
        "--out",
        "kit",
        "--json",
    ]
    code, out, _ = run(capsys, *words)
    told = json.loads(out)
    assert code == 0
    assert (told["items"], told["task"]) == (2, "eyechart_world")
    assert (tmp_path / "kit" / "eyechart_world.tsv").is_file()
