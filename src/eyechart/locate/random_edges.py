"""Controls of a knockout: as many edges cut, but others.

A knockout that changes a readout may do so because those edges matter, or because any model with so many
edges missing is a worse one. The control cuts as many edges of the same tower, disjoint from the knockout's.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from eyechart.core.errors import UserError, unknown

Match = Literal["total", "same queries", "other queries"]

RANDOM: dict[Match, str] = {
    "total": "drawn from all edges the knockout leaves.",
    "same queries": "each query losing as many as in the knockout, from the keys the knockout leaves it.",
    "other queries": "as many queries losing as many keys each as in the knockout, but queries the knockout leaves whole.",
}
"""How a control is matched, with a sentence each. `total` spreads its edges thinly over many queries. `same
queries` is impossible where a knockout takes more than half of what a query sees (`part<-rest`); `other
queries` blinds other tokens as thoroughly."""


def random_like(
    edges: Bool[ndarray, "query key"],
    pool: Bool[ndarray, "query key"],
    *,
    match: Match = "total",
    seed: int,
    name: str = "the knockout",
) -> Bool[ndarray, "query key"]:
    """As many edges as `edges` has, drawn from the pool.

    Args:
        edges: those of the knockout.
        pool: edges that may be drawn: existing ones that the knockout leaves.
        match: a key of `RANDOM`.
        seed: of the drawing.
        name: of the knockout, for messages.

    Raises:
        UserError: the pool has too few edges, or too few at the queries that the match asks for; or there is
            no such match.
    """
    if match not in RANDOM:
        raise unknown("match of random edges", match, RANDOM)
    rng, counts = np.random.default_rng(seed), edges.sum(axis=1)
    if match == "total":
        return _of_all(int(counts.sum()), pool & ~edges, rng, name)
    queries = np.flatnonzero(counts)
    wanted: Int[ndarray, " query"] = counts[queries]
    free = pool & ~edges
    if match == "other queries":
        free = free & (counts == 0)[:, None]
        queries, wanted = _elsewhere(wanted, free.sum(axis=1), rng, name)
    return _of_each(queries, wanted, free, rng, name)


def _of_all(
    count: int, pool: Bool[ndarray, "query key"], rng: np.random.Generator, name: str
) -> Bool[ndarray, "query key"]:
    places = np.flatnonzero(pool)
    if len(places) < count:
        raise UserError(
            f"a random control of {name} needs {count} other edges, and there are {len(places)}; cut fewer edges"
        )
    found = np.zeros(pool.size, dtype=np.bool)
    found[rng.choice(places, count, replace=False)] = True
    return found.reshape(pool.shape)


def _of_each(
    queries: Int[ndarray, " query"],
    counts: Int[ndarray, " query"],
    pool: Bool[ndarray, "row column"],
    rng: np.random.Generator,
    name: str,
) -> Bool[ndarray, "row column"]:
    found = np.zeros_like(pool)
    for query, count in zip(queries, counts, strict=True):
        places = np.flatnonzero(pool[query])
        if len(places) < count:
            raise UserError(
                f"a random control of {name} needs {count} other edges at query {query}, which has {len(places)} left; match"
                " it by 'other queries' or 'total'"
            )
        found[query, rng.choice(places, count, replace=False)] = True
    return found


def _elsewhere(
    wanted: Int[ndarray, " wanted"], free: Int[ndarray, " query"], rng: np.random.Generator, name: str
) -> tuple[Int[ndarray, " wanted"], Int[ndarray, " wanted"]]:
    """Another query for each count; the largest choose first, so that all find one wherever they can."""
    order, taken = np.argsort(-wanted, kind="stable"), np.zeros(len(free), dtype=np.bool)
    queries = []
    for count in wanted[order]:
        fitting = np.flatnonzero((free >= count) & ~taken)
        if not len(fitting):
            raise UserError(
                f"a random control of {name} needs {len(wanted)} other queries with up to {wanted.max()} keys each, and there are"
                " too few; match it by 'total'"
            )
        queries.append(int(rng.choice(fitting)))
        taken[queries[-1]] = True
    return np.array(queries, dtype=np.int64), wanted[order]
