"""An encoder in a run folder: captions matched with images, a line a match; or pairs of questions read by probes."""

from typing import Any

from eyechart.core.errors import UserError
from eyechart.core.records import Benchmark, MatchSet
from eyechart.core.runs import RunFolder
from eyechart.models.encoders import Encoder
from eyechart.score.encoders import Matcher, Progress, chunks_of
from eyechart.score.match_scores import score_rows
from eyechart.score.readable import read_pairs


def score_encoder(
    encoder: Encoder,
    found: Benchmark | MatchSet,
    run: RunFolder,
    *,
    seed: int,
    batch: int,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """The `eyechart` block of an encoder's results; what it was made from lies in the run's log.

    Raises:
        Incapable: captions are to be matched and the encoder has no text tower.
        UserError: a picture cannot be read, or the questions are not in pairs.
    """
    if isinstance(found, MatchSet):
        return {"kind": "encoder", "way": "matches", **_match(encoder, found, run, seed, batch, progress)}
    if found.rule != "pairs":
        raise UserError(
            f"{found.name} is scored by the rule {found.rule!r}; an encoder is read on questions in pairs, or matches captions"
            " with images"
        )
    read = read_pairs(encoder, found, seed=seed, batch=batch, progress=progress)
    return {"kind": "encoder", "way": "readable", **read.to_dict()}


def _match(
    encoder: Encoder, found: MatchSet, run: RunFolder, seed: int, batch: int, progress: Progress
) -> dict[str, Any]:
    log = run.jsonl(f"samples_{found.name}.jsonl", key="doc_id")
    matcher = Matcher.of(encoder, prefix=found.prefix, batch=batch)
    for chunk in chunks_of(found.matches, batch):
        progress("matching", len(log), len(found.matches))
        missing = [match for match in chunk if match.id not in log]
        for row in matcher.rows(missing) if missing else ():
            log.append(row)
    progress("matching", len(log), len(found.matches))
    log.finalise([match.id for match in found.matches])
    return score_rows(log, seed=seed).to_dict()
