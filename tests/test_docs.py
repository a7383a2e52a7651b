"""Every example in the README and the docs runs: shell lines that start with `eyechart`, and Python blocks."""

import re
import shlex
from pathlib import Path

import pytest

from eyechart.cli import main
from part_makers import box, index_folder
from pictures import picture
from small_world import small_world

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.M | re.S)


def examples(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for kind, text in BLOCK.findall(page.read_text("utf8")):
            if kind == language == "python":
                found.append((page.name, text))
            elif kind == language:
                found += [(page.name, line) for line in text.splitlines() if line.startswith("eyechart ")]
    return found


@pytest.fixture
def workplace(tmp_path, monkeypatch, checkpoint_dir):
    """A folder with what the docs speak of: a model, two encoders, a benchmark and photos."""
    (tmp_path / "my-clip").symlink_to(checkpoint_dir("clip"))
    (tmp_path / "photos").mkdir()
    for place in range(12):
        picture(64, 48, seed=place).save(tmp_path / "photos" / f"{place}.png")
    (tmp_path / "my-llava").symlink_to(checkpoint_dir("llava"))
    (tmp_path / "my-dinov2").symlink_to(checkpoint_dir("dinov2"))
    small_world(tmp_path / "my-benchmark", pairs=9)
    masks = {
        str(number): box(10, 10, 60, 60, 96, 96) * 1 + box(60, 60, 90, 90, 96, 96) * 2 for number in range(3)
    }
    index_folder(tmp_path / "my-masks", masks, {"1": "head", "2": "tail"})
    monkeypatch.setattr(
        "eyechart.exam.locating.TWINS", 10
    )  # as few as are read: the numbers play no part here
    monkeypatch.chdir(tmp_path)


def test_the_docs_hold_examples():
    assert len(examples("sh")) >= 5
    assert examples("python")


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), examples("sh"))
def test_shell_example(page, line, workplace):
    for command in line.split("&&"):
        words = shlex.split(command, comments=True)[1:]
        if words[0] == "exam" and "--on" not in words:
            words += ["--pairs", "3"]  # the whole of it is the README's main command
        with pytest.raises(SystemExit) as done:
            main(words)
        assert done.value.code == 0, f"{page}: {line}"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "code"), examples("python"))
def test_python_example(page, code, workplace):
    exec(compile(code, page, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
