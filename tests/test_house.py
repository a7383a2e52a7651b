"""The house stands as drawn: cheap imports, a true tree in the README, one voice in the command line."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import eyechart

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "eyechart"


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    "code",
    [
        "import eyechart",
        "import eyechart.cli",
        "from eyechart.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit as done:\n    assert not done.code",
        "from eyechart.cli import main\ntry:\n    main(['exam', '--help'])\nexcept SystemExit as done:\n    assert not done.code",
    ],
    ids=["import", "cli", "help", "exam-help"],
)
def test_importing_and_help_load_nothing_heavy(code):
    heavy = "torch", "transformers", "pyarrow", "datasets", "scipy", "PIL"
    done = run_python(
        f"{code}\nimport sys, json\nprint()\nprint(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_heavy_check_can_fail():
    done = run_python("import numpy, sys\nprint('numpy' in sys.modules)")
    assert done.stdout.strip() == "True"


def room_lines() -> dict[str, str]:
    """Each room (package or module at the top) and the first sentence of its docstring."""
    rooms = {}
    for path in sorted(PACKAGE.iterdir()):
        source = path / "__init__.py" if path.is_dir() else path
        if source.suffix != ".py" or not source.exists() or path.name in ("__init__.py", "__main__.py"):
            continue
        text = ast.get_docstring(ast.parse(source.read_text("utf8"))) or ""
        rooms[path.name] = " ".join(text.split()).partition(". ")[0].rstrip(".")
    return rooms


def test_the_readme_draws_the_package():
    readme = (ROOT / "README.md").read_text("utf8")
    tree = [" ".join(line.split()) for line in readme.splitlines()]
    for name, sentence in room_lines().items():
        assert sentence, f"{name} has no docstring"
        shown = name if name.endswith(".py") else f"{name}/"
        assert f"{shown} {sentence}" in tree, f"the README's tree is behind the code: {shown} {sentence}"


def test_every_module_says_what_it_is():
    silent = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if not (ast.get_docstring(ast.parse(path.read_text("utf8"))) or "").strip(". \n")
    ]
    assert silent == []


def test_public_names_load_on_first_use_and_unknown_ones_are_refused():
    assert callable(eyechart.examine)
    assert "examine" in dir(eyechart)
    with pytest.raises(AttributeError, match="no 'examin' in eyechart; public names: examine"):
        _ = eyechart.examin
