"""`eyechart world`: contact sheets and rendered sets from the command line."""

import json

import pytest
from PIL import Image

from eyechart.cli import main
from eyechart.score import load_benchmark
from eyechart.world.sets import load_set


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(["world", *words])
    said = capsys.readouterr()
    assert isinstance(done.value.code, int)
    return done.value.code, said.out, said.err


def test_show_writes_a_page_a_picture_or_says_what_it_can_show(capsys, tmp_path):
    page = tmp_path / "text.html"
    code, out, err = run(capsys, "show", "text", "--pairs", "2", "--size", "48", "--out", str(page))
    assert (code, out, err) == (0, "", f"contact sheet: {page}\n")
    assert page.read_text("utf8").count("<img ") == 4
    picture = tmp_path / "cat.png"
    code, out, err = run(capsys, "show", "cat", "--size", "48", "--out", str(picture), "--json")
    assert (code, json.loads(out), err) == (0, {"sheet": str(picture), "strips": 1}, "")
    with Image.open(picture) as image:
        assert image.width > 4 * 48
    code, _, err = run(capsys, "show", "colour", "--out", str(page))
    assert code == 2
    assert "no pattern or kind of object named 'colour'. Did you mean 'color'?" in err
    code, _, err = run(capsys, "show", "color", "--out", "sheet.gif")
    assert code == 2
    assert "--out sheet.gif: a contact sheet is an .html, .png or .jpg file" in err
    code, _, err = run(capsys, "show", "color", "--kind", "twin", "--out", str(page))
    assert code == 2
    assert "Did you mean 'twins'?" in err
    code, _, err = run(capsys, "show", "color", "--size", "1000")
    assert code == 2
    assert "32 to 672 pixels a side, got 1000" in err


def test_show_without_out_writes_beside(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "show", "state", "--pairs", "1", "--size", "32")
    assert (code, err) == (0, "contact sheet: world-state.html\n")
    assert (tmp_path / "world-state.html").is_file()


def test_render_makes_a_benchmark_and_says_where(capsys, tmp_path):
    folder = str(tmp_path / "bench")
    words = ["render", folder, "--pairs", "1", "--pattern", "state", "--pattern", "text", "--size", "32"]
    words += ["--workers", "1", "--scene-seed", "7"]
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["folder"] == folder
    benchmark = load_benchmark(folder)
    assert [item.id for item in benchmark.items] == [
        f"{name}-0001{end}" for name in ("state", "text") for end in "ab"
    ]
    manifest = json.loads((tmp_path / "bench/manifest.json").read_text())
    assert (manifest["seed"], manifest["sha256"]) == (7, told["sha256"])
    assert manifest["rerun"].startswith("eyechart world render ")
    code, out, err = run(capsys, *words)
    assert (code, out) == (0, "")
    assert f"rendered: {folder} (sha256 {told['sha256'][:12]})" in err
    assert run(capsys, *words, "--quiet") == (0, "", "")
    code, _, err = run(capsys, *words[:-1], "8")
    assert code == 2
    assert "seed: 7 → 8" in err
    assert run(capsys, *words[:-1], "8", "--fresh", "--quiet")[0] == 0


def test_render_makes_a_set_of_scenes(capsys, tmp_path):
    words = [
        "--scenes",
        "6",
        "--members",
        "3",
        "--split",
        "train",
        "--size",
        "32",
        "--workers",
        "1",
        "--maps",
    ]
    code, _, err = run(capsys, "render", str(tmp_path / "set"), *words)
    assert code == 0
    assert "rendering" in err
    made = load_set(tmp_path / "set")
    assert made.images.shape == (6, 32, 32, 3)
    assert made.families.tolist() == [0, 0, 0, 1, 1, 1]
    assert made.parts is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scenes", "4", "--pairs", "2"], "--scenes makes a set of single scenes; --pairs and --pattern"),
        (["--scenes", "4", "--pattern", "text"], "give one"),
        (["--members", "2"], "--members 2 is for sets of single scenes: add --scenes"),
        (["--split", "trian"], "Did you mean 'train'?"),
        (["--pattern", "txt"], "Did you mean 'text'?"),
    ],
)
def test_what_does_not_go_together_is_said(capsys, tmp_path, words, said):
    code, out, err = run(capsys, "render", str(tmp_path / "new"), *words)
    assert (code, out) == (2, "")
    assert said in err
    assert not (tmp_path / "new").exists()
