"""Reads and checks the files of one exam's run folder; nothing here computes or draws.

What comes from disk is validated once, on entry, so that the page can be written without a doubt about a key. Values
that a run may not know (a similarity without a reference, say) are None, and NaN in a table counts as None.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from eyechart.core.errors import UserError
from eyechart.core.files import read_table
from eyechart.core.records import Outcome
from eyechart.report.located import Located
from eyechart.report.records import Row, validated

SCHEMA = 1
_MAKE_ONE = "A run folder is made by: eyechart exam MODEL --on BENCHMARK --out FOLDER"
_CONTINUE = "An unfinished run is continued by giving the same command again."


def _nan_is_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


MaybeFloat = Annotated[float | None, BeforeValidator(_nan_is_none)]


class _Record(BaseModel):
    """A frozen record from a file: keys it does not know are left alone, numbers may stand for ids."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", coerce_numbers_to_str=True, protected_namespaces=()
    )


class Rate(_Record):
    """A share with its interval, as `results.json` holds it; value, low and high lie in 0..1."""

    value: float
    low: float
    high: float
    hits: int
    n: int
    level: float


class Fed(_Record):
    """What the projector reads: which layer of which encoder, how pooled, on which grid."""

    encoder: str | None = None
    layer: str | int | tuple[int, ...] | None = None
    pooling: str | None = None
    grid: tuple[int, int] | None = None
    dim: int | None = None
    note: str | None = None


class Adapter(_Record):
    """A PEFT adapter that was put on the model."""

    id: str
    sha256: str | None = None


class Model(_Record):
    """The model examined; `trained` is False for the random weights of the demonstration."""

    id: str
    revision: str | None
    sha256: str | None
    architecture: str | None
    capabilities: tuple[str, ...]
    cannot: dict[str, str]
    fed: Fed | None
    trained: bool
    adapter: Adapter | None = None


class Reference(_Record):
    """The vision-only encoder that the model's own encoder is held against."""

    id: str
    revision: str | None
    pooling: str | None
    sha256: str | None


class BenchmarkSummary(_Record):
    """What was asked: counts, hash, and what had to be left out."""

    name: str
    source: str
    sha256: str | None
    items: int
    pairs: int
    images: int
    quarantined: int
    options: tuple[int, int]
    notes: tuple[str, ...]


class Favourite(_Record):
    """The option chosen most often among the replies that could be read."""

    label: str
    share: Rate


class Score(_Record):
    """The exam's headline rates and the chance levels beside them."""

    pairs: Rate
    images: Rate
    unread: Rate
    chance_pairs: float
    chance_images: float
    above_chance: Literal["above", "at", "below"]
    favourite_option: Favourite | None = None


class PatternScore(_Record):
    """The rates of one pattern."""

    pattern: str
    pairs: Rate
    images: Rate
    unread: int
    chance_pairs: float
    suspects: int | None


class Find(_Record):
    """Which pairs the model's encoder takes for nearly the same while the reference tells them apart."""

    percentile: float
    suspects: Rate
    compared: int
    threshold_model: float
    threshold_reference: float
    right_suspects: Rate | None
    right_others: Rate | None
    p_value: MaybeFloat
    test: str | None = None


class Against(_Record):
    """Another model's pair accuracy minus this one's on the same pairs, in -1..1, and what the test makes of it."""

    difference: float
    low: float
    high: float
    fixes: int
    """Pairs that only the other model got right."""

    regressions: int
    """Pairs that only this model got right."""

    n: int
    p_value: float
    p_holm: float | None
    """Corrected over the patterns; None for all pairs together."""

    verdict: Literal["better", "worse", "undecided"]
    """Of the other model."""


class BesidePattern(_Record):
    """Another model's rate on one pattern."""

    pattern: str
    pairs: Rate
    against: Against


class Other(_Record):
    """Another model that was examined on the same pairs."""

    id: str
    trained: bool
    about: str | None
    page: str
    """Its page, as seen from this run folder."""

    pairs: Rate
    unread: Rate
    against: Against
    patterns: tuple[BesidePattern, ...]


class Beside(_Record):
    """The models that this one is shown beside."""

    command: str
    test: str
    error_rate: float
    about: str | None
    """A word on the model of this run."""

    others: tuple[Other, ...]


class Asking(_Record):
    """How each question was put to the model."""

    ask: str
    max_new_tokens: int | None = None
    template: str | None = None


class Results(_Record):
    """The block `eyechart` of `results.json`."""

    model: Model
    reference: Reference | None
    reference_missing: str | None
    benchmark: BenchmarkSummary
    score: Score
    patterns: tuple[PatternScore, ...]
    find: Find | None
    asking: Asking
    warnings: tuple[str, ...]
    beside: Beside | None = None
    located: Located | None = None
    """None where it was not asked for, and in runs of versions that had no such part."""


class Doc(_Record):
    """One item as it was asked."""

    question: str
    options: tuple[str, ...]
    pattern: str | None
    pair_id: str
    image: str
    image_sha256: str


