import numpy as np
from numpy.typing import NDArray

STAGE: int
MAX_COLUMNS: int

def available_isas() -> list[str]: ...
def scan(
    isa: str,
    codes: NDArray[np.int8],
    bound: int,
    semantic: NDArray[np.float32],
    min_single: float,
    reference: NDArray[np.float32] | None,
    max_single: float,
    ids: NDArray[np.int32] | None,
    start: int,
    stop: int,
    right: NDArray[np.int32] | None,
    first: int,
    end: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32], int, int]: ...
