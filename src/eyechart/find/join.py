"""The exact join: all pairs of images that are near under one encoder and far under another.

An engine rules out pairs whose first cosine is surely not above its threshold (`tiles`, or `native` where it is installed);
what it leaves is decided on the rows themselves, exactly (`exact`); the second cosine is read only for pairs that satisfy
the first condition. Limits work while pairs are being found (`keep`).
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.find import native
from eyechart.find.engine import Candidates, Engine
from eyechart.find.exact import Rows, Threshold, check_rows, double_dots, pool_of, threshold
from eyechart.find.keep import Columns, Keeper
from eyechart.find.tiles import Tiles, one_thread_each

MIN_SEMANTIC, MAX_REFERENCE = 0.95, 0.6
"""The published rule ("Eyes Wide Shut?", arXiv 2401.06209, section 3)."""

DENSE = 0.2
"""From this share of a tile on, its rows are multiplied whole; one by one they would take longer."""

ENGINES = ("auto", "portable", "native")

Progress = Callable[[str, int, int], None]
Where = Callable[[Int[ndarray, " pair"], Int[ndarray, " pair"]], Bool[ndarray, " pair"]]
"""Which of some pairs of images count at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What was compared, and what each stage left."""

    engine: str
    """What ruled pairs out: `portable`, `native` with its instruction set, or `ray` with the number of its tiles."""

    images: int
    pairs: int
    """Pairs of images there are."""

    compared: int
    """Pairs whose bound was computed; the others lie in cells that are too far apart, and a few were compared twice."""

    columns: int
    """Of a sketch; as many as the rows have where no sketch would have been faster."""

    slack: float
    """What rounding may have taken from a bound on a cosine; so much below the threshold was still looked at."""

    bounded: int
    """Pairs that the bound could not rule out."""

    semantic: int
    """Of these, pairs above the first threshold: exactly."""

    found: int
    """Of these, pairs below the second threshold, exactly, and allowed by `where`."""

    kept: int
    """Of these, the pairs that the limits leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """Pairs, the most suspicious first, and what is known of how they were found."""

    pairs: Columns
    certificate: Certificate
    alike: Columns
    """Pairs that both encoders take for nearly the same; empty where they were not asked for."""

    alike_found: int


def mine_pairs(
    semantic: Rows,
    reference: Rows,
    *,
    min_semantic: float = MIN_SEMANTIC,
    max_reference: float = MAX_REFERENCE,
    per_image: int | None = None,
    budget: int | None = None,
    where: Where | None = None,
    min_alike: float | None = None,
    ids: Sequence[str] | None = None,
    threads: int | None = None,
    engine: Literal["auto", "portable", "native"] = "auto",
    device: str = "cpu",
    progress: Progress = lambda stage, done, total: None,
) -> Mined:
    """Find all pairs i < j with a first cosine above `min_semantic` and a second below `max_reference`, both strictly.

    None is missed and none invented: a pair's cosine is the dot product of its rows as they are stored, without any
    rounding. No table of all pairs is ever held.

    Args:
        semantic: (image, dim) rows of length 1 of the encoder that is examined, float32 or float16, possibly
            memory-mapped.
        reference: (image, dim) the same images under the encoder that tells them apart; read only for pairs that satisfy
            the first condition.
        per_image: keep a pair only if it is among so many most suspicious ones of both its images. Suspicious is a
            large gap between the two cosines; ties go to the smaller `i`, then `j`.
        budget: keep at most so many pairs.
        where: which pairs count at all; called with some pairs' `i` and `j` from several threads.
        min_alike: also list pairs above `min_semantic` whose second cosine is above this one, under the same limits.
        ids: names of the images, for messages.
        threads: parts of the work at a time (default: as many as torch uses).
        engine: what rules pairs out; the pairs found are the same. `native` needs the package eyechart-kernels and
            float32 rows, and works on the CPU; `auto` takes it where it can.
        device: where the portable engine multiplies; what it leaves is decided on the CPU.
        progress: told parts of the work that are done.

    Returns:
        The pairs kept as columns `i`, `j`, `semantic`, `reference` (float64), the most suspicious first, and a
        certificate with the number found.

    Raises:
        UserError: not one row each for the same images; a row that is zero, not finite or not of length 1; a limit
            below 1; an engine that was named cannot be had.
    """
    check_counts(semantic, reference, ids, per_image, budget)
    for name, rows in (("semantic", semantic), ("reference", reference)):
        check_rows(rows, name, ids)
    keepers = Keeper(per_image=per_image, budget=budget), Keeper(per_image=per_image, budget=budget)
    with one_thread_each() as had:
        join = Join(
            semantic=threshold(semantic, min_semantic, above=True),
            reference=threshold(reference, max_reference, above=False),
            alike=None if min_alike is None else threshold(reference, min_alike, above=True),
            engine=_engine(engine, semantic, min_semantic, device, threads or had),
            where=where,
            keepers=keepers,
        )
        _run(join, threads or had, progress)
    return _mined(join, len(semantic))


