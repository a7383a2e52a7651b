"""lmms-eval run from here: what it is told, what is kept, and that its silent failures are noticed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from eyechart.core.errors import UserError
from eyechart.score.engine import VARIABLE, run_lmms_eval

FAKE = """#!{python}
import json, pathlib, sys

here = pathlib.Path({here!r})
if sys.argv[1] == "-c":
    print({versions!r})
    sys.exit()
words = sys.argv[1:]
calls = json.loads((here / "calls.json").read_text()) if (here / "calls.json").exists() else []
(here / "calls.json").write_text(json.dumps([*calls, words]))
how = (here / "how").read_text()
print("\\x1b[31mtalk of lmms-eval\\x1b[0m")
if how == "code":
    sys.exit(3)
if how == "silent":
    print("Error during evaluation: no such thing")
    sys.exit()
out = pathlib.Path(words[words.index("--output_path") + 1]) / "some__model"
out.mkdir(parents=True)
if how == "failed replies":
    print("Error out of memory in generating")
    print("Error out of memory in generating")
(out / "20260101_000000_results.json").write_text(json.dumps({{"results": {{}}, "model_name": "some"}}))
for task in words[words.index("--tasks") + 1].split(","):
    (out / f"20260101_000000_samples_{{task}}.jsonl").write_text(json.dumps({{"doc_id": 0}}) + "\\n")
