"""The main job, top to bottom: ask → grade → find → score → report, for one model on one benchmark.

What is written is one run folder (see `core.runs`). The same call again continues where it stopped; every choice that can
change a number stands in its `config.yaml`, so a folder never mixes two exams.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from eyechart.core.config import build, to_dict
from eyechart.core.devices import pick_device
from eyechart.core.embeddings import EmbeddingStore
from eyechart.core.errors import UserError
from eyechart.core.images import open_image, thumbnail_jpeg
from eyechart.core.records import Benchmark, Capability, Graded, Item, Prompt
from eyechart.core.runs import RunFolder
from eyechart.find import PairSimilarities, compare_pairs
from eyechart.models import load_encoder, load_vlm
from eyechart.models.encoders import Encoder
from eyechart.models.fed import pool
from eyechart.models.untrained import make_untrained
from eyechart.models.vlms import VLM
from eyechart.report import write_report
from eyechart.score import build_prompt, grade_options, grade_reply, load_benchmark, summarise
from eyechart.world import draw_pictures

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done and how much there is."""

DEFAULT_REFERENCE = "facebook/dinov2-base"
TASK = "exam"
"""The name samples and results are filed under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamConfig:
    """Every choice of an exam. `model` None is the random-weight LLaVA, `on` None the generated pictures."""

    model: str | None = None
    on: str | None = None
    reference: str = "auto"
    """A vision-only encoder, 'none', or 'auto': `DEFAULT_REFERENCE` where it can be had."""
    percentile: float = 95.0
    ask: Literal["generate", "options"] = "generate"
    template: str = "letter"
    max_new_tokens: int = 16
    adapter: str | None = None
    limit: int | None = None
    """At most this many pairs."""
    seed: int = 0
    batch_size: int | Literal["auto"] = "auto"
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    attn: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.percentile < 100:
            raise UserError(f"percentile must lie between 0 and 100, got {self.percentile}")
        for name in ("max_new_tokens", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be 1 or more, got {value}")

    @property
    def slug(self) -> str:
        """A folder name that says which model on which benchmark."""
        return f"exam-{_slug(self.model or 'untrained')}-on-{_slug(self.on or 'pictures')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamResult:
    """Where an exam was written and what it found."""

    folder: Path
    page: Path
    results: dict[str, Any]
    summary: tuple[str, ...]
    """The plain-words summary, a sentence each."""


def _slug(name: str) -> str:
    tail = "-".join(Path(name).parts[-2:]) if not name.endswith("/") else Path(name).name
    return re.sub(r"[^A-Za-z0-9._]+", "-", tail).strip("-.").lower() or "model"


def examine(
    model: Any = None,
    processor: Any = None,
    *,
    config: ExamConfig | None = None,
    out: Path | str | None = None,
    fresh: bool = False,
    progress: Progress = lambda stage, done, total: None,
    command: Sequence[str] | None = None,
    **options: Any,
) -> ExamResult:
    """Examine a VLM: ask it every question, grade, score by pair, and find the pairs its own encoder confuses.

    Args:
        model: a Hugging Face id, a folder, `zoo:NAME`, or a model in memory (then with its `processor`).
        config: all choices at once; or give them one by one as `options` (the fields of `ExamConfig`).
        out: the run folder (default `runs/<slug>`); the same call again continues there.
        fresh: start over.
        command: what a person would type to run this again; made from the choices when not given.

    Raises:
        UserError: something the caller can mend; the text says what was given, what was expected and what to do.
    """
    name = model if isinstance(model, str) or model is None else f"memory:{type(model).__name__}"
    config = config or build(ExamConfig, {"model": name, **options})
    loaded = None if isinstance(model, str) or model is None else VLM.from_objects(model, processor)
    folder = Path(out) if out is not None else Path("runs") / config.slug
    subject = _find_subject(config, loaded, beside=folder.parent)
    with _open_run(subject, folder, fresh=fresh, command=command or rerun_command(config, folder)) as run:
        if not run.finished:
            _hold(Exam(config=config, subject=subject, run=run, progress=progress))
        return _present(run)
