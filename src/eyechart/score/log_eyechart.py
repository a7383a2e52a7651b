"""The run folders of `eyechart exam` and `eyechart score` as logs: each way of asking is one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyechart.core.errors import UserError
from eyechart.score.cells import LETTERS
from eyechart.score.logged import LOGGED, SCORES, Answered, Kind, Log, choose, once, read_lines

PREFIX = "samples_"

_WAY = ("template", "labels", "order", "show", "side")


def is_eyechart(path: Path) -> bool:
    """Whether it is a run folder of ours, or a file of samples in one."""
    folder = path.parent if path.is_file() else path
    return (path.is_dir() or path.name.startswith(PREFIX)) and (folder / "manifest.json").is_file()


def read_eyechart(path: Path, *, task: str | None = None) -> list[Log]:
    """Every way of asking of a finished run, the first one first; of a file of samples, that one way.

    Raises:
        UserError: the run is not finished, or a file of it is missing or damaged.
    """
    folder = path.parent if path.is_file() else path
    if not _json(folder / "manifest.json").get("finished"):
        raise UserError(f"the run in {folder} is not finished; give its command again, and then compare")
    block = _json(folder / "results.json").get("eyechart", {})
    files = sorted(folder.glob(PREFIX + "*.jsonl"))
    if not files or not block:
        raise UserError(
            f"{folder} is a run folder without samples; 'eyechart exam' and 'eyechart score' write them"
        )
    if path.is_file():
        return [_log(path, block)]
    names = [file.stem.removeprefix(PREFIX) for file in files]
    first = choose([name.partition("@")[0] for name in names], task, where=folder)
    own = sorted((name for name in names if name.partition("@")[0] == first), key=_place(block))
    return [_log(folder / f"{PREFIX}{name}.jsonl", block) for name in own]


def _place(block: Mapping[str, Any]) -> Any:
    """The order in which the ways were asked."""
    tasks = [each["task"] for each in block.get("variants", ())]
    return lambda name: (tasks.index(name) if name in tasks else len(tasks), name)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path.parent} holds no {path.name}; give the command of the run again") from None
    except ValueError as error:
        raise UserError(f"{path} is no valid JSON ({error}); give the command of the run again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, expected an object")
    return value


def _log(path: Path, block: Mapping[str, Any]) -> Log:
    task = path.stem.removeprefix(PREFIX)
    kind: Kind = "encoder" if block.get("kind") == "encoder" else "vlm"
    way: Mapping[str, Any] = next((each for each in block.get("variants", ()) if each["task"] == task), {})
    asked = way.get("variant") or block.get("asking") or {}
    show = str(asked.get("show", "image"))
    read = _match if kind == "encoder" else _item
    rows = read_lines(path)
    try:
        answers, left_out, notes = once(path, [read(row) for row in rows])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: a line is not as this version writes it ({error!r})") from None
    model = block.get("model") or {}
    patterns = way.get("patterns") or block.get("patterns") or []
    return Log(
        path=path,
        source="eyechart",
        kind=kind,
        model=str(model.get("id", path.parent.name)),
        identity=_identity(model, path),
        task=task.partition("@")[0],
        variant=task.partition("@")[2],
        control="" if show == "image" else show,
        answers=answers,
        graded=SCORES if kind == "vlm" and rows[0].get("option_scores") else LOGGED,
        way={name: asked[name] for name in _WAY if asked.get(name) is not None},
        benchmark=_benchmark(block.get("benchmark") or {}, exam="kind" not in block),
        patterns=tuple(patterns),
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


def _benchmark(about: Mapping[str, Any], *, exam: bool) -> dict[str, Any]:
    known = {name: about[name] for name in ("name", "sha256", "rule", "corrections") if about.get(name)}
    return known | ({"rule": "pairs"} if exam and "rule" not in known else {})


def _identity(model: Mapping[str, Any], path: Path) -> str:
    """Which weights: by hash where it is known, with the adapter on top."""
    adapter = (model.get("adapter") or {}).get("sha256") or ""
    known = model.get("sha256") or f"{model.get('id', path.parent.name)}@{model.get('revision') or ''}"
    return f"{known}+{adapter}" if adapter else str(known)


def _item(row: Mapping[str, Any]) -> Answered:
    """One line of a VLM's samples, of today's shape or of the exam's first one."""
    doc = row["doc"]
    options = tuple(str(option) for option in doc["options"])
    outcome = row["outcome"]
    if outcome not in ("right", "wrong", "unread"):
        raise ValueError(f"an outcome {outcome!r}")
    answer, choice = (row["answer"], row["choice"]) if "choice" in row else _labelled(row, len(options))
    return Answered(
        id=str(row["doc_id"]),
        question=str(doc["question"]),
        options=options,
        answer=answer,
        choice=choice,
        reply=str(row["resps"][0][0]),
        right=outcome == "right",
        unread=outcome == "unread",
        pair_id=str(doc.get("pair_id") or ""),
        group=str((doc.get("facets") or {}).get("group") or ""),
        pattern=doc.get("pattern"),
        images=(str(doc["image"]),),
        images_sha256=(str(doc["image_sha256"]), *map(str, doc.get("more_sha256", ()))),
    )


def _labelled(row: Mapping[str, Any], options: int) -> tuple[int, int | None]:
    """Answer and choice by their labels, where a line has no places."""
    label = row["filtered_resps"][0]
    return _by_label(row["target"], options), None if not label else _by_label(label, options)


def _by_label(label: str, options: int) -> int:
    place = int(label) - 1 if label.isdigit() else LETTERS.index(label.upper())
    if not 0 <= place < options:
        raise ValueError(f"the label {label!r} of {options} options")
    return place


def _match(row: Mapping[str, Any]) -> Answered:
    """One line of an encoder's samples: from text to image as is official, from image to text where there is one image."""
    doc = row["doc"]
    scored = row["image_to_text"] if row.get("text_to_image") is None else row["text_to_image"]
    return Answered(
        id=str(row["doc_id"]),
        question="which image belongs to which caption",
        options=tuple(str(caption) for caption in doc["captions"]),
        answer=None,
        choice=None,
        reply="",
        right=bool(int(scored)),
        unread=False,
        regraded=False,
        pattern=doc.get("pattern"),
        images=tuple(map(str, doc.get("images", ()))),
        images_sha256=tuple(map(str, doc.get("images_sha256", ()))),
    )
