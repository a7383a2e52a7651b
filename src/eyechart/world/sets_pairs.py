"""Pairs of scenes written as a benchmark: a folder that `eyechart exam MODEL --on FOLDER` reads.

`questions.csv` and `images/` are the exam; beside them lie `facts.jsonl` (what is true of each scene, in words and as
fields), `captions.parquet` (two statements a pair, in the shape of MMVP-VLM), `cv.parquet` (questions in the shape of
CV-Bench) and, when asked for, exact maps. Sources of the shapes: MMVP and MMVP-VLM (Tong et al., 2024, "Eyes Wide
Shut?"), CV-Bench (Tong et al., 2024, "Cambrian-1", section 3.2).
"""

import csv
import hashlib
import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eyechart.core.runs import RunFolder
from eyechart.world.captions import told
from eyechart.world.cv import cv_questions
from eyechart.world.kinds import PARTS
from eyechart.world.layout import lay_out
from eyechart.world.questions import statements
from eyechart.world.render import Rendered, render
from eyechart.world.sets import Progress, check_size, png, shard_length
from eyechart.world.sets_plan import PairPlan, ScenePair, draw_pairs
from eyechart.world.sets_pool import in_order
from eyechart.world.sets_version import fingerprint, fingerprint_of_words

QUESTIONS, FACTS, CAPTIONS, CV, SHARDS = (
    "questions.csv",
    "facts.jsonl",
    "captions.parquet",
    "cv.parquet",
    "shards.jsonl",
)

CV_SIZE = 96
"""CV-Bench-shaped questions are put of the maps at this size, so that every size of a benchmark asks the same."""

DEPTH_FAR = 65_535
"""What a depth map holds where nothing is hit."""

_DIMENSION = {"Count": "2D", "Relation": "2D", "Depth": "3D", "Distance": "3D"}

CAPTIONS_SCHEMA = pa.schema(
    [
        pa.field(name, pa.string(), nullable=False)
        for name in ("pair_id", "pattern", "image_a", "image_b", "statement_a", "statement_b")
    ]
)

