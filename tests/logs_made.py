"""Logs as Eyechart, lmms-eval and VLMEvalKit write them, made from a small set in pairs whose answers are planted."""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

PATTERNS = ("color", "state")


@dataclass(frozen=True, kw_only=True)
class Made:
    """One item, numbered from 1; `options` stand in the set's order."""

    number: int
    question: str
    options: tuple[str, str]
    answer: int
    pattern: str

    @property
    def id(self) -> str:
        return str(self.number)

    @property
    def pair(self) -> str:
        return str((self.number + 1) // 2)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"picture {self.number}".encode()).hexdigest()


def made_items(pairs: int) -> list[Made]:
    """Items 2k-1 and 2k are pair k: one question, opposite answers; odd pairs are of one pattern, even of the other."""
    items = []
    for pair in range(1, pairs + 1):
        for side in (0, 1):
            items.append(
                Made(
                    number=2 * pair - 1 + side,
                    question=f"Is door {pair} open or closed?",
                    options=("Open", "Closed"),
                    answer=side,
                    pattern=PATTERNS[pair % 2],
                )
            )
    return items


def choices(
    items: Sequence[Made], wrong: Sequence[int] = (), unread: Sequence[int] = ()
) -> dict[int, int | None]:
    """For each item's number the option named: the right one but for those named."""
    return {
        one.number: None if one.number in unread else (1 - one.answer if one.number in wrong else one.answer)
        for one in items
    }


def eyechart_run(
    folder: Path,
    items: Sequence[Made],
    ways: Mapping[str, Mapping[int, int | None]],
    *,
    model: str = "org/model",
    sha256: str = "a" * 64,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    rule: str = "pairs",
    corrections: Sequence[Mapping[str, Any]] = (),
    finished: bool = True,
    pair_ids: bool = True,
) -> Path:
    """A run folder of `eyechart score`: one file of samples for each way of asking, the first under the empty name."""
    folder.mkdir(parents=True)
    base = {"template": "letter", "labels": None, "order": "original", "show": "image", "side": None}
    blocks = []
    for name, named in ways.items():
        variant = {**base, **(variants or {}).get(name, {})}
        task = "doors" + (f"@{name}" if name else "")
        swapped = variant["order"] == "swapped"
        rows = [
            _row(one, named[one.number], swapped=swapped, pair_ids=pair_ids)
            for one in items
            if one.number in named
        ]
        _lines(folder / f"samples_{task}.jsonl", rows)
        blocks.append({"variant": variant, "task": task, "measures": [], "patterns": [], "unread": 0})
    block = {
        "kind": "vlm",
        "model": {"id": model, "revision": None, "sha256": sha256},
        "benchmark": {
            "name": "doors",
            "sha256": _hash(items),
            "rule": rule,
            "corrections": list(corrections),
        },
        "variants": blocks,
    }
    (folder / "results.json").write_text(json.dumps({"eyechart": block}))
    told = {"finished": "2026-01-01T00:00:00" if finished else None, "eyechart": "0", "files": []}
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


def _hash(items: Sequence[Made]) -> str:
    return hashlib.sha256(
        repr([(one.question, one.options, one.answer) for one in items]).encode()
    ).hexdigest()


def _row(one: Made, choice: int | None, *, swapped: bool, pair_ids: bool) -> dict[str, Any]:
    order = [1, 0] if swapped else [0, 1]
    label = "" if choice is None else "AB"[order.index(choice)]
    outcome = "unread" if choice is None else "right" if choice == one.answer else "wrong"
    return {
        "doc_id": one.id,
        "doc": {
            "question": one.question,
            "options": list(one.options),
            "pattern": one.pattern,
            "pair_id": one.pair if pair_ids else "",
            "image": f"pictures/{one.number}.png",
            "image_sha256": one.sha256,
        },
        "target": "AB"[order.index(one.answer)],
        "labels": ["A", "B"],
        "order": order,
        "prompt": one.question,
        "resps": [[label or "hm"]],
        "filtered_resps": [label],
        "answer": one.answer,
        "choice": choice,
        "outcome": outcome,
        "right": int(outcome == "right"),
        "option_scores": None,
    }


def encoder_run(folder: Path, right: Mapping[str, Sequence[int]], *, model: str = "org/clip") -> Path:
    """A run folder of an encoder: for each pattern which of its matches are right."""
    folder.mkdir(parents=True)
    rows = [
        {
            "doc_id": f"{pattern}-{place}",
            "doc": {"captions": [f"{pattern} {place} a", f"{pattern} {place} b"], "images": ["a.png", "b.png"],
                    "images_sha256": [f"{pattern}{place}a", f"{pattern}{place}b"], "pattern": pattern},
            "similarity": [[1.0, 0.0], [0.0, 1.0]], "text_to_image": hit, "image_to_text": hit, "group": hit,
        }
        for pattern, hits in right.items() for place, hit in enumerate(hits)
    ]  # fmt: skip
    _lines(folder / "samples_captions.jsonl", rows)
    block = {"kind": "encoder", "model": {"id": model}, "benchmark": {"name": "captions", "sha256": "e" * 64}}
    (folder / "results.json").write_text(json.dumps({"eyechart": block}))
    told = {"finished": "2026-01-01T00:00:00", "eyechart": "0", "files": []}
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


def lmms_samples(
    folder: Path,
    items: Sequence[Made],
    replies: Mapping[int, str],
    *,
    model: str = "org__model",
    task: str = "mmvp",
    index_from: int = 1,
    with_doc: bool = False,
) -> Path:
    """The samples of lmms-eval 0.7.3's MMVP task: `doc` taken out, a single reply unwrapped, `resps` left out."""
    path = folder / model / f"20260101_000000_samples_{task}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for doc_id, one in enumerate(items):
        if one.number not in replies:
            continue
        prompt = f"{one.question}\nA. {one.options[0]}\nB. {one.options[1]}"
        reply, target = replies[one.number], "AB"[one.answer]
        index = one.number - 1 + index_from
        index = index - 1 if index > 0 else index  # what the task does, whatever it counts from
        letter = _their_letter(reply)
        verdict = {
            "index": index, "pair_index": index // 2, "pred": reply, "pred_letter": letter, "gt": target,
            "is_correct": letter == target,
        }  # fmt: skip
        row: dict[str, Any] = {
            "doc_id": doc_id,
            "target": target,
            "filtered_resps": reply,
            "token_counts": [None],
            "doc_hash": hashlib.sha256(prompt.encode()).hexdigest(),
            "mmvp_accuracy": verdict,
            "mmvp_pair_accuracy": verdict,
            "input": prompt + "\nAnswer with the option's letter from the given choices directly.",
        }
        if with_doc:
            row["doc"] = {"Index": one.number, "Question": one.question, "Options": "(a) Open (b) Closed"}
            row["resps"], row["filtered_resps"] = [[reply]], [reply]
        rows.append(row)
    _lines(path, rows)
    name = path.name.replace(f"samples_{task}.jsonl", "results.json")
    (path.parent / name).write_text(json.dumps({"model_name": model.replace("__", "/")}))
    return path


def _their_letter(reply: str) -> str:
    """The first of lmms-eval's rules that matter here: a first letter A or B counts, whatever it begins."""
    return reply.strip()[:1].upper() if reply.strip()[:1].upper() in ("A", "B") else ""


def kit_rows(
    items: Sequence[Made], replies: Mapping[int, str], *, index_from: int = 1
) -> list[dict[str, Any]]:
    """The rows of a VLMEvalKit result."""
    return [
        {
            "index": one.number - 1 + index_from,
            "question": one.question,
            "A": one.options[0],
            "B": one.options[1],
            "answer": "AB"[one.answer],
            "category": one.pattern,
            "prediction": replies[one.number],
            "hit": int(replies[one.number].strip()[:1] == "AB"[one.answer]),
        }
        for one in items
        if one.number in replies
    ]


def kit_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A result table of VLMEvalKit, comma- or tab-separated or JSON by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(list(rows)))
        return path
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


def letters(items: Sequence[Made], named: Mapping[int, int | None]) -> dict[int, str]:
    """Replies that name the options by their letters."""
    return {one.number: "hm" if named[one.number] is None else "AB"[named[one.number] or 0] for one in items}


def relabelled(items: Sequence[Made], numbers: Sequence[int]) -> list[Made]:
    """The items with the other answer for those numbers."""
    return [replace(one, answer=1 - one.answer) if one.number in numbers else one for one in items]


def _lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
