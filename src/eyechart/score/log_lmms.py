"""The samples that lmms-eval logs (`--log_samples`): the question cut out of the prompt, the verdict of its task.

Read of version 0.7.3, which writes no `doc` and leaves `resps` out where they equal `filtered_resps`; older versions and
lm-eval, which write both, are read as well.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from eyechart.core.errors import UserError
from eyechart.score.cells import LETTERS, Labels, read_answer, read_options, text_of
from eyechart.score.grading import read_choice
from eyechart.score.logged import READ, SCORES, VERDICT, Answered, Log, bad_row, choose, once, read_lines

_FILE = re.compile(r"(?:(?P<date>.+)_)?samples_(?P<task>.+)\.jsonl")
_KNOWN = frozenset(
    ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "token_counts", "doc_hash", "input",
     "input_media", "prompt_hash", "target_hash", "filter", "metrics")
)  # fmt: skip
_LABELLED = re.compile(r"\s*(?:\(\s*([A-Za-z]|\d{1,2})\s*\)|([A-Za-z]|\d{1,2})[.):])\s*(\S.*)")
_YES_NO = ("yes", "no")
_IDS = ("id", "item_id", "index", "lndex", "idx", "question_id")
_PATTERNS = ("pattern", "category", "task", "type")
Count = Literal["index", "doc_id"]

_VERDICTS = ("is_correct", "correct", "score", "acc", "accuracy", "exact_match")


_COUNTED = "items are numbered from 1: the task's own index counts from 0"


def is_lmms(path: Path) -> bool:
    """Whether it is a file of samples with a date, or a folder with such files below it."""
    if path.is_dir():
        return next(_files(path), None) is not None
    match = _FILE.fullmatch(path.name)
    return match is not None


def read_lmms(path: Path, *, task: str | None = None) -> Log:
    """The samples of one task of one model.

    Raises:
        UserError: there are several tasks, models or dates and it is not said which is meant.
    """
    file = path if path.is_file() else _one(path, task)
    name = _task(file)
    rows = read_lines(file)
    shift = _count_from(rows)
    answers, left_out = [], []
    for number, row in enumerate(rows, start=1):
        try:
            answers.append(_answered(row, shift))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            left_out.append(bad_row(file, f"row {number}: {error}"))
    kept, twice, notes = once(file, answers)
    if not kept:
        why = left_out[0].detail if left_out else twice[0].detail
        raise UserError(f"{file}: none of its {len(rows)} rows can be used; the first: {why}")
    model = _model(file)
    return Log(
        path=file,
        source="lmms-eval",
        kind="vlm",
        model=model,
        identity=model,
        task=name,
        variant="",
        control="",
        answers=kept,
        graded=_graded(rows, kept),
        benchmark={"name": name},
        left_out=(*left_out, *twice),
        notes=(*notes, *_notes(kept, rows), *([_COUNTED] if shift else [])),
    )


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*_samples_*.jsonl")) if file.is_file())


def _task(file: Path) -> str:
    match = _FILE.fullmatch(file.name)
    return match["task"] if match else file.stem


def _one(folder: Path, task: str | None) -> Path:
    files = list(_files(folder))
    wanted = choose([_task(file) for file in files], task, where=folder)
    own = [file for file in files if _task(file) == wanted]
    if len(own) > 1:
        named = ", ".join(str(file.relative_to(folder)) for file in own)
        raise UserError(
            f"{folder}: {len(own)} files of samples of {wanted} ({named}); give the one that is meant"
        )
    return own[0]


def _model(file: Path) -> str:
    """The model's name, from the results that stand beside the samples; else the folder's name."""
    match = _FILE.fullmatch(file.name)
    path = file.parent / f"{match['date'] if match else ''}_results.json"
    try:
        results = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return file.parent.name or file.stem
    named = results.get("model_name") if isinstance(results, dict) else None
    return str(named) if named else file.parent.name or file.stem


def _count_from(rows: Sequence[Mapping[str, Any]]) -> Count | None:
    """How the MMVP task's `index` becomes the item's number from 1; None where an id stands in the log itself.

    The task takes 1 from an `Index` above 0, so an `Index` that counts from 0 has its first two rows both at 0; the row's
    `doc_id` tells them apart.
    """
    own = [found for row in rows for found in _verdicts(row)[:1] if {"index", "pair_index"} <= found.keys()]
    if len(own) < len(rows) or any(_first(row.get("doc"), _IDS) is not None for row in rows):
        return None
    given: set[tuple[Any, Any]] = {
        (row.get("doc_id"), one["index"]) for row, one in zip(rows, own, strict=True)
    }
    if not all(isinstance(number, int) and isinstance(index, int) for number, index in given):
        return None
    collided = len({index for _, index in given}) < len(given)
    if collided and all(index == max(number - 1, 0) for number, index in given):
        return "doc_id"
    return "index"


def _verdicts(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the task's metrics say of the row, where they are records."""
    return [value for name, value in row.items() if name not in _KNOWN and isinstance(value, Mapping)]