CV_SCHEMA = pa.schema(
    [
        pa.field("idx", pa.int64(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("choices", pa.list_(pa.string()), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """One job of a worker: pairs that follow one another."""

    number: int
    pairs: tuple[ScenePair, ...]
    size: int
    maps: bool
    cv: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What a worker makes of a shard."""

    number: int
    files: dict[str, bytes]
    cv: list[dict[str, Any]]


def render_pairs(
    folder: Path | str,
    plan: PairPlan,
    *,
    size: int = 96,
    workers: int = 2,
    maps: bool = False,
    fresh: bool = False,
    progress: Progress = lambda stage, done, total: None,
    command: Sequence[str] = (),
) -> Path:
    """Render a plan's pairs as a benchmark, or what is missing of it; at every size it holds the same scenes.

    Args:
        folder: where; the same arguments go on there, others are refused.
        plan: which pairs.
        size: the pictures' side, in pixels.
        workers: processes that render; the result does not depend on them.
        maps: write part, object (8 bit) and depth maps (16 bit, thousandths of a world unit) too.
        fresh: start over.
        progress: told how many pairs are done.
        command: the words of the command line, for the manifest.

    Returns:
        The folder, ready for `score.load_benchmark`.

    Raises:
        UserError: the size is none of the world's, the folder holds another set or is in use, or the world has
            changed since it was begun.
    """
    check_size(size)
    root = Path(folder)
    world = {"scenes": fingerprint(), "words": fingerprint_of_words()}
    config = {"what": "pairs", **asdict(plan), "size": size, "maps": maps, "world": world}
    with RunFolder.open(root, config=config, command=command, fresh=fresh) as run:
        if not run.finished:
            pairs = draw_pairs(plan)
            render_missing(run, pairs, size=size, maps=maps, workers=workers, progress=progress)
            _write_texts(run, pairs, maps=maps)
            run.update_manifest(seed=plan.seed, split=plan.split, world=world, sha256=pairs_hash(run, pairs))
            run.finish()
    return root


def folder_name(plan: PairPlan, size: int) -> str:
    """A name for the folder of a rendered plan: another plan, size or version of the world is another folder."""
    known = [asdict(plan), size, fingerprint(), fingerprint_of_words()]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return f"world-seed{plan.seed}-{size}px-{plan.pairs}each-{digest[:6]}"


def items_of(pair: ScenePair) -> tuple[str, str]:
    """The ids of a pair's two items."""
    return f"{pair.id}a", f"{pair.id}b"


def render_missing(
    run: RunFolder,
    pairs: Sequence[ScenePair],
    *,
    size: int,
    maps: bool = False,
    cv: bool = True,
    workers: int,
    progress: Progress,
) -> None:
    """Render what is not there yet, shard by shard; `cv` says whether CV-Bench-shaped questions are made, too."""
    done = run.jsonl(SHARDS, key="shard")
    step = max(1, shard_length(size) // 2)
    shards = [
        _Shard(number=number, pairs=tuple(pairs[start : start + step]), size=size, maps=maps, cv=cv)
        for number, start in enumerate(range(0, len(pairs), step))
    ]
    finished = sum(len(shard.pairs) for shard in shards if shard.number in done)
    progress("rendering pairs", finished, len(pairs))
    missing = [shard for shard in shards if shard.number not in done]
    for made in in_order(_render_shard, missing, workers=workers):
        for name, data in made.files.items():
            run.write_bytes(name, data)
        pictures = {
            name: hashlib.sha256(data).hexdigest()
            for name, data in made.files.items()
            if name.startswith("images/")
        }
        done.append({"shard": made.number, "pictures": pictures, "cv": made.cv})
        finished += len(shards[made.number].pairs)
        progress("rendering pairs", finished, len(pairs))


def _render_shard(shard: _Shard) -> _Made:
    """In a worker: the files of a shard, and the CV-Bench-shaped questions on the first scene of each pair."""
    files: dict[str, bytes] = {}
    cv: list[dict[str, Any]] = []
    for pair in shard.pairs:
        for item, facts, nonce in zip(items_of(pair), pair.facts, pair.nonces, strict=True):
            rendered = render(lay_out(facts, nonce), shard.size)
            files[f"images/{item}.png"] = png(rendered.image)
            if shard.maps:
                files |= {f"maps/{item}-{name}.png": data for name, data in _maps(rendered).items()}
        if shard.cv:
            cv += _cv_rows(pair)
    return _Made(number=shard.number, files=files, cv=cv)


def _cv_rows(pair: ScenePair) -> Iterator[dict[str, Any]]:
    scene = lay_out(pair.facts[0], pair.nonces[0])
    rng = random.Random(f"cv {pair.id} {pair.nonces[0]}")
    for question in cv_questions(scene, render(scene, CV_SIZE), rng):
        letters = [f"({letter})" for letter in "ABCD"[: len(question.options)]]
        listed = "\n".join(
            f"{letter} {option}" for letter, option in zip(letters, question.options, strict=True)
        )
        yield {
            "task": question.task.capitalize(),
            "image": f"images/{items_of(pair)[0]}.png",
            "question": question.text,
            "choices": list(question.options),
            "answer": letters[question.answer],
            "prompt": f"{question.text} Select from the following choices.\n{listed}",
        }


def _maps(rendered: Rendered) -> dict[str, bytes]:
    thousandths = np.clip(np.rint(rendered.depth * 1000), 0, DEPTH_FAR - 1)
    depth = np.where(np.isfinite(rendered.depth), thousandths, DEPTH_FAR).astype(np.uint16)
    return {"parts": png(rendered.parts), "objects": png(rendered.objects), "depth": png(depth)}


def _write_texts(run: RunFolder, pairs: Sequence[ScenePair], *, maps: bool) -> None:
    run.write_bytes(FACTS, b"".join(fact_lines(pairs)))
    run.write_table(CAPTIONS, [_caption_row(pair) for pair in pairs], CAPTIONS_SCHEMA)
    rows = [row for line in run.jsonl(SHARDS, key="shard") for row in line["cv"]]
    numbered = [
        {"idx": number, "type": _DIMENSION[row["task"]], "source": "eyechart", **row}
        for number, row in enumerate(rows)
    ]
    run.write_table(CV, numbered, CV_SCHEMA)
    if maps:
        run.write_json("maps/parts.json", {place + 1: list(part) for place, part in enumerate(PARTS)})
    run.write_bytes(QUESTIONS, questions_csv(pairs))


def questions_csv(pairs: Sequence[ScenePair]) -> bytes:
    """The questions as `questions.csv` holds them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "pair_id", "pattern", "question", "options", "answer", "image"])
    for pair in pairs:
        options = f"(a) {pair.options[0]} (b) {pair.options[1]}"
        for item, answer in zip(items_of(pair), pair.answers, strict=True):
            writer.writerow(
                [
                    item,
                    pair.id,
                    pair.pattern,
                    pair.question,
                    options,
                    ("(a)", "(b)")[answer],
                    f"images/{item}.png",
                ]
            )
    return out.getvalue().encode()


def fact_lines(pairs: Sequence[ScenePair]) -> Iterator[bytes]:
    """What is true of each scene, as `facts.jsonl` holds it."""
    for pair in pairs:
        for item, facts, nonce in zip(items_of(pair), pair.facts, pair.nonces, strict=True):
            line = {
                "id": item,
                "pair_id": pair.id,
                "pattern": pair.pattern,
                "image": f"images/{item}.png",
                "nonce": nonce,
                "told": told(facts),
                "facts": asdict(facts),
            }
            yield json.dumps(line).encode() + b"\n"


def _caption_row(pair: ScenePair) -> dict[str, str]:
    first, second = statements(pair.pattern, *pair.facts)
    image_a, image_b = (f"images/{item}.png" for item in items_of(pair))
    return {
        "pair_id": pair.id,
        "pattern": pair.pattern,
        "image_a": image_a,
        "image_b": image_b,
        "statement_a": first,
        "statement_b": second,
    }


def pairs_hash(run: RunFolder, pairs: Sequence[ScenePair]) -> str:
    """A hash of questions, answers and every picture."""
    pictures: dict[str, str] = {}
    for line in run.jsonl(SHARDS, key="shard"):
        pictures |= line["pictures"]
    digest = hashlib.sha256((run.path / QUESTIONS).read_bytes())
    for pair in pairs:
        for item in items_of(pair):
            digest.update(pictures[f"images/{item}.png"].encode())
    return digest.hexdigest()
