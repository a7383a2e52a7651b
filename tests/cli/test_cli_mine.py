"""`eyechart mine` from the command line: what goes to stdout, what a person reads, and what is said about mistakes."""

import json

import pytest

from broken_images import encoded, scene
from eyechart.cli import main


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for place in range(8):
        (folder / f"{place}.png").write_bytes(encoded(scene(96, 96, seed=place), "PNG"))
    return folder


def run(capsys, *words):
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return done.value.code, out, err


def mined(capsys, photos, tmp_path, *more):
    named = ("--semantic", "zoo:clip-biased", "--reference", "zoo:two-view", "--out", tmp_path / "run")
    return run(capsys, "mine", photos, *named, "--min-semantic", "p50", "--max-reference", "p80", *more)


def test_a_person_reads_the_result_and_a_program_gets_json(capsys, photos, tmp_path):
    code, out, err = mined(capsys, photos, tmp_path, "--workers", "0")
    assert (code, out) == (0, "")
    assert "8 pictures, 0 unreadable, 8 different: 28 pairs compared, exactly" in err
    assert f"page: {tmp_path / 'run' / 'gallery.html'}" in err
    code, out, err = mined(capsys, photos, tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["certificate"]["pairs"] == 28
    assert "shown again" in err


def test_a_dry_run_lists_and_loads_nothing(capsys, photos, tmp_path):
    code, out, _ = run(capsys, "mine", photos, "--out", tmp_path / "run", "--dry-run")
    told = json.loads(out)
    assert (code, told["images"], told["exists"]) == (0, 8, False)
    assert told["reference"] == "facebook/dinov2-large"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            ("--min-semantic", "high"),
            "min_semantic is 'high': give a cosine between -1 and 1, or p and a percentile",
        ),
        (("--classes", "some"), "'some'"),
        (("--per-image", "0"), "per_image must be 1 or more, got 0"),
    ],
)
def test_mistakes_end_with_2_and_say_what_to_do(capsys, photos, tmp_path, more, words):
    code, _, err = mined(capsys, photos, tmp_path, *more)
    assert code == 2
    assert words in err