def _first(record: Any, names: Sequence[str]) -> Any:
    """The first of these fields that says something; case plays no part."""
    if not isinstance(record, Mapping):
        return None
    plain = {re.sub(r"[\s-]+", "_", str(name)).lower(): value for name, value in record.items()}
    return next((plain[name] for name in names if text_of(plain.get(name)) != ""), None)


def _answered(row: Mapping[str, Any], shift: Count | None) -> Answered:
    doc, records = row.get("doc"), [row.get("doc"), *_verdicts(row)]
    question, options, labels, from_prompt = _asked(row)
    answer = _target(row, options, labels)
    reply, scores = _reply(row)
    theirs = _theirs(row)
    choice = _choice(reply, scores, options, labels)
    regraded = answer is not None and bool(options) and (reply is not None or scores is not None)
    if not regraded and theirs is None:
        raise ValueError("neither options and a reply to grade, nor a verdict")
    return Answered(
        id=_id(row, shift),
        question=question,
        options=options,
        answer=answer,
        choice=choice if regraded else None,
        reply=reply or "",
        right=choice == answer if regraded else bool(theirs),
        unread=regraded and choice is None,
        theirs=theirs,
        regraded=regraded,
        from_prompt=from_prompt,
        pair_id=text_of(next(filter(None, (_first(one, ("pair_id",)) for one in records)), "")),
        pattern=text_of(next(filter(None, (_first(one, _PATTERNS) for one in records)), "")) or None,
        images=tuple(map(str, row.get("input_media") or ())),
        images_sha256=(str(doc["image_sha256"]),)
        if isinstance(doc, Mapping) and doc.get("image_sha256")
        else (),
    )


def _id(row: Mapping[str, Any], shift: Count | None) -> str:
    if shift is not None:
        return str(int(row["doc_id"] if shift == "doc_id" else _verdicts(row)[0]["index"]) + 1)
    for record in (row.get("doc"), *_verdicts(row)):
        own = _first(record, _IDS)
        if own is not None:
            return text_of(own)
    return text_of(row["doc_id"])


def _asked(row: Mapping[str, Any]) -> tuple[str, tuple[str, ...], Labels, bool]:
    """Question, options, how they are labelled, and whether that was cut out of the prompt."""
    doc = row.get("doc")
    question, options = _first(doc, ("question",)), _first(doc, ("options", "choices"))
    if question is not None and options is not None:
        texts, labels = read_options(options)
        return text_of(question), texts, labels or "letters", False
    prompt = row.get("input") or row.get("arguments") or ""
    while isinstance(prompt, list | tuple) and prompt:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        prompt = ""
    asked, texts, labels = split_prompt(prompt)
    if not texts and text_of(row.get("target")).casefold() in _YES_NO:
        texts = ("Yes", "No")
    return text_of(question) or asked, texts, labels, question is None


def split_prompt(prompt: str) -> tuple[str, tuple[str, ...], Labels]:
    """The question and the labelled options of a prompt; no options where it has none.

    Options stand on lines of their own, the last such block counts, or in one line as `(a) X (b) Y`.

    >>> split_prompt("What is it?\\nA. A dog\\nB. A cat\\nAnswer with the option's letter.")
    ('What is it?', ('A dog', 'A cat'), 'letters')
    """
    lines = prompt.split("\n")
    best: tuple[int, list[str], Labels] | None = None
    for start in range(len(lines)):
        for labels in ("letters", "numbers"):
            texts = _block(lines[start:], labels)
            if len(texts) >= 2:
                best = (start, texts, labels)
    if best is not None:
        return " ".join("\n".join(lines[: best[0]]).split()), tuple(best[1]), best[2]
    mark = re.search(r"\(\s*(?:[aA]|1)\s*\)", prompt)
    if mark is not None:
        try:
            texts_of, kind = read_options(prompt[mark.start() :].split("\n")[0])
        except ValueError:
            return " ".join(prompt.split()), (), "letters"
        if len(texts_of) >= 2 and all(texts_of):
            return " ".join(prompt[: mark.start()].split()), texts_of, kind or "letters"
    return " ".join(prompt.split()), (), "letters"


