"""Where a run comes from: asked of git and of the installed packages, without importing any."""

import os
import subprocess
import sys
from datetime import datetime, timedelta
from importlib.metadata import version

import pytest

import eyechart
from eyechart.core import manifest
from eyechart.core.manifest import PACKAGES, git_state, now, provenance, versions

NOWHERE = {"commit": None, "dirty": None}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one committed file, and a function that runs git in it."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]

    def git(*words):
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--quiet")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "code.py").write_text("a = 1\n")
    git("add", ".")
    return tmp_path, git


class TestGit:
    def test_commit_and_whether_the_package_was_changed(self, checkout):
        folder, git = checkout
        assert git_state(folder / "package") == NOWHERE  # nothing committed yet
        git("commit", "--quiet", "-m", "first")
        commit = git("rev-parse", "HEAD")
        assert git_state(folder / "package") == {"commit": commit, "dirty": False}
        (folder / "runs.txt").write_text("outside of the package")
        assert git_state(folder / "package") == {"commit": commit, "dirty": False}
        (folder / "package" / "code.py").write_text("a = 2\n")
        assert git_state(folder / "package") == {"commit": commit, "dirty": True}
        git("checkout", "--quiet", ".")
        (folder / "package" / "new.py").write_text("")
        assert git_state(folder / "package") == {"commit": commit, "dirty": True}

    def test_a_package_installed_inside_somebody_elses_checkout_is_not_it(self, checkout):
        folder, git = checkout
        git("commit", "--quiet", "-m", "first")
        installed = folder / "venv" / "eyechart"
        installed.mkdir(parents=True)
        (installed / "code.py").write_text("")
        assert git_state(installed) == NOWHERE

    def test_no_checkout_at_all(self, tmp_path):
        assert git_state(tmp_path) == NOWHERE

    def test_no_git_and_a_git_that_hangs(self, checkout, monkeypatch):
        folder, git = checkout
        git("commit", "--quiet", "-m", "first")
        monkeypatch.setenv("PATH", "")
        assert git_state(folder / "package") == NOWHERE

        def hang(*args, **kwargs):
            raise subprocess.TimeoutExpired("git", 20)

        monkeypatch.setattr(manifest.subprocess, "run", hang)
        assert git_state(folder / "package") == NOWHERE

    def test_a_status_that_cannot_be_asked_counts_as_dirty(self, checkout, monkeypatch):
        folder, git = checkout
        git("commit", "--quiet", "-m", "first")
        ask = manifest._git
        monkeypatch.setattr(
            manifest, "_git", lambda where, *words: None if words[0] == "status" else ask(where, *words)
        )
        assert git_state(folder / "package") == {"commit": git("rev-parse", "HEAD"), "dirty": True}

    def test_asking_changes_nothing_in_the_repository(self, checkout):
        folder, git = checkout
        git("commit", "--quiet", "-m", "first")
        index = folder / ".git" / "index"
        os.utime(folder / "package" / "code.py", (1, 1))  # so that a status would refresh the index
        before = index.read_bytes()
        git_state(folder / "package")
        assert index.read_bytes() == before


def test_versions_are_those_installed_and_none_for_the_absent():
    found = versions(["numpy", "no-such-package"])
    assert found == {"numpy": version("numpy"), "no-such-package": None}
    assert set(versions()) == set(PACKAGES)


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from eyechart.core.manifest import provenance; assert provenance(['a'])['packages']['torch'];"
        "print(sorted({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_manifest_starts_with_all_it_needs():
    made = provenance(["eyechart", "exam", "my model", "--seed", "0"])
    assert made["eyechart"] == eyechart.__version__
    assert made["command"] == ["eyechart", "exam", "my model", "--seed", "0"]
    assert made["rerun"] == "eyechart exam 'my model' --seed 0"
    assert made["finished"] is None
    assert made["resumes"] == 0
    assert made["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(made["git"]) == {"commit", "dirty"}
    assert set(made) == {
        "eyechart", "command", "rerun", "started", "finished", "resumes", "git", "packages", "python", "platform",
    }  # fmt: skip


def test_times_are_utc_to_the_second():
    said = datetime.fromisoformat(now())
    assert said.utcoffset() == timedelta(0)
    assert said.microsecond == 0
