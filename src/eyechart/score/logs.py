"""Answers that were logged before, by Eyechart, lmms-eval or VLMEvalKit: read, graded again, nothing dropped in silence.

A log says for each item what was asked, what was replied and what that was held to be. Where the reply is there, our own
reader grades it and the harness's verdict is kept beside it.
"""

from pathlib import Path

from eyechart.core.errors import UserError
from eyechart.score.log_eyechart import is_eyechart, read_eyechart
from eyechart.score.log_lmms import is_lmms, read_lmms
from eyechart.score.log_vlmevalkit import SUFFIXES, read_vlmevalkit
from eyechart.score.logged import Log

ENGINE_LOGS = "logs"
"""Where a run of `--engine lmms-eval` keeps what that has written."""


def read_logs(path: Path | str, *, task: str | None = None) -> list[Log]:
    """The logs of a run: the way asked first, then the other ways of the same run.

    Args:
        path: a run folder of `eyechart exam` or `eyechart score`, or one of its `samples_*.jsonl`; an output folder of
            lmms-eval, or one of its `*_samples_<task>.jsonl`; a result table of VLMEvalKit.
        task: of a run of several tasks, the one that is meant.

    Raises:
        UserError: there is no such file, it is none of these, or it holds several tasks and none is named.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"there is no run at {str(path)!r}: give a run folder, a samples file or a result table"
        )
    if (path / ENGINE_LOGS).is_dir():
        path = path / ENGINE_LOGS
    if is_eyechart(path):
        return read_eyechart(path, task=task)
    if is_lmms(path):
        return [read_lmms(path, task=task)]
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return [read_vlmevalkit(path)]
    raise UserError(
        f"{path} is no run that can be compared. Known are: a run folder of 'eyechart exam' or 'eyechart score';"
        " an output folder of lmms-eval made with --log_samples, or one of its *_samples_<task>.jsonl; a result table of"
        f" VLMEvalKit ({', '.join(SUFFIXES)})"
    )
