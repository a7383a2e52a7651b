"""The raw results of the study of mixtures: every answer of every run, as one Parquet table that grows run by run."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from numpy import ndarray

Run = tuple[str, int]
"""An arm's name and a seed."""

_NAME = pa.dictionary(pa.int16(), pa.string())

SCHEMA = pa.schema(
    [
        ("arm", _NAME),
        ("seed", pa.int8()),
        ("task", _NAME),
        ("group", _NAME),
        ("item", _NAME),
        ("cluster", _NAME),
        ("right", pa.bool_()),
        ("form", pa.bool_()),
        ("items", pa.int8()),
    ]
)
"""`right`: the answer, or both answers of a pair; `form`: the reply has the form that was asked for, or is one of the options;
`items`: of a pair, how many of its two answers are right (null elsewhere); `cluster`: the pair, or the scene."""


def keep(folder: Path, run: Run, rows: Iterable[dict[str, Any]]) -> Path:
    """Write one run's answers into a folder."""
    arm, seed = run
    table = pa.Table.from_pylist([{"arm": arm, "seed": seed, **row} for row in rows], schema=SCHEMA)
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{arm}-{seed}.parquet"
    _write(table, out)
    return out


def merge(folder: Path, path: Path) -> None:
    """Put the runs of a folder into the table, in place of those that it has of them; sorted by arm and seed."""
    runs = {_run_of(one): one for one in _tables(path)}
    runs |= {_run_of(one): one for kept in sorted(folder.glob("*.parquet")) for one in _tables(kept)}
    if runs:
        _write(pa.concat_tables([runs[one] for one in sorted(runs)]).unify_dictionaries(), path)


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.writing")
    pq.write_table(table, unfinished, compression="zstd", compression_level=19)
    unfinished.replace(path)


def _run_of(table: pa.Table) -> Run:
    return table["arm"][0].as_py(), table["seed"][0].as_py()


def _tables(path: Path) -> list[pa.Table]:
    """The table's runs, each one a table."""
    if not path.exists():
        return []
    whole = pq.read_table(path).cast(SCHEMA)
    arms, seeds = whole["arm"].cast(pa.string()).to_numpy(), whole["seed"].to_numpy()
    borders = np.flatnonzero((arms[1:] != arms[:-1]) | (seeds[1:] != seeds[:-1])) + 1
    starts = [0, *borders.tolist(), len(whole)]
    return [whole.slice(start, end - start) for start, end in pairwise(starts)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What the runs of one arm say to the same questions."""

    seeds: tuple[int, ...]
    groups: tuple[str, ...]
    clusters: tuple[str, ...]
    right: Float[ndarray, "seed item"]
    form: Float[ndarray, "seed item"]

    def of(self, chosen: Sequence[bool]) -> "Answers":
        """The questions that are chosen."""
        places = np.flatnonzero(chosen)
        return Answers(
            seeds=self.seeds,
            groups=tuple(self.groups[place] for place in places),
            clusters=tuple(self.clusters[place] for place in places),
            right=self.right[:, places],
            form=self.form[:, places],
        )

    def by_cluster(
        self, values: Float[ndarray, "seed item"]
    ) -> tuple[Float[ndarray, "seed cluster"], Float[ndarray, " cluster"]]:
        """Sums over each cluster's items, and how many they are."""
        names, places = np.unique(self.clusters, return_inverse=True)
        sums = np.stack([np.bincount(places, row, minlength=len(names)) for row in values])
        return sums, np.bincount(places, minlength=len(names)).astype(np.float64)


class Raw:
    """The table, read back."""

    def __init__(self, path: Path) -> None:
        self._runs: dict[Run, pa.Table] = {_run_of(one): one for one in _tables(path)}

    @property
    def runs(self) -> list[Run]:
        """The runs that are there."""
        return list(self._runs)

    def seeds(self, arm: str) -> tuple[int, ...]:
        """The seeds of an arm that are there."""
        return tuple(sorted(seed for name, seed in self._runs if name == arm))

    def answers(self, arm: str, task: str, seeds: Sequence[int] | None = None) -> Answers:
        """An arm's answers in one task, of all its seeds or of some.

        Raises:
            ValueError: the runs were not asked the same, or there is none.
        """
        chosen = self.seeds(arm) if seeds is None else tuple(seeds)
        found = [self._runs[arm, seed] for seed in chosen]
        columns = [_columns(table, task) for table in found]
        if not columns or any(one[:3] != columns[0][:3] for one in columns):
            raise ValueError(
                f"the runs {chosen} of {arm} were not asked the same in {task}, or there are none"
            )
        groups, _, clusters, *_ = columns[0]
        return Answers(
            seeds=chosen,
            groups=tuple(groups),
            clusters=tuple(clusters),
            right=np.array([one[3] for one in columns], float),
            form=np.array([one[4] for one in columns], float),
        )


def _columns(table: pa.Table, task: str) -> tuple[list[Any], ...]:
    here = table.filter(pa.compute.equal(table["task"].cast(pa.string()), task))
    return tuple(here[name].to_pylist() for name in ("group", "item", "cluster", "right", "form"))
