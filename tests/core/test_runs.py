"""The run folder: begun, continued, killed at any moment, locked, started over; and left alone when not ours."""

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core import files, lock, manifest, runs
from eyechart.core.errors import UserError
from eyechart.core.files import JsonLines
from eyechart.core.lock import LOCK, FolderLock
from eyechart.core.records import Quarantined
from eyechart.core.runs import QUARANTINE_SCHEMA, RunFolder, differences, read_quarantine

# Python 3.12 and later warn of forks in processes with threads; the children here touch files only.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

CONFIG = {"model": "m", "seed": 0, "limits": {"like": 0.95, "unlike": 0.6}, "layers": [1, 2]}
COMMAND = ["eyechart", "exam", "m"]
SCHEMA = pa.schema([("id", pa.string()), ("score", pa.float64())])


def begin(folder, config=CONFIG, **options):
    return RunFolder.open(folder, config=config, command=COMMAND, **options)


@pytest.fixture
def quick(monkeypatch):
    """Spare what hundreds of runs need not do: ask git, and wait for the disk (a killed process loses no cache)."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    here = runs.surroundings()
    monkeypatch.setattr(runs, "surroundings", lambda: here)
    monkeypatch.setattr(manifest, "surroundings", lambda: here)


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text("utf8"))


def contents(folder):
    """Hashes of all files but the manifest, which holds times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def forked(do):
    """The id of a child process that runs `do`, and dies of anything that goes wrong in it."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        do()
        code = 0
    finally:
        os._exit(code)


def died_at(step, do):
    """Run `do` in a process that dies, tidying nothing, before its `step`-th call to the disk; 0 if it came through."""
    calls = ((os, "open"), (os, "write"), (os, "fsync"), (os, "truncate"), (os, "ftruncate"))
    left = [step]

    def counted(real):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return real(*args, **kwargs)

        return call

    def doomed():
        for owner, name in (
            *calls,
            (Path, "replace"),
            (Path, "unlink"),
            (Path, "rmdir"),
            (Path, "mkdir"),
            (Path, "open"),
        ):
            setattr(owner, name, counted(getattr(owner, name)))  # in the child only
        do()

    _, status = os.waitpid(forked(doomed), 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code


def work(folder, items=8, pause=0.0):
    """A whole run, from wherever it stands to its end."""
    with begin(folder) as run:
        if run.finished:
            return
        samples = run.jsonl("samples_exam.jsonl", key="doc_id")
        for number in range(items):
            name = f"item {number}"
            if name not in samples:
                time.sleep(pause)
                run.write_bytes(f"thumbs/{number % 3}.jpg", bytes([number % 3]) * 50)
                samples.append({"doc_id": name, "reply": "ü" * number, "score": number / 7})
        samples.finalise(sorted(samples.done, reverse=True))
        run.write_table(
            "pairs.parquet", [{"id": row["doc_id"], "score": row["score"]} for row in samples], SCHEMA
        )
        run.write_quarantine([Quarantined(path="a\\udcff.png", reason="empty", detail="0 bytes")])
        run.write_json("results.json", {"n": len(samples)})
        run.write_text("report.html", "<p>naïve</p>")
        run.finish()


class TestBeginning:
    def test_a_new_folder_says_what_it_is(self, tmp_path):
        with begin(tmp_path / "runs" / "one", given={"model": "m"}) as run:
            assert not run.finished
            run.finish()
            assert run.finished
        folder = tmp_path / "runs" / "one"
        assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "manifest.json"]
        assert yaml.safe_load((folder / "config.yaml").read_text()) == CONFIG
        manifest = manifest_of(folder)
        assert manifest["command"] == COMMAND
        assert manifest["rerun"] == "eyechart exam m"
        assert manifest["given"] == {"model": "m"}
        assert manifest["finished"] >= manifest["started"]
        assert manifest["resumes"] == 0

    def test_the_config_keeps_the_order_of_its_keys(self, tmp_path):
        begin(tmp_path / "run").close()
        assert list(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())) == list(CONFIG)

    def test_an_empty_folder_will_do(self, tmp_path):
        begin(tmp_path).close()
        assert manifest_of(tmp_path)["finished"] is None

    def test_a_config_must_be_storable(self, tmp_path):
        with pytest.raises(TypeError, match="PosixPath is not JSON serializable"):
            begin(tmp_path / "run", {"out": Path("a")})
        with pytest.raises(ValueError, match="not JSON compliant"):
            begin(tmp_path / "run", {"share": float("nan")})
        assert not (tmp_path / "run").exists()

    def test_a_beginning_that_fails_can_be_begun_again(self, tmp_path, monkeypatch):
        def fails(*args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(runs, "provenance", fails)
            with pytest.raises(KeyboardInterrupt):
                begin(tmp_path)
        assert list(tmp_path.iterdir()) == []
        begin(tmp_path).close()


class TestNotOurs:
    def test_a_folder_with_other_things_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("x")
        for fresh in (False, True):
            with pytest.raises(
                UserError, match=r"is not empty and not a run folder \(it holds 'thesis.tex'\); choose"
            ):
                begin(tmp_path, fresh=fresh)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    @pytest.mark.parametrize("content", ["{}", '{"name": "a web app"}', "[]", '{"eyechart": "0.1.0"}'])
    def test_another_programs_manifest(self, content, tmp_path):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(
            UserError, match=r"manifest\.json is not the manifest of an eyechart run; choose another"
        ):
            begin(tmp_path, fresh=True)

    def test_a_manifest_that_is_no_json(self, tmp_path):
        (tmp_path / "manifest.json").write_text("{")
        with pytest.raises(UserError, match=r"manifest\.json is not JSON"):
            begin(tmp_path)

    def test_a_file_and_a_place_that_cannot_be(self, tmp_path):
        (tmp_path / "file").write_text("x")
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        with pytest.raises(UserError, match="file is a file; --out names a folder"):
            begin(tmp_path / "file")
        with pytest.raises(UserError, match=r"link \(File exists\); choose another --out"):
            begin(tmp_path / "link")
        with pytest.raises(UserError, match="inside is a file; --out names a folder"):
            begin(tmp_path / "file" / "inside")

    def test_a_folder_that_may_not_be_read_or_written(self, tmp_path, monkeypatch):
        def fails(*args, **kwargs):
            raise PermissionError(errno.EACCES, "Permission denied")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "iterdir", fails)
            with pytest.raises(
                UserError, match=r"cannot be looked into \(Permission denied\); choose another --out"
            ):
                begin(tmp_path)
        monkeypatch.setattr(Path, "mkdir", fails)
        with pytest.raises(
            UserError, match=r"nothing can be written in .* \(Permission denied\); choose another"
        ):
            begin(tmp_path / "new")


class TestContinuing:
    def test_the_same_config_goes_on_and_the_first_start_is_kept(self, tmp_path, monkeypatch):
        work_in = tmp_path / "run"
        with begin(work_in) as run:
            run.jsonl("samples.jsonl", key="id").append({"id": 1})
        monkeypatch.setattr(runs, "now", lambda: "2100-01-01T00:00:00+00:00")
        with RunFolder.open(
            work_in, config=dict(reversed(CONFIG.items())), command=["another", "word"]
        ) as run:
            assert run.jsonl("samples.jsonl", key="id").done == (1,)
            assert run.manifest["command"] == COMMAND
        begin(work_in).close()
        manifest = manifest_of(work_in)
        assert manifest["started"] < "2100"
        assert manifest["resumes"] == 2
        assert manifest["resumed"] == [{"at": "2100-01-01T00:00:00+00:00", "changed": []}] * 2

    def test_changed_versions_are_noted_and_said(self, tmp_path, monkeypatch, caplog):
        begin(tmp_path).close()
        here = runs.surroundings()
        monkeypatch.setattr(
            runs, "surroundings", lambda: here | {"packages": here["packages"] | {"torch": "9.9"}}
        )
        begin(tmp_path).close()
        changed = manifest_of(tmp_path)["resumed"][0]["changed"]
        assert [line.partition(" → ")[2] for line in changed] == ['"9.9"']
        assert "goes on under other versions: packages.torch: " in caplog.text

    def test_a_finished_run_stays_as_it_is(self, tmp_path):
        work(tmp_path / "run")
        before = contents(tmp_path / "run"), manifest_of(tmp_path / "run")
        with begin(tmp_path / "run") as run:
            assert run.finished
        assert (contents(tmp_path / "run"), manifest_of(tmp_path / "run")) == before

    def test_another_config_is_refused_with_what_differs_and_the_way_out(self, tmp_path):
        begin(tmp_path).close()
        other = {
            "model": "m",
            "seed": 1,
            "limits": {"like": 0.9, "unlike": 0.6},
            "layers": [1],
            "ask": "generate",
        }
        with pytest.raises(UserError, match="holds a run with another config") as caught:
            begin(tmp_path, other)
        assert str(caught.value).splitlines()[1:] == [
            "  seed: 0 → 1",
            "  limits.like: 0.95 → 0.9",
            "  layers: [1, 2] → [1]",
            '  ask: (not set) → "generate"',
            "Start it over with --fresh, or choose another --out.",
        ]
        begin(tmp_path).close()  # the lock was let go

    def test_a_config_that_cannot_be_read(self, tmp_path):
        begin(tmp_path).close()
        for content in (None, b"a: [", b"\xff"):
            if content is None:
                (tmp_path / "config.yaml").unlink()
            else:
                (tmp_path / "config.yaml").write_bytes(content)
            with pytest.raises(
                UserError, match=r"config\.yaml cannot be read .* use --fresh or another --out"
            ):
                begin(tmp_path)
        begin(tmp_path, fresh=True).close()
        assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == CONFIG


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=5), plain_values, max_size=4))
def test_any_config_is_the_same_after_its_yaml(config):
    assert differences(yaml.safe_load(runs._yaml(config)), config) == []


def test_differences_tell_types_and_absence_apart():
    assert differences({"a": 1, "b": None}, {"a": 1.0, "c": None}) == [
        "a: 1 → 1.0",
        "b: null → (not set)",
        "c: (not set) → null",
    ]
    assert differences({"a": {}}, {"a": {"x": 1}}) == ["a: {} → (not set)", "a.x: (not set) → 1"]
    assert differences({}, {}) == []


class TestFresh:
    def test_it_removes_what_the_run_made_and_nothing_else(self, tmp_path):
        folder = tmp_path / "run"
        work(folder)
        mine = {"notes.txt": b"mine", "thumbs/mine.txt": b"mine", "samples_mine.jsonl": b"mine"}
        for name, content in mine.items():
            (folder / name).write_bytes(content)
        with begin(folder, {"model": "other"}, fresh=True) as run:
            assert run.jsonl("samples_exam.jsonl", key="doc_id").done == ()
            assert not run.finished
            assert run.manifest["resumes"] == 0
        left = {path for path in contents(folder) if path not in ("config.yaml", "samples_exam.jsonl")}
        assert left == set(mine)
        assert all((folder / name).read_bytes() == content for name, content in mine.items())

    def test_empty_subfolders_go_too_and_files_others_wrote_for_the_run(self, tmp_path):
        with begin(tmp_path) as run:
            place = run.own("embeddings/model/shard-00000.safetensors")
            place.parent.mkdir(parents=True)
            for number in range(3):
                (place.parent / f"shard-0000{number}.safetensors").write_bytes(b"x")
            run.write_bytes("thumbs/a.jpg", b"x")
        begin(tmp_path, fresh=True).close()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "manifest.json"]

    def test_a_new_folder_may_be_fresh(self, tmp_path):
        begin(tmp_path / "new", fresh=True).close()
        assert manifest_of(tmp_path / "new")["finished"] is None

    @pytest.mark.slow
    def test_killed_while_it_clears_a_run_is_finished_only_with_all_its_files(self, tmp_path, quick):
        work(tmp_path / "again")
        wanted = contents(tmp_path / "again")
        cleared = 0
        for step in range(1, 100):
            folder = tmp_path / str(step)
            work(folder)
            if died_at(step, lambda folder=folder: begin(folder, fresh=True).close()) == 0:
                break
            left = {name: content for name, content in contents(folder).items() if not name.startswith(".")}
            if (folder / "manifest.json").exists() and manifest_of(folder)["finished"]:
                assert left == wanted
            else:
                cleared += left != wanted
            work(folder)
            assert contents(folder) == wanted
        assert cleared > 6


class TestNames:
    @pytest.mark.parametrize(
        "name", ["", "/etc/passwd", "../up.json", "a/../../b", "manifest.json", "thumbs/.hidden", ".lock"]
    )
    def test_names_that_lead_out_or_hide_are_bugs(self, name, tmp_path):
        with begin(tmp_path) as run, pytest.raises(ValueError, match="is no name for a file of a run folder"):
            run.write_text(name, "x")

    def test_one_file_one_key(self, tmp_path):
        with begin(tmp_path) as run:
            assert run.jsonl("s.jsonl", key="id") is run.jsonl("s.jsonl", key="id")
            with pytest.raises(ValueError, match=r"s\.jsonl is open with key 'id', not 'name'"):
                run.jsonl("s.jsonl", key="name")

    def test_a_manifest_that_cannot_be_stored_is_not_changed(self, tmp_path):
        with begin(tmp_path) as run:
            with pytest.raises(TypeError, match="set is not JSON serializable"):
                run.update_manifest(model={1})
            assert "model" not in run.manifest
            run.manifest["finished"] = "now"  # a copy
            assert not run.finished


class TestQuarantine:
    def test_rows_come_back(self, tmp_path):
        rows = [
            Quarantined(path="ü\n.png", reason="damaged", detail="x"),
            Quarantined(path="b", reason="empty", detail="0 bytes"),
        ]
        with begin(tmp_path) as run:
            run.write_quarantine(iter(rows))
        assert read_quarantine(tmp_path / "quarantine.parquet") == rows

    def test_an_empty_one(self, tmp_path):
        with begin(tmp_path) as run:
            run.write_quarantine([])
        assert read_quarantine(tmp_path / "quarantine.parquet") == []
        assert QUARANTINE_SCHEMA.names == ["path", "reason", "detail"]

    def test_a_table_of_other_things(self, tmp_path):
        with begin(tmp_path) as run:
            run.write_table("t.parquet", [{"id": "a", "score": 1.0}], SCHEMA)
        with pytest.raises(UserError, match=r"t\.parquet is not a quarantine table"):
            read_quarantine(tmp_path / "t.parquet")
        with pytest.raises(UserError, match="there is no table"):
            read_quarantine(tmp_path / "no.parquet")


class TestLock:
    def test_a_second_opening_names_the_process(self, tmp_path):
        with (
            begin(tmp_path),
            pytest.raises(UserError, match=rf"in use by another process \(pid {os.getpid()}\); wait"),
        ):
            begin(tmp_path, fresh=True)
        begin(tmp_path).close()

    def test_another_process_is_kept_out_until_this_one_dies(self, tmp_path):
        code = f"""
            import time
            from eyechart.core.runs import RunFolder
            run = RunFolder.open({str(tmp_path)!r}, config={CONFIG!r}, command={COMMAND!r})
            print("open", flush=True)
            time.sleep(60)
        """
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
        )
        with child:
            assert child.stdout.readline() == "open\n"
            with pytest.raises(UserError, match=rf"\(pid {child.pid}\)"):
                begin(tmp_path)
            child.kill()
        assert (tmp_path / LOCK).exists()
        with begin(tmp_path) as run:
            assert run.manifest["resumes"] == 1
        assert not (tmp_path / LOCK).exists()

    def test_closing_twice_does_not_take_the_lock_from_the_next(self, tmp_path):
        first = begin(tmp_path)
        first.close()
        with begin(tmp_path):
            first.close()
            assert (tmp_path / LOCK).exists()

    def test_a_lock_file_removed_between_opening_and_locking_is_taken_anew(self, tmp_path, monkeypatch):
        real, calls = lock.fcntl.flock, []

        def late(handle, how):
            if not calls:
                (tmp_path / LOCK).unlink()  # as the last holder does when it lets go
            calls.append(how)
            real(handle, how)

        monkeypatch.setattr(lock.fcntl, "flock", late)
        held = FolderLock(tmp_path)
        assert len(calls) == 2
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"
        held.release()

    def test_a_file_system_without_locks_warns(self, tmp_path, monkeypatch, caplog):
        def none(handle, how):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(lock.fcntl, "flock", none)
        begin(tmp_path / "run").close()
        assert "this file system has no locks; let only one process write here" in caplog.text

    def test_other_lock_errors_are_said(self, tmp_path, monkeypatch):
        def fails(handle, how):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(lock.fcntl, "flock", fails)
        with pytest.raises(UserError, match=r"nothing can be written in .* \(Input/output error\)"):
            begin(tmp_path / "run")


class TestKilled:
    @pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.slow)])
    def test_killed_before_any_step_it_ends_the_same(self, stride, tmp_path, caplog, quick):
        """Every open, write, sync, rename and removal of a whole run is, in turn, the one that is not made."""
        caplog.set_level("ERROR")
        work(tmp_path / "unbroken", items=2)
        wanted = contents(tmp_path / "unbroken")
        for step in range(1, 1000, stride):
            folder = tmp_path / str(step)
            if died_at(step, lambda folder=folder: work(folder, items=2)) == 0:
                break
            work(folder, items=2)
            assert contents(folder) == wanted, f"after a death at step {step}"
            assert manifest_of(folder)["finished"] is not None
        assert step > 50

    def test_killed_at_random_moments_until_done_it_ends_the_same(self, tmp_path, quick):
        rng, kills, resumed = random.Random(5), 0, 0
        while True:
            child = forked(lambda: work(tmp_path / "killed", items=40, pause=0.004))
            if kills < 20:
                time.sleep(rng.uniform(0.0, 0.06))
                os.kill(child, signal.SIGKILL)
                kills += 1
            _, status = os.waitpid(child, 0)
            if kills >= 20 and os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0
                break
            if (tmp_path / "killed" / "samples_exam.jsonl").exists():
                resumed += 1
        work(tmp_path / "unbroken", items=40)
        assert contents(tmp_path / "killed") == contents(tmp_path / "unbroken")
        assert manifest_of(tmp_path / "killed")["finished"] is not None
        assert 0 < resumed

    def test_what_a_kill_left_half_written_is_removed(self, tmp_path):
        begin(tmp_path).close()
        (tmp_path / "thumbs").mkdir()
        rubbish = [
            tmp_path / f".results.json{files.TEMPORARY}",
            tmp_path / "thumbs" / f".a.jpg{files.TEMPORARY}",
        ]
        for path in rubbish:
            path.write_bytes(b"half")
        begin(tmp_path).close()
        assert not any(path.exists() for path in rubbish)

    def test_killed_before_the_manifest_it_is_still_ours(self, tmp_path):
        (tmp_path / LOCK).write_text("1\n")
        (tmp_path / "config.yaml").write_text("half: [")
        begin(tmp_path).close()
        assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == CONFIG

    def test_a_torn_line_costs_one_record(self, tmp_path):
        with begin(tmp_path) as run:
            for number in range(3):
                run.jsonl("s.jsonl", key="id").append({"id": number})
        os.truncate(tmp_path / "s.jsonl", (tmp_path / "s.jsonl").stat().st_size - 3)
        with begin(tmp_path) as run:
            lines = run.jsonl("s.jsonl", key="id")
            assert isinstance(lines, JsonLines)
            assert (lines.done, lines.healed) == ((0, 1), 7)
