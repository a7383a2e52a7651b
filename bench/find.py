"""The exact join against its peers and the limit: seconds, ratios and the pairs found, on made embeddings (made.py).

Run: python bench/find.py [IMAGES] [SPECTRUM] [ROUNDS] [THREADS]. Needs faiss-cpu; uses eyechart-kernels where it is
installed. All contenders take turns in every round; ratios are to the limit, the time of one triangle of the full float32
product at the speed measured in the same round by as many single-threaded workers. Every exact contender must find the same
pairs. faiss searches one embedding, so its pairs are filtered by the second one here.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from made import Rows, made

from eyechart.find import mine_pairs
from eyechart.find.exact import pool_of
from eyechart.find.native import missing
from eyechart.find.tiles import one_thread_each

LOW, HIGH = 0.95, 0.6


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    """How long it takes, and what it gives."""
    began = time.perf_counter()
    gave = work()
    return time.perf_counter() - began, gave


def limit(rows: Rows, threads: int) -> float:
    """The least that one triangle of the product of all rows can take, by its speed on a part of them."""
    side = min(4096, len(rows))
    some = torch.from_numpy(np.array(rows[:side]))
    with one_thread_each(), pool_of(threads) as pool:
        took, _ = seconds(lambda: list(pool.map(lambda _: some @ some.T, range(2 * threads))))
    return took / (2 * threads * side * side) * len(rows) ** 2 / 2


def tiled(semantic: Rows, reference: Rows, threads: int) -> set[tuple[int, int]]:
    """All pairs by the full product in tiles, without a bound."""
    first, step = torch.from_numpy(semantic), 2048

    def block(start: int) -> list[tuple[int, int]]:
        found = []
        for left in range(start, len(first), step):
            products = first[start : start + step] @ first[left : left + step].T
            i, j = (places.numpy() for places in (products > LOW).nonzero(as_tuple=True))
            i, j = i + start, j + left
            i, j = i[i < j], j[i < j]
            far = np.einsum("pd,pd->p", reference[i], reference[j]) < HIGH
            found += list(zip(i[far].tolist(), j[far].tolist(), strict=True))
        return found

    with one_thread_each(), pool_of(threads) as pool:
        return {pair for part in pool.map(block, range(0, len(first), step)) for pair in part}


def by_faiss(
    semantic: Rows, reference: Rows, threads: int, lists: int = 0, probes: int = 8
) -> set[tuple[int, int]]:
    """faiss's range search, exact or over inverted lists, filtered by the second embedding."""
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(semantic.shape[1])
    if lists:
        index = faiss.IndexIVFFlat(index, semantic.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
        index.train(semantic[:: max(1, len(semantic) // (40 * lists))])
        index.nprobe = probes
    index.add(semantic)
    found = set()
    for start in range(0, len(semantic), 4096):
        ends, _, j = index.range_search(semantic[start : start + 4096], LOW)
        i = start + np.repeat(np.arange(len(ends) - 1), np.diff(ends.astype(np.int64)))
        i, j = i[i < j], j[i < j]
        far = np.einsum("pd,pd->p", reference[i], reference[j]) < HIGH
        found |= set(zip(i[far].tolist(), j[far].tolist(), strict=True))
    return found


def within_clusters(semantic: Rows, reference: Rows, threads: int) -> set[tuple[int, int]]:
    """Pairs within clusters only, as SemDeDup (arXiv 2303.09540) looks for duplicates: k-means, then products inside."""
    import faiss

    faiss.omp_set_num_threads(threads)
    kmeans = faiss.Kmeans(semantic.shape[1], round(len(semantic) ** 0.5), niter=10, spherical=True)
    kmeans.train(semantic)
    homes = kmeans.index.search(semantic, 1)[1].ravel()
    found = set()
    for members in np.split(np.argsort(homes, kind="stable"), np.cumsum(np.bincount(homes))[:-1]):
        rows = torch.from_numpy(semantic[members])
        i, j = (members[places.numpy()] for places in (rows @ rows.T > LOW).nonzero(as_tuple=True))
        i, j = i[i < j], j[i < j]
        far = np.einsum("pd,pd->p", reference[i], reference[j]) < HIGH
        found |= set(zip(i[far].tolist(), j[far].tolist(), strict=True))
    return found


def ours(semantic: Rows, reference: Rows, threads: int, engine: str) -> set[tuple[int, int]]:
    """The exact join."""
    mined = mine_pairs(
        semantic, reference, min_semantic=LOW, max_reference=HIGH, threads=threads, engine=engine
    )
    return set(zip(mined.pairs.i.tolist(), mined.pairs.j.tolist(), strict=True))


def main(images: int, spectrum: str, rounds: int, threads: int) -> None:
    """Every contender in turn, and what came out."""
    torch.set_num_threads(threads)
    semantic, reference = made(images, spectrum)
    contenders: dict[str, Callable[[], set[tuple[int, int]]]] = {
        "portable": lambda: ours(semantic, reference, threads, "portable"),
        "tiled product": lambda: tiled(semantic, reference, threads),
        "faiss flat": lambda: by_faiss(semantic, reference, threads),
        "faiss IVF, 8 probes": lambda: by_faiss(semantic, reference, threads, lists=int(4 * images**0.5)),
        "within clusters": lambda: within_clusters(semantic, reference, threads),
    }
    if missing(semantic, "cpu") is None:
        contenders = {"native": lambda: ours(semantic, reference, threads, "native"), **contenders}
    took: dict[str, list[float]] = {name: [] for name in contenders}
    ratios: dict[str, list[float]] = {name: [] for name in contenders}
    found: dict[str, set[tuple[int, int]]] = {}
    for _ in range(rounds):
        least = limit(semantic, threads)
        for name, work in contenders.items():
            passed, pairs = seconds(work)
            took[name].append(passed)
            ratios[name].append(passed / least)
            found[name] = pairs  # type: ignore[assignment]
    exact = found["portable"]
    for name in contenders:
        spread = " ".join(
            f"{value:.3f}"
            for value in (min(ratios[name]), statistics.median(ratios[name]), max(ratios[name]))
        )
        same = (
            "same pairs"
            if found[name] == exact
            else f"{len(found[name] & exact)} of them, {len(found[name] - exact)} others"
        )
        print(
            f"{name:20} {statistics.median(took[name]):8.2f} s  of the limit {spread}  {len(found[name])} pairs, {same}"
        )
    print(
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB, inputs {(semantic.nbytes + reference.nbytes) / 2**20:.0f} MB"
    )


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        int(given[0]) if given else 20_000,
        given[1] if len(given) > 1 else "steep",
        int(given[2]) if len(given) > 2 else 3,
        int(given[3]) if len(given) > 3 else 2,
    )