"""


class Fake:
    """A python that has an lmms-eval, of a kind."""

    def __init__(self, folder: Path, versions: dict[str, str]) -> None:
        self.folder = folder
        self.path = folder / "python"
        text = FAKE.format(python=sys.executable, here=str(folder), versions=json.dumps(versions))
        self.path.write_text(text)
        self.path.chmod(0o755)
        self.does("well")

    def does(self, how: str) -> None:
        (self.folder / "how").write_text(how)

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder / "calls.json"
        return json.loads(path.read_text()) if path.exists() else []


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    (tmp_path / "env").mkdir()
    made = Fake(tmp_path / "env", {"lmms-eval": "0.7.3", "transformers": "5.24.0"})
    monkeypatch.setenv(VARIABLE, str(made.path))
    return made


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def test_it_is_told_what_was_asked_and_all_is_recorded(fake, tmp_path):
    logs = run_lmms_eval("zoo:llava-biased", ["gqa", "mmstar"], tmp_path / "run", limit=3)
    assert logs == tmp_path / "run" / "logs"
    assert len(list(logs.rglob("*_samples_*.jsonl"))) == 2
    (call,) = fake.calls
    assert call[:2] == ["-m", "lmms_eval"]
    assert (option(call, "--model"), option(call, "--tasks"), option(call, "--limit")) == (
        "llava_hf",
        "gqa,mmstar",
        "3",
    )
    args = dict(part.split("=") for part in option(call, "--model_args").split(","))
    assert Path(args["pretrained"]).name == "llava-biased"
    assert args["device_map"] == "cpu"
    assert "--log_samples" in call
    told = manifest(tmp_path / "run")
    assert told["finished"]
    assert told["engine"]["versions"]["lmms-eval"] == "0.7.3"
    assert "-m lmms_eval" in told["engine"]["command"]
    assert told["failed_replies"] == 0
    assert "talk of lmms-eval" in (tmp_path / "run" / "lmms_eval.log").read_text()


def test_a_finished_run_is_not_run_again_and_another_is_refused(fake, tmp_path):
    for _ in range(2):
        run_lmms_eval("zoo:llava-biased", ["gqa"], tmp_path / "run")
    assert len(fake.calls) == 1
    with pytest.raises(UserError, match="another config"):
        run_lmms_eval("zoo:llava-biased", ["mmstar"], tmp_path / "run")


@pytest.mark.parametrize(
    ("how", "said"), [("code", "exit code 3"), ("silent", "wrote 0 results and 0 logs of samples")]
)
def test_a_failure_ends_with_its_last_words_and_is_tried_again(fake, tmp_path, how, said):
    fake.does(how)
    with pytest.raises(UserError, match=said) as caught:
        run_lmms_eval("zoo:llava-biased", ["gqa"], tmp_path / "run")
    assert "  talk of lmms-eval" in str(caught.value)  # without the signs that colour it
    assert not manifest(tmp_path / "run")["finished"]
    fake.does("well")
    run_lmms_eval("zoo:llava-biased", ["gqa"], tmp_path / "run")
    assert manifest(tmp_path / "run")["finished"]


def test_what_an_unfinished_attempt_left_is_no_part_of_the_next(fake, tmp_path):
    fake.does("silent")
    with pytest.raises(UserError):
        run_lmms_eval("zoo:llava-biased", ["gqa"], tmp_path / "run")
    old = tmp_path / "run" / "logs" / "old"
    old.mkdir(parents=True)
    (old / "1_samples_gqa.jsonl").write_text("{}\n")
    fake.does("well")
    logs = run_lmms_eval("zoo:llava-biased", ["gqa"], tmp_path / "run")
    assert [path.name for path in logs.rglob("*.jsonl")] == ["20260101_000000_samples_gqa.jsonl"]


def test_replies_that_could_not_be_generated_are_counted(fake, tmp_path, caplog):
    fake.does("failed replies")
    run_lmms_eval("zoo:llava-biased", ["gqa"], tmp_path / "run")
    assert manifest(tmp_path / "run")["failed_replies"] == 2
    assert "2 replies could not be generated" in caplog.text
    assert "out of memory" in caplog.text


def test_task_folders_are_named_and_included(fake, tmp_path):
    for name in ("one", "two"):
        (tmp_path / "tasks" / name).mkdir(parents=True)
        text = f"task: my_{name}\nprocess_results: !function utils.score\n"
        (tmp_path / "tasks" / name / f"{name}.yaml").write_text(text)
    folders = [str(tmp_path / "tasks" / name) for name in ("one", "two")]
    run_lmms_eval("zoo:llava-biased", [folders[0], "gqa"], tmp_path / "run")
    run_lmms_eval("zoo:llava-biased", folders, tmp_path / "both")
    first, second = fake.calls
    assert (option(first, "--tasks"), option(first, "--include_path")) == ("my_one,gqa", folders[0])
    assert (option(second, "--tasks"), option(second, "--include_path")) == (
        "my_one,my_two",
        str(tmp_path / "tasks"),
    )
    (tmp_path / "else").mkdir()
    with pytest.raises(UserError, match="holds no task"):
        run_lmms_eval("zoo:llava-biased", [str(tmp_path / "else")], tmp_path / "new")
    with pytest.raises(UserError, match="no task folder"):
        run_lmms_eval("zoo:llava-biased", [str(tmp_path / "nowhere")], tmp_path / "new")


def test_its_own_words_for_a_model_are_handed_on(fake, tmp_path):
    run_lmms_eval("qwen2_5_vl:pretrained=Qwen/Qwen2.5-VL-3B-Instruct", ["gqa"], tmp_path / "a")
    run_lmms_eval("vllm", ["gqa"], tmp_path / "b", model_args="model=some/model")
    one, two = fake.calls
    assert (option(one, "--model"), option(one, "--model_args")) == (
        "qwen2_5_vl",
        "pretrained=Qwen/Qwen2.5-VL-3B-Instruct",
    )
    assert (option(two, "--model"), option(two, "--model_args")) == ("vllm", "model=some/model")


def test_a_model_it_has_no_class_for_is_refused(fake, tmp_path):
    with pytest.raises(
        UserError, match=r"is a 'clip', for which no class of lmms-eval is known .*CLASS|class and"
    ):
        run_lmms_eval("zoo:clip-biased", ["gqa"], tmp_path / "run")
    with pytest.raises(UserError, match="async_openai:"):
        run_lmms_eval("http://localhost:1/v1", ["gqa"], tmp_path / "run")
    assert fake.calls == []


def test_without_lmms_eval_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "no-python"))
    with pytest.raises(UserError, match="there is no python at"):
        run_lmms_eval("zoo:llava-biased", ["gqa"], tmp_path / "run")
    (tmp_path / "env").mkdir()
    bare = Fake(tmp_path / "env", {"python": "3.11"})
    with pytest.raises(UserError, match="has no lmms-eval; install it there"):
        run_lmms_eval("zoo:llava-biased", ["gqa"], tmp_path / "run", python=bare.path)
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"export {VARIABLE}="):
        run_lmms_eval("zoo:llava-biased", ["gqa"], tmp_path / "run")
    assert not (tmp_path / "run").exists()
