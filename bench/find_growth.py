"""How the native join's time and memory grow with the number of pictures: made embeddings in files that are mapped, 200,000 to a million.

Run: python bench/find_growth.py [FOLDER] [ROUNDS] [THREADS] [IMAGES ...]. Makes the embeddings in FOLDER where they are not there
yet (7 GB for a million). Each join runs in a process of its own; sizes take turns in every round. Memory is that of the
process which no file backs, sampled 50 times a second: the mapped inputs do not count, whatever else is held does.
"""

import itertools
import json
import math
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from made import made

from eyechart.find import mine_pairs
from find import HIGH, LOW, limit

SIZES = (200_000, 500_000, 1_000_000)


class Memory(threading.Thread):
    """The most memory that this process holds without a file behind it, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = self._now()

    def run(self) -> None:
        """Sample for as long as the process lives."""
        while True:
            self.most = max(self.most, self._now())
            time.sleep(0.02)

    @staticmethod
    def _now() -> int:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


def inputs(folder: Path, images: int) -> tuple[Path, Path]:
    """Both embeddings of so many pictures, made where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    found = folder / f"semantic-{images}.npy", folder / f"reference-{images}.npy"
    if not found[1].is_file():
        for path, rows in zip(found, made(images, "steep"), strict=True):
            np.save(path.with_suffix(".part.npy"), rows)
            path.with_suffix(".part.npy").rename(path)
    return found


def join(semantic: Path, reference: Path, threads: int, engine: str) -> dict[str, object]:
    """One join of mapped files."""
    torch.set_num_threads(threads)
    near, far = (np.load(path, mmap_mode="r") for path in (semantic, reference))
    least = limit(near[:4096], threads) * (len(near) / 4096) ** 2
    for rows in (near, far):  # read once, so that the disk is not what is measured
        rows[:, ::16].sum()
    memory = Memory()
    memory.start()
    began = time.perf_counter()
    mined = mine_pairs(near, far, min_semantic=LOW, max_reference=HIGH, threads=threads, engine=engine)  # type: ignore[arg-type]
    certificate = mined.certificate
    return {
        "seconds": time.perf_counter() - began,
        "limit": least,
        "memory": memory.most - memory.before,
        "engine": certificate.engine,
        "share": certificate.compared / certificate.pairs,
        "found": certificate.found,
    }


def main(folder: Path, rounds: int, threads: int, sizes: tuple[int, ...]) -> None:
    """All sizes in turn, and the exponents between them."""
    files = {images: inputs(folder, images) for images in sizes}
    took: dict[int, list[float]] = {images: [] for images in sizes}
    for _ in range(rounds):
        for images, paths in files.items():
            command = [sys.executable, __file__, "join", *map(str, paths), str(threads), "native"]
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            took[images].append(told["seconds"])
            print(
                f"{images:9,} pictures {told['seconds']:7.2f} s, {told['seconds'] / told['limit']:.4f} of the limit,"
                f" {told['memory'] / 2**20:5.0f} MB above the inputs, {told['share']:.1%} compared,"
                f" {told['found']:,} pairs, {told['engine']}",
                flush=True,
            )
    middle = {images: statistics.median(some) for images, some in took.items()}
    for few, many in itertools.pairwise(sizes):
        exponent = math.log(middle[many] / middle[few]) / math.log(many / few)
        print(f"from {few:,} to {many:,}: exponent {exponent:.2f}")


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["join"]:
        print(json.dumps(join(Path(given[1]), Path(given[2]), int(given[3]), given[4])))
    else:
        main(
            Path(given[0]) if given else Path("build/bench"),
            int(given[1]) if len(given) > 1 else 1,
            int(given[2]) if len(given) > 2 else 2,
            tuple(map(int, given[3:])) or SIZES,
        )
