"""Items put to a model here or to a server, each answer on the disk before the next is asked for, nothing asked twice."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

from eyechart.core.files import JsonLines
from eyechart.core.records import Capability, Graded, Prompt
from eyechart.models.vlms import VLM
from eyechart.score.variants import Asked, graded_of, sample_row

Ask = Literal["generate", "options", "texts"]
"""Read a reply; compare the log-probabilities of the options' labels; or, for each token, of the options' texts."""

Progress = Callable[[str, int, int], None]


@runtime_checkable
class Replying(Protocol):
    """A server, as `models.servers.Server` is one."""

    def replies(
        self, prompts: Iterator[tuple[str, Prompt]], *, max_new_tokens: int
    ) -> Iterator[tuple[str, str]]:
        """Each prompt's reply under its key, as they come."""


def ask_here(
    vlm: VLM,
    asked: Sequence[Asked],
    log: JsonLines,
    *,
    ask: Ask,
    max_new_tokens: int,
    batch: int,
    progress: Progress,
    stage: str = "asking",
) -> list[Graded]:
    """Put to a model in memory what is not in the log yet; see `ask_ways`."""
    ask_ways(
        vlm,
        [(asked, log)],
        ask=ask,
        max_new_tokens=max_new_tokens,
        batch=batch,
        progress=progress,
        stage=stage,
    )
    return in_order(asked, log)


def ask_ways(
    vlm: VLM,
    ways: Sequence[tuple[Sequence[Asked], JsonLines]],
    *,
    ask: Ask,
    max_new_tokens: int,
    batch: int,
    progress: Progress,
    stage: str = "asking",
) -> None:
    """Put the same items in one way or in several, each with a log of its own, what is not there yet.

    A batch holds some items in all their ways, so that a picture that they share is read once where options are scored
    (`VLM.option_scores_of`). It is always made of the same items, so an interrupted run ends with the logs of an unbroken
    one.

    Raises:
        Incapable: the model cannot be asked so.
    """
    count, items = len(ways[0][0]), max(1, batch // len(ways))
    if any(len(log) < count for _, log in ways):
        need = Capability.GENERATE if ask == "generate" else Capability.OPTION_SCORES
        vlm.require(need, for_="asking a benchmark")
    for start in range(0, count, items):
        progress(stage, start, count)
        put = [(one, log) for asked, log in ways for one in asked[start : start + items]]
        if all(one.item.id in log for one, log in put):
            continue
        answers = answers_of(vlm, [one for one, _ in put], ask=ask, max_new_tokens=max_new_tokens)
        for (one, log), graded in zip(put, answers, strict=True):
            if one.item.id not in log:
                log.append(sample_row(one, graded))
    progress(stage, count, count)


def answers_of(vlm: VLM, asked: Sequence[Asked], *, ask: Ask, max_new_tokens: int) -> list[Graded]:
    """One batch, asked and graded."""
    prompts = [one.prompt() for one in asked]
    if ask == "generate":
        said = vlm.generate(prompts, max_new_tokens=max_new_tokens)
        return [one.graded(reply) for one, reply in zip(asked, said, strict=True)]
    options = [
        [vlm.join(prompt) + label for label in (one.labels if ask == "options" else one.shown)]
        for one, prompt in zip(asked, prompts, strict=True)
    ]
    scores = vlm.option_scores_of(prompts, options, per_token=ask == "texts")
    return [one.graded_scores(each) for one, each in zip(asked, scores, strict=True)]


def ask_server(
    server: Replying,
    asked: Sequence[Asked],
    log: JsonLines,
    *,
    max_new_tokens: int,
    progress: Progress,
    stage: str = "asking",
) -> list[Graded]:
    """Put to a server what is not in the log yet; pictures are opened as the server takes them.

    Raises:
        UserError: some items were not answered after all tries; the others are in the log.
    """
    by_id = {one.item.id: one for one in asked}
    missing = ((name, one.prompt()) for name, one in by_id.items() if name not in log)
    progress(stage, len(log), len(asked))
    for name, reply in server.replies(missing, max_new_tokens=max_new_tokens):
        log.append(sample_row(by_id[name], by_id[name].graded(reply)))
        progress(stage, len(log), len(asked))
    return in_order(asked, log)


def in_order(asked: Sequence[Asked], log: JsonLines) -> list[Graded]:
    """The answers of a whole log, which is brought into the items' order."""
    log.finalise([one.item.id for one in asked])
    return [graded_of(row) for row in log]