def _mined(join: "Join", images: int) -> Mined:
    """What the limits leave of what was found, and what was counted."""
    kept = join.keepers[0].kept()
    certificate = Certificate(
        engine=join.engine.name,
        images=images,
        pairs=images * (images - 1) // 2,
        compared=join.compared,
        columns=join.engine.columns,
        slack=join.engine.slack,
        bounded=join.bounded,
        semantic=join.passed,
        found=join.keepers[0].found,
        kept=len(kept),
    )
    alike = join.keepers[1]
    return Mined(pairs=kept, certificate=certificate, alike=alike.kept(), alike_found=alike.found)


def _engine(wish: str, semantic: Rows, min_semantic: float, device: str, threads: int) -> Engine:
    missing = native.missing(semantic, device)
    if wish == "native" and missing:
        raise UserError(
            f"the native engine cannot be used: {missing}; leave it out, or say engine='portable'"
        )
    if wish == "portable" or missing:
        return Tiles(semantic, min_semantic, torch.device(device), threads=threads)
    made = native.NativeCells if len(semantic) >= native.MANY else native.Native
    return made(semantic, min_semantic, threads=threads)


def check_counts(
    semantic: Rows, reference: Rows, ids: Sequence[str] | None, per_image: int | None, budget: int | None
) -> None:
    """Refuse tables that are not of the same images, and limits that leave nothing."""
    if not len(semantic) == len(reference) == (len(semantic) if ids is None else len(ids)):
        names = "" if ids is None else f" and {len(ids)} ids"
        raise UserError(
            f"{len(semantic)} semantic rows and {len(reference)} reference rows{names}: need one each for the same images"
        )
    for name, limit in (("per_image", per_image), ("budget", budget)):
        if limit is not None and limit < 1:
            raise UserError(f"{name} is {limit}; it must be at least 1, or None for no limit")


@dataclass(kw_only=True)
class Join:
    """The conditions on a pair, and what was found so far."""

    semantic: Threshold
    reference: Threshold
    alike: Threshold | None
    engine: Engine
    where: Where | None
    keepers: tuple[Keeper, Keeper]
    compared: int = 0
    bounded: int = 0
    passed: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def task(self, task: Any) -> None:
        """Everything about the pairs of one task."""
        for some in self.engine.candidates(task):
            self._decide(some)

    def _decide(self, some: Candidates) -> None:
        passed = some.at(_passed(self.semantic, some, known=True))
        far = _passed(self.reference, passed)
        found = self._columns(passed.at(far))
        near = None
        if self.alike is not None:
            rest = passed.at(~far)
            near = self._columns(rest.at(_passed(self.alike, rest)))
        with self._lock:
            self.compared += some.compared
            self.bounded += len(some.first) if some.bounded is None else some.bounded
            self.passed += len(passed.first)
            self.keepers[0].add(found)
            if near is not None:
                self.keepers[1].add(near)

    def _columns(self, some: Candidates) -> Columns:
        first, second = some.first, some.second
        if self.where is not None:
            allowed = self.where(first, second)
            first, second = first[allowed], second[allowed]
        return Columns(
            i=first.astype(np.int32),
            j=second.astype(np.int32),
            semantic=double_dots(self.semantic.rows, first, second),
            reference=double_dots(self.reference.rows, first, second),
        )


def _passed(test: Threshold, some: Candidates, *, known: bool = False) -> Bool[ndarray, " pair"]:
    """Which pairs lie beyond a threshold; where they are many of a tile, by one product of its rows.

    Args:
        known: whether the tile's own products are those of the threshold's rows.
    """
    if some.tile is None:
        return test.passed(some.first, some.second)
    rows, columns = some.tile
    products = some.products if known else None
    if products is None and len(some.first) > DENSE * (rows.stop - rows.start) * (
        columns.stop - columns.start
    ):
        left, right = (torch.from_numpy(np.array(test.rows[part], np.float32)) for part in some.tile)
        products = left @ right.T
    if products is None:
        return test.passed(some.first, some.second)
    places = torch.from_numpy(some.first - rows.start), torch.from_numpy(some.second - columns.start)
    return test.decided(some.first, some.second, products[places].cpu().numpy())


def _run(join: Join, threads: int, progress: Progress) -> None:
    """Work through all tasks; an interrupt ends it with those that are under way."""
    tasks = list(join.engine.tasks())
    progress("joining", 0, len(tasks))
    pool = pool_of(threads)
    try:
        for done, _ in enumerate(pool.map(join.task, tasks), start=1):
            progress("joining", done, len(tasks))
    finally:
        pool.shutdown(cancel_futures=True)
