"""A judge's readings in a run folder: a line a reply, on the disk before the next ones are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from eyechart.core.records import Graded, Outcome
from eyechart.core.runs import RunFolder
from eyechart.score.answers import Progress
from eyechart.score.judge import Judge, judged_asked
from eyechart.score.variants import Asked

CHUNK = 16
"""Replies that a judge is asked about at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAgain:
    """Graded replies after a judge has read some of them."""

    graded: tuple[Graded, ...]
    decided: int
    """Replies that were the judge's to read."""

    differs: int
    """Of these, where it differs from the rules, or was not clear itself; the log has its words."""


def read_again(
    judge: Judge,
    for_: str,
    asked: Sequence[Asked],
    graded: Sequence[Graded],
    run: RunFolder,
    task: str,
    progress: Progress,
) -> ReadAgain:
    """Have a judge read replies, all or those that the rules left unread; what it has read before is not asked again.

    Args:
        judge: who is asked.
        for_: `unread` or `all`.
        asked: the items as they were put.
        graded: what the rules made of the replies, in the same order.
        run: the folder; `judged_<task>.jsonl` there has a line for each reply that was the judge's to read.
        task: the name of the samples.
        progress: told how many are read.
    """
    log = run.jsonl(f"judged_{task}.jsonl", key="doc_id")
    mine = [place for place, one in enumerate(graded) if for_ == "all" or one.choice is None]
    for start in range(0, len(mine), CHUNK):
        progress("judging", start, len(mine))
        places = [place for place in mine[start : start + CHUNK] if asked[place].item.id not in log]
        if not places:
            continue
        read, differ = judged_asked(
            [asked[place] for place in places], [graded[place] for place in places], judge, for_
        )
        words = {one.item_id: one for one in differ}
        for place, one in zip(places, read, strict=True):
            found = words.get(one.item_id)
            log.append(
                {
                    "doc_id": one.item_id,
                    "reply": one.reply,
                    "reader": graded[place].choice,
                    "judge": one.choice,
                    "differs": found is not None,
                    "words": None if found is None else found.words,
                    "clear": True if found is None else found.clear,
                }
            )
    progress("judging", len(mine), len(mine))
    log.finalise([asked[place].item.id for place in mine])
    readings = {row["doc_id"]: row for row in log}
    decided = tuple(
        _as(one, each, readings[one.item_id]["judge"]) if one.item_id in readings else one
        for each, one in zip(asked, graded, strict=True)
    )
    return ReadAgain(
        graded=decided, decided=len(mine), differs=sum(row["differs"] for row in readings.values())
    )


def _as(graded: Graded, asked: Asked, choice: int | None) -> Graded:
    right = Outcome.RIGHT if choice == asked.item.answer else Outcome.WRONG
    return replace(graded, choice=choice, outcome=Outcome.UNREAD if choice is None else right)
