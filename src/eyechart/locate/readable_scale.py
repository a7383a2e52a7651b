"""How readable a part is, on a scale where 0 means: no more than where nothing is to be read.

*Retained* and *recovered* are ratios, and a ratio needs a scale with a zero that means nothing. A rank has
none: a random word over n patches has the best rank (V + 1) / (n + 1), so that big parts look readable by
size alone. So a readout is set against its control at the same layer and under the same knockout.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from eyechart.core.errors import UserError, unknown

Scale = Literal["log_rank", "reciprocal_rank", "log_vocabulary", "accuracy"]

SCALES: dict[Scale, str] = {
    "log_rank": "log(control rank) - log(rank) in nats: 0 where the name ranks no better than on control regions.",
    "reciprocal_rank": "1/rank - 1/control rank: 0 as above; it sees only the first few ranks.",
    "log_vocabulary": "log(vocabulary) - log(rank) in nats: 0 for the last of all tokens, so chance lies above 0.",
    "accuracy": "share read rightly by a probe - share with shuffled labels: 0 where the probe finds nothing.",
}
"""The scales, with a sentence each. `log_rank` is the default: ranks run over orders of magnitude, their
logarithms have no heavy tail that one part in a hundred could rule, and the control takes out the size of
the region."""


def readability(
    readout: Float[ndarray, "instance layer"],
    *,
    scale: Scale = "log_rank",
    control: Float[ndarray, "instance layer"] | None = None,
    vocabulary: int | None = None,
) -> Float[ndarray, "instance layer"]:
    """A readout on a scale with a zero.

    Args:
        readout: ranks from 1, or for `accuracy` shares read rightly.
        scale: a key of `SCALES`.
        control: the readout of the control (size-matched random regions; shuffled labels), under the same
            knockout.
        vocabulary: how many tokens were ranked, for `log_vocabulary`.

    Raises:
        UserError: no such scale, what the scale needs is missing, or a readout is out of range.
    """
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    if scale == "log_vocabulary":
        if vocabulary is None:
            raise UserError("the scale 'log_vocabulary' needs the number of tokens ranked, got none")
        _check(readout, 1.0, float(vocabulary), "ranks")
        return np.asarray(np.log(vocabulary) - np.log(readout), dtype=np.float64)
    if control is None:
        raise UserError(
            f"the scale {scale!r} needs the control's readout, got none; without one use 'log_vocabulary'"
        )
    if scale == "accuracy":
        _check(np.stack([readout, control]), 0.0, 1.0, "shares read rightly")
        return np.asarray(readout - control, dtype=np.float64)
    _check(np.stack([readout, control]), 1.0, np.inf, "ranks")
    if scale == "log_rank":
        return np.asarray(np.log(control) - np.log(readout), dtype=np.float64)
    return np.asarray(1 / readout - 1 / control, dtype=np.float64)


def _check(values: ndarray, least: float, most: float, what: str) -> None:
    wrong = values[~((values >= least) & (values <= most) & np.isfinite(values))]
    if wrong.size:
        raise UserError(f"{what} lie in {least:g}..{most:g}, got {wrong.flat[0]}")
