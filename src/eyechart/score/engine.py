"""Tasks of lmms-eval run in an environment that has it, so that benchmarks we do not rebuild are scored by who keeps them.

Its samples stay as it wrote them; `score.logs` reads them. lmms-eval ends with exit code 0 even where it failed, and
takes a reply that could not be generated for an empty one: both are noticed here by what it wrote.
"""

import importlib.util
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from eyechart.core.errors import UserError
from eyechart.core.runs import RunFolder
from eyechart.models.encoders.loading import config_of
from eyechart.models.sources import Source, fingerprint, parse_source
from eyechart.score.logs import ENGINE_LOGS

log = logging.getLogger(__name__)

VARIABLE = "EYECHART_LMMS_EVAL"
"""The environment variable that names the python of an environment with lmms-eval."""

LOGS, OUTPUT = ENGINE_LOGS, "lmms_eval.log"
"""In the run folder: where lmms-eval writes its results and samples, and what it prints."""

CLASSES: Mapping[str, str] = {
    "llava": "llava_hf",
    "llava_next": "llava_hf",
    "llava_onevision": "llava_hf",
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen3_vl": "qwen3_vl",
    "internvl": "internvl_hf",
    "idefics2": "idefics2",
    "instructblip": "instructblip",
    "mllama": "llama_vision",
    "gemma3": "gemma3",
}
"""The model class of lmms-eval for a `model_type` of transformers."""

_DIRECT = re.compile(r"(?P<kind>[a-z]\w*):(?P<args>\w+=.*)")
_PACKAGES = ("lmms-eval", "lmms_eval", "transformers", "torch", "datasets", "accelerate")
_ASK_VERSIONS = (
    "import importlib.metadata as m, json, platform\n"
    f"found = {{'python': platform.python_version()}}\n"
    f"for name in {_PACKAGES!r}:\n"
    "    try: found[name.replace('_', '-')] = m.version(name)\n"
    "    except m.PackageNotFoundError: pass\n"
    "print(json.dumps(found))"
)
_TAIL = 20  # lines of its output that an error shows


def run_lmms_eval(
    model: str,
    tasks: Sequence[str],
    out: Path | str,
    *,
    limit: int | None = None,
    batch_size: int = 1,
    device: str = "cpu",
    python: str | Path | None = None,
    model_args: str | None = None,
) -> Path:
    """Run tasks of lmms-eval on a model and keep its logs; a finished run is not run again.

    Args:
        model: a model as Eyechart names it, of a type in `CLASSES`; or lmms-eval's own words, `CLASS:key=value,...`;
            or, with `model_args`, the name of a class of lmms-eval.
        tasks: names of its tasks, or task folders such as `eyechart bench export --to lmms-eval` writes (all of them
            in one folder).
        out: the run folder.
        limit: at most so many items of each task.
        batch_size: items at a time; some of its model classes take only 1.
        device: `cpu`, `cuda`, ...
        python: of an environment with lmms-eval; else what `EYECHART_LMMS_EVAL` names, else this one.
        model_args: `key=value,...` for the class.

    Returns:
        The folder with lmms-eval's results and samples, for `eyechart compare`.

    Raises:
        UserError: no environment with lmms-eval, a model or task it cannot be given, or it failed; the text then ends
            with the last lines it printed.
    """
    if not tasks:
        raise UserError("no task of lmms-eval was named, as in: gqa, mmstar")
    kind, args, identity = _model(model, model_args, device)
    names, include = _tasks(tasks)
    where = _python(python)
    versions = _versions(where)
    folder = Path(out)
    config = {
        "what": "lmms-eval", "model": kind, "model_args": args, "identity": identity, "tasks": names,
        "include_path": include, "limit": limit, "batch_size": batch_size, "device": device,
        "lmms_eval": versions["lmms-eval"],
    }  # fmt: skip
    words = ["eyechart", "score", model, "--engine", "lmms-eval", "--tasks", ",".join(tasks)]
    with RunFolder.open(folder, config=config, command=[*words, "--out", str(folder)]) as run:
        if not run.finished:
            shutil.rmtree(folder / LOGS, ignore_errors=True)  # of an attempt that came to no end
            command = _command(where, config, folder / LOGS)
            run.update_manifest(engine={"command": shlex.join(command), "versions": versions})
            _run(command, run.own(OUTPUT), where)
            results, samples = _written(folder, command)
            for path in (results, *samples):
                run.own(str(path.relative_to(folder)))
            _tell_failures(run, samples)
            run.finish()
    return folder / LOGS


def _model(model: str, model_args: str | None, device: str) -> tuple[str, str, dict[str, Any]]:
    """lmms-eval's class, its arguments, and which weights exactly where that can be known."""
    if model_args is not None:
        return model, model_args, {}
    direct = _DIRECT.fullmatch(model)
    if direct is not None:
        return direct["kind"], direct["args"], {}
    source = parse_source(model)
    if source.kind not in ("hub", "local", "zoo"):
        raise UserError(
            f"{model!r} cannot be handed to lmms-eval; name a checkpoint of transformers, or lmms-eval's own class and"
            " arguments, as in: async_openai:model_version=NAME,base_url=http://host:8000/v1"
        )
    kind = _class_of(model, source)
    args = [f"pretrained={source.location}"]
    args += [f"revision={source.revision}"] if source.revision else []
    args += (
        [f"device_map={device}"] if kind == "llava_hf" else []
    )  # its empty default fails with transformers 5
    known = fingerprint(source)
    return kind, ",".join(args), {"id": known.id, "revision": known.revision, "sha256": known.sha256}