def _block(lines: Sequence[str], labels: str) -> list[str]:
    """The options that begin at the first line, labelled in order."""
    texts: list[str] = []
    for line in lines:
        match = _LABELLED.fullmatch(line)
        wanted = LETTERS[len(texts)] if labels == "letters" else str(len(texts) + 1)
        if match is None or (match[1] or match[2]).upper() != wanted or len(texts) == len(LETTERS) - 1:
            break
        texts.append(match[3].strip())
    return texts


def _target(row: Mapping[str, Any], options: Sequence[str], labels: Labels) -> int | None:
    if not options:
        return None
    target: Any = row.get("target")
    while isinstance(target, list | tuple) and len(target) == 1:
        target = target[0]
    return read_answer(target, options, labels)


def _reply(row: Mapping[str, Any]) -> tuple[str | None, list[float] | None]:
    """The reply as it was said; of a task that scores its options, those scores."""
    found = row.get("resps") or row.get("filtered_resps")
    scores = _scores(found)
    if scores is not None:
        return None, scores
    while isinstance(found, list | tuple):
        if not found:
            return None, None
        found = found[0]
    return (None, None) if found is None else (str(found), None)


def _scores(found: Any) -> list[float] | None:
    """Log-likelihoods of the options, as `[["-1.5", "False"], ...]`, each perhaps in one more list."""
    if not isinstance(found, list | tuple) or len(found) < 2:
        return None
    scores = []
    for one in found:
        while isinstance(one, list | tuple) and len(one) == 1:
            one = one[0]
        if not (isinstance(one, list | tuple) and len(one) == 2 and str(one[1]) in ("True", "False")):
            return None
        scores.append(float(one[0]))
    return scores


def _choice(
    reply: str | None, scores: Sequence[float] | None, options: Sequence[str], labels: Labels
) -> int | None:
    if scores is not None:
        best = [place for place, score in enumerate(scores) if score == max(scores)]
        return best[0] if len(best) == 1 and len(scores) == len(options) else None
    if reply is None or not options:
        return None
    named = LETTERS if labels == "letters" else [str(number + 1) for number in range(len(options))]
    return read_choice(reply, options, list(named[: len(options)]))


def _theirs(row: Mapping[str, Any]) -> bool | None:
    """The task's verdict: right or wrong in one of its metrics."""
    metrics = {name: value for name, value in row.items() if name not in _KNOWN}
    records: list[Mapping[str, Any]] = [*_verdicts(row), metrics]
    for name in _VERDICTS:
        for record in records:
            verdict = _yes(record.get(name))
            if verdict is not None:
                return verdict
    plain = [verdict for value in metrics.values() if (verdict := _yes(value)) is not None]
    return plain[0] if plain and len(set(plain)) == 1 else None


def _yes(value: Any) -> bool | None:
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def _graded(rows: Sequence[Mapping[str, Any]], kept: Sequence[Answered]) -> str:
    if not any(one.regraded for one in kept):
        return VERDICT
    return SCORES if _scores(rows[0].get("resps") or rows[0].get("filtered_resps")) else READ


def _notes(kept: Sequence[Answered], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    verdicts = sum(not one.regraded for one in kept)
    notes = []
    if 0 < verdicts:
        notes.append(
            f"{verdicts} of {len(kept)} items could not be graded again and keep the harness's verdict"
        )
    if any(isinstance(row.get("resps"), list) and _repeats(row["resps"]) > 1 for row in rows):
        notes.append("several replies to an item were logged; the first of each is read")
    return notes


def _repeats(resps: Any) -> int:
    while isinstance(resps, list) and len(resps) == 1 and isinstance(resps[0], list):
        resps = resps[0]
    return len(resps) if isinstance(resps, list) and _scores(resps) is None else 1
