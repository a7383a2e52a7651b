"""Pairs a second of one core, where next to nothing is within the bound: `python bench/scan.py`.

The time is the processor's time of the thread, so that whatever else runs on the machine disturbs less.
"""

import time

import numpy as np

import eyechart_kernels as kernels

ROWS, COLUMNS, STEP = 40_000, 64, 512
BOUND = 2_500
SECONDS = 3.0


def rate(isa: str, codes: np.ndarray, rows: np.ndarray, bound: int) -> tuple[float, float]:
    """Best and median over calls of `STEP` rows, for some seconds."""
    found = []
    end = time.thread_time() + SECONDS
    start = 0
    while time.thread_time() < end:
        begun = time.thread_time()
        kernels.scan(codes, bound, rows, 2.0, None, 0.0, start, start + STEP, isa=isa)
        pairs = sum(len(codes) - 1 - x for x in range(start, start + STEP))
        found.append(pairs / (time.thread_time() - begun))
        start = (start + STEP) % (len(codes) // 4)
    return max(found), float(np.median(found))


def main() -> None:
    """Codes that all vary alike, and codes that vary like principal coordinates, the first ones most."""
    random = np.random.default_rng(0)
    rows = np.zeros((ROWS, 8), np.float32)
    plain = random.normal(size=(ROWS, COLUMNS))
    for name, spread in (
        ("alike", np.full(COLUMNS, 40.0)),
        ("falling", 60.0 * (np.arange(COLUMNS) / 4 + 1) ** -0.5),
    ):
        codes = np.clip(np.rint(plain * spread), -127, 127).astype(np.int8)
        for isa in kernels.available_isas():
            best, middle = rate(isa, codes, rows, BOUND)
            print(f"{name:8} {isa:9} best {best / 1e9:.2f}e9  median {middle / 1e9:.2f}e9 pairs/s")


if __name__ == "__main__":
    main()