def _class_of(model: str, source: Source) -> str:
    config = config_of(source, {"revision": source.revision or "main"})
    if config.model_type not in CLASSES:
        raise UserError(
            f"{model} is a {config.model_type!r}, for which no class of lmms-eval is known here (known:"
            f" {', '.join(sorted(CLASSES))}); give its class and arguments, as in: qwen2_5_vl:pretrained={source.location}"
        )
    return CLASSES[config.model_type]


def _tasks(tasks: Sequence[str]) -> tuple[list[str], str | None]:
    """The tasks' names, and the folder in which those given as folders lie."""
    names, homes = [], set()
    for task in tasks:
        folder = Path(task).expanduser()
        if folder.is_dir():
            names += _named_in(folder)
            homes.add(str(folder.resolve()))
        elif os.sep in task:
            raise UserError(f"there is no task folder {task!r}")
        else:
            names.append(task)
    if len({str(Path(home).parent) for home in homes}) > 1:
        raise UserError(
            f"task folders must lie in one folder, since lmms-eval takes one: {', '.join(sorted(homes))}"
        )
    if not homes:
        return names, None
    return names, next(iter(homes)) if len(homes) == 1 else str(Path(next(iter(homes))).parent)


class _Names(yaml.SafeLoader):
    """Reads a task's file without running the functions that it names."""


_Names.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]


def _named_in(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        try:
            told = yaml.load(path.read_text("utf8"), _Names)
        except yaml.YAMLError as error:
            raise UserError(f"{path} is no YAML that can be read ({error})") from None
        if isinstance(told, dict) and isinstance(told.get("task"), str):
            found.append(told["task"])
    if not found:
        raise UserError(f"{folder} holds no task of lmms-eval (a .yaml with 'task: NAME')")
    return found


def _python(given: str | Path | None) -> str:
    named = given or os.environ.get(VARIABLE)
    if named:
        found = shutil.which(str(Path(named).expanduser()))
        if found is None:
            raise UserError(f"there is no python at {str(named)!r} ({VARIABLE} names that of lmms-eval)")
        return found
    if importlib.util.find_spec("lmms_eval") is None:
        raise UserError(
            "lmms-eval is not installed here. It needs packages of its own, so give it an environment:\n"
            "  python -m venv lmms && lmms/bin/pip install lmms-eval\n"
            f"  export {VARIABLE}=$PWD/lmms/bin/python"
        )
    return sys.executable


def _versions(python: str) -> dict[str, str]:
    done = subprocess.run(
        [python, "-c", _ASK_VERSIONS], capture_output=True, text=True, check=False, env=_surroundings(python)
    )
    try:
        found: dict[str, str] = json.loads(done.stdout)
    except ValueError:
        raise UserError(f"{python} cannot be asked what is installed: {done.stderr.strip()[-500:]}") from None
    if "lmms-eval" not in found:
        raise UserError(f"{python} has no lmms-eval; install it there: {python} -m pip install lmms-eval")
    return found


def _surroundings(python: str) -> dict[str, str]:
    """The environment, without what would put this Python's packages before those of another."""
    other = Path(python).absolute() != Path(sys.executable).absolute()
    return {
        name: value
        for name, value in os.environ.items()
        if not (other and name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"))
    }


def _command(python: str, config: Mapping[str, Any], logs: Path) -> list[str]:
    words = [
        python, "-m", "lmms_eval", "--model", config["model"], "--model_args", config["model_args"],
        "--tasks", ",".join(config["tasks"]), "--device", config["device"], "--batch_size", str(config["batch_size"]),
        "--log_samples", "--output_path", str(logs),
    ]  # fmt: skip
    for name in ("limit", "include_path"):
        words += [f"--{name}", str(config[name])] if config[name] is not None else []
    return words


def _run(command: Sequence[str], output: Path, python: str) -> None:
    with output.open("wb") as file:
        try:
            done = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, check=False, env=_surroundings(python)
            )
        except OSError as error:
            raise UserError(f"{python} could not be started ({error})") from None
    if done.returncode != 0:
        raise _failed(f"lmms-eval ended with exit code {done.returncode}", output)


def _written(folder: Path, command: Sequence[str]) -> tuple[Path, list[Path]]:
    """Its results and samples; at exit code 0 nothing may be there all the same."""
    results = sorted((folder / LOGS).rglob("*_results.json"))
    samples = sorted((folder / LOGS).rglob("*_samples_*.jsonl"))
    if len(results) != 1 or not samples or not all(path.stat().st_size for path in samples):
        raise _failed(
            f"lmms-eval wrote {len(results)} results and {len(samples)} logs of samples", folder / OUTPUT
        )
    return results[0], samples


def _failed(what: str, output: Path) -> UserError:
    text = re.sub(r"\x1b\[[0-9;]*m", "", output.read_text("utf8", errors="replace"))
    tail = "\n".join(f"  {line[:300]}" for line in text.strip().splitlines()[-_TAIL:])
    return UserError(f"{what}. Its last words ({output}):\n{tail}")


def _tell_failures(run: RunFolder, samples: Sequence[Path]) -> None:
    """Count what could not be generated: lmms-eval logs an error and goes on with an empty reply."""
    text = (run.path / OUTPUT).read_text("utf8", errors="replace")
    errors = Counter(match.strip() for match in re.findall(r"Error (.*) in generating", text))
    if errors:
        first = errors.most_common(1)[0][0]
        log.warning(
            "%d replies could not be generated and stand in the log as empty ones; the most frequent reason: %s",
            errors.total(),
            first,
        )
    run.update_manifest(failed_replies=errors.total(), tasks=[path.name for path in samples])