class Sample(_Record):
    """One line of `samples_<task>.jsonl`: the item, the reply, and what became of it."""

    doc_id: str
    doc: Doc
    target: str
    prompt: str
    resps: tuple[tuple[str, ...], ...]
    filtered_resps: tuple[str, ...]
    outcome: Outcome


class Pair(_Record):
    """One row of `pairs.parquet`; similarities are cosines, percentiles lie in 0..100."""

    pair_id: str
    pattern: str | None
    item_a: str
    item_b: str
    image_a: str
    image_b: str
    similarity_model: MaybeFloat
    percentile_model: MaybeFloat
    similarity_reference: MaybeFloat
    percentile_reference: MaybeFloat
    suspect: bool | None
    right_a: bool
    right_b: bool
    pair_right: bool


class LeftOut(_Record):
    """One row of `quarantine.parquet`: an input that could not be used, and why."""

    path: str
    reason: str
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything the page is written from; pictures are read one by one, when they are needed."""

    folder: Path
    results: Results
    manifest: dict[str, Any]
    config: str | None
    """The text of `config.yaml`, or None when the folder has none."""

    samples: dict[str, Sample]
    """By item id."""

    pairs: tuple[Pair, ...]
    quarantine: tuple[LeftOut, ...]


def read_run(folder: Path) -> Run:
    """Read and check a finished run folder.

    Raises:
        UserError: the folder, a file, a key or a column is missing or of another schema; the text names which.
    """
    if not folder.is_dir():
        raise UserError(f"there is no run folder at {str(folder)!r}. {_MAKE_ONE}")
    results = _read_results(folder / "results.json")
    run = Run(
        folder=folder,
        results=results,
        manifest=_read_manifest(folder / "manifest.json"),
        config=_read_optional_text(folder / "config.yaml"),
        samples=_read_samples(folder),
        pairs=_read_table(folder / "pairs.parquet", Pair),
        quarantine=_read_quarantine(folder / "quarantine.parquet", expected=results.benchmark.quarantined),
    )
    _check_pairs(run)
    return run


def read_thumb(folder: Path, sha256: str) -> bytes | None:
    """The JPEG bytes of one thumbnail, or None when there is none under that hash."""
    if not (sha256.isascii() and sha256.isalnum()):
        return None
    path = folder / "thumbs" / f"{sha256}.jpg"
    data = path.read_bytes() if path.is_file() else b""
    return data if data.startswith(b"\xff\xd8\xff") else None


def _read_results(path: Path) -> Results:
    block = _read_json(path).get("eyechart")
    if not isinstance(block, dict):
        raise UserError(f"{path}: the key 'eyechart' is missing, so this is no exam's results. {_MAKE_ONE}")
    if block.get("schema") != SCHEMA:
        raise UserError(
            f"{path}: eyechart.schema is {block.get('schema')!r}, and this version of Eyechart reads {SCHEMA}. "
            "Use the version named in the folder's manifest.json, or make the run again."
        )
    return validated(Results, block, where=f"{path}: eyechart", mend=_MAKE_ONE)


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _read_json(path)
    for key in ("eyechart", "rerun", "model", "packages"):
        if key not in manifest:
            raise UserError(f"{path}: the key {key!r} is missing. {_MAKE_ONE}")
    return manifest


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path.parent} holds no {path.name}. {_MAKE_ONE}\n{_CONTINUE}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no valid JSON ({error}). {_CONTINUE}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, expected an object. {_MAKE_ONE}")
    return value


def _read_optional_text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _read_samples(folder: Path) -> dict[str, Sample]:
    files = sorted(folder.glob("samples_*.jsonl"))
    if not files:
        raise UserError(f"{folder} holds no samples_<task>.jsonl. {_MAKE_ONE}\n{_CONTINUE}")
    samples: dict[str, Sample] = {}
    for path in files:
        # Not splitlines(): replies may hold U+2028 and its like, which are no ends of lines in JSONL.
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            if line.strip():
                sample = _read_sample(line, where=f"{path}, line {number}")
                samples[sample.doc_id] = sample
    return samples


def _read_sample(line: str, *, where: str) -> Sample:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is no valid JSON ({error}). {_CONTINUE}") from None
    return validated(Sample, value, where=where, mend=_MAKE_ONE)


def _read_table(path: Path, row: type[Row]) -> tuple[Row, ...]:
    if not path.is_file():
        raise UserError(f"{path.parent} holds no {path.name}. {_MAKE_ONE}\n{_CONTINUE}")
    rows = enumerate(read_table(path), start=1)
    return tuple(validated(row, each, where=f"{path}, row {number}", mend=_MAKE_ONE) for number, each in rows)


def _read_quarantine(path: Path, *, expected: int) -> tuple[LeftOut, ...]:
    if not expected and not path.is_file():
        return ()
    return _read_table(path, LeftOut)


def _check_pairs(run: Run) -> None:
    for pair in run.pairs:
        for item in (pair.item_a, pair.item_b):
            if item not in run.samples:
                raise UserError(
                    f"{run.folder / 'pairs.parquet'}: pair {pair.pair_id!r} names the item {item!r}, "
                    f"which no samples_<task>.jsonl there holds. {_CONTINUE}"
                )
