"""The logit lens: how likely a layer's state makes a word, by the model's own final norm and unembedding.

A hidden state h of layer l at position i is read as z = W Norm(h) (nostalgebraist 2020; at image positions Neo et al.,
arXiv 2410.07149; for names of parts Takishita et al., arXiv 2506.05439), and a token's rank is 1 + the number of tokens
with a greater z. Choices: the norm is applied exactly once, so not to a last layer which transformers gives normed;
rows of the unembedding that no token has are no rivals; everything after the norm is float32; equal scores count against
the word unless asked otherwise. A poor rank in an early layer is no proof that nothing is there to read.

Ranks need no logits to be kept: they are made for a few states at a time, the tokens above each word counted, and dropped.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from eyechart.core.errors import UserError
from eyechart.locate.labels import Label, LabelRule

HELD = 1 << 22
"""Logits held at once by default: 16 MiB of float32."""

COUNTED = 1 << 18
"""Logits among which tokens are counted at a time, so that they stay in a core's cache."""

CAST = 1 << 22
"""Weights of the unembedding that are made float32 at a time, where they are stored in another format."""


class Ties(StrEnum):
    """What other tokens as likely as the word do to its rank."""

    PESSIMISTIC = "pessimistic"
    """They count as likelier, so that a flat distribution gives the worst rank."""

    OPTIMISTIC = "optimistic"
    """They count as less likely."""

    AVERAGE = "average"
    """Half of them count as likelier; ranks may end in .5."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unembedding:
    """The matrix from a normed state to logits."""

    weight: Float[Tensor, "token dim"]
    bias: Float[Tensor, " token"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lens:
    """A language model's own way from a state to its vocabulary."""

    norm: Callable[[Tensor], Tensor]
    """The final norm, of (row, dim) to (row, dim), each row for itself."""

    head: Unembedding | Callable[[Tensor], Tensor]
    """The unembedding, or any map from (row, dim) to (row, token), which is then called with the norm's own format."""

    tokens: int
    """Rows of the unembedding that are tokens, from the first; padding rows behind them are left out."""

    finish: Callable[[Tensor], Tensor] | None = None
    """What the model does to its logits, number by number (soft-capping, scaling); None for nothing."""

    unused: tuple[int, ...] = ()
    """Rows before `tokens` which no token has either."""

    device: str = "cpu"
    """Where states are read; the norm and the head take them there."""

    note: str = ""
    """How this was found, in words."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LensRanks:
    """What the lens reads, on the CPU."""

    ranks: Real[Tensor, "layer position label"]
    """1 for the likeliest token; int64, or float32 under `Ties.AVERAGE`."""

    log_probabilities: Float[Tensor, "layer position label"] | None
    """In nats, over all tokens: of the token, the likeliest variant, or the mean over the pieces. None unless asked for."""

    ties: Ties


def lens_ranks(
    states: Float[Tensor, "layer position dim"],
    labels: Sequence[Label],
    lens: Lens,
    *,
    normed: Sequence[bool],
    ties: Ties = Ties.PESSIMISTIC,
    log_probabilities: bool = False,
    held: int = HELD,
) -> LensRanks:
    """Rank words by every state.

    A word of one token has that token's rank. A word's likeliest variant has its rank among all tokens but the other
    variants' ties. Under `MEAN` the word's score is the mean log-probability of its pieces in this one distribution, and
    its rank 1 + the number of tokens, its own pieces included, whose log-probability exceeds that mean.

    Memory beyond states and results: `held` logits (twice that with `finish`), or one state's where that is more.

    Args:
        states: in the model's own format.
        labels: one or more.
        lens: the model's norm and unembedding.
        normed: for each layer whether its states have been through the final norm already.
        ties: what equally likely tokens do.
        log_probabilities: whether to give these too.
        held: how many logits may be held at once.

    Raises:
        UserError: no label, a token beyond the vocabulary, not one flag for each layer, or states that are not finite.
    """
    layers, positions, _ = states.shape
    _check(labels, lens, layers, normed)
    flat = states.flatten(0, 1)
    done = torch.tensor(normed, dtype=torch.bool).repeat_interleave(positions)
    ranks = torch.empty(len(flat), len(labels), dtype=torch.float32 if ties is Ties.AVERAGE else torch.int64)
    told = torch.empty(len(flat), len(labels)) if log_probabilities else None
    with torch.no_grad():
        for rows, logits in _logits(flat, done, lens, held):
            scores = _scores(logits, labels)
            if scores.isnan().any():
                raise UserError(
                    "the states give logits that are no numbers (NaN); read the model in a wider format"
                )
            ranks[rows] = _ranked(logits, scores, labels, ties).cpu()
            if told is not None:
                told[rows] = (scores - _log_sum(logits)[:, None]).cpu()
    shape = (layers, positions, len(labels))
    return LensRanks(
        ranks=ranks.reshape(shape), log_probabilities=None if told is None else told.reshape(shape), ties=ties
    )


def _check(labels: Sequence[Label], lens: Lens, layers: int, normed: Sequence[bool]) -> None:
    if not labels:
        raise UserError("no label was given; the lens ranks one word or more")
    if len(normed) != layers:
        raise UserError(
            f"{layers} layers, but {len(normed)} flags that say which are normed; expected one each"
        )
    for label in labels:
        wrong = [token for token in label.tokens if not 0 <= token < lens.tokens or token in lens.unused]
        if wrong or not label.tokens:
            raise UserError(
                f"the label {label.word!r} has the tokens {label.tokens}, of which {wrong} are none of the "
                f"{lens.tokens} of this vocabulary; make labels with the model's own tokenizer"
            )


def _logits(
    flat: Float[Tensor, "row dim"], done: Tensor, lens: Lens, held: int
) -> Iterator[tuple[slice, Float[Tensor, "some token"]]]:
    """The logits of a few states at a time, in one buffer that is used again."""
    step = max(1, min(held // lens.tokens, len(flat)))
    buffer = torch.empty(step, lens.tokens, device=lens.device)
    for start in range(0, len(flat), step):
        rows = slice(start, min(start + step, len(flat)))
        given = _normed(flat[rows].to(lens.device), done[rows].to(lens.device), lens.norm)
        logits = buffer[: rows.stop - start]
        _fill(logits, given, lens.head)
        if lens.finish is not None:
            logits.copy_(lens.finish(logits))
        if lens.unused:
            logits[:, list(lens.unused)] = -torch.inf
        yield rows, logits


def _normed(
    states: Float[Tensor, "some dim"], done: Tensor, norm: Callable[[Tensor], Tensor]
) -> Float[Tensor, "some dim"]:
    """Every state normed once."""
    if done.all():
        return states
    if not done.any():
        return norm(states)
    mixed = states.clone()
    mixed[~done] = norm(states[~done])
    return mixed


def _fill(
    logits: Float[Tensor, "some token"],
    states: Float[Tensor, "some dim"],
    head: Unembedding | Callable[[Tensor], Tensor],
) -> None:
    """Write the logits of normed states, those of padding rows left out."""
    if not isinstance(head, Unembedding):
        logits.copy_(head(states)[:, : logits.shape[1]])
        return
    wide, weight = states.float(), head.weight[: logits.shape[1]]
    step = len(weight) if weight.dtype == torch.float32 else max(1, CAST // weight.shape[1])
    for start in range(0, len(weight), step):
        part = weight[start : start + step].float().T
        torch.mm(wide, part, out=logits[:, start : start + step])
    if head.bias is not None:
        logits += head.bias[: logits.shape[1]].float()


def _scores(logits: Float[Tensor, "some token"], labels: Sequence[Label]) -> Float[Tensor, "some label"]:
    """One number a word: the mean of its pieces' logits, or the greatest of its tokens'."""
    columns = []
    for label in labels:
        own = logits[:, list(label.tokens)]
        mean = label.rule is LabelRule.MEAN  # in float64, so that equal logits have exactly that mean
        columns.append(own.double().mean(dim=1).float() if mean else own.amax(dim=1))
    return torch.stack(columns, dim=1)


def _ranked(
    logits: Float[Tensor, "some token"],
    scores: Float[Tensor, "some label"],
    labels: Sequence[Label],
    ties: Ties,
) -> Real[Tensor, "some label"]:
    """1 + tokens above + what the rule makes of others that are as likely."""
    above = _counts(logits, scores, torch.gt) if ties is not Ties.PESSIMISTIC else None
    if ties is Ties.OPTIMISTIC:
        assert above is not None
        return 1 + above
    own = torch.stack(
        [
            (logits[:, sorted(set(label.tokens))] == scores[:, place, None]).sum(dim=1)
            for place, label in enumerate(labels)
        ],
        dim=1,
    )
    upper = 1 + _counts(logits, scores, torch.ge) - own
    return upper if above is None else (upper + 1 + above) / 2


def _counts(
    logits: Float[Tensor, "some token"],
    scores: Float[Tensor, "some label"],
    compare: Callable[[Tensor, Tensor], Tensor],
) -> Int[Tensor, "some label"]:
    """How many tokens compare with each word's score."""
    found = torch.empty(scores.shape, dtype=torch.int64, device=scores.device)
    for rows in _few(logits):
        for label in range(scores.shape[1]):
            hits = compare(logits[rows], scores[rows, label : label + 1])
            found[rows, label] = hits.sum(dim=1, dtype=torch.int32).long()
    return found


def _log_sum(logits: Float[Tensor, "some token"]) -> Float[Tensor, " some"]:
    return torch.cat([logits[rows].logsumexp(dim=1) for rows in _few(logits)])


def _few(logits: Float[Tensor, "some token"]) -> Iterator[slice]:
    """Rows that stay in the cache together; all of them on an accelerator."""
    step = len(logits) if logits.is_cuda else max(1, COUNTED // logits.shape[1])
    return (slice(start, start + step) for start in range(0, len(logits), step))
